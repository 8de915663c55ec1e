"""Sect. 3.1: the mean RGB value and the colour axes of a training set, and the random colour shift along them."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

ColourShift = Literal["sqrt", "eigenvalue", "off"]


def pixel_sums(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """One photo's mean colour and mean outer product of colours, (12,): what mean and PCA need."""
    flat = pixels.reshape(-1, 3).astype(np.float64)
    return np.concatenate([flat.mean(axis=0), (flat.T @ flat / len(flat)).ravel()])


def colour_statistics(sums: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean RGB (3,) and colour axes (3,3) of a training set, each photo counting the same.

    Args:
        sums: the photos' `pixel_sums` averaged over the set, (12,).

    Returns:
        The mean, and a matrix whose columns are eigenvectors of the colours' covariance scaled by the
        square root of their eigenvalues, in grey levels, largest first.
    """
    mean, second = sums[:3], sums[3:].reshape(3, 3)
    values, vectors = np.linalg.eigh(second - np.outer(mean, mean))
    order = np.argsort(values)[::-1]
    axes = vectors[:, order] * np.sqrt(np.maximum(values[order], 0))
    signs = np.sign(axes[np.abs(axes).argmax(axis=0), range(3)])  # eigh leaves them free: fix them
    return mean, axes * np.where(signs == 0, 1, signs)


def colour_shift(
    axes: NDArray[np.float64], convention: ColourShift, rng: np.random.Generator, sigma: float = 0.1
) -> NDArray[np.float32]:
    """One photo's RGB shift in grey levels, (3,): a draw alpha ~ N(0, sigma) for each colour axis.

    ``sqrt`` moves along an axis by alpha times the square root of its eigenvalue (Krizhevsky's and
    Oxford's code); ``eigenvalue`` by alpha times the eigenvalue of colours in [0, 1] (the text of
    Krizhevsky et al. 2012), back in grey levels; ``off`` draws the same numbers and moves nothing.
    """
    alpha = rng.normal(0.0, sigma, 3)
    if convention == "sqrt":
        return np.asarray(axes @ alpha, dtype=np.float32)
    if convention == "eigenvalue":
        lengths = np.linalg.norm(axes, axis=0)  # sqrt of eigenvalue, grey levels
        return np.asarray((axes * (lengths / 255)) @ alpha, dtype=np.float32)
    return np.zeros(3, dtype=np.float32)
