"""Ctrl-C, SIGTERM and SIGUSR1: they stop a command at once, or training after the current step."""

from __future__ import annotations

import signal
import sys
import threading
from typing import Any

from ..core.progress import Reporter

REPEAT_SECONDS = 2.0


class Signalled(KeyboardInterrupt):
    """Raised by a signal, so that temporary files are removed on the way out."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class InterruptHandler:
    """A context in which signals stop a command cleanly, with their exit status.

    Without a reporter a signal raises `Signalled` at once. With one the first signal is only recorded: the handler,
    called as the ``stop`` of long work, then returns True, and the work stops after its current step. The next raises.

    An exception raised in a destructor, or in code that catches all exceptions, is lost. So a signal that has raised is
    sent again until the command stops.
    """

    def __init__(self, reporter: Reporter | None = None) -> None:
        self.signal = 0
        self._reporter = reporter
        self._before: dict[int, Any] = {}
        self._hook_before = sys.unraisablehook
        self._timer: threading.Timer | None = None
        self._repeated = False

    def __enter__(self) -> InterruptHandler:
        if threading.current_thread() is threading.main_thread():  # only this thread can set handlers
            for name in ("SIGINT", "SIGTERM", "SIGUSR1"):
                number = getattr(signal, name, None)  # Windows has no SIGUSR1
                # A job in the background starts with SIGINT ignored, which only work that saves its state changes.
                ignored = name == "SIGINT" and signal.getsignal(signal.SIGINT) is not signal.default_int_handler
                if number is not None and not (ignored and self._reporter is None):
                    self._before[number] = signal.signal(number, self._received)
            self._hook_before, sys.unraisablehook = sys.unraisablehook, self._unraisable
        return self

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._before:
            sys.unraisablehook = self._hook_before
        for number, handler in self._before.items():
            signal.signal(number, handler or signal.SIG_DFL)

    def __call__(self) -> bool:
        return bool(self.signal)

    @property
    def status(self) -> int:
        """The exit status of a process that a signal ended; SIGTERM's where another process of the job received it."""
        return 128 + (self.signal or signal.SIGTERM)

    def _received(self, number: int, _frame: object) -> None:
        if self._reporter is not None and not self.signal:
            self.signal = number
            self._reporter.warn("stopping after this step; press Ctrl-C again to quit without saving")
            return
        repeated, self._repeated = self._repeated, False
        if self._timer is not None:
            self._timer.cancel()
        self._timer = threading.Timer(REPEAT_SECONDS, self._repeat, (number,))
        self._timer.daemon = True
        self._timer.start()
        if not (repeated and _is_leaving(sys.exc_info()[1])):
            raise Signalled(number)

    def _repeat(self, number: int) -> None:
        """Sends the signal again to the main thread, even while that waits."""
        self._repeated = True
        main = threading.main_thread().ident
        if hasattr(signal, "pthread_kill") and main is not None:  # Windows has none
            signal.pthread_kill(main, number)
        else:
            signal.raise_signal(number)

    def _unraisable(self, fault: Any) -> None:
        if not isinstance(fault.exc_value, KeyboardInterrupt):
            self._hook_before(fault)


def _is_leaving(fault: BaseException | None) -> bool:
    """Whether a command is stopping, so that its cleanup must not be interrupted."""
    while fault is not None:
        if isinstance(fault, KeyboardInterrupt):
            return True
        fault = fault.__context__
    return False
