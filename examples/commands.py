"""What the examples share: the real command as a user types it, and its figures as cells of a table."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

TOP = Path(__file__).resolve().parents[1]


def run_json(command: str, status: int = 0) -> Any:
    """The JSON that a command prints; ``$NAME`` stands for an environment variable.

    Args:
        status: that the command may end with besides 0.
    """
    words = [os.path.expandvars(word) for word in shlex.split(command)]
    done = subprocess.run(
        [sys.executable, "-m", "verydeep", *words, "--json"], cwd=TOP, stdout=subprocess.PIPE, check=False
    )
    if done.returncode not in (0, status):
        done.check_returncode()
    return json.loads(done.stdout)


def error_cell(row: dict[str, Any], name: str) -> str:
    """An error with its interval."""
    low, high = row[f"{name}_interval"]
    return f"{row[name]:.1f} ({low:.1f}–{high:.1f})"


def verdict(row: dict[str, Any]) -> str:
    """Whether a claim holds by McNemar's test: errors of the first only, errors of the second only, p."""
    better, worse = row["only_first_wrong"], row["only_second_wrong"]
    counts = f"{better} photos corrected, {worse} newly wrong, p = {row['p']:.2g}"
    if row["p"] < 0.05:
        return f"{'holds' if better > worse else 'reversed'} ({counts})"
    direction = "better" if better > worse else "worse" if worse > better else "equal"
    return f"not significant, {direction} here ({counts})"
