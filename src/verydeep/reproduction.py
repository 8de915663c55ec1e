"""Sect. 4: any row of the paper's tables by its name: train what is missing, test what is missing, fuse.

What is done is not done again, so an interrupted reproduction goes on with the same command. Before it
starts it says what it will train and test, for how long on this machine, and how much disk that takes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .config import DataSettings, MachineSettings, TrainSettings, typed
from .data import Data, lasting_name, open_data
from .errors import VerydeepError
from .estimating import estimated
from .evaluation import evaluate
from .experiments import Experiment, Row, find_rows
from .experiments.sizes import DOLL, PAPER, Size
from .planning import Plan, RunWork, make_plan
from .preparing import route, train
from .progress import Advance, Reporter, Silent, duration
from .recipes import papers_start
from .releasing import take_released
from .results import Place, write_results


class _Interrupted(Exception):
    """Somebody asked to stop; what is stored is whole."""


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
    """Reproduces rows of the paper's tables.

    Args:
        name: a row (``table3/D/256``), a table (``table3``), ``classification`` or ``released``.
        data: ``imagenet:DIR`` by default, for the doll ``digits``.
        out: folder of all runs; ``runs`` by default, for the doll ``runs/doll``.
        doll: nets of an eighth of the width on crops of 64 pixels, in minutes.
        plan_only: say what it would take, and do nothing.
        weights: for ``released``, a weight file by net: ``{"D": …, "E": …}``.
        stop: asked after each step whether to save and leave.
        given: any field of TrainSettings and MachineSettings; it holds for every run.

    Returns:
        ``plan``, ``ended`` (``planned``, ``interrupted``, ``done``), ``rows`` and ``claims`` as in results.json.

    Raises:
        VerydeepError: no such row, no such data, a run's folder of other settings.
    """
    job = _job(name, data, out, doll, plan_only, weights or {}, reporter or Silent(), stop, given)
    plan = estimated(job.plan(), job.opened, job.wish, job.reporter)
    answer: dict[str, Any] = {"name": name, "folder": str(job.root), "size": job.size.name, "plan": plan.to_json()}
    if plan_only:
        return {**answer, "ended": "planned", "rows": {}, "claims": {}}
    _tell(plan, job.reporter)
    try:
        job.work(plan)
    except _Interrupted:
        return {**answer, "ended": "interrupted", "rows": {}, "claims": {}}
    return {**answer, "ended": "done", **job.results()}


def _job(
    name: str,
    data: str | None,
    out: str | Path | None,
    doll: bool,
    plan_only: bool,
    weights: dict[str, str],
    reporter: Reporter,
    stop: Callable[[], bool],
    given: dict[str, Any],
) -> _Job:
    """The job that the arguments ask for, its data opened and its weight files taken in."""
    experiment, rows = find_rows(name)
    released = experiment.name == "released"
    if doll and released:
        raise VerydeepError("the released models have the paper's size: there is no --doll of them.")
    if weights and not released:
        raise VerydeepError(f"--weights is for released; the runs of {name} are trained.")
    size = DOLL if doll else PAPER
    root = Path(out) if out else Path(size.folder)
    wishes, data_given, train_given = route(given)
    wish = MachineSettings(**typed(MachineSettings, wishes))
    asked = DataSettings(**typed(DataSettings, {"data": data or size.data, **data_given}))
    # A plan can be made before ILSVRC is there.
    absent = plan_only and not released and asked.data == "imagenet" and not os.environ.get("IMAGENET")
    opened = None if absent else open_data(asked)
    if released and opened is not None:
        take_released(root, rows, weights, asked, opened)
    settings = typed(TrainSettings, train_given)
    return _Job(experiment, rows, size, asked, opened, root, settings, wish, wishes, reporter, stop)


class _Job:
    """What is to be done, and with what."""

    def __init__(
        self,
        experiment: Experiment,
        rows: tuple[Row, ...],
        size: Size,
        data: DataSettings,
        opened: Data | None,
        root: Path,
        given: dict[str, Any],
        wish: MachineSettings,
        wishes: dict[str, Any],
        reporter: Reporter,
        stop: Callable[[], bool],
    ) -> None:
        self.experiment, self.rows, self.size, self.root = experiment, rows, size, root
        self.data, self.opened = data, opened
        self.reported = "val" if opened is None else opened.reported
        self.given, self.wish, self.wishes = given, wish, wishes
        self.reporter, self.stop = reporter, stop

    def plan(self) -> Plan:
        """What is missing now."""
        return make_plan(self.rows, self.size, self.data, self.reported, self.root, self.given)

    def work(self, plan: Plan) -> None:
        """Trains and tests all that is missing; raises `_Interrupted`."""
        left = plan.seconds
        for number, run in enumerate(plan.to_train, start=1):
            self.reporter.say(f"run {number} of {len(plan.to_train)}: {run.run}; at most {duration(left)} left in all")
            self._train(run)
            left -= run.seconds
        missing = self.plan().to_test
        for number, test in enumerate(missing, start=1):
            self.reporter.say(f"test {number} of {len(missing)}: {test.run} by {test.protocol}")
            evaluate(
                self.root / test.run,
                str(test.protocol),
                machine=self.wish,
                reporter=_Stopping(self.reporter, self.stop),
            )

    def results(self) -> dict[str, Any]:
        """The rows' results from the stored scores, and the claims they decide."""
        place = Place(self.root, self.size, self.reported, self.given.get("seed", 0))
        return write_results(place, self.experiment, self.rows)

    def _train(self, work: RunWork) -> None:
        start = papers_start(work.run)
        settings = {**self.size.settings(work.run), **self.given}
        if work.state == "begun":
            settings = {name: value for name, value in self.given.items() if name in ("max_epochs", "max_steps")}
        elif start is not None:
            settings["start"] = str(self.root / start)
        result = train(
            work.run,
            out=work.folder,
            resume=work.state == "begun",
            reporter=self.reporter,
            stop=self.stop,
            data=lasting_name(self.data.data),
            **self.wishes,
            **settings,
        )
        if result["ended"] == "interrupted":
            raise _Interrupted


class _Stopping:
    """A reporter that leaves long work, between two of its steps, once somebody asks to stop."""

    def __init__(self, reporter: Reporter, stop: Callable[[], bool]) -> None:
        self._reporter, self._stop = reporter, stop
        self.say, self.warn = reporter.say, reporter.warn

    @contextmanager
    def track(self, label: str, total: int) -> Iterator[Advance]:
        """The reporter's bar; its advance raises `_Interrupted`."""
        with self._reporter.track(label, total) as advance:

            def go_on(count: int, note: str) -> None:
                advance(count, note)
                if self._stop():
                    raise _Interrupted

            yield go_on


def _tell(plan: Plan, reporter: Reporter) -> None:
    """The plan in a few lines."""
    for run in plan.to_train:
        start = papers_start(run.run) or "random weights"
        reporter.say(
            f"to train: {run.run} from {start}, S = {run.settings.S}, crop {run.settings.crop}, "
            f"at most {run.settings.max_epochs} epochs, about {duration(run.seconds)}"
            + (" (begun)" if run.state == "begun" else "")
        )
    if plan.to_test:
        seconds = sum(test.seconds for test in plan.to_test)
        reporter.say(f"to test: {len(plan.to_test)} parts of protocols, about {duration(seconds)}")
    reporter.say(f"in all at most {duration(plan.seconds)} and {plan.disk / 2**30:.2f} GiB of disk")
