"""The real command by one process, forked from one that has imported what it needs.

So a kill finds a training and not the seconds in which Python imports PyTorch, and there are more trials in an hour.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import sys
from multiprocessing.process import BaseProcess
from pathlib import Path

IMPORTED = [
    "__main__",
    *("torch", "torch._dynamo", "torch.fx.experimental.symbolic_shapes", "torch.utils.data", "numpy"),
    *("safetensors.torch", "PIL.Image", "matplotlib.figure", "rich.progress"),
    *("verydeep.cli", "verydeep.preparing", "verydeep.evaluation", "verydeep.reports.writing"),
]


def forked(typed: list[object], place: Path, told: Path) -> BaseProcess:
    """Begins a command in a folder; what it tells goes into a file."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    process = context.Process(target=_become, args=(list(map(str, typed)), str(place), str(told)))
    process.start()
    return process


def _become(words: list[str], place: str, told: str) -> None:
    """Takes on what a command is given at its start, and ends as it does."""
    from verydeep.cli import main

    multiprocessing.set_start_method(None, force=True)  # Python's own, and not that of the one that forked
    os.setsid()
    os.chdir(place)
    for number, path in ((1, os.devnull), (2, told)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    sys.argv = ["verydeep", *words]
    status = main()
    atexit._run_exitfuncs()
    os._exit(status)
