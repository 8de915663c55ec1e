"""App. B: descriptors of new images by the nets that a features file's recipe names, and SVM predictions on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..core.device import Machine, resolve_device
from ..core.errors import VerydeepError
from ..core.progress import Reporter, Silent
from ..core.settings import DescriptorSettings, MachineSettings
from ..data.datasets.voc import OF_BOXES
from ..evaluation.predict import Prediction, best_classes, check_top, each_image, listed, with_unknown
from ..evaluation.rejection import Rejection, choose_threshold
from ..evaluation.temperature import LEAST_IMAGES, softmax
from .backbone import FeatureNet, open_feature_net
from .descriptors import Array, combine, descriptors, similarity
from .svm_file import SvmFile, load_svm


@dataclass(frozen=True)
class NetAtScales:
    """A net cut after a layer, the scales Q of its descriptors, and how they are pooled."""

    net: FeatureNet
    scales: tuple[int, ...]
    pool: Literal["mean", "max"]
    mirror: bool


class DescriptorExtractor:
    """Computes descriptors of images, in files or in memory, with one or more nets."""

    def __init__(self, nets: Sequence[NetAtScales], settings: DescriptorSettings, machine: Machine) -> None:
        """Places the nets on the machine's device."""
        self.settings, self._nets, self._machine = settings, nets, machine
        for part in nets:
            machine.place_model(part.net.net)

    def rows(self, images: Sequence[Any], faults: dict[int, str] | None, reporter: Reporter) -> Array:
        """The combined descriptors of images, (N,D); rows of unreadable ones, whose messages go to ``faults``, are 0.

        D is 0 if none can be read.

        Args:
            images: paths, PIL images, uint8 arrays or tensors (H,W,3) or (3,H,W).

        Raises:
            ImageError: an image cannot be read, and ``faults`` is None.
        """
        total = len(images) * sum(len(part.scales) for part in self._nets)
        with self._machine.running(), reporter.track("extracting descriptors", total) as advance:
            by_net = [self._by_scale(part, images, faults, lambda count: advance(count, "")) for part in self._nets]
        return combine(by_net, self.settings)

    def _by_scale(
        self, part: NetAtScales, images: Sequence[Any], faults: dict[int, str] | None, done: Callable[[int], None]
    ) -> dict[int, Array]:
        by_scale = {scale: np.zeros((len(images), 0), dtype=np.float32) for scale in part.scales}
        views = each_image(images, part.net.resize(part.scales), faults)
        for scale, indices, rows in descriptors(part.net, views, part.pool, part.mirror, self._machine):
            if by_scale[scale].shape[1] == 0:
                by_scale[scale] = np.zeros((len(images), rows.shape[1]), dtype=np.float32)
            by_scale[scale][indices] = rows
            done(len(indices))
        return by_scale


def open_extractor(
    recipes: Sequence[tuple[dict[str, Any], Sequence[int]]], settings: DescriptorSettings, machine: MachineSettings
) -> DescriptorExtractor:
    """The nets of features files, by recipe and scales.

    Raises:
        VerydeepError: a net's file is missing or has changed, or the descriptors are of boxes of people.
    """
    nets = [NetAtScales(_open(recipe), tuple(scales), recipe["pool"], recipe["mirror"]) for recipe, scales in recipes]
    if machine.precision == "auto" and all(recipe["precision"] == "float32" for recipe, _ in recipes):
        machine = replace(machine, precision="float32")  # as in the file
    multiply_adds = sum(part.net.multiply_adds for part in nets)
    return DescriptorExtractor(nets, settings, resolve_device(replace(machine, compile=False), multiply_adds))


def _open(recipe: dict[str, Any]) -> FeatureNet:
    source = recipe["net"]
    if recipe.get("external"):
        raise VerydeepError(
            f"another program computed the descriptors of {source['file']}: new images cannot be described."
        )
    if str(recipe.get("data", "")).partition(":")[0] == OF_BOXES:
        raise VerydeepError("these descriptors are of boxes of people, which new images do not have.")
    file = _moved_file(Path(source["file"]))
    if not file.is_file():
        raise VerydeepError(f"{file}, the net of these descriptors, does not exist: restore it.")
    net = open_feature_net(file, recipe["layer"], source["preprocessing"])
    if net.source["sha256"] != source["sha256"]:
        raise VerydeepError(f"{file} has changed since it computed these descriptors: run `verydeep features` again.")
    return net


def _moved_file(file: Path) -> Path:
    """A file in its recorded directory or, if the project was moved, in the same one below the working directory."""
    ends = (Path(*file.parts[start:]) for start in range(1, len(file.parts)))
    return next((path for path in (file, *ends) if path.is_file()), file)


@dataclass(frozen=True)
class SvmClassifier:
    """Classifiers with the nets of their descriptors; `predict` gives scores, and probabilities if calibrated."""

    file: SvmFile
    extractor: DescriptorExtractor

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the scores."""
        return self.file.classes

    def scores(
        self, images: Any, faults: dict[int, str] | None = None, reporter: Reporter | None = None
    ) -> NDArray[np.float64]:
        """Scores (N,K) of images, above 0 where an SVM predicts its class; arguments as for `predict`."""
        return self.file.classifier.scores(self._rows(listed(images), faults, reporter))

    def _rows(self, images: list[Any], faults: dict[int, str] | None, reporter: Reporter | None) -> Array:
        """The images' descriptors (N,D), 0 for unreadable ones."""
        rows = self.extractor.rows(images, faults, reporter or Silent())
        if rows.shape[1] == 0:  # none can be read
            return np.zeros((len(images), self.file.dimensions), dtype=np.float32)
        if rows.shape[1] != self.file.dimensions:
            raise VerydeepError("the classifier does not fit the descriptors of its net: run `verydeep svm` again.")
        return rows

    def predict(
        self,
        images: Any,
        top: int = 5,
        protocol: str | None = None,
        faults: dict[int, str] | None = None,
        reporter: Reporter | None = None,
        reject_at: float | None = None,
    ) -> list[Prediction]:
        """Predicts the classes of the highest scores of each image; arguments as for `Classifier.predict`.

        Raises:
            VerydeepError: a protocol is given, as the descriptors have their own; ``reject_at`` without probabilities.
        """
        if protocol is not None:
            raise VerydeepError("an SVM classifier has its own layer and scales: omit --protocol.")
        check_top(top)
        rejection = None if reject_at is None else self.rejection(reject_at)
        images = listed(images)
        rows = self._rows(images, faults, reporter)
        scores = self.file.classifier.scores(rows)
        best = best_classes(images, scores, self.classes, top, faults or {}, "score")
        if rejection is not None and self.file.means is not None:
            (reporter or Silent()).say(str(rejection))
            best = with_unknown(best, similarity(rows, self.file.means), rejection, faults or {})
        if self.file.threshold is not None:
            read = (row > self.file.threshold for index, row in enumerate(scores) if index not in (faults or {}))
            best = [
                replace(one, labels=tuple(compress(self.classes, has))) for one, has in zip(best, read, strict=True)
            ]
        if self.file.temperature is None:
            return best
        likely = softmax(scores / self.file.temperature)
        shown = best_classes(images, scores, self.classes, top, faults or {}, shown=likely)
        return [
            replace(scored, probabilities=tuple(value for _, value in probable.classes))
            for scored, probable in zip(best, shown, strict=True)
        ]

    def rejection(self, percent: float, protocol: str | None = None) -> Rejection:
        """The threshold below which images are unknown, as `Classifier.rejection`; there is no protocol."""
        if self.file.risk_coverage is None:
            raise VerydeepError(
                "these SVMs have no threshold: train them again, with several values of C and at least "
                f"{LEAST_IMAGES} images of one class each to choose among them."
            )
        return choose_threshold(self.file.risk_coverage, percent, "similarity")


def load_svm_classifier(path: Path, machine: MachineSettings, calibration: bool = True) -> SvmClassifier:
    """Loads a classifier file with its nets; raises VerydeepError if one of them is missing or broken.

    Args:
        calibration: False leaves out the probabilities, so that there are scores only.
    """
    file = load_svm(path)
    file = file if calibration else replace(file, temperature=None, risk_coverage=None, means=None)
    nets = [(net["recipe"], net["scales"]) for net in file.nets]
    return SvmClassifier(file, open_extractor(nets, file.descriptor, machine))
