"""Progress on stderr: bars in a terminal, lines in notebooks and logs; no line can move or colour a terminal."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .progress import Advance, Reporter, Silent, duration

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

PLAIN_EVERY_SECONDS = 20.0


def clean(text: str) -> str:
    """Text with control characters escaped, which could move or colour a terminal."""
    shown = text.encode("utf8", "backslashreplace").decode("utf8")
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in shown)


class Terminal:
    """A reporter that prints to stderr; with ``quiet`` only warnings."""

    def __init__(self, quiet: bool = False) -> None:
        from rich.console import Console

        self._quiet = quiet
        # Notebooks show the text of stderr; rich's own output there is HTML, and its bars need ipywidgets.
        self._console = Console(stderr=True, highlight=False, soft_wrap=True, force_jupyter=False)

    def say(self, text: str) -> None:
        """Prints a line to stderr."""
        if not self._quiet:
            self._print(clean(text))

    def warn(self, text: str) -> None:
        """Prints a warning to stderr."""
        self._print(f"warning: {clean(text)}", "yellow")

    def _print(self, text: str, style: str = "") -> None:
        from rich.text import Text

        self._console.print(Text(text, style=style))

    @contextmanager
    def track(self, label: str, total: int) -> Iterator[Advance]:
        """A progress bar on a terminal; elsewhere a line now and then."""
        if self._quiet:
            yield lambda count, note: None
        elif self._console.is_terminal and sys.stderr.isatty():  # FORCE_COLOR makes any file a terminal for rich
            with _bar(self._console) as bar:
                task = bar.add_task(clean(label), total=total, note="")
                yield lambda count, note: bar.update(task, advance=count, note=note)
        else:
            yield _PlainLines(self, label, total).advance


class _PlainLines:
    """Progress as lines, one every `PLAIN_EVERY_SECONDS`."""

    def __init__(self, terminal: Terminal, label: str, total: int) -> None:
        self._terminal, self._label, self._total = terminal, label, total
        self._started = self._printed = time.monotonic()
        self._done = 0

    def advance(self, count: int, note: str) -> None:
        self._done += count
        now = time.monotonic()
        if now - self._printed >= PLAIN_EVERY_SECONDS and self._done:
            left = (now - self._started) / self._done * (self._total - self._done)
            self._terminal.say(f"{self._label}: {self._done}/{self._total}  {note}  {duration(left)} left")
            self._printed = now


def _bar(console: Console) -> Progress:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, TextColumn("{task.fields[note]}"), console=console, transient=True)


def default_reporter() -> Reporter:
    """What functions report to if they are given no reporter: a `Terminal` where a person is watching, else `Silent`.

    That is, where stderr is a terminal, or in a notebook, unless the environment has ``VERYDEEP_PROGRESS=off``; of
    several processes by torchrun the first one reports.
    """
    watched = "ipykernel" in sys.modules or (sys.stderr is not None and sys.stderr.isatty())
    if not watched or os.environ.get("VERYDEEP_PROGRESS") == "off" or os.environ.get("RANK", "0") != "0":
        return Silent()
    return Terminal()
