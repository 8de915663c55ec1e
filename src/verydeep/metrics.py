"""Sect. 4: arrays in, numbers out. Errors are percentages; N photos, K classes.

Ties: among equal posteriors the class of lower index ranks first, so a constant answer is right on
class 0 alone.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from .errors import VerydeepError

FloatArray = NDArray[np.floating]


def label_ranks(posteriors: FloatArray, labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many classes rank before the right one, (N,): 0 where the best guess is right.

    Args:
        posteriors: (N,K), any real scores.
        labels: (N,), 0 to K-1.

    Raises:
        VerydeepError: a posterior is NaN.
    """
    if np.isnan(posteriors).any():
        row = int(np.isnan(posteriors).any(axis=1).argmax())
        raise VerydeepError(f"the posterior of photo number {row} is NaN: the net or the scores are broken.")
    right = posteriors[np.arange(len(labels)), labels][:, None]
    before = np.arange(posteriors.shape[1])[None, :] < labels[:, None]
    ranks: NDArray[np.int64] = ((posteriors > right) | ((posteriors == right) & before)).sum(axis=1, dtype=np.int64)
    return ranks


def topk_error(posteriors: FloatArray, labels: NDArray[np.int64], k: int) -> float | None:
    """Percentage of photos whose class is not among the k best; None where K <= k leaves no question."""
    if posteriors.shape[1] <= k:
        return None
    return 100.0 * float((label_ranks(posteriors, labels) >= k).mean())


def error_interval(error: float, photos: int) -> tuple[float, float]:
    """Wilson's 95 % interval of an error of ``error`` percent on ``photos`` photos, in percent."""
    z, p = 1.959963984540054, error / 100
    centre = (p + z * z / (2 * photos)) / (1 + z * z / photos)
    half = z / (1 + z * z / photos) * math.sqrt(p * (1 - p) / photos + z * z / (4 * photos**2))
    return max(0.0, 100 * (centre - half)), min(100.0, 100 * (centre + half))


def mean_log_loss(posteriors: FloatArray, labels: NDArray[np.int64]) -> float:
    """Mean of -log of the right class's posterior; posteriors of 0 count as float32's least."""
    right = posteriors[np.arange(len(labels)), labels].astype(np.float64)
    return float(-np.log(np.maximum(right, np.finfo(np.float32).tiny)).mean())


def confusion(posteriors: FloatArray, labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Counts (K,K): row the class, column the best guess."""
    classes = posteriors.shape[1]
    pairs = labels * classes + posteriors.argmax(axis=1)
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def chance_error(labels: NDArray[np.int64]) -> float:
    """Top-1 error in percent of always guessing the commonest class."""
    return 100.0 * (1 - float(np.bincount(labels).max()) / len(labels))
