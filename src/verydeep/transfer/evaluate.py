"""App. B: trains and tests linear SVMs on descriptors by a data set's protocol (`learn_svms`).

For each split: SVMs of every C are trained on one part of the images, the C that is best on another part is chosen (the
smaller of equals), SVMs of that C are trained on both, and score the test images. For images of one class the figure
is the mean over classes of recall, with the top-1 error; for images of several classes the mean over classes of VOC's
average precision, 11-point for VOC-2007 and the area for VOC-2012. Over splits: the mean and the standard deviation
(of a sample, n - 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..core.device import Machine, resolve_device
from ..core.errors import VerydeepError
from ..core.progress import Reporter, Silent
from ..core.settings import DescriptorSettings, MachineSettings, SvmSettings
from ..data.class_names import same_classes
from ..data.datasets.voc import NOT_SCORED
from ..evaluation.metrics import average_precision, class_recalls
from .descriptors import Array, combine
from .features_file import Features, load_features
from .splits import VOC, Parts, parts_of
from .svm import LinearSvm, SvmTrainer

ALL_CORES = 1e12  # multiply-adds: no image is read beside this work
FIGURES = {False: "mean_class_recall", True: "mean_average_precision"}


@dataclass(frozen=True)
class SplitResult:
    """One split: the chosen C, the figure of each C on the dev part, the SVMs, and their results.

    ``by_class`` is the figure of each class (K,), in percent, NaN of a class that is not counted; ``scores`` (n,K) are
    of the test images, ``parts.test``.
    """

    parts: Parts
    C: float
    dev: dict[float, float]
    svm: LinearSvm
    scores: NDArray[np.float64]
    by_class: NDArray[np.float64]
    top1_error: float | None

    @property
    def figure(self) -> float | None:
        """The mean over classes; None where there are no test images."""
        counted = self.by_class[~np.isnan(self.by_class)]
        return float(counted.mean()) if len(counted) else None


@dataclass(frozen=True)
class Transfer:
    """Results of `learn_svms` by split, with the features and settings, and a description of the machine."""

    protocol: str
    features: tuple[Features, ...]
    descriptor: DescriptorSettings
    svm: SvmSettings
    splits: tuple[SplitResult, ...]
    dimensions: int
    machine: dict[str, Any]

    @property
    def first(self) -> Features:
        """The first features file; images, classes and labels are those of all."""
        return self.features[0]


def learn_svms(
    protocol: str,
    files: Sequence[str | Path],
    descriptor: DescriptorSettings | None = None,
    svm: SvmSettings | None = None,
    scales: tuple[int, ...] = (),
    machine: MachineSettings | None = None,
    reporter: Reporter | None = None,
) -> Transfer:
    """Trains and tests linear SVMs on features files by a protocol; several files (nets) are stacked.

    Args:
        protocol: one of `verydeep.transfer.splits.PROTOCOLS`.
        files: as `verydeep features` writes them, of the same images.
        descriptor: None combines scales as the paper does for the protocol.
        scales: those to use; all by default.

    Raises:
        VerydeepError: no such file or protocol, files of different images, too few images, labels missing.
    """
    descriptor = descriptor or DescriptorSettings(aggregate=usual_aggregate(protocol))
    svm, reporter = svm or SvmSettings(), reporter or Silent()
    features = _joined([(str(path), _at(scales, str(path), load_features(path))) for path in files])
    rows = combine([file.scales for file in features], descriptor)
    parts = parts_of(protocol, features[0], svm.splits, svm.seed)
    here = resolve_device(machine or MachineSettings(), ALL_CORES)
    with here.running(), reporter.track(f"{len(svm.C)} values of C, {len(parts)} splits", len(parts)) as advance:
        results = []
        for split in parts:
            results.append(_Split(protocol, features[0], rows, split, svm, here).result())
            advance(1, f"C = {results[-1].C:g}")
    return Transfer(protocol, features, descriptor, svm, tuple(results), rows.shape[1], here.describe())


def usual_aggregate(protocol: str) -> Literal["stack", "average"]:
    """How the paper combines scales: averaged on VOC, where objects have all sizes, and stacked elsewhere."""
    return "average" if protocol in VOC else "stack"


def _at(scales: tuple[int, ...], name: str, features: Features) -> Features:
    """The features at the given scales only; at all where none is given."""
    missing = [scale for scale in scales if scale not in features.scales]
    if missing:
        there = ", ".join(map(str, features.scales))
        raise VerydeepError(f"{name} has no descriptors at Q = {missing[0]}: its scales are {there}.")
    chosen = {scale: features.scales[scale] for scale in sorted(set(scales))}
    return replace(features, scales=chosen or features.scales)


def _joined(files: list[tuple[str, Features]]) -> tuple[Features, ...]:
    """The files in order; raises VerydeepError where they are not of the same images."""
    if not files:
        raise VerydeepError("there are no features: give at least one file that `verydeep features` wrote.")
    name, first = files[0]
    for number, (other_name, other) in enumerate(files[1:], start=1):
        problem = _difference(first, other)
        if any(other.key == before.key for _, before in files[:number]):
            problem = "it holds the same descriptors as an earlier one"
        if problem:
            raise VerydeepError(f"{other_name} cannot be stacked on {name}: {problem}.")
    return tuple(features for _, features in files)


def _difference(first: Features, other: Features) -> str:
    """The reason why two files cannot be stacked; empty where they can."""
    if other.ids != first.ids:
        apart = sorted(set(first.ids) ^ set(other.ids))
        more = f"{apart[0]} and {len(apart) - 1} more are in one only" if apart else "they are in another order"
        return f"its {len(other)} photos are not the {len(first)} of the other ({more})"
    same = same_classes(other.classes, first.classes) and (other.labels == first.labels).all()
    marks = (other.marks is None) == (first.marks is None)
    if marks and other.marks is not None and first.marks is not None:
        marks = bool((other.marks == first.marks).all())
    return "" if same and marks else "its photos have other labels"


class _Split:
    """SVMs of one split."""

    def __init__(
        self, protocol: str, features: Features, rows: Array, parts: Parts, svm: SvmSettings, machine: Machine
    ) -> None:
        self.features, self.rows, self.parts, self.svm, self.machine = features, rows, parts, svm, machine
        self.several = protocol in VOC
        self.form: Literal["11-point", "area"] = "11-point" if protocol == "voc2007" else "area"
        self.marks = _marks(features)

    def result(self) -> SplitResult:
        """Chooses C, trains the SVMs on both parts, and scores the test images."""
        trainer, dev = self._trainer(), dict[float, float]()
        if len(self.svm.C) > 1:
            for candidate in trainer.fit(self.svm.C, self._among(self.parts.fit)):
                scores = candidate.scores(self.rows[self.parts.dev])
                dev[candidate.C] = float(np.nanmean(self._by_class(scores, self.parts.dev)))
        C = max(dev, key=lambda value: (dev[value], -value)) if dev else self.svm.C[0]
        (svm,) = trainer.fit((C,))
        test = self.parts.test
        scores = svm.scores(self.rows[test])
        by_class = self._by_class(scores, test)
        known = not self.several and len(test) > 0
        wrong = float(100 * (scores.argmax(1) != self.features.labels[test]).mean()) if known else None
        return SplitResult(self.parts, C, dev, svm, scores, by_class, wrong)

    def _trainer(self) -> SvmTrainer:
        """A trainer on the fit and dev parts; raises VerydeepError for a class that no image or every image has."""
        for part in (self.parts.fit, self.parts.train):
            marks = self.marks[part]
            for number, name in enumerate(self.features.classes):
                if not (marks[:, number] == 1).any() or not (marks[:, number] == -1).any():
                    raise VerydeepError(
                        f"class {name!r} of {self.features.data} has no training photos, or all of them."
                    )
        # Apple's GPUs have no float64, in which SVMs are solved.
        device = "cpu" if self.machine.device.type == "mps" else self.machine.device
        train = self.parts.train
        return SvmTrainer(self.rows[train], self.marks[train], self.svm.loss, device)

    def _among(self, images: NDArray[np.int64]) -> NDArray[np.int64]:
        """Positions of images among the training images."""
        return np.searchsorted(self.parts.train, images)

    def _by_class(self, scores: NDArray[np.float64], images: NDArray[np.int64]) -> NDArray[np.float64]:
        """Recall or average precision of each class, (K,)."""
        if not self.several:
            return class_recalls(scores.argmax(1), self.features.labels[images], len(self.features.classes))
        marks = self.marks[images]
        precisions = np.full(marks.shape[1], np.nan)
        for number, name in enumerate(self.features.classes):
            if name != NOT_SCORED and (marks[:, number] == 1).any():
                precisions[number] = average_precision(scores[:, number], marks[:, number], self.form)
        return precisions


def _marks(features: Features) -> NDArray[np.int8]:
    """1 where an image has a class, -1 where not, 0 where it does not count: int8 (N,K)."""
    if features.marks is not None:
        return features.marks
    marks = np.full((len(features), len(features.classes)), -1, dtype=np.int8)
    marks[np.arange(len(features)), features.labels] = 1
    return marks
