"""Rejection: images that a classifier gives no class for, but calls unknown (`predict --reject-at PERCENT`).

An image is unknown if its score is below a threshold (Chow 1970): the calibrated probability of its most likely class
or, of SVMs, the cosine of its descriptor and the nearest class mean. The threshold is chosen on labelled images that
training did not see, by their risk-coverage curve (El-Yaniv & Wiener 2010): of the answered images, those of the
highest scores, at most PERCENT may be wrong, and as many as possible are answered. One wrong image more than there is
counts, as the number of images is finite: (wrong + 1) / (answered + 1).

That is about images like these. Of classes that training did not have it promises nothing; docs/testing.md has what was
measured.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.errors import VerydeepError

RiskCoverage = list[list[float]]  # rows of a threshold, the images that are answered, and the wrong ones of these
POINTS = 100  # of a curve, at most
DIGITS = 6
USUAL = (10, 5, 1)  # percentages that reports show


@dataclass(frozen=True)
class Rejection:
    """The threshold for a percentage of errors; of the images that chose it all, the answered, the wrong of these.

    ``score`` is the name of what the threshold is of.
    """

    score: str
    percent: float
    threshold: float
    images: int
    answered: int
    wrong: int

    def __str__(self) -> str:
        return (
            f"images of a {self.score} below {self.threshold:.3f} are unknown; of the {self.images} images that chose "
            f"this, {self.answered} are answered, {self.wrong} of them wrongly (--reject-at {self.percent:g})"
        )


def risk_coverage(scores: NDArray[np.floating], right: NDArray[np.bool_]) -> RiskCoverage:
    """The risk-coverage curve: rows of a threshold, the images of at least this score, the wrong ones of these.

    Thresholds fall; the last row has all images. They are at most `POINTS`, at equal steps of coverage.

    Args:
        scores: (N,).
        right: whether the images are classified correctly, (N,).
    """
    falling = np.sort(scores)[::-1]
    places = np.unique(np.ceil(np.arange(1, POINTS + 1) / POINTS * len(falling)).astype(np.int64)) - 1
    scale = 10**DIGITS  # rounded down, so that no image is below its own threshold
    thresholds = np.unique(np.floor(falling[places].astype(np.float64) * scale) / scale)[::-1]
    answered = [scores >= threshold for threshold in thresholds]
    return [
        [float(threshold), int(inside.sum()), int((inside & ~right).sum())]
        for threshold, inside in zip(thresholds, answered, strict=True)
    ]


def check_calibrated(percent: float | None, calibration: bool) -> None:
    """Raises VerydeepError for a percentage without the calibration, which has the thresholds."""
    if percent is not None and not calibration:
        raise VerydeepError("reject-at is part of the calibration: leave out --no-calibration.")


def choose_threshold(curve: RiskCoverage, percent: float, score: str = "probability") -> Rejection:
    """The threshold that answers most images with at most ``percent`` errors among them.

    Raises:
        VerydeepError: there is none, or the percentage is not one.
    """
    if not 0 < percent < 100:
        raise VerydeepError(f"reject-at must be a percentage above 0 and below 100, not {percent:g}.")
    risks = [100 * (wrong + 1) / (answered + 1) for _, answered, wrong in curve]
    images = int(curve[-1][1])
    chosen = [point for point, risk in zip(curve, risks, strict=True) if risk <= percent]
    if not chosen:
        raise VerydeepError(
            f"{images} images cannot show an error of at most {percent:g} %: the least is {min(risks):.1f} %. Raise "
            "--reject-at, or calibrate on more images."
        )
    threshold, answered, wrong = chosen[-1]
    return Rejection(score, percent, float(threshold), images, int(answered), int(wrong))


def usual_rejections(curve: RiskCoverage) -> list[Rejection]:
    """The thresholds of the usual percentages, of those that have one."""
    found = []
    for percent in USUAL:
        with contextlib.suppress(VerydeepError):
            found.append(choose_threshold(curve, percent))
    return found


def rejection_results(
    curve: RiskCoverage, scores: NDArray[np.floating], right: NDArray[np.bool_]
) -> list[dict[str, Any]]:
    """What the usual thresholds do to other images, as `risk_coverage`: how many are answered, how many wrongly."""
    rows = []
    for chosen in usual_rejections(curve):
        answered = scores >= chosen.threshold
        tested = {"images": len(right), "answered": int(answered.sum()), "wrong": int((answered & ~right).sum())}
        rows.append({"reject_at": chosen.percent, "threshold": chosen.threshold, **tested})
    return rows
