"""Measured times are kept for plans, and measured again where they may have changed."""

from __future__ import annotations

import json
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conftest import run_command
from verydeep import reproduce
from verydeep.core.device import resolve_device
from verydeep.core.progress import Silent
from verydeep.core.settings import MachineSettings
from verydeep.evaluation.rates import KEPT_DAYS, Timing, timing

MACHINE = resolve_device(MachineSettings(device="cpu", threads=1, workers=0), 1.0)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache directory, on a machine at rest."""
    monkeypatch.setenv("VERYDEEP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("os.getloadavg", lambda: (0.0, 0.0, 0.0))
    return tmp_path / "cache" / "rates"


def timed(seconds: float, machine: Any = MACHINE, **details: Any) -> Timing:
    """The kept time of some work, else the given one."""
    return timing("net A", {"crop": 64, **details}, machine, lambda: (seconds, 0.0), Silent())


def test_a_time_is_kept_for_the_same_work_on_the_same_machine(cache: Path) -> None:
    first = timed(0.1)
    assert (first.seconds, first.kept) == ((0.1, 0.0), False)
    again = timed(0.2)
    assert (again.seconds, again.kept, again.date) == ((0.1, 0.0), True, first.date)
    assert timed(0.3, crop=96).seconds[0] == 0.3
    assert timed(0.4, replace(MACHINE, threads=2)).seconds[0] == 0.4
    assert len(list(cache.iterdir())) == 3


@pytest.mark.parametrize("days", [KEPT_DAYS + 1, -2])
def test_a_time_that_is_too_old_or_of_the_future_is_measured_again(cache: Path, days: int) -> None:
    timed(0.1)
    (path,) = cache.iterdir()
    stored = json.loads(path.read_text())
    path.write_text(json.dumps({**stored, "time": time.time() - days * 86_400}))
    assert timed(0.2).seconds[0] == 0.2
    assert timed(0.3).kept


@pytest.mark.parametrize("text", ["", "[", "{}", '{"seconds": ["x"], "time": 0}', '{"seconds": 3, "time": null}'])
def test_a_broken_file_is_measured_again(cache: Path, text: str) -> None:
    timed(0.1)
    (path,) = cache.iterdir()
    path.write_text(text)
    assert timed(0.2).seconds[0] == 0.2
    assert timed(0.3).seconds[0] == 0.2


def test_times_beside_other_work_and_without_a_cache_are_not_kept(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.getloadavg", lambda: (1e4, 0.0, 0.0))
    assert not timed(0.1).kept
    assert not cache.exists()
    monkeypatch.setattr("os.getloadavg", lambda: (0.0, 0.0, 0.0))
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("VERYDEEP_CACHE", str(tmp_path / "file"))
    assert timed(0.2).seconds[0] == timed(0.2).seconds[0] == 0.2


def test_a_plan_says_whose_times_were_kept(cache: Path, tmp_path: Path) -> None:
    words: dict[str, Any] = {"doll": True, "data": "digits:60", "plan_only": True, "out": tmp_path, "threads": 1}
    first, again = (reproduce("table3/A/256", **words)["plan"] for _ in range(2))
    assert [(rate["work"], rate["kept"]) for rate in first["rates"]] == [("net A", False)]
    assert again["rates"] == [{**first["rates"][0], "kept": True}]
    command = ("reproduce", "table3/A/256", "--doll", "--data", "digits:60", "--threads", 1, "--plan")
    told = run_command(*command, cwd=tmp_path, VERYDEEP_CACHE=str(cache.parent))
    assert told.status == 0, told.stderr
    assert "net A: times as measured on this machine on 2" in told.stderr
    assert re.search(r"times by earlier measurements on this machine: net A \(\d{4}-\d\d-\d\d\)", told.stdout)
