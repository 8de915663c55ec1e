"""The real command by one process, forked from one that has imported what it needs.

So a kill finds a training and not the seconds in which Python imports PyTorch, and there are more trials in an hour.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

# What commands import, for the most part; tests/command_server.py imports it too.
IMPORTED = (
    *("torch", "torch._dynamo", "torch.fx.experimental.symbolic_shapes", "torch.utils.data", "numpy"),
    *("safetensors.torch", "PIL.Image", "matplotlib.figure", "rich.progress"),
    *(
        "verydeep.cli.main",
        "verydeep.api",
        "verydeep.evaluation.evaluate",
        "verydeep.evaluation.predict",
        "verydeep.reports.write",
    ),
)


@dataclass(frozen=True)
class Fork:
    """A command in progress, with what the trials use of `subprocess.Popen`."""

    process: BaseProcess

    @property
    def pid(self) -> int:
        """The process's id."""
        assert self.process.pid is not None
        return self.process.pid

    def poll(self) -> int | None:
        """The exit status, negative for a signal; None while the command goes on."""
        return self.process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """The exit status, once there is one.

        Raises:
            subprocess.TimeoutExpired: there was none within so many seconds.
        """
        self.process.join(timeout)
        if self.process.exitcode is None:
            raise subprocess.TimeoutExpired("verydeep", timeout or 0)
        return self.process.exitcode

    def send_signal(self, which: signal.Signals) -> None:
        """Sends a signal to it alone, if it goes on."""
        if self.poll() is None:
            os.kill(self.pid, which)

    def kill(self) -> None:
        """Kills it, if it goes on."""
        self.send_signal(signal.SIGKILL)


def forked(typed: list[object], place: Path, told: Path, answer: Path = Path(os.devnull)) -> Fork:
    """Begins a command in a folder; what it tells (stderr) and answers (stdout) goes into files."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["__main__", *IMPORTED])
    given = (list(map(str, typed)), str(place), str(answer), str(told))
    process = context.Process(target=_become, args=given)
    process.start()
    return Fork(process)


def answered(typed: list[object], place: Path, seconds: float) -> subprocess.CompletedProcess[str]:
    """Runs a command in a folder to its end.

    Raises:
        subprocess.TimeoutExpired: it did not end within so many seconds, and was killed.
    """
    with tempfile.TemporaryDirectory() as folder:
        told, answer = Path(folder) / "stderr", Path(folder) / "stdout"
        going = forked(typed, place, told, answer)
        try:
            status = going.wait(seconds)
        finally:
            going.kill()
        said = (answer.read_bytes().decode(), told.read_bytes().decode())
        return subprocess.CompletedProcess(list(map(str, typed)), status, *said)


def _become(words: list[str], place: str, answer: str, told: str) -> None:
    """Takes on what a command is given at its start, and ends as it does."""
    from verydeep.cli.main import main

    multiprocessing.set_start_method(None, force=True)  # Python's own, and not that of the one that forked
    os.setsid()
    os.chdir(place)
    for number, path in ((1, answer), (2, told)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
    sys.argv = ["verydeep", *words]
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    atexit._run_exitfuncs()
    os._exit(status)
