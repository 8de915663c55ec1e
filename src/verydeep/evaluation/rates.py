"""Times of nets on this machine, measured for estimates and kept in the cache directory (`rates`).

A kept time is used for `KEPT_DAYS` days, by the same version and commit of this package and the same PyTorch, on the
same processor and device, with the same precision, memory layout and threads; otherwise the work is measured again. A
time that was measured beside other work is not kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from ..checkpoints.run_dir import commit, processor_name
from ..core.device import Machine
from ..core.errors import VerydeepError
from ..core.files import cache_folder, read_json, write_json
from ..core.progress import Reporter

KEPT_DAYS = 30
QUIET = 0.5  # load per core up to which a measured time is kept
RATES = "rates"


@dataclass(frozen=True)
class Timing:
    """Seconds of each part of some work, the date on which they were measured, and whether that was an earlier one."""

    work: str
    seconds: tuple[float, ...]
    date: str
    kept: bool

    def to_json(self) -> dict[str, Any]:
        """``{work, measured, kept}``, the date as ``measured``."""
        return {"work": self.work, "measured": self.date, "kept": self.kept}


def timing(
    work: str, details: dict[str, Any], machine: Machine, measure: Callable[[], tuple[float, ...]], reporter: Reporter
) -> Timing:
    """Kept seconds of some work, or measured ones.

    Args:
        work: what is timed, in words.
        details: everything besides the machine that its time depends on, as JSON values.
    """
    key = {"work": work, **details, "machine": _here(machine)}
    name = f"{hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]}.json"
    kept = _kept(work, name)
    if kept is not None:
        reporter.say(f"{work}: times as measured on this machine on {kept.date}; they are kept for {KEPT_DAYS} days")
        return kept
    reporter.say(f"measuring {work} for the estimate")
    warn_if_busy(reporter)
    quiet = load_per_core() <= QUIET
    seconds = measure()
    if quiet:
        with contextlib.suppress(VerydeepError, RuntimeError):  # a cache that cannot be written: measured each time
            write_json(cache_folder() / RATES / name, {**key, "seconds": list(seconds), "time": time.time()})
    return Timing(work, seconds, _date(time.time()), kept=False)


def _here(machine: Machine) -> dict[str, Any]:
    from importlib.metadata import version

    settings = {name: value for name, value in machine.describe().items() if name != "workers"}
    versions = {"verydeep": version("verydeep"), "commit": commit(), "torch": torch.__version__}
    return {"processor": processor_name(), **settings, **versions}


def _kept(work: str, name: str) -> Timing | None:
    """The kept seconds of a file; None where it is missing, broken, or too old."""
    with contextlib.suppress(VerydeepError, RuntimeError, KeyError, TypeError, ValueError):
        stored = read_json(cache_folder() / RATES / name)
        seconds, since = tuple(map(float, stored["seconds"])), float(stored["time"])
        if 0 <= time.time() - since <= KEPT_DAYS * 86_400 and all(0 <= value < math.inf for value in seconds):
            return Timing(work, seconds, _date(since), kept=True)
    return None


def _date(seconds: float) -> str:
    return time.strftime("%Y-%m-%d", time.localtime(seconds))


def warn_if_busy(reporter: Reporter) -> None:
    """Warns where other processes use the processors, as the times are of a machine at rest."""
    if (load := load_per_core()) > 1:
        reporter.warn(f"this machine is busy (load {load:.1f} per core): a rough estimate, for an idle machine")


def load_per_core() -> float:
    """Running processes and threads per core of this machine, over a minute; 0 where unknown."""
    return os.getloadavg()[0] / (os.cpu_count() or 1) if hasattr(os, "getloadavg") else 0.0
