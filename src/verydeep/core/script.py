"""Scripts that other processes import as they begin: so it is where the system spawns processes and does not fork them.

A script that trains or tests right away would then do so in each of them, again and without end. Python refuses that in
words that do not say what to write.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import re
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager

UNGUARDED = 47  # the exit status of such a process
QUIET = 3.0  # seconds without more to read
VARIABLE = "VERYDEEP_READS_PHOTOS"  # is set for the processes that are begun here


@contextmanager
def known_to_children() -> Iterator[None]:
    """A context in which processes that begin know that they are to read photos for this one."""
    os.environ[VARIABLE] = "1"
    try:
        yield
    finally:
        del os.environ[VARIABLE]


def imported() -> bool:
    """Whether a process that is beginning imports the script that runs this."""
    return bool(getattr(multiprocessing.current_process(), "_inheriting", False))


def leave_if_imported() -> None:
    """Ends a process that was begun to read photos and works in its place, in silence: the one that began it tells."""
    if imported() and VARIABLE in os.environ:
        _drain()
        os._exit(UNGUARDED)


def _drain() -> None:
    """Takes what the process that began this one still sends: it would wait without end for that to be read.

    multiprocessing keeps both ends of that pipe open meanwhile, so that this process's end does not break it.
    """
    pipe = re.search(r"\bpipe_handle=(\d+)", " ".join(sys.orig_argv))
    if pipe is None or sys.platform == "win32":  # where a pipe of a process that has ended does break
        return
    with contextlib.suppress(OSError):
        while select.select([int(pipe[1])], [], [], QUIET)[0]:
            os.read(int(pipe[1]), 2**20)


def spawns() -> bool:
    """Whether processes begin by importing the script."""
    return multiprocessing.get_start_method() != "fork"


def what_to_write() -> str:
    """The sentence for a script without the line."""
    script = getattr(sys.modules["__main__"], "__file__", None) or "the script"
    return (
        f"photos are read by other processes, each of which first imports {os.path.basename(script)}: what that does "
        'must stand below a line `if __name__ == "__main__":`, indented; or give workers=0, which reads in one process.'
    )
