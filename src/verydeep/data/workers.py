"""Worker processes that read images; a worker that ends or hangs is an error that names the image it was reading.

PyTorch's DataLoader reads in the same order, but cannot promise that: with its ``timeout`` a killed worker is noticed
only when that has passed, unless its SIGCHLD handler raises an error wherever the main process is, be it in the middle
of writing a checkpoint; and the timeout also counts time in which the whole job was stopped.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import cycle, islice
from multiprocessing import util
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.sharedctypes import RawValue
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.multiprocessing  # registers how tensors travel: through shared memory

from ..core.device import LoaderSettings
from ..core.errors import VerydeepError
from ..core.pixel_limit import allow_pixels, most_pixels
from ..core.script import check_main_guard

NOTHING = -1  # in place of an image's index, while a worker waits
PAUSE = 1.0  # seconds before an image is read again; twice as many each time
PREFETCHED = 2  # keys that a worker has at once
CHECKS = 10  # parts of the timeout; a job that is stopped as a whole (Ctrl-Z) loses one of them
SHARED_MEMORY = Path("/dev/shm")
OVERHEAD = 2**20  # bytes of shared memory: semaphores, and small things
FULL = ("allocate shared memory", "No space left")
STOP_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name)]
SOCKET_PATH = 107 if sys.platform == "linux" else 103  # most bytes, in sockaddr_un without its end
SOCKET_NAME = len("/pymp-xxxxxxxx/listener-xxxxxxxx")  # what multiprocessing appends to the folder for temporary files


@dataclass(frozen=True)
class Fault:
    """The result for an image that could not be read: a message, and whether retrying may help."""

    message: str
    may_pass: bool = False


class Items(Protocol):
    """Items by keys; must pickle."""

    def __getitem__(self, key: Any, /) -> Any:
        """An item, or a `Fault`."""


class WatchedLoader:
    """Items in the order of their keys, read by `LoaderSettings`; can be iterated again, with the same workers.

    Args:
        keys: one key an item; with ``stack`` a list of keys a batch.
        where: returns the name of an image, from its index: its key, or the last part of it.
        stack: makes a batch of a list of items.
        batch_bytes: the size of a batch, which is sent through shared memory.

    Raises:
        VerydeepError: there is too little shared memory, or a script has no main guard.
    """

    def __init__(
        self,
        items: Items,
        keys: Iterable[Any],
        where: Callable[[Any], str],
        settings: LoaderSettings,
        stack: Callable[[list[Any]], Any] | None = None,
        batch_bytes: int = 0,
    ) -> None:
        self._settings, self._keys = settings, keys
        self._reader = _Reader(items, where, settings.retries, stack, RawValue("q", NOTHING))
        self._need = settings.count * (PREFETCHED + 1) * batch_bytes + OVERHEAD
        self._workers: list[_Worker] = []
        # At the latest when this process ends, before multiprocessing waits for all daemons.
        util.Finalize(self, _end, (self._workers,), exitpriority=0)
        if settings.count:
            check_main_guard()
            if _shared_memory() < self._need:
                raise VerydeepError(self._no_shared_memory())

    def __iter__(self) -> Iterator[Any]:
        """The items; raises VerydeepError where a worker ends or hangs."""
        if not self._settings.count:
            yield from map(self._reader, self._keys)
            return
        keys, pending = iter(self._keys), deque[_Worker]()
        try:
            self._start()
            # Each worker gets every count-th key, and the next one when an item of it is taken.
            for worker, key in zip(islice(cycle(self._workers), PREFETCHED * self._settings.count), keys, strict=False):
                pending.append(self._send(worker, key))
            while pending:
                item = self._receive(pending[0])
                worker = pending.popleft()
                pending.extend(self._send(worker, key) for key in islice(keys, 1))
                yield item
        finally:
            if pending or not all(worker.process.is_alive() for worker in self._workers):
                _end(self._workers)  # items of an iteration that was not finished are still on their way

    def _start(self) -> None:
        """Starts the workers where there are none."""
        _create_socket_folder()
        while len(self._workers) < self._settings.count:
            ours, theirs = multiprocessing.Pipe()
            reader = replace(self._reader, at=RawValue("q", NOTHING))
            process = multiprocessing.Process(target=_serve, args=(reader, theirs, most_pixels()), daemon=True)
            self._workers.append(_Worker(process, ours, reader))  # known even where a signal interrupts its start
            with _blocked_signals():
                process.start()
            theirs.close()  # so that the worker's end closes the pipe

    def _send(self, worker: _Worker, key: Any) -> _Worker:
        try:
            worker.connection.send(key)
        except OSError:
            raise self._ended(worker) from None
        return worker

    def _receive(self, worker: _Worker) -> Any:
        for _ in range(CHECKS):
            if worker.connection.poll(self._settings.timeout / CHECKS):
                break
        else:
            if _shared_memory() < OVERHEAD:
                raise VerydeepError(self._no_shared_memory())
            raise VerydeepError(
                f"data-loading worker timed out after {self._settings.timeout} s while {worker.work()}; "
                "fix or remove the file, or raise --read-timeout."
            )
        try:
            item = worker.connection.recv()
        except (EOFError, OSError):
            worker.process.join(1.0)
            if worker.process.exitcode is None:
                raise
            raise self._ended(worker) from None
        if isinstance(item, _Failure):
            if any(words in item.text for words in FULL):
                raise VerydeepError(self._no_shared_memory())
            raise RuntimeError(item.text)
        return item

    def _ended(self, worker: _Worker) -> VerydeepError:
        """The error for a worker whose connection is closed."""
        worker.process.join(1.0)
        status = worker.process.exitcode or 0
        if status == -getattr(signal, "SIGBUS", 0):  # a page of shared memory that cannot be had
            return VerydeepError(self._no_shared_memory())
        if status >= 0:
            said = "its own message is above"
            return VerydeepError(f"data-loading worker exited with status {status} while {worker.work()}; {said}.")
        return VerydeepError(
            f"data-loading worker was killed, perhaps for lack of memory, while {worker.work()}; "
            "use fewer --workers, and continue a training with --resume."
        )

    def _no_shared_memory(self) -> str:
        return (
            f"{self._settings.count} data-loading workers need about {self._need / 2**20:.0f} MB of shared memory, "
            f"and {_shared_memory() / 2**20:.0f} MB are free: free space in {SHARED_MEMORY}, or use fewer --workers, "
            "a smaller --batch, or --workers 0."
        )


@dataclass(frozen=True)
class _Reader:
    """Reads items, and writes the index of the current image to shared memory."""

    items: Items
    where: Callable[[Any], str]
    retries: int
    stack: Callable[[list[Any]], Any] | None
    at: Any

    def __call__(self, key: Any) -> Any:
        """An item, or a batch of the items of a list of keys."""
        return self._item(key) if self.stack is None else self.stack([self._item(part) for part in key])

    def _item(self, key: Any) -> Any:
        self.at.value = index = key[-1] if isinstance(key, tuple) else key
        try:
            return self._read(key)
        except (MemoryError, OSError) as error:
            return Fault(f"{self.where(index)} cannot be read ({str(error) or type(error).__name__}).")
        except Exception as error:
            raise RuntimeError(f"while {self.where(index)} was read") from error
        finally:
            self.at.value = NOTHING

    def _read(self, key: Any) -> Any:
        for attempt in range(self.retries):
            item = self.items[key]
            if not (isinstance(item, Fault) and item.may_pass):
                return item
            time.sleep(PAUSE * 2**attempt)
        return self.items[key]


@dataclass(frozen=True)
class _Worker:
    """A process that reads, as the main process knows it."""

    process: BaseProcess
    connection: Connection[Any, Any]
    reader: _Reader

    def work(self) -> str:
        """What it is doing, in words."""
        index = self.reader.at.value
        return "waiting for work" if index == NOTHING else f"reading {self.reader.where(index)}"


@dataclass(frozen=True)
class _Failure:
    """An error of a worker that is no `Fault`, with its traceback."""

    text: str


def _serve(reader: _Reader, connection: Connection[Any, Any], pixels: int) -> None:
    """The main loop of a worker: sends an item for each key, until the loader closes the connection."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # on Windows, where signals cannot be blocked
    threading.Thread(target=_end_with_parent, daemon=True).start()
    allow_pixels(pixels)
    torch.set_num_threads(1)
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            key = connection.recv()
            try:
                connection.send(reader(key))
            except Exception:
                connection.send(_Failure(traceback.format_exc()))


def _end_with_parent() -> None:
    """Ends a worker when its parent process has ended in any way."""
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)


def _end(workers: list[_Worker]) -> None:
    """Kills workers, of which the last may not have started."""
    started = [worker.process for worker in workers if worker.process.pid is not None]
    for process in started:
        process.kill()
    for process in started:
        process.join(1.0)
    workers.clear()


@contextmanager
def _blocked_signals() -> Iterator[None]:
    """A context in which processes start that never receive signals to stop.

    Ctrl-C and many schedulers signal all processes of a job; the main process ends its workers itself.
    """
    if sys.platform == "win32":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _shared_memory() -> float:
    """Free bytes of shared memory; infinite if it is unlimited."""
    return shutil.disk_usage(SHARED_MEMORY).free if SHARED_MEMORY.is_dir() else float("inf")


def _create_socket_folder() -> None:
    """Creates multiprocessing's folder of sockets, through which tensors are sent, also for the workers.

    This process removes it when it exits. With the usual folder a worker could not send tensors if TMPDIR, which
    schedulers set, is too long for the path of a socket. Later versions of Python handle that themselves.
    """
    usual = tempfile.gettempdir()
    if sys.platform != "win32" and len(os.fsencode(usual)) + SOCKET_NAME > SOCKET_PATH:  # Windows has pipes
        tempfile.tempdir = "/tmp"
    try:
        util.get_temp_dir()
    finally:
        tempfile.tempdir = usual
