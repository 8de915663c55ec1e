"""App. A: localises objects in new images: one box for each of the likeliest classes, with its score."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..checkpoints.checkpoint import Checkpoint, load_localisation_model
from ..checkpoints.run_dir import checkpoint_of
from ..core.device import Machine, resolve_device
from ..core.errors import ImageError, VerydeepError
from ..core.progress import Reporter, Silent
from ..core.settings import MachineSettings, MergeSettings
from ..data.class_names import place_of_class
from ..data.image_io import Pixels, as_pixels
from ..data.transforms import check_ratio
from ..evaluation.predict import Classifier, check_top, listed, name_of
from ..evaluation.protocols import BoxProtocol, parse_box_protocol
from .evaluate import FEW_CLASSES, TOP_LABELS, classification_net, usual_protocol
from .inference import BoxPredictor, BoxViews, CandidateBoxes, ScoringNet, check_classes, check_finite, check_rater
from .merge import USUAL_T, kept_t, merge_candidates, union

AT_ONCE = 64  # images held in memory


@dataclass(frozen=True)
class FoundBox:
    """A box, ``xyxy`` in pixels of the image from 0, its class, and its score: the sum over its candidates."""

    name: str
    score: float
    xyxy: tuple[float, float, float, float]


@dataclass(frozen=True)
class Boxes:
    """One image's boxes, that of the likeliest class first."""

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
    """A localisation model, and where there is one the classification net that gives the labels and rates the boxes."""

    checkpoint: Checkpoint
    finder: BoxPredictor
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
        """The boxes of each image.

        Args:
            images: as `Classifier.predict` takes them.
            top: how many classes, at least 1; by default 5, or 1 of fewer than 10.
            name: the class to localise, in place of the likeliest ones.
            faults: collects the messages of unreadable images by index; those images are left out.

        Raises:
            ImageError: an image cannot be read, and ``faults`` is None; the message names it.
            VerydeepError: no such class; neither class nor classification net.
        """
        usual = TOP_LABELS if len(self.classes) >= FEW_CLASSES else 1
        many = usual if top is None else top
        check_top(many)
        images = listed(images)
        boxes: list[Boxes] = []
        with (reporter or Silent()).track("localising", len(images)) as advance:
            for start in range(0, len(images), AT_ONCE):
                batch = _read(images, range(start, min(start + AT_ONCE, len(images))), faults)
                with self.machine.running():
                    boxes += self._boxes(batch, many, name) if batch else []
                advance(min(AT_ONCE, len(images) - start), "")
        return boxes

    def _boxes(self, photos: list[tuple[str, Pixels]], top: int, name: str | None) -> list[Boxes]:
        shown = [pixels for _, pixels in photos]
        labels, posteriors = self._labels(shown, top, name)
        by_scale = []
        metadata = self.checkpoint.metadata
        for part in self.protocol.parts():
            views = BoxViews(part.scales[0], metadata.resampling, metadata.other_side)
            by_scale.append(self.finder.run(((index, views(pixels)) for index, pixels in enumerate(shown)), labels))
            check_finite(by_scale[-1], str(self.checkpoint.path))
        found = []
        for index, (image, _) in enumerate(photos):
            windows: CandidateBoxes = union([scale[index] for scale in by_scale])
            boxes, ratings = merge_candidates(windows, labels[index], self.settings, self.t)
            if self.settings.rate == "image":
                ratings = ratings * posteriors[index]
            rows = zip(labels[index], ratings, boxes, strict=True)
            boxes_of = (FoundBox(self.classes[label], float(score), _four(box)) for label, score, box in rows)
            found.append(Boxes(image, tuple(boxes_of)))
        return found

    def _labels(
        self, photos: list[Pixels], top: int, name: str | None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The classes to localise and their posteriors, (N,L) each; 1 where no net classifies."""
        if name is not None or len(self.classes) == 1:
            place = 0 if name is None else place_of_class(name, self.classes)
            if place is None:
                raise VerydeepError(f"unknown class {name!r}; the classes are {', '.join(self.classes[:10])}.")
            chosen = np.full((len(photos), 1), place, dtype=np.int64)
        elif self.classifier is None:
            raise VerydeepError("no classification net gives the labels: add --classifier RUN, or --class NAME.")
        found = None if self.classifier is None else self.classifier.posteriors(photos)
        if name is None and len(self.classes) > 1:
            assert found is not None
            chosen = np.argsort(-found, axis=1, kind="stable")[:, :top]
        ones = np.ones(chosen.shape, dtype=np.float32)
        return chosen, ones if found is None else np.take_along_axis(found, chosen, axis=1)


def _read(images: list[Any], chosen: range, faults: dict[int, str] | None) -> list[tuple[str, Pixels]]:
    """Images with their names."""
    found: list[tuple[str, Pixels]] = []
    for index in chosen:
        name = name_of(images[index], index)
        try:
            pixels = as_pixels(images[index], name)
            check_ratio(pixels.shape)
            found.append((name, pixels))
        except ImageError as fault:
            named = fault.named(name)
            if faults is None:
                raise named from None
            faults[index] = str(named)
    return found


def _four(box: NDArray[np.float64]) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = (float(value) for value in box)
    return x1, y1, x2, y2


def load_localiser(
    run: str | Path,
    classifier: str | Path | None = None,
    protocol: str | None = None,
    merging: MergeSettings | None = None,
    machine: MachineSettings | None = None,
    reporter: Reporter | None = None,
) -> Localiser:
    """Loads the localisation model of a run's folder.

    Args:
        classifier: a classification run; by default the one the model started from, if it is still there.
        protocol: such as ``dense@352,384``; by default `usual_protocol`.
        merging: without its ``t``, the one tuned by evaluating the run is used.

    Raises:
        VerydeepError: no such run, not a localisation model, a classification net that does not match it.
    """
    settings, reporter = merging or MergeSettings(), reporter or Silent()
    checkpoint = load_localisation_model(checkpoint_of(run, last=False))
    metadata = checkpoint.metadata
    where = usual_protocol(metadata) if protocol is None else parse_box_protocol(protocol, metadata.crop)
    here = resolve_device(replace(machine or MachineSettings(workers=0), compile=False), metadata.multiply_adds)
    net = checkpoint.net()
    here.place_model(net)
    found = classification_net(checkpoint, classifier)
    classes, rater = None, None
    if found is not None:
        check_classes(metadata, found.metadata)
        classification = found.net()
        here.place_model(classification)
        classes = Classifier(classification, found.metadata, here)
        if settings.rate == "window":
            check_rater(metadata, found.metadata)
            rater = ScoringNet(classification, found.metadata)
    finder, t = BoxPredictor(net, metadata, rater, where, here), _t(checkpoint, settings, where, reporter)
    return Localiser(checkpoint, finder, classes, where, settings, t, here)


def usual_test(run: str | Path) -> str:
    """The protocol with which `verydeep localise evaluate` tests a run just as `predict` applies it."""
    checkpoint = load_localisation_model(checkpoint_of(run, last=False))
    usual = usual_protocol(checkpoint.metadata)
    if usual.method != "centre" and classification_net(checkpoint, None) is None:  # no net rates the boxes of a map
        usual = BoxProtocol("centre", usual.scales)
    return str(usual)


def _t(checkpoint: Checkpoint, settings: MergeSettings, protocol: BoxProtocol, reporter: Reporter) -> float:
    """The threshold of merging: as given, as tuned, or the usual one."""
    if settings.t is not None or protocol.method == "centre":  # one candidate has nothing to merge with
        return USUAL_T if settings.t is None else settings.t
    if settings.match == "literal":
        raise VerydeepError("a literal match is in pixels of each photo: give --t, the match at which merging ends.")
    kept = kept_t(checkpoint.path.parent, checkpoint.sha256, protocol, settings)
    if kept is None:
        reporter.say(f"t is not tuned: using {USUAL_T} (`verydeep localise evaluate` tunes it, --t sets it)")
    return USUAL_T if kept is None else kept
