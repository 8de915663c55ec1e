"""Sect. 4: evaluation of a classifier on a dataset.

The reported set is ``test`` or ``val``, never the ``dev`` part that selected the checkpoint.
"""

from __future__ import annotations

import contextlib
import csv
import shlex
import time
from collections.abc import Sequence
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
from ..checkpoints.run_dir import (
    BEST,
    EVALUATIONS,
    EVALUATIONS_OF_LAST,
    LAST,
    check_results_place,
    environment,
    run_name,
)
from ..core.device import Machine
from ..core.errors import ImageError, VerydeepError
from ..core.files import short_name, write_json
from ..core.progress import Reporter
from ..core.settings import DataSettings, MachineSettings
from ..core.team import Team
from ..core.terminal import default_reporter
from ..data.copies import copies_message
from ..data.open import Data, Dataset, check_still_there, lasting_name, moved, open_data, relabel
from .agreement import Agreement
from .inference import LEAVE_OUT, Posteriors, ResizeToScales, concatenate, posteriors, readable_images
from .metrics import probability_metrics, summarise
from .predict import Classifier, place_classifier, usual_protocol
from .protocols import Protocol, check_protocol, parse_protocol
from .scores import FILE_NAME, Scores, save_scores
from .temperature import temperature_of, tempered


@dataclass(frozen=True)
class Evaluation:
    """The result of `verydeep.evaluate`: summary, scores, dataset, the directory of its files, failed writes."""

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
    resize, machine = ResizeToScales.for_net(classifier.metadata, protocol), classifier.machine
    images = readable_images(dataset, shard, resize, machine, LEAVE_OUT, None if faults is None else unreadable)
    views = ((index - shard.start, scaled) for index, scaled in images)
    with reporter.track(label, len(shard) * len(protocol.scales)) as advance:
        mean = np.array(classifier.metadata.mean)
        computed = posteriors(classifier.net, mean, protocol, views, len(shard), machine, lambda n: advance(n, ""))
    shares = team.all_gather((computed, unreadable))
    if faults is not None:
        faults.update({index: message for _, messages in shares for index, message in messages.items()})
    return concatenate([share for share, _ in shares])


@dataclass(frozen=True)
class PreparedEvaluation:
    """A model, and the dataset, protocol and directory of its evaluation; `run` evaluates it."""

    checkpoint: Loaded
    dataset: Dataset
    protocol: Protocol
    folder: Path
    reporter: Reporter

    def run(
        self, bad_images: str = "stop", machine: MachineSettings | None = None, team: Team | None = None
    ) -> Evaluation:
        """Evaluates the model and writes scores and errors; arguments as of `verydeep.evaluate`.

        Raises:
            VerydeepError: an unreadable image, or the files cannot be written.
        """
        if bad_images not in ("stop", "skip"):
            raise VerydeepError(f"bad_images must be stop or skip, not {bad_images!r}.")
        reporter, team, dataset = self.reporter, team or Team(), self.dataset
        classifier = place_classifier(self.checkpoint, machine or MachineSettings())
        faults: dict[int, str] = {}
        collected = faults if bad_images == "skip" else None
        label = f"{self.protocol} on {len(dataset)} images"

        def of_sample(tried: Classifier, indices: Sequence[int]) -> NDArray[np.float32]:
            sample, trial = dataset.take(np.array(indices, dtype=np.int64)), f"trying {tried.machine.precision}"
            return dataset_posteriors(tried, sample, self.protocol, reporter, trial, {}, team).posteriors

        with classifier.machine.running():
            classifier, agreement = classifier.in_agreed_precision(
                len(dataset), self.protocol, of_sample, reporter, team
            )
            started = time.monotonic()
            computed = dataset_posteriors(classifier, dataset, self.protocol, reporter, label, collected, team)
        seconds = time.monotonic() - started
        for message in faults.values():
            reporter.warn(f"skipped: {message}")
        if len(faults) == len(dataset):
            raise ImageError(f"no image of {dataset.name} can be read: `verydeep data check` lists the reasons.")
        evaluation = self._summarised(computed, faults, seconds, agreement)
        if team.is_main:
            _write(evaluation, classifier.machine)
            if self.checkpoint.path.name == BEST:
                write_model_card(self.checkpoint.path, self.checkpoint.metadata)
        return evaluation

    def _summarised(
        self, computed: Posteriors, faults: dict[int, str], seconds: float, agreement: Agreement | None
    ) -> Evaluation:
        readable = np.array([index for index in range(len(self.dataset)) if index not in faults], dtype=np.int64)
        dataset, checkpoint = self.dataset.take(readable), self.checkpoint
        run, protocol = run_name(checkpoint.path), str(self.protocol)
        scores = scores_of(dataset, checkpoint, run, protocol, computed.posteriors[readable])
        summary = {
            **summarise(scores),
            "calibrated": calibrated_metrics(scores, temperature_of(checkpoint.metadata.calibration, self.protocol)),
            "skipped": len(faults),
            "agreement": None if agreement is None else agreement.to_json(),
            "multiply_adds_per_image": round(computed.multiply_adds),
            "images_per_second": round(len(dataset) / max(seconds, 1e-9), 2),
            "seconds": round(seconds, 2),
            "checkpoint": str(checkpoint.path),
            "checkpoint_sha256": checkpoint.sha256,
            "set_fingerprint": self.dataset.fingerprint(sizes=True),
            "folder": str(self.folder),
        }
        return Evaluation(summary, scores, dataset, self.folder)


def prepare_evaluation(
    run: str | Path,
    protocol: str | None = None,
    data: str | None = None,
    set_name: str | None = None,
    last: bool = False,
    out: str | Path | None = None,
    reporter: Reporter | None = None,
) -> PreparedEvaluation:
    """Loads the model and opens the dataset of an evaluation; arguments as of `verydeep.evaluate`.

    Raises:
        VerydeepError: no such run or data, unknown classes, Q below the crop, ``out`` cannot take the results.
    """
    reporter = reporter or default_reporter()
    requested = None if protocol is None else parse_protocol(protocol)
    checkpoint = load_model(run, last)
    tested = requested or usual_protocol(checkpoint.metadata)
    if requested is None:
        reporter.say(
            f"evaluating with {tested}, the default of predict; to use another protocol, such as dense@256, "
            "name it after the run"
        )
    check_protocol(tested, checkpoint.metadata.crop)
    dataset, place = open_dataset(checkpoint.metadata, data, set_name, reporter)
    if out is None:
        _check_run(run, checkpoint)
    folder = Path(out) if out else evaluation_folder(checkpoint, place, dataset.set_name) / short_name(str(tested))
    check_results_place(folder)
    return PreparedEvaluation(checkpoint, dataset, tested, folder, reporter)


def _check_run(run: str | Path, checkpoint: Loaded) -> None:
    """Raises VerydeepError for a foreign weight file, beside which no evaluations are stored."""
    if isinstance(checkpoint, Checkpoint) and not has_metadata(checkpoint.path):
        command = f"`verydeep convert {shlex.quote(str(run))} runs/NAME`"
        raise VerydeepError(f"{checkpoint.path} is not a run: make one with {command}, or pass --out.")


def evaluation_folder(checkpoint: Loaded, place: str, set_name: str) -> Path:
    """The directory of a set's evaluations: beside the checkpoint, and separate for the last one and for other data.

    Args:
        place: directory name of data that are not the run's own; empty for its own.
    """
    name = EVALUATIONS_OF_LAST if checkpoint.path.name == LAST else EVALUATIONS
    if isinstance(checkpoint, ExportedFile):
        name = short_name(f"{EVALUATIONS}-of-{checkpoint.path.name}")
    return checkpoint.path.parent / name / place / set_name


def open_dataset(metadata: Metadata, data: str | None, set_name: str | None, reporter: Reporter) -> tuple[Dataset, str]:
    """The dataset to evaluate, labelled with the net's classes, and ``of-…`` if it is not of the run's own data."""
    if not metadata.data and data is None:
        raise VerydeepError("the checkpoint does not record a dataset: pass --data.")
    trained_on = metadata.data_settings if metadata.data else DataSettings()
    if data is None:
        check_still_there(trained_on)
    settings = (
        trained_on
        if data is None
        else replace(trained_on, data=lasting_name(data), boxes=(), folders="auto", exclude=None, group_by=None)
    )
    opened = _moved_data(metadata, trained_on, data) or _open(settings, of_run=data is None)
    same = settings.data == trained_on.data
    for message in [*opened.warnings, *filter(None, [copies_message(opened) if same else None])]:
        reporter.warn(message)
    known = metadata.data_fingerprint != "" and opened.fingerprint() == metadata.data_fingerprint
    if same and not known and metadata.data_fingerprint:
        reporter.warn(f"{opened.name} has changed since the net was trained: images may have moved between its sets.")
    # Other data without a split of their own are evaluated as a whole.
    chosen = set_name or ("all" if opened.split_by_us and not same and not known else opened.reported)
    dataset = relabel(opened.set(chosen), metadata.classes, strict=True)
    if not len(dataset):
        raise VerydeepError(f"{opened.name} has no images in its set {chosen}: pass another --set.")
    return dataset, "" if same else short_name(f"of-{Path(settings.data).name}")


def _moved_data(metadata: Metadata, trained_on: DataSettings, data: str | None) -> Data | None:
    """The run's own images in another directory, if its settings are needed to recognise them; None for others."""
    if data is None or not (
        trained_on.boxes or trained_on.exclude or trained_on.group_by or trained_on.folders != "auto"
    ):
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


def scores_of(dataset: Dataset, checkpoint: Loaded, run: str, protocol: str, posteriors: NDArray[np.float32]) -> Scores:
    """The scores of a dataset by a model."""
    return Scores(
        *(dataset.ids, dataset.labels, dataset.groups, checkpoint.metadata.classes, posteriors),
        *(dataset.set_name, dataset.name, run, protocol, checkpoint.sha256),
    )


def calibrated_metrics(scores: Scores, temperature: float | None) -> dict[str, float | None] | None:
    """ECE, NLL and Brier score of the probabilities that `predict` gives; None without a temperature."""
    if temperature is None:
        return None
    posteriors = tempered(scores.posteriors, temperature).astype(np.float32)
    return {"temperature": temperature, **probability_metrics(replace(scores, posteriors=posteriors))}


def _write(evaluation: Evaluation, machine: Machine) -> None:
    folder, summary = evaluation.folder, evaluation.summary
    save_scores(folder / FILE_NAME, evaluation.scores)
    write_json(folder / "result.json", {**summary, "environment": environment(machine.describe())})
    with (folder / "classes.csv").open("w", newline="", encoding="utf8", errors="surrogateescape") as file:
        writer = csv.DictWriter(file, fieldnames=["class", "images", "top1_error"])
        writer.writeheader()
        writer.writerows(summary["classes"])
