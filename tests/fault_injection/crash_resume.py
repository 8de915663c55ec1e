"""R1: SIGKILL at random moments of training and saving, by one process and by two."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from harness import TRAIN, Going, Outcome, begun, differences, each, killed

from verydeep.checkpoints.checkpoint import load_checkpoint
from verydeep.core.errors import VerydeepError

EPOCHS, MOST_KILLS, OF_TWO = 4, 3, 10  # every tenth trial is by two processes


def kills(place: Path, trials: int, advance: Callable[[], object]) -> Outcome:
    """Each trial kills a training up to three times, and lets it go on each time, at last to its end."""
    spans = {processes: _whole(place, processes) for processes in {_processes(number) for number in range(trials)}}

    def one(number: int) -> list[str]:
        rng, processes = np.random.default_rng([1, number]), _processes(number)
        run = place / f"trial-{number}"
        for _ in range(int(rng.integers(1, MOST_KILLS + 1))):
            killed(_begun(run, processes), float(rng.uniform(0, 1.1 * spans[processes])))
            fault = _lost(run)
            if fault:
                return [fault]
        status = _begun(run, processes).wait()
        if status:
            return [f"ended with {status}: {_told(run).read_text()[-300:]}"]
        faults = differences(place / f"whole-{processes}", run)
        if not faults:
            shutil.rmtree(run)
        return faults

    return each(trials, one, advance)


def _processes(number: int) -> int:
    return 2 if number % OF_TWO == OF_TWO - 1 else 1


def _whole(place: Path, processes: int) -> float:
    """An unbroken run by so many processes, ``whole-1`` or ``whole-2``; the seconds of a second one."""
    seconds = 0.0
    for name in ("warm", "whole"):
        began = time.monotonic()
        status = _begun(place / f"{name}-{processes}", processes).wait()
        assert status == 0, _told(place / f"{name}-{processes}").read_text()
        seconds = time.monotonic() - began
    return seconds


def _told(run: Path) -> Path:
    return run.with_name(f"{run.name}.stderr")


def _begun(run: Path, processes: int) -> Going:
    """The command that begins a run, or goes on where there is one."""
    resume = ["--resume"] if (run / "last.safetensors").exists() else []
    typed: list[object] = [*TRAIN, "--max-epochs", EPOCHS, "--quiet", "--out", run.name, *resume]
    return begun(processes, *typed, cwd=run.parent, told=_told(run))


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
