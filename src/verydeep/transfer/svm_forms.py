"""App. B: how the w of linear SVMs is written, and least squares solved, all classes at once (see `svm`).

n photos, D dimensions with the constant one, K classes, P parameters. Everything is float64, on any device.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor


class Form(ABC):
    """How w is written: its coefficients, (P,K) for P parameters."""

    @abstractmethod
    def scores(self, coefficients: Tensor) -> Tensor:
        """f of every photo, (n,K)."""

    @abstractmethod
    def product(self, left: Tensor, left_scores: Tensor, right: Tensor, right_scores: Tensor) -> Tensor:
        """w·w' of two sets of coefficients with their scores, class by class, (K,)."""

    @abstractmethod
    def solve(self, active: Tensor, targets: Tensor, slopes: Tensor, curvature: float) -> Tensor:
        """Where |w|²/2 + sum over active of curvature/2 (target - f)² - sum of slope · f is least, (P,).

        Args:
            active: bool (n,).
            targets: (n,), read where active.
            slopes: (n,), 0 where active.
        """

    @abstractmethod
    def ridge(self, targets: Tensor, curvature: float) -> tuple[Tensor, Tensor]:
        """Where |w|²/2 + sum of curvature/2 (target - f)² is least for targets (n,K): coefficients and scores."""

    @abstractmethod
    def from_dual(self, beta: Tensor) -> Tensor:
        """The coefficients of w = sum of beta_i x_i, for beta (n,K)."""


class GramForm(Form):
    """By the products of descriptors, constant dimension included, (n,n); the parameters are beta."""

    def __init__(self, gram: Tensor) -> None:
        self._gram = gram
        self._inverse: tuple[float, Tensor] | None = None

    def scores(self, coefficients: Tensor) -> Tensor:
        """As `Form` says."""
        return self._gram @ coefficients

    def product(self, left: Tensor, left_scores: Tensor, right: Tensor, right_scores: Tensor) -> Tensor:
        """As `Form` says."""
        return (left * right_scores).sum(0)

    def from_dual(self, beta: Tensor) -> Tensor:
        """As `Form` says."""
        return beta

    def solve(self, active: Tensor, targets: Tensor, slopes: Tensor, curvature: float) -> Tensor:
        """As `Form` says: (G_AA + 1/curvature) beta_A = target_A - (G slope)_A, beta = slope elsewhere."""
        beta = slopes.clone()
        inside = active.nonzero()[:, 0]
        if not len(inside):
            return beta
        right = targets[inside]
        sloped = slopes.nonzero()[:, 0]
        if len(sloped):
            right = right - self._gram[inside[:, None], sloped] @ slopes[sloped]
        if 2 * len(inside) > len(active):
            beta[inside] = self._but_few(active, inside, right, curvature)
        else:
            matrix = self._gram[inside[:, None], inside]
            matrix.diagonal().add_(1 / curvature)
            beta[inside] = _solve(matrix, right)
        return beta

    def _but_few(self, active: Tensor, inside: Tensor, right: Tensor, curvature: float) -> Tensor:
        """The same where few are outside: by the inverse for all photos, which all classes share."""
        inverse = self._inverted(curvature)
        outside = (~active).nonzero()[:, 0]
        whole = torch.zeros_like(active, dtype=inverse.dtype)
        whole[inside] = right
        if len(outside):
            # The right side outside is what makes the solution 0 there.
            first = inverse @ whole
            whole[outside] = _solve(inverse[outside[:, None], outside], -first[outside])
        return (inverse @ whole)[inside]

    def ridge(self, targets: Tensor, curvature: float) -> tuple[Tensor, Tensor]:
        """As `Form` says: beta = (G + 1/curvature)^-1 target, and G beta is what is left of the target."""
        beta = self._inverted(curvature) @ targets
        return beta, targets - beta / curvature

    def _inverted(self, curvature: float) -> Tensor:
        """(G + 1/curvature)^-1, kept for the last curvature."""
        if self._inverse is None or self._inverse[0] != curvature:
            matrix = self._gram.clone()
            matrix.diagonal().add_(1 / curvature)
            self._inverse = curvature, torch.cholesky_inverse(torch.linalg.cholesky(matrix))
        return self._inverse[1]


class PrimalForm(Form):
    """By descriptors with their constant dimension, (n,D); the parameters are w."""

    def __init__(self, rows: Tensor) -> None:
        self._rows = rows
        self._square = rows.T @ rows

    def scores(self, coefficients: Tensor) -> Tensor:
        """As `Form` says."""
        return self._rows @ coefficients

    def product(self, left: Tensor, left_scores: Tensor, right: Tensor, right_scores: Tensor) -> Tensor:
        """As `Form` says."""
        return (left * right).sum(0)

    def from_dual(self, beta: Tensor) -> Tensor:
        """As `Form` says."""
        return self._rows.T @ beta

    def solve(self, active: Tensor, targets: Tensor, slopes: Tensor, curvature: float) -> Tensor:
        """As `Form` says: (X_A'X_A + 1/curvature) w = X_A' target_A + X' slope / curvature."""
        many = 2 * int(active.sum()) > len(active)
        chosen = self._rows[~active if many else active]
        square = chosen.T @ chosen
        matrix = self._square - square if many else square
        matrix.diagonal().add_(1 / curvature)
        return _solve(matrix, self._rows.T @ torch.where(active, targets, slopes / curvature))

    def ridge(self, targets: Tensor, curvature: float) -> tuple[Tensor, Tensor]:
        """As `Form` says."""
        matrix = self._square.clone()
        matrix.diagonal().add_(1 / curvature)
        state = torch.cholesky_solve(self._rows.T @ targets, torch.linalg.cholesky(matrix))
        return state, self._rows @ state


def _solve(matrix: Tensor, right: Tensor) -> Tensor:
    """Of a positive definite system, (m,)."""
    return torch.cholesky_solve(right[:, None], torch.linalg.cholesky(matrix))[:, 0]
