"""Work in a fork with limits, so that what strangers' bytes do to it is seen and ends there."""

from __future__ import annotations

import json
import os
import resource
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

MOST_MEMORY, PATIENCE = 8 * 2**30, 60  # bytes and seconds after which a process is killed


def in_child(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What ``work`` returns, done in a fork, with the CPU seconds and megabytes that it took; ``died`` if it did."""
    reading, writing = os.pipe()
    process = os.fork()
    if not process:
        resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
        signal.alarm(PATIENCE)
        before, began = _resident(), time.process_time()
        try:
            told = work()
        except BaseException as fault:
            told = {"raised": f"{type(fault).__name__}: {fault}"[:300]}
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        told |= {"seconds": time.process_time() - began, "megabytes": max(0.0, peak - before)}
        os.write(writing, json.dumps(told).encode())
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:
        answer = pipe.read()
    status = os.waitpid(process, 0)[1]
    return dict(json.loads(answer)) if answer else {"died": f"signal {os.WTERMSIG(status)}"}


def _resident() -> float:
    """Megabytes of memory that this process holds now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20
