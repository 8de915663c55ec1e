"""How many processor cores this process may keep busy: its affinity, its control groups' quota, OpenMP's variable."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

GROUPS, OWN_GROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
USUAL_PERIOD = 100_000  # microseconds
OPENMP = "OMP_NUM_THREADS"


def cores() -> int:
    """Processor cores this process may use: its share, where torchrun started several on this machine.

    Of a quota of 2.5 cores it is 2: a third busy thread would be stopped half of the time.
    """
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min(there, quota())) // processes_here())


def processes_here() -> int:
    """Processes of this job on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def quota(root: Path = GROUPS, own: Path = OWN_GROUPS) -> float:
    """Cores' worth of time that control groups (cgroups) leave this process, infinite where none bounds it.

    A group's parents bound it too. Version 2 keeps quota and period in ``cpu.max``, version 1 in a file each.

    Args:
        root: where control groups are mounted.
        own: lists the groups of this process, as ``/proc/self/cgroup`` does.
    """
    least = math.inf
    for folder in _groups(root, own):
        least = min(least, _share(_words(folder / "cpu.max")))
        if of_version_1 := _words(folder / "cpu.cfs_quota_us"):
            least = min(least, _share([*of_version_1, *_words(folder / "cpu.cfs_period_us")]))
    return least


def openmp_threads() -> float:
    """The threads that ``OMP_NUM_THREADS`` allows, infinite where it says nothing.

    Of a list (``4,2``, for nested loops) the first counts. The 1 that torchrun sets of its own accord does not.
    """
    first = os.environ.get(OPENMP, "").partition(",")[0].strip()
    if not (first.isascii() and first.isdecimal() and int(first[:9])) or _set_by_torchrun(first):
        return math.inf
    return int(first[:9])


def _set_by_torchrun(value: str) -> bool:
    """Whether torchrun has set the variable: it gives each of several processes 1 where it was given nothing."""
    if value != "1" or processes_here() < 2 or "TORCHELASTIC_RUN_ID" not in os.environ:
        return False
    try:  # what it was begun with; that of another user's process cannot be read
        variables = Path(f"/proc/{os.getppid()}/environ").read_bytes().split(b"\0")
    except OSError:
        return True
    return not any(variable.startswith(f"{OPENMP}=".encode()) for variable in variables)


def _groups(root: Path, own: Path) -> Iterator[Path]:
    """The folders of this process's groups and their parents, some of which may not be there.

    In a container the paths may be those outside of it, and then its own group is the mount's top.
    """
    yield from (root, root / "cpu")
    try:
        lines = own.read_text(errors="replace").splitlines()
    except OSError:
        return
    for line in lines:  # NUMBER:CONTROLLERS:PATH, without controllers in version 2
        controllers, _, path = line.partition(":")[2].partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        inside = PurePosixPath(*(part for part in path.split("/") if part not in ("", ".", "..")))
        for mount in (root / controllers, root / "cpu") if controllers else (root, root / "unified"):
            yield from (mount / place for place in (inside, *inside.parents))


def _words(path: Path) -> list[str]:
    try:
        return path.read_text(errors="replace").split()
    except OSError:
        return []


def _share(words: list[str]) -> float:
    """Quota and period as cores; infinite for ``max``, -1, and what is no such pair."""
    try:
        bound, period = int(words[0]), int(words[1]) if len(words) > 1 else USUAL_PERIOD
    except (IndexError, ValueError):
        return math.inf
    return bound / period if bound > 0 and period > 0 else math.inf
