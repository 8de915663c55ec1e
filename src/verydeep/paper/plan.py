"""What is missing of an experiment: trainings, and tests by their parts.

A run is done when its training has ended as it would end now; a part of a test when its scores are of the
run's checkpoint and of the set's photos. Parts are of one method at one scale each, so that none is
computed for two rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..checkpoints.checkpoint import read_metadata
from ..checkpoints.run_dir import BEST, EVALUATIONS, LAST
from ..core.config import flag, to_json
from ..core.errors import VerydeepError
from ..core.files import file_sha256, read_json
from ..core.settings import TrainSettings
from ..data.open import Data
from ..evaluation.protocols import Protocol, parse_protocol
from ..evaluation.scores import FILE_NAME
from ..training.recipes import papers_start, settings_of_run
from .rows.released import is_released
from .rows.row import Row, Test, runs_of
from .scale import Size

# What may differ between a run's own settings and those it would be begun with now.
FREE = ("start", "max_epochs", "max_steps", "bad_images", "preprocessing")
# What a row's result takes from the results of its tests.
PART_KEYS = {"data", "images_per_second", "multiply_adds_per_image", "environment"}
MISSING, BEGUN, DONE = "missing", "begun", "done"
NO_FILE = "no file"  # of a released model: nothing trains it, its weight file is to be given


@dataclass(frozen=True)
class ExperimentDir:
    """Where an experiment's runs and scores are, at which size, and what photos they are of."""

    root: Path
    size: Size
    set_name: str
    set_fingerprint: str
    data_fingerprint: str
    skip_bad_images: bool = False

    @staticmethod
    def of(root: Path, size: Size, opened: Data | None, skip_bad_images: bool, trained: bool = True) -> ExperimentDir:
        """The place for some data; None stands for data that are not there, of which nothing is done.

        Args:
            trained: False where no net learns from the data, and unsplit ones are tested whole.
        """
        if opened is None:
            return ExperimentDir(root, size, "val", "", "", skip_bad_images)
        set_name = "all" if opened.split_by_us and not trained else opened.reported
        of_set = opened.set(set_name).fingerprint(sizes=True)
        return ExperimentDir(root, size, set_name, of_set, opened.fingerprint(), skip_bad_images)

    def part_folder(self, run: str, part: Protocol) -> Path:
        """Where a part's scores are: in the run's folder, as `evaluate` puts them."""
        return self.root / run / EVALUATIONS / self.set_name / str(part)

    def run_hash(self, run: str) -> str | None:
        """SHA-256 of the run's best checkpoint, where its training has ended."""
        best = self.root / run / BEST
        if not best.exists() or not (is_released(run) or _ended(self.root / run) is not None):
            return None
        return file_sha256(best)

    def part_result(self, run: str, part: Protocol, run_hash: str | None) -> dict[str, Any] | None:
        """What `evaluate` wrote of a part, where it is of the run's checkpoint and of these photos, all of them."""
        folder = self.part_folder(run, part)
        if run_hash is None or not (folder / FILE_NAME).exists() or not (folder / "result.json").exists():
            return None
        try:
            found = read_json(folder / "result.json")
        except VerydeepError:  # torn: tested again
            return None
        whole = found.get("skipped") == 0 or self.skip_bad_images
        same = (found.get("checkpoint_sha256"), found.get("set_fingerprint")) == (run_hash, self.set_fingerprint)
        return found if whole and same and found.keys() >= PART_KEYS else None


@dataclass(frozen=True)
class RunStatus:
    """A run: where it is, how far it is (`MISSING`, `BEGUN`, `DONE`, `NO_FILE`), its settings."""

    run: str
    folder: Path
    state: str
    settings: TrainSettings
    seconds: float = 0.0
    disk: int = 0


@dataclass(frozen=True)
class EvalStatus:
    """A part of a test: a run tested by one method at one scale, in real pixels."""

    run: str
    protocol: Protocol
    folder: Path
    done: bool
    seconds: float = 0.0
    disk: int = 0


@dataclass(frozen=True)
class Plan:
    """All work for some rows, in order, with estimates for what is not done."""

    runs: tuple[RunStatus, ...]
    tests: tuple[EvalStatus, ...]

    @property
    def to_train(self) -> list[RunStatus]:
        """Runs whose training has not ended."""
        return [work for work in self.runs if work.state in (MISSING, BEGUN)]

    @property
    def to_test(self) -> list[EvalStatus]:
        """Parts of tests without current scores."""
        return [work for work in self.tests if not work.done]

    @property
    def missing(self) -> list[RunStatus | EvalStatus]:
        """All that is not done."""
        return [*self.to_train, *self.to_test]

    @property
    def seconds(self) -> float:
        """Of all that is not done."""
        return sum(work.seconds for work in self.missing)

    @property
    def disk(self) -> int:
        """Bytes that all that is not done will take."""
        return sum(work.disk for work in self.missing)

    def to_json(self, with_file: tuple[str, ...] = ()) -> dict[str, Any]:
        """``{train: […], test: […], done: […], without_file: […], seconds, disk_bytes}``.

        Args:
            with_file: released nets whose weight files are given with the command.
        """
        return {
            "train": [
                {"run": w.run, "state": w.state, "start": papers_start(w.run), "S": str(w.settings.S)}
                | {"most_epochs": w.settings.max_epochs, "seconds": round(w.seconds), "folder": str(w.folder)}
                for w in self.to_train
            ],
            "test": [{"run": w.run, "protocol": str(w.protocol), "seconds": round(w.seconds)} for w in self.to_test],
            "done": [w.run for w in self.runs if w.state == DONE],
            "without_file": [w.run for w in self.runs if w.state == NO_FILE and w.settings.net not in with_file],
            "seconds": round(self.seconds),
            "disk_bytes": self.disk,
        }


def real_parts(tests: tuple[Test, ...], size: Size) -> list[tuple[str, Protocol]]:
    """Run and one-scale protocol, in the size's pixels, of each part of some tests, each once."""
    found = [(test.run, part) for test in tests for part in parse_protocol(size.protocol(test.protocol)).parts()]
    return list(dict.fromkeys(found))


def settings_for(run: str, size: Size, given: dict[str, Any]) -> TrainSettings:
    """The settings of a run at a size, with ``given`` ones on top."""
    return settings_of_run(run, {**size.settings(run), **given})


def make_plan(rows: tuple[Row, ...], place: ExperimentDir, given: dict[str, Any]) -> Plan:
    """What is missing of some rows.

    Args:
        given: settings that every run gets on top of its own.

    Raises:
        VerydeepError: a run's folder holds a run of other settings, photos or beginnings.
    """
    runs = tuple(_run_work(run, place, given) for run in runs_of(rows))
    _check_starts(runs)
    hashes = {work.run: place.run_hash(work.run) if work.state == DONE else None for work in runs}
    tests = []
    for run, part in real_parts(tuple(test for row in rows for test in row.tests), place.size):
        done = place.part_result(run, part, hashes[run]) is not None
        tests.append(EvalStatus(run, part, place.part_folder(run, part), done))
    return Plan(runs, tuple(tests))


def _run_work(run: str, place: ExperimentDir, given: dict[str, Any]) -> RunStatus:
    folder = place.root / run
    if is_released(run):
        if not (folder / BEST).exists():  # a plan is made without the weight file
            return RunStatus(run, folder, NO_FILE, TrainSettings(net=run.partition("/")[0]))
        metadata = read_metadata(folder / BEST)
        return RunStatus(run, folder, DONE, TrainSettings(net=metadata.net, crop=metadata.crop, width=metadata.width))
    settings = settings_for(run, place.size, given)
    # Of a run that has ended the last checkpoint is not needed any more.
    checkpoint = next((folder / name for name in (LAST, BEST) if (folder / name).exists()), None)
    if checkpoint is None:
        return RunStatus(run, folder, MISSING, settings)
    _check_same(run, place, settings)
    return RunStatus(run, folder, _state(folder, settings, read_metadata(checkpoint).state.get("step", 0)), settings)


def _check_starts(runs: tuple[RunStatus, ...]) -> None:
    """Raises VerydeepError where a run has to be trained on although another has begun from it."""
    by_name = {work.run: work for work in runs}
    for work in runs:
        start = by_name.get(papers_start(work.run) or "")
        if start is not None and start.state != DONE and work.state != MISSING:
            raise VerydeepError(
                f"{start.folder} would be trained on, and {work.folder} has begun from it as it is: "
                "ask for no more epochs, or give another --out."
            )


def _ended(folder: Path) -> dict[str, Any] | None:
    """What result.json says of a training that has ended."""
    path = folder / "result.json"
    result = read_json(path) if path.exists() else {}
    if result.get("ended") in (None, "interrupted", "diverged"):
        return None
    if not all(isinstance(result.get(name), int) for name in ("steps", "epochs")):
        raise VerydeepError(f"{path} is not what training writes: remove the run's folder, and it is trained anew.")
    return result


def _state(folder: Path, settings: TrainSettings, step: int) -> str:
    """How far a run is; one that ended after fewer epochs than it may now have is begun.

    Raises:
        VerydeepError: it ended after fewer steps, in the middle of an epoch; or it has not ended and has more
            steps than are asked for; or its best net is missing.
    """
    result = _ended(folder)
    if result is not None and result["ended"] == "max_steps" and result["steps"] < settings.max_steps:
        raise VerydeepError(
            f"{folder} holds a run that was ended after {result['steps']} steps (--max-steps): "
            "give another --out, or remove it."
        )
    short = result is not None and result["ended"] == "max_epochs" and result["epochs"] < settings.max_epochs
    if result is None or short:
        if step > settings.max_steps:
            raise VerydeepError(f"{folder} has {step} steps already, more than --max-steps: give another --out.")
        return BEGUN
    if not (folder / BEST).exists():
        raise VerydeepError(f"{folder} has lost its {BEST}: remove the folder, and the run is trained anew.")
    return DONE


def _check_same(run: str, place: ExperimentDir, settings: TrainSettings) -> None:
    """Raises VerydeepError where a folder's run is not what would be begun there now."""
    folder = place.root / run
    config = read_json(folder / "config.json")
    metadata = read_metadata(folder / (BEST if (folder / BEST).exists() else LAST))
    begun, now = to_json(metadata.train_settings), to_json(settings)
    wrong = [name for name in now if name not in FREE and now[name] != begun[name]]
    start, told = papers_start(run), ""
    if config.get("run") != run:
        told = f"of the name {config.get('run')}, not {run}"
    elif wrong:
        told = f"that was begun with {flag(wrong[0])} {begun[wrong[0]]}, not {now[wrong[0]]}"
    elif metadata.data_fingerprint != place.data_fingerprint:
        told = f"on other photos than these (it was begun with data {metadata.data.get('data')})"
    elif start is not None and config.get("start_sha256") != place.run_hash(start):
        told = f"that did not begin from the {start} there is now"
    if told:
        raise VerydeepError(f"{folder} holds a run {told}: give another --out, or remove it.")
