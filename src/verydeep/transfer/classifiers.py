"""Classifiers on descriptors beside SVMs, as other work evaluates descriptors.

- Logistic regression, with scikit-learn's objective: |w|²/2 + C · sum of cross-entropy, the bias not penalised. Of
  images of one class each, soft-max over classes; else one class against the rest.
- The k nearest training images by the cosine of descriptors. A class's score is the share of the neighbours that have
  it, where a neighbour of cosine c counts exp(c / 0.07) times (Wu et al. 2018; DINO's k-NN evaluation).

A classifier is chosen among several values of C, or k, like SVMs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..core.errors import VerydeepError
from .descriptors import Array, unit
from .logistic import fit_logistic
from .splits import Indices
from .svm import LinearSvm

TEMPERATURE = 0.07
BLOCK = 1024  # images whose neighbours are found at once


class Classifier(Protocol):
    """A trained classifier: the value of C, or k, and the duality gap, NaN where there is none."""

    @property
    def C(self) -> float: ...
    @property
    def gap(self) -> float: ...
    def scores(self, rows: Array) -> NDArray[np.float64]:
        """(N,K) of descriptors (N,D)."""

    def arrays(self) -> dict[str, NDArray[np.float32] | NDArray[np.int8]]:
        """What a classifier's file holds."""


class Trainer(Protocol):
    """Trains classifiers on images, or on parts of them."""

    def fit(self, values: tuple[float, ...], images: Indices | None = None) -> Iterator[Classifier]:
        """The classifier of each value, from the smallest up; ``images`` are indices, all by default."""


class LogisticTrainer:
    """Logistic regression on descriptors (n,D) with marks (n,K): 1 has, -1 has not, 0 ignored."""

    def __init__(self, rows: Array, marks: NDArray[np.int8], device: str, weights: NDArray[np.float64] | None) -> None:
        """``weights`` (n,) multiply the images' losses, equally for images of a class; None for 1."""
        self._rows, self._marks = torch.from_numpy(rows).to(device), torch.from_numpy(marks).to(device)
        self._weights = np.ones(len(rows)) if weights is None else weights

    def fit(self, values: tuple[float, ...], images: Indices | None = None) -> Iterator[LinearSvm]:
        """The linear classifier of each C; raises VerydeepError for a class that no image or every image has."""
        chosen = np.arange(len(self._rows)) if images is None else images
        rows, marks, weights = self._rows[chosen], self._marks[chosen], self._weights[chosen]
        for number in range(marks.shape[1]):
            if not bool((marks[:, number] == 1).any() & (marks[:, number] == -1).any()):
                raise VerydeepError(f"class {number} has no training images, or all of them: it cannot be separated.")
        found: tuple[Tensor, Tensor] | None = None  # of the C before, from which the next one needs fewer steps
        for C in sorted(values):
            if bool(((marks == 1).sum(1) == 1).all() & (marks != 0).all()):
                found = _softmax(rows, marks.argmax(1), weights, C, found)
            else:
                found = _one_vs_rest(rows, marks, C)
            coefficients, biases = found
            yield LinearSvm(C, coefficients.contiguous().cpu().numpy(), biases.cpu().numpy(), math.nan)


def _softmax(
    rows: Tensor, labels: Tensor, weights: NDArray[np.float64], C: float, start: tuple[Tensor, Tensor] | None
) -> tuple[Tensor, Tensor]:
    """Weights (D,K) and biases (K,); ``weights`` (n,) are equal for images of a class, ``start`` is of another C."""
    classes = int(labels.max()) + 1
    factors = torch.ones(classes, dtype=rows.dtype, device=rows.device)
    factors[labels] = torch.from_numpy(weights).to(rows)
    begin = None if start is None else (start[0].T, start[1])
    decay = _decay(rows, C * float(weights.sum()))
    found, biases = fit_logistic(rows, labels, classes, decay, factors, begin)
    return found.T, biases


def _one_vs_rest(rows: Tensor, marks: Tensor, C: float) -> tuple[Tensor, Tensor]:
    """Weights (D,K) and biases (K,) of K regressions.

    Soft-max over two classes has the weights ± w / 2, so that its penalty is half as large: its decay is doubled.
    """
    columns = []
    for number in range(marks.shape[1]):
        counted = marks[:, number] != 0
        part, labels = rows[counted], (marks[counted, number] == 1).long()
        weights, biases = fit_logistic(part, labels, 2, 2 * _decay(part, C * len(part)))
        columns.append((weights[1] - weights[0], biases[1] - biases[0]))
    return torch.stack([w for w, _ in columns], dim=1), torch.stack([b for _, b in columns])


def _decay(rows: Tensor, total: float) -> float:
    """`fit_logistic`'s penalty, which is of descriptors of mean squared length 1, for |w|²/2 + total · mean loss."""
    return 1 / (total * float(rows.square().sum(1).mean()))


@dataclass(frozen=True)
class Neighbours:
    """The k nearest of n training images: ``rows`` float32 (n,D) of length 1, ``marks`` int8 (n,K)."""

    C: float  # k
    rows: Array
    marks: NDArray[np.int8]
    gap: float = math.nan

    def scores(self, rows: Array) -> NDArray[np.float64]:
        """The share of the neighbours that have a class, 0 to 1, of descriptors (N,D): (N,K)."""
        k = min(int(self.C), len(self.rows))
        has, counts = (self.marks == 1).astype(np.float64), (self.marks != 0).astype(np.float64)
        scores = np.zeros((len(rows), self.marks.shape[1]))
        for start in range(0, len(rows), BLOCK):
            cosines = (unit(rows[start : start + BLOCK]) @ self.rows.T).astype(np.float64)
            nearest = np.argsort(-cosines, axis=1, kind="stable")[:, :k]
            close = np.take_along_axis(cosines, nearest, axis=1)
            votes = np.exp((close - close[:, :1]) / TEMPERATURE)[:, :, None]
            total = (votes * counts[nearest]).sum(axis=1)
            scores[start : start + BLOCK] = (votes * has[nearest]).sum(axis=1) / np.where(total > 0, total, 1)
        return scores

    def arrays(self) -> dict[str, NDArray[np.float32] | NDArray[np.int8]]:
        """``rows`` and ``marks``."""
        return {"rows": self.rows, "marks": self.marks}


class NeighbourTrainer:
    """Keeps training images (n,D) with marks (n,K)."""

    def __init__(self, rows: Array, marks: NDArray[np.int8]) -> None:
        self._rows, self._marks = unit(rows), marks

    def fit(self, values: tuple[float, ...], images: Indices | None = None) -> Iterator[Neighbours]:
        """The classifier of each k."""
        chosen = np.arange(len(self._rows)) if images is None else images
        for k in sorted(values):
            yield Neighbours(k, self._rows[chosen], self._marks[chosen])
