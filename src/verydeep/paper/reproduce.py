"""Sect. 4: reproduces any row of the paper's tables by name: trains and evaluates what is missing, then fuses.

Finished work is not repeated, so an interrupted reproduction resumes with the same command. It first prints what will
be trained and evaluated, how long that takes on this machine, and how much disk space it needs.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from ..api import train, train_boxes
from ..core.config import flag, typed
from ..core.errors import VerydeepError
from ..core.files import check_place, only_one
from ..core.progress import Interrupted, Reporter, Stopping, duration
from ..core.settings import BoxSettings, DataSettings, MachineSettings, MergeSettings, TrainSettings
from ..core.terminal import default_reporter
from ..data.open import Data, open_data
from ..evaluation.evaluate import prepare_evaluation
from ..training.recipes import OF_ALL_BOX_RUNS, OF_ALL_RUNS, PROFILES, papers_start
from ..training.run import route
from .estimate import estimated
from .plan import STARTED, EvalStatus, ExperimentDir, Job, Plan, RunStatus, is_box_run, run_settings
from .released_runs import check_files, released_data, take_released
from .reproduce_classification import classification_plan, classification_results
from .reproduce_localisation import localisation_plan, localisation_results
from .reproduce_transfer import transfer_plan, transfer_results
from .results import RESULTS, read_results
from .rows.row import Experiment, Row, early_softmax, find_rows
from .runnable import NO_DOLL
from .scale import DOLL, PAPER, Size

# How rows of each task are planned, and computed and stored once all runs and tests are done.
TASKS = {
    "classification": (classification_plan, classification_results),
    "localisation": (localisation_plan, localisation_results),
    "transfer": (transfer_plan, transfer_results),
}


def reproduce(
    name: str,
    data: str | None = None,
    out: str | Path | None = None,
    doll: bool = False,
    plan_only: bool = False,
    weights: dict[str, str] | None = None,
    profile: str | None = None,
    reporter: Reporter | None = None,
    stop: Callable[[], bool] = lambda: False,
    softmax_first: bool = False,
    **given: Any,
) -> dict[str, Any]:
    """Reproduces rows of the paper's tables; trains and evaluates what is missing.

    Args:
        name: a row (``table3/D/256``), a table, ``classification``, ``localisation``, ``released`` or ``transfer``.
        data, out: ``imagenet:DIR`` and ``runs`` by default, for the doll ``digits`` and ``runs/doll``.
        doll: small nets on small crops, in minutes.
        plan_only: only return the plan.
        weights: for ``released`` and ``transfer``, a weight file by net: ``{"D": …, "E": …}``.
        profile: a key of `verydeep.training.recipes.PROFILES`, whose settings all runs have; ``given`` changes them.
        stop: called after each step; returns whether to save and leave.
        softmax_first: dense evaluation of classification and released rows takes the soft-max before the spatial mean.
        given: settings that the paper leaves open (`verydeep.training.recipes.OF_ALL_RUNS`, and of localisation models
            ``OF_ALL_BOX_RUNS`` and MergeSettings), and MachineSettings.

    Returns:
        ``plan``, ``ended`` (``planned``, ``interrupted``, ``done``), ``rows`` and ``claims`` as in results.json.

    Raises:
        VerydeepError: no such row or data, a run's folder with other settings.
    """
    experiment, rows = _rows(name, doll, bool(weights), softmax_first)
    boxes, merging, given = _box_choices(name, experiment, given)
    (machine, settings), size = _routed({**_profile(profile), **given}), DOLL if doll else PAPER
    root, files, news = Path(out or size.folder), weights or {}, reporter or default_reporter()
    if experiment.task == "transfer" and not doll:
        _check_untrained(name, ["profile"] * (profile is not None) + list(settings))
    data, opened = _data(experiment, data, size, plan_only)
    trained = doll or not experiment.released
    place = ExperimentDir.of(root, size, opened, settings.get("bad_images") == "skip", trained)
    job = Job(experiment, rows, place, data, opened, files, settings | boxes, merging, machine, news, stop)
    _take_released(job, plan_only)
    return {"name": name, "folder": str(root), "size": size.name, **_run(job, plan_only)}


def _take_released(job: Job, plan_only: bool) -> None:
    """Checks the weight files of rows that evaluate them, and makes runs of them unless the job is only planned."""
    if job.data is None or not job.experiment.released or job.experiment.task == "transfer":
        return
    runs = check_files(job.rows, job.weights)
    if job.opened is not None and not plan_only:
        data = DataSettings(data=job.data)
        take_released(job.place.root, runs, job.weights, data, job.opened, job.settings, job.reporter)


def _rows(name: str, doll: bool, with_weights: bool, early: bool) -> tuple[Experiment, tuple[Row, ...]]:
    """The rows of a name; raises VerydeepError where the other arguments do not apply to them."""
    experiment, rows = find_rows(name)
    if doll and experiment.name == "released":
        raise VerydeepError(NO_DOLL)
    if with_weights and (doll or not experiment.released):
        raise VerydeepError(f"--weights is for released; the runs of {name} are trained.")
    if early and experiment.task != "classification":
        raise VerydeepError(f"--softmax-first is for the dense evaluation of classifiers, not for {name}.")
    if early:
        names, experiment = {row.name for row in rows}, early_softmax(experiment)
        rows = tuple(row for row in experiment.rows if row.name in names)
    return experiment, rows


def _box_choices(
    name: str, experiment: Experiment, given: dict[str, Any]
) -> tuple[dict[str, Any], MergeSettings, dict[str, Any]]:
    """The settings of all localisation models, those of merging, and the other settings.

    Raises:
        VerydeepError: there are such settings, and none of the rows is of a localisation model.
    """
    of_boxes, of_merging = ({item.name for item in fields(kind)} for kind in (BoxSettings, MergeSettings))
    boxes, merging = ({key: given[key] for key in given if key in of} for of in (of_boxes, of_merging))
    if chosen := [*boxes, *merging] if experiment.task != "localisation" else []:
        raise VerydeepError(f"--{flag(chosen[0])} is for localisation models, and {name} has none.")
    if fixed := [key for key in boxes if key not in OF_ALL_BOX_RUNS]:
        raise VerydeepError(f"--{flag(fixed[0])} is part of the experiment and cannot be changed.")
    rest = {key: value for key, value in given.items() if key not in of_boxes | of_merging}
    return typed(BoxSettings, boxes), MergeSettings(**typed(MergeSettings, merging)), rest


def _profile(name: str | None) -> dict[str, Any]:
    if name is not None and name not in PROFILES:
        raise VerydeepError(f"no profile {name!r}: the profiles are {', '.join(PROFILES)}.")
    return {} if name is None else PROFILES[name]


def _routed(given: dict[str, Any]) -> tuple[MachineSettings, dict[str, Any]]:
    """MachineSettings, and the training settings of every run; the experiment fixes the data."""
    machine, data, training = route(given)
    fixed = [name for name in (*data, *training) if name not in OF_ALL_RUNS]
    if fixed:
        raise VerydeepError(f"--{flag(fixed[0])} is part of the experiment and cannot be changed.")
    return machine, typed(TrainSettings, training)


def _check_untrained(name: str, given: list[str]) -> None:
    """Raises VerydeepError for options of training."""
    if given:
        raise VerydeepError(f"--{flag(given[0])} is for training, and {name} trains only SVMs.")


def _data(experiment: Experiment, data: str | None, size: Size, plan_only: bool) -> tuple[str | None, Data | None]:
    """The data's name, and the data; None where rows name their own, or a plan is made before ILSVRC is there."""
    if experiment.task == "transfer" and not size.doll:
        return data, None
    name, released = data or size.data, experiment.released and not size.doll
    settings = DataSettings(data=released_data(name) if released else name)
    if plan_only and data is None and name == "imagenet" and not os.environ.get("IMAGENET"):
        return settings.data, None
    return settings.data, open_data(settings, least_classes=1 if released else 2)


def _run(job: Job, plan_only: bool) -> dict[str, Any]:
    """Does what is missing of a job, or only plans it: ``plan``, ``ended``, ``rows``, ``claims``."""
    root, (plan_of, results_of) = job.place.root, TASKS[job.experiment.task]
    check_place(root)
    read_results(root / RESULTS)  # before the work, not after it
    plan = estimated(plan_of(job), job.opened, job.machine, job.reporter)
    outcome: dict[str, Any] = {"plan": plan.to_json(tuple(job.weights)), "ended": "planned", "rows": {}, "claims": {}}
    if plan_only:
        return outcome
    _log(plan, job.reporter)
    with only_one(root):
        try:
            _train_missing(job, plan)
            # Scores of a run that was trained further are no longer current.
            _test_missing(job, (plan_of(job) if plan.to_train else plan).to_test)
            return {**outcome, "ended": "done", **results_of(job)}
        except Interrupted:
            return {**outcome, "ended": "interrupted"}


def _log(plan: Plan, reporter: Reporter) -> None:
    """Prints the plan in a few lines."""
    for run in plan.to_train:
        start = papers_start(run.run) or "random weights"
        reporter.say(
            f"to train: {run.run} from {start}, S = {run.settings.S}, crop {run.settings.crop}, "
            f"at most {run.settings.max_epochs} epochs, about {duration(run.seconds)}"
            + (" (started)" if run.state == STARTED else "")
        )
    if plan.to_test:
        seconds = sum(test.seconds for test in plan.to_test)
        reporter.say(f"to evaluate: {len(plan.to_test)} protocols at one scale each, about {duration(seconds)}")
    for work in plan.to_describe:
        reporter.say(
            f"to describe: {work.data} by {work.run}, {work.layer}@{work.scale} of {work.images} images, "
            f"about {duration(work.seconds)}"
        )
    if plan.missing:
        reporter.say(f"in total about {duration(plan.seconds)} and {plan.disk / 2**30:.2f} GiB of disk space")


def _train_missing(job: Job, plan: Plan) -> None:
    """Trains all unfinished runs, each after the run it starts from; raises `Interrupted`."""
    left = plan.seconds
    for number, run in enumerate(plan.to_train, start=1):
        _check_stop(job)
        job.reporter.say(f"run {number} of {len(plan.to_train)}: {run.run}; about {duration(left)} left in total")
        _train(job, run)
        left -= run.seconds


def _train(job: Job, run: RunStatus) -> None:
    settings: dict[str, Any] = {"max_epochs": run.settings.max_epochs, "max_steps": run.settings.max_steps}
    if run.state != STARTED:
        start = papers_start(run.run)
        settings = {**run_settings(run.run, job.place.size, job.settings), "data": job.data}
        settings |= {} if start is None else {"start": str(job.place.root / start)}
    result = (train_boxes if is_box_run(run.run) else train)(
        run.run,
        out=run.folder,
        resume=run.state == STARTED,
        reporter=job.reporter,
        stop=job.stop,
        **asdict(job.machine),
        **settings,
    )
    if result["ended"] == "interrupted":
        raise Interrupted


def _test_missing(job: Job, missing: list[EvalStatus]) -> None:
    """Evaluates all parts of protocols that have no current scores; raises `Interrupted`."""
    for number, test in enumerate(missing, start=1):
        _check_stop(job)
        job.reporter.say(f"evaluation {number} of {len(missing)}: {test.run} by {test.protocol}")
        reporter = Stopping(job.reporter, job.stop)
        run, protocol = job.place.root / test.run, str(test.protocol)
        evaluation = prepare_evaluation(run, protocol, job.data, job.place.set_name, out=test.folder, reporter=reporter)
        evaluation.run(job.settings.get("bad_images", "stop"), job.machine)


def _check_stop(job: Job) -> None:
    if job.stop():
        raise Interrupted
