"""Processes that keep the machine busy beside a measurement, as other programs on a shared machine do.

Each works through arithmetic and memory at normal priority until its standard input ends, which happens when the
measurement does, even where that is killed. `python -m verydeep.deploy.benchmark.busy` is one of them.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

NUMBERS, BYTES = 20_000, 2**24  # of a round: squares summed, and memory copied, which is more than a core's cache


@contextmanager
def busy(count: int) -> Iterator[None]:
    """A context in which ``count`` busy processes run."""
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for _ in range(count):
            # In a process group of its own: Ctrl-C is for this process, which ends the others.
            words = [sys.executable, "-m", __name__]
            processes.append(subprocess.Popen(words, stdin=subprocess.PIPE, process_group=0))
        yield
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            with process:
                pass


def _exit_with_input() -> None:
    """Ends this process when its standard input does."""
    os.read(0, 1)
    os._exit(0)


def main() -> None:
    """A busy process."""
    threading.Thread(target=_exit_with_input, daemon=True).start()
    memory = bytearray(BYTES)
    while True:
        sum(number * number for number in range(NUMBERS))
        bytes(memory)


if __name__ == "__main__":
    main()
