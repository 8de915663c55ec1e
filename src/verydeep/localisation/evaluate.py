"""App. A: box nets tested on a set: errors with intervals, their parts, what was guessed, files for the server."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..checkpoints.checkpoint import Checkpoint, Metadata, load_box_net
from ..checkpoints.run_dir import BEST, EVALUATIONS, LAST, bad_images, checkpoint_of, environment, run_name
from ..core.errors import VerydeepError
from ..core.files import check_place, short_name, write_atomically, write_json
from ..core.progress import Reporter, Silent
from ..core.settings import MachineSettings, MergeSettings
from ..data.class_names import same_classes
from ..data.datasets.imagenet import blacklisted
from ..data.open import Dataset
from ..evaluation.metrics import BOX_IOU, best_overlap, boxes_wrong, error_interval
from ..evaluation.protocols import BoxProtocol, parse_box_protocol
from ..evaluation.scores import load_scores
from ..evaluation.submission import ilsvrc_ids, write_localisation
from .datasets import BoxSets, open_box_sets
from .merge import best_constant_box, keep_t
from .predict import usual_protocol
from .testing import BoxTest, Guesses, LocalisationEvaluator, classification_net

GUESSES = "guesses.npz"
CONSTANT_PHOTOS = 2000  # of the training photos, among whose boxes the best constant one is sought


@dataclass(frozen=True)
class BoxEvaluation:
    """What `evaluate_boxes` found: its summary, the guesses, the folder of files it wrote, and what it could not."""

    summary: dict[str, Any]
    guesses: Guesses
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
    """Tests box nets and writes boxes and errors: `verydeep.evaluate_boxes` without pictures and report.

    Raises:
        VerydeepError: no such run or data; nets of other classes; scores of other photos; faults with ``strict``.
    """
    if (server_file is None) != (devkit is None):
        raise VerydeepError("a server file and the devkit go together: it tells each class's ILSVRC2012_ID.")
    told, wish = reporter or Silent(), machine or MachineSettings()
    first = (asked := _tests(tests, told))[0].checkpoint
    sets = open_box_sets(first.metadata, bad_images(first.path.parent), data, boxes, set_name, strict, told)
    tester = LocalisationEvaluator(asked, _rater(asked, classifier, told), sets, merging or MergeSettings(), wish, told)
    folder = Path(out) if out else _folder(tester)
    _check_places(tester, scores, folder, server_file, devkit)
    found = _tested(tester, scores, folder)
    if server_file is not None and devkit is not None:
        write_localisation(Path(server_file), found.guesses.dataset, found.guesses.labels, found.guesses.boxes, devkit)
    return found


def _tested(tester: LocalisationEvaluator, scores: str | Path | None, folder: Path) -> BoxEvaluation:
    """The test itself, its numbers and its files."""
    began, sets = time.monotonic(), tester.sets
    labels = tester.labels(sets.tested, scores)
    t, tuning = tester.t()
    found = tester.guesses(sets.tested, labels, t)
    errors = {**_errors(found, sets, labels.labels.shape[1]), "t": t if tester.merges else None, **tuning}
    summary = {**_of(tester), **errors, "seconds": round(time.monotonic() - began, 2), "folder": str(folder)}
    _write(folder, summary, found, tester)
    if len(tester.tests) == 1 and tuning["tuned_on"]:
        net = tester.tests[0].checkpoint
        keep_t(net.path.parent, net.sha256, tester.tests[0].protocol, tester.settings, t)
    return BoxEvaluation(summary, found, folder)


def _of(tester: LocalisationEvaluator) -> dict[str, Any]:
    """What a summary is of: nets, photos, settings."""
    tests, sets = tester.tests, tester.sets
    return {
        "tests": [_test(one) for one in tests],
        "regression": tests[0].checkpoint.metadata.localiser_settings.regression,
        "set": sets.tested.set_name,
        "data": sets.tested.name,
        "images": len(sets.tested),
        "merging": asdict(tester.settings) if tester.merges else None,
        "faults": {name: len(photos) for name, photos in sets.faults.items()},
        "checkpoints": [one.checkpoint.sha256 for one in tests],
        "classifier": None if tester.rater is None else tester.rater.sha256,
    }


def _test(one: BoxTest) -> dict[str, str]:
    """A net and where it was applied, as a summary tells them."""
    path = one.checkpoint.path
    return {"run": run_name(path), "folder": str(path.parent), "protocol": str(one.protocol)}


def _tests(tests: Sequence[tuple[str | Path, str | None]], reporter: Reporter) -> list[BoxTest]:
    """The nets and protocols that are asked for; raises VerydeepError where they do not go together."""
    if not tests:
        raise VerydeepError("there is nothing to test: give a box net's run and a protocol, such as dense@256.")
    found = []
    for run, protocol in tests:
        checkpoint = load_box_net(checkpoint_of(run, last=False))
        found.append(BoxTest(checkpoint, _protocol(protocol, checkpoint.metadata, reporter)))
    first = found[0].checkpoint
    for other in found[1:]:
        if not same_classes(other.checkpoint.metadata.classes, first.metadata.classes):
            raise VerydeepError(f"{other.checkpoint.path} and {first.path} know other classes: they cannot be fused.")
    return found


def _protocol(protocol: str | None, metadata: Metadata, reporter: Reporter) -> BoxProtocol:
    """Where a net is applied: as asked for, or as `localise predict` does."""
    if protocol is not None:
        return parse_box_protocol(protocol, metadata.crop)
    usual = usual_protocol(metadata)
    reporter.say(f"testing by {usual}, as localise predict does; PROTOCOL says another")
    return usual


def _rater(tests: list[BoxTest], classifier: str | Path | None, reporter: Reporter) -> Checkpoint | None:
    """The classification net: the one named, else the one the first box net started from, where it still is one."""
    if classifier is None and all(test.protocol.method == "centre" for test in tests):
        return None
    found = classification_net(tests[0].checkpoint, classifier)
    nets = [test.checkpoint for test in tests[1:]] + ([] if found is None else [found])
    for other in nets:
        if _split(other) != _split(tests[0].checkpoint):
            reporter.warn(f"{other.path.parent} was trained on other data or another split: on photos tested, perhaps")
    if found is not None and classifier is None:
        reporter.say(f"boxes are rated by the net it started from, {found.path.parent}")
    return found


def _split(checkpoint: Checkpoint) -> list[Any]:
    """What decides which photos a net was trained on."""
    told = checkpoint.metadata.data
    return [told.get(name) for name in ("data", "dev_fraction", "test_fraction", "split_seed")]


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
        raise VerydeepError(f"{folder} is a run's folder: give another --out for what the test finds.")
    tested = tester.sets.tested
    if scores is not None:
        load_scores(scores)
    if (tested.name, tested.set_name) == ("imagenet", "val"):
        blacklisted(Path(tested.read.root))  # type: ignore[attr-defined]
    if server_file is None or devkit is None:
        return
    if scores is None and not tester.merges:
        raise VerydeepError("a server file needs labels: test by dense@Q, or give --scores FILE.")
    if tester.sets.faults.get("none") or tester.sets.faults.get("class"):
        raise VerydeepError("a server file has a line for every photo, and some were left out for want of a right box.")
    check_place(Path(server_file).absolute().parent)
    ilsvrc_ids(tested.classes, Path(devkit))


def _folder(tester: LocalisationEvaluator) -> Path:
    """Named by what was asked, and by what of the merging is not usual."""
    tests, sets, usual = tester.tests, tester.sets, asdict(MergeSettings())
    first = tests[0].checkpoint.path.parent
    names = [str(tests[0].protocol)]
    names += [f"{test.checkpoint.sha256[:8]}-{test.protocol}" for test in tests[1:]]
    changed = {name: value for name, value in asdict(tester.settings).items() if value != usual[name]}
    ways = "".join(f",{name}={value}" for name, value in changed.items())
    return first / EVALUATIONS / sets.place(sets.tested) / short_name(f"boxes-{'+'.join(names)}{ways}")


def _errors(found: Guesses, sets: BoxSets, guesses: int) -> dict[str, Any]:
    """All errors of some guesses, in percent with 95 % intervals; None where they are not known."""
    dataset = found.dataset
    names = ("gt_class_error", "localisation_error", "classification_error", "box_only_error")
    if not dataset.labelled:
        return {"guesses": guesses, **{key: None for name in names for key in (name, f"{name}_interval")}}
    assert dataset.boxes is not None
    missed = best_overlap(found.true_boxes, dataset.boxes) < BOX_IOU
    wrong: dict[str, NDArray[np.bool_] | None] = dict.fromkeys(names)
    wrong["gt_class_error"] = missed
    if guesses:
        unnamed, unplaced = boxes_wrong(found.labels, found.boxes, dataset.labels, dataset.boxes)
        wrong |= {names[1]: unplaced, names[2]: unnamed, names[3]: unplaced & ~unnamed}
    rows = {key: value for name in names for key, value in _percent(name, wrong[name], dataset.groups).items()}
    if guesses > 1:
        first = boxes_wrong(found.labels[:, :1], found.boxes[:, :1], dataset.labels, dataset.boxes)[1]
        rows |= _percent("one_guess_error", first, dataset.groups)
    return {"guesses": guesses, **rows, **_constant(dataset, sets), **_without_blacklisted(dataset, wrong)}


def _percent(name: str, wrong: NDArray[np.bool_] | None, groups: NDArray[np.int64]) -> dict[str, Any]:
    if wrong is None:
        return {name: None, f"{name}_interval": None}
    ends = [round(end, 4) for end in error_interval(wrong, groups)]
    return {name: round(100 * float(wrong.mean()), 4), f"{name}_interval": ends}


def _constant(dataset: Dataset, sets: BoxSets) -> dict[str, float | None]:
    """The GT-class error of the best constant box, sought on training photos."""
    try:
        train = sets.train(CONSTANT_PHOTOS)
        if train is None or train.boxes is None or dataset.boxes is None:
            return {"constant_box_error": None}
        shares = best_constant_box([train.size(index) for index in range(len(train))], train.boxes)
    except VerydeepError:  # a training photo is gone or broken: no reason to lose a test
        return {"constant_box_error": None}
    sizes = np.array([dataset.size(index) for index in range(len(dataset))])
    guesses = shares * np.concatenate([sizes[:, ::-1], sizes[:, ::-1]], axis=1)
    return {"constant_box_error": round(100 * float((best_overlap(guesses, dataset.boxes) < BOX_IOU).mean()), 4)}


def _without_blacklisted(dataset: Dataset, wrong: dict[str, NDArray[np.bool_] | None]) -> dict[str, Any]:
    """ILSVRC's localisation error once more without the validation photos that its devkit leaves out."""
    unplaced = wrong["localisation_error"]
    if (dataset.name, dataset.set_name) != ("imagenet", "val") or unplaced is None:
        return {}
    listed = blacklisted(Path(dataset.read.root))  # type: ignore[attr-defined]
    named = [re.fullmatch(r"ILSVRC2012_val_(\d{8})", Path(photo).stem) for photo in dataset.ids]
    if listed is None or not all(named):
        return {}
    kept = ~np.isin([int(match[1]) for match in named if match], sorted(listed))
    told = {"blacklisted": int((~kept).sum())}
    return {**told, **_percent("localisation_error_without_blacklisted", unplaced[kept], dataset.groups[kept])}


def _write(folder: Path, summary: dict[str, Any], found: Guesses, tester: LocalisationEvaluator) -> None:
    arrays = {
        "ids": np.array(found.dataset.ids),
        "classes": np.array(found.dataset.classes),
        "true_labels": found.dataset.labels,
        "labels": found.labels,
        "boxes": found.boxes,
        "ratings": found.ratings,
        "true_class_boxes": found.true_boxes,
    }
    dataset = found.dataset
    if dataset.boxes is not None:
        # Of the headline: without labels that is the box of the true class.
        overlaps = best_overlap(found.true_boxes, dataset.boxes)
        placed = found.labels.shape[1] > 0
        wrong = (
            boxes_wrong(found.labels, found.boxes, dataset.labels, dataset.boxes)[1] if placed else overlaps < BOX_IOU
        )
        arrays |= {"true_class_overlaps": overlaps, "wrong": wrong, "subjects": dataset.groups}
    write_atomically(folder / GUESSES, lambda file: np.savez_compressed(file, **arrays))  # type: ignore[arg-type]
    write_json(folder / "result.json", {**summary, "environment": environment(tester.machine.describe())})
