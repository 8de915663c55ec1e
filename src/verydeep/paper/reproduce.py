"""Sect. 4: any row of the paper's tables by its name: train what is missing, test what is missing, fuse.

What is done is not done again, so an interrupted reproduction goes on with the same command. Before it
starts it says what it will train and test, for how long on this machine, and how much disk that takes.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ..api import train
from ..core.config import flag, typed
from ..core.errors import VerydeepError
from ..core.files import check_place, only_one
from ..core.interrupt import Interrupted, Stopping
from ..core.progress import Reporter, Silent, duration
from ..core.settings import DataSettings, MachineSettings, TrainSettings
from ..data.open import Data, open_data
from ..evaluation.evaluate import evaluate
from ..training.recipes import OF_ALL_RUNS, papers_start
from ..training.run import route
from .estimate import estimated
from .plan import BEGUN, ExperimentDir, Plan, RunStatus, make_plan
from .released_runs import check_files, released_data, take_released
from .reproduce_localisation import BoxJob, reproduce_boxes
from .reproduce_transfer import TransferJob
from .results import write_results
from .rows.row import Experiment, Row, find_rows
from .scale import DOLL, PAPER, Size
from .stored import RESULTS, read_results


def reproduce(
    name: str,
    data: str | None = None,
    out: str | Path | None = None,
    doll: bool = False,
    plan_only: bool = False,
    weights: dict[str, str] | None = None,
    reporter: Reporter | None = None,
    stop: Callable[[], bool] = lambda: False,
    **given: Any,
) -> dict[str, Any]:
    """Reproduces rows of the paper's tables: what is missing is trained and tested.

    Args:
        name: a row (``table3/D/256``), a table, ``classification``, ``localisation``, ``released`` or ``transfer``.
        data, out: ``imagenet:DIR`` and ``runs`` by default, for the doll ``digits`` and ``runs/doll``.
        doll, plan_only: small nets on small crops, in minutes; only say what it would take.
        weights: for ``released`` and ``transfer``, a weight file by net: ``{"D": …, "E": …}``.
        stop: asked after each step whether to save and leave.
        given: what the paper leaves open (`verydeep.training.recipes.OF_ALL_RUNS`), for every run, and MachineSettings.

    Returns:
        ``plan``, ``ended`` (``planned``, ``interrupted``, ``done``), ``rows`` and ``claims`` as in results.json.

    Raises:
        VerydeepError: no such row, no such data, a run's folder of other settings.
    """
    experiment, rows = _rows(name, doll, bool(weights))
    (wish, settings), size = _routed(given), DOLL if doll else PAPER
    root, files, told = Path(out or size.folder), weights or {}, reporter or Silent()
    head = {"name": name, "folder": str(root), "size": size.name}
    if experiment.name == "transfer":
        _check_untrained(name, plan_only, settings)
        return head | _transferred(TransferJob(rows, root, data, files, wish, Stopping(told, stop)))
    released = experiment.name == "released"
    asked, opened = _data(released, data, size, plan_only)
    if released:
        _check_and_take(root, rows, files, asked, None if plan_only else opened, settings, told)
    place = ExperimentDir.of(root, size, opened, settings.get("bad_images") == "skip", trained=not released)
    if experiment.name == "localisation":
        row_of = partial(reproduce, data=data, out=out, doll=doll, plan_only=plan_only, reporter=told, stop=stop)
        boxes = BoxJob(rows, place, asked, settings, wish, told, stop)
        return head | reproduce_boxes(boxes, experiment, opened, plan_only, partial(row_of, **given))
    job = _Job(experiment, rows, place, asked, settings, wish, told, stop, tuple(files))
    return head | job.done(opened, plan_only)


def _data(released: bool, data: str | None, size: Size, plan_only: bool) -> tuple[DataSettings, Data | None]:
    """The data asked for; None where a plan is made before ILSVRC is there."""
    named = data or size.data
    asked = DataSettings(data=released_data(named) if released else named)
    if plan_only and data is None and named == "imagenet" and not os.environ.get("IMAGENET"):
        return asked, None
    return asked, open_data(asked, least_classes=1 if released else 2)


def _check_and_take(
    root: Path,
    rows: tuple[Row, ...],
    files: dict[str, str],
    asked: DataSettings,
    opened: Data | None,
    settings: dict[str, Any],
    reporter: Reporter,
) -> None:
    """The runs of released models; of a plan (``opened`` is None) their weight files are looked at alone."""
    runs = check_files(rows, files)
    if opened is not None:
        take_released(root, runs, files, asked, opened, settings, reporter)


def _check_untrained(name: str, plan_only: bool, settings: dict[str, Any]) -> None:
    """Raises VerydeepError for what only trainings have."""
    if plan_only or settings:
        wrong = "--plan" if plan_only else f"--{flag(next(iter(settings)))}"
        raise VerydeepError(f"{wrong} is for trainings, and nothing of {name} is trained but SVMs.")


def _transferred(job: TransferJob) -> dict[str, Any]:
    try:
        return job.done()
    except Interrupted:
        return {"plan": {}, "ended": "interrupted", "rows": {}, "claims": {}}


def _rows(name: str, doll: bool, with_weights: bool) -> tuple[Experiment, tuple[Row, ...]]:
    """The rows that are asked for; raises VerydeepError where the other arguments do not go with them."""
    experiment, rows = find_rows(name)
    released = experiment.name in ("released", "transfer")
    if doll and released:
        raise VerydeepError("the released models have the paper's size: there is no --doll of them.")
    if with_weights and not released:
        raise VerydeepError(f"--weights is for released; the runs of {name} are trained.")
    return experiment, rows


def _routed(given: dict[str, Any]) -> tuple[MachineSettings, dict[str, Any]]:
    """What is wished of the machine, and the settings of every run; the experiment says which data."""
    wishes, data_given, train_given = route(given)
    fixed = [name for name in (*data_given, *train_given) if name not in OF_ALL_RUNS]
    if fixed:
        raise VerydeepError(f"{flag(fixed[0])} is part of the experiment: it cannot be chosen here.")
    return MachineSettings(**typed(MachineSettings, wishes)), typed(TrainSettings, train_given)


@dataclass(frozen=True)
class _Job:
    """Some rows of an experiment, to be trained and tested at a place."""

    experiment: Experiment
    rows: tuple[Row, ...]
    place: ExperimentDir
    data: DataSettings
    given: dict[str, Any]
    wish: MachineSettings
    reporter: Reporter
    stop: Callable[[], bool]
    with_file: tuple[str, ...]  # released nets whose weight files are given

    def done(self, opened: Data | None, plan_only: bool) -> dict[str, Any]:
        """All of it, or only the plan: ``plan``, ``ended``, ``rows``, ``claims``."""
        check_place(self.place.root)
        read_results(self.place.root / RESULTS)  # before the work, not after it
        plan = estimated(self._plan(), opened, self.wish, self.reporter)
        answer: dict[str, Any] = {"plan": plan.to_json(self.with_file), "ended": "planned", "rows": {}, "claims": {}}
        if plan_only:
            return answer
        _tell(plan, self.reporter)
        with only_one(self.place.root):
            try:
                self._work(plan)
            except Interrupted:
                return {**answer, "ended": "interrupted"}
            results = write_results(self.place, self.experiment, self.rows, self.reporter)
        return {**answer, "ended": "done", **results}

    def _plan(self) -> Plan:
        return make_plan(self.rows, self.place, self.given)

    def _work(self, plan: Plan) -> None:
        """Trains and tests all that is missing; raises `Interrupted`."""
        left = plan.seconds
        for number, run in enumerate(plan.to_train, start=1):
            self._go_on()
            self.reporter.say(f"run {number} of {len(plan.to_train)}: {run.run}; about {duration(left)} left in all")
            self._train(run)
            left -= run.seconds
        missing = self._plan().to_test
        for number, test in enumerate(missing, start=1):
            self._go_on()
            self.reporter.say(f"test {number} of {len(missing)}: {test.run} by {test.protocol}")
            evaluate(
                self.place.root / test.run,
                str(test.protocol),
                data=self.data.data,
                set_name=self.place.set_name,
                out=test.folder,
                bad_images=self.given.get("bad_images", "stop"),
                machine=self.wish,
                reporter=Stopping(self.reporter, self.stop),
            )

    def _go_on(self) -> None:
        if self.stop():
            raise Interrupted

    def _train(self, work: RunStatus) -> None:
        start = papers_start(work.run)
        if work.state == BEGUN:
            settings: dict[str, Any] = {"max_epochs": work.settings.max_epochs, "max_steps": work.settings.max_steps}
        else:
            settings = {**self.place.size.settings(work.run), **self.given, "data": self.data.data}
            settings |= {} if start is None else {"start": str(self.place.root / start)}
        result = train(
            work.run,
            out=work.folder,
            resume=work.state == BEGUN,
            reporter=self.reporter,
            stop=self.stop,
            **asdict(self.wish),
            **settings,
        )
        if result["ended"] == "interrupted":
            raise Interrupted


def _tell(plan: Plan, reporter: Reporter) -> None:
    """The plan in a few lines."""
    for run in plan.to_train:
        start = papers_start(run.run) or "random weights"
        reporter.say(
            f"to train: {run.run} from {start}, S = {run.settings.S}, crop {run.settings.crop}, "
            f"at most {run.settings.max_epochs} epochs, about {duration(run.seconds)}"
            + (" (begun)" if run.state == BEGUN else "")
        )
    if plan.to_test:
        seconds = sum(test.seconds for test in plan.to_test)
        reporter.say(f"to test: {len(plan.to_test)} parts of protocols, about {duration(seconds)}")
    reporter.say(f"in all about {duration(plan.seconds)} and {plan.disk / 2**30:.2f} GiB of disk")
