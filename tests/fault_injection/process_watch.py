"""A command that is watched from its start to the end of its last process, and what it leaves behind."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from harness import environment, words

MARK = "TORTURE_TRIAL"  # in the environment of a command and of all that it begins
GRACE = 5.0  # seconds that other processes of a command may take to end after it
POLL = 0.0005
OF_PYTORCH = "torchinductor_"  # a folder a user that PyTorch makes and keeps, empty here


@dataclass
class Watched:
    """A command in progress; ``waited`` are the seconds from a signal to its end."""

    going: subprocess.Popen[bytes]
    place: Path
    name: str
    mark: bytes
    sent: float = 0.0
    waited: float = 0.0

    @property
    def pid(self) -> int:
        """The command's first process."""
        return self.going.pid

    @property
    def told(self) -> str:
        """What it has said so far."""
        return (self.place / f"{self.name}.told").read_text()

    def processes(self) -> list[int]:
        """All processes of the command that live."""
        found = []
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and self.mark in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
            except OSError:  # it has ended, or is another's
                continue
        return found

    def children(self) -> list[int]:
        """Processes that the command's first one has begun; none once it has ended."""
        try:
            return [int(child) for child in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]
        except OSError:
            return []

    def listens(self) -> bool:
        """Whether the command hears signals: before, while Python begins, they end it as they end any process."""
        try:
            lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        except OSError:
            return False
        caught = next((int(line.split()[1], 16) for line in lines if line.startswith("SigCgt:")), 0)
        return bool(caught >> (signal.SIGUSR1 - 1) & 1)

    def until(self, holds: Callable[[], bool]) -> bool:
        """Waits until something holds, or the command has ended; whether it held."""
        while self.going.poll() is None:
            if holds():
                return True
            time.sleep(POLL)
        return False

    def tell(self, which: signal.Signals, process: int | None = None, whole_group: bool = False) -> None:
        """Sends a signal to the command, to one of its processes, or to all."""
        self.sent = time.monotonic()
        if whole_group:
            os.killpg(self.pid, which)
        elif process is None:
            self.going.send_signal(which)
        else:
            os.kill(process, which)

    def ended(self, which: signal.Signals | None, patience: float, may_finish: bool = False) -> list[str]:
        """Waits for the end; what is wrong with it: status, time, words, processes and files that are left.

        Args:
            which: the signal that ends it; None for a command that ends well.
            patience: seconds it may take.
            may_finish: whether the signal may have come when all was done, and the answer given.
        """
        try:
            self.going.wait(patience)
        except subprocess.TimeoutExpired:
            self.going.kill()
            self.going.wait()
            return [f"did not end within {patience:g} s: {self.told[-300:]}"]
        self.waited = time.monotonic() - self.sent
        wanted = [0 if which is None else 128 + which]
        if may_finish and which is not None and (self.place / f"{self.name}.answer").stat().st_size:
            wanted += [0, -which]
        faults = []
        if self.going.returncode not in wanted or "Traceback" in self.told:
            faults.append(f"status {self.going.returncode} and not {wanted}: {self.told[-300:]}")
        return faults + self._left()

    def _left(self) -> list[str]:
        until = time.monotonic() + GRACE
        while (orphans := self.processes()) and time.monotonic() < until:
            time.sleep(0.05)
        faults = [f"process {orphan} was left" for orphan in orphans]
        files = [*(self.place / f"{self.name}.tmp").rglob("*"), *(self.place / self.name).rglob(".*.tmp")]
        files = [path for path in files if not path.name.startswith(OF_PYTORCH)]
        return faults + [f"{path} was left" for path in files]


def watched(typed: list[object], place: Path, name: str) -> Watched:
    """Begins a command, in a group of its own, with an empty folder for temporary files."""
    temporary = place / f"{name}.tmp"
    temporary.mkdir()
    mark = f"{place}/{name}"
    # Files take what nobody reads; a pipe would be full.
    with (place / f"{name}.told").open("wb") as told, (place / f"{name}.answer").open("wb") as answer:
        going = subprocess.Popen(
            words(*typed),
            cwd=place,
            env=environment(**{MARK: mark, "TMPDIR": str(temporary)}),
            stdout=answer,
            stderr=told,
            start_new_session=True,
        )
    return Watched(going, place, name, f"{MARK}={mark}\0".encode())
