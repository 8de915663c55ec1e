"""The main guard of a user's script, which worker processes that are spawned or come from a fork server import.

Without it each of them would train or test as well; Python's own error does not say what to write.
"""

from __future__ import annotations

import ast
import multiprocessing
import os
import sys
import threading
from pathlib import Path

from .errors import VerydeepError


def check_main_guard() -> None:
    """Raises VerydeepError where the script at work runs outside ``if __name__ == "__main__":`` and would run again."""
    if multiprocessing.get_start_method() == "fork" or not getattr(sys.modules["__main__"], "__file__", None):
        return
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    while frame is not None and not _is_script(frame.f_code.co_name, frame.f_globals.get("__name__")):
        frame = frame.f_back
    if frame is None or str(getattr(frame.f_globals.get("__spec__"), "name", "")).endswith("__main__"):
        return  # called by no script, or by ``python -m PACKAGE``, which is not imported again
    script = frame.f_code.co_filename
    if frame.f_globals["__name__"] == "__mp_main__" or not _guarded(script, frame.f_lineno):
        raise VerydeepError(
            f"images are read by worker processes, each of which first imports {os.path.basename(script)}: put its "
            'code below a line `if __name__ == "__main__":`, indented; or use workers=0, which reads in one process.'
        )


def _is_script(function: str, module: str | None) -> bool:
    return function == "<module>" and module in ("__main__", "__mp_main__")


def _guarded(script: str, line: int) -> bool:
    """Whether the top-level statement at a line compares ``__name__``; True where the source cannot be read."""
    try:
        statements = ast.parse(Path(script).read_bytes()).body
    except (OSError, ValueError, SyntaxError):
        return True
    current = [statement for statement in statements if statement.lineno <= line][-1:]
    compared = [part for statement in current for part in ast.walk(statement) if isinstance(part, ast.Compare)]
    names = [part.id for comparison in compared for part in ast.walk(comparison) if isinstance(part, ast.Name)]
    return "__name__" in names
