"""The models of a server: a net or SVMs, a localisation model, a features file with its net."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from ...core.errors import VerydeepError
from ...core.progress import Reporter
from ...core.settings import MachineSettings
from ...data.class_names import place_of_class
from ...data.image_io import Pixels
from ...data.open import Dataset
from ...evaluation.predict import Classifier, Prediction
from ...evaluation.protocols import check_protocol, parse_protocol
from ...evaluation.rejection import Rejection
from ...evaluation.saliency import check_explainable, grad_cam, map_scale, overlay, score_map
from ...localisation.predict import Localiser, load_localiser
from ...reports.html import encoded
from ...transfer.predict import SvmClassifier
from ...transfer.retrieval import NearestNeighbours, Neighbour, photos_of

SIDE, CACHED = 160, 512  # pixels of a thumbnail's longer side; thumbnails
RouteName = Literal["predict", "localise", "describe", "similar", "explain"]


@dataclass(frozen=True)
class Query:
    """What to compute for an image; images with equal queries are batched.

    ``name`` is a class's. ``kind`` is for `explain`: ``map`` or ``gradcam``, as numbers or as a ``picture``.
    """

    route: RouteName
    top: int | None = None
    name: str | None = None
    kind: Literal["map", "gradcam"] = "map"
    picture: bool = False


@dataclass(frozen=True)
class QueryImage:
    """An image, uint8 (H,W,3), and its number of results, which may differ within a batch."""

    pixels: Pixels
    top: int = 5


class Thumbnails:
    """Thumbnails by an image's place in the file, so that no name in a request can reach another file."""

    def __init__(self, dataset: Dataset, ids: Sequence[str]) -> None:
        """``ids`` are those of the images in the order of the file."""
        self._dataset, self._ids = dataset, ids
        self._cached = lru_cache(CACHED)(self._make)

    def picture(self, place: int) -> bytes | None:
        """A small JPEG; None where the file has no image at this place.

        Raises:
            ImageError: the image is gone, or broken by now.
        """
        return self._cached(place) if 0 <= place < len(self._ids) else None

    def _make(self, place: int) -> bytes:
        return encoded(self._dataset.source.read(self._ids[place]), "JPEG", SIDE)


@dataclass(frozen=True)
class ServedModels:
    """The loaded models; None for those not served."""

    name: str
    classifier: Classifier | SvmClassifier
    protocol: str | None
    localiser: Localiser | None
    neighbours: NearestNeighbours | None
    thumbnails: Thumbnails | None
    reject_at: float | None = None

    @property
    def routes(self) -> tuple[RouteName, ...]:
        """The routes that this server has."""
        served: list[RouteName] = ["predict"]
        if self.explains:
            served.append("explain")
        if self.localiser is not None:
            served.append("localise")
        return (*served, "describe", "similar") if self.neighbours is not None else tuple(served)

    @property
    def explains(self) -> bool:
        """Whether score maps can be computed."""
        try:
            check_explainable(self.classifier)
        except VerydeepError:
            return False
        return True

    @property
    def kind(self) -> str:
        """The kind of a class's value: a probability, or an SVM's score."""
        return "probability" if isinstance(self.classifier, Classifier) else "score"

    @property
    def temperature(self) -> float | None:
        """The temperature of calibrated probabilities."""
        if isinstance(self.classifier, Classifier):
            return self.classifier.temperature(self.protocol)
        return self.classifier.file.temperature

    @property
    def rejection(self) -> Rejection | None:
        """The threshold below which images are unknown; None without ``reject_at``."""
        return None if self.reject_at is None else self.classifier.rejection(self.reject_at, self.protocol)

    def run(self, query: Query, items: Sequence[QueryImage]) -> list[Any]:
        """JSON values, or the bytes of pictures, one for each image.

        Raises:
            ImageError: an image that cannot be rescaled.
            VerydeepError: no such class, or a net that predicts NaN.
        """
        images = [item.pixels for item in items]
        if query.route == "predict":
            top = max(item.top for item in items)
            predictions = self.classifier.predict(images, top, self.protocol, reject_at=self.reject_at)
            return [_first_classes(made, item.top) for made, item in zip(predictions, items, strict=True)]
        if query.route == "localise":
            assert self.localiser is not None
            predicted = self.localiser.predict(images, query.top, query.name)
            return [{"boxes": boxes.to_json()["boxes"]} for boxes in predicted]
        if query.route == "explain":
            return [self._explain(query, pixels) for pixels in images]
        assert self.neighbours is not None
        rows = self.neighbours.descriptors(images)
        if query.route == "describe":
            return [{"descriptor": [round(float(value), 7) for value in row]} for row in rows]
        near = self.neighbours.nearest(rows, max(item.top for item in items))
        return [
            {"neighbours": list(map(self._neighbour, row[: item.top]))} for row, item in zip(near, items, strict=True)
        ]

    def _explain(self, query: Query, pixels: Pixels) -> Any:
        net = check_explainable(self.classifier)
        name = net.predict(pixels, 1, self.protocol)[0].classes[0][0] if query.name is None else query.name
        label = place_of_class(name, net.classes)
        if label is None:
            raise VerydeepError(f"unknown class {name[:60]!r}.")
        scale = map_scale(net.metadata, self.protocol)
        computed = (score_map if query.kind == "map" else grad_cam)(net, pixels, label, scale)
        if query.picture:
            return encoded(overlay(pixels, computed), "PNG", compress_level=1)
        return {"class": name, "kind": query.kind, **computed.to_json()}

    def _neighbour(self, near: Neighbour) -> dict[str, Any]:
        """A neighbour with the number of its thumbnail, None where the images are gone."""
        assert self.neighbours is not None
        place = None if self.thumbnails is None else self.neighbours.place(near.id)
        return {"image": near.id, "class": near.name, "cosine": round(near.cosine, 6), "photo": place}


def _first_classes(prediction: Prediction, top: int) -> dict[str, Any]:
    shown = replace(prediction, classes=prediction.classes[:top]).to_json()
    return {name: value for name, value in shown.items() if name != "image"}


def open_served(
    run: str,
    classifier: Classifier | SvmClassifier,
    boxes: str | None,
    features: str | None,
    protocol: str | None,
    machine: MachineSettings,
    reporter: Reporter,
    reject_at: float | None = None,
) -> ServedModels:
    """Loads all models beside the classifier.

    Args:
        run: the classifier's source, as for `verydeep.load`.
        boxes: a localisation run; its classes are rated by the net that it started from, or by ``run``.
        features: a features file.
        reject_at: as for `verydeep.predict`.

    Raises:
        VerydeepError: one of them is missing, broken, or does not fit; an invalid protocol; no threshold.
    """
    if protocol is not None:
        if not isinstance(classifier, Classifier):
            raise VerydeepError("a classifier on descriptors has its own layer and scales: leave out --protocol.")
        check_protocol(parse_protocol(protocol), classifier.metadata.crop)
    if isinstance(classifier, Classifier) and (note := classifier.calibration_note(protocol)):
        reporter.say(note)
    if reject_at is not None:
        reporter.say(str(classifier.rejection(reject_at, protocol)))
    neighbours = None if features is None else NearestNeighbours(features, machine=machine)
    localiser = None if boxes is None else _localiser(boxes, run, machine, reporter)
    thumbnails = _thumbnails(neighbours, reporter)
    return ServedModels(Path(run).name, classifier, protocol, localiser, neighbours, thumbnails, reject_at)


def _localiser(boxes: str, run: str, machine: MachineSettings, reporter: Reporter) -> Localiser:
    localiser = load_localiser(boxes, machine=machine, reporter=reporter)
    if localiser.classifier is None and len(localiser.classes) > 1:
        return load_localiser(boxes, run, machine=machine, reporter=reporter)
    return localiser


def _thumbnails(neighbours: NearestNeighbours | None, reporter: Reporter) -> Thumbnails | None:
    if neighbours is None:
        return None
    try:
        return Thumbnails(photos_of(neighbours.known.recipe), neighbours.known.ids)
    except VerydeepError as fault:
        reporter.warn(f"similar images have no thumbnails, as the images of the features file are gone: {fault}")
        return None
