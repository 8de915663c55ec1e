"""The number of CPU cores that this process may use: its affinity, cgroup quotas, OMP_NUM_THREADS."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

GROUPS, OWN_GROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
USUAL_PERIOD = 100_000  # microseconds
OPENMP = "OMP_NUM_THREADS"


def cores() -> int:
    """CPU cores that this process may use: its share, if torchrun started several on this machine.

    A quota of 2.5 cores gives 2: a third busy thread would be throttled half of the time.
    """
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min(available, quota())) // processes_here())


def processes_here() -> int:
    """Processes of this job on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def quota(root: Path = GROUPS, own: Path = OWN_GROUPS) -> float:
    """The cgroup quota of this process in cores, infinite without one.

    The quotas of parent groups apply too. Version 2 keeps quota and period in ``cpu.max``, version 1 in a file each.

    Args:
        root: where cgroups are mounted.
        own: lists the groups of this process, as ``/proc/self/cgroup`` does.
    """
    smallest = math.inf
    for folder in _groups(root, own):
        smallest = min(smallest, _in_cores(_words(folder / "cpu.max")))
        if version_1 := _words(folder / "cpu.cfs_quota_us"):
            smallest = min(smallest, _in_cores([*version_1, *_words(folder / "cpu.cfs_period_us")]))
    return smallest


def openmp_threads() -> float:
    """The number of threads that ``OMP_NUM_THREADS`` allows, infinite if it is not set.

    Of a list (``4,2``, for nested loops) the first number counts. The 1 that torchrun sets by default is ignored.
    """
    first = os.environ.get(OPENMP, "").partition(",")[0].strip()
    if not (first.isascii() and first.isdecimal() and int(first[:9])) or _set_by_torchrun(first):
        return math.inf
    return int(first[:9])


def _set_by_torchrun(value: str) -> bool:
    """Whether torchrun set the variable: it sets 1 for several processes, unless the user had set it."""
    if value != "1" or processes_here() < 2 or "TORCHELASTIC_RUN_ID" not in os.environ:
        return False
    try:  # torchrun's own environment; another user's process is not readable
        variables = Path(f"/proc/{os.getppid()}/environ").read_bytes().split(b"\0")
    except OSError:
        return True
    return not any(variable.startswith(f"{OPENMP}=".encode()) for variable in variables)


def _groups(root: Path, own: Path) -> Iterator[Path]:
    """The folders of this process's groups and their parents, which may not exist.

    In a container the listed paths may be those outside of it; its own group is then the top of the mount.
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


def _in_cores(words: list[str]) -> float:
    """Quota and period as a number of cores; infinite for ``max``, -1 and invalid words."""
    try:
        limit, period = int(words[0]), int(words[1]) if len(words) > 1 else USUAL_PERIOD
    except (IndexError, ValueError):
        return math.inf
    return limit / period if limit > 0 and period > 0 else math.inf
