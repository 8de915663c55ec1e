"""The files of a run directory.

``config.json`` (settings) and ``environment.json`` (machine, versions) are written before step 1; ``log.jsonl`` has a
line per epoch; ``tracking.json`` the ids of the run in trackers; ``result.json`` the outcome; ``last.safetensors`` and
``best.safetensors`` are checkpoints, and ``previous.safetensors`` the one before ``last``;
``evaluations/<set>/<protocol>/`` holds the results of `evaluate`; ``report.html`` shows all of it.
"""

from __future__ import annotations

import contextlib
import json
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from ..core.errors import VerydeepError
from ..core.files import cannot_write, check_place, read_json, write_atomically
from .trackers import Trackers

LAST, BEST, PREVIOUS = "last.safetensors", "best.safetensors", "previous.safetensors"
BROKEN = "last.broken"  # a corrupt `LAST`, kept under this name
CLASSIFIER = "classifier.safetensors"  # of SVMs, in their own directory
EVALUATIONS, EVALUATIONS_OF_LAST = "evaluations", "evaluations-of-last"
MAPS_RESULT = "localisation.json"  # of boxes from maps, in a directory of evaluations
LOG, REPORT = "log.jsonl", "report.html"
RUNTIMES = ("onnxruntime", "openvino")  # of exported files


def checkpoint_of(folder: str | Path, last: bool) -> Path:
    """The checkpoint of a run directory (``best`` if it exists, unless ``last``), or the file itself.

    Raises:
        VerydeepError: the directory is not a run.
    """
    path = Path(folder)
    if path.is_file():
        return path
    names = [LAST] if last else [BEST, LAST]
    for name in names:
        if (path / name).is_file():
            return path / name
    what = "contains no checkpoint" if path.is_dir() else "does not exist"
    raise VerydeepError(f"{folder} {what}: use the folder that `verydeep train` wrote (runs/…), or a checkpoint file.")


def check_results_place(folder: Path) -> None:
    """Raises VerydeepError where the results of an evaluation cannot be written, or would overwrite a run."""
    check_place(folder)
    if any((folder / name).exists() for name in (LAST, BEST)):
        raise VerydeepError(f"{folder} is a run's folder: use another --out for the results.")


def run_name(checkpoint: Path) -> str:
    """The run's name of a checkpoint: as it was trained (``D/256``), else the name of its directory."""
    config = checkpoint.parent / "config.json"
    recorded = read_json(config).get("run") if config.is_file() else None
    return recorded if isinstance(recorded, str) else checkpoint.absolute().parent.name


def run_of_evaluation(scores: Path) -> Path | None:
    """The checkpoint that a scores file in a run directory belongs to; None for a scores file elsewhere."""
    for folder in scores.absolute().parents:
        if folder.name in (EVALUATIONS, EVALUATIONS_OF_LAST):
            names = [BEST, LAST] if folder.name == EVALUATIONS else [LAST]
            return next((folder.parent / name for name in names if (folder.parent / name).is_file()), None)
    return None


def bad_images(folder: Path) -> frozenset[str]:
    """The unreadable images that a run's training skipped."""
    path = folder / "bad_images.json"
    return frozenset(read_json(path)) if path.is_file() else frozenset()


def environment(machine: dict[str, Any]) -> dict[str, Any]:
    """Versions, machine and commit, recorded with every result."""
    from importlib.metadata import version

    names = ("verydeep", "torch", "numpy", "pillow", "safetensors")
    used = [name for name in RUNTIMES if name in sys.modules]
    runtimes = {name: sys.modules[name].__version__.partition("-")[0] for name in used}
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": processor_name(),
        "versions": {**{name: version(name) for name in names}, **runtimes},
        "commit": commit(),
        **machine,
    }


def processor_name() -> str:
    """The CPU's model name."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def commit() -> str | None:
    """The commit of the source tree that this package runs from, if any."""
    try:
        process = subprocess.run(
            ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short=12", "HEAD"],
            capture_output=True,
            encoding="utf8",
            errors="replace",
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return process.stdout.strip() or None


class RunLog:
    """log.jsonl: one JSON object per line, flushed; its numbers are also written to TensorBoard and ``trackers``."""

    def __init__(
        self,
        folder: Path,
        keep_epochs: int | None = None,
        tensorboard: bool = False,
        trackers: Trackers | None = None,
    ) -> None:
        """Opens the log.

        Args:
            keep_epochs: removes lines of later epochs, which a resumed run writes again.
            trackers: of the same run.

        Raises:
            VerydeepError: TensorBoard is requested but not installed.
        """
        self._board = _board(folder / "tensorboard", keep_epochs) if tensorboard else None
        self._trackers = trackers
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
        if self._trackers is not None:
            self._trackers.log(row)

    def close(self) -> None:
        """Ends the run in the trackers."""
        if self._trackers is not None:
            self._trackers.finish()


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The rows of a run's log, empty without one; a line cut by a full disk or a power failure is skipped."""
    rows = []
    path = folder / LOG
    lines = path.read_text(encoding="utf8", errors="replace").splitlines() if path.is_file() else []
    for line in lines:
        with contextlib.suppress(ValueError, RecursionError):
            rows.append(json.loads(line))
    return [row for row in rows if isinstance(row, dict) and isinstance(row.get("epoch"), int)]


def _board(folder: Path, keep_epochs: int | None) -> Any:
    """TensorBoard's writer, which discards events after ``keep_epochs``."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise VerydeepError("tensorboard is not installed: pip install 'verydeep[tensorboard]'.") from None
    try:
        str(folder).encode("utf8")
    except UnicodeEncodeError:
        raise VerydeepError(f"TensorBoard needs directory names in UTF-8, unlike {folder}: rename it.") from None
    return SummaryWriter(str(folder), purge_step=None if keep_epochs is None else keep_epochs + 1)
