"""Progress of long work: a reporter receives it, and may stop the work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

Advance = Callable[[int, str], None]


class Reporter(Protocol):
    """Receives the progress of long work; the command line's prints to stderr."""

    def say(self, text: str) -> None:
        """A line of information."""

    def warn(self, text: str) -> None:
        """A warning."""

    def track(self, label: str, total: int) -> AbstractContextManager[Advance]:
        """A progress bar over ``total`` items; yields a function of the number of new items and a note."""


class Silent:
    """A reporter that prints nothing."""

    def say(self, text: str) -> None:
        """Does nothing."""

    def warn(self, text: str) -> None:
        """Does nothing."""

    @contextmanager
    def track(self, label: str, total: int) -> Iterator[Advance]:
        """Does nothing."""
        yield lambda count, note: None


class Collected(Silent):
    """A reporter that prints nothing and collects the warnings."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        """Appends to ``warnings``."""
        self.warnings.append(text)


class Interrupted(Exception):
    """The work was stopped by a signal; the files on disk are complete."""


class Stopping:
    """A reporter that stops long work between two of its steps, once ``stop`` returns True."""

    def __init__(self, reporter: Reporter, stop: Callable[[], bool]) -> None:
        self._reporter, self._stop = reporter, stop
        self.say, self.warn = reporter.say, reporter.warn

    @contextmanager
    def track(self, label: str, total: int) -> Iterator[Advance]:
        """The reporter's progress bar; its advance raises `Interrupted`."""
        with self._reporter.track(label, total) as advance:

            def advance_or_stop(count: int, note: str) -> None:
                advance(count, note)
                if self._stop():
                    raise Interrupted

            yield advance_or_stop


def duration(seconds: float) -> str:
    """A readable time: ``45 s``, ``12 min``, ``3.5 h``, ``4.2 days``, ``250 days``, ``3.1 years``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    if seconds < 172_800:
        return f"{seconds / 3600:.1f} h"
    days = seconds / 86_400
    if days < 20:
        return f"{days:.1f} days"
    return f"{float(f'{days:.2g}'):.0f} days" if days < 730 else f"{float(f'{days / 365.25:.2g}'):g} years"
