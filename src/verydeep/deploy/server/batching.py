"""Requests that wait are asked together: a bounded queue before one thread, which has the net to itself.

While a batch is at work others wait; the next batch is the longest-waiting question with those like it. So nothing
waits for company: a lone request is asked at once, and the more there are, the larger the batches.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

MEMORY = 50  # batches that the pace is told from


class Full(Exception):
    """No place is free."""


class Stopped(Exception):
    """Nothing is taken any more."""


@dataclass(frozen=True)
class _Job:
    question: Hashable
    item: Any
    future: Future[Any]


class MemoryBudget:
    """So many units, of memory say, that several threads share."""

    def __init__(self, total: int) -> None:
        self.total, self._free = total, total
        self._changed = threading.Condition()

    def take(self, units: int, patience: float | None = 0.0) -> None:
        """Takes units, of which none may need more than there are; waits ``patience`` seconds, None without end.

        Raises:
            Full: they are not free by then.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._free >= units, patience):
                raise Full
            self._free -= units

    def give(self, units: int) -> None:
        """Gives units back."""
        with self._changed:
            self._free += units
            self._changed.notify_all()


class Batcher:
    """Asks items in batches, on a thread of its own, in the order in which they came.

    An item whose future is cancelled before its turn costs nothing. Where a batch fails, its items are asked one by
    one, so that each has its own answer or its own fault.
    """

    def __init__(
        self,
        answer: Callable[[Any, Sequence[Any]], Sequence[Any]],
        most: int,
        places: int,
        told: Callable[[int, float], None] = lambda size, seconds: None,
        at_work: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        """Begins the thread.

        Args:
            answer: told a question and its items, gives an answer for each, in order.
            most: items in a batch.
            places: how many may be at work or waiting.
            told: hears of each batch its size and how long it took.
            at_work: a context that is open while there is work.
        """
        self._answer, self._most, self.places, self._told, self._at_work = answer, most, places, told, at_work
        self._jobs: deque[_Job] = deque()
        self._taken, self._stopped = 0, False
        self._changed = threading.Condition()
        self._paces: deque[float] = deque(maxlen=MEMORY)
        self._thread = threading.Thread(target=self._run, name="net", daemon=True)
        self._thread.start()

    @property
    def taken(self) -> int:
        """Places that are taken."""
        return self._taken

    @property
    def stopped(self) -> bool:
        """Whether no more places are given."""
        return self._stopped

    @property
    def wait(self) -> float:
        """Seconds until all that wait now are answered, by the pace so far."""
        paces = list(self._paces)
        return self._taken * sum(paces) / len(paces) if paces else 0.0

    @contextmanager
    def place(self) -> Iterator[None]:
        """A context that holds a place; raises Full or Stopped."""
        with self._changed:
            if self._stopped:
                raise Stopped
            if self._taken >= self.places:
                raise Full
            self._taken += 1
        try:
            yield
        finally:
            with self._changed:
                self._taken -= 1

    def submit(self, question: Hashable, item: Any) -> Future[Any]:
        """Asks an item; for those who hold a place."""
        job = _Job(question, item, Future())
        with self._changed:
            self._jobs.append(job)
            self._changed.notify()
        return job.future

    def refuse(self) -> None:
        """Gives no more places; what holds one is still answered."""
        with self._changed:
            self._stopped = True

    def close(self, drop: bool = False) -> None:
        """Ends the thread, after what waits is answered, or dropped where ``drop`` says so."""
        with self._changed:
            self._stopped = True
            while drop and self._jobs:
                self._jobs.pop().future.cancel()
            self._jobs.append(_END)
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        going_on = True
        while going_on:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._jobs))
            with self._at_work():
                going_on = self._work()

    def _work(self) -> bool:
        """Answers what waits; False at the end."""
        while batch := self._next():
            if batch == [_END]:
                return False
            begun = time.monotonic()
            if batch := [job for job in batch if job.future.set_running_or_notify_cancel()]:
                found = self._ask(batch)
                seconds = time.monotonic() - begun
                self._paces.append(seconds / len(batch))
                self._told(len(batch), seconds)  # before the answers: who has one finds it counted
                for job, answer in zip(batch, found, strict=True):
                    if isinstance(answer, Exception):
                        job.future.set_exception(answer)
                    else:
                        job.future.set_result(answer)
        return True

    def _next(self) -> list[_Job]:
        """The job that waits longest with those of the same question, out of the queue; none where nobody waits."""
        with self._changed:
            if not self._jobs:
                return []
            first = self._jobs[0]
            batch = [job for job in self._jobs if job.question == first.question][: self._most]
            chosen = set(map(id, batch))
            self._jobs = deque(job for job in self._jobs if id(job) not in chosen)
            return batch

    def _ask(self, batch: list[_Job]) -> list[Any]:
        """The answer of each job, or its fault."""
        try:
            found = list(self._answer(batch[0].question, [job.item for job in batch]))
            if len(found) != len(batch):
                raise RuntimeError(f"{len(batch)} were asked and {len(found)} answered")
            return found
        except Exception as fault:
            return [fault] if len(batch) == 1 else [self._ask([job])[0] for job in batch]


_END = _Job(None, None, Future())
