"""How many cores a process may use: quotas of control groups read from files, OpenMP's variable, torchrun's own."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import run_command
from verydeep.core.processors import cores, openmp_threads, quota

V2, V1 = "0::/a/b\n", "7:memory:/m\n3:cpu,cpuacct:/a/b\n1:name=systemd:/a\n"
# Files below the mount, what lists the process's groups, and the cores that are left.
QUOTAS: dict[str, tuple[dict[str, str], str, float]] = {
    "v2, its own group": ({"a/b/cpu.max": "150000 100000\n"}, V2, 1.5),
    "v2, a parent is tighter": ({"a/b/cpu.max": "400000 100000\n", "a/cpu.max": "50000 100000\n"}, V2, 0.5),
    "v2, the parent alone": ({"a/b/cpu.max": "max 100000\n", "a/cpu.max": "200000 50000\n"}, V2, 4),
    "v2, a container's top": ({"cpu.max": "200000 100000\n"}, "0::/\n", 2),
    "v2, a path from outside": ({"cpu.max": "300000 100000\n"}, "0::/../../pod/x\n", 3),
    "v2, beside version 1": ({"unified/a/b/cpu.max": "100000 100000\n"}, V2, 1),
    "v2, no bound": ({"a/b/cpu.max": "max 100000\n", "cpu.max": "max\n"}, V2, math.inf),
    "v2, the usual period": ({"a/b/cpu.max": "250000\n"}, V2, 2.5),
    "v1, its own group": (
        {"cpu,cpuacct/a/b/cpu.cfs_quota_us": "50000\n", "cpu,cpuacct/a/b/cpu.cfs_period_us": "100000\n"},
        V1,
        0.5,
    ),
    "v1, a parent": ({"cpu/a/cpu.cfs_quota_us": "300000\n", "cpu/a/cpu.cfs_period_us": "100000\n"}, V1, 3),
    "v1, a container's top": ({"cpu/cpu.cfs_quota_us": "20000", "cpu/cpu.cfs_period_us": "10000"}, V1, 2),
    "v1, no bound": ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, V1, math.inf),
    "v1, no period": ({"cpu/cpu.cfs_quota_us": "200000\n"}, V1, 2),
    "v1, a period alone": ({"cpu/cpu.cfs_period_us": "100000\n"}, V1, math.inf),
    "another controller's group": ({"memory/m/cpu.max": "100000 100000"}, V1, math.inf),
    "nothing there": ({}, V2, math.inf),
    "empty": ({"a/b/cpu.max": ""}, V2, math.inf),
    "words": ({"a/b/cpu.max": "much 100000"}, V2, math.inf),
    "no period": ({"a/b/cpu.max": "100000 0"}, V2, math.inf),
    "below nothing": ({"a/b/cpu.max": "-5 100000"}, V2, math.inf),
    "no lines of groups": ({"a/b/cpu.max": "100000 100000", "cpu.max": "200000 100000"}, "odd\n\n::\n", 2),
}


@pytest.mark.parametrize("name", QUOTAS)
def test_a_quota_is_read_from_files(tmp_path: Path, name: str) -> None:
    files, own, expected = QUOTAS[name]
    for place, content in files.items():
        (tmp_path / "top" / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "top" / place).write_text(content)
    (tmp_path / "own").write_text(own)
    assert quota(tmp_path / "top", tmp_path / "own") == expected


def test_missing_or_unreadable_cgroup_files(tmp_path: Path) -> None:
    assert quota(tmp_path / "nowhere", tmp_path / "none") == math.inf
    (tmp_path / "cpu.max").write_bytes(b"\xff\xfe 100000")
    assert quota(tmp_path, tmp_path / "none") == math.inf
    (tmp_path / "cpu.max").write_text("100000 100000")
    assert quota(tmp_path, tmp_path / "none") == 1


# The quota, the affinity's cores, processes of the job, and what each may use: whole cores, at least one.
@pytest.mark.parametrize(
    ("left", "there", "processes", "expected"),
    [(math.inf, 8, 1, 8), (2.5, 8, 1, 2), (0.3, 8, 1, 1), (16, 4, 1, 4), (6, 8, 2, 3), (1.5, 8, 4, 1)],
)
def test_cores(monkeypatch: pytest.MonkeyPatch, left: float, there: int, processes: int, expected: int) -> None:
    monkeypatch.setattr("verydeep.core.processors.quota", lambda: left)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(there)), raising=False)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    assert cores() == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        *(("4", 4), (" 3 ", 3), ("4,2", 4), ("", math.inf), ("0", math.inf), ("-2", math.inf), ("many", math.inf)),
        *(("1.5", math.inf), (",2", math.inf), ("٣", math.inf), ("9" * 30, 999_999_999)),
    ],
)
def test_omp_num_threads(monkeypatch: pytest.MonkeyPatch, value: str, expected: float) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    assert openmp_threads() == expected


INNER = "from verydeep.core.processors import openmp_threads; print(openmp_threads())"
OUTER = f"""
import os, subprocess, sys
env = {{**os.environ, **dict(word.split("=") for word in sys.argv[1:])}}
subprocess.run([sys.executable, "-c", {INNER!r}], env=env, check=True)
"""
ELASTIC = ["TORCHELASTIC_RUN_ID=x", "LOCAL_WORLD_SIZE=2"]


@pytest.mark.skipif(
    not Path("/proc/self/environ").exists(), reason="no /proc: torchrun's 1 is told by its own variables"
)
@pytest.mark.parametrize(
    ("before", "given", "expected"),
    [
        ({}, [*ELASTIC, "OMP_NUM_THREADS=1"], "inf"),  # torchrun's own
        ({"OMP_NUM_THREADS": "1"}, ELASTIC, "1"),  # the user's, which torchrun leaves
        ({}, [*ELASTIC, "OMP_NUM_THREADS=2"], "2"),  # torchrun gives 1 and nothing else
        ({}, ["TORCHELASTIC_RUN_ID=x", "LOCAL_WORLD_SIZE=1", "OMP_NUM_THREADS=1"], "1"),  # and only to several
        ({}, ["OMP_NUM_THREADS=1"], "1"),
    ],
)
def test_the_value_that_torchrun_sets_is_ignored(before: dict[str, str], given: list[str], expected: str) -> None:
    env = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"} | before
    told = subprocess.run([sys.executable, "-c", OUTER, *given], env=env, capture_output=True, text=True, check=True)
    assert told.stdout.strip() == expected


def test_the_command_respects_omp_num_threads(trained: Path, tmp_path: Path) -> None:
    for value, flags, expected in (("1", (), 1), ("1,4", (), 1), ("1", ("--threads", 3), 3), ("x", (), cores())):
        words = ("evaluate", trained, "centre@36", "--out", tmp_path / "o", "--workers", 0, *flags)
        answer = run_command(*words, OMP_NUM_THREADS=value)
        assert answer.status == 0, answer.stderr
        environment = json.loads((tmp_path / "o" / "result.json").read_text())["environment"]
        assert environment["threads"] == expected
        assert environment["cores"] == cores()  # of which OpenMP's variable is no bound
