"""A run directory as a typed record, read without loading its net: settings, log, how it ended, and its evaluations."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from ..checkpoints.checkpoint import Metadata, checkpoint_sha256, read_metadata
from ..checkpoints.run_dir import (
    BEST,
    CLASSIFIER,
    EVALUATIONS,
    LAST,
    LOG,
    MAPS_RESULT,
    PREVIOUS,
    read_log,
    run_name,
)
from ..core.config import from_json
from ..core.errors import VerydeepError
from ..core.files import read_json, taken
from ..models.architectures import NetFacts, net_facts

State = Literal["training", "finished", "interrupted", "stopped", "diverged", "a net"]
RESULT = "result.json"


def short_name(data: str) -> str:
    """The name of data in a title: the last part of a path, without settings after a colon."""
    name = data.partition(":")[0]
    return Path(name).name or data


@dataclass(frozen=True)
class EpochRecord:
    """An epoch of a run's log; errors in percent. The last two are of the dev part, None where not logged."""

    epoch: int
    step: int
    lr: float
    loss: float
    train_error: float
    dev_error: float
    seconds: float
    images_per_second: float
    dev_loss: float | None
    dev_missed_overlap: float | None


@dataclass(frozen=True)
class ErrorRate:
    """An error in percent and its 95 % interval; a baseline has none."""

    value: float
    ends: tuple[float, float] | None

    def __str__(self) -> str:
        return f"{self.value:.2f} %"

    @property
    def interval(self) -> str:
        """The interval as text."""
        return "" if self.ends is None else f"{self.ends[0]:.2f} to {self.ends[1]:.2f} %"


@dataclass(frozen=True)
class ClassError:
    """The top-1 error of a class in percent, and its number of images."""

    name: str
    images: int
    top1_error: float


@dataclass(frozen=True)
class ConfusedPair:
    """A class, the one that its images were misclassified as, and how many."""

    name: str
    predicted: str
    images: int


@dataclass(frozen=True)
class EvalRecord:
    """An evaluation of a run's net: the folder of its files, and the content of its ``result.json``.

    ``errors`` are by their names there; ``mean_class_recall`` in percent is None for boxes, unlabelled images and
    evaluations of earlier versions; ``checkpoint`` is the SHA-256 of the evaluated file.
    """

    folder: Path
    name: str
    data: str
    set_name: str
    images: int
    of_boxes: bool
    checkpoint: str
    errors: dict[str, ErrorRate]
    mean_class_recall: float | None
    images_per_second: float | None
    classes: tuple[ClassError, ...]
    confused: tuple[ConfusedPair, ...]

    @property
    def error_name(self) -> str:
        """The name of the error in the headline."""
        if not self.of_boxes:
            return "top1_error"
        return "localisation_error" if "localisation_error" in self.errors else "gt_class_error"

    @property
    def error(self) -> ErrorRate | None:
        """The error in the headline; None where the images have no labels."""
        return self.errors.get(self.error_name)

    @property
    def error_and_interval(self) -> tuple[str, str]:
        """Error and interval as text, empty where the images have no labels."""
        return ("", "") if self.error is None else (str(self.error), self.error.interval)

    @property
    def photos(self) -> str:
        """Data and set, as text."""
        return f"{short_name(self.data)}, {self.set_name}"

    @property
    def own(self) -> bool:
        """Whether the images are of the run's own data: then the folder is ``evaluations/<set>/<protocol>``."""
        return self.folder.parent.parent.name == EVALUATIONS


@dataclass(frozen=True)
class MapRecord:
    """Boxes from a classifier's maps, as `verydeep.evaluate_maps` stored their errors; accuracies in percent."""

    name: str
    photos: str
    images: int
    gt_known: ErrorRate
    top1: ErrorRate
    max_box_acc: float
    max_box_acc_v2: float
    centre_max_box_acc: float


@dataclass(frozen=True)
class RunEnvironment:
    """The machine and software of a run, as text."""

    time: str
    commit: str
    python: str
    versions: str
    processor: str
    device: str
    precision: str
    threads: str


@dataclass(frozen=True)
class RunRecord:
    """A run as its directory describes it; ``result`` is the content of result.json, empty until training ends."""

    folder: Path
    run: str
    metadata: Metadata
    log: tuple[EpochRecord, ...]
    result: dict[str, Any]
    environment: RunEnvironment | None
    state: State
    evaluations: tuple[EvalRecord, ...]
    maps: tuple[MapRecord, ...]

    @property
    def status(self) -> str:
        """``state`` as pages show it."""
        return "imported" if self.state == "a net" else self.state

    @cached_property
    def facts(self) -> NetFacts:
        """The net's size and cost."""
        return net_facts(self.metadata.net, max(1, self.metadata.outputs), self.metadata.crop, self.metadata.width)

    @property
    def error_name(self) -> str:
        """The dev part's error as logs name it, after ``dev_``."""
        return self.metadata.error

    @property
    def scale(self) -> str:
        """The training scale S, or the test scale of imported weights."""
        return str(self.metadata.settings.get("S", self.metadata.test_scale))

    @property
    def data(self) -> str:
        """The training data, as given."""
        return str(self.metadata.data.get("data", "")) or "unknown data"

    @property
    def best(self) -> tuple[float, int] | None:
        """Dev error and number of the best epoch, of equal errors that of the lowest loss; None before the first ends.

        Epoch 0 is the initial weights, where they were evaluated; it has no row in the log.
        """
        boxes = self.metadata.is_localiser
        epochs = [
            (row.dev_error, (row.dev_missed_overlap if boxes else row.dev_loss) or 0.0, row.epoch) for row in self.log
        ]
        if self.metadata.state.get("best_epoch") == 0 and self.metadata.state.get("best"):
            epochs.append((*self.metadata.state["best"], 0))
        return (min(epochs)[0], min(epochs)[2]) if epochs else None

    @property
    def images_per_second(self) -> float | None:
        """Training throughput: the median of the epochs."""
        rates = sorted(row.images_per_second for row in self.log)
        return rates[len(rates) // 2] if rates else None

    @property
    def seconds(self) -> float:
        """Duration of all training steps, without evaluation."""
        return float(sum(row.seconds for row in self.log))

    @cached_property
    def current(self) -> tuple[EvalRecord, ...]:
        """Evaluations of checkpoints that are still in the directory."""
        return tuple(evaluation for evaluation in self.evaluations if evaluation.checkpoint in self._checkpoints)

    @cached_property
    def _checkpoints(self) -> dict[str, Path]:
        """The checkpoints in the directory, by hash."""
        checkpoints = [self.folder / name for name in (LAST, BEST)] if self.evaluations else []
        return {checkpoint_sha256(path): path for path in checkpoints if path.is_file()}

    def calibration(self, evaluation: EvalRecord) -> dict[str, Any]:
        """What `verydeep calibrate` stored for the net and protocol of an evaluation; empty where it did not."""
        path = self._checkpoints.get(evaluation.checkpoint)
        return {} if path is None else read_metadata(path).calibration.get(evaluation.name, {})

    @property
    def evaluation(self) -> EvalRecord | None:
        """The one in the headline: of a current checkpoint, on the run's own data, at Q = S where there is one."""
        own = [evaluation for evaluation in self.current if evaluation.own and evaluation.error is not None]
        usual = [evaluation for evaluation in own if evaluation.name == f"dense@{self.metadata.test_scale}"]
        return next(iter(usual or own), None)


def read_run(folder: Path, running: bool | None = None) -> RunRecord:
    """Reads a run directory.

    Args:
        running: whether it is being trained; None: whether a process holds its lock.

    Raises:
        VerydeepError: there is no such directory, or it is not a run directory.
    """
    metadata = _metadata(folder)
    log = [_epoch(row, metadata.error) for row in read_log(folder)]
    result = _json(folder / RESULT)
    state = _state(folder, metadata, result, taken(folder) if running is None else running)
    return RunRecord(
        folder,
        run_name(folder / BEST),
        metadata,
        tuple(epoch for epoch in log if epoch is not None),
        result if state in ("finished", "interrupted", "diverged") else {},
        _environment(_json(folder / "environment.json")),
        state,
        () if running else _evaluations(folder),
        () if running else _maps(folder),
    )


def _metadata(folder: Path) -> Metadata:
    """Metadata of the last checkpoint, which has the latest settings; else of the best or the previous one."""
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise VerydeepError(f"{folder} {what}: use the directory of a run, a probe or SVMs (runs/…).")
    checkpoints = [folder / name for name in (LAST, BEST, PREVIOUS) if (folder / name).is_file()]
    if not checkpoints:
        lacks = f"no checkpoint ({BEST}, {LAST}) and no {CLASSIFIER}"
        raise VerydeepError(f"{folder} is not a run directory: it has {lacks}; use one that `verydeep train` wrote.")
    for path in checkpoints[:-1]:
        with contextlib.suppress(VerydeepError):
            return read_metadata(path)
    return read_metadata(checkpoints[-1])


def _state(folder: Path, metadata: Metadata, result: dict[str, Any], running: bool) -> State:
    if running:
        return "training"
    if not (folder / LOG).is_file():  # converted, or copied from where it was trained
        return "a net"
    if not result or result.get("steps") != metadata.state.get("step", result.get("steps")):
        return "stopped"  # the result was written before training was resumed
    ended = result.get("ended")
    return "interrupted" if ended == "interrupted" else "diverged" if ended == "diverged" else "finished"


def _epoch(row: dict[str, Any], error: str) -> EpochRecord | None:
    """A row of a log; None where a number is missing or not finite."""
    names = {item.name: item.name for item in fields(EpochRecord)}
    names |= {"train_error": f"train_{error}", "dev_error": f"dev_{error}"}
    try:
        return from_json(EpochRecord, {name: row.get(key) for name, key in names.items()})
    except VerydeepError:
        return None


def _json(path: Path) -> dict[str, Any]:
    """A JSON object; empty where it is missing or broken."""
    with contextlib.suppress(VerydeepError):
        return read_json(path)
    return {}


def _environment(values: dict[str, Any]) -> RunEnvironment | None:
    if not values:
        return None
    versions = values.get("versions")
    names = [f"{name} {version}" for name, version in versions.items()] if isinstance(versions, dict) else []
    texts = {item.name: str(values.get(item.name)) for item in fields(RunEnvironment)}
    return RunEnvironment(**{**texts, "versions": ", ".join(names)})


def _evaluations(folder: Path) -> tuple[EvalRecord, ...]:
    """The evaluations in a directory, by set and protocol; other files are left out.

    A checkpoint that is both the best and the last counts once.
    """
    evaluations: dict[tuple[str, str, str], EvalRecord] = {}
    for path in sorted(folder.glob(f"{EVALUATIONS}*/**/{RESULT}")):
        with contextlib.suppress(KeyError, TypeError, ValueError, IndexError):
            evaluation = _evaluation(path.parent, _json(path))
            evaluations.setdefault((evaluation.name, evaluation.photos, evaluation.checkpoint), evaluation)
    return tuple(evaluations.values())


def _evaluation(folder: Path, values: dict[str, Any]) -> EvalRecord:
    """An evaluation from its ``result.json``; raises a built-in error for values of other types."""
    of_boxes = "checkpoints" in values
    rate, recall = values.get("images_per_second"), values.get("mean_class_recall")
    classes = [] if of_boxes else values.get("classes") or []
    return EvalRecord(
        folder=folder,
        name=folder.name.removeprefix("boxes-") if of_boxes else str(values["protocol"]),
        data=str(values["data"]),
        set_name=str(values["set"]),
        images=int(values["images"]),
        of_boxes=of_boxes,
        checkpoint=str(values["checkpoints"][0] if of_boxes else values["checkpoint_sha256"]),
        errors={name: _rate(values, name) for name in values if _is_error(name, values[name])},
        mean_class_recall=None if recall is None else float(recall),
        images_per_second=None if rate is None else float(rate),
        classes=tuple(ClassError(str(row["class"]), int(row["images"]), float(row["top1_error"])) for row in classes),
        confused=tuple(
            ConfusedPair(str(row["class"]), str(row["taken_for"]), int(row["images"]))
            for row in values.get("confused") or []
        ),
    )


def _maps(folder: Path) -> tuple[MapRecord, ...]:
    """The boxes from maps in a directory; damaged files are left out."""
    found = []
    for path in sorted(folder.glob(f"{EVALUATIONS}*/**/{MAPS_RESULT}")):
        values = _json(path)
        with contextlib.suppress(KeyError, TypeError, ValueError, IndexError):
            found.append(
                MapRecord(
                    name=f"{values['maps']}@{values['scale']}, threshold {values['threshold']}",
                    photos=f"{short_name(str(values['data']))}, {values['set']}",
                    images=int(values["images"]),
                    gt_known=_rate(values, "gt_known_error"),
                    top1=_rate(values, "top1_localisation_error"),
                    max_box_acc=float(values["max_box_acc"]),
                    max_box_acc_v2=float(values["max_box_acc_v2"]),
                    centre_max_box_acc=float(values["centre_box"]["max_box_acc"]),
                )
            )
    return tuple(found)


def _is_error(name: str, value: Any) -> bool:
    return "_error" in name and isinstance(value, int | float)


def _rate(values: dict[str, Any], name: str) -> ErrorRate:
    ends = values.get(f"{name}_interval")
    return ErrorRate(float(values[name]), None if ends is None else (float(ends[0]), float(ends[1])))
