"""R14: a job of two machines whose network delays, loses, stops; a third machine joins late.

Each machine is a network namespace (`network`), and all see the same folder, as machines of one job do.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from harness import TRAIN, Outcome, differences, environment, words
from network import Network, network
from peer_failure import EPOCHS, until

TIMEOUT, SLACK = 6, 14  # seconds of silence, and what noticing and ending may take beside them
PATIENCE = 240.0
BASE: list[object] = [*TRAIN, "--max-epochs", EPOCHS, "--peer-timeout", TIMEOUT]
Going = list[subprocess.Popen[bytes]]


def machines(place: Path, trials: int, advance: Callable[[], object]) -> Outcome:
    """The trials in turn; the unbroken run is of two processes on one machine."""
    ways = (_cut, _slow_and_lossy, _stalled, _joined_late)[:trials]
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "--"]
    typed = [*start, *words(*BASE, "--out", "whole")[2:]]
    subprocess.run(typed, cwd=place, env=environment(), capture_output=True, check=True)
    found = Outcome(trials)
    for way in ways:
        with network(3) as net:
            found.faults += [f"{way.__name__.strip('_')}: {fault}" for fault in way(place, net, found.figures)]
        advance()
    return found


def _slow_and_lossy(place: Path, net: Network, figures: dict[str, float]) -> list[str]:
    """40 ms there and back, and 1 % of the packets lost: TCP repeats them."""
    net.delay, net.loss = 0.02, 0.01
    began = time.monotonic()
    job = [_torchrun(place, "lossy", machine) for machine in (0, 1)]
    faults = _ended(place, "lossy", job, [0, 0])
    figures |= {"s with 40 ms and 1 % loss": time.monotonic() - began, "packets lost": float(net.lost)}
    return faults or differences(place / "whole", place / "lossy")


def _stalled(place: Path, net: Network, _figures: dict[str, float]) -> list[str]:
    """No packet for half of the timeout: nothing happens but that it takes longer."""
    job = [_torchrun(place, "stalled", machine) for machine in (0, 1)]
    faults = _training(place, "stalled")
    net.cut = True
    time.sleep(TIMEOUT / 2)
    net.cut = False
    return faults + _ended(place, "stalled", job, [0, 0]) or differences(place / "whole", place / "stalled")


def _cut(place: Path, net: Network, figures: dict[str, float]) -> list[str]:
    """No packet any more: the processes of both machines end with a sentence, torchrun by its own timeouts.

    The same command on both goes on once the link is back.
    """
    job = [_torchrun(place, "cut", machine, restarts=0) for machine in (0, 1)]
    faults = _training(place, "cut")
    net.cut, began = True, time.monotonic()
    workers = [_worker(process.pid) for process in job]
    gone = until(lambda: not any(map(_runs, workers)), TIMEOUT + SLACK)
    figures["workers had ended after s"] = time.monotonic() - began
    faults += [] if gone else ["a worker went on without the other"]
    net.cut = False
    for process in job:
        _interrupt(process)
    faults += _ended(place, "cut", job, None)
    for machine in (0, 1):
        said = (place / f"cut-{machine}.txt").read_text()
        if not re.search(r"has been unresponsive for|has not responded for|another process of this job", said):
            faults.append(f"machine {machine} did not say why it ended: {said[-1500:]}")
    job = [_torchrun(place, "cut", machine, "--resume") for machine in (0, 1)]
    return faults + _ended(place, "cut", job, [0, 0]) or differences(place / "whole", place / "cut")


def _joined_late(place: Path, _net: Network, _figures: dict[str, float]) -> list[str]:
    """A third machine joins a job of two: it waits, and ends with them, and they do not notice.

    With ``--nnodes 2:3`` torchrun would begin again with three, but that of torch 2.13 fails: later machines never
    learn the first one's address.
    """
    job = [_torchrun(place, "late", machine) for machine in (0, 1)]
    faults = _training(place, "late")
    third = _torchrun(place, "late", 2)
    faults += _ended(place, "late", job, [0, 0]) + _ended(place, "late", [third], None)
    return faults or differences(place / "whole", place / "late")


def _torchrun(place: Path, out: str, machine: int, *more: object, restarts: int = 3) -> subprocess.Popen[bytes]:
    """Begins one machine's part of a job; what it says is in ``OUT-MACHINE.txt``."""
    start: list[object] = ["-m", "torch.distributed.run", "--nnodes", 2, "--nproc-per-node", 1, "--rdzv-id", out]
    start += ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"{Network.address(0)}:29400"]
    start += ["--rdzv-conf", f"is_host={int(machine == 0)}"]  # torchrun compares the host's name, not its addresses
    start += ["--local-addr", Network.address(machine), "--max-restarts", restarts, "--monitor-interval", 0.1]
    typed = Network.inside(machine, sys.executable, *start, "-m", "--", *words(*BASE, *more, "--out", out)[2:])
    with (place / f"{out}-{machine}.txt").open("ab") as file:
        return subprocess.Popen(
            typed,
            cwd=place,
            env=environment(),
            stdout=file,
            stderr=file,
            start_new_session=True,
        )


def _training(place: Path, out: str) -> list[str]:
    log = place / out / "log.jsonl"
    began = until(lambda: log.exists() and log.read_text().count("\n") >= 2, PATIENCE / 2)
    said = "" if began else "".join(path.read_text()[-1000:] for path in sorted(place.glob(f"{out}-*.txt")))
    return [] if began else [f"the job did not begin: {said}"]


def _worker(launcher: int) -> int:
    """The process that torchrun started; `ip netns exec` becomes torchrun."""
    born = subprocess.run(["pgrep", "-P", str(launcher)], capture_output=True, text=True, check=True)
    return int(born.stdout.split()[0])


def _runs(process: int) -> bool:
    """Whether it has not ended; torchrun may collect it much later."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _interrupt(job: subprocess.Popen[bytes]) -> None:
    """As Ctrl-C does."""
    with suppress(ProcessLookupError):
        os.killpg(job.pid, signal.SIGINT)


def _ended(place: Path, out: str, job: Going, statuses: list[int] | None) -> list[str]:
    """Waits for a job; what did not end, or not with these statuses (None: with any)."""
    faults = []
    for machine, process in enumerate(job):
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            faults.append(f"torchrun of machine {machine} did not end")
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if statuses is not None and [process.returncode for process in job] != statuses:
        said = "".join(path.read_text()[-1500:] for path in sorted(place.glob(f"{out}-*.txt")))
        faults.append(f"statuses {[process.returncode for process in job]}: {said}")
    return faults
