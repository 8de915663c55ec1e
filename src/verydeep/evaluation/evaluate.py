"""Sect. 4: evaluation of a classifier on a dataset.

The reported set is ``test`` or ``val``, never the ``dev`` part that selected the checkpoint.
"""

from __future__ import annotations

import contextlib
import csv
import shlex
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..checkpoints.checkpoint import Checkpoint, Metadata
from ..checkpoints.exported import ExportedFile
from ..checkpoints.load import Loaded, load_model
from ..checkpoints.model_card import write_model_card
from ..checkpoints.pretrained import has_metadata
from ..checkpoints.run_dir import BEST, EVALUATIONS, EVALUATIONS_OF_LAST, LAST, environment, run_name
from ..core.device import Machine
from ..core.errors import ImageError, VerydeepError
from ..core.files import check_place, short_name, write_json
from ..core.progress import Reporter, Silent
from ..core.settings import DataSettings, MachineSettings
from ..core.team import Team
from ..data.dataloader import each_photo
from ..data.image_io import Pixels
from ..data.open import Data, Dataset, check_still_there, lasting_name, moved, open_data, relabel
from ..data.workers import Fault
from .inference import Posteriors, ResizeToScales, concatenate, posteriors
from .metrics import summarise
from .predict import Classifier, place_classifier, usual_protocol
from .protocols import Protocol, check_protocol, parse_protocol
from .scores import FILE_NAME, Scores, save_scores


@dataclass(frozen=True)
class Evaluation:
    """The result of `evaluate`: summary, scores, dataset, the directory of its files, and messages of failed writes."""

    summary: dict[str, Any]
    scores: Scores
    dataset: Dataset
    folder: Path
    problems: tuple[str, ...] = ()


def dataset_posteriors(
    classifier: Classifier,
    dataset: Dataset,
    protocol: Protocol,
    reporter: Reporter,
    label: str,
    faults: dict[int, str] | None = None,
    team: Team | None = None,
) -> Posteriors:
    """Posteriors (N,K) of a dataset and their cost; each process of a team computes its shard.

    Args:
        label: of the progress bar.
        faults: receives the message of each unreadable image by index, whose posteriors are 0; None raises instead.

    Raises:
        ImageError: an image cannot be read, and ``faults`` is None.
    """
    team = team or Team()
    shard = team.shard(len(dataset))
    unreadable: dict[int, str] = {}
    resize = ResizeToScales.for_net(classifier.metadata, protocol)
    machine = classifier.machine

    def views() -> Iterator[tuple[int, list[Pixels]]]:
        for place, loaded in each_photo(dataset.take(np.array(shard, dtype=np.int64)), resize, machine.readers):
            if not isinstance(loaded, Fault):
                yield place, loaded
            elif faults is None:
                raise ImageError(f"{loaded.message} Remove it, or leave it out with --bad-images skip.")
            else:
                unreadable[shard[place]] = loaded.message

    with reporter.track(label, len(shard) * len(protocol.scales)) as advance:
        mean = np.array(classifier.metadata.mean)
        computed = posteriors(classifier.net, mean, protocol, views(), len(shard), machine, lambda n: advance(n, ""))
    shares = team.all_gather((computed, unreadable))
    if faults is not None:
        faults.update({index: message for _, theirs in shares for index, message in theirs.items()})
    return concatenate([share for share, _ in shares])


def evaluate(
    run: str | Path,
    protocol: str | None = None,
    data: str | None = None,
    set_name: str | None = None,
    last: bool = False,
    out: str | Path | None = None,
    bad_images: str = "stop",
    machine: MachineSettings | None = None,
    reporter: Reporter | None = None,
    team: Team | None = None,
) -> Evaluation:
    """Evaluates a classifier and writes scores and errors: `verydeep.evaluate` without pictures and report.

    Raises:
        VerydeepError: no such run or data, unknown classes, Q below the crop, an unreadable image.
    """
    reporter = reporter or Silent()
    if bad_images not in ("stop", "skip"):
        raise VerydeepError(f"bad_images must be stop or skip, not {bad_images!r}.")
    requested = None if protocol is None else parse_protocol(protocol)
    checkpoint = load_model(run, last)
    tested = requested or usual_protocol(checkpoint.metadata)
    if requested is None:
        reporter.say(f"evaluating with {tested}, as predict does; pass PROTOCOL for another")
    check_protocol(tested, checkpoint.metadata.crop)
    dataset, place = _dataset(checkpoint.metadata, data, set_name, reporter)
    if out is None:
        _check_run(run, checkpoint)
    folder = Path(out) if out else evaluation_folder(checkpoint, place, dataset.set_name) / short_name(str(tested))
    check_place(folder)
    if any((folder / name).exists() for name in (LAST, BEST)):
        raise VerydeepError(f"{folder} is a run's folder: give another --out for the evaluation.")
    classifier = place_classifier(checkpoint, machine or MachineSettings())
    measured = _measure(classifier, dataset, tested, bad_images == "skip", reporter, team or Team())
    evaluation = _summarised(checkpoint, dataset, tested, measured, folder)
    if team is None or team.is_main:
        _write(evaluation, classifier.machine)
        if checkpoint.path.name == BEST:
            write_model_card(checkpoint.path, checkpoint.metadata)
    return evaluation


def _check_run(run: str | Path, checkpoint: Loaded) -> None:
    """Raises VerydeepError for a foreign weight file, beside which no evaluations are stored."""
    if isinstance(checkpoint, Checkpoint) and not has_metadata(checkpoint.path):
        command = f"`verydeep convert {shlex.quote(str(run))} runs/NAME`"
        raise VerydeepError(f"{checkpoint.path} is not a run: make one with {command}, or pass --out.")


@dataclass(frozen=True)
class _Measured:
    """Posteriors (N,K) of a dataset, the messages of unreadable images by index, and the seconds it took."""

    posteriors: Posteriors
    faults: dict[int, str]
    seconds: float


def _measure(
    classifier: Classifier, dataset: Dataset, protocol: Protocol, skip: bool, reporter: Reporter, team: Team
) -> _Measured:
    faults: dict[int, str] = {}
    label = f"{protocol} on {len(dataset)} images"
    started = time.monotonic()
    with classifier.machine.running():
        computed = dataset_posteriors(classifier, dataset, protocol, reporter, label, faults if skip else None, team)
    seconds = time.monotonic() - started
    for message in faults.values():
        reporter.warn(f"skipped: {message}")
    if len(faults) == len(dataset):
        raise ImageError(f"none of the {len(faults)} images of {dataset.name} can be read.")
    return _Measured(computed, faults, seconds)


def _summarised(
    checkpoint: Loaded, dataset: Dataset, protocol: Protocol, measured: _Measured, folder: Path
) -> Evaluation:
    readable = np.array([index for index in range(len(dataset)) if index not in measured.faults], dtype=np.int64)
    fingerprint = dataset.fingerprint(sizes=True)
    dataset = dataset.take(readable)
    scores = _scores(checkpoint, dataset, protocol, measured.posteriors.posteriors[readable])
    summary = {
        **summarise(scores),
        "skipped": len(measured.faults),
        "multiply_adds_per_image": round(measured.posteriors.multiply_adds),
        "images_per_second": round(len(dataset) / max(measured.seconds, 1e-9), 2),
        "seconds": round(measured.seconds, 2),
        "checkpoint": str(checkpoint.path),
        "checkpoint_sha256": checkpoint.sha256,
        "set_fingerprint": fingerprint,
        "folder": str(folder),
    }
    return Evaluation(summary, scores, dataset, folder)


def evaluation_folder(checkpoint: Loaded, place: str, set_name: str) -> Path:
    """The directory of a set's evaluations: beside the checkpoint, and separate for the last one and for other data.

    Args:
        place: directory name of data that are not the run's own; empty for its own.
    """
    name = EVALUATIONS_OF_LAST if checkpoint.path.name == LAST else EVALUATIONS
    if isinstance(checkpoint, ExportedFile):
        name = short_name(f"{EVALUATIONS}-of-{checkpoint.path.name}")
    return checkpoint.path.parent / name / place / set_name


def _dataset(metadata: Metadata, data: str | None, set_name: str | None, reporter: Reporter) -> tuple[Dataset, str]:
    """The dataset to evaluate, labelled with the net's classes, and ``of-…`` where it is not of the run's own data."""
    if not metadata.data and data is None:
        raise VerydeepError("this checkpoint names no dataset: pass --data.")
    trained_on = metadata.data_settings if metadata.data else DataSettings()
    if data is None:
        check_still_there(trained_on)
    settings = trained_on if data is None else replace(trained_on, data=lasting_name(data), boxes=(), folders="auto")
    opened = _moved(metadata, trained_on, data) or _open(settings, of_run=data is None)
    for message in opened.warnings:
        reporter.warn(message)
    same = settings.data == trained_on.data
    known = metadata.data_fingerprint != "" and opened.fingerprint() == metadata.data_fingerprint
    if same and not known and metadata.data_fingerprint:
        reporter.warn(f"{opened.name} has changed since the net was trained: images may have moved between its sets.")
    # Other data without a split of their own are evaluated as a whole.
    chosen = set_name or ("all" if opened.split_by_us and not same and not known else opened.reported)
    dataset = relabel(opened.set(chosen), metadata.classes, strict=True)
    if not len(dataset):
        raise VerydeepError(f"{opened.name} has no images in its set {chosen}: pass another --set.")
    return dataset, "" if same else short_name(f"of-{Path(settings.data).name}")


def _moved(metadata: Metadata, trained_on: DataSettings, data: str | None) -> Data | None:
    """The run's own images at another place, where its settings are needed to recognise them; None for others."""
    if data is None or not (trained_on.boxes or trained_on.folders != "auto"):
        return None
    with contextlib.suppress(VerydeepError):
        opened = open_data(moved(trained_on, data))
        if opened.fingerprint() == metadata.data_fingerprint:
            return opened
    return None


def _open(settings: DataSettings, of_run: bool) -> Data:
    """The data with the classes chosen for training, or all classes if they have none of those.

    Other data than the run's may have one class, or one image per class, as nothing is trained on them.
    """
    options: dict[str, Any] = {} if of_run else {"least_classes": 1, "empty_sets": True}
    options["absent_classes"] = True
    try:
        return open_data(settings, **options)
    except VerydeepError:
        if not settings.classes:
            raise
        return open_data(replace(settings, classes=()), **options)


def _scores(checkpoint: Loaded, dataset: Dataset, protocol: Protocol, found: NDArray[np.float32]) -> Scores:
    return Scores(
        ids=dataset.ids,
        labels=dataset.labels,
        subjects=dataset.groups,
        classes=checkpoint.metadata.classes,
        posteriors=found,
        set_name=dataset.set_name,
        data=dataset.name,
        run=run_name(checkpoint.path),
        protocol=str(protocol),
        checkpoint=checkpoint.sha256,
    )


def _write(evaluation: Evaluation, machine: Machine) -> None:
    folder, summary = evaluation.folder, evaluation.summary
    save_scores(folder / FILE_NAME, evaluation.scores)
    write_json(folder / "result.json", {**summary, "environment": environment(machine.describe())})
    with (folder / "classes.csv").open("w", newline="", encoding="utf8", errors="surrogateescape") as file:
        writer = csv.DictWriter(file, fieldnames=["class", "images", "top1_error"])
        writer.writeheader()
        writer.writerows(summary["classes"])
