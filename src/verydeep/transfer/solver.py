"""App. B: linear SVMs, one class against the rest, all classes at once.

For each class, with y = 1 for images that have it and -1 for those that have not (0: ignored), minimise

    (|w|² + b²) / 2 + C · sum of loss(y f),   f = w·x + b,   loss(m) = max(0, 1 - m)²  or  max(0, 1 - m),

where b is penalised like w: a descriptor has one more dimension, which is 1 (as in LIBLINEAR, Fan et al. 2008).
While many points are within the margin, the loss is replaced, step by step, by the parabola above it, which is least
squares with one matrix for all classes, with Nesterov's acceleration (1983). Newton's method on the points within the
margin (Chapelle 2007; Keerthi & DeCoste 2005) ends at the exact minimum of the squared hinge; the hinge is a limit of
losses with a quadratic corner. In the Gram form w = sum of beta_i x_i, and one Gram matrix of all descriptors serves
every class, C and part of the images; the primal form is for many more images than dimensions. The duality gap bounds
the distance to the minimum.

An image of weight v has v times the loss. That is the same problem with its row and its margin of 1 multiplied by the
root of v (squared hinge) or by v (hinge): v · max(0, 1 - m)² = max(0, s - s m)² with s² = v.

Shapes: n images, D dimensions with the constant one, K classes, P parameters of w. Everything is float64, on any
device.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..core.errors import VerydeepError

Loss = Literal["squared-hinge", "hinge"]
MOST_STEPS, BISECTIONS = 500, 40
SMALL_GAP = 1e-9  # relative, of a class that has converged
ENOUGH = 1e-12  # relative decrease of the objective below which a step counts as none
APPROACHES, CHECK_EVERY = 60, 10  # of the first, joint steps
MANY = 0.2  # share of points within the margin from which joint steps are cheaper
LARGEST_GAP = {"squared-hinge": 1e-4, "hinge": 1e-2}  # the hinge's bound is loose
HINGE_GAP, CORNERS = 1e-6, (1.0, 0.1, 1e-2, 1e-3, 1e-4, 1e-5)


class GramForm:
    """w by its coefficients beta, (P,K) with P = n, from the descriptors' Gram matrix (n,n), constant included."""

    def __init__(self, gram: Tensor) -> None:
        self._gram = gram
        self._inverse: tuple[float, Tensor] | None = None

    def scores(self, coefficients: Tensor) -> Tensor:
        """f of every image, (n,K)."""
        return self._gram @ coefficients

    def product(self, left: Tensor, left_scores: Tensor, right: Tensor, right_scores: Tensor) -> Tensor:
        """w·w' of two sets of coefficients with their scores, class by class, (K,)."""
        return (left * right_scores).sum(0)

    def from_dual(self, beta: Tensor) -> Tensor:
        """The coefficients of w = sum of beta_i x_i, for beta (n,K)."""
        return beta

    def solve(self, active: Tensor, targets: Tensor, slopes: Tensor, curvature: float) -> Tensor:
        """Where |w|²/2 + sum over active of curvature/2 (target - f)² - sum of slope · f is least, (P,).

        It is (G_AA + 1/curvature) beta_A = target_A - (G slope)_A, beta = slope elsewhere.

        Args:
            active: bool (n,).
            targets: (n,), read where active.
            slopes: (n,), 0 where active.
        """
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
            beta[inside] = _solve_definite(matrix, right)
        return beta

    def _but_few(self, active: Tensor, inside: Tensor, right: Tensor, curvature: float) -> Tensor:
        """The same if few are not active: by the inverse for all images, which all classes share."""
        inverse = self._inverted(curvature)
        outside = (~active).nonzero()[:, 0]
        whole = torch.zeros_like(active, dtype=inverse.dtype)
        whole[inside] = right
        if len(outside):
            # The right side outside is what makes the solution 0 there.
            first = inverse @ whole
            whole[outside] = _solve_definite(inverse[outside[:, None], outside], -first[outside])
        return (inverse @ whole)[inside]

    def ridge(self, targets: Tensor, curvature: float) -> tuple[Tensor, Tensor]:
        """Where |w|²/2 + sum of curvature/2 (target - f)² is least for targets (n,K): coefficients and scores.

        It is beta = (G + 1/curvature)^-1 target, and G beta is the target minus beta/curvature.
        """
        beta = self._inverted(curvature) @ targets
        return beta, targets - beta / curvature

    def _inverted(self, curvature: float) -> Tensor:
        """(G + 1/curvature)^-1, cached for the last curvature."""
        if self._inverse is None or self._inverse[0] != curvature:
            matrix = self._gram.clone()
            matrix.diagonal().add_(1 / curvature)
            self._inverse = curvature, torch.cholesky_inverse(torch.linalg.cholesky(matrix))
        return self._inverse[1]


class PrimalForm:
    """w itself, (P,K) with P = D, from descriptors with their constant dimension (n,D); methods as of `GramForm`."""

    def __init__(self, rows: Tensor) -> None:
        self._rows = rows
        self._square = rows.T @ rows

    def scores(self, coefficients: Tensor) -> Tensor:
        """f of every image, (n,K)."""
        return self._rows @ coefficients

    def product(self, left: Tensor, left_scores: Tensor, right: Tensor, right_scores: Tensor) -> Tensor:
        """w·w' class by class, (K,)."""
        return (left * right).sum(0)

    def from_dual(self, beta: Tensor) -> Tensor:
        """w = sum of beta_i x_i."""
        return self._rows.T @ beta

    def solve(self, active: Tensor, targets: Tensor, slopes: Tensor, curvature: float) -> Tensor:
        """The solution of (X_A'X_A + 1/curvature) w = X_A' target_A + X' slope / curvature."""
        many = 2 * int(active.sum()) > len(active)
        chosen = self._rows[~active if many else active]
        square = chosen.T @ chosen
        matrix = self._square - square if many else square
        matrix.diagonal().add_(1 / curvature)
        return _solve_definite(matrix, self._rows.T @ torch.where(active, targets, slopes / curvature))

    def ridge(self, targets: Tensor, curvature: float) -> tuple[Tensor, Tensor]:
        """The solution of (X'X + 1/curvature) w = X' target, and its scores."""
        matrix = self._square.clone()
        matrix.diagonal().add_(1 / curvature)
        state = torch.cholesky_solve(self._rows.T @ targets, torch.linalg.cholesky(matrix))
        return state, self._rows @ state


Form = GramForm | PrimalForm


def _solve_definite(matrix: Tensor, right: Tensor) -> Tensor:
    """The solution of a positive definite system, (m,)."""
    return torch.cholesky_solve(right[:, None], torch.linalg.cholesky(matrix))[:, 0]


@dataclass(frozen=True)
class Solution:
    """The solution for one C: coefficients (P,K), scores (n,K), objective (K,), and its relative duality gap (K,)."""

    C: float
    coefficients: Tensor
    scores: Tensor
    objective: Tensor
    gap: Tensor


def solve_path(
    form: Form,
    marks: Tensor,
    values: tuple[float, ...],
    loss: Loss = "squared-hinge",
    margins: Tensor | None = None,
) -> Iterator[Solution]:
    """Solves for each C, from the smallest up; each starts from the solution of the last.

    Args:
        marks: (n,K), 1, -1 or 0.
        values: of C.
        margins: (n,1), the factors by which the form's rows are multiplied; 1 by default.

    Raises:
        VerydeepError: C is too large for these descriptors.
    """
    marks = marks.to(torch.float64)
    problem = Problem(form, marks, loss, torch.ones_like(marks[:, :1]) if margins is None else margins)
    state = form.from_dual(torch.zeros_like(marks))
    for C in sorted(values):
        bound = torch.zeros(marks.shape[1], dtype=marks.dtype, device=marks.device)
        for corner in (0.0,) if loss == "squared-hinge" else CORNERS:
            steps = _Steps(problem, C, corner, state)
            state = steps.run()
            objective = problem.objective(C, state, steps.scores)
            bound = torch.maximum(bound, problem.dual(C, steps.beta(steps.scores)))
            gap = (objective - bound) / objective.clamp(min=1e-300)
            if loss == "hinge" and float(gap.max()) <= HINGE_GAP:
                break
        _check_gap(C, loss, gap)
        yield Solution(C, state, steps.scores, objective, gap)


def _check_gap(C: float, loss: Loss, gap: Tensor) -> None:
    if not bool((gap <= LARGEST_GAP[loss]).all()):  # also for NaN
        raise VerydeepError(
            f"the SVM of C = {C:g} cannot be solved in float64 (duality gap {float(gap.max()):.0e} of the objective): "
            "use a smaller C, or descriptors of length 1 (--normalise both)."
        )


@dataclass(frozen=True)
class Problem:
    """What the SVMs of every C share: ``marks`` float64 (n,K), and ``margins`` (n,1), 1 for images of weight 1."""

    form: Form
    marks: Tensor
    loss: Loss
    margins: Tensor

    def objective(self, C: float, state: Tensor, scores: Tensor) -> Tensor:
        """The objective, (K,)."""
        short = torch.where(self.marks == 0, 0.0, self.margins - self.marks * scores).clamp(min=0)
        losses = (short.square() if self.loss == "squared-hinge" else short).sum(0)
        return self.form.product(state, scores, state, scores) / 2 + C * losses

    def dual(self, C: float, beta: Tensor) -> Tensor:
        """A lower bound on the objective, (K,), from y alpha = beta (n,K)."""
        weights, alpha = self.form.from_dual(beta), beta * self.marks
        scores = self.form.scores(weights)
        dual = (alpha * self.margins).sum(0) - self.form.product(weights, scores, weights, scores) / 2
        return dual if self.loss == "hinge" else dual - alpha.square().sum(0) / (4 * C)


class _Steps:
    """Steps for one C, all classes side by side; ``corner`` 0 is the squared hinge.

    The hinge's corner at a margin of 1 is rounded by a parabola between 1 - corner and 1 + corner.
    """

    def __init__(self, problem: Problem, C: float, corner: float, state: Tensor) -> None:
        self.problem, self.form, self.marks, self.C, self.corner = problem, problem.form, problem.marks, C, corner
        self.curvature = 2 * C if corner == 0 else C / (2 * corner)
        self.state = state.clone()
        self.scores = self.form.scores(self.state)
        self.targets = self.marks * (problem.margins + corner)

    def pieces(self, scores: Tensor, marks: Tensor) -> tuple[Tensor, Tensor]:
        """Where a loss is quadratic, and where it is linear and not 0, bool (n,K) each."""
        products, margins = marks * scores, self.problem.margins
        short = (products < margins + self.corner) & (marks != 0)
        straight = short & (products < margins - self.corner) if self.corner else torch.zeros_like(short)
        return short & ~straight, straight

    def beta(self, scores: Tensor) -> Tensor:
        """Minus the losses' derivatives at scores (n,K): a dual point."""
        quadratic, straight = self.pieces(scores, self.marks)
        return self.curvature * (self.targets - scores) * quadratic + self.C * self.marks * straight

    def losses(self, scores: Tensor, columns: Tensor) -> Tensor:
        """The sum of losses of k classes, (k,), C included."""
        marks, targets = self.marks[:, columns], self.targets[:, columns]
        quadratic, straight = self.pieces(scores, marks)
        bent = self.curvature / 2 * ((targets - scores).square() * quadratic).sum(0)
        return bent + self.C * ((self.problem.margins - marks * scores) * straight).sum(0)

    def run(self) -> Tensor:
        """Steps until every class has converged, at most `MOST_STEPS`; then the duality gap is checked."""
        left = torch.arange(self.marks.shape[1], device=self.marks.device)
        if self._many():
            left = left[self._approach()]
        for _ in range(MOST_STEPS):
            if not len(left):
                break
            left = left[self._step(left)]
        return self.state

    def _approach(self) -> Tensor:
        """Joint steps of all classes; returns which of them have not converged, bool (K,).

        A loss is nowhere more curved than its parabola, so the parabola through a point lies above it.
        """
        ahead, pace, squared = self.scores, 1.0, self.corner == 0
        unsettled = torch.ones(self.marks.shape[1], dtype=torch.bool, device=self.marks.device)
        for number in range(1, APPROACHES + 1):
            parabola = ahead + self.beta(ahead) / self.curvature
            self.state, scores = self.form.ridge(parabola, self.curvature)
            faster = (1 + (1 + 4 * pace**2) ** 0.5) / 2
            ahead = scores + (pace - 1) / faster * (scores - self.scores)
            self.scores, pace = scores, faster
            if number % CHECK_EVERY:
                continue
            if squared:
                objective = self.problem.objective(self.C, self.state, scores)
                bound = self.problem.dual(self.C, self.beta(scores))
                unsettled = objective - bound > SMALL_GAP * objective
            if not (bool(unsettled.any()) and self._many()):
                break
        return unsettled

    def _many(self) -> bool:
        """Whether joint steps are cheaper."""
        return float(self.pieces(self.scores, self.marks)[0].to(torch.float32).mean()) > MANY

    def _step(self, columns: Tensor) -> Tensor:
        """One step of k classes; returns which of them have not converged, bool (k,)."""
        old, old_scores, marks = self.state[:, columns], self.scores[:, columns], self.marks[:, columns]
        before = self.pieces(old_scores, marks)
        solved = [
            self.form.solve(
                before[0][:, k], self.targets[:, column], self.C * marks[:, k] * before[1][:, k], self.curvature
            )
            for k, column in enumerate(columns.tolist())
        ]
        new = torch.stack(solved, dim=1)
        new_scores = self.form.scores(new)
        after = self.pieces(new_scores, marks)
        exact = ((before[0] == after[0]) & (before[1] == after[1])).all(0)
        length = torch.ones(len(columns), dtype=old.dtype, device=old.device)
        start, full = (self._objective(*pair, columns) for pair in ((old, old_scores), (new, new_scores)))
        if bool((full > start).any()):
            length = torch.where(full > start, self._length(old, old_scores, new, new_scores, columns), length)
        kept, kept_scores = old + length * (new - old), old_scores + length * (new_scores - old_scores)
        end = self._objective(kept, kept_scores, columns)
        self.state[:, columns], self.scores[:, columns] = kept, kept_scores
        return ~exact & (start - end > ENOUGH * start.abs())

    def _objective(self, state: Tensor, scores: Tensor, columns: Tensor) -> Tensor:
        return self.form.product(state, scores, state, scores) / 2 + self.losses(scores, columns)

    def _length(self, old: Tensor, old_scores: Tensor, new: Tensor, new_scores: Tensor, columns: Tensor) -> Tensor:
        """The step length, 0 to 1, at which the objective is least, (k,), by bisection of its slope."""
        step, step_scores = new - old, new_scores - old_scores
        first = self.form.product(old, old_scores, step, step_scores)
        second = self.form.product(step, step_scores, step, step_scores)
        marks, targets = self.marks[:, columns], self.targets[:, columns]
        low, high = torch.zeros_like(first), torch.ones_like(first)
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            scores = old_scores + middle * step_scores
            quadratic, straight = self.pieces(scores, marks)
            pull = self.curvature * (targets - scores) * quadratic + self.C * marks * straight
            rising = first + middle * second - (pull * step_scores).sum(0) > 0
            low, high = torch.where(rising, low, middle), torch.where(rising, middle, high)
        return (low + high) / 2
