"""Sect. 3.1: the command that makes a run again, from what its checkpoint records."""

from __future__ import annotations

import shlex
from typing import Any

from ..checkpoints import Card
from ..config import DataSettings, TrainSettings, flag, from_json
from ..localisation.settings import BoxSettings
from ..recipes import given_for, settings_of_box_run, settings_of_run


def command_of(run: str, card: Card, out: str = "") -> list[str]:
    """The command line of a run with all settings that its name does not imply, in parts: the verb, then the flags.

    Args:
        run: the name it was trained by.
        out: another folder than the usual one.
    """
    settings = from_json(TrainSettings, card.settings)
    data = from_json(DataSettings, card.data)
    given: dict[str, Any] = given_for(lambda some: DataSettings(**{"data": data.data, **some}), data)
    verb = "verydeep localise train" if card.box_settings else "verydeep train"
    if card.box_settings:
        boxes = from_json(BoxSettings, card.box_settings)
        of_boxes = given_for(lambda some: settings_of_box_run(run, some)[1], boxes)
        given |= of_boxes
        given |= given_for(lambda some: settings_of_box_run(run, {**of_boxes, **some})[0], settings)
    else:
        given |= given_for(lambda some: settings_of_run(run, some), settings)
    given = {"data": data.data, **given, **({"out": out} if out else {})}
    return [f"{verb} {shlex.quote(run)}", *(f"--{flag(name)} {shlex.quote(_typed(to))}" for name, to in given.items())]


def _typed(value: Any) -> str:
    """A setting's value as it is typed."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return str(value)
