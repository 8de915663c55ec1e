"""The command line: answers go to stdout (with ``--json`` one JSON document and nothing else), news to stderr.

A user's mistake is one sentence on stderr and status 2. A command over many photos or folders answers for those that it
can, then lists the others on stderr, a sentence each, with status 1 (2 where it can answer for none). A command that a
signal ends has status 128 and the signal's number: 130 for Ctrl-C, 143 for SIGTERM, 138 for SIGUSR1, which schedulers
can send a training some time before.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable

from ..core.config import typed
from ..core.distributed import peer_is_gone, processes, speaks
from ..core.errors import ToldElsewhere, VerydeepError
from ..core.settings import PIXEL_LIMIT, MachineSettings
from . import output
from .arguments import given_settings, parse
from .commands import localise, looking, main_job, measuring, paper, released, report, serve, transfer
from .commands.common import MISTAKE, OK
from .signals import Hearing

TOGETHER = ("train", "evaluate", "localise train", "features", "benchmark")  # what several processes can do
TELLING_SECONDS = 60.0  # in which another process of a job gets to its sentence

VERBS: dict[str, Callable[[argparse.Namespace], int]] = {
    "nets": looking.nets,
    "data check": looking.data_check,
    "data pack": looking.data_pack,
    "data show": looking.data_show,
    "train": main_job.train,
    "evaluate": main_job.evaluate,
    "predict": main_job.predict,
    "localise train": localise.train,
    "localise evaluate": localise.evaluate,
    "localise predict": localise.predict,
    "serve": serve.serve,
    "fuse": paper.fuse,
    "features": transfer.features,
    "svm": transfer.svm,
    "probe": transfer.probe,
    "similar": transfer.similar,
    "reproduce": paper.reproduce,
    "table": paper.table,
    "weights list": released.weights_list,
    "weights fetch": released.weights_fetch,
    "convert": released.convert,
    "export": released.export,
    "benchmark": measuring.benchmark,
    "report": report.report,
    "completion": looking.completion,
    "demo": main_job.demo,
}


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; returns the exit status."""
    if arguments is None:
        _names_as_utf8()
    output.escape_what_cannot_be_encoded()
    try:
        with Hearing():
            status = _status(arguments)
    except KeyboardInterrupt as asked:  # before the command began, or as it was over
        status = _interrupted(asked)
    if processes() > 1:  # a thread of PyTorch's may outlive Python's end, and then aborts it (NOTES.md)
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(status)
    return status


def _names_as_utf8() -> None:
    """Starts this process again in Python's UTF-8 mode where file names would be read as ASCII.

    In the C locale that mode is Python's own choice, which PYTHONUTF8=0 undoes. Without it a name from the command line
    and the same name from a list or a checkpoint, which are UTF-8 always, are two names. What is printed stays ASCII.
    """
    if sys.getfilesystemencoding() != "ascii" or os.environ.get("PYTHONUTF8") == "1":
        return
    printed = os.environ.get("PYTHONIOENCODING", "ascii:backslashreplace")
    os.execve(sys.executable, sys.orig_argv, {**os.environ, "PYTHONUTF8": "1", "PYTHONIOENCODING": printed})


def _status(arguments: list[str] | None) -> int:
    """What one command ends with."""
    if sys.stdout is None:  # closed by whoever started us
        sys.stdout = open(os.devnull, "w", encoding="utf8")  # noqa: SIM115
    try:
        options = _options(sys.argv[1:] if arguments is None else arguments)
        _allow_pixels(options)
        status = VERBS[options.verb](options)
        sys.stdout.flush()
        return status
    except ToldElsewhere:
        _let_it_be_told()
        return MISTAKE
    except VerydeepError as mistake:
        output.fail(str(mistake))
        return MISTAKE
    except RuntimeError as fault:
        sentence = _known(fault)
        if sentence is None:
            raise
        output.fail(sentence)
        return MISTAKE
    except BrokenPipeError:  # the reader of our stdout left, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except OSError as fault:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left unwritten has no place to go
        output.fail(f"the operating system refused: {fault.strerror or fault} ({fault.filename or 'output'}).")
        return MISTAKE
    except KeyboardInterrupt as asked:
        return _interrupted(asked)


def _interrupted(asked: KeyboardInterrupt) -> int:
    """The exit status of a command that a signal has ended."""
    if processes() == 1:  # torchrun ends the others of a job so, and tells why
        output.fail("interrupted.")
    return 128 + getattr(asked, "number", signal.SIGINT)


def _let_it_be_told() -> None:
    """torchrun ends all processes of a job once one has ended: those that tell nothing wait for the one that tells."""
    with contextlib.suppress(KeyboardInterrupt):
        time.sleep(TELLING_SECONDS)


def _options(arguments: list[str]) -> argparse.Namespace:
    """What was typed; of several processes of a job the first tells what is wrong with it."""
    try:
        options = parse(arguments)
        if processes() > 1 and options.verb not in TOGETHER:
            raise VerydeepError(f"`verydeep {options.verb}` runs in one process: start it without torchrun.")
        return options
    except VerydeepError as mistake:
        if speaks():
            raise
        raise ToldElsewhere(str(mistake)) from None


def _allow_pixels(options: argparse.Namespace) -> None:
    """Sets the limit on photos' pixels, for all that this command reads; a server's is that of what it is sent."""
    given = given_settings(options)
    if "max_pixels" in given and options.verb != "serve":
        wish = MachineSettings(**typed(MachineSettings, {"max_pixels": given["max_pixels"]}))
        from ..core.pixel_limit import allow_pixels

        allow_pixels(wish.max_pixels or PIXEL_LIMIT)


def _known(fault: RuntimeError) -> str | None:
    """The sentence for an error of PyTorch's that another process's end has caused; None for others."""
    if processes() > 1 and peer_is_gone(fault):
        return "another process of this job has ended, and so does this one."
    return None


if __name__ == "__main__":
    sys.exit(main())
