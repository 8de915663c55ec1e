"""The command line's verbs, a small function each, over the Python functions of the same names.

What they share: statuses, how answers are given, and stopping in order. Heavy imports are inside the verbs.
"""

from __future__ import annotations

import argparse
import json
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NoReturn

from ...core.config import typed
from ...core.errors import ToldElsewhere, VerydeepError
from ...core.interrupt import Interrupted
from ...core.progress import Reporter, Silent
from ...core.settings import MachineSettings
from ...core.team import Team
from .. import output
from ..arguments import given_settings
from ..output import Terminal

OK, SOME_FAILED, MISTAKE = 0, 1, 2
BEFORE_THE_FIRST_STEP = "interrupted before the first step: there is nothing to save; begin it again."


class Signalled(KeyboardInterrupt):
    """A signal asked this process to end, here and now."""

    def __init__(self, number: int, _frame: object = None) -> None:
        super().__init__(number)
        self.number = number


def leave(number: int, frame: object) -> NoReturn:
    """A signal's handler: what is half done is put away on the way out."""
    raise Signalled(number, frame)


class Stopper:
    """Turns the first Ctrl-C, SIGTERM or SIGUSR1 into a wish to stop after the current step; the next is at once."""

    def __init__(self, reporter: Reporter) -> None:
        self.signal = 0
        self._reporter = reporter
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Stopper:
        for name in ("SIGINT", "SIGTERM", "SIGUSR1"):
            if number := getattr(signal, name, None):  # Windows has no SIGUSR1
                self._before[number] = signal.signal(number, self._asked)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler or signal.SIG_DFL)

    def _asked(self, number: int, _frame: object) -> None:
        if self.signal:
            raise Signalled(number)
        self.signal = number
        self._reporter.warn("stopping after this step; once more stops at once, without saving it")

    @property
    def status(self) -> int:
        """The exit status of a process that a signal ended; SIGTERM's where another process of the job had it."""
        return 128 + (self.signal or signal.SIGTERM)

    def __call__(self) -> bool:
        return bool(self.signal)


def run_training(
    options: argparse.Namespace, work: Callable[[Reporter, Stopper, Team], dict[str, Any]]
) -> tuple[int, dict[str, Any] | None]:
    """A training, by one process or several: its status, and its result where there is more to tell of it."""
    with team_of(options) as team, Stopper(reporter := reporter_of(team, options.quiet)) as stopper:
        try:
            result = work(reporter, stopper, team)
        except Interrupted:
            if team.is_main:
                output.fail(BEFORE_THE_FIRST_STEP)
            return stopper.status, None
    if options.json and team.is_main:
        answer_json(result)
    if result["ended"] == "interrupted":
        if team.is_main:
            output.fail(f"interrupted at step {result['steps']}, saved; go on with the same command and --resume.")
        return stopper.status, None
    return OK, result if team.is_main and not options.json else None


def team_of(options: argparse.Namespace) -> AbstractContextManager[Team]:
    """The processes of this job, which wait for each other as long as the options say."""
    from ...core.distributed import joined, speaks

    given = {name: text for name, text in given_settings(options).items() if name == "peer_timeout"}
    try:
        wish = MachineSettings(**typed(MachineSettings, given))
    except VerydeepError as mistake:  # which all processes find before they have met
        if speaks():
            raise
        raise ToldElsewhere(str(mistake)) from None
    return joined(wish.peer_timeout, output.fail)


def reporter_of(team: Team, quiet: bool) -> Reporter:
    """The terminal for the process that leads, silence for the others."""
    return Terminal(quiet) if team.is_main else Silent()


def answer_json(value: Any) -> None:
    """One JSON document to stdout, in ASCII and without control characters."""
    text = json.dumps(value, indent=2, allow_nan=False).replace("\x7f", "\\u007f")  # which JSON lets pass
    output.show_raw(text + "\n")


def machine_wish(options: argparse.Namespace) -> MachineSettings:
    """What the options wish of the machine."""
    return MachineSettings(**typed(MachineSettings, given_settings(options)))


def status_of(faults: Sequence[str], answered: bool) -> int:
    """How a command over many inputs ends, after its answers: lists the faults to stderr, a sentence each.

    Returns:
        0 without faults; 1 where the other inputs were ``answered``; 2 where none was.
    """
    for sentence in faults:
        output.fail(sentence)
    return (SOME_FAILED if answered else MISTAKE) if faults else OK


@contextmanager
def told_at_the_end(faults: list[str]) -> Iterator[None]:
    """A context for what stands beside an answer, such as its pictures: a fault there does not lose the answer."""
    try:
        yield
    except VerydeepError as fault:
        faults.append(str(fault))


def error_cells(row: dict[str, Any], name: str) -> tuple[str, str]:
    """An error and its interval as table cells, empty where there is none."""
    if row[name] is None:
        return "", ""
    low, high = row[f"{name}_interval"]
    return f"{row[name]:.2f} %", f"{low:.2f} to {high:.2f} %"
