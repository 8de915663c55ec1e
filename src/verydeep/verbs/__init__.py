"""The command line's verbs, a small function each, over the Python functions of the same names.

What they share: statuses, how answers are given, and stopping in order. Heavy imports are inside the verbs.
"""

from __future__ import annotations

import argparse
import json
import signal
from typing import Any

from .. import terminal
from ..arguments import given_settings
from ..config import MachineSettings, typed
from ..progress import Reporter, Silent
from ..team import Team
from ..terminal import Terminal

OK, MISTAKE, INTERRUPTED = 0, 2, 130


class Stopper:
    """Turns the first Ctrl-C or SIGTERM into a wish to stop after the current step; the next is at once."""

    def __init__(self, reporter: Reporter) -> None:
        self.signal = 0
        self._reporter = reporter

    def __enter__(self) -> Stopper:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._asked)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def _asked(self, number: int, _frame: object) -> None:
        if self.signal:
            raise KeyboardInterrupt
        self.signal = number
        self._reporter.warn("stopping after this step; once more stops at once, without saving it")

    @property
    def status(self) -> int:
        """The exit status of a process that a signal ended; SIGTERM's where another process of the job had it."""
        return 128 + (self.signal or signal.SIGTERM)

    def __call__(self) -> bool:
        return bool(self.signal)


def reporter_of(team: Team, quiet: bool) -> Reporter:
    """The terminal for the process that leads, silence for the others."""
    return Terminal(quiet) if team.leads else Silent()


def answer_json(value: Any) -> None:
    """One JSON document to stdout."""
    terminal.show_raw(json.dumps(value, indent=2, allow_nan=False) + "\n")


def machine_wish(options: argparse.Namespace) -> MachineSettings:
    """What the options wish of the machine."""
    return MachineSettings(**typed(MachineSettings, given_settings(options)))


def error_cells(row: dict[str, Any], name: str) -> tuple[str, str]:
    """An error and its interval as table cells, empty where there is none."""
    if row[name] is None:
        return "", ""
    low, high = row[f"{name}_interval"]
    return f"{row[name]:.2f} %", f"{low:.2f} to {high:.2f} %"
