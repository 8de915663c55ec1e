"""Rows whose faults are cases of the tests, which run the real commands: as many trials as cases."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from harness import Outcome, environment

TESTS = Path(__file__).resolve().parents[1]


def tested(*chosen: str) -> Callable[[Path, int, Callable[[], object]], Outcome]:
    """Work of a row: the tests of some files, or some tests of a file (``file::test``)."""

    def work(place: Path, _trials: int, advance: Callable[[], object]) -> Outcome:
        ended = subprocess.run(
            [sys.executable, "-m", "pytest", "--tb=line", "--basetemp", str(place / "tests"), *map(_place, chosen)],
            cwd=TESTS,
            capture_output=True,
            text=True,
            check=False,
            env=environment(),
        )
        counts = {
            word: int(number) for number, word in re.findall(r"(\d+) (passed|failed|error|skipped)", ended.stdout)
        }
        faults = re.findall(r"^(?:FAILED|ERROR) .*$", ended.stdout, re.MULTILINE)
        if ended.returncode and not faults:
            faults = [ended.stdout[-300:] + ended.stderr[-300:]]
        if counts.get("skipped"):
            faults.append(f"{counts['skipped']} skipped: what they need is not on this machine")
        advance()
        return Outcome(counts.get("passed", 0) + len(faults), faults)

    return work


def _place(test: str) -> str:
    """Where a test file is, with what was chosen of it."""
    name, _, chosen = test.partition("::")
    (found,) = TESTS.rglob(name)
    return f"{found}::{chosen}" if chosen else str(found)
