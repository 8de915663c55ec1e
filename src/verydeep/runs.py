"""A run's folder: what was set, where it ran, what happened, what came out.

``config.json`` and ``environment.json`` are written before step 1; ``log.jsonl`` has a line per epoch
(and per event); ``result.json`` the end; ``last.safetensors`` and ``best.safetensors`` the net;
``evaluations/<set>/<protocol>/`` what `evaluate` found.
"""

from __future__ import annotations

import json
import platform
import subprocess
import time
from pathlib import Path
from typing import Any

from .errors import VerydeepError

LAST, BEST = "last.safetensors", "best.safetensors"


def checkpoint_of(folder: str | Path, last: bool) -> Path:
    """The checkpoint of a run's folder, or the file itself: ``best`` where there is one, unless ``last``.

    Raises:
        VerydeepError: the folder is no run.
    """
    path = Path(folder)
    if path.is_file():
        return path
    names = [LAST] if last else [BEST, LAST]
    for name in names:
        if (path / name).is_file():
            return path / name
    what = "holds no checkpoint" if path.is_dir() else "does not exist"
    raise VerydeepError(f"{folder} {what}: give the folder that `verydeep train` wrote (runs/…), or a checkpoint file.")


def write_json(path: Path, value: Any) -> None:
    """A JSON document, indented, for people and programs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf8")


def read_json(path: Path) -> Any:
    """A JSON document; raises VerydeepError where it is missing or broken."""
    try:
        return json.loads(path.read_text(encoding="utf8"))
    except (OSError, ValueError) as fault:
        raise VerydeepError(f"cannot read {path}: {fault}.") from None


def environment(machine: dict[str, Any]) -> dict[str, Any]:
    """Versions, machine and commit: enough to say where a result came from."""
    from importlib.metadata import version

    names = ("verydeep", "torch", "numpy", "pillow", "safetensors")
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": processor_name(),
        "versions": {name: version(name) for name in names},
        "commit": commit(),
        **machine,
    }


def processor_name() -> str:
    """The processor as it calls itself."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def commit() -> str | None:
    """The commit of the source tree this package runs from, if it runs from one."""
    try:
        found = subprocess.run(
            ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short=12", "HEAD"],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None


class RunLog:
    """log.jsonl: one JSON object a line, appended and flushed; with ``tensorboard`` its numbers go there too."""

    def __init__(self, folder: Path, keep_epochs: int | None = None, tensorboard: bool = False) -> None:
        """Opens the log; ``keep_epochs`` first takes out lines of later epochs, which a resumed run writes anew.

        Raises:
            VerydeepError: TensorBoard is wished and not installed.
        """
        self._board = _board(folder / "tensorboard", keep_epochs) if tensorboard else None
        self.path = folder / "log.jsonl"
        if keep_epochs is None:
            self.path.write_text("")
        elif self.path.exists():
            rows = [json.loads(line) for line in self.path.read_text(encoding="utf8").splitlines()]
            kept = [row for row in rows if row.get("epoch", 0) <= keep_epochs]
            self.path.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf8")

    def write(self, **row: Any) -> None:
        """Appends one line."""
        with self.path.open("a", encoding="utf8") as file:
            file.write(json.dumps(row) + "\n")
        if self._board is not None:
            for name, value in row.items():
                self._board.add_scalar(name, value, row["epoch"])
            self._board.flush()


def _board(folder: Path, keep_epochs: int | None) -> Any:
    """TensorBoard's writer; its events after ``keep_epochs`` are void."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise VerydeepError("tensorboard is not installed: pip install 'verydeep[tensorboard]'.") from None
    return SummaryWriter(str(folder), purge_step=None if keep_epochs is None else keep_epochs + 1)
