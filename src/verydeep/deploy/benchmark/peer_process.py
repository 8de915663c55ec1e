"""A peer in a process of its own, where none of our settings helps or hinders it.

`python -m verydeep.deploy.benchmark.peer_process ORDER` prints the peer's name, and then runs once for each line that
it reads, and prints a line when it is done. The peers themselves are in `torch_peer` and `runtimes`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from typing import IO

from ...core.errors import VerydeepError
from .order import RUNTIMES, Order, check_peer


@contextmanager
def at_work(order: Order) -> Iterator[tuple[str, Callable[[], object]]]:
    """The peer's name, and a function that runs it once.

    Raises:
        VerydeepError: no such peer, or it has no such net, or it fails.
    """
    check_peer(order.peer, order.net)
    words = [sys.executable, "-m", __name__, json.dumps(asdict(order))]
    # The command line sets how its own OpenMP threads wait.
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    with (
        tempfile.TemporaryFile("w+", errors="replace") as errors,
        subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            process_group=0,
            env=environment,
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        requests, replies = process.stdin, process.stdout

        def reply() -> str:
            if not (line := replies.readline().strip()):
                raise VerydeepError(_failure(order.peer, process.wait(), errors))
            return line

        def once() -> None:
            with suppress(OSError):  # where it has ended there is no reply either
                requests.write("\n")
                requests.flush()
            reply()

        try:
            yield reply(), once
        finally:
            process.kill()
            with suppress(OSError):
                requests.close()


def _failure(peer: str, status: int, errors: IO[str]) -> str:
    """Why a peer's process ended: by the last line that it wrote to stderr, unless a signal ended it."""
    errors.seek(0)
    lines = errors.read().split("\n") if status > 0 else []
    reason = next((line.strip() for line in reversed(lines) if line.strip()), "")
    if reason:
        return f"{peer} failed: {reason[:300].rstrip('.')}."
    return f"{peer}'s process ended; it may need more memory: lower --batch."


def main() -> None:
    """The process of the peer."""
    order = Order(**json.loads(sys.argv[1]))
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no reply
    if order.peer in RUNTIMES:
        from .runtimes import start
    else:
        from .torch_peer import start
    try:
        name, once = start(order)
    except VerydeepError as fault:
        sys.exit(str(fault))
    print(name, file=replies, flush=True)
    for _ in sys.stdin:
        once()
        print("done", file=replies, flush=True)


if __name__ == "__main__":
    main()
