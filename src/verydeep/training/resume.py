"""Sect. 3.1: the checkpoint that a run resumes from: the last one, or the one before it if the last is corrupt."""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..checkpoints.checkpoint import Checkpoint, Metadata, load_checkpoint, read_metadata
from ..checkpoints.run_dir import BROKEN, LAST, PREVIOUS
from ..core.errors import VerydeepError
from ..core.files import cannot_write, keep_as, read_json
from ..core.progress import Reporter
from ..core.team import Team
from .recipes import RESUMABLE_CHANGES
from .trainer import resumed


def resumable(folder: Path) -> bool:
    """Whether a directory holds a training that can be resumed."""
    return any((folder / name).exists() for name in (LAST, PREVIOUS))


def metadata_of_run(folder: Path) -> Metadata | None:
    """The metadata of a training that can be resumed; None where none can be read."""
    for name in (LAST, PREVIOUS):
        with contextlib.suppress(VerydeepError):
            return read_metadata(folder / name)
    return None


def last_good(folder: Path, reporter: Reporter, team: Team) -> Checkpoint:
    """The last checkpoint of a run; where it is corrupt the one before, which then takes its place.

    The corrupt file is kept under another name.

    Raises:
        VerydeepError: there is none, or none that is intact and of this run.
    """
    path = folder / LAST
    try:
        return _of_this_run(path)
    except VerydeepError as error:
        if not (folder / PREVIOUS).is_file():
            raise
        fault = error
    try:
        checkpoint = _of_this_run(folder / PREVIOUS)
    except VerydeepError:
        raise fault from None
    team.all_gather(None)  # all have read both before one of them is renamed
    if team.is_main:
        _put_in_place(folder)
    step = checkpoint.metadata.state["step"]
    reporter.warn(
        f"{fault} Resuming from the previous checkpoint, of step {step}; the corrupted one is kept as {BROKEN}."
    )
    return replace(checkpoint, path=path)


def _put_in_place(folder: Path) -> None:
    try:
        if (folder / LAST).exists():
            os.replace(folder / LAST, folder / BROKEN)
        keep_as(folder / PREVIOUS, folder / LAST)
    except OSError as fault:
        raise VerydeepError(cannot_write(folder / LAST, fault)) from None


def _of_this_run(path: Path) -> Checkpoint:
    """Loads a checkpoint from which the run in its directory can resume; raises VerydeepError for any other."""
    checkpoint = load_checkpoint(path)
    resumed(checkpoint)
    config = read_json(path.with_name("config.json"))
    recorded = {"settings": checkpoint.metadata.settings, "data": checkpoint.metadata.data}
    if any(_fixed(settings) != _fixed(config.get(name)) for name, settings in recorded.items()):
        raise VerydeepError(f"{path} is not of the run whose config.json is beside it.")
    return checkpoint


def _fixed(settings: Any) -> dict[str, Any]:
    """The settings that cannot change when a run is resumed."""
    known = settings if isinstance(settings, dict) else {}
    return {name: value for name, value in known.items() if name not in RESUMABLE_CHANGES}
