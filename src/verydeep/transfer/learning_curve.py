"""The error by the number of training images: are there enough of them?

Of each class the first n images of a random order are taken, for n = 1, 2, 5, 10, 20, 50, or all that the class has
where it has fewer; the classifier is trained on them with the C that the split's dev part chose among all, and tested
on the test images of the split. A draw is one random order of every class, so within a draw smaller sets are parts of
larger ones; the last point is all training images, and its error is that of the split.

What twice as many images would gain is read off a power law (error = a n^-b), fitted by least squares of logarithms to
the last points, from an eighth of all images on. Its 95 % interval is from a bootstrap of test images and draws.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.device import resolve_device
from ..core.errors import VerydeepError
from ..core.progress import Reporter
from ..core.settings import MachineSettings
from ..core.terminal import default_reporter
from ..evaluation.metrics import class_recalls
from .descriptors import combine
from .evaluate import ALL_CORES, SvmTask, Transfer
from .splits import Indices

SIZES = (1, 2, 5, 10, 20, 50)
DRAWS, MOST_DRAWS = 10, 100
LAST_PART = 1 / 8  # of all images: from there on the power law is fitted
RESAMPLES, MOST_GROUPS = 2000, 1000  # of the bootstrap; more test images are resampled in groups
LITTLE = 0.5  # points of error below which a gain is called little


@dataclass(frozen=True)
class CurvePoint:
    """Training on ``size`` images per class (None: all), ``images`` in total; errors in percent, one per draw."""

    size: int | None
    images: int
    top1_errors: tuple[float, ...]
    mean_class_recalls: tuple[float, ...]

    def to_json(self) -> dict[str, Any]:
        """With the mean and the sample standard deviation of the draws, None of a single one."""
        row: dict[str, Any] = {"images_per_class": self.size, "images": self.images, "draws": len(self.top1_errors)}
        for name in ("top1_error", "mean_class_recall"):
            values = getattr(self, f"{name}s")
            std = round(float(np.std(values, ddof=1)), 4) if len(values) > 1 else None
            row |= {name: round(float(np.mean(values)), 4), f"{name}_std": std}
        return row


@dataclass(frozen=True)
class Doubling:
    """What twice as many images would gain: points of top-1 error, and the 95 % interval.

    ``law`` are a and b of the fitted error a n^-b in percent, by the number n of all images.
    """

    gain: float
    interval: tuple[float, float]
    law: tuple[float, float]
    fitted_from: int

    @property
    def sentence(self) -> str:
        """For people who decide whether to collect images."""
        low, high = self.interval
        points = f"{self.gain:.1f} points (95 % interval {low:.1f} to {high:.1f})"
        if self.gain < LITTLE:
            return f"More images of these classes would gain little: twice as many about {points} of top-1 error."
        if low <= 0:
            return f"It is not clear whether more images would help: twice as many would gain about {points}."
        return f"Doubling the images would gain about {points} of top-1 error."


@dataclass(frozen=True)
class LearningCurve:
    """The points from few to all training images; ``doubling`` is None where there are too few to fit."""

    points: tuple[CurvePoint, ...]
    doubling: Doubling | None
    C: float
    seed: int
    classes: int
    test_images: int
    parameter: str = "C"  # of which C is the value: k of nearest neighbours

    @property
    def sentence(self) -> str:
        """What the curve says about more images."""
        if self.doubling is None:
            return "There are too few images to say what more of them would gain."
        return self.doubling.sentence

    def to_json(self) -> dict[str, Any]:
        """What ``result.json`` holds as ``curve``."""
        doubling = None
        if self.doubling is not None:
            low, high = self.doubling.interval
            doubling = {"gain": round(self.doubling.gain, 4), "gain_interval": [round(low, 4), round(high, 4)]}
            doubling |= {"law": [round(value, 6) for value in self.doubling.law]}
            doubling |= {"fitted_from_images": self.doubling.fitted_from}
        facts: dict[str, Any] = {self.parameter: self.C, "seed": self.seed}
        facts |= {"classes": self.classes, "test_images": self.test_images}
        rows = [point.to_json() for point in self.points]
        return {**facts, "points": rows, "doubling": doubling, "sentence": self.sentence}


def learning_curve(
    transfer: Transfer,
    draws: int = DRAWS,
    sizes: Sequence[int] = SIZES,
    machine: MachineSettings | None = None,
    reporter: Reporter | None = None,
) -> LearningCurve:
    """The error of classifiers trained on few to all training images of the first split, on its test images.

    Args:
        transfer: the result of `verydeep.learn_svms` on images of one class each.
        draws: how often images are drawn for each size; the first has the seed of the split.
        sizes: images per class.

    Raises:
        VerydeepError: images of several classes, no labelled test images, or invalid draws or sizes.
    """
    if not 1 <= draws <= MOST_DRAWS:
        raise VerydeepError(f"draws must be 1 to {MOST_DRAWS}, not {draws}.")
    if not sizes or min(sizes) < 1:
        raise VerydeepError("sizes must list numbers of images per class, 1 or more.")
    if transfer.splits[0].top1_error is None:
        raise VerydeepError(f"a curve needs test images of one class each, unlike {transfer.first.data}: omit --curve.")
    device = resolve_device(machine or MachineSettings(), ALL_CORES)
    place = "cpu" if device.device.type == "mps" else str(device.device)
    rows = combine([file.scales for file in transfer.features], transfer.descriptor)
    curve = _Curve(SvmTask(transfer.protocol, transfer.first, rows, transfer.svm, place), transfer)
    with device.running():
        return curve.run(draws, sorted(set(sizes)), reporter or default_reporter())


class _Curve:
    """The first split of a transfer, trained on parts of its training images."""

    def __init__(self, task: SvmTask, transfer: Transfer) -> None:
        self._task, self._split, self._svm = task, transfer.splits[0], transfer.svm
        self._features = transfer.first
        self._truth = self._features.labels[self._split.parts.test]

    def run(self, draws: int, sizes: list[int], reporter: Reporter) -> LearningCurve:
        """Trains on every size and draw; arguments as of `learning_curve`."""
        train = self._split.parts.train
        labels = self._features.labels[train]
        largest = int(np.bincount(labels).max())
        sizes = [size for size in sizes if size < largest]  # from the largest class on, it is all images
        predicted = [np.zeros((draws, len(self._truth)), dtype=np.int64) for _ in sizes]
        images = [0] * len(sizes)
        with reporter.track("learning curve", draws * len(sizes)) as advance:
            for draw in range(draws):
                order = self._drawn(train, self._svm.seed + draw)
                for number, size in enumerate(sizes):
                    chosen = np.sort(order[_place_in_class(self._features.labels[order]) < size])
                    images[number] = len(chosen)
                    predicted[number][draw] = self._predicted(chosen)
                    advance(1, f"{size} images per class")
        predicted.append(self._split.scores.argmax(1)[None])
        images.append(len(train))
        points = tuple(map(self._point, [*sizes, None], images, predicted))
        doubling = fit_doubling(images, [found != self._truth for found in predicted], self._svm.seed)
        counts = (len(self._features.classes), len(self._truth))
        return LearningCurve(points, doubling, self._split.C, self._svm.seed, *counts, self._svm.parameter)

    def _drawn(self, train: Indices, seed: int) -> Indices:
        """Training images in a random order, which depends on the seed and each image's id."""
        names = [f"curve\t{seed}\t{self._features.ids[index]}" for index in train]
        ranks = [hashlib.sha256(name.encode("utf8", "surrogateescape")).digest() for name in names]
        return train[sorted(range(len(train)), key=ranks.__getitem__)]

    def _predicted(self, images: Indices) -> NDArray[np.int64]:
        (svm,) = self._task.trainer(images).fit((self._split.C,))
        predicted: NDArray[np.int64] = svm.scores(self._task.rows[self._split.parts.test]).argmax(1)
        return predicted

    def _point(self, size: int | None, images: int, predicted: NDArray[np.int64]) -> CurvePoint:
        errors = tuple(float(100 * (found != self._truth).mean()) for found in predicted)
        classes = len(self._features.classes)
        recalls = tuple(float(np.nanmean(class_recalls(found, self._truth, classes))) for found in predicted)
        return CurvePoint(size, images, errors, recalls)


def _place_in_class(labels: NDArray[np.int64]) -> Indices:
    """For each image, how many of its class come before it."""
    place = np.zeros(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        of_class = np.flatnonzero(labels == label)
        place[of_class] = np.arange(len(of_class))
    return place


def fit_doubling(images: Sequence[int], wrong: Sequence[NDArray[np.bool_]], seed: int = 0) -> Doubling | None:
    """What twice as many images would gain; None without two points in the last part of the curve.

    Args:
        images: the number of training images of each point, in ascending order.
        wrong: which test images (T) are misclassified in each draw, (draws,T) for each point.
        seed: of the bootstrap.
    """
    used = [number for number, count in enumerate(images) if count >= LAST_PART * images[-1]]
    if len(used) < 2:
        return None
    counts = np.array([images[number] for number in used], dtype=np.float64)
    tests = wrong[-1].shape[1]
    whole = np.array([[wrong[number].mean() for number in used]])
    law = _power_law(counts, whole, tests)
    sampled = _resampled([wrong[number] for number in used], np.random.default_rng(seed))
    low, high = np.quantile(_gain(_power_law(counts, sampled, tests), counts[-1]), (0.025, 0.975))
    gain = float(_gain(law, counts[-1])[0])
    return Doubling(gain, (float(low), float(high)), (float(law[0][0]), float(law[1][0])), int(counts[0]))


def _resampled(wrong: Sequence[NDArray[np.bool_]], rng: np.random.Generator) -> NDArray[np.float64]:
    """The errors of each point, shares of 1, with test images and draws sampled with replacement: (B,P).

    The same test images and draws are taken for all points.
    """
    tests, draws = wrong[-1].shape[1], max(map(len, wrong))
    groups = rng.permutation(tests) % min(tests, MOST_GROUPS)
    sizes = np.bincount(groups)
    weights = rng.multinomial(len(sizes), np.full(len(sizes), 1 / len(sizes)), size=RESAMPLES).astype(np.float64)
    chosen = rng.integers(draws, size=(RESAMPLES, draws))
    sampled = []
    for point in wrong:
        by_group = np.stack([np.bincount(groups, weights=draw) for draw in point], axis=1)
        by_draw = weights @ by_group / (weights @ sizes)[:, None]
        taken = chosen if len(point) == draws else np.zeros((RESAMPLES, 1), dtype=np.int64)  # all images: one draw
        sampled.append(np.take_along_axis(by_draw, taken, axis=1).mean(axis=1))
    return np.stack(sampled, axis=1)


def _power_law(
    counts: NDArray[np.float64], errors: NDArray[np.float64], tests: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """a and b, (B,) each, of the error a n^-b in percent, from errors (B,P), shares of 1, at counts (P,).

    Half an error is added, so that no error has a logarithm too.
    """
    x, y = np.log(counts), np.log(100 * (errors * tests + 0.5) / (tests + 1))
    centred = x - x.mean()
    slope = (y * centred).sum(1) / (centred**2).sum()
    return np.exp(y.mean(1) - slope * x.mean()), -slope


def _gain(law: tuple[NDArray[np.float64], NDArray[np.float64]], images: float) -> NDArray[np.float64]:
    """By how much the error falls from ``images`` to twice as many, in points."""
    a, b = law
    gain: NDArray[np.float64] = a * images**-b * (1 - 2.0**-b)
    return gain
