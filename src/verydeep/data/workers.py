"""Processes that read photos, and what each of them is at: so that its end, or its silence, names the photo."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import os
import shutil
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, get_worker_info
from torch.utils.data import Dataset as TorchDataset

from ..core.device import LoaderSettings
from ..core.errors import VerydeepError
from ..core.pixel_limit import allow_pixels, most_pixels
from ..core.script import UNGUARDED, imported, known_to_children, leave_if_imported, spawns, what_to_write
from ..core.worker_sockets import place_sockets

NOTHING = -1  # what a process is at that waits
PAUSE = 1.0  # seconds before a photo is read again; twice as many each time
DIE_WITH_PARENT = 1  # prctl's PR_SET_PDEATHSIG
SHARED_MEMORY = Path("/dev/shm")
PREFETCHED = 3  # batches of a process that wait, and the one it is at
OF_QUEUES = 2**20  # bytes: semaphores, and small things
_all_begun: weakref.WeakSet[Any] = weakref.WeakSet()  # processes that read, to be ended at the latest with this one


@dataclass(frozen=True)
class Fault:
    """In place of a photo that could not be read: the sentence that says why, and whether that may pass."""

    message: str
    may_pass: bool = False


class WatchedLoader:
    """Items of a set, in order or by keys, read by `LoaderSettings`; can be gone through again and again.

    Args:
        items: what to ask for an item by its key; gives it, or a `Fault`.
        where: what a photo is called, by an item's key.
        tensor_bytes: of what a process is asked for at once, which travels through shared memory.
        how: more arguments of PyTorch's DataLoader.

    Raises:
        VerydeepError: there is too little shared memory.
    """

    def __init__(
        self,
        items: TorchDataset[Any],
        where: Callable[[Any], str],
        readers: LoaderSettings,
        tensor_bytes: int = 0,
        **how: Any,
    ) -> None:
        self._readers, self._where = readers, where
        self._need = readers.count * PREFETCHED * tensor_bytes + OF_QUEUES
        self._at = torch.full((max(1, readers.count),), NOTHING)
        if readers.count:
            leave_if_imported()
            if imported():
                raise VerydeepError(what_to_write())
            if _shared_memory() < self._need:
                raise VerydeepError(self._no_shared_memory())
            place_sockets()
            self._at.share_memory_()  # type: ignore[no-untyped-call]
        self._loader: DataLoader[Any] = DataLoader(
            _Noted(items, self._at, readers.retries, where),
            num_workers=readers.count,
            worker_init_fn=partial(_begin, os.getpid(), most_pixels()),
            **how,
        )

    def __iter__(self) -> Iterator[Any]:
        """The items; raises VerydeepError where a process ends or does not answer."""
        if not self._readers.count:
            yield from self._loader
            return
        patience = _Patience(self._readers.timeout)
        try:
            # Processes that were there before are told to begin again, and are waited for.
            patience.waits(getattr(self._loader._iterator, "_workers", []))
            found = _begun(self._loader)
            while True:
                patience.waits(found._workers)
                try:
                    item = next(found)
                except StopIteration:
                    return
                patience.heard()
                yield item
        except (RuntimeError, EOFError, OSError) as fault:
            sentence = self._sentence(str(fault), patience.workers, patience.gave_up)
            if not patience.workers and spawns() and isinstance(fault, ConnectionError | EOFError):
                sentence = what_to_write()  # a process was gone before it was told what to do
            if sentence is None:
                raise
            raise VerydeepError(sentence) from None
        finally:
            patience.end()

    def _sentence(self, fault: str, workers: list[Any], gave_up: bool) -> str | None:
        """What a mistake of the processes is called; None for another."""
        wait([worker.sentinel for worker in workers], 1.0)  # a broken connection is known before its process's end
        dead = [worker for worker in workers if worker.exitcode not in (None, 0)]
        full = any(word in fault for word in ("allocate shared memory", "No space left", "Bus error"))
        if full or (gave_up and _shared_memory() < OF_QUEUES):
            return self._no_shared_memory()
        if gave_up:
            return (
                f"a process that reads photos has not answered for {self._readers.timeout} s; "
                f"{self._names(workers, workers)}: is the disk there? Mend or remove it, or raise --read-timeout."
            )
        if any(worker.exitcode == UNGUARDED for worker in dead):
            return what_to_write()
        if dead and all(worker.exitcode > 0 for worker in dead):  # by itself: who is killed has a negative one
            ended = f"a process that reads photos ended with status {dead[0].exitcode}; {self._names(workers, dead)}, "
            return f"{ended}and what it said stands above. " + (f"If {what_to_write()}" if spawns() else "")
        if dead or "exited unexpectedly" in fault:
            return (
                f"a process that reads photos was killed, perhaps for memory; {self._names(workers, dead or workers)}: "
                "try fewer --workers, and go on with --resume where it was a training."
            )
        return None

    def _names(self, workers: list[Any], those: list[Any]) -> str:
        """The photos that those processes are at."""
        at = [int(self._at[place]) for place, worker in enumerate(workers) if worker in those]
        names = sorted({self._where(index) for index in at if index != NOTHING})
        return f"it was at {' or '.join(names)}" if names else "it was at no photo"

    def _no_shared_memory(self) -> str:
        return (
            f"{self._readers.count} processes that read photos need about {self._need / 2**20:.0f} MB of shared "
            f"memory, and {_shared_memory() / 2**20:.0f} MB are free: make room in {SHARED_MEMORY}, or try fewer "
            "--workers, a smaller --batch, or --workers 0."
        )


def _shared_memory() -> float:
    """Bytes that are free for what processes share; without end where it is not bounded."""
    return shutil.disk_usage(SHARED_MEMORY).free if SHARED_MEMORY.is_dir() else float("inf")


def _begun(loader: DataLoader[Any]) -> Any:
    """PyTorch's iterator over a loader, without its signal handler.

    That raises an error wherever this process is when one that reads ends, be it in the middle of something that
    cannot fail; the iterator finds out within seconds anyway.
    """
    if threading.current_thread() is threading.main_thread():  # which alone has handlers
        before = signal.getsignal(signal.SIGCHLD)
        with _undisturbed(), known_to_children():
            found = iter(loader)
            signal.signal(signal.SIGCHLD, before or signal.SIG_DFL)
    else:
        with known_to_children():
            found = iter(loader)
    _all_begun.update(getattr(found, "_workers", []))
    return found


@atexit.register
def _end_all() -> None:
    """Before Python ends it waits for processes that it asked to, in a word (SIGTERM) they do not hear."""
    for worker in list(_all_begun):
        with contextlib.suppress(ValueError, OSError):  # it is closed, or gone
            worker.kill()


@contextmanager
def _undisturbed() -> Iterator[None]:
    """A context that signals to end wait for: an iterator that is half made cannot be put away."""
    heard: list[tuple[int, Any]] = []

    def hear(number: int, frame: Any) -> None:
        heard.append((number, frame))

    numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name)]
    before = {number: signal.signal(number, hear) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)
        for number, frame in heard:
            handler(number, frame) if callable(handler := before[number]) else signal.raise_signal(number)


class _Patience(threading.Thread):
    """Kills processes that do not answer in time: who waits for them hears of nothing else."""

    def __init__(self, seconds: float) -> None:
        super().__init__(daemon=True)
        self.gave_up = False
        self.workers: list[Any] = []
        self._seconds = seconds
        self._since: float | None = None
        self._ended = threading.Event()
        self.start()

    def waits(self, workers: list[Any]) -> None:
        """An answer of some of these is waited for from now on."""
        self.workers = workers
        self._since = time.monotonic()

    def heard(self) -> None:
        """It is there."""
        self._since = None

    def end(self) -> None:
        """Nobody waits any more."""
        self._ended.set()

    def run(self) -> None:
        """Looks now and then; where this process itself was stopped meanwhile, the time begins anew."""
        pause = min(1.0, self._seconds / 4)
        looked = time.monotonic()
        while not self._ended.wait(pause):
            if time.monotonic() - looked > self._seconds / 2 and self._since is not None:
                self._since = time.monotonic()
            looked = time.monotonic()
            since = self._since
            if any(worker.exitcode for worker in self.workers):  # PyTorch finds that out by itself
                return
            if since is not None and time.monotonic() - since > self._seconds:
                self.gave_up = True
                for worker in self.workers:
                    worker.kill()
                return


@dataclass(frozen=True)
class _Noted(TorchDataset[Any]):
    """Items, with a note of which one each process is at."""

    items: TorchDataset[Any]
    at: Tensor
    retries: int
    where: Callable[[Any], str]

    def __len__(self) -> int:
        return len(self.items)  # type: ignore[arg-type]

    def __getitem__(self, key: Any) -> Any:
        place = getattr(get_worker_info(), "id", 0)
        index = key[-1] if isinstance(key, tuple) else key
        self.at[place] = index
        try:
            return self._read(key)
        except (MemoryError, OSError) as fault:
            return Fault(f"{self.where(index)} cannot be read ({str(fault) or type(fault).__name__}).")
        except Exception as fault:
            raise RuntimeError(f"while {self.where(index)} was read") from fault
        finally:
            self.at[place] = NOTHING

    def _read(self, key: Any) -> Any:
        for again in range(self.retries):
            found = self.items[key]
            if not (isinstance(found, Fault) and found.may_pass):
                return found
            time.sleep(PAUSE * 2**again)
        return self.items[key]


def _begin(parent: int, pixels: int, _number: int) -> None:
    """A process that reads leaves signals to the one that began it, which stops it in order, and uses one thread.

    Ctrl-C and many schedulers signal all processes of a job. It ends with the one that began it, however that ends.
    """
    for name in ("SIGINT", "SIGTERM", "SIGUSR1"):
        if number := getattr(signal, name, None):  # Windows has no SIGUSR1
            signal.signal(number, signal.SIG_IGN)
    allow_pixels(pixels)
    torch.set_num_threads(1)
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(DIE_WITH_PARENT, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before that was asked
            os._exit(1)
