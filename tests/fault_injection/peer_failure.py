"""R12: one process of a job, the first or another, dies or hangs while it trains; torchrun begins again or not."""

from __future__ import annotations

import itertools
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from harness import TRAIN, Outcome, differences, environment, words

TIMEOUT, SLACK = 4, 12  # seconds of silence, and what noticing and ending may take beside them
EPOCHS = 12
WAYS = tuple(itertools.product((signal.SIGKILL, signal.SIGSTOP), (1, 0), (0, 1)))  # what, to which rank, restarts


def peers(place: Path, trials: int, advance: Callable[[], object]) -> Outcome:
    """Each trial does one thing to one of two processes in the middle of an epoch."""
    base: list[object] = [*TRAIN, "--max-epochs", EPOCHS, "--peer-timeout", TIMEOUT]
    whole = subprocess.run(
        _started(base, "whole", 0), cwd=place, env=environment(), capture_output=True, text=True, check=False
    )
    assert whole.returncode == 0, whole.stderr
    faults, slowest = [], 0.0
    for number, (what, rank, restarts) in enumerate(WAYS[:trials]):
        found, seconds = _tried(base, place, f"trial-{number}", what, rank, restarts)
        faults += [f"trial {number} ({what.name} to rank {rank}): {fault}" for fault in found]
        slowest = max(slowest, seconds)
        advance()
    return Outcome(trials, faults, {"noticed after at most s": slowest})


def _started(base: list[object], out: str, restarts: int) -> list[str]:
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    again = ["--max-restarts", str(restarts), "--monitor-interval", "0.1"]
    return [*start, *again, "-m", "--", *words(*base, "--out", out)[2:]]


def _tried(
    base: list[object], place: Path, out: str, what: signal.Signals, rank: int, restarts: int
) -> tuple[list[str], float]:
    """What went wrong, and after how many seconds the other process had ended."""
    told = (place / f"{out}.txt").open("w+")
    job = subprocess.Popen(_started(base, out, restarts), cwd=place, env=environment(), stdout=told, stderr=told)
    log = place / out / "log.jsonl"
    until(lambda: log.exists() and log.read_text().count("\n") >= 2, 120)
    ours = _ranks(job.pid)
    os.kill(ours[rank], what)
    began = time.monotonic()
    noticed = until(lambda: not Path(f"/proc/{ours[1 - rank]}").exists(), TIMEOUT + SLACK)
    seconds = time.monotonic() - began
    faults = [] if noticed else ["the other process did not end"]
    try:
        job.wait(240)
    except subprocess.TimeoutExpired:
        job.kill()
        faults.append("torchrun did not end")
    told.seek(0)
    faults += _wrong(told.read(), what, rank, restarts, job.returncode)
    told.close()
    if restarts:
        faults += differences(place / "whole", place / out)
    left = [process for process in ours.values() if Path(f"/proc/{process}").exists()]
    return faults + [f"process {process} was left" for process in left], seconds


def _wrong(said: str, what: signal.Signals, rank: int, restarts: int, status: int | None) -> list[str]:
    """What a job should have said and returned, and did not."""
    if what == signal.SIGSTOP:
        names = f"rank {rank} of 2 \\(process \\d+ on \\S+\\) has been unresponsive for {TIMEOUT} s"
        faults = [] if len(re.findall(names, said)) == 1 else [f"the silence was not told once: {said[-1500:]}"]
    else:
        cause = f"failed (exitcode: -9) local_rank: {rank} "
        faults = [] if cause in said else [f"the death was not told: {said[-1500:]}"]
    if (status == 0) != bool(restarts):
        faults.append(f"status {status}")
    return faults


def _ranks(launcher: int) -> dict[int, int]:
    """Process ids of a job's processes, by rank."""
    found = {}
    born = subprocess.run(["pgrep", "-P", str(launcher)], capture_output=True, text=True, check=True)
    for child in born.stdout.split():
        variables = Path(f"/proc/{child}/environ").read_bytes().decode().split("\0")
        (rank,) = (line.removeprefix("RANK=") for line in variables if line.startswith("RANK="))
        found[int(rank)] = int(child)
    return found


def until(holds: Callable[[], bool], seconds: float) -> bool:
    """Waits for something; whether it came."""
    until = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True
