"""What is missing of an experiment: trainings, and evaluations by their parts.

A run is done when its training has ended as it would end now; a part of an evaluation when its scores are of the run's
checkpoint and the set's images. A part is one method at one scale, so that none is computed for two rows.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ..checkpoints.checkpoint import checkpoint_sha256, read_metadata
from ..checkpoints.run_dir import BEST, EVALUATIONS, LAST
from ..core.config import as_typed, flag, to_json
from ..core.errors import VerydeepError
from ..core.files import read_json
from ..core.progress import Reporter
from ..core.settings import BoxSettings, MachineSettings, MergeSettings, TrainSettings
from ..data.open import Data
from ..evaluation.protocols import Protocol, parse_protocol
from ..evaluation.rates import Timing
from ..evaluation.scores import FILE_NAME
from ..training.recipes import papers_start, settings_of_box_run, settings_of_run
from .rows.released import is_released
from .rows.row import Experiment, Row, Test, runs_of
from .scale import Size

# Settings that may differ between a run and the same run started now.
FREE = ("start", "max_epochs", "max_steps", "bad_images", "preprocessing")
# Keys of a test's result that a row's result is made from.
PART_KEYS = {"data", "images_per_second", "multiply_adds_per_image", "environment"}
MISSING, STARTED, DONE = "missing", "begun", "done"
NO_FILE = "no file"  # of a released model: it needs its weight file


@dataclass(frozen=True)
class ExperimentDir:
    """The folder of an experiment's runs and scores, with their size and images."""

    root: Path
    size: Size
    set_name: str
    set_fingerprint: str
    data_fingerprint: str
    skip_bad_images: bool = False

    @staticmethod
    def of(
        root: Path, size: Size, opened: Data | None, skip_bad_images: bool = False, trained: bool = True
    ) -> ExperimentDir:
        """The folder for some data; None where the data are missing, so that nothing is done yet.

        Args:
            trained: False where no net is trained on the data; unsplit data are then evaluated whole.
        """
        if opened is None:
            return ExperimentDir(root, size, "val", "", "", skip_bad_images)
        set_name = "all" if opened.split_by_us and not trained else opened.reported
        of_set = opened.set(set_name).fingerprint(sizes=True)
        return ExperimentDir(root, size, set_name, of_set, opened.fingerprint(), skip_bad_images)

    def part_folder(self, run: str, part: Protocol) -> Path:
        """The folder of a part's scores, where `evaluate` writes them."""
        return self.root / run / EVALUATIONS / self.set_name / str(part)

    def run_hash(self, run: str) -> str | None:
        """SHA-256 of the run's best checkpoint, where its training has ended."""
        best = self.root / run / BEST
        if not best.exists() or not (is_released(run) or _ended(self.root / run) is not None):
            return None
        return checkpoint_sha256(best)

    def part_result(self, run: str, part: Protocol, run_hash: str | None) -> dict[str, Any] | None:
        """The result of `evaluate` for a part, if it is of the run's checkpoint and of all these images."""
        folder = self.part_folder(run, part)
        if run_hash is None or not (folder / FILE_NAME).exists() or not (folder / "result.json").exists():
            return None
        try:
            result = read_json(folder / "result.json")
        except VerydeepError:  # broken: evaluated again
            return None
        complete = result.get("skipped") == 0 or self.skip_bad_images
        same = (result.get("checkpoint_sha256"), result.get("set_fingerprint")) == (run_hash, self.set_fingerprint)
        return result if complete and same and result.keys() >= PART_KEYS else None


@dataclass(frozen=True)
class Job:
    """Rows of one experiment to reproduce, and with what.

    ``data`` is as on the command line; ``opened`` is None where a plan is made without data, and where the rows name
    their data sets themselves. ``weights`` are files of released models by net; ``settings`` fields of TrainSettings
    and BoxSettings.
    """

    experiment: Experiment
    rows: tuple[Row, ...]
    place: ExperimentDir
    data: str | None
    opened: Data | None
    weights: dict[str, str]
    settings: dict[str, Any]
    merging: MergeSettings
    machine: MachineSettings
    reporter: Reporter
    stop: Callable[[], bool]


@dataclass(frozen=True)
class RunStatus:
    """A run: its folder, state (`MISSING`, `STARTED`, `DONE`, `NO_FILE`) and settings."""

    run: str
    folder: Path
    state: str
    settings: TrainSettings
    seconds: float = 0.0
    disk: int = 0


@dataclass(frozen=True)
class EvalStatus:
    """A part of an evaluation: a run evaluated by one method at one scale, in this size's pixels."""

    run: str
    protocol: Protocol
    folder: Path
    done: bool
    seconds: float = 0.0
    disk: int = 0


@dataclass(frozen=True)
class DescriptorStatus:
    """Descriptors of a released net at one scale of a data set, for SVMs: how many images still lack theirs."""

    run: str
    data: str
    layer: str
    scale: int
    images: int
    seconds: float
    disk: int

    def to_json(self) -> dict[str, Any]:
        """``{run, data, layer, scale, images, seconds}``."""
        rest = {"scale": self.scale, "images": self.images, "seconds": round(self.seconds)}
        return {"run": self.run, "data": self.data, "layer": self.layer, **rest}


@dataclass(frozen=True)
class Plan:
    """All work for some rows, in order, with estimates for what is not done, by the times of ``rates``."""

    runs: tuple[RunStatus, ...]
    tests: tuple[EvalStatus, ...]
    descriptors: tuple[DescriptorStatus, ...] = ()
    rates: tuple[Timing, ...] = ()

    @property
    def to_train(self) -> list[RunStatus]:
        """Runs whose training has not ended."""
        return [run for run in self.runs if run.state in (MISSING, STARTED)]

    @property
    def to_test(self) -> list[EvalStatus]:
        """Parts of evaluations without current scores."""
        return [test for test in self.tests if not test.done]

    @property
    def to_describe(self) -> list[DescriptorStatus]:
        """Descriptors that are not all extracted."""
        return [status for status in self.descriptors if status.images]

    @property
    def missing(self) -> list[RunStatus | EvalStatus | DescriptorStatus]:
        """All work that is not done."""
        return [*self.to_train, *self.to_test, *self.to_describe]

    @property
    def seconds(self) -> float:
        """Time of all work that is not done."""
        return sum(work.seconds for work in self.missing)

    @property
    def disk(self) -> int:
        """Bytes of all work that is not done."""
        return sum(work.disk for work in self.missing)

    def to_json(self, with_file: tuple[str, ...] = ()) -> dict[str, Any]:
        """``{train: […], test: […], descriptors: […], done: […], without_file: […], rates: […], seconds, disk_bytes}``.

        Args:
            with_file: released nets whose weight files are given with the command.
        """
        return {
            "train": [
                {"run": run.run, "state": run.state, "start": papers_start(run.run), "S": str(run.settings.S)}
                | {"most_epochs": run.settings.max_epochs, "seconds": round(run.seconds), "folder": str(run.folder)}
                for run in self.to_train
            ],
            "test": [
                {"run": test.run, "protocol": str(test.protocol), "seconds": round(test.seconds)}
                for test in self.to_test
            ],
            "descriptors": [status.to_json() for status in self.to_describe],
            "done": [run.run for run in self.runs if run.state == DONE],
            "without_file": [
                run.run for run in self.runs if run.state == NO_FILE and run.settings.net not in with_file
            ],
            "rates": [rate.to_json() for rate in self.rates],
            "seconds": round(self.seconds),
            "disk_bytes": self.disk,
        }


def real_parts(tests: tuple[Test, ...], size: Size) -> list[tuple[str, Protocol]]:
    """The run and one-scale protocol, in the size's pixels, of each part of some tests, without repetition."""
    parts = [(test.run, part) for test in tests for part in parse_protocol(size.protocol(test.protocol)).parts()]
    return list(dict.fromkeys(parts))


def is_box_run(run: str) -> bool:
    """Whether a run of the paper, by its name, trains a localisation model."""
    return re.search(r"-(SCR|PCR)(-fc)?$", run) is not None


def run_settings(run: str, size: Size, given: dict[str, Any]) -> dict[str, Any]:
    """The settings of a run besides those of its name; those of boxes are for localisation models only."""
    boxes = () if is_box_run(run) else {item.name for item in fields(BoxSettings)}
    return {**size.settings(run), **{name: value for name, value in given.items() if name not in boxes}}


def make_plan(
    rows: tuple[Row, ...], place: ExperimentDir, settings: dict[str, Any], trained: tuple[Row, ...] = ()
) -> Plan:
    """What is missing of some rows.

    Args:
        settings: of every run, besides those of its name.
        trained: more rows, of which only the runs are planned.

    Raises:
        VerydeepError: a run's folder holds a run of other settings, images or starting weights.
    """
    runs = tuple(_run_status(run, place, settings) for run in runs_of((*rows, *trained)))
    _check_starts(runs)
    hashes = {run.run: place.run_hash(run.run) if run.state == DONE else None for run in runs}
    tests = []
    for run, part in real_parts(tuple(test for row in rows for test in row.tests), place.size):
        done = place.part_result(run, part, hashes[run]) is not None
        tests.append(EvalStatus(run, part, place.part_folder(run, part), done))
    return Plan(runs, tuple(tests))


def _run_status(run: str, place: ExperimentDir, overrides: dict[str, Any]) -> RunStatus:
    folder = place.root / run
    if is_released(run):
        if not (folder / BEST).exists():  # a plan is made without the weight file
            return RunStatus(run, folder, NO_FILE, TrainSettings(net=run.partition("/")[0]))
        metadata = read_metadata(folder / BEST)
        return RunStatus(run, folder, DONE, TrainSettings(net=metadata.net, crop=metadata.crop, width=metadata.width))
    overrides = run_settings(run, place.size, overrides)
    settings, boxes = (
        settings_of_box_run(run, overrides) if is_box_run(run) else (settings_of_run(run, overrides), None)
    )
    # A run that has ended does not need its last checkpoint any more.
    checkpoint = next((folder / name for name in (LAST, BEST) if (folder / name).exists()), None)
    if checkpoint is None:
        return RunStatus(run, folder, MISSING, settings)
    _check_same(run, place, settings, boxes)
    return RunStatus(run, folder, _state(folder, settings, read_metadata(checkpoint).state.get("step", 0)), settings)


def _check_starts(runs: tuple[RunStatus, ...]) -> None:
    """Raises VerydeepError where a run would be trained further although another was started from it."""
    by_name = {run.run: run for run in runs}
    for run in runs:
        start = by_name.get(papers_start(run.run) or "")
        if start is not None and start.state != DONE and run.state != MISSING:
            raise VerydeepError(
                f"{start.folder} would be trained further, but {run.folder} was started from its present weights: "
                "lower --max-epochs, or use another --out."
            )


def _ended(folder: Path) -> dict[str, Any] | None:
    """The result.json of a training that has ended."""
    path = folder / "result.json"
    result = read_json(path) if path.exists() else {}
    if result.get("ended") in (None, "interrupted", "diverged"):
        return None
    if not all(isinstance(result.get(name), int) for name in ("steps", "epochs")):
        raise VerydeepError(f"{path} was not written by training: remove the run's folder to train it again.")
    return result


def _state(folder: Path, settings: TrainSettings, step: int) -> str:
    """The state of a run; one that ended after fewer epochs than are now allowed is `STARTED`.

    Raises:
        VerydeepError: it ended after fewer steps, in the middle of an epoch; or it has not ended and has more
            steps than the limit; or its best checkpoint is missing.
    """
    result = _ended(folder)
    if result is not None and result["ended"] == "max_steps" and result["steps"] < settings.max_steps:
        raise VerydeepError(
            f"{folder} contains a run that ended after {result['steps']} steps (--max-steps): "
            "use another --out, or remove it."
        )
    short = result is not None and result["ended"] == "max_epochs" and result["epochs"] < settings.max_epochs
    if result is None or short:
        if step > settings.max_steps:
            raise VerydeepError(f"{folder} has {step} steps already, more than --max-steps: use another --out.")
        return STARTED
    if not (folder / BEST).exists():
        raise VerydeepError(f"{BEST} is missing in {folder}: remove the folder to train the run again.")
    return DONE


def _check_same(run: str, place: ExperimentDir, settings: TrainSettings, boxes: BoxSettings | None) -> None:
    """Raises VerydeepError where a folder holds a run of another name, start, data or settings."""
    folder = place.root / run
    config = read_json(folder / "config.json")
    metadata = read_metadata(folder / (BEST if (folder / BEST).exists() else LAST))
    stored, now = to_json(metadata.train_settings), to_json(settings)
    if boxes is not None:
        stored, now = {**stored, **to_json(metadata.localiser_settings)}, {**now, **to_json(boxes)}
    wrong = [name for name in now if name not in FREE and now[name] != stored[name]]
    start, difference = papers_start(run), ""
    if config.get("run") != run:
        difference = f"named {config.get('run')}, not {run}"
    elif wrong:
        difference = (
            f"that was started with {flag(wrong[0])} {as_typed(stored[wrong[0]])}, not {as_typed(now[wrong[0]])}"
        )
    # The fingerprint of a localisation model is that of the images whose boxes are usable.
    elif metadata.data_fingerprint != place.data_fingerprint and not is_box_run(run):
        difference = f"on other images (it was started with --data {metadata.data.get('data')})"
    elif start is not None and config.get("start_sha256") != place.run_hash(start):
        difference = f"that was not started from the current {start}"
    if difference:
        raise VerydeepError(f"{folder} contains a run {difference}: use another --out, or remove it.")
