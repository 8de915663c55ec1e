"""Shared by the commands: exit statuses, processes of a torchrun job, interruption, errors of some inputs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from ..core.errors import ToldElsewhere, VerydeepError
from ..core.files import write_json
from ..core.progress import Interrupted, Reporter, Silent, Stopping
from ..core.settings import MachineSettings
from ..core.team import Team
from ..core.terminal import Terminal
from . import output
from .parser import Options, settings_from
from .signals import InterruptHandler

OK, SOME_FAILED, MISTAKE = 0, 1, 2
NOTHING_SAVED = "interrupted before the first step: nothing was saved; run the command again."


def run_training(
    options: Options, train: Callable[[Reporter, Callable[[], bool], Team], dict[str, Any]]
) -> tuple[int, dict[str, Any] | None]:
    """Trains in one process or several; returns the exit status, and the result if it is still to be printed."""
    hours = options.max_hours
    with team_of(options) as team, InterruptHandler(reporter := reporter_of(team, options.quiet)) as stop:
        end = math.inf if hours is None else time.monotonic() + 3600 * hours  # the same for processes that have joined
        try:
            result = train(reporter, lambda: stop() or time.monotonic() > end, team)
        except Interrupted:
            late = not stop() and time.monotonic() > end
            if team.is_main:
                output.fail(
                    f"{hours:g} h were over before the first step: nothing was saved." if late else NOTHING_SAVED
                )
            return MISTAKE if late else stop.status, None
    if options.json and team.is_main:
        output.show_json(result)
    if result["ended"] == "interrupted":
        late = not stop() and time.monotonic() > end
        why = f"stopped after {hours:g} h" if late else "interrupted"
        if team.is_main:
            output.fail(f"{why} at step {result['steps']}, saved; resume with the same command and --resume.")
        return OK if late else stop.status, None
    return OK, result if team.is_main and not options.json else None


def run_extraction(options: Options, extract: Callable[[Reporter], int], team: Team | None = None) -> int:
    """Runs an extraction, which keeps its descriptors when a signal stops it; returns the exit status."""
    reporter = reporter_of(team or Team(), options.quiet)
    with InterruptHandler(reporter) as stop:
        try:
            return extract(Stopping(reporter, stop))
        except Interrupted:
            output.fail("interrupted; the descriptors computed so far are kept: resume with the same command.")
            return stop.status


def team_of(options: Options) -> AbstractContextManager[Team]:
    """The processes of this job, with the command line's timeout for unresponsive ones."""
    from ..core.distributed import joined, speaks

    try:
        machine = settings_from(options, MachineSettings)
    except VerydeepError as mistake:  # of all processes, before they are connected
        if speaks():
            raise
        raise ToldElsewhere(str(mistake)) from None
    return joined(machine.peer_timeout, output.fail)


def show_result(options: Options, result: Any, show_text: Callable[[Any], object]) -> int:
    """Prints a result, as JSON with ``--json``; returns the exit status of success."""
    (output.show_json if options.json else show_text)(result)
    return OK


def reporter_of(team: Team, quiet: bool) -> Reporter:
    """The terminal for the main process, silence for the others."""
    return Terminal(quiet) if team.is_main else Silent()


def status_of(faults: Sequence[str], some_done: bool) -> int:
    """The exit status of a command over many inputs; prints the errors of inputs to stderr, a sentence each.

    Returns:
        0 without errors; 1 if other inputs succeeded (``some_done``); 2 if none did.
    """
    for sentence in faults:
        output.fail(sentence)
    return (SOME_FAILED if some_done else MISTAKE) if faults else OK


def write_rows(path: Path, rows: list[dict[str, Any]], faults: list[str]) -> None:
    """Writes rows, if any, beside the pictures of a command; adds an error to ``faults``, so that they are printed."""
    try:
        if rows:
            write_json(path, {"photos": rows})
    except VerydeepError as fault:
        faults.append(str(fault))
