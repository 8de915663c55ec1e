"""App. A: predicts boxes in new images: one for each of the most probable classes, with its score."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..checkpoints.checkpoint import Checkpoint, load_localisation_model
from ..checkpoints.run_dir import checkpoint_of
from ..core.device import Machine, resolve_device
from ..core.errors import VerydeepError
from ..core.progress import Reporter, Silent
from ..core.settings import MachineSettings, MergeSettings
from ..data.class_names import place_of_class
from ..data.image_io import Pixels
from ..data.transforms import check_ratio
from ..evaluation.predict import Classifier, check_top, each_image, listed, name_of
from ..evaluation.protocols import BoxProtocol, parse_box_protocol
from .evaluate import FEW_CLASSES, TOP_LABELS, classification_net, usual_protocol
from .inference import BoxPredictor, BoxViews, ScoringNet, check_classes, check_finite, check_rater
from .merge import USUAL_T, check_tunable, load_t, merge_candidates, union

AT_ONCE = 64  # images held in memory


@dataclass(frozen=True)
class FoundBox:
    """A box, ``xyxy`` in pixels of the image, its class, and its score: the sum over its candidates."""

    name: str
    score: float
    xyxy: tuple[float, float, float, float]


@dataclass(frozen=True)
class Boxes:
    """One image's boxes, that of the most probable class first."""

    image: str
    boxes: tuple[FoundBox, ...]

    def to_json(self) -> dict[str, Any]:
        """``{image, boxes: [{class, score, box: [xmin, ymin, xmax, ymax]}]}``."""
        rows = [
            {"class": box.name, "score": round(box.score, 6), "box": [round(value, 2) for value in box.xyxy]}
            for box in self.boxes
        ]
        return {"image": self.image, "boxes": rows}


@dataclass(frozen=True)
class Localiser:
    """A localisation model, and the classification net, if any, that predicts the labels and rates the boxes."""

    checkpoint: Checkpoint
    predictor: BoxPredictor
    classifier: Classifier | None
    protocol: BoxProtocol
    settings: MergeSettings
    t: float
    machine: Machine

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the nets' outputs."""
        return self.checkpoint.metadata.classes

    def predict(
        self,
        images: Any,
        top: int | None = None,
        name: str | None = None,
        faults: dict[int, str] | None = None,
        reporter: Reporter | None = None,
    ) -> list[Boxes]:
        """Predicts the boxes of each image.

        Args:
            images: as `Classifier.predict` takes them.
            top: number of classes, at least 1; by default 5, or 1 of fewer than 10.
            name: the class to locate, instead of the most probable ones.
            faults: receives the messages of unreadable images, by index; these images are skipped.

        Raises:
            ImageError: an image cannot be read, and ``faults`` is None; the message names it.
            VerydeepError: no such class; neither a class nor a classification net.
        """
        default = TOP_LABELS if len(self.classes) >= FEW_CLASSES else 1
        labels = default if top is None else top
        check_top(labels)
        images = listed(images)
        boxes: list[Boxes] = []
        with (reporter or Silent()).track("localising", len(images)) as advance:
            for start in range(0, len(images), AT_ONCE):
                batch = list(each_image(images[start : start + AT_ONCE], _checked, faults, start))
                named = [(name_of(images[index], index), pixels) for index, pixels in batch]
                with self.machine.running():
                    boxes += self._boxes(named, labels, name) if named else []
                advance(min(AT_ONCE, len(images) - start), "")
        return boxes

    def _boxes(self, images: list[tuple[str, Pixels]], top: int, name: str | None) -> list[Boxes]:
        pixels = [pixels for _, pixels in images]
        labels, posteriors = self._labels(pixels, top, name)
        by_scale = []
        metadata = self.checkpoint.metadata
        for part in self.protocol.parts():
            views = BoxViews(part.scales[0], metadata.resampling, metadata.other_side)
            by_scale.append(self.predictor.run(enumerate(map(views, pixels)), labels))
            check_finite(by_scale[-1], str(self.checkpoint.path))
        predictions = []
        for index, (image, _) in enumerate(images):
            candidates = union([scale[index] for scale in by_scale])
            boxes, ratings = merge_candidates(candidates, labels[index], self.settings, self.t)
            if self.settings.rate == "image":
                ratings = ratings * posteriors[index]
            rows = zip(labels[index], ratings.tolist(), boxes.tolist(), strict=True)
            of_image = (
                FoundBox(self.classes[label], score, (x1, y1, x2, y2)) for label, score, (x1, y1, x2, y2) in rows
            )
            predictions.append(Boxes(image, tuple(of_image)))
        return predictions

    def _labels(
        self, images: list[Pixels], top: int, name: str | None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The classes to locate and their posteriors, (N,L) each; the latter are 1 without a classification net."""
        posteriors = None if self.classifier is None else self.classifier.posteriors(images)
        if name is not None or len(self.classes) == 1:
            label = 0 if name is None else place_of_class(name, self.classes)
            if label is None:
                raise VerydeepError(f"unknown class {name!r}; the classes are {', '.join(self.classes[:10])}.")
            labels = np.full((len(images), 1), label, dtype=np.int64)
        elif posteriors is None:
            raise VerydeepError("no classification net predicts the labels: add --classifier RUN, or --class NAME.")
        else:
            labels = np.argsort(-posteriors, axis=1, kind="stable")[:, :top]
        ones = np.ones(labels.shape, dtype=np.float32)
        return labels, ones if posteriors is None else np.take_along_axis(posteriors, labels, axis=1)


def _checked(pixels: Pixels) -> Pixels:
    """An image; raises ImageError if it is so narrow that rescaling would exceed memory."""
    check_ratio(pixels.shape)
    return pixels


def load_localiser(
    run: str | Path,
    classifier: str | Path | None = None,
    protocol: str | None = None,
    merging: MergeSettings | None = None,
    machine: MachineSettings | None = None,
    reporter: Reporter | None = None,
) -> Localiser:
    """Loads the localisation model of a run.

    Args:
        classifier: a classification run; by default the one that the model started from, if it still exists.
        protocol: such as ``dense@352,384``; by default `verydeep.localisation.evaluate.usual_protocol`.
        merging: without a ``t``, the one that evaluating the run tuned is used.

    Raises:
        VerydeepError: no such run, not a localisation model, a classification net that does not match it.
    """
    settings, reporter = merging or MergeSettings(), reporter or Silent()
    checkpoint = load_localisation_model(checkpoint_of(run, last=False))
    metadata = checkpoint.metadata
    parsed = usual_protocol(metadata) if protocol is None else parse_box_protocol(protocol, metadata.crop)
    device = resolve_device(replace(machine or MachineSettings(workers=0), compile=False), metadata.multiply_adds)
    net = checkpoint.net()
    device.place_model(net)
    start = classification_net(checkpoint, classifier)
    classification, rater = None, None
    if start is not None:
        check_classes(metadata, start.metadata)
        classes_net = start.net()
        device.place_model(classes_net)
        classification = Classifier(classes_net, start.metadata, device)
        if settings.rate == "window":
            check_rater(metadata, start.metadata)
            rater = ScoringNet(classes_net, start.metadata)
    predictor, t = BoxPredictor(net, metadata, rater, parsed, device), _t(checkpoint, settings, parsed, reporter)
    return Localiser(checkpoint, predictor, classification, parsed, settings, t, device)


def usual_test(run: str | Path) -> str:
    """The protocol with which `verydeep localise evaluate` applies a run as `predict` does."""
    checkpoint = load_localisation_model(checkpoint_of(run, last=False))
    usual = usual_protocol(checkpoint.metadata)
    if usual.method != "centre" and classification_net(checkpoint, None) is None:  # no net rates a map's boxes
        usual = BoxProtocol("centre", usual.scales)
    return str(usual)


def _t(checkpoint: Checkpoint, settings: MergeSettings, protocol: BoxProtocol, reporter: Reporter) -> float:
    """The threshold of merging: as given, as tuned, or `USUAL_T`."""
    if settings.t is not None or protocol.method == "centre":  # a single candidate is not merged
        return USUAL_T if settings.t is None else settings.t
    check_tunable(settings)
    tuned = load_t(checkpoint, protocol, settings)
    if tuned is None:
        reporter.say(f"--t is not tuned: using {USUAL_T}; `verydeep localise evaluate` tunes it, or pass another value")
    return USUAL_T if tuned is None else tuned
