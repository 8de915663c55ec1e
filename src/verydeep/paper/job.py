"""What a reproduction is given, and what an experiment's task gives the runner of `verydeep.paper.reproduce`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..core.progress import Reporter
from ..core.settings import MachineSettings
from ..data.open import Data
from .plan import ExperimentDir, Plan
from .rows.row import Experiment, Row


@dataclass(frozen=True)
class Job:
    """Rows of one experiment to reproduce, and with what.

    ``data`` is as on the command line; ``opened`` is None where a plan is made without data, and where the rows name
    their data sets themselves. ``weights`` are files of released models by net.
    """

    experiment: Experiment
    rows: tuple[Row, ...]
    place: ExperimentDir
    data: str | None
    opened: Data | None
    weights: dict[str, str]
    settings: dict[str, Any]
    machine: MachineSettings
    reporter: Reporter
    stop: Callable[[], bool]


@dataclass(frozen=True)
class Task:
    """How rows of one kind are evaluated; runs are trained and tested alike for all.

    Args:
        plan: runs and tests that the rows are made of, done or not.
        results: computes the rows once all runs and tests are done and writes them; returns ``rows`` and ``claims``.
    """

    plan: Callable[[Job], Plan]
    results: Callable[[Job], dict[str, Any]]
