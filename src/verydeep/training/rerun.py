"""Sect. 3.1: the command that repeats a run, from its checkpoint's metadata, and the one to use after divergence."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..checkpoints.checkpoint import Metadata
from ..core.config import as_typed, flag
from ..core.errors import VerydeepError
from ..core.settings import DataSettings
from .recipes import minimal_overrides, settings_of_box_run, settings_of_run


def command_of(run: str, metadata: Metadata, out: str = "") -> list[str]:
    """The command line of a run with all settings that its name does not imply, in parts: the command, then the flags.

    Args:
        run: the name it was trained by.
        out: another directory than the default.
    """
    settings = metadata.train_settings
    data = metadata.data_settings
    overrides: dict[str, Any] = minimal_overrides(lambda some: DataSettings(**{"data": data.data, **some}), data)
    verb = "verydeep localise train" if metadata.is_localiser else "verydeep train"
    if metadata.is_localiser:
        boxes = metadata.localiser_settings
        of_boxes = minimal_overrides(lambda some: settings_of_box_run(run, some)[1], boxes)
        overrides |= of_boxes
        overrides |= minimal_overrides(lambda some: settings_of_box_run(run, {**of_boxes, **some})[0], settings)
    else:
        overrides |= minimal_overrides(lambda some: settings_of_run(run, some), settings)
    overrides = {"data": data.data, **overrides, **({"out": out} if out else {})}
    flags = [(name, part) for name, value in overrides.items() for part in (value if name == "classes" else (value,))]
    return [f"{verb} {shlex.quote(run)}", *(f"--{flag(name)} {shlex.quote(as_typed(value))}" for name, value in flags)]


def after_divergence(run: str, metadata: Metadata, result: dict[str, Any], folder: Path) -> tuple[str, list[str]]:
    """The outcome of a training that diverged, as text, and the command to train again, in parts as `command_of`.

    Args:
        metadata: of its last checkpoint.
        result: the content of its result.json.
        folder: its directory.

    Raises:
        VerydeepError: the result is damaged.
    """
    error, best, returns = result.get(f"best_dev_{metadata.error}"), result.get("best_epoch"), result.get("returns")
    if not (isinstance(error, float | int | None) and isinstance(best, int) and isinstance(returns, list)):
        raise VerydeepError(f"{folder / 'result.json'} is corrupted: resume the run (--resume), which writes it again.")
    epoch = f"the best epoch, {best}" if best else "the weights it started from"
    kept = "the last finite weights" if error is None else f"{epoch} (dev error {error:.2f} %)"
    lower = {**metadata.settings, "lr": float(f"{metadata.settings['lr'] / 10 ** (1 + len(returns)):.3g}")}
    reason = result.get("diverged")
    text = f"Training diverged: {reason}. It ended with {kept}. Train again with a lower learning rate:"
    return text, command_of(run, replace(metadata, settings=lower), f"{folder}-lr{lower['lr']:g}")


def probe_command(metadata: Metadata, folder: str) -> str:
    """The command that trains linear SVMs on the descriptors of a run's start, from the same images."""
    settings, data = metadata.train_settings, metadata.data_settings
    words = ["verydeep probe --data", data.data, "--weights", settings.start, "--out", f"{folder}-probe"]
    if settings.preprocessing != "recorded":
        words += ["--preprocessing", settings.preprocessing]
    if data.classes:
        words += ["--classes", ",".join(data.classes)]
    return " ".join([words[0], *map(shlex.quote, words[1:])])
