"""Leaving long work in order: somebody asked to stop, and what is stored is whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .progress import Advance, Reporter


class Interrupted(Exception):
    """Somebody asked to stop; what is stored is whole."""


class Stopping:
    """A reporter that leaves long work, between two of its steps, once somebody asks to stop."""

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
