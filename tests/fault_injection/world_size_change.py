"""R11: runs that go on with another number of workers, or of processes at the same global batch."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from harness import PATIENCE, Going, Outcome, begun, differences, each

from verydeep.checkpoints.checkpoint import load_checkpoint, read_metadata

WORKERS = ((0, 1), (1, 0), (0, 2), (2, 1), (1, 3), (3, 0))
RANKS = ((1, 2), (2, 1), (1, 4), (4, 1), (2, 3), (3, 2))
NEAR = 1e-9
# About 25 steps that take long enough for a signal to come between them; many more steps are chaotic in float64 too.
RUN: list[object] = [
    *("train", "A", "--data", "digits:240", "--crop", 64, "--width", 1 / 16, "--S", "64-72", "--batch", 16),
    *("--lr", 5e-3, "--threads", 1, "--start", "none", "--max-epochs", 2, "--quiet"),
]
Way = tuple[str, tuple[int, int], tuple[int, int], list[object]]  # processes and workers, before and after


def regrouped(place: Path, trials: int, advance: Callable[[], object]) -> Outcome:
    """Each trial ends a run by SIGTERM at a random moment, and other workers or processes go on to its end.

    Workers change nothing to the bit; processes add up in another order, so there all is in float64.
    """
    ways = [way for pair in zip(_workers(), _ranks(), strict=True) for way in pair]
    spans = {}
    for kind, how in (("workers", []), ("ranks", _ranks()[0][3])):
        fault = _run(place, f"whole-{kind}", 1, 0, how)
        assert not fault, fault
        spans[kind] = sum(row["seconds"] for row in _log(place / f"whole-{kind}"))
    middle = []

    def one(number: int) -> list[str]:
        kind, before, after, how = ways[number % len(ways)]
        run, rng = place / f"trial-{number}", np.random.default_rng([11, number])
        told = f"{kind}, {before} to {after}"
        _left(place, run.name, *before, how, spans[kind] * float(rng.uniform(0.1, 0.9)))
        if not (run / "last.safetensors").is_file():
            return [f"{told}: nothing was saved"]
        state = read_metadata(run / "last.safetensors").state
        middle.append(state["batch"] > 0)
        fault = _run(place, run.name, *after, [*how, "--resume"])
        if fault:
            return [f"{told}: {fault}"]
        whole = place / f"whole-{kind}"
        found = differences(whole, run) if kind == "workers" else _far(whole, run)
        return [f"{told}, at step {state['step']}: {fault}" for fault in found]

    found = each(trials, one, advance)
    found.figures["left in the middle of an epoch"] = float(sum(middle))
    return found


def _workers() -> list[Way]:
    return [("workers", (1, before), (1, after), []) for before, after in WORKERS]


def _ranks() -> list[Way]:
    return [("ranks", (before, 0), (after, 0), ["--precision", "float64"]) for before, after in RANKS]


def _begun(place: Path, out: str, processes: int, workers: int, more: list[object]) -> Going:
    typed = [*RUN, "--out", out, "--workers", workers, *more]
    return begun(processes, *typed, cwd=place, told=place / f"{out}.told")


def _run(place: Path, out: str, processes: int, workers: int, more: list[object]) -> str | None:
    """Trains to the end; a sentence where it failed."""
    going = _begun(place, out, processes, workers, more)
    try:
        status = going.wait(2 * PATIENCE)
    finally:
        going.kill()
    return f"ended with {status}: {(place / f'{out}.told').read_text()[-300:]}" if status else None


def _left(place: Path, out: str, processes: int, workers: int, more: list[object], after: float) -> None:
    """Begins a run, and asks it to end some seconds after it has begun to train."""
    going = _begun(place, out, processes, workers, more)
    until = time.monotonic() + PATIENCE
    while not (place / out / "last.safetensors").exists() and going.poll() is None and time.monotonic() < until:
        time.sleep(0.02)
    time.sleep(after)
    going.send_signal(signal.SIGTERM)
    try:
        going.wait(PATIENCE)
    finally:
        going.kill()


def _log(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def _far(one: Path, other: Path) -> list[str]:
    """What is not equal within `NEAR`: losses and errors by epoch, weights, momentum."""
    found = []
    rows = (_log(one), _log(other))
    if [row["epoch"] for row in rows[0]] != [row["epoch"] for row in rows[1]]:
        return ["the log has other epochs"]
    for mine, theirs in zip(*rows, strict=True):
        for name in ("loss", "train_top1_error", "dev_top1_error", "dev_loss"):
            if not abs(mine[name] - theirs[name]) <= NEAR * abs(mine[name]):
                found.append(f"{name} of epoch {mine['epoch']} is {theirs[name]!r}, not {mine[name]!r}")
    first, second = (load_checkpoint(run / "last.safetensors") for run in (one, other))
    for these, those in ((first.weights, second.weights), (first.momentum, second.momentum)):
        for name, value in these.items():
            apart = float((value - those[name]).norm() / value.norm())
            if not apart <= NEAR:
                found.append(f"{name} is {apart:.1e} apart")
    return found
