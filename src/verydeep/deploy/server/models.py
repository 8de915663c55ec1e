"""What a server can be asked, and by whom it is answered: a net or SVMs, a box net, a features file with its net."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from ...api import load
from ...core import memory
from ...core.errors import VerydeepError
from ...core.progress import Reporter
from ...core.settings import MachineSettings
from ...data.class_names import place_of_class
from ...data.image_io import Pixels
from ...evaluation.predict import Classifier, Prediction
from ...evaluation.protocols import check_protocol, parse_protocol
from ...evaluation.saliency import explainable, grad_cam, overlay, score_map
from ...localisation.predict import Localiser, load_localiser
from ...transfer.retrieval import NearestNeighbours, photos_of
from ...transfer.svm_prediction import SvmClassifier
from .thumbnails import Thumbnails, encoded

Way = Literal["predict", "localise", "describe", "similar", "explain"]


@dataclass(frozen=True)
class Query:
    """What is asked of a photo; photos of equal questions are asked together.

    ``name`` is a class's. ``kind`` is of `explain`: ``map`` or ``gradcam``, as numbers or as a ``picture``.
    """

    way: Way
    top: int | None = None
    name: str | None = None
    kind: Literal["map", "gradcam"] = "map"
    picture: bool = False


@dataclass(frozen=True)
class QueryImage:
    """A photo, uint8 (H,W,3), and how many answers are wanted, which does not part a batch."""

    pixels: Pixels
    top: int = 5


@dataclass(frozen=True)
class ServedModels:
    """All that answers; what is None is not served."""

    name: str
    asked: Classifier | SvmClassifier
    protocol: str | None
    localiser: Localiser | None
    finder: NearestNeighbours | None
    thumbnails: Thumbnails | None

    @property
    def ways(self) -> tuple[Way, ...]:
        """What can be asked."""
        found: list[Way] = ["predict"]
        if self.explains:
            found.append("explain")
        if self.localiser is not None:
            found.append("localise")
        return (*found, "describe", "similar") if self.finder is not None else tuple(found)

    @property
    def explains(self) -> bool:
        """Whether there are score maps."""
        try:
            explainable(self.asked)
        except VerydeepError:
            return False
        return True

    @property
    def kind(self) -> str:
        """What a class is given: a probability, or an SVM's score."""
        return "probability" if isinstance(self.asked, Classifier) else "score"

    def answer(self, question: Query, items: Sequence[QueryImage]) -> list[Any]:
        """JSON values, or of pictures their bytes, one for each photo.

        Raises:
            ImageError: a photo that cannot be rescaled.
            VerydeepError: no such class, or a net that tells no numbers.
        """
        photos = [item.pixels for item in items]
        if question.way == "predict":
            top = max(item.top for item in items)
            found = self.asked.predict(photos, top, self.protocol)
            return [_predictions(one, item.top) for one, item in zip(found, items, strict=True)]
        if question.way == "localise":
            assert self.localiser is not None
            boxes = self.localiser.predict(photos, question.top, question.name)
            return [{"boxes": one.to_json()["boxes"]} for one in boxes]
        if question.way == "explain":
            return [self._explained(question, pixels) for pixels in photos]
        assert self.finder is not None
        rows = self.finder.describe(photos, ["the photo"] * len(photos))
        if question.way == "describe":
            return [{"descriptor": [round(float(value), 7) for value in row]} for row in rows]
        near = self.finder.nearest(rows, max(item.top for item in items))
        return [
            {"neighbours": [self._neighbour(one) for one in row[: item.top]]}
            for row, item in zip(near, items, strict=True)
        ]

    def _explained(self, question: Query, pixels: Pixels) -> Any:
        asked = explainable(self.asked)
        name = question.name or asked.predict(pixels, 1, self.protocol)[0].classes[0][0]
        label = place_of_class(name, asked.classes)
        if label is None:
            raise VerydeepError(f"the net knows no class {name[:60]!r}.")
        scale = max(parse_protocol(self.protocol).scales) if self.protocol else None
        way = score_map if question.kind == "map" else grad_cam
        found = way(asked, pixels, label, scale)
        if question.picture:
            return encoded(overlay(pixels, found), "PNG")
        return {"class": name, "kind": question.kind, **found.to_json()}

    def _neighbour(self, one: Any) -> dict[str, Any]:
        """A neighbour with the place of its picture, None where the photos are gone."""
        assert self.finder is not None
        place = None if self.thumbnails is None else self.finder.place(one.id)
        return {"image": one.id, "class": one.name, "cosine": round(one.cosine, 6), "photo": place}

    @contextmanager
    def at_work(self) -> Any:
        """A context for as long as there is something to answer: freed memory stays for the next batch."""
        with memory.retain_freed_memory():
            yield


def _predictions(found: Prediction, top: int) -> dict[str, Any]:
    told = replace(found, classes=found.classes[:top]).to_json()
    return {"predictions": told["predictions"]}


def open_served(
    run: str,
    boxes: str | None,
    features: str | None,
    protocol: str | None,
    last: bool,
    machine: MachineSettings,
    reporter: Reporter,
) -> ServedModels:
    """Loads all that answers.

    Args:
        run: as for `verydeep.api.load`.
        boxes: a box net's run; the classes it is asked about are told by the net that it started from, or by ``run``.
        features: a features file.

    Raises:
        VerydeepError: one of them is not there, broken, or does not fit; a protocol that is none.
    """
    asked = load(run, last, machine)
    if protocol is not None:
        if not isinstance(asked, Classifier):
            raise VerydeepError("a classifier on descriptors has its own layer and scales: leave out --protocol.")
        check_protocol(parse_protocol(protocol), asked.metadata.crop)
    finder = None if features is None else NearestNeighbours(features, machine=machine)
    localiser = None if boxes is None else _localiser(boxes, run, machine, reporter)
    return ServedModels(Path(run).name, asked, protocol, localiser, finder, _thumbnails(finder, reporter))


def _localiser(boxes: str, run: str, machine: MachineSettings, reporter: Reporter) -> Localiser:
    found = load_localiser(boxes, machine=machine, reporter=reporter)
    if found.classifier is None and len(found.classes) > 1:
        return load_localiser(boxes, run, machine=machine, reporter=reporter)
    return found


def _thumbnails(finder: NearestNeighbours | None, reporter: Reporter) -> Thumbnails | None:
    if finder is None:
        return None
    try:
        return Thumbnails(photos_of(finder.known.recipe), finder.known.ids)
    except VerydeepError as fault:
        reporter.warn(f"similar photos have no pictures, as the photos that were described are gone: {fault}")
        return None
