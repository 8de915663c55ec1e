"""R1: SIGKILL at random moments of training and saving, by one process and by two."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rows import TRAIN, Outcome, differences, done, each, environment, together

from verydeep.checkpoints import load_checkpoint
from verydeep.errors import VerydeepError

EPOCHS, MOST_KILLS, OF_TWO = 6, 3, 10  # every tenth trial is by two processes


def kills(place: Path, trials: int, advance: Callable[[], object]) -> Outcome:
    """Each trial kills a training up to three times, and lets it go on each time, at last to its end."""
    base: list[object] = [*TRAIN, "--max-epochs", EPOCHS, "--quiet"]
    spans = {}
    for processes in (1, 2):
        began = time.monotonic()
        done(*base, "--out", f"whole-{processes}", cwd=place) if processes == 1 else _together(base, place, "whole-2")
        spans[processes] = time.monotonic() - began

    def one(number: int) -> list[str]:
        rng = np.random.default_rng([1, number])
        processes = 2 if number % OF_TWO == OF_TWO - 1 else 1
        out = f"trial-{number}"
        for _ in range(int(rng.integers(1, MOST_KILLS + 1))):
            _killed(base, place, out, processes, float(rng.uniform(0, 1.1 * spans[processes])))
            fault = _lost(place / out)
            if fault:
                return [fault]
        start, env = _started(base, place, out, processes), environment()
        ended = subprocess.run(start, cwd=place, env=env, capture_output=True, text=True, check=False)
        if ended.returncode:
            return [f"ended with {ended.returncode}: {ended.stderr[-300:]}"]
        return differences(place / f"whole-{processes}", place / out)

    return each(trials, one, advance)


def _started(base: list[object], place: Path, out: str, processes: int) -> list[str]:
    """The command that begins a run, or goes on where there is one."""
    resume = ["--resume"] if (place / out / "last.safetensors").exists() else []
    return together(processes, *base, "--out", out, *resume)


def _together(base: list[object], place: Path, out: str) -> None:
    subprocess.run(_started(base, place, out, 2), cwd=place, env=environment(), capture_output=True, check=True)


def _killed(base: list[object], place: Path, out: str, processes: int, after: float) -> None:
    """Begins, and kills all its processes after some seconds."""
    going = subprocess.Popen(
        _started(base, place, out, processes),
        cwd=place,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    time.sleep(after)
    for group in (going.pid, *_children(going.pid)):
        try:
            os.kill(group, signal.SIGKILL)
        except ProcessLookupError:
            continue
    going.wait()


def _children(parent: int) -> list[int]:
    """All that descend from a process."""
    born = subprocess.run(["pgrep", "-P", str(parent)], capture_output=True, text=True, check=False).stdout.split()
    return [child for first in map(int, born) for child in (first, *_children(first))]


def _lost(run: Path) -> str | None:
    """A sentence where a run had a checkpoint and none can be read now."""
    names = [name for name in ("last.safetensors", "previous.safetensors") if (run / name).exists()]
    for name in names:
        try:
            load_checkpoint(run / name)
        except VerydeepError:
            continue
        return None
    return f"no checkpoint of {names} can be read" if names else None
