"""The command line: results go to stdout (with ``--json`` one JSON document and nothing else), messages to stderr.

A user error is one sentence on stderr and status 2. A command over many images or folders prints the results of those
that succeed, then the errors of the others on stderr, a sentence each, with status 1 (2 if none succeeds). A command
that a signal stops has status 128 plus the signal's number: 130 for Ctrl-C, 143 for SIGTERM, 138 for SIGUSR1, which
schedulers can send some time before a job's end.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
import time

from ..core.distributed import peer_is_gone, processes, speaks
from ..core.errors import ToldElsewhere, VerydeepError, first_line
from ..core.settings import PIXEL_LIMIT, MachineSettings
from . import output
from .execution import MISTAKE, OK
from .parser import Options, commands, given_settings, parse, settings_from
from .signals import InterruptHandler

SECONDS_TO_REPORT = 60.0  # for the process of a job that prints the error of all


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; returns the exit status."""
    if arguments is None:
        _names_as_utf8()
    output.escape_what_cannot_be_encoded()
    # OpenMP's threads sleep while they wait for each other: spinning, they are several times slower on a busy machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # read when PyTorch is imported, which a command does later
    try:
        with InterruptHandler():
            status = _status(arguments)
    except KeyboardInterrupt as interrupt:  # before the command began, or after it
        status = _interrupted(interrupt)
    if processes() > 1:  # a thread of PyTorch's may outlive Python's end, and then aborts it (NOTES.md)
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(status)
    if arguments is None:
        gc.freeze()  # Python's end would search all of PyTorch's objects for garbage, for .4 s
    return status


def _names_as_utf8() -> None:
    """Restarts this process in Python's UTF-8 mode where file names would be read as ASCII.

    Python chooses that mode itself in the C locale, unless PYTHONUTF8=0. Without it a name from the command line would
    differ from the same name in a list or a checkpoint, which are always UTF-8. Output stays ASCII.
    """
    if sys.getfilesystemencoding() != "ascii" or os.environ.get("PYTHONUTF8") == "1":
        return
    printed = os.environ.get("PYTHONIOENCODING", "ascii:backslashreplace")
    os.execve(sys.executable, sys.orig_argv, {**os.environ, "PYTHONUTF8": "1", "PYTHONIOENCODING": printed})


def _status(arguments: list[str] | None) -> int:
    """Runs one command; prints errors to stderr as sentences."""
    if sys.stdout is None:  # closed by the parent process
        sys.stdout = open(os.devnull, "w", encoding="utf8")  # noqa: SIM115
    try:
        options = _options(sys.argv[1:] if arguments is None else arguments)
        _allow_pixels(options)
        status: int = commands()[options.command].run(options)
        sys.stdout.flush()
        return status
    except ToldElsewhere:
        _wait_for_report()
        return MISTAKE
    except VerydeepError as mistake:
        output.fail(str(mistake))
        return MISTAKE
    except (RuntimeError, MemoryError) as fault:
        sentence = _sentence_of(fault)
        if sentence is None:
            raise
        output.fail(sentence)
        return MISTAKE
    except BrokenPipeError:  # the reader of stdout has ended, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except OSError as fault:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for output that is not yet flushed
        output.fail(f"the operating system refused: {fault.strerror or fault} ({fault.filename or 'output'}).")
        return MISTAKE
    except KeyboardInterrupt as interrupt:
        return _interrupted(interrupt)


def _sentence_of(fault: RuntimeError | MemoryError) -> str | None:
    """The sentence for an error that no code could foresee; None for a fault of this program."""
    from ..core.out_of_memory import is_out_of_memory  # loads torch

    if processes() > 1 and peer_is_gone(fault):
        return "another process of this job has ended, so this one stops."
    if is_out_of_memory(fault):
        return (
            f"memory ran out ({first_line(fault)}): free memory, or use smaller images (--crop, --S, the Q of a "
            "protocol, --scales), a smaller --device-batch or fewer --workers."
        )
    return None


def _interrupted(interrupt: KeyboardInterrupt) -> int:
    """The exit status of a command that a signal stopped."""
    if processes() == 1:  # torchrun ends the others of a job by signals, and says why
        output.fail("interrupted.")
    return 128 + getattr(interrupt, "number", signal.SIGINT)


def _wait_for_report() -> None:
    """Waits for the process that prints the error, as torchrun ends all processes of a job once one has ended."""
    with contextlib.suppress(KeyboardInterrupt):
        time.sleep(SECONDS_TO_REPORT)


def _options(arguments: list[str]) -> Options:
    """The options of a command line; of several processes of a job only the first reports an error in them."""
    try:
        options = parse(arguments)
        if processes() > 1 and not getattr(commands()[options.command], "DISTRIBUTED", False):
            raise VerydeepError(f"`verydeep {options.command}` runs in one process: start it without torchrun.")
        return options
    except VerydeepError as mistake:
        if speaks():
            raise
        raise ToldElsewhere(str(mistake)) from None


def _allow_pixels(options: Options) -> None:
    """Sets the limit on pixels of images that this command reads; a server's is for images from clients."""
    if "max_pixels" in given_settings(options) and options.command != "serve":
        from ..core.pixel_limit import allow_pixels

        allow_pixels(settings_from(options, MachineSettings).max_pixels or PIXEL_LIMIT)


if __name__ == "__main__":
    sys.exit(main())
