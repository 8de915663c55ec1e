"""Signals to end a command, heard even where Python loses the error that they raise.

In a destructor an error is told and forgotten, and code that catches every error passes over it. So a signal is told
again until the command leaves.
"""

from __future__ import annotations

import signal
import sys
import threading
from typing import Any

from .commands.common import leave

AGAIN_SECONDS = 2.0


class Hearing:
    """A context in which SIGTERM and SIGUSR1 leave in order, as Ctrl-C does, wherever they come."""

    def __init__(self) -> None:
        self._before: dict[int, Any] = {}
        self._usual = sys.unraisablehook
        self._timer: threading.Timer | None = None
        self._again = False

    def __enter__(self) -> Hearing:
        if threading.current_thread() is threading.main_thread():  # no other thread may say so
            for name in ("SIGINT", "SIGTERM", "SIGUSR1"):
                number = getattr(signal, name, None)  # Windows has no SIGUSR1
                # A job in the background is begun with SIGINT ignored.
                if number is not None and (name != "SIGINT" or signal.getsignal(number) is signal.default_int_handler):
                    self._before[number] = signal.signal(number, self._heard)
            sys.unraisablehook = self._lost
        return self

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
        sys.unraisablehook = self._usual
        for number, handler in self._before.items():
            signal.signal(number, handler or signal.SIG_DFL)

    def _heard(self, number: int, frame: Any) -> None:
        again, self._again = self._again, False
        if self._timer is not None:
            self._timer.cancel()
        self._timer = threading.Timer(AGAIN_SECONDS, self._tell, (number,))
        self._timer.daemon = True
        self._timer.start()
        if not (again and _leaves(sys.exc_info()[1])):
            leave(number, frame)

    def _tell(self, number: int) -> None:
        """The signal once more, to the thread that hears it, also where that waits."""
        self._again = True
        main = threading.main_thread().ident
        if hasattr(signal, "pthread_kill") and main is not None:  # Windows has none
            signal.pthread_kill(main, number)
        else:
            signal.raise_signal(number)

    def _lost(self, fault: Any) -> None:
        if not isinstance(fault.exc_value, KeyboardInterrupt):
            self._usual(fault)


def _leaves(fault: BaseException | None) -> bool:
    """Whether a command is on its way out: what is put away then must not be cut short."""
    while fault is not None:
        if isinstance(fault, KeyboardInterrupt):
            return True
        fault = fault.__context__
    return False
