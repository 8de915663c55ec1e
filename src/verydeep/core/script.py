"""The main guard of a user's script, which worker processes import if they are spawned or start from a fork server.

Without it each of them would train or evaluate as well; Python's own error does not say what to write.
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
    """Raises VerydeepError if the running script has no ``if __name__ == "__main__":`` and workers would rerun it."""
    if multiprocessing.get_start_method() == "fork" or not getattr(sys.modules["__main__"], "__file__", None):
        return
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    while frame is not None and not _is_script(frame.f_code.co_name, frame.f_globals.get("__name__")):
        frame = frame.f_back
    if frame is None or str(getattr(frame.f_globals.get("__spec__"), "name", "")).endswith("__main__"):
        return  # not called by a script, or by ``python -m PACKAGE``, which workers do not import
    script = frame.f_code.co_filename
    if frame.f_globals["__name__"] == "__mp_main__" or not _guarded(script, frame.f_lineno):
        raise VerydeepError(
            f"worker processes that load images import {os.path.basename(script)} first: put its code below a line "
            '`if __name__ == "__main__":`, indented; or use workers=0, which loads in the main process.'
        )


def _is_script(function: str, module: str | None) -> bool:
    return function == "<module>" and module in ("__main__", "__mp_main__")


def _guarded(script: str, line: int) -> bool:
    """Whether the top-level statement at a line compares ``__name__``; True if the source cannot be read."""
    try:
        statements = ast.parse(Path(script).read_bytes()).body
    except (OSError, ValueError, SyntaxError):
        return True
    current = [statement for statement in statements if statement.lineno <= line][-1:]
    comparisons = [part for statement in current for part in ast.walk(statement) if isinstance(part, ast.Compare)]
    names = [part.id for comparison in comparisons for part in ast.walk(comparison) if isinstance(part, ast.Name)]
    return "__name__" in names
