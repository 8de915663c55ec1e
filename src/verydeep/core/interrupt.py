"""Stopping long work between two steps, with everything on disk complete."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .progress import Advance, Reporter


class Interrupted(Exception):
    """The work was stopped by a signal; what is on disk is complete."""


class Stopping:
    """A reporter that ends long work between two of its steps, once ``stop`` returns True."""

    def __init__(self, reporter: Reporter, stop: Callable[[], bool]) -> None:
        self._reporter, self._stop = reporter, stop
        self.say, self.warn = reporter.say, reporter.warn

    @contextmanager
    def track(self, label: str, total: int) -> Iterator[Advance]:
        """The reporter's bar; its advance raises `Interrupted`."""
        with self._reporter.track(label, total) as advance:

            def go_on(count: int, note: str) -> None:
                advance(count, note)
                if self._stop():
                    raise Interrupted

            yield go_on
