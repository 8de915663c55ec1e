"""App. A: evaluates localisation models on a dataset by both procedures of Sect. A.1, and writes errors and boxes.

``centre@Q`` is the first procedure: the box of the image's true class on its central crop. ``dense@Q,…`` (or
``crops@Q,…``) is the second: boxes at all positions and scales for the labels that a classification net predicts (five,
or one if there are fewer than `FEW_CLASSES`), merged, scored by the classification net, one box per label. Several
models are combined by the union of their boxes. Predicted boxes are rounded to whole pixels, as the devkit reads them
from a server file, so the error is ILSVRC's (`verydeep.evaluation.metrics.boxes_wrong`) of the boxes as written.

Candidate boxes are stored by model and scale and reused; merging and errors then take seconds.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..checkpoints.checkpoint import Checkpoint, Metadata, load_classifier, load_localisation_model
from ..checkpoints.run_dir import EVALUATIONS, check_results_place, checkpoint_of, environment, run_name
from ..core.device import Machine, resolve_device
from ..core.errors import VerydeepError
from ..core.files import check_place, read_json, short_name, write_atomically, write_json
from ..core.progress import Reporter
from ..core.settings import MachineSettings, MergeSettings
from ..data.boxes import Array, whole_pixels
from ..data.class_names import places_in, same_classes
from ..data.datasets.imagenet import blacklisted
from ..data.open import Dataset
from ..evaluation.ensemble import load_current
from ..evaluation.evaluate import dataset_posteriors, scores_of
from ..evaluation.metrics import BOX_IOU, best_overlap, boxes_wrong, error_with_interval
from ..evaluation.predict import Classifier
from ..evaluation.protocols import BoxProtocol, Protocol, parse_box_protocol
from ..evaluation.scores import FILE_NAME, load_scores, save_scores
from ..evaluation.submission import ilsvrc_ids, write_localisation
from .datasets import BoxSets
from .inference import BoxPredictor, CandidateBoxes, ScoringNet, check_classes, check_finite, check_rater
from .merge import USUAL_T, best_constant_box, merge_candidates, save_t, tune_threshold, union
from .windows_file import dataset_windows, load_windows, save_windows, windows_key

PAPER_CROP = 224
GUESSES = "guesses.npz"
CONSTANT_IMAGES = 2000  # training images whose boxes are candidates for the best constant box
FEW_CLASSES = 10  # with fewer, five labels would be most of them, and only the top one counts
TOP_LABELS = 5
TUNING_IMAGES = 500
LABELS = "labels"  # directory in a run, of the posteriors that the labels are from
ERRORS = ("gt_class_error", "localisation_error", "classification_error", "box_only_error")


@dataclass(frozen=True)
class BoxEvaluation:
    """The result of `verydeep.evaluate_boxes`: summary, predictions, the directory of its files, failed writes."""

    summary: dict[str, Any]
    guesses: Predictions
    folder: Path
    problems: tuple[str, ...] = ()


def _description(evaluator: LocalisationEvaluator) -> dict[str, Any]:
    """The part of a summary that records models, images and settings."""
    tests, sets = evaluator.tests, evaluator.sets
    models = [(test.checkpoint.path, str(test.protocol)) for test in tests]
    return {
        "tests": [{"run": run_name(path), "folder": str(path.parent), "protocol": name} for path, name in models],
        "regression": tests[0].checkpoint.metadata.localiser_settings.regression,
        "set": sets.tested.set_name,
        "data": sets.tested.name,
        "images": len(sets.tested),
        "merging": asdict(evaluator.settings) if evaluator.merges else None,
        "faults": {name: len(images) for name, images in sets.faults.items()},
        "checkpoints": [test.checkpoint.sha256 for test in tests],
        "classifier": None if evaluator.rater is None else evaluator.rater.sha256,
    }


def open_tests(tests: Sequence[tuple[str | Path, str | None]], reporter: Reporter) -> list[BoxTest]:
    """Loads localisation models and parses their protocols; arguments as of `verydeep.evaluate_boxes`.

    Raises:
        VerydeepError: there are none, no such run, models of different classes.
    """
    if not tests:
        raise VerydeepError("nothing to evaluate: pass a localisation run and a protocol, such as dense@256.")
    opened = []
    for run, protocol in tests:
        checkpoint = load_localisation_model(checkpoint_of(run, last=False))
        opened.append(BoxTest(checkpoint, _protocol(protocol, checkpoint.metadata, reporter)))
    first = opened[0].checkpoint
    for other in opened[1:]:
        if not same_classes(other.checkpoint.metadata.classes, first.metadata.classes):
            raise VerydeepError(
                f"{other.checkpoint.path} and {first.path} have different classes and cannot be combined."
            )
    return opened


def _protocol(protocol: str | None, metadata: Metadata, reporter: Reporter) -> BoxProtocol:
    """The given protocol, or the default of `localise predict`."""
    if protocol is not None:
        return parse_box_protocol(protocol, metadata.crop)
    usual = usual_protocol(metadata)
    reporter.say(
        f"evaluating with {usual}, the default of localise predict; to use another protocol, such as "
        "dense@256, name it after the run"
    )
    return usual


def _rater(tests: Sequence[BoxTest], classifier: str | Path | None, reporter: Reporter) -> Checkpoint | None:
    """The classification net that scores boxes: the given one, else the one that the first model started from."""
    if classifier is None and all(test.protocol.method == "centre" for test in tests):
        return None
    rater = classification_net(tests[0].checkpoint, classifier)
    nets = [test.checkpoint for test in tests[1:]] + ([] if rater is None else [rater])
    for other in nets:
        if _split(other) != _split(tests[0].checkpoint):
            reporter.warn(
                f"{other.path.parent} was trained on other data or another split, perhaps on these test images"
            )
    if rater is not None and classifier is None:
        reporter.say(
            f"boxes are scored by the classifier that the localisation model was initialised from, {rater.path.parent}"
        )
    return rater


def _split(checkpoint: Checkpoint) -> list[Any]:
    """The settings that decide which images a net was trained on."""
    data = checkpoint.metadata.data
    return [data.get(name) for name in ("data", "dev_fraction", "test_fraction", "split_seed")]


def _folder(evaluator: LocalisationEvaluator) -> Path:
    """A directory named by the protocols, and by merging settings that are not the defaults."""
    tests, sets, defaults = evaluator.tests, evaluator.sets, asdict(MergeSettings())
    first = tests[0].checkpoint.path.parent
    names = [str(tests[0].protocol)]
    names += [f"{test.checkpoint.sha256[:8]}-{test.protocol}" for test in tests[1:]]
    changed = {name: value for name, value in asdict(evaluator.settings).items() if value != defaults[name]}
    settings = "".join(f",{name}={value}" for name, value in changed.items())
    return first / EVALUATIONS / sets.place(sets.tested) / short_name(f"boxes-{'+'.join(names)}{settings}")


def _wrong(predictions: Predictions) -> dict[str, NDArray[np.bool_] | None]:
    """Which images are wrong by each of `ERRORS`, bool (N,); None for errors that are not defined."""
    dataset, wrong = predictions.dataset, dict[str, NDArray[np.bool_] | None].fromkeys(ERRORS)
    if dataset.boxes is None:
        return wrong
    wrong["gt_class_error"] = best_overlap(predictions.true_boxes, dataset.boxes) < BOX_IOU
    if predictions.labels.shape[1]:
        unnamed, unplaced = boxes_wrong(predictions.labels, predictions.boxes, dataset.labels, dataset.boxes)
        wrong |= dict(zip(ERRORS[1:], (unplaced, unnamed, unplaced & ~unnamed), strict=True))
    return wrong


def _errors(predictions: Predictions, sets: BoxSets) -> dict[str, Any]:
    """All errors in percent with 95 % intervals; None where they are not defined."""
    dataset, wrong, count = predictions.dataset, _wrong(predictions), predictions.labels.shape[1]
    errors: dict[str, Any] = {"guesses": count}
    for name in ERRORS:
        errors |= error_with_interval(name, wrong[name], dataset.groups)
    if dataset.boxes is None:
        return errors
    if count > 1:
        top = boxes_wrong(predictions.labels[:, :1], predictions.boxes[:, :1], dataset.labels, dataset.boxes)[1]
        errors |= error_with_interval("one_guess_error", top, dataset.groups)
    return {**errors, **_constant(dataset, sets), **_without_blacklisted(dataset, wrong["localisation_error"])}


def _constant(dataset: Dataset, sets: BoxSets) -> dict[str, float | None]:
    """The GT-class error of the constant box that is best on training images; None without such images."""
    try:
        train = sets.evenly("train", CONSTANT_IMAGES)
        if train is None or train.boxes is None or dataset.boxes is None:
            return {"constant_box_error": None}
        shares = best_constant_box([train.size(index) for index in range(len(train))], train.boxes)
    except VerydeepError:  # a missing or broken training image must not stop the evaluation
        return {"constant_box_error": None}
    sizes = np.array([dataset.size(index) for index in range(len(dataset))])
    boxes = whole_pixels(shares * np.concatenate([sizes[:, ::-1], sizes[:, ::-1]], axis=1))
    return {"constant_box_error": round(100 * float((best_overlap(boxes, dataset.boxes) < BOX_IOU).mean()), 4)}


def _without_blacklisted(dataset: Dataset, wrong: NDArray[np.bool_] | None) -> dict[str, Any]:
    """ILSVRC's localisation error without the validation images on its devkit's blacklist."""
    if (dataset.name, dataset.set_name) != ("imagenet", "val") or wrong is None:
        return {}
    numbers = blacklisted(dataset.source.root or Path())
    matches = [re.fullmatch(r"ILSVRC2012_val_(\d{8})", Path(image).stem) for image in dataset.ids]
    if numbers is None or not all(matches):
        return {}
    kept = ~np.isin([int(match[1]) for match in matches if match], sorted(numbers))
    error = error_with_interval("localisation_error_without_blacklisted", wrong[kept], dataset.groups[kept])
    return {"blacklisted": int((~kept).sum()), **error}


def _write(folder: Path, summary: dict[str, Any], predictions: Predictions, machine: Machine) -> None:
    dataset, wrong = predictions.dataset, _wrong(predictions)
    arrays: dict[str, Any] = {
        "ids": np.array(dataset.ids),
        "classes": np.array(dataset.classes),
        "true_labels": dataset.labels,
        "labels": predictions.labels,
        "boxes": predictions.boxes,
        "ratings": predictions.ratings,
        "true_class_boxes": predictions.true_boxes,
    }
    if dataset.boxes is not None:
        # Wrong by the main error: without predicted labels that is the GT-class error.
        main = "localisation_error" if predictions.labels.shape[1] else "gt_class_error"
        overlaps = best_overlap(predictions.true_boxes, dataset.boxes)
        arrays |= {"true_class_overlaps": overlaps, "wrong": wrong[main], "subjects": dataset.groups}
    write_atomically(folder / GUESSES, lambda file: np.savez_compressed(file, **arrays))
    write_json(folder / "result.json", {**summary, "environment": environment(machine.describe())})


@dataclass(frozen=True)
class BoxTest:
    """A localisation model and the protocol to evaluate it with."""

    checkpoint: Checkpoint
    protocol: BoxProtocol


@dataclass(frozen=True)
class Predictions:
    """One box for each of N images and G labels, the most probable first; and one for the true class.

    ``labels`` int64 (N,G), ``boxes`` xyxy (N,G,4), ``ratings`` (N,G); ``true_boxes`` (N,4), of the true class, are
    0 for unlabelled images. Boxes are whole pixels.
    """

    dataset: Dataset
    labels: NDArray[np.int64]
    boxes: Array
    ratings: Array
    true_boxes: Array


class LocalisationEvaluator:
    """Evaluates localisation models on one dataset, with a given or tuned threshold t of merging."""

    def __init__(
        self,
        tests: Sequence[BoxTest],
        classifier: str | Path | None,
        sets: BoxSets,
        merging: MergeSettings | None,
        machine: MachineSettings | None,
        reporter: Reporter,
    ) -> None:
        """Arguments as of `verydeep.evaluate_boxes`.

        Raises:
            VerydeepError: no classification net, or one that does not match the models.
        """
        self.tests, self.sets, self.settings, self.reporter = tests, sets, merging or MergeSettings(), reporter
        self.rater = rater = _rater(tests, classifier, reporter)
        first, settings = tests[0].checkpoint.metadata, self.settings
        self.machine: Machine = resolve_device(
            replace(machine or MachineSettings(), compile=False), first.multiply_adds
        )
        if rater is not None:
            for test in tests:
                check_classes(test.checkpoint.metadata, rater.metadata)
                if settings.rate == "window":
                    check_rater(test.checkpoint.metadata, rater.metadata)
        if rater is None and self.merges and settings.rate == "window" and len(first.classes) > 1:
            raise VerydeepError(
                "there is no classification net to score boxes with: pass --classifier RUN, or --rate image."
            )

    def run(
        self,
        scores: str | Path | None = None,
        out: str | Path | None = None,
        server_file: str | Path | None = None,
        devkit: str | Path | None = None,
    ) -> BoxEvaluation:
        """Evaluates the models, and writes boxes and errors; arguments as of `verydeep.evaluate_boxes`.

        Raises:
            VerydeepError: scores of other images or classes, no labels, files that cannot be written.
        """
        folder, tested = Path(out) if out else _folder(self), self.sets.tested
        self._check_places(scores, folder, server_file, devkit)
        start = time.monotonic()
        labels, posteriors = self.labels(tested, scores)
        t, tuning = self.t()
        predictions = self.predict(tested, labels, posteriors, t)
        errors = {**_errors(predictions, self.sets), "t": t if self.merges else None, **tuning}
        seconds = round(time.monotonic() - start, 2)
        summary = {**_description(self), **errors, "seconds": seconds, "folder": str(folder)}
        _write(folder, summary, predictions, self.machine)
        if len(self.tests) == 1 and tuning["tuned_on"]:
            save_t(self.tests[0].checkpoint, self.tests[0].protocol, self.settings, t)
        if server_file is not None and devkit is not None:
            write_localisation(Path(server_file), tested, predictions.labels, predictions.boxes, devkit)
        return BoxEvaluation(summary, predictions, folder)

    def _check_places(
        self, scores: str | Path | None, folder: Path, server_file: str | Path | None, devkit: str | Path | None
    ) -> None:
        """Raises VerydeepError, before the computation, for what would fail after it."""
        if (server_file is None) != (devkit is None):
            raise VerydeepError(
                "--server-file and --devkit must be used together: the devkit has the ILSVRC2012_ID of each class."
            )
        check_results_place(folder)
        if scores is not None:
            load_scores(scores)
        tested = self.sets.tested
        if (tested.name, tested.set_name) == ("imagenet", "val"):
            blacklisted(tested.source.root or Path())
        if server_file is None or devkit is None:
            return
        if scores is None and not self.merges:
            raise VerydeepError("a server file needs labels: use dense@Q, or pass --scores FILE.")
        if self.sets.faults.get("none") or self.sets.faults.get("class"):
            raise VerydeepError(
                "a server file has a line for every image, and images without a correct box were left out."
            )
        check_place(Path(server_file).absolute().parent)
        ilsvrc_ids(tested.classes, Path(devkit))

    @property
    def merges(self) -> bool:
        """Whether any of the protocols gives more than one candidate box per image."""
        return any(test.protocol.method != "centre" for test in self.tests)

    def candidates(self, dataset: Dataset, labels: NDArray[np.int64]) -> list[CandidateBoxes]:
        """Each image's candidate boxes for labels (N,L), of all models and scales; stored ones are loaded."""
        rater = self.rater if self.settings.rate == "window" and self.merges else None
        with self.machine.running():
            parts = [
                self._part(test.checkpoint, part, rater, dataset, labels)
                for test in self.tests
                for part in test.protocol.parts()
            ]
        return [union(of_image) for of_image in zip(*parts, strict=True)]

    def _part(
        self,
        checkpoint: Checkpoint,
        part: BoxProtocol,
        rater: Checkpoint | None,
        dataset: Dataset,
        labels: NDArray[np.int64],
    ) -> tuple[CandidateBoxes, ...]:
        """The candidate boxes of a model at one scale."""
        rated_by = "by-itself" if rater is None else f"by-{rater.sha256[:12]}"
        key = windows_key(
            net=checkpoint.sha256,
            rater="" if rater is None else rater.sha256,
            protocol=str(part),
            photos=[dataset.fingerprint(sizes=True), dataset.stamps()],
            labels=labels.tolist(),
        )
        place = checkpoint.path.parent / EVALUATIONS / self.sets.place(dataset)
        folder = place / "windows" / f"{part}-{rated_by}-{key[:8]}"
        check_place(folder)
        stored = load_windows(folder, key)
        if stored is not None:
            return stored
        net, scoring = checkpoint.net(), None if rater is None else ScoringNet(rater.net(), rater.metadata)
        self.machine.place_model(net)
        if scoring is not None:
            self.machine.place_model(scoring.net)
        label = f"{checkpoint.path.parent.name} {part} on {len(dataset)} images"
        predictor = BoxPredictor(net, checkpoint.metadata, scoring, part, self.machine)
        by_index = dataset_windows(predictor, dataset, labels, self.reporter, label)
        check_finite(by_index, str(checkpoint.path))
        candidates = tuple(by_index[index] for index in range(len(dataset)))
        save_windows(folder, dataset.ids, labels, candidates, key)
        return candidates

    def t(self) -> tuple[float, dict[str, Any]]:
        """The threshold of merging, and how it was tuned."""
        if self.settings.t is not None or not self.merges:
            return (USUAL_T if self.settings.t is None else self.settings.t), {"tuned_on": None}
        tuning = self.sets.evenly("dev", TUNING_IMAGES)
        if tuning is None:
            self.reporter.warn(f"no dev images to tune --t on: using {USUAL_T}; pass --t to use another value")
            return USUAL_T, {"tuned_on": None}
        candidates = self.candidates(tuning, tuning.labels[:, None])
        assert tuning.boxes is not None
        t, errors = tune_threshold(candidates, tuning.boxes, self.settings, self.reporter)
        return t, {"tuned_on": f"{len(tuning)} dev photos", "gt_class_error_by_t": errors}

    def predict(
        self, dataset: Dataset, labels: NDArray[np.int64], posteriors: NDArray[np.float32] | None, t: float
    ) -> Predictions:
        """One box for each image and label (N,G); ``posteriors`` (N,K) are those that the labels are from."""
        known = dataset.labelled
        located = np.concatenate([labels, dataset.labels[:, None]], axis=1) if known else labels
        candidates = self.candidates(dataset, located)
        boxes, ratings = np.zeros((*located.shape, 4)), np.zeros(located.shape)
        count = labels.shape[1]
        with self.reporter.track("merging", len(candidates)) as advance:
            for number, image in enumerate(candidates):
                # The true class by itself: merging across labels must not use it.
                for columns in (slice(0, count), slice(count, None)):
                    if located[number, columns].size:
                        part = CandidateBoxes(image.boxes[:, columns], image.ratings[:, columns])
                        boxes[number, columns], ratings[number, columns] = merge_candidates(
                            part, located[number, columns], self.settings, t
                        )
                advance(1, "")
        if self.settings.rate == "image" and posteriors is not None:
            ratings *= np.take_along_axis(posteriors, located, axis=1)
        boxes = whole_pixels(boxes)
        true_boxes = boxes[:, -1] if known else np.zeros((len(dataset), 4))
        return Predictions(dataset, labels, boxes[:, :count], ratings[:, :count], true_boxes)

    def labels(self, dataset: Dataset, file: str | Path | None) -> tuple[NDArray[np.int64], NDArray[np.float32] | None]:
        """The classes to locate in each image, (N,G), the most probable first, and the posteriors (N,K) they are from.

        They are from a scores file or the classification net; there are none for centre crops alone.

        Raises:
            VerydeepError: the scores are of other images or classes; there are neither scores nor a net.
        """
        classes = self.tests[0].checkpoint.metadata.classes
        if file is None and not self.merges:
            if not dataset.labelled:
                name = f"{dataset.name} ({dataset.set_name})"
                raise VerydeepError(
                    f"the images of {name} have no labels: pass the scores of a classifier on them as --scores FILE."
                )
            return np.zeros((len(dataset), 0), dtype=np.int64), None
        if len(classes) == 1:
            return np.zeros((len(dataset), 1), dtype=np.int64), None
        posteriors = self._posteriors(dataset) if file is None else _posteriors_of(dataset, Path(file), classes)
        best = np.argsort(-posteriors, axis=1, kind="stable")
        return best[:, : TOP_LABELS if len(classes) >= FEW_CLASSES else 1], posteriors

    def _posteriors(self, dataset: Dataset) -> NDArray[np.float32]:
        """Posteriors by the classification net, dense at its training scale; stored in the run."""
        if self.rater is None:
            raise VerydeepError("no classification net predicts the labels: add --classifier RUN, or --scores FILE.")
        metadata = self.rater.metadata
        protocol = Protocol("dense", (metadata.test_scale,), mirror=True)
        key = windows_key(photos=[dataset.fingerprint(sizes=True), dataset.stamps()])[:8]
        name = f"{protocol}-by-{self.rater.sha256[:12]}-{key}"
        path = self.tests[0].checkpoint.path.parent / LABELS / self.sets.place(dataset) / name / FILE_NAME
        with contextlib.suppress(VerydeepError):  # missing or broken: computed again
            stored = load_scores(path)
            same = same_classes(stored.classes, metadata.classes)
            if same and (stored.checkpoint, stored.ids) == (self.rater.sha256, dataset.ids):
                return stored.posteriors
        net = self.rater.net()
        self.machine.place_model(net)
        classifier = Classifier(net, metadata, self.machine)
        run = self.rater.path.parent.name
        with self.machine.running():
            label = f"labels by {run}, {protocol}"
            computed = dataset_posteriors(classifier, dataset, protocol, self.reporter, label)
        save_scores(path, scores_of(dataset, self.rater, run, str(protocol), computed.posteriors))
        return computed.posteriors


def _posteriors_of(dataset: Dataset, path: Path, classes: tuple[str, ...]) -> NDArray[np.float32]:
    """The posteriors (N,K) of a dataset from a scores file, with classes in the localisation model's order.

    Raises:
        VerydeepError: it lacks images of the dataset, or has other classes.
    """
    scores = load_current(path)
    row_of = {image: row for row, image in enumerate(scores.ids)}
    missing = [image for image in dataset.ids if image not in row_of]
    if missing:
        more = f" and {len(missing) - 1} more" if missing[1:] else ""
        raise VerydeepError(
            f"{path} has no scores of {missing[0]}{more}: evaluate the classification run on the same set."
        )
    columns = places_in(scores.classes, classes)
    if len(scores.classes) != len(classes) or (columns < 0).any():
        raise VerydeepError(
            f"{path} has other classes than the localisation model, whose classes are {', '.join(classes[:8])}."
        )
    rows = [row_of[image] for image in dataset.ids]
    return scores.posteriors[rows][:, columns]


def classification_net(box_net: Checkpoint, given: str | Path | None) -> Checkpoint | None:
    """The given net, else the one that the model started from if it has the same classes; else None.

    Raises:
        VerydeepError: the given one is not a classification net.
    """
    if given is not None:
        return load_classifier(checkpoint_of(given, last=False))
    config = box_net.path.parent / "config.json"
    try:
        started = read_json(config) if config.exists() else box_net.metadata.settings
        start = load_classifier(checkpoint_of(str(started.get("start_path", started.get("start", "none"))), last=False))
    except VerydeepError:
        return None
    return start if same_classes(start.metadata.classes, box_net.metadata.classes) else None


def usual_protocol(metadata: Metadata) -> BoxProtocol:
    """Dense at the training scale for nets trained on windows of whole images, and for those of the paper's crop.

    The central crop for the others: trained on crops surrounded by zeros, which reach far into the map of a small crop,
    such a net errs several times as often on whole images (NOTES.md).
    """
    dense = metadata.train_settings.context == "photo" or metadata.crop >= PAPER_CROP
    return BoxProtocol("dense" if dense else "centre", (metadata.test_scale,))
