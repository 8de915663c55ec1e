"""Experiment trackers of others: what `log.jsonl` has goes to those that the user names, and nowhere else.

A run there has the name of the run directory and the settings of its training. ``tracking.json`` keeps its id, by which
a resumed run goes on in it. A tracker that fails is left out from then on, with a warning: training never stops for it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from ..core.errors import VerydeepError, first_line
from ..core.files import read_json, write_json

PROJECT = "verydeep"
IDS = "tracking.json"


class Tracker(Protocol):
    """A run of a tracker; ``id`` finds it again."""

    id: str

    def log(self, row: dict[str, float]) -> None:
        """Stores the numbers of an epoch."""

    def finish(self) -> None:
        """Ends the run."""


class _Wandb:
    def __init__(self, folder: Path, settings: dict[str, Any], run_id: str | None) -> None:
        wandb: Any = import_module("wandb")
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=folder.absolute().name,
            id=run_id,
            resume="allow" if run_id else None,
            config=settings,
            dir=str(folder),
            settings=wandb.Settings(console="off", disable_git=True),  # it would send what the command prints
        )
        self.id = str(self._run.id)

    def log(self, row: dict[str, float]) -> None:
        self._run.log(row, step=int(row["epoch"]))

    def finish(self) -> None:
        self._run.finish()


class _Trackio:
    def __init__(self, folder: Path, settings: dict[str, Any], run_id: str | None) -> None:
        self._trackio: Any = import_module("trackio")
        self.id = folder.absolute().name if run_id is None else run_id
        resume = "allow" if run_id else "never"
        self._trackio.init(project=PROJECT, name=self.id, config=settings, resume=resume, embed=False)  # no dashboard

    def log(self, row: dict[str, float]) -> None:
        self._trackio.log(row, step=int(row["epoch"]))

    def finish(self) -> None:
        self._trackio.finish()


class _Mlflow:
    def __init__(self, folder: Path, settings: dict[str, Any], run_id: str | None) -> None:
        self._client: Any = import_module("mlflow").MlflowClient()
        if run_id is not None:
            self.id = run_id
            self._client.update_run(run_id, status="RUNNING")
            return
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        experiment = self._client.get_experiment_by_name(name)
        number = self._client.create_experiment(name) if experiment is None else experiment.experiment_id
        self.id = self._client.create_run(number, run_name=folder.absolute().name).info.run_id
        for key, value in settings.items():
            self._client.log_param(self.id, key, value)

    def log(self, row: dict[str, float]) -> None:
        for key, value in row.items():
            self._client.log_metric(self.id, key, value, step=int(row["epoch"]))

    def finish(self) -> None:
        self._client.set_terminated(self.id)


TRACKERS: dict[str, Callable[[Path, dict[str, Any], str | None], Tracker]] = {
    "wandb": _Wandb,
    "mlflow": _Mlflow,
    "trackio": _Trackio,
}


def check_trackers(names: tuple[str, ...]) -> None:
    """Raises VerydeepError for a tracker that is not installed."""
    for name in names:
        if find_spec(name) is None:
            raise VerydeepError(f"--track {name} needs a package that is not installed: pip install {name}.")


class Trackers:
    """The trackers of a run directory, which holds its config.json."""

    def __init__(self, names: tuple[str, ...], folder: Path, resumed: bool, warn: Callable[[str], None]) -> None:
        self._warn, self._open = warn, dict[str, Tracker]()
        ids = read_json(folder / IDS) if resumed and (folder / IDS).is_file() else {}
        for name in names:
            self._try(name, partial(self._start, name, folder, ids.get(name)))
        if self._open:
            write_json(folder / IDS, ids | {name: tracker.id for name, tracker in self._open.items()})

    def _start(self, name: str, folder: Path, run_id: str | None) -> None:
        self._open[name] = TRACKERS[name](folder, read_json(folder / "config.json")["settings"], run_id)

    def log(self, row: dict[str, float]) -> None:
        """Stores the numbers of an epoch in each tracker."""
        for name, tracker in list(self._open.items()):
            self._try(name, partial(tracker.log, row))

    def finish(self) -> None:
        """Ends the run in each tracker."""
        for name, tracker in list(self._open.items()):
            self._try(name, tracker.finish)
        self._open.clear()

    def _try(self, name: str, work: Callable[[], None]) -> None:
        try:
            with open(2, "w", closefd=False) as stderr, contextlib.redirect_stdout(stderr):  # stdout is for results
                work()
        except Exception as fault:  # they raise many types
            self._open.pop(name, None)
            self._warn(f"{name} failed ({first_line(fault)}), so it does not log this run any more; training goes on")
