"""A run's folder: what was set, where it ran, what happened, what came out.

``config.json`` and ``environment.json`` are written before step 1; ``log.jsonl`` has a line per epoch
(and per event); ``result.json`` the end; ``last.safetensors`` and ``best.safetensors`` the net;
``previous.safetensors`` what ``last`` was before; ``evaluations/<set>/<protocol>/`` what `evaluate` found;
``report.html`` all of it to be looked at.
"""

from __future__ import annotations

import contextlib
import json
import platform
import subprocess
import time
from pathlib import Path
from typing import Any

from ..core.errors import VerydeepError
from ..core.files import cannot_write, read_json, write_atomically

LAST, BEST, PREVIOUS = "last.safetensors", "best.safetensors", "previous.safetensors"
BROKEN = "last.broken"  # what was found under `LAST`, where it could not be used
CLASSIFIER = "classifier.safetensors"  # of SVMs, in a folder of their own
EVALUATIONS, EVALUATIONS_OF_LAST = "evaluations", "evaluations-of-last"
LOG, REPORT = "log.jsonl", "report.html"


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


def run_name(checkpoint: Path) -> str:
    """What the run of a checkpoint is called: as it was trained (``D/256``), else its folder's name."""
    config = checkpoint.parent / "config.json"
    told = read_json(config).get("run") if config.is_file() else None
    return told if isinstance(told, str) else checkpoint.absolute().parent.name


def run_of_evaluation(scores: Path) -> Path | None:
    """The checkpoint that a scores file in a run's folder should be of; None where it lies elsewhere."""
    for folder in scores.absolute().parents:
        if folder.name in (EVALUATIONS, EVALUATIONS_OF_LAST):
            names = [BEST, LAST] if folder.name == EVALUATIONS else [LAST]
            return next((folder.parent / name for name in names if (folder.parent / name).is_file()), None)
    return None


def bad_images(folder: Path) -> frozenset[str]:
    """Photos that a run's training left out, as they could not be read."""
    path = folder / "bad_images.json"
    return frozenset(read_json(path)) if path.is_file() else frozenset()


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
        for line in info.read_text(encoding="utf8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def commit() -> str | None:
    """The commit of the source tree this package runs from, if it runs from one."""
    try:
        found = subprocess.run(
            ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short=12", "HEAD"],
            capture_output=True,
            encoding="utf8",
            errors="replace",
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
        self.path = folder / LOG
        rows = [] if keep_epochs is None else read_log(folder)
        kept = "".join(json.dumps(row) + "\n" for row in rows if row["epoch"] <= (keep_epochs or 0))
        write_atomically(self.path, lambda file: file.write(kept.encode()))

    def write(self, **row: Any) -> None:
        """Appends one line; raises VerydeepError where it cannot be written."""
        try:
            with self.path.open("a", encoding="utf8") as file:
                file.write(json.dumps(row) + "\n")
        except OSError as fault:
            raise VerydeepError(cannot_write(self.path, fault)) from None
        if self._board is not None:
            for name, value in row.items():
                self._board.add_scalar(name, value, row["epoch"])
            self._board.flush()


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The rows of a run's log, none where there is no log; a line torn by a full disk or a power cut is left out."""
    rows = []
    path = folder / LOG
    lines = path.read_text(encoding="utf8", errors="replace").splitlines() if path.is_file() else []
    for line in lines:
        with contextlib.suppress(ValueError, RecursionError):
            rows.append(json.loads(line))
    return [row for row in rows if isinstance(row, dict) and isinstance(row.get("epoch"), int)]


def _board(folder: Path, keep_epochs: int | None) -> Any:
    """TensorBoard's writer; its events after ``keep_epochs`` are void."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise VerydeepError("tensorboard is not installed: pip install 'verydeep[tensorboard]'.") from None
    try:
        str(folder).encode("utf8")
    except UnicodeEncodeError:
        raise VerydeepError(f"TensorBoard writes to folders named in UTF-8, unlike {folder}: rename it.") from None
    return SummaryWriter(str(folder), purge_step=None if keep_epochs is None else keep_epochs + 1)
