"""App. B: trains and evaluates linear SVMs on descriptors by a dataset's protocol (`learn_svms`).

For each split: SVMs of every C are trained on one part of the images, the C that is best on another part is chosen (the
smaller of equals), SVMs of that C are trained on both parts, and score the test images. The temperature of
their probabilities is fitted on the scores that chose C, where images have one class. The metric of images of one
class is the mean recall over classes, with the top-1 error; of images of several classes the mean over classes of VOC's
average precision, 11-point for VOC-2007 and the area for VOC-2012 and own images. Their scores that chose C also choose
the threshold above which an image has a class: the same for all classes, that of the largest F1 of all decisions
together. Over splits: the mean and the sample standard deviation (n - 1).
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..core.device import resolve_device
from ..core.errors import VerydeepError
from ..core.progress import Reporter
from ..core.settings import DescriptorSettings, MachineSettings, SvmSettings
from ..core.terminal import default_reporter
from ..data.class_names import same_classes
from ..data.class_weights import NONE, class_weights
from ..data.datasets.voc import NOT_SCORED
from ..data.exclude import excluded_images
from ..evaluation.metrics import average_precision, best_threshold, class_recalls, f1_score
from ..evaluation.rejection import RiskCoverage, risk_coverage
from ..evaluation.temperature import LEAST_IMAGES, fit_to_scores
from .classifiers import Classifier, LogisticTrainer, NeighbourTrainer, Trainer
from .descriptors import Array, class_means, combine, similarity
from .features_file import Features, images_of, is_external, load_features
from .splits import VOC, Parts, parts_of
from .svm import SvmTrainer

ALL_CORES = 1e12  # multiply-adds: no images are read in the meantime
FIGURES = {False: "mean_class_recall", True: "mean_average_precision"}


@dataclass(frozen=True)
class Calibration:
    """What the dev images of a split give besides C, by the classifier that is trained on the other part.

    ``temperature`` is that of the probabilities. ``means`` (K,D) are the class means of all training images,
    ``similarity`` (n,) is that of the test images to the nearest of them, and ``risk_coverage`` the dev images' curve
    by theirs to the means of the other part.
    """

    temperature: float
    means: Array
    similarity: NDArray[np.float32]
    risk_coverage: RiskCoverage


@dataclass(frozen=True)
class SplitResult:
    """One split: the chosen C (k of knn), the metric of each C on the dev part, the SVMs, and their results.

    ``by_class`` is the metric of each class (K,), in percent, NaN for classes that are not counted; ``scores`` (n,K)
    are of the test images, ``parts.test``. ``calibration`` is None with one value of C, for images of several classes,
    and where too few are in the dev part. ``threshold`` and ``f1``, in percent, of the test images' decisions together,
    are of images of several classes, and None with one value of C.
    """

    parts: Parts
    C: float
    dev: dict[float, float]
    svm: Classifier
    scores: NDArray[np.float64]
    by_class: NDArray[np.float64]
    top1_error: float | None
    calibration: Calibration | None
    threshold: float | None = None
    f1: float | None = None

    @property
    def temperature(self) -> float | None:
        """The temperature of the probabilities, where there are any."""
        return None if self.calibration is None else self.calibration.temperature

    @property
    def figure(self) -> float | None:
        """The mean over classes; None without test images."""
        counted = self.by_class[~np.isnan(self.by_class)]
        return float(counted.mean()) if len(counted) else None


@dataclass(frozen=True)
class Transfer:
    """The results of `learn_svms` by split, with features, settings and a description of the machine.

    ``excluded`` is the number of images that the settings' list leaves out.
    """

    protocol: str
    features: tuple[Features, ...]
    descriptor: DescriptorSettings
    svm: SvmSettings
    splits: tuple[SplitResult, ...]
    dimensions: int
    machine: dict[str, Any]
    excluded: int = 0

    @property
    def first(self) -> Features:
        """The first features file; images, classes and labels are the same in all."""
        return self.features[0]


def learn_svms(
    protocol: str,
    files: Sequence[str | Path],
    descriptor: DescriptorSettings | None = None,
    svm: SvmSettings | None = None,
    scales: tuple[int, ...] = (),
    machine: MachineSettings | None = None,
    reporter: Reporter | None = None,
    data: str | None = None,
) -> Transfer:
    """Trains and evaluates linear SVMs on features files by a protocol; several files (nets) are stacked.

    Args:
        protocol: one of `verydeep.transfer.splits.PROTOCOLS`.
        files: as `verydeep features` writes them, or of other programs, of the same images.
        descriptor: None combines scales as the paper does for the protocol.
        scales: the scales to use; all by default.
        data: the images of other programs' files, which are found by their ids; by default those of a features file
            among ``files``, or else all that the first file names, with its labels.

    Raises:
        VerydeepError: no such file or protocol, files of different images, too few images, labels missing.
    """
    descriptor = descriptor or DescriptorSettings(aggregate=usual_aggregate(protocol))
    svm, reporter = svm or SvmSettings(), reporter or default_reporter()
    features = _checked(_loaded(list(map(Path, files)), scales, data))
    rows = combine([file.scales for file in features], descriptor)
    parts = parts_of(protocol, features[0], svm.splits, svm.seed, svm.group_by)
    excluded = _excluded(features[0], svm, reporter)
    parts = [split.without(excluded) for split in parts]
    device = resolve_device(machine or MachineSettings(), ALL_CORES)
    # Apple's GPUs have no float64, in which SVMs are solved.
    task = SvmTask(protocol, features[0], rows, svm, "cpu" if device.device.type == "mps" else str(device.device))
    with (
        device.running(),
        reporter.track(f"values of {svm.parameter}: {len(svm.values)}, splits: {len(parts)}", len(parts)) as advance,
    ):
        results = []
        for split in parts:
            results.append(task.run(split))
            advance(1, f"{svm.parameter} = {results[-1].C:g}")
    return Transfer(
        protocol, features, descriptor, svm, tuple(results), rows.shape[1], device.describe(), len(excluded)
    )


def _excluded(features: Features, svm: SvmSettings, reporter: Reporter) -> NDArray[np.int64]:
    """The indices of the images that the settings' list leaves out."""
    if svm.exclude is None:
        return np.zeros(0, dtype=np.int64)
    path = features.recipe["data"].partition(":")[2] or features.recipe["data"]
    listed = excluded_images(svm.exclude, features.ids, Path(path))
    reporter.say(f"{len(listed)} of {len(features)} images are left out, as listed in {svm.exclude}")
    return np.array([index for index, image in enumerate(features.ids) if image in listed], dtype=np.int64)


def usual_aggregate(protocol: str) -> Literal["stack", "average"]:
    """How the paper combines scales: averaged on VOC, where objects vary in size, and stacked elsewhere."""
    return "average" if protocol in VOC else "stack"


def _loaded(files: list[Path], scales: tuple[int, ...], data: str | None) -> list[tuple[str, Features]]:
    """The features by the names of their files; all files of other programs are of the same images."""
    own = {file: load_features(file) for file in files if not is_external(file)}
    images = None if data is None else images_of(data)
    if data is not None and len(own) == len(files):
        raise VerydeepError("--data is of descriptors of other programs, and features files have their own: omit it.")
    found: list[tuple[str, Features]] = []
    for file in files:
        if file not in own and images is None:
            first = next(iter(own.values()), None) or next((features for _, features in found), None)
            images = None if first is None else first.images
        features = own[file] if file in own else load_features(file, images)
        found.append((str(file), _at(scales, str(file), features)))
    return found


def _at(scales: tuple[int, ...], name: str, features: Features) -> Features:
    """The features at some scales; at all scales if ``scales`` is empty, or another program computed them."""
    if features.recipe.get("external"):
        return features
    missing = [scale for scale in scales if scale not in features.scales]
    if missing:
        known = ", ".join(map(str, features.scales))
        raise VerydeepError(f"{name} has no descriptors at Q = {missing[0]}: its scales are {known}.")
    chosen = {scale: features.scales[scale] for scale in sorted(set(scales))}
    return replace(features, scales=chosen or features.scales)


def _checked(files: list[tuple[str, Features]]) -> tuple[Features, ...]:
    """The features in order; raises VerydeepError if they are not of the same images."""
    if not files:
        raise VerydeepError("no features: pass at least one file that `verydeep features` wrote.")
    name, first = files[0]
    for number, (other_name, other) in enumerate(files[1:], start=1):
        problem = _difference(first, other)
        if any(other.key == before.key for _, before in files[:number]):
            problem = "it contains the same descriptors as an earlier one"
        if problem:
            raise VerydeepError(f"{other_name} cannot be concatenated with {name}: {problem}.")
    return tuple(features for _, features in files)


def _difference(first: Features, other: Features) -> str:
    """The reason why two files cannot be stacked; empty if they can."""
    if other.ids != first.ids:
        missing = sorted(set(first.ids) ^ set(other.ids))
        more = f"{len(missing)} are in only one, first {missing[0]}" if missing else "in another order"
        return f"its {len(other)} images are not the {len(first)} of the other ({more})"
    same = same_classes(other.classes, first.classes) and (other.labels == first.labels).all()
    marks = (other.marks is None) == (first.marks is None)
    if marks and other.marks is not None and first.marks is not None:
        marks = bool((other.marks == first.marks).all())
    return "" if same and marks else "its images have other labels"


class SvmTask:
    """SVMs on descriptors (N,D) of one protocol, the same for every split."""

    def __init__(self, protocol: str, features: Features, rows: Array, svm: SvmSettings, device: str) -> None:
        self.protocol, self.features, self.rows, self.svm, self.device = protocol, features, rows, svm, device
        self.marks = _marks(features)

    def run(self, parts: Parts) -> SplitResult:
        """Chooses C, trains the SVMs on both parts, and scores the test images.

        Raises:
            VerydeepError: a class that no image or every image has.
        """
        train, test = parts.train, parts.test
        self._check(parts.fit)
        self._check(train)
        trainer = self.trainer(train)
        dev: dict[float, float] = {}
        tried: dict[float, NDArray[np.float64]] = {}
        if len(self.svm.values) > 1:
            if not (self.marks[parts.dev] == 1).any():
                raise VerydeepError(f"no image of {self.features.data} that chooses {self.svm.parameter} has a class.")
            for candidate in trainer.fit(self.svm.values, np.searchsorted(train, parts.fit)):
                tried[candidate.C] = candidate.scores(self.rows[parts.dev])
                dev[candidate.C] = float(np.nanmean(self._by_class(tried[candidate.C], parts.dev)))
        C = max(dev, key=lambda value: (dev[value], -value)) if dev else self.svm.values[0]
        (svm,) = trainer.fit((C,))
        scores = svm.scores(self.rows[test])
        by_class = self._by_class(scores, test)
        single = self.features.marks is None and len(test) > 0
        wrong = float(100 * (scores.argmax(1) != self.features.labels[test]).mean()) if single else None
        result = SplitResult(parts, C, dev, svm, scores, by_class, wrong, self._calibration(tried.get(C), parts))
        if self.features.marks is None or C not in tried:
            return result
        threshold = best_threshold(tried[C], self.marks[parts.dev])
        known = bool((self.marks[test] == 1).any())
        return replace(
            result, threshold=threshold, f1=100 * f1_score(scores > threshold, self.marks[test]) if known else None
        )

    def _calibration(self, scores: NDArray[np.float64] | None, parts: Parts) -> Calibration | None:
        """What the scores of the dev images give; None where they are too few, or no better than by chance."""
        if scores is None or self.features.marks is not None or len(parts.dev) < LEAST_IMAGES:
            return None
        labels = self.features.labels[parts.dev]
        spread = float(scores.std()) or 1.0  # a small C gives small scores
        with contextlib.suppress(VerydeepError):
            temperature = spread * fit_to_scores(scores / spread, labels)
            near = similarity(self.rows[parts.dev], self._means(parts.fit))
            means = self._means(parts.train)
            tested = similarity(self.rows[parts.test], means)
            return Calibration(temperature, means, tested, risk_coverage(near, scores.argmax(axis=1) == labels))
        return None

    def _means(self, images: NDArray[np.int64]) -> Array:
        return class_means(self.rows[images], self.features.labels[images], len(self.features.classes))

    def trainer(self, images: NDArray[np.int64]) -> Trainer:
        """Trains classifiers on images, or on parts of them."""
        rows, marks = self.rows[images], self.marks[images]
        if self.svm.classifier == "knn":
            return NeighbourTrainer(rows, marks)
        if self.svm.classifier == "logistic":
            return LogisticTrainer(rows, marks, self.device, self._weights(images))
        return SvmTrainer(rows, marks, self.svm.loss, self.device, self._weights(images))

    def _weights(self, images: NDArray[np.int64]) -> NDArray[np.float64] | None:
        """The factor of the loss of each training image, (n,); None for 1."""
        if self.features.marks is not None and self.svm.class_weights != NONE:
            raise VerydeepError(f"class_weights needs images of one class each, unlike {self.features.data}: omit it.")
        labels = self.features.labels[images]
        weights = class_weights(self.svm.class_weights, labels, self.features.classes)
        return None if weights is None else weights[labels]

    def _check(self, images: NDArray[np.int64]) -> None:
        marks = self.marks[images]
        for number, name in enumerate(self.features.classes):
            if not (marks[:, number] == 1).any() or not (marks[:, number] == -1).any():
                raise VerydeepError(f"class {name!r} of {self.features.data} has no training images, or all of them.")

    def _by_class(self, scores: NDArray[np.float64], images: NDArray[np.int64]) -> NDArray[np.float64]:
        """Recall or average precision of each class, (K,)."""
        if self.features.marks is None:
            return class_recalls(scores.argmax(1), self.features.labels[images], len(self.features.classes))
        form: Literal["11-point", "area"] = "11-point" if self.protocol == "voc2007" else "area"
        marks = self.marks[images]
        precisions = np.full(marks.shape[1], np.nan)
        for number, name in enumerate(self.features.classes):
            counted = self.protocol not in VOC or name != NOT_SCORED
            if counted and (marks[:, number] == 1).any():
                precisions[number] = average_precision(scores[:, number], marks[:, number], form)
        return precisions


def _marks(features: Features) -> NDArray[np.int8]:
    """1 where an image has a class, -1 where it has not, 0 where it is ignored: int8 (N,K)."""
    if features.marks is not None:
        return features.marks
    marks = np.full((len(features), len(features.classes)), -1, dtype=np.int8)
    marks[np.arange(len(features)), features.labels] = 1
    return marks
