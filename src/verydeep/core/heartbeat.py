"""Sect. 3.3: processes of one job that tell each other that they live, so that none waits for ever for one that hangs.

A dead process closes its connections, and is noticed at once. One that hangs, or whose machine is gone, closes none,
and the others would wait in the middle of a sum. So a thread of each writes a new number every second where all can
read it, and ends its process where another's has not changed for long.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

LEFT = "left"
UNREACHED = "torchrun on the first machine"


class Pulse(threading.Thread):
    """Tells the other processes that this one lives, and ends it by `silent` once one of them does not.

    Time in which this process was itself stopped is nobody's silence.
    """

    def __init__(self, store: Any, rank: int, size: int, limit: float, silent: Callable[[str], object]) -> None:
        """Of a job.

        Args:
            store: what all processes see, used by this thread alone; it has ``set``, ``check`` and ``get``.
            limit: seconds that a process may be silent.
            silent: told the sentence of a silence; it should not return.
        """
        super().__init__(name="pulse", daemon=True)
        self._store, self._rank, self._size, self._limit, self._silent = store, rank, size, limit, silent
        self._who = f"process {os.getpid()} on {socket.gethostname()}"
        self._seen: dict[int, str] = {}
        self._silence = dict.fromkeys(range(size), 0.0)
        self._unreached = 0.0
        self._ended = threading.Event()

    def run(self) -> None:
        """Beats, listens and counts, until it is ended or another is silent for too long."""
        pause = min(1.0, self._limit / 10)
        beat, told = 0, time.monotonic()
        while not self._ended.wait(pause):
            passed, told = time.monotonic() - told, time.monotonic()
            if passed > self._limit / 2:
                passed = 0.0
            beat += 1
            sentence = self._listen(f"{beat} {self._who}", passed)
            if sentence and not self._ended.is_set():
                self._silent(sentence)
                return

    def leave(self) -> None:
        """Tells the others that this process has done its part, and ends the thread."""
        self._ended.set()
        self.join(self._limit)
        try:
            self._store.set(self._key(self._rank), LEFT)
        except RuntimeError:  # nobody is there any more to be told
            return

    def _listen(self, mine: str, passed: float) -> str | None:
        """Writes this process's number and reads the others'; a sentence where one is silent."""
        try:
            self._store.set(self._key(self._rank), mine)
            for rank in self._others():
                self._hear(rank, passed)
            self._unreached = 0.0
        except RuntimeError:  # PyTorch's DistError: the store does not answer
            self._unreached += passed
            if self._unreached > self._limit:
                return f"{UNREACHED} has not responded for {self._limit:g} s, and so this process ends."
        for rank in self._others():
            if self._silence[rank] > self._limit:
                return self._told(rank)
        return None

    def _hear(self, rank: int, passed: float) -> None:
        key = self._key(rank)
        new = self._store.get(key).decode() if self._store.check([key]) else ""
        if new == self._seen.get(rank, "") and new != LEFT:
            self._silence[rank] += passed
        else:
            self._silence[rank] = 0.0
        self._seen[rank] = new

    def _others(self) -> list[int]:
        return [rank for rank in range(self._size) if rank != self._rank]

    def _told(self, rank: int) -> str:
        who = self._seen[rank].partition(" ")[2]
        return (
            f"rank {rank} of {self._size} ({who or 'never connected'}) has been unresponsive for {self._limit:g} s, "
            "which is --peer-timeout: it hangs, or its machine is gone. The others end too; with torchrun's "
            "--max-restarts the job goes on from its last checkpoint."
        )

    @staticmethod
    def _key(rank: int) -> str:
        return f"pulse/{rank}"


def ends(tell: Callable[[str], object]) -> Callable[[str], None]:
    """What a silence does: ``tell`` its sentence, and end the process, as nothing else leaves a sum half made."""

    def end(sentence: str) -> None:
        tell(sentence)
        os._exit(2)

    return end


def to_the_log(sentence: str) -> None:
    """Tells a sentence where nothing else was said to: Python's log, which shows it on stderr."""
    logging.getLogger(__name__).critical(sentence)
