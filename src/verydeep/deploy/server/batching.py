"""Dynamic batching: a bounded queue and one thread that runs the models.

While a batch runs, other requests wait; the next batch is the longest-waiting request and those with an equal query. So
batching adds no delay: a single request runs at once, and more requests make larger batches.
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

RECENT = 50  # batches that the expected wait is computed from


class Full(Exception):
    """The queue or the memory is full."""


class Stopped(Exception):
    """The server accepts nothing any more."""


@dataclass(frozen=True)
class _Job:
    query: Hashable
    item: Any
    future: Future[Any]


class MemoryBudget:
    """A number of units, such as bytes, that several threads share."""

    def __init__(self, total: int) -> None:
        self.total, self._free = total, total
        self._changed = threading.Condition()

    def take(self, units: int, patience: float | None = 0.0) -> None:
        """Takes units, at most ``total``; waits for ``patience`` seconds, None: without limit.

        Raises:
            Full: they are not free in time.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._free >= units, patience):
                raise Full
            self._free -= units

    def give(self, units: int) -> None:
        """Returns units."""
        with self._changed:
            self._free += units
            self._changed.notify_all()


class Batcher:
    """Runs items in batches, on a thread of its own, in the order in which they came.

    An item whose future is cancelled before its turn is skipped. If a batch fails, its items are run one by one, so
    that each has its own result or exception.
    """

    def __init__(
        self,
        run: Callable[[Any, Sequence[Any]], Sequence[Any]],
        max_batch: int,
        places: int,
        on_batch: Callable[[int, float], None] = lambda size, seconds: None,
        while_busy: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        """Starts the thread.

        Args:
            run: takes a query and its items, and returns a result for each, in order.
            max_batch: the most items in a batch.
            places: how many items may be in progress or waiting.
            on_batch: called with each batch's size and its seconds.
            while_busy: a context that is open while there is work.
        """
        self._run_batch, self._max_batch, self.places = run, max_batch, places
        self._on_batch, self._while_busy = on_batch, while_busy
        self._jobs: deque[_Job] = deque()
        self._taken, self._stopped = 0, False
        self._changed = threading.Condition()
        self._recent: deque[float] = deque(maxlen=RECENT)
        self._thread = threading.Thread(target=self._run, name="net", daemon=True)
        self._thread.start()

    @property
    def taken(self) -> int:
        """The number of places that are taken."""
        return self._taken

    @property
    def stopped(self) -> bool:
        """Whether new items are refused."""
        return self._stopped

    @property
    def wait(self) -> float:
        """Expected seconds until all waiting items are done, from recent batches."""
        recent = list(self._recent)
        return self._taken * sum(recent) / len(recent) if recent else 0.0

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

    def submit(self, query: Hashable, item: Any) -> Future[Any]:
        """Queues an item, for callers that hold a place."""
        job = _Job(query, item, Future())
        with self._changed:
            self._jobs.append(job)
            self._changed.notify()
        return job.future

    def refuse(self) -> None:
        """Refuses new items; those with a place are still run."""
        with self._changed:
            self._stopped = True

    def close(self, drop: bool = False) -> None:
        """Ends the thread, after pending items are run, or dropped with ``drop``."""
        with self._changed:
            self._stopped = True
            while drop and self._jobs:
                self._jobs.pop().future.cancel()
            self._jobs.append(_END)
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        running = True
        while running:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._jobs))
            with self._while_busy():
                running = self._work()

    def _work(self) -> bool:
        """Runs all waiting items; False at the end."""
        while batch := self._next():
            if batch == [_END]:
                return False
            started = time.monotonic()
            if batch := [job for job in batch if job.future.set_running_or_notify_cancel()]:
                results = self._results(batch)
                seconds = time.monotonic() - started
                self._recent.append(seconds / len(batch))
                self._on_batch(len(batch), seconds)  # before the results: a client that has one finds it counted
                for job, result in zip(batch, results, strict=True):
                    if isinstance(result, Exception):
                        job.future.set_exception(result)
                    else:
                        job.future.set_result(result)
        return True

    def _next(self) -> list[_Job]:
        """Removes the longest-waiting job and those of the same query from the queue; empty where none waits."""
        with self._changed:
            if not self._jobs:
                return []
            first = self._jobs[0]
            batch = [job for job in self._jobs if job.query == first.query][: self._max_batch]
            chosen = set(map(id, batch))
            self._jobs = deque(job for job in self._jobs if id(job) not in chosen)
            return batch

    def _results(self, batch: list[_Job]) -> list[Any]:
        """The result of each job, or its exception."""
        try:
            results = list(self._run_batch(batch[0].query, [job.item for job in batch]))
            if len(results) != len(batch):
                raise RuntimeError(f"{len(results)} results for {len(batch)} items")
            return results
        except Exception as fault:
            return [fault] if len(batch) == 1 else [self._results([job])[0] for job in batch]


_END = _Job(None, None, Future())
