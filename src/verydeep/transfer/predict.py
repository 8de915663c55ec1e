"""App. B: descriptors of new images by the nets that a features file's recipe names, and SVM predictions on them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.device import resolve_device
from ..core.errors import ImageError, VerydeepError
from ..core.progress import Reporter, Silent
from ..core.settings import DescriptorSettings, MachineSettings
from ..data.datasets.voc import OF_BOXES
from ..data.image_io import Pixels, as_pixels
from ..evaluation.inference import ResizeToScales
from ..evaluation.predict import Prediction, best_classes, check_top, listed, name_of
from ..evaluation.protocols import Protocol
from .backbone import FeatureNet, open_feature_net
from .descriptors import Array, combine, descriptors
from .svm_file import SvmFile, load_svm


class DescriptorExtractor:
    """Computes descriptors of images, in files or in memory, by one or more nets.

    Raises:
        VerydeepError: a net's file is gone or another one now, or the descriptors are of boxes of people.
    """

    def __init__(
        self, nets: Sequence[tuple[dict[str, Any], Sequence[int]]], settings: DescriptorSettings, wish: MachineSettings
    ) -> None:
        """Opens nets by recipe and scales."""
        self.settings = settings
        self._recipes = [recipe for recipe, _ in nets]
        self._scales = [tuple(scales) for _, scales in nets]
        self._nets = [_open(recipe) for recipe in self._recipes]
        if wish.precision == "auto" and all(recipe["precision"] == "float32" for recipe in self._recipes):
            wish = replace(wish, precision="float32")  # as in the file
        self._machine = resolve_device(replace(wish, compile=False), sum(net.multiply_adds for net in self._nets))
        for net in self._nets:
            self._machine.place_model(net.net)

    def rows(
        self, images: Sequence[Any], names: Sequence[str], faults: dict[int, str] | None, reporter: Reporter
    ) -> Array:
        """The combined descriptors of images, (N,D); rows of unreadable ones, whose messages go to
        ``faults``, are 0. Where none can be read, D is 0.

        Args:
            images: paths, PIL images, uint8 arrays or tensors (H,W,3) or (3,H,W).
            names: of the images, for messages.

        Raises:
            ImageError: an image cannot be read, and ``faults`` is None.
        """
        total = len(images) * sum(map(len, self._scales))
        with self._machine.running(), reporter.track("extracting descriptors", total) as advance:
            by_net = [
                self._one_net(net, recipe, scales, images, names, faults, lambda count: advance(count, ""))
                for net, recipe, scales in zip(self._nets, self._recipes, self._scales, strict=True)
            ]
        return combine(by_net, self.settings)

    def _one_net(
        self,
        net: FeatureNet,
        recipe: dict[str, Any],
        scales: tuple[int, ...],
        images: Sequence[Any],
        names: Sequence[str],
        faults: dict[int, str] | None,
        done: Any,
    ) -> dict[int, Array]:
        views = ResizeToScales(Protocol("dense", scales, mirror=False), net.net.crop, net.resampling, net.other_side)
        by_scale: dict[int, Array] = {}
        shown = _shown(views, images, names, faults)
        for scale, indices, rows in descriptors(net, shown, recipe["pool"], recipe["mirror"], self._machine):
            if scale not in by_scale:
                by_scale[scale] = np.zeros((len(images), rows.shape[1]), dtype=np.float32)
            by_scale[scale][indices] = rows
            done(len(indices))
        nothing = np.zeros((len(images), 0), dtype=np.float32)
        return {scale: by_scale.get(scale, nothing) for scale in scales}


def _open(recipe: dict[str, Any]) -> FeatureNet:
    source = recipe["net"]
    if str(recipe.get("data", "")).partition(":")[0] == OF_BOXES:
        raise VerydeepError("these descriptors are of boxes of people, which a new photo does not have.")
    file = _moved_file(Path(source["file"]))
    if not file.is_file():
        raise VerydeepError(f"{file}, the net that made these descriptors, is gone: put it back.")
    net = open_feature_net(file, recipe["layer"], source["preprocessing"])
    if net.source["sha256"] != source["sha256"]:
        raise VerydeepError(f"{file} is no longer the net that made these descriptors: run `verydeep features` again.")
    return net


def _moved_file(file: Path) -> Path:
    """A file in its recorded folder or, where a project was moved, in the same folder below the working directory."""
    ends = (Path(*file.parts[start:]) for start in range(1, len(file.parts)))
    return next((place for place in (file, *ends) if place.is_file()), file)


def _shown(
    views: ResizeToScales, images: Sequence[Any], names: Sequence[str], faults: dict[int, str] | None
) -> Iterator[tuple[int, list[Pixels]]]:
    """Each image at each scale; unreadable ones go to ``faults``."""
    for index, (image, name) in enumerate(zip(images, names, strict=True)):
        try:
            yield index, views(as_pixels(image, name))
        except ImageError as fault:
            if faults is None:
                raise fault.named(name) from None
            faults[index] = str(fault.named(name))


@dataclass(frozen=True)
class SvmClassifier:
    """SVMs with the nets that compute their descriptors; `predict` gives scores, not probabilities."""

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
        images = listed(images)
        names = [name_of(image, index) for index, image in enumerate(images)]
        rows = self.extractor.rows(images, names, faults, reporter or Silent())
        if rows.shape[1] == 0:
            return np.zeros((len(images), len(self.classes)))
        if rows.shape[1] != len(self.file.weights):
            raise VerydeepError("the classifier does not fit the net that it names: run `verydeep svm` again.")
        scores: NDArray[np.float64] = rows.astype(np.float64) @ self.file.weights + self.file.bias
        return scores

    def predict(
        self,
        images: Any,
        top: int = 5,
        protocol: str | None = None,
        faults: dict[int, str] | None = None,
        reporter: Reporter | None = None,
    ) -> list[Prediction]:
        """The best classes of each image; arguments as for `Classifier.predict`.

        Raises:
            VerydeepError: a protocol is given: the descriptors have their own.
        """
        if protocol is not None:
            raise VerydeepError("an SVM classifier has its own layer and scales: leave out --protocol.")
        check_top(top)
        images = listed(images)
        unreadable: dict[int, str] = {}
        scores = self.scores(images, None if faults is None else unreadable, reporter)
        if faults is not None:
            faults.update(unreadable)
        return best_classes(images, scores, self.classes, top, unreadable, "score")


def load_svm_classifier(path: Path, machine: MachineSettings) -> SvmClassifier:
    """Loads a classifier file with its nets; raises VerydeepError where one of them is missing or broken."""
    file = load_svm(path)
    nets = [(net["recipe"], net["scales"]) for net in file.nets]
    return SvmClassifier(file, DescriptorExtractor(nets, file.descriptor, machine))
