"""Sect. 3.3: heartbeats of the processes of one job, so that none waits forever for one that hangs.

A process that dies closes its connections, which the others notice at once. One that hangs, or whose machine is gone,
does not, and the others would wait in the middle of an all-reduce. So a thread of each process writes a new number
every second to a shared store, and reports a process whose number has not changed for long.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

LEFT = "left"


class Heartbeat(threading.Thread):
    """Writes this process's heartbeat and calls `on_timeout` once another process's has stopped.

    Time during which this process was itself suspended does not count.
    """

    def __init__(self, store: Any, rank: int, size: int, limit: float, on_timeout: Callable[[str], object]) -> None:
        """Creates the thread.

        Args:
            store: shared by all processes, used by this thread only; it has ``set``, ``check`` and ``get``.
            limit: seconds that a process may be unresponsive.
            on_timeout: is passed the message; it should not return.
        """
        super().__init__(name="heartbeat", daemon=True)
        self._store, self._rank, self._size, self._limit, self._on_timeout = store, rank, size, limit, on_timeout
        self._process = f"process {os.getpid()} on {socket.gethostname()}"
        self._last: dict[int, str] = {}
        self._unchanged = {other: 0.0 for other in range(size) if other != rank}  # seconds
        self._unreachable = 0.0
        self._done = threading.Event()

    def run(self) -> None:
        """Writes and reads heartbeats until it is stopped or another process times out."""
        pause = min(1.0, self._limit / 10)
        beat, before = 0, time.monotonic()
        while not self._done.wait(pause):
            passed, before = time.monotonic() - before, time.monotonic()
            if passed > self._limit / 2:
                passed = 0.0
            beat += 1
            message = self._exchange(f"{beat} {self._process}", passed)
            if message and not self._done.is_set():
                self._on_timeout(message)
                return

    def leave(self) -> None:
        """Records that this process has finished, and stops the thread."""
        self._done.set()
        self.join(self._limit)
        try:
            self._store.set(self._key(self._rank), LEFT)
        except RuntimeError:  # the other processes have ended
            return

    def _exchange(self, value: str, passed: float) -> str | None:
        """Writes this process's heartbeat and reads the others'; a message if one has timed out."""
        try:
            self._store.set(self._key(self._rank), value)
            for rank in self._unchanged:
                self._read(rank, passed)
            self._unreachable = 0.0
        except RuntimeError:  # PyTorch's DistError: the store does not respond
            self._unreachable += passed
            if self._unreachable > self._limit:
                return f"torchrun on the first machine has not responded for {self._limit:g} s; this process exits."
        return next((self._message(rank) for rank, seconds in self._unchanged.items() if seconds > self._limit), None)

    def _read(self, rank: int, passed: float) -> None:
        key = self._key(rank)
        value = self._store.get(key).decode() if self._store.check([key]) else ""
        hangs = value == self._last.get(rank, "") and value != LEFT
        self._unchanged[rank] = self._unchanged[rank] + passed if hangs else 0.0
        self._last[rank] = value

    def _message(self, rank: int) -> str:
        name = self._last[rank].partition(" ")[2]
        return (
            f"rank {rank} of {self._size} ({name or 'never connected'}) has been unresponsive for {self._limit:g} s, "
            "which is --peer-timeout: it hangs, or its machine is gone. All processes exit; with torchrun's "
            "--max-restarts the job resumes from its last checkpoint."
        )

    @staticmethod
    def _key(rank: int) -> str:
        return f"pulse/{rank}"
