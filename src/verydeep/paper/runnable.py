"""Which rows of the paper's tables can be reproduced with the data and weight files at hand, and what others lack."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import Any

from ..checkpoints.pretrained import locate_weights
from ..core.errors import VerydeepError
from ..core.settings import DataSettings
from ..data.open import open_data
from .released_runs import released_data
from .rows.row import MODULES, Experiment, Row, experiment, find_rows, runs_of
from .rows.transfer import data_of, doll_rows

ILSVRC = "imagenet"
NO_DOLL = "the released models have the paper's size: there is no --doll of them."


@dataclass(frozen=True)
class Runnable:
    """A row, the runs that are trained for it, and what is missing before: flags, and rows to run first."""

    row: str
    trains: tuple[str, ...]
    missing: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """``{row, trains, missing}``."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


def runnable_rows(
    name: str | None = None, data: str | None = None, weights: dict[str, str] | None = None, doll: bool = False
) -> list[Runnable]:
    """The rows below a name, all without one, in the order of the tables.

    Args:
        data: a dataset, as for `verydeep.paper.reproduce.reproduce`; without one, ILSVRC where IMAGENET names it.
        weights: weight files by net.
        doll: on digits, which are always at hand; rows of released nets on ILSVRC are left out.

    Raises:
        VerydeepError: no such row, data or weight file.
    """
    for file in (weights or {}).values():
        locate_weights(file)
    at_hand = None if doll else _dataset(data)
    found = [find_rows(name)] if name else [(of, of.rows) for of in map(experiment, MODULES)]
    if doll:
        found = [(of, rows) for of, rows in found if of.name != "released"]
        if not found:
            raise VerydeepError(NO_DOLL)
    lists = [[_runnable(of, row, at_hand, weights or {}, doll) for row in rows if row.tests] for of, rows in found]
    return [row for rows in lists for row in rows]


def _dataset(data: str | None) -> str | None:
    """The name of the dataset at hand, once opened; None for none."""
    name = data or (ILSVRC if os.environ.get("IMAGENET") else None)
    if name is None:
        return None
    located = released_data(name)
    open_data(DataSettings(data=located), least_classes=1, several=True)
    return located.partition(":")[0]


def _runnable(of: Experiment, row: Row, at_hand: str | None, weights: dict[str, str], doll: bool) -> Runnable:
    runs = runs_of((row,))
    needed = data_of(row) if of.task == "transfer" else ILSVRC
    missing = [] if doll or at_hand == needed else [f"--data {needed}:DIR"]
    if doll and of.released:
        return Runnable(row.name, runs_of(doll_rows((row,))), ())
    if not of.released:
        return Runnable(row.name, runs, (*missing, *(f"row {need}" for need in row.needs)))
    nets = dict.fromkeys(run.partition("/")[0] for run in runs)
    return Runnable(row.name, (), (*missing, *(f"--weights {net}=FILE" for net in nets if net not in weights)))
