"""App. A: a box net tested: both procedures of Sect. A.1, one way.

``centre@Q`` is the first: the box of the photo's true class on its central crop. ``dense@Q,…`` (or ``crops@Q,…``) is
the second: boxes at all places and scales for the labels that a classification net gives the photo (five, or one
where there are fewer than `FEW_CLASSES`), merged, rated by the classification net, one box a label. Several box nets
join by the union of their boxes. The error is ILSVRC's (`verydeep.evaluation.metrics.boxes_wrong`).

Windows are stored by box net and scale and used again; merging and errors then take seconds.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..checkpoints.checkpoint import Checkpoint, load_classifier
from ..checkpoints.run_dir import EVALUATIONS, checkpoint_of
from ..core.device import Machine, resolve_device
from ..core.errors import VerydeepError
from ..core.files import check_place, read_json
from ..core.progress import Reporter
from ..core.settings import MachineSettings, MergeSettings
from ..data.boxes import Array
from ..data.class_names import places_in, same_classes
from ..data.open import Dataset
from ..evaluation.ensemble import load_current
from ..evaluation.evaluate import dataset_posteriors
from ..evaluation.predict import Classifier
from ..evaluation.protocols import BoxProtocol, Protocol
from ..evaluation.scores import FILE_NAME, Scores, load_scores, save_scores
from .datasets import BoxSets
from .inference import BoxPredictor, CandidateBoxes, ScoringNet, check_classes, check_finite, check_rater
from .merge import USUAL_T, merge_candidates, tune_threshold, union
from .windows_file import Windows, dataset_windows, load_windows, save_windows, windows_key

FEW_CLASSES = 10  # with fewer, five guesses would be most of them: one guess is the headline
GUESSES = 5
TUNING_PHOTOS = 500
LABELS = "labels"  # folder in a box net's run, of posteriors by the net that classified for it


@dataclass(frozen=True)
class BoxTest:
    """A box net and where it is applied."""

    checkpoint: Checkpoint
    protocol: BoxProtocol


@dataclass(frozen=True)
class Guesses:
    """A label's box for each of N photos and G labels, the likeliest first; and for the true class.

    ``labels`` int64 (N,G), ``boxes`` xyxy (N,G,4), ``ratings`` (N,G); ``true_boxes`` (N,4), of the true class, are
    zeros where it is not known.
    """

    dataset: Dataset
    labels: NDArray[np.int64]
    boxes: Array
    ratings: Array
    true_boxes: Array


@dataclass(frozen=True)
class Labels:
    """The classes a photo is asked about, (N,G), the likeliest first, and where their scores are from."""

    labels: NDArray[np.int64]
    scores: Scores | None


class LocalisationEvaluator:
    """Box nets on one set of photos: `guesses` for the set, with t as given or tuned."""

    def __init__(
        self,
        tests: Sequence[BoxTest],
        rater: Checkpoint | None,
        sets: BoxSets,
        settings: MergeSettings,
        wish: MachineSettings,
        reporter: Reporter,
    ) -> None:
        self.tests, self.rater, self.sets, self.settings, self.reporter = tests, rater, sets, settings, reporter
        first = tests[0].checkpoint.metadata
        self.machine: Machine = resolve_device(replace(wish, compile=False), first.multiply_adds)
        if rater is not None:
            for test in tests:
                check_classes(test.checkpoint.metadata, rater.metadata)
                if settings.rate == "window":
                    check_rater(test.checkpoint.metadata, rater.metadata)
        if rater is None and self.merges and settings.rate == "window" and len(first.classes) > 1:
            raise VerydeepError(
                "no classification net is at hand to rate boxes with: give --classifier RUN, or --rate image."
            )

    @property
    def merges(self) -> bool:
        """Whether any of the tests has more than one window a photo."""
        return any(test.protocol.method != "centre" for test in self.tests)

    def windows(self, dataset: Dataset, labels: NDArray[np.int64]) -> list[list[Windows]]:
        """Each test's windows, scale by scale, of the labels (N,L); from disk where they are there."""
        rated = self.rater if self.settings.rate == "window" and self.merges else None
        with self.machine.running():
            return [
                [self._part(test.checkpoint, part, rated, dataset, labels) for part in test.protocol.parts()]
                for test in self.tests
            ]

    def _part(
        self,
        checkpoint: Checkpoint,
        part: BoxProtocol,
        rated: Checkpoint | None,
        dataset: Dataset,
        labels: NDArray[np.int64],
    ) -> Windows:
        told = "by-itself" if rated is None else f"by-{rated.sha256[:12]}"
        place = self.sets.place(dataset)
        key = windows_key(
            net=checkpoint.sha256,
            rater="" if rated is None else rated.sha256,
            protocol=str(part),
            photos=[dataset.fingerprint(sizes=True), dataset.stamps()],
            labels=labels.tolist(),
        )
        folder = checkpoint.path.parent / EVALUATIONS / place / "windows" / f"{part}-{told}-{key[:8]}"
        check_place(folder)
        stored = load_windows(folder, key)
        if stored is not None:
            return stored
        net = checkpoint.net()
        self.machine.place_model(net)
        rater = None if rated is None else ScoringNet(rated.net(), rated.metadata)
        if rater is not None:
            self.machine.place_model(rater.net)
        label = f"{checkpoint.path.parent.name} {part} on {len(dataset)} photos"
        predictor = BoxPredictor(net, checkpoint.metadata, rater, part, self.machine)
        found = dataset_windows(predictor, dataset, labels, self.reporter, label)
        check_finite(found, str(checkpoint.path))
        windows = Windows(dataset.ids, labels, tuple(found[index] for index in range(len(dataset))))
        save_windows(folder, windows, key)
        return windows

    def t(self) -> tuple[float, dict[str, Any]]:
        """The threshold of merging, and how it was found."""
        if self.settings.t is not None or not self.merges:
            return (USUAL_T if self.settings.t is None else self.settings.t), {"tuned_on": None}
        tuning = self.sets.dev(TUNING_PHOTOS)
        if tuning is None:
            self.reporter.warn(f"the data have no dev photos to tune t on: t is {USUAL_T}; --t says another")
            return USUAL_T, {"tuned_on": None}
        parts = self.windows(tuning, tuning.labels[:, None])
        assert tuning.boxes is not None
        t, errors = tune_threshold(_united(parts), tuning.boxes, self.settings, self.reporter)
        return t, {"tuned_on": f"{len(tuning)} dev photos", "gt_class_error_by_t": errors}

    def guesses(self, dataset: Dataset, labels: Labels, t: float) -> Guesses:
        """One box a label for each photo."""
        known = dataset.labelled
        asked = np.concatenate([labels.labels, dataset.labels[:, None]], axis=1) if known else labels.labels
        photos = _united(self.windows(dataset, asked))
        boxes, ratings = np.zeros((*asked.shape, 4)), np.zeros(asked.shape)
        many = labels.labels.shape[1]
        with self.reporter.track("merging", len(photos)) as advance:
            for number, photo in enumerate(photos):
                # The true class apart: merging across labels must not see it.
                for columns in (slice(0, many), slice(many, None)):
                    if asked[number, columns].size:
                        part = CandidateBoxes(photo.boxes[:, columns], photo.ratings[:, columns])
                        boxes[number, columns], ratings[number, columns] = merge_candidates(
                            part, asked[number, columns], self.settings, t
                        )
                advance(1, "")
        if self.settings.rate == "image" and labels.scores is not None:
            ratings *= np.take_along_axis(labels.scores.posteriors, asked, axis=1)
        true_boxes = boxes[:, -1] if known else np.zeros((len(dataset), 4))
        return Guesses(dataset, labels.labels, boxes[:, :many], ratings[:, :many], true_boxes)

    def labels(self, dataset: Dataset, given: str | Path | None) -> Labels:
        """The classes to ask about: from a scores file, or by the classification net; none for centre crops alone.

        Raises:
            VerydeepError: the scores are of other photos or classes; neither scores nor net are there.
        """
        classes = self.tests[0].checkpoint.metadata.classes
        if given is None and not self.merges:
            if not dataset.labelled:
                told = f"{dataset.name} ({dataset.set_name})"
                raise VerydeepError(f"the classes of {told} are not known: give --scores FILE of its photos.")
            return Labels(np.zeros((len(dataset), 0), dtype=np.int64), None)
        if len(classes) == 1:
            return Labels(np.zeros((len(dataset), 1), dtype=np.int64), None)
        scores = self._classified(dataset) if given is None else _scores_for(dataset, Path(given), classes)
        best = np.argsort(-scores.posteriors, axis=1, kind="stable")
        return Labels(best[:, : GUESSES if len(classes) >= FEW_CLASSES else 1], scores)

    def _classified(self, dataset: Dataset) -> Scores:
        """Posteriors by the classification net, dense at the Q of its training, kept beside the windows."""
        if self.rater is None:
            raise VerydeepError(
                "which classes to ask about is not known: give --classifier RUN or --scores FILE of these photos."
            )
        metadata = self.rater.metadata
        protocol = Protocol("dense", (metadata.test_scale,), mirror=True)
        photos = windows_key(photos=[dataset.fingerprint(sizes=True), dataset.stamps()])[:8]
        named = f"{protocol}-by-{self.rater.sha256[:12]}-{photos}"
        path = self.tests[0].checkpoint.path.parent / LABELS / self.sets.place(dataset) / named / FILE_NAME
        with contextlib.suppress(VerydeepError):  # none there, or torn: then they are made
            stored = load_scores(path)
            same = same_classes(stored.classes, metadata.classes)
            if same and (stored.checkpoint, stored.ids) == (self.rater.sha256, dataset.ids):
                return stored
        net = self.rater.net()
        self.machine.place_model(net)
        classifier = Classifier(net, metadata, self.machine)
        label = f"classes by {self.rater.path.parent.name}, {protocol}"
        with self.machine.running():
            answers = dataset_posteriors(classifier, dataset, protocol, self.reporter, label)
        run = self.rater.path.parent.name
        of = (dataset.set_name, dataset.name, run, str(protocol), self.rater.sha256)
        scores = Scores(dataset.ids, dataset.labels, dataset.groups, metadata.classes, answers.posteriors, *of)
        save_scores(path, scores)
        return scores


def _united(parts: list[list[Windows]]) -> list[Any]:
    """Each photo's windows of all tests and scales together."""
    every = [windows for scales in parts for windows in scales]
    return [union(photos) for photos in zip(*(windows.photos for windows in every), strict=True)]


def _scores_for(dataset: Dataset, path: Path, classes: tuple[str, ...]) -> Scores:
    """A scores file's rows for the photos of a set, its classes in the box net's order.

    Raises:
        VerydeepError: it lacks some of the photos, or is of other classes.
    """
    scores = load_current(path)
    place = {photo: row for row, photo in enumerate(scores.ids)}
    missing = [photo for photo in dataset.ids if photo not in place]
    if missing:
        raise VerydeepError(
            f"{path} is of other photos: {missing[0]}"
            + (f" and {len(missing) - 1} more are" if missing[1:] else " is")
            + " not in it; evaluate the classification run on the same set."
        )
    columns = places_in(scores.classes, classes)
    if len(scores.classes) != len(classes) or (columns < 0).any():
        raise VerydeepError(f"{path} is of other classes than the box net, which knows {', '.join(classes[:8])}.")
    rows = [place[photo] for photo in dataset.ids]
    posteriors = scores.posteriors[rows][:, columns]
    return replace(scores, ids=dataset.ids, labels=dataset.labels, classes=classes, posteriors=posteriors)


def classification_net(box_net: Checkpoint, given: str | Path | None) -> Checkpoint | None:
    """The one named, else the one the box net started from, where it is one of the same classes; else None.

    Raises:
        VerydeepError: the one named is none.
    """
    if given is not None:
        return load_classifier(checkpoint_of(given, last=False))
    config = box_net.path.parent / "config.json"
    try:
        told = read_json(config) if config.exists() else box_net.metadata.settings
        found = load_classifier(checkpoint_of(str(told.get("start_path", told.get("start", "none"))), last=False))
    except VerydeepError:
        return None
    return found if same_classes(found.metadata.classes, box_net.metadata.classes) else None
