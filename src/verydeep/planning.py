"""What is missing of an experiment, and what it will take: trainings, tests, time and disk.

A run is done when its training has ended; a test when its scores are of the run's checkpoint. A test
is planned by its parts, one method at one scale each, so that no part is computed for two rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .checkpoints import load_checkpoint
from .config import DataSettings, TrainSettings, flag, from_json, to_json
from .data import lasting_name
from .errors import VerydeepError
from .experiments import Row, Test, runs_of
from .experiments.released import is_released
from .experiments.sizes import Size
from .files import file_sha256, read_json
from .protocols import Protocol, parse_protocol
from .recipes import papers_start, settings_of_run
from .runs import BEST, EVALUATIONS, LAST
from .scores import FILE_NAME

# What may differ between a run's own settings and those it would be begun with now.
FREE = ("start", "max_epochs", "max_steps", "bad_images", "batch", "preprocessing")


@dataclass(frozen=True)
class RunWork:
    """A run: where it is, how far it is (``missing``, ``begun``, ``done``), its settings."""

    run: str
    folder: Path
    state: str
    settings: TrainSettings
    seconds: float = 0.0
    disk: int = 0


@dataclass(frozen=True)
class TestWork:
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

    runs: tuple[RunWork, ...]
    tests: tuple[TestWork, ...]

    @property
    def to_train(self) -> list[RunWork]:
        """Runs whose training has not ended."""
        return [work for work in self.runs if work.state != "done"]

    @property
    def to_test(self) -> list[TestWork]:
        """Parts of tests without current scores."""
        return [work for work in self.tests if not work.done]

    @property
    def missing(self) -> list[RunWork | TestWork]:
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

    def to_json(self) -> dict[str, Any]:
        """``{train: […], test: […], seconds, disk_bytes}``."""
        return {
            "train": [
                {"run": w.run, "state": w.state, "start": papers_start(w.run), "S": str(w.settings.S)}
                | {"most_epochs": w.settings.max_epochs, "seconds": round(w.seconds), "folder": str(w.folder)}
                for w in self.to_train
            ],
            "test": [{"run": w.run, "protocol": str(w.protocol), "seconds": round(w.seconds)} for w in self.to_test],
            "done": [w.run for w in self.runs if w.state == "done"],
            "seconds": round(self.seconds),
            "disk_bytes": self.disk,
        }


def real_parts(tests: tuple[Test, ...], size: Size) -> list[tuple[str, Protocol]]:
    """Run and one-scale protocol, in the size's pixels, of each part of some tests, each once."""
    found = [(test.run, part) for test in tests for part in parse_protocol(size.protocol(test.protocol)).parts()]
    return list(dict.fromkeys(found))


def part_folder(root: Path, run: str, set_name: str, part: Protocol) -> Path:
    """Where a part's scores are: in the run's folder, as `evaluate` puts them."""
    return root / run / EVALUATIONS / set_name / str(part)


def settings_for(run: str, size: Size, given: dict[str, Any]) -> TrainSettings:
    """The settings of a run at a size, with ``given`` ones on top."""
    return settings_of_run(run, {**size.settings(run), **given})


def make_plan(
    rows: tuple[Row, ...], size: Size, data: DataSettings, reported: str, root: Path, given: dict[str, Any]
) -> Plan:
    """What is missing of some rows.

    Args:
        reported: the set of the data that is tested.
        root: the folder of all runs.
        given: settings that every run gets on top of its own.

    Raises:
        VerydeepError: a run's folder holds a run of other settings or data.
    """
    runs = tuple(_run_work(run, size, data, root, given) for run in runs_of(rows))
    hashes = {work.run: _hash(work) for work in runs}
    tests = []
    for run, part in real_parts(tuple(test for row in rows for test in row.tests), size):
        folder = part_folder(root, run, reported, part)
        tests.append(TestWork(run, part, folder, hashes[run] is not None and _scored(folder) == hashes[run]))
    return Plan(runs, tuple(tests))


def _run_work(run: str, size: Size, data: DataSettings, root: Path, given: dict[str, Any]) -> RunWork:
    folder = root / run
    if is_released(run):
        card = load_checkpoint(folder / BEST).card
        return RunWork(run, folder, "done", TrainSettings(net=card.net, crop=card.crop, width=card.width))
    settings = settings_for(run, size, given)
    if not (folder / LAST).exists():
        return RunWork(run, folder, "missing", settings)
    _check_same(folder, run, settings, data)
    ended = read_json(folder / "result.json").get("ended") if (folder / "result.json").exists() else None
    return RunWork(run, folder, "begun" if ended in (None, "interrupted") else "done", settings)


def _check_same(folder: Path, run: str, settings: TrainSettings, data: DataSettings) -> None:
    """Raises VerydeepError where a folder's run is not what would be begun there now."""
    config = read_json(folder / "config.json")
    begun, now = to_json(from_json(TrainSettings, config.get("settings", {}))), to_json(settings)
    wrong = [name for name in now if name not in FREE and now[name] != begun[name]]
    was, asked = config.get("data", {}).get("data"), lasting_name(data.data)
    if wrong or config.get("run") != run or was != asked:
        told = f"data {was}, not {asked}" if was != asked else f"the name {config.get('run')}, not {run}"
        if wrong:
            told = f"{flag(wrong[0])} {begun[wrong[0]]}, not {now[wrong[0]]}"
        raise VerydeepError(f"{folder} holds a run that was begun with {told}: give another --out.")


def _hash(work: RunWork) -> str | None:
    best = work.folder / BEST
    return file_sha256(best) if work.state == "done" and best.exists() else None


def _scored(folder: Path) -> str | None:
    """The hash of the checkpoint whose scores lie in a folder."""
    if not (folder / FILE_NAME).exists() or not (folder / "result.json").exists():
        return None
    found = read_json(folder / "result.json").get("checkpoint_sha256")
    return found if isinstance(found, str) else None
