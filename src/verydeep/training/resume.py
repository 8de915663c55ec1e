"""Sect. 3.1: the checkpoint that a run goes on from: the last, or where that is broken the one before it."""

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


def begun(folder: Path) -> bool:
    """Whether a folder holds a training that can go on."""
    return any((folder / name).exists() for name in (LAST, PREVIOUS))


def metadata_of_run(folder: Path) -> Metadata | None:
    """The card of a training that can go on; None where there is none that can be read."""
    for name in (LAST, PREVIOUS):
        with contextlib.suppress(VerydeepError):
            return read_metadata(folder / name)
    return None


def last_good(folder: Path, reporter: Reporter, team: Team) -> Checkpoint:
    """The last checkpoint of a run; where it is broken the one before, which then takes its place.

    The broken file is kept beside it under another name.

    Raises:
        VerydeepError: there is none, or none that is whole and of this run.
    """
    path = folder / LAST
    try:
        return _of_this_run(path)
    except VerydeepError as mistake:
        if not (folder / PREVIOUS).is_file():
            raise
        fault = mistake
    try:
        found = _of_this_run(folder / PREVIOUS)
    except VerydeepError:
        raise fault from None
    team.all_gather(None)  # all have read both before one of them is renamed
    if team.is_main:
        _put_in_place(folder)
    step = found.metadata.state["step"]
    reporter.warn(f"{fault} Going on from the one saved before it, of step {step}; it is kept as {BROKEN}.")
    return replace(found, path=path)


def _put_in_place(folder: Path) -> None:
    try:
        if (folder / LAST).exists():
            os.replace(folder / LAST, folder / BROKEN)
        keep_as(folder / PREVIOUS, folder / LAST)
    except OSError as fault:
        raise VerydeepError(cannot_write(folder / LAST, fault)) from None


def _of_this_run(path: Path) -> Checkpoint:
    """A checkpoint from which the run in its folder can go on; raises VerydeepError for any other."""
    checkpoint = load_checkpoint(path)
    resumed(checkpoint)
    config = read_json(path.with_name("config.json"))
    told = (checkpoint.metadata.settings, checkpoint.metadata.data)
    if tuple(map(_kept, told)) != tuple(_kept(config.get(name)) for name in ("settings", "data")):
        raise VerydeepError(f"{path} is of another run than the config.json beside it.")
    return checkpoint


def _kept(settings: Any) -> dict[str, Any]:
    """Settings without those that may change when a run goes on."""
    known = settings if isinstance(settings, dict) else {}
    return {name: value for name, value in known.items() if name not in RESUMABLE_CHANGES}
