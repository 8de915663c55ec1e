"""The real command without the seconds in which Python imports PyTorch: one process has, and forks for each command.

A fork starts as `python -m verydeep` does, with its own words, folder, environment and output, and ends as that does,
but does not free what it shares with the server: that would copy hundreds of megabytes to the fork, for a second.
It is told what to import, reads a JSON object a line from stdin, and answers with the fork's process id, then with its
exit status.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import io
import json
import os
import resource
import runpy
import sys
import threading
from pathlib import Path
from typing import Any, NoReturn


def serve() -> dict[str, Any] | None:
    """Forks for each line; returns in a fork what it is asked, and None after an empty one or the last."""
    for name in sys.argv[1:]:
        importlib.import_module(name)
    importlib.import_module("verydeep.cli.parser").build_parser()
    gc.freeze()  # a collection in a fork would copy all of these objects
    requests, answers = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
    while (line := requests.readline()).strip():
        process = os.fork()
        if not process:
            requests.close()
            answers.close()
            asked: dict[str, Any] = json.loads(line)
            return asked
        print(process, file=answers, flush=True)
        status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        print(status, file=answers, flush=True)
    return None


def become(asked: dict[str, Any]) -> None:
    """Takes on what a process is given at its start."""
    for number, path in ((0, asked["stdin"]), (1, asked["stdout"]), (2, asked["stderr"])):
        opened = os.open(path, os.O_RDWR if number else os.O_RDONLY)
        os.dup2(opened, number)
        os.close(opened)
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["env"])
    if asked["file_limit"] is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (asked["file_limit"],) * 2)
    if asked["memory_limit"] is not None:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + asked["memory_limit"],) * 2)
    encoding, _, errors = asked["env"].get("PYTHONIOENCODING", "").partition(":")
    if encoding:
        for stream, if_not in ((sys.stdout, errors or "strict"), (sys.stderr, "backslashreplace")):
            assert isinstance(stream, io.TextIOWrapper)
            stream.reconfigure(encoding=encoding, errors=if_not)
    sys.argv = ["verydeep", *asked["words"]]


def run() -> int:
    """Runs the command as `python -m verydeep` does; returns its exit status."""
    try:
        runpy.run_module("verydeep", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return 1
    return 0


def end(status: int) -> NoReturn:
    """Ends the process as Python does: waits for threads, calls exit functions, flushes; but frees nothing."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)


if __name__ == "__main__":
    mine = serve()
    if mine is not None:
        become(mine)
        end(run())
