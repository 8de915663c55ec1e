"""What rows of the torture share: how trials are counted, and the real command."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import torch
from fork_server import Fork, answered, forked

from verydeep.checkpoints.checkpoint import Checkpoint, load_checkpoint

AT_ONCE = 2
PATIENCE = 300.0  # seconds that any command may take
TIMED = ("seconds", "images_per_second")  # of a log's row: what no two runs share
TINY: list[object] = ["--crop", 32, "--width", 1 / 32, "--S", "36", "--batch", 8, "--threads", 1, "--start", "none"]
TRAIN: list[object] = ["train", "A", "--data", "digits:120", *TINY, "--workers", 1]
Going = Fork | subprocess.Popen[bytes]  # a command in progress


@dataclass
class Outcome:
    """How a row's trials went: a sentence for each that failed, and figures worth telling."""

    trials: int
    faults: list[str] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """A fault, what has to happen, how many trials there are in the long form, and what does them.

    ``work`` is told an empty folder, how many trials, and what to call after each.
    """

    name: str
    fault: str
    passed: str
    trials: int
    work: Callable[[Path, int, Callable[[], object]], Outcome]


def each(trials: int, one: Callable[[int], list[str]], advance: Callable[[], object]) -> Outcome:
    """Trials by number, some at once; each tells what went wrong."""

    def counted(number: int) -> list[str]:
        faults = [f"trial {number}: {fault}" for fault in one(number)]
        advance()
        return faults

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return Outcome(trials, [fault for faults in pool.map(counted, range(trials)) for fault in faults])


def words(*typed: object) -> list[str]:
    """The real command, as it is started."""
    return [sys.executable, "-m", "verydeep", *map(str, typed)]


def environment(**more: str) -> dict[str, str]:
    """One thread a product, so that trials may run side by side."""
    return {**os.environ, "OMP_NUM_THREADS": "1", **more}


def command(*typed: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Runs the real command to its end."""
    return answered(list(typed), cwd, PATIENCE)


def begun(processes: int, *typed: object, cwd: Path, told: Path) -> Going:
    """Begins the real command, by one process or several; what it tells goes into a file."""
    if processes == 1:
        return forked(list(typed), cwd, told)
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    with told.open("wb") as file:
        return subprocess.Popen(
            [*start, "-m", "--", *words(*typed)[2:]],  # the `--` keeps torchrun from reading our flags
            cwd=cwd,
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=file,
            start_new_session=True,
        )


def killed(going: Going, after: float) -> bool:
    """Kills all processes of a command after some seconds; whether it was still going on."""
    time.sleep(after)
    went_on = going.poll() is None
    for process in (going.pid, *children(going.pid)):
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    going.wait()
    return went_on


def children(parent: int) -> list[int]:
    """All that descend from a process."""
    born = subprocess.run(["pgrep", "-P", str(parent)], capture_output=True, text=True, check=False).stdout.split()
    return [child for first in map(int, born) for child in (first, *children(first))]


def done(*typed: object, cwd: Path) -> None:
    """Runs a command that has to succeed."""
    ended = command(*typed, cwd=cwd)
    assert ended.returncode == 0, ended.stderr


def differences(one: Path, other: Path) -> list[str]:
    """What two runs' folders do not have in common, to the bit; times apart."""
    found = []
    for name in ("last.safetensors", "best.safetensors"):
        first, second = load_checkpoint(one / name), load_checkpoint(other / name)
        if first.metadata.state != second.metadata.state or not _equal(first, second):
            found.append(f"{name} is not that of the unbroken run")
    if rows(one) != rows(other):
        found.append("log.jsonl is not that of the unbroken run")
    left = [path.name for path in other.iterdir() if path.name.endswith(".tmp")]
    return found + [f"{name} was left" for name in left]


def _equal(one: Checkpoint, other: Checkpoint) -> bool:
    pairs = ((one.weights, other.weights), (one.momentum, other.momentum))
    return all(a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a) for a, b in pairs)


def rows(folder: Path) -> list[dict[str, object]]:
    """A run's log, times apart."""
    read = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name not in TIMED} for row in read]
