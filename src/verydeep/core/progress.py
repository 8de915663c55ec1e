"""How long work tells what it does: a reporter is passed in, and the library itself never prints."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

Advance = Callable[[int, str], None]


class Reporter(Protocol):
    """Where news of long work goes; the command line's writes to stderr."""

    def say(self, text: str) -> None:
        """A line of information."""

    def warn(self, text: str) -> None:
        """A line the user should not miss."""

    def track(self, label: str, total: int) -> AbstractContextManager[Advance]:
        """A bar over ``total`` items; what it yields is told how many more are done, and a note."""


class Silent:
    """A reporter that says nothing."""

    def say(self, text: str) -> None:
        """Says nothing."""

    def warn(self, text: str) -> None:
        """Warns of nothing."""

    @contextmanager
    def track(self, label: str, total: int) -> Iterator[Advance]:
        """Tracks nothing."""
        yield lambda count, note: None


class Collected(Silent):
    """A reporter that says nothing and keeps its warnings."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        """Kept."""
        self.warnings.append(text)


def duration(seconds: float) -> str:
    """A time people say: ``45 s``, ``12 min``, ``3.5 h``, ``4.2 days``, ``250 days``, ``3.1 years``."""
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
