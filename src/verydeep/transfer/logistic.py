"""Multinomial logistic regression on descriptors: the last layer of a net whose other layers are frozen."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

DECAY = 1e-4  # L2 penalty on weights, for descriptors of mean squared length 1; errors hardly depend on it (NOTES.md)
MOST_STEPS = 200


def fit_logistic(
    rows: Tensor,
    labels: Tensor,
    classes: int,
    decay: float = DECAY,
    factors: Tensor | None = None,
    start: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Weights (K,D) and biases (K,) that minimise mean cross-entropy plus ``decay`` / 2 times the squared weights.

    The penalty applies to descriptors scaled by one factor to a mean squared length of 1. Solved by L-BFGS.

    Args:
        rows: descriptors, float (N,D).
        labels: class numbers, long (N,).
        factors: of the cross-entropy of each class's rows, (K,); None for 1.
        start: weights and biases to start from, such as those of another ``decay``; None for 0.
    """
    scale = rows.square().sum(1).mean().sqrt().clamp_min(torch.finfo(rows.dtype).tiny)
    scaled = rows / scale
    weights, biases = (rows.new_zeros(classes, rows.shape[1]), rows.new_zeros(classes)) if start is None else start
    weights, biases = (weights * scale).requires_grad_(), biases.clone().requires_grad_()
    solver = torch.optim.LBFGS(
        [weights, biases],
        max_iter=MOST_STEPS,
        tolerance_grad=1e-6,
        tolerance_change=1e-9,
        line_search_fn="strong_wolfe",
    )

    def loss() -> Tensor:
        solver.zero_grad()
        scores = F.linear(scaled, weights, biases)
        value = F.cross_entropy(scores, labels, factors) + decay / 2 * weights.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    solver.step(loss)  # type: ignore[no-untyped-call]
    return weights.detach() / scale, biases.detach()
