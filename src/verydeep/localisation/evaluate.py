"""App. A: evaluates localisation models on a data set by both procedures of Sect. A.1, and writes errors and boxes.

``centre@Q`` is the first procedure: the box of the image's true class on its central crop. ``dense@Q,…`` (or
``crops@Q,…``) is the second: boxes at all places and scales for the labels that a classification net predicts (five,
or one where there are fewer than `FEW_CLASSES`), merged, rated by the classification net, one box per label. Several
models are fused by the union of their boxes. The error is ILSVRC's (`verydeep.evaluation.metrics.boxes_wrong`).

Candidate boxes are stored by model and scale and used again; merging and errors then take seconds.
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
from ..checkpoints.run_dir import BEST, EVALUATIONS, LAST, bad_images, checkpoint_of, environment, run_name
from ..core.device import Machine, resolve_device
from ..core.errors import VerydeepError
from ..core.files import check_place, read_json, short_name, write_atomically, write_json
from ..core.progress import Reporter, Silent
from ..core.settings import MachineSettings, MergeSettings
from ..data.boxes import Array
from ..data.class_names import places_in, same_classes
from ..data.datasets.imagenet import blacklisted
from ..data.open import Dataset
from ..evaluation.ensemble import load_current
from ..evaluation.evaluate import dataset_posteriors
from ..evaluation.metrics import BOX_IOU, best_overlap, boxes_wrong, error_interval
from ..evaluation.predict import Classifier
from ..evaluation.protocols import BoxProtocol, Protocol, parse_box_protocol
from ..evaluation.scores import FILE_NAME, Scores, load_scores, save_scores
from ..evaluation.submission import ilsvrc_ids, write_localisation
from .datasets import BoxSets, open_box_sets
from .inference import BoxPredictor, CandidateBoxes, ScoringNet, check_classes, check_finite, check_rater
from .merge import USUAL_T, best_constant_box, keep_t, merge_candidates, tune_threshold, union
from .windows_file import Windows, dataset_windows, load_windows, save_windows, windows_key

PAPER_CROP = 224
GUESSES = "guesses.npz"
CONSTANT_IMAGES = 2000  # training images among whose boxes the best constant one is searched
FEW_CLASSES = 10  # with fewer, five labels would be most of them, and only the likeliest one counts
TOP_LABELS = 5
TUNING_IMAGES = 500
LABELS = "labels"  # folder in a run, of the posteriors that gave the labels


@dataclass(frozen=True)
class BoxEvaluation:
    """Results of `evaluate_boxes`: summary, predictions, the folder of its files, and files it could not write."""

    summary: dict[str, Any]
    guesses: Predictions
    folder: Path
    problems: tuple[str, ...] = ()


def evaluate_boxes(
    tests: Sequence[tuple[str | Path, str | None]],
    scores: str | Path | None = None,
    classifier: str | Path | None = None,
    data: str | None = None,
    boxes: tuple[str, ...] = (),
    set_name: str | None = None,
    out: str | Path | None = None,
    strict: bool = False,
    merging: MergeSettings | None = None,
    server_file: str | Path | None = None,
    devkit: str | Path | None = None,
    machine: MachineSettings | None = None,
    reporter: Reporter | None = None,
) -> BoxEvaluation:
    """Tests localisation models and writes boxes and errors: `verydeep.evaluate_boxes` without pictures and report.

    Raises:
        VerydeepError: no such run or data; models of different classes; scores of other images; faults with ``strict``.
    """
    if (server_file is None) != (devkit is None):
        raise VerydeepError("a server file and the devkit go together: the devkit has each class's ILSVRC2012_ID.")
    news, opened = reporter or Silent(), _open_tests(tests, reporter or Silent())
    first, rater = opened[0].checkpoint, _rater(opened, classifier, news)
    sets = open_box_sets(first.metadata, bad_images(first.path.parent), data, boxes, set_name, strict, news)
    merging, machine = merging or MergeSettings(), machine or MachineSettings()
    tester = LocalisationEvaluator(opened, rater, sets, merging, machine, news)
    folder = Path(out) if out else _folder(tester)
    _check_places(tester, scores, folder, server_file, devkit)
    evaluation = _evaluate(tester, scores, folder)
    if server_file is not None and devkit is not None:
        predicted = evaluation.guesses
        write_localisation(Path(server_file), predicted.dataset, predicted.labels, predicted.boxes, devkit)
    return evaluation


def _evaluate(tester: LocalisationEvaluator, scores: str | Path | None, folder: Path) -> BoxEvaluation:
    """Computes predictions and errors, and writes the files."""
    start, sets = time.monotonic(), tester.sets
    labels = tester.labels(sets.tested, scores)
    t, tuning = tester.t()
    predicted = tester.predict(sets.tested, labels, t)
    errors = {**_errors(predicted, sets, labels.labels.shape[1]), "t": t if tester.merges else None, **tuning}
    summary = {**_description(tester), **errors, "seconds": round(time.monotonic() - start, 2), "folder": str(folder)}
    _write(folder, summary, predicted, tester)
    if len(tester.tests) == 1 and tuning["tuned_on"]:
        model = tester.tests[0].checkpoint
        keep_t(model.path.parent, model.sha256, tester.tests[0].protocol, tester.settings, t)
    return BoxEvaluation(summary, predicted, folder)


def _description(tester: LocalisationEvaluator) -> dict[str, Any]:
    """The part of a summary that names models, images and settings."""
    tests, sets = tester.tests, tester.sets
    return {
        "tests": [_test(test) for test in tests],
        "regression": tests[0].checkpoint.metadata.localiser_settings.regression,
        "set": sets.tested.set_name,
        "data": sets.tested.name,
        "images": len(sets.tested),
        "merging": asdict(tester.settings) if tester.merges else None,
        "faults": {name: len(photos) for name, photos in sets.faults.items()},
        "checkpoints": [test.checkpoint.sha256 for test in tests],
        "classifier": None if tester.rater is None else tester.rater.sha256,
    }


def _test(test: BoxTest) -> dict[str, str]:
    """A model and its protocol, as in a summary."""
    path = test.checkpoint.path
    return {"run": run_name(path), "folder": str(path.parent), "protocol": str(test.protocol)}


def _open_tests(tests: Sequence[tuple[str | Path, str | None]], reporter: Reporter) -> list[BoxTest]:
    """Loads the models and parses their protocols; raises VerydeepError where they do not go together."""
    if not tests:
        raise VerydeepError("nothing to test: give the run of a localisation model and a protocol, such as dense@256.")
    opened = []
    for run, protocol in tests:
        checkpoint = load_localisation_model(checkpoint_of(run, last=False))
        opened.append(BoxTest(checkpoint, _protocol(protocol, checkpoint.metadata, reporter)))
    first = opened[0].checkpoint
    for other in opened[1:]:
        if not same_classes(other.checkpoint.metadata.classes, first.metadata.classes):
            raise VerydeepError(f"{other.checkpoint.path} and {first.path} have different classes and cannot be fused.")
    return opened


def _protocol(protocol: str | None, metadata: Metadata, reporter: Reporter) -> BoxProtocol:
    """The given protocol, or that of `localise predict`."""
    if protocol is not None:
        return parse_box_protocol(protocol, metadata.crop)
    usual = usual_protocol(metadata)
    reporter.say(f"testing by {usual}, as localise predict does; give PROTOCOL for another")
    return usual


def _rater(tests: list[BoxTest], classifier: str | Path | None, reporter: Reporter) -> Checkpoint | None:
    """The classification net: the given one, else the one that the first model started from."""
    if classifier is None and all(test.protocol.method == "centre" for test in tests):
        return None
    found = classification_net(tests[0].checkpoint, classifier)
    nets = [test.checkpoint for test in tests[1:]] + ([] if found is None else [found])
    for other in nets:
        if _split(other) != _split(tests[0].checkpoint):
            reporter.warn(
                f"{other.path.parent} was trained on other data or another split, perhaps on the images tested here"
            )
    if found is not None and classifier is None:
        reporter.say(f"boxes are rated by the net that it started from, {found.path.parent}")
    return found


def _split(checkpoint: Checkpoint) -> list[Any]:
    """The settings that decide which images a net was trained on."""
    data = checkpoint.metadata.data
    return [data.get(name) for name in ("data", "dev_fraction", "test_fraction", "split_seed")]


def _check_places(
    tester: LocalisationEvaluator,
    scores: str | Path | None,
    folder: Path,
    server_file: str | Path | None,
    devkit: str | Path | None,
) -> None:
    """Raises VerydeepError, before the work, for what would fail after it."""
    check_place(folder)
    if any((folder / name).exists() for name in (LAST, BEST)):
        raise VerydeepError(f"{folder} is a run's folder: give another --out for the results.")
    tested = tester.sets.tested
    if scores is not None:
        load_scores(scores)
    if (tested.name, tested.set_name) == ("imagenet", "val"):
        blacklisted(tested.source.root or Path())
    if server_file is None or devkit is None:
        return
    if scores is None and not tester.merges:
        raise VerydeepError("a server file needs labels: use dense@Q, or give --scores FILE.")
    if tester.sets.faults.get("none") or tester.sets.faults.get("class"):
        raise VerydeepError("a server file has a line for every photo, and photos without a correct box were left out.")
    check_place(Path(server_file).absolute().parent)
    ilsvrc_ids(tested.classes, Path(devkit))


def _folder(tester: LocalisationEvaluator) -> Path:
    """A folder named by the protocols, and by merging settings that are not the defaults."""
    tests, sets, usual = tester.tests, tester.sets, asdict(MergeSettings())
    first = tests[0].checkpoint.path.parent
    names = [str(tests[0].protocol)]
    names += [f"{test.checkpoint.sha256[:8]}-{test.protocol}" for test in tests[1:]]
    changed = {name: value for name, value in asdict(tester.settings).items() if value != usual[name]}
    ways = "".join(f",{name}={value}" for name, value in changed.items())
    return first / EVALUATIONS / sets.place(sets.tested) / short_name(f"boxes-{'+'.join(names)}{ways}")


def _errors(predicted: Predictions, sets: BoxSets, count: int) -> dict[str, Any]:
    """All errors of predictions of ``count`` labels, in percent with 95 % intervals; None where not known."""
    dataset = predicted.dataset
    names = ("gt_class_error", "localisation_error", "classification_error", "box_only_error")
    if not dataset.labelled:
        return {"guesses": count, **{key: None for name in names for key in (name, f"{name}_interval")}}
    assert dataset.boxes is not None
    missed = best_overlap(predicted.true_boxes, dataset.boxes) < BOX_IOU
    wrong: dict[str, NDArray[np.bool_] | None] = dict.fromkeys(names)
    wrong["gt_class_error"] = missed
    if count:
        unnamed, unplaced = boxes_wrong(predicted.labels, predicted.boxes, dataset.labels, dataset.boxes)
        wrong |= {names[1]: unplaced, names[2]: unnamed, names[3]: unplaced & ~unnamed}
    rows = {key: value for name in names for key, value in _percent(name, wrong[name], dataset.groups).items()}
    if count > 1:
        first = boxes_wrong(predicted.labels[:, :1], predicted.boxes[:, :1], dataset.labels, dataset.boxes)[1]
        rows |= _percent("one_guess_error", first, dataset.groups)
    return {"guesses": count, **rows, **_constant(dataset, sets), **_without_blacklisted(dataset, wrong)}


def _percent(name: str, wrong: NDArray[np.bool_] | None, groups: NDArray[np.int64]) -> dict[str, Any]:
    if wrong is None:
        return {name: None, f"{name}_interval": None}
    ends = [round(end, 4) for end in error_interval(wrong, groups)]
    return {name: round(100 * float(wrong.mean()), 4), f"{name}_interval": ends}


def _constant(dataset: Dataset, sets: BoxSets) -> dict[str, float | None]:
    """The GT-class error of the constant box that is best on training images."""
    try:
        train = sets.train(CONSTANT_IMAGES)
        if train is None or train.boxes is None or dataset.boxes is None:
            return {"constant_box_error": None}
        shares = best_constant_box([train.size(index) for index in range(len(train))], train.boxes)
    except VerydeepError:  # a missing or broken training image is no reason to lose a test
        return {"constant_box_error": None}
    sizes = np.array([dataset.size(index) for index in range(len(dataset))])
    boxes = shares * np.concatenate([sizes[:, ::-1], sizes[:, ::-1]], axis=1)
    return {"constant_box_error": round(100 * float((best_overlap(boxes, dataset.boxes) < BOX_IOU).mean()), 4)}


def _without_blacklisted(dataset: Dataset, wrong: dict[str, NDArray[np.bool_] | None]) -> dict[str, Any]:
    """ILSVRC's localisation error without the validation images on its devkit's blacklist."""
    unplaced = wrong["localisation_error"]
    if (dataset.name, dataset.set_name) != ("imagenet", "val") or unplaced is None:
        return {}
    listed = blacklisted(dataset.source.root or Path())
    named = [re.fullmatch(r"ILSVRC2012_val_(\d{8})", Path(photo).stem) for photo in dataset.ids]
    if listed is None or not all(named):
        return {}
    kept = ~np.isin([int(match[1]) for match in named if match], sorted(listed))
    rows = _percent("localisation_error_without_blacklisted", unplaced[kept], dataset.groups[kept])
    return {"blacklisted": int((~kept).sum()), **rows}


def _write(folder: Path, summary: dict[str, Any], predicted: Predictions, tester: LocalisationEvaluator) -> None:
    arrays = {
        "ids": np.array(predicted.dataset.ids),
        "classes": np.array(predicted.dataset.classes),
        "true_labels": predicted.dataset.labels,
        "labels": predicted.labels,
        "boxes": predicted.boxes,
        "ratings": predicted.ratings,
        "true_class_boxes": predicted.true_boxes,
    }
    dataset = predicted.dataset
    if dataset.boxes is not None:
        # Wrong by the main error: without labels that is the GT-class error.
        overlaps = best_overlap(predicted.true_boxes, dataset.boxes)
        labelled = predicted.labels.shape[1] > 0
        wrong = (
            boxes_wrong(predicted.labels, predicted.boxes, dataset.labels, dataset.boxes)[1]
            if labelled
            else overlaps < BOX_IOU
        )
        arrays |= {"true_class_overlaps": overlaps, "wrong": wrong, "subjects": dataset.groups}
    write_atomically(folder / GUESSES, lambda file: np.savez_compressed(file, **arrays))  # type: ignore[arg-type]
    write_json(folder / "result.json", {**summary, "environment": environment(tester.machine.describe())})


@dataclass(frozen=True)
class BoxTest:
    """A localisation model and its protocol."""

    checkpoint: Checkpoint
    protocol: BoxProtocol


@dataclass(frozen=True)
class Predictions:
    """One box for each of N images and G labels, the likeliest first; and one for the true class.

    ``labels`` int64 (N,G), ``boxes`` xyxy (N,G,4), ``ratings`` (N,G); ``true_boxes`` (N,4), of the true class, are
    0 where it is not known.
    """

    dataset: Dataset
    labels: NDArray[np.int64]
    boxes: Array
    ratings: Array
    true_boxes: Array


@dataclass(frozen=True)
class Labels:
    """The classes to localise in each image, (N,G), the likeliest first, and the scores they are from."""

    labels: NDArray[np.int64]
    scores: Scores | None


class LocalisationEvaluator:
    """Localisation models on one data set: `predict` for the set, with t as given or tuned."""

    def __init__(
        self,
        tests: Sequence[BoxTest],
        rater: Checkpoint | None,
        sets: BoxSets,
        settings: MergeSettings,
        machine: MachineSettings,
        reporter: Reporter,
    ) -> None:
        self.tests, self.rater, self.sets, self.settings, self.reporter = tests, rater, sets, settings, reporter
        first = tests[0].checkpoint.metadata
        self.machine: Machine = resolve_device(replace(machine, compile=False), first.multiply_adds)
        if rater is not None:
            for test in tests:
                check_classes(test.checkpoint.metadata, rater.metadata)
                if settings.rate == "window":
                    check_rater(test.checkpoint.metadata, rater.metadata)
        if rater is None and self.merges and settings.rate == "window" and len(first.classes) > 1:
            raise VerydeepError(
                "there is no classification net to rate boxes with: give --classifier RUN, or --rate image."
            )

    @property
    def merges(self) -> bool:
        """Whether any of the tests has more than one candidate box per image."""
        return any(test.protocol.method != "centre" for test in self.tests)

    def windows(self, dataset: Dataset, labels: NDArray[np.int64]) -> list[list[Windows]]:
        """Each test's candidate boxes, scale by scale, of the labels (N,L); from disk where they are stored."""
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
        rated_by = "by-itself" if rated is None else f"by-{rated.sha256[:12]}"
        place = self.sets.place(dataset)
        key = windows_key(
            net=checkpoint.sha256,
            rater="" if rated is None else rated.sha256,
            protocol=str(part),
            photos=[dataset.fingerprint(sizes=True), dataset.stamps()],
            labels=labels.tolist(),
        )
        folder = checkpoint.path.parent / EVALUATIONS / place / "windows" / f"{part}-{rated_by}-{key[:8]}"
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
        by_index = dataset_windows(predictor, dataset, labels, self.reporter, label)
        check_finite(by_index, str(checkpoint.path))
        windows = Windows(dataset.ids, labels, tuple(by_index[index] for index in range(len(dataset))))
        save_windows(folder, windows, key)
        return windows

    def t(self) -> tuple[float, dict[str, Any]]:
        """The threshold of merging, and how it was tuned."""
        if self.settings.t is not None or not self.merges:
            return (USUAL_T if self.settings.t is None else self.settings.t), {"tuned_on": None}
        tuning = self.sets.dev(TUNING_IMAGES)
        if tuning is None:
            self.reporter.warn(f"the data have no dev photos to tune t on: using {USUAL_T}; --t sets another")
            return USUAL_T, {"tuned_on": None}
        parts = self.windows(tuning, tuning.labels[:, None])
        assert tuning.boxes is not None
        t, errors = tune_threshold(_joined(parts), tuning.boxes, self.settings, self.reporter)
        return t, {"tuned_on": f"{len(tuning)} dev photos", "gt_class_error_by_t": errors}

    def predict(self, dataset: Dataset, labels: Labels, t: float) -> Predictions:
        """One box per label for each image."""
        known = dataset.labelled
        wanted = np.concatenate([labels.labels, dataset.labels[:, None]], axis=1) if known else labels.labels
        candidates = _joined(self.windows(dataset, wanted))
        boxes, ratings = np.zeros((*wanted.shape, 4)), np.zeros(wanted.shape)
        count = labels.labels.shape[1]
        with self.reporter.track("merging", len(candidates)) as advance:
            for number, image in enumerate(candidates):
                # The true class by itself: merging across labels must not see it.
                for columns in (slice(0, count), slice(count, None)):
                    if wanted[number, columns].size:
                        part = CandidateBoxes(image.boxes[:, columns], image.ratings[:, columns])
                        boxes[number, columns], ratings[number, columns] = merge_candidates(
                            part, wanted[number, columns], self.settings, t
                        )
                advance(1, "")
        if self.settings.rate == "image" and labels.scores is not None:
            ratings *= np.take_along_axis(labels.scores.posteriors, wanted, axis=1)
        true_boxes = boxes[:, -1] if known else np.zeros((len(dataset), 4))
        return Predictions(dataset, labels.labels, boxes[:, :count], ratings[:, :count], true_boxes)

    def labels(self, dataset: Dataset, given: str | Path | None) -> Labels:
        """The classes to localise: from a scores file, or by the classification net; none for centre crops alone.

        Raises:
            VerydeepError: the scores are of other images or classes; there are neither scores nor net.
        """
        classes = self.tests[0].checkpoint.metadata.classes
        if given is None and not self.merges:
            if not dataset.labelled:
                name = f"{dataset.name} ({dataset.set_name})"
                raise VerydeepError(f"the photos of {name} have no labels: give --scores FILE of them.")
            return Labels(np.zeros((len(dataset), 0), dtype=np.int64), None)
        if len(classes) == 1:
            return Labels(np.zeros((len(dataset), 1), dtype=np.int64), None)
        scores = self._classified(dataset) if given is None else _scores_for(dataset, Path(given), classes)
        best = np.argsort(-scores.posteriors, axis=1, kind="stable")
        return Labels(best[:, : TOP_LABELS if len(classes) >= FEW_CLASSES else 1], scores)

    def _classified(self, dataset: Dataset) -> Scores:
        """Posteriors by the classification net, dense at the Q of its training, kept beside the windows."""
        if self.rater is None:
            raise VerydeepError(
                "no classification net gives the labels: add --classifier RUN, or --scores FILE of these photos."
            )
        metadata = self.rater.metadata
        protocol = Protocol("dense", (metadata.test_scale,), mirror=True)
        photos = windows_key(photos=[dataset.fingerprint(sizes=True), dataset.stamps()])[:8]
        named = f"{protocol}-by-{self.rater.sha256[:12]}-{photos}"
        path = self.tests[0].checkpoint.path.parent / LABELS / self.sets.place(dataset) / named / FILE_NAME
        with contextlib.suppress(VerydeepError):  # missing or broken: they are computed
            stored = load_scores(path)
            same = same_classes(stored.classes, metadata.classes)
            if same and (stored.checkpoint, stored.ids) == (self.rater.sha256, dataset.ids):
                return stored
        net = self.rater.net()
        self.machine.place_model(net)
        classifier = Classifier(net, metadata, self.machine)
        label = f"labels by {self.rater.path.parent.name}, {protocol}"
        with self.machine.running():
            computed = dataset_posteriors(classifier, dataset, protocol, self.reporter, label)
        run = self.rater.path.parent.name
        of = (dataset.set_name, dataset.name, run, str(protocol), self.rater.sha256)
        scores = Scores(dataset.ids, dataset.labels, dataset.groups, metadata.classes, computed.posteriors, *of)
        save_scores(path, scores)
        return scores


def _joined(parts: list[list[Windows]]) -> list[Any]:
    """Each image's candidate boxes of all tests and scales together."""
    every = [windows for scales in parts for windows in scales]
    return [union(photos) for photos in zip(*(windows.photos for windows in every), strict=True)]


def _scores_for(dataset: Dataset, path: Path, classes: tuple[str, ...]) -> Scores:
    """A scores file's rows for the images of a set, its classes in the localisation model's order.

    Raises:
        VerydeepError: it lacks images of the set, or is of other classes.
    """
    scores = load_current(path)
    place = {image: row for row, image in enumerate(scores.ids)}
    missing = [image for image in dataset.ids if image not in place]
    if missing:
        raise VerydeepError(
            f"{path} is of other photos: it lacks {missing[0]}"
            + (f" and {len(missing) - 1} more" if missing[1:] else "")
            + "; evaluate the classification run on the same set."
        )
    columns = places_in(scores.classes, classes)
    if len(scores.classes) != len(classes) or (columns < 0).any():
        raise VerydeepError(f"{path} is not of the localisation model's classes, which are {', '.join(classes[:8])}.")
    rows = [place[image] for image in dataset.ids]
    posteriors = scores.posteriors[rows][:, columns]
    return replace(scores, ids=dataset.ids, labels=dataset.labels, classes=classes, posteriors=posteriors)


def classification_net(box_net: Checkpoint, given: str | Path | None) -> Checkpoint | None:
    """The given one, else the one the model started from, where it has the same classes; else None.

    Raises:
        VerydeepError: the given one is no classification net.
    """
    if given is not None:
        return load_classifier(checkpoint_of(given, last=False))
    config = box_net.path.parent / "config.json"
    try:
        started = read_json(config) if config.exists() else box_net.metadata.settings
        found = load_classifier(checkpoint_of(str(started.get("start_path", started.get("start", "none"))), last=False))
    except VerydeepError:
        return None
    return found if same_classes(found.metadata.classes, box_net.metadata.classes) else None


def usual_protocol(metadata: Metadata) -> BoxProtocol:
    """Dense at the Q of its training, as the paper does; for a crop below the paper's the central crop.

    A small crop's last map has few cells, none of them far from the crop's edge, and such a net places boxes by that
    edge: on whole images, which lack it, its error is several times as high (NOTES.md).
    """
    return BoxProtocol("dense" if metadata.crop >= PAPER_CROP else "centre", (metadata.test_scale,))
