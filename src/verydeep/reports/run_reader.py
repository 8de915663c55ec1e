"""What a run's folder tells of the run, read without its net: settings, log, how it ended, and its tests."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from ..checkpoints.checkpoint import Metadata, read_metadata
from ..checkpoints.run_dir import BEST, CLASSIFIER, EVALUATIONS, LAST, LOG, PREVIOUS, read_log, run_name
from ..core.errors import VerydeepError
from ..core.files import file_sha256, read_json, taken
from ..models.architectures import NetFacts, net_facts

State = Literal["training", "finished", "interrupted", "stopped", "diverged", "a net"]
RESULT = "result.json"


def short_name(data: str) -> str:
    """What to call data in a title: by their name, and a path by its last part."""
    name = data.partition(":")[0]
    return Path(name).name or data


@dataclass(frozen=True)
class EvalRecord:
    """A test of a run's net: the folder of its files, and what its ``result.json`` says."""

    folder: Path
    told: dict[str, Any]
    of_boxes: bool

    @property
    def error(self) -> str:
        """The error that is its headline."""
        if not self.of_boxes:
            return "top1_error"
        return "gt_class_error" if self.told.get("localisation_error") is None else "localisation_error"

    @property
    def name(self) -> str:
        """How it was tested: its protocol, of a box net also how boxes merge where that is unusual."""
        return self.folder.name.removeprefix("boxes-") if self.of_boxes else str(self.told["protocol"])

    @property
    def photos(self) -> str:
        """Which photos."""
        return f"{short_name(str(self.told['data']))}, {self.told['set']}"

    @property
    def known(self) -> bool:
        """Whether there is an error: the photos' classes are known."""
        return self.told.get(self.error) is not None

    @property
    def value(self) -> str:
        """The error in percent."""
        return f"{self.told[self.error]:.2f} %" if self.known else ""

    @property
    def interval(self) -> str:
        """That of the error, of 95 %."""
        low, high = self.told[f"{self.error}_interval"] if self.known else (0, 0)
        return f"{low:.2f} to {high:.2f} %" if self.known else ""

    @property
    def checkpoint(self) -> str:
        """The hash of the file that was tested."""
        return str(self.told["checkpoints"][0] if self.of_boxes else self.told["checkpoint_sha256"])

    @property
    def own(self) -> bool:
        """Whether the best net was tested on the run's own data: its folder is ``evaluations/<set>/<protocol>``."""
        return self.folder.parent.parent.name == EVALUATIONS


@dataclass(frozen=True)
class RunRecord:
    """A run as its folder tells it; ``log`` has a row an epoch, ``result`` is empty until training ends."""

    folder: Path
    run: str
    metadata: Metadata
    log: tuple[dict[str, Any], ...]
    result: dict[str, Any]
    environment: dict[str, Any]
    state: State
    tests: tuple[EvalRecord, ...]

    @cached_property
    def facts(self) -> NetFacts:
        """The net's size and cost."""
        return net_facts(self.metadata.net, max(1, self.metadata.outputs), self.metadata.crop, self.metadata.width)

    @property
    def error(self) -> str:
        """The dev part's error as logs call it, after ``dev_``."""
        return self.metadata.error

    @property
    def scale(self) -> str:
        """The training scale S, or that of testing of a net that was not trained here."""
        return str(self.metadata.settings.get("S", self.metadata.test_scale))

    @property
    def data(self) -> str:
        """The data it was trained on, as given."""
        return str(self.metadata.data.get("data", "")) or "data that it does not tell"

    @property
    def best(self) -> tuple[float, int] | None:
        """The dev error of the best epoch and its number: of equal errors that of the least loss; None before one ends.

        Epoch 0 is what training started from, where that was tested; it has no row in the log.
        """
        loss = "missed_overlap" if self.metadata.is_localiser else "loss"
        found = [(row[f"dev_{self.error}"], row.get(f"dev_{loss}", 0.0), row["epoch"]) for row in self.log]
        if self.metadata.state.get("best_epoch") == 0 and self.metadata.state.get("best"):
            found.append((*self.metadata.state["best"], 0))
        return (min(found)[0], min(found)[2]) if found else None

    @property
    def rate(self) -> float | None:
        """Training photos a second: the median of the epochs."""
        rates = sorted(row["images_per_second"] for row in self.log)
        return float(rates[len(rates) // 2]) if rates else None

    @property
    def seconds(self) -> float:
        """Spent on the epochs' steps, without their tests."""
        return float(sum(row["seconds"] for row in self.log))

    @cached_property
    def current(self) -> frozenset[str]:
        """The hashes of the nets that are in the folder now."""
        there = [self.folder / name for name in (BEST, LAST)] if self.tests else []
        return frozenset(file_sha256(path) for path in there if path.is_file())

    @property
    def test(self) -> EvalRecord | None:
        """The test to speak of: of the net that is here now, on its own data, at Q = S if there is such a one."""
        mine = [test for test in self.tests if test.own and test.known and test.checkpoint in self.current]
        usual = [test for test in mine if test.name == f"dense@{self.metadata.test_scale}"]
        return next(iter(usual or mine), None)


def read_run(folder: Path, running: bool | None = None) -> RunRecord:
    """What a run's folder tells.

    Args:
        running: whether it is being trained; None looks whether a process is at work there.

    Raises:
        VerydeepError: there is no such folder, or it is no run, and what it lacks.
    """
    metadata = _metadata(folder)
    log = tuple(row for row in read_log(folder) if _whole(row, metadata.error))
    result = _json(folder / RESULT)
    state = _state(folder, metadata, result, taken(folder) if running is None else running)
    environment = _json(folder / "environment.json")
    ended = result if state in ("finished", "interrupted", "diverged") else {}
    return RunRecord(
        folder, run_name(folder / BEST), metadata, log, ended, environment, state, () if running else _tests(folder)
    )


def _metadata(folder: Path) -> Metadata:
    """That of the last net, which has the latest settings; else of the best or the one before."""
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise VerydeepError(f"{folder} {what}: give the folder of a run, a probe or an SVM (runs/…).")
    there = [folder / name for name in (LAST, BEST, PREVIOUS) if (folder / name).is_file()]
    if not there:
        kinds = f"no checkpoint ({BEST}, {LAST}) and no {CLASSIFIER}"
        raise VerydeepError(f"{folder} is no run: it holds {kinds}; give the folder that `verydeep train` wrote.")
    for path in there[:-1]:
        with contextlib.suppress(VerydeepError):
            return read_metadata(path)
    return read_metadata(there[-1])


def _state(folder: Path, metadata: Metadata, result: dict[str, Any], running: bool) -> State:
    if running:
        return "training"
    if not (folder / LOG).is_file():  # converted, or copied from where it was trained
        return "a net"
    if not result or result.get("steps") != metadata.state.get("step", result.get("steps")):
        return "stopped"  # the result is of before it went on
    ended = result.get("ended")
    return "interrupted" if ended == "interrupted" else "diverged" if ended == "diverged" else "finished"


def _whole(row: dict[str, Any], error: str) -> bool:
    names = ("epoch", "step", "lr", "loss", f"train_{error}", f"dev_{error}", "seconds", "images_per_second")
    return all(isinstance(row.get(name), int | float) and math.isfinite(row[name]) for name in names)


def _json(path: Path) -> dict[str, Any]:
    """A JSON object; empty where there is none that can be read."""
    with contextlib.suppress(VerydeepError):
        return read_json(path)
    return {}


def _tests(folder: Path) -> tuple[EvalRecord, ...]:
    """The tests in a folder, by set and protocol; files that are none of ours are left out.

    A net that is both the best and the last is told of once.
    """
    found: dict[tuple[str, str, str], EvalRecord] = {}
    for path in sorted(folder.glob(f"{EVALUATIONS}*/**/{RESULT}")):
        told = _json(path)
        test = EvalRecord(path.parent, told, "checkpoints" in told)
        with contextlib.suppress(KeyError, TypeError, ValueError, IndexError):
            _ = test.value, test.interval, int(told["images"])
            found.setdefault((test.name, test.photos, test.checkpoint), test)
    return tuple(found.values())
