"""Temperature scaling (Guo et al. 2017, Sect. 4.2): posteriors that are as often right as they say.

One number T for each protocol, fitted by the likelihood of images that training did not see. It is applied last, to the
logarithm of the posterior that the protocol averaged: p_k becomes p_k^(1/T), normalised. So the order of the classes,
and with it every error, stays; above 1 it lowers confidence.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.errors import VerydeepError
from .metrics import FloatArray

LARGEST = 100.0  # T, and the inverse of the least: beyond, posteriors are uniform or 0 and 1
LEAST_IMAGES = 20  # to fit one on: fewer say too little, even of one number
HALVINGS = 45  # of the range of log T, to less than 1e-12


def temperature_of(calibration: Mapping[str, Any], protocol: object) -> float | None:
    """The temperature that a net's metadata hold for a protocol; None without one."""
    fitted = calibration.get(str(protocol))
    return None if fitted is None else float(fitted["temperature"])


def tempered(posteriors: FloatArray, temperature: float) -> NDArray[np.float64]:
    """Posteriors (N,K) at a temperature; those of 0 count as float32's smallest normal number."""
    return softmax(_logarithms(posteriors) / temperature)


def fit_temperature(posteriors: FloatArray, labels: NDArray[np.int64]) -> float:
    """The temperature of posteriors (N,K) that has the least mean log loss, as `fit_to_scores`."""
    return fit_to_scores(_logarithms(posteriors), labels)


def fit_to_scores(scores: FloatArray, labels: NDArray[np.int64]) -> float:
    """The temperature of least mean log loss, of soft-max probabilities of scores / T.

    The loss is convex in b = 1/T: its slope, the mean of E[score] - score of the right class with E at b, rises with b.
    Where all N images are classified correctly no T would be the best, and an (N + 2)th of each label counts as uniform
    over the classes, as in Platt 1999 (Sect. 2.2).

    Args:
        scores: (N,K).
        labels: (N,).

    Raises:
        VerydeepError: there is no minimum, as the images are classified no better than by chance.
    """
    values: NDArray[np.float64] = scores.astype(np.float64)
    right = values[np.arange(len(labels)), labels].mean()
    correct = int((scores.argmax(axis=1) == labels).sum())
    if correct == len(labels):
        right += (values.mean() - right) / (correct + 2)

    def slope(inverse: float) -> float:
        return float(np.einsum("nk,nk->n", softmax(inverse * values), values).mean() - right)

    low, high = 1 / LARGEST, LARGEST
    if not slope(low) < 0 < slope(high):
        raise VerydeepError(
            f"no temperature is the best where {correct} of {len(labels)} images are classified correctly: calibrate "
            "on more images."
        )
    for _ in range(HALVINGS):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if slope(middle) > 0 else (middle, high)
    return 1 / math.sqrt(low * high)


def _logarithms(posteriors: FloatArray) -> NDArray[np.float64]:
    logs: NDArray[np.float64] = np.log(np.maximum(posteriors.astype(np.float64), np.finfo(np.float32).tiny))
    return logs


def softmax(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probabilities (N,K) of scores."""
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))
