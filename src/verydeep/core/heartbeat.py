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
    """Watches the heartbeats of all processes and calls `on_timeout` once another's has stopped.

    Time during which this process was itself suspended does not count. A second thread writes and reads the heartbeats,
    as that blocks, some operations without end, while the link to the store's machine is cut.
    """

    def __init__(self, store: Any, rank: int, size: int, limit: float, on_timeout: Callable[[str], object]) -> None:
        """Creates the thread.

        Args:
            store: shared by all processes, used by this object only; it has ``set``, ``check`` and ``get``.
            limit: seconds that a process may be unresponsive.
            on_timeout: is passed the message; it should not return.
        """
        super().__init__(name="heartbeat", daemon=True)
        self._store, self._rank, self._size, self._limit, self._on_timeout = store, rank, size, limit, on_timeout
        self._process = f"process {os.getpid()} on {socket.gethostname()}"
        self._pause = min(1.0, limit / 10)
        self._last: dict[int, str] = {}
        # Seconds that this process was awake: now, when the store last responded, and when each heartbeat last changed.
        self._clock = self._reached = 0.0
        self._changed = {other: 0.0 for other in range(size) if other != rank}
        self._done = threading.Event()
        self._exchange = threading.Thread(target=self._exchange_until_done, name="heartbeat-store", daemon=True)

    def run(self) -> None:
        """Watches until it is stopped or another process times out."""
        self._exchange.start()
        before = time.monotonic()
        while not self._done.wait(self._pause):
            passed, before = time.monotonic() - before, time.monotonic()
            if passed <= self._limit / 2:  # else this process was suspended
                self._clock += passed
            message = self._timeout()
            if message and not self._done.is_set():
                self._on_timeout(message)
                return

    def leave(self) -> None:
        """Records that this process has finished, and stops the threads."""
        self._done.set()
        self.join(self._limit)
        self._exchange.join(self._limit)
        try:
            self._store.set(self._key(self._rank), LEFT)
        except RuntimeError:  # the other processes have ended
            return

    def _exchange_until_done(self) -> None:
        """Writes this process's heartbeat and reads the others'."""
        beat = 0
        while not self._done.wait(self._pause):
            beat += 1
            try:
                self._store.set(self._key(self._rank), f"{beat} {self._process}")
                for rank in self._changed:
                    self._read(rank)
                self._reached = self._clock
            except RuntimeError:  # PyTorch's DistError: the store does not respond
                continue

    def _read(self, rank: int) -> None:
        key = self._key(rank)
        value = self._store.get(key).decode() if self._store.check([key]) else ""
        if value == LEFT or value != self._last.get(rank, ""):
            self._changed[rank] = self._clock
        self._last[rank] = value

    def _timeout(self) -> str | None:
        """The message of a timeout; None without one."""
        if self._clock - self._reached > self._limit:
            return f"torchrun on the first machine has not responded for {self._limit:g} s; this process exits."
        silent = (rank for rank, changed in self._changed.items() if self._reached - changed > self._limit)
        return next(map(self._message, silent), None)

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
