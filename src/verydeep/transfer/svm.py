"""App. B: linear SVMs on descriptors; the Gram matrix of all training images is computed once, for every part."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..core.errors import VerydeepError
from .solver import GramForm, Loss, PrimalForm, solve_path

WIDE, TALL = 2048, 1024  # dimensions converted to float64 at once, and images of a block of the Gram matrix
PRIMAL_FROM = 10  # images per dimension from which primal steps are cheaper
MOST_IMAGES = 20_000  # of a Gram matrix


@dataclass(frozen=True)
class LinearSvm:
    """K linear classifiers: ``weights`` float32 (D,K), ``bias`` float32 (K,), and the largest relative duality gap.

    Those of logistic regression have no gap, NaN.
    """

    C: float
    weights: NDArray[np.float32]
    bias: NDArray[np.float32]
    gap: float

    def scores(self, rows: NDArray[np.float32]) -> NDArray[np.float64]:
        """w·x + b of descriptors (N,D): (N,K), summed in float64."""
        return rows.astype(np.float64) @ self.weights.astype(np.float64) + self.bias

    def arrays(self) -> dict[str, NDArray[np.float32] | NDArray[np.int8]]:
        """What a classifier's file holds."""
        return {"weights": self.weights, "bias": self.bias}


class SvmTrainer:
    """Trains SVMs on all images, or on a part of them while C is chosen on the rest."""

    def __init__(
        self,
        rows: NDArray[np.float32],
        marks: NDArray[np.int8],
        loss: Loss = "squared-hinge",
        device: str | torch.device = "cpu",
        weights: NDArray[np.float64] | None = None,
    ) -> None:
        """Takes images.

        Args:
            rows: descriptors (n,D), without the constant dimension; float64 is allowed.
            marks: (n,K): 1 has, -1 has not, 0 ignored.
            weights: (n,), above 0, by which each image's loss is multiplied; None for 1.
        """
        self._rows = torch.from_numpy(rows).to(device)
        self._marks, self._loss = torch.from_numpy(marks).to(device), loss
        self._gram: Tensor | None = None
        self._margins: Tensor | None = None
        if weights is not None:
            margins = np.sqrt(weights) if loss == "squared-hinge" else weights
            self._margins = torch.from_numpy(margins).to(device)[:, None]

    def fit(self, values: tuple[float, ...], images: NDArray[np.int64] | None = None) -> Iterator[LinearSvm]:
        """The SVMs of each C, from the smallest up, in float32; arguments as of `solutions`."""
        for C, weights, bias, gap in self.solutions(values, images):
            yield LinearSvm(C, weights.float().cpu().numpy(), bias.float().cpu().numpy(), gap)

    def solutions(
        self, values: tuple[float, ...], images: NDArray[np.int64] | None = None
    ) -> Iterator[tuple[float, Tensor, Tensor, float]]:
        """C, weights (D,K), bias (K,) and the largest duality gap of each C, from the smallest up, in float64.

        Args:
            images: indices of the training images; all by default.

        Raises:
            VerydeepError: a class that no image or every image has; a C too large for these descriptors.
        """
        chosen = torch.arange(len(self._rows)) if images is None else torch.from_numpy(images)
        rows, marks = self._rows[chosen], self._marks[chosen]
        lone = [k for k in range(marks.shape[1]) if not (bool((marks[:, k] == 1).any() & (marks[:, k] == -1).any()))]
        if lone:
            raise VerydeepError(f"class {lone[0]} has no training images, or all of them: it cannot be separated.")
        margins = None if self._margins is None else self._margins[chosen]
        if len(rows) > min(PRIMAL_FROM * (rows.shape[1] + 1), MOST_IMAGES):
            primal = _with_constant(rows)
            for solution in solve_path(
                PrimalForm(primal if margins is None else primal * margins), marks, values, self._loss, margins
            ):
                yield solution.C, solution.coefficients[:-1], solution.coefficients[-1], float(solution.gap.max())
            return
        products = self._products(chosen, images is None) + 1
        products = products if margins is None else products * margins * margins.T
        for solution in solve_path(GramForm(products), marks, values, self._loss, margins):
            beta = solution.coefficients if margins is None else solution.coefficients * margins
            yield solution.C, _weights(rows, beta), beta.sum(0), float(solution.gap.max())

    def _products(self, chosen: Tensor, whole: bool) -> Tensor:
        if self._gram is None:
            self._gram = gram(self._rows)
        return self._gram if whole else self._gram[chosen[:, None], chosen]


def gram(rows: Tensor) -> Tensor:
    """The Gram matrix (n,n) of descriptors (n,D), summed in float64; only one triangle is computed."""
    total = torch.zeros(len(rows), len(rows), dtype=torch.float64, device=rows.device)
    for wide in torch.split(rows, WIDE, dim=1):
        block = wide.double()
        for start in range(0, len(rows), TALL):
            total[start : start + TALL, start:].addmm_(block[start : start + TALL], block[start:].T)
    return total.triu_() + total.triu(1).T


def _with_constant(rows: Tensor) -> Tensor:
    ones = torch.ones(len(rows), 1, dtype=torch.float64, device=rows.device)
    return torch.cat([rows.double(), ones], dim=1)


def _weights(rows: Tensor, beta: Tensor) -> Tensor:
    """w = sum of beta_i x_i, (D,K)."""
    return torch.cat([block.double().T @ beta for block in torch.split(rows, WIDE, dim=1)])
