"""Sect. 3.1: a training run: what happens before step 1, and its files.

The data are opened and every training photo is read once; mean and colour axes are computed; the net
is made or started from another; memory is estimated; settings and environment are written down.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..checkpoints.checkpoint import Metadata, read_metadata
from ..checkpoints.model_card import write_model_card
from ..checkpoints.pretrained import Weights, read_weights
from ..checkpoints.run_dir import BEST, CLASSIFIER, LAST, RunLog, environment
from ..core.config import flag, to_json, typed, unknown_setting
from ..core.device import Machine, resolve_device
from ..core.errors import VerydeepError
from ..core.files import LEAVING, check_place, file_sha256, only_one, read_json, write_json
from ..core.interrupt import Stopping
from ..core.progress import Reporter
from ..core.settings import DataSettings, MachineSettings, TrainSettings
from ..core.team import Team
from ..data.open import Data, Dataset, check_still_there, lasting_boxes, lasting_name, moved
from ..data.statistics import ImageScan, check_readable, scan_images
from ..models.architectures import net_facts
from ..transfer.fit_layers import Fitted
from .initialise import chosen_start, first_net, origin_of
from .memory import choose_micro_batch, log_dataset
from .optim import TrainState
from .recipes import apply_overrides, papers_start, resume_overrides
from .rerun import after_divergence, probe_command
from .resume import begun, last_good
from .task import Task
from .trainer import Trainer, TrainStart, resumed

LINGERING = 30.0  # seconds that a dead leader's readers may still hold the folder


LiveReport = Callable[[Path, Dataset, Reporter], Callable[[bool], None]]


@dataclass(frozen=True)
class TrainingRun:
    """A run to be trained: its task, name and folder, and where.

    ``live_report`` makes, of the folder, the training images and the reporter, what is called where there is news in
    the folder, with whether training goes on. ``fit`` fits and probes a start.
    """

    task: Task
    name: str
    folder: Path
    wish: MachineSettings
    reporter: Reporter
    team: Team
    stop: Callable[[], bool]
    live_report: LiveReport
    fit: Callable[..., Fitted] | None = None

    @property
    def watched(self) -> Reporter:
        """A reporter for work that leaves nothing behind when it is left."""
        return Stopping(self.reporter, self.stop)

    @property
    def broke_off(self) -> bool:
        """Whether the team was begun again, and there is something of its own to go on with."""
        mine = self.team.marked(str(self.folder.absolute()))
        return self.team.restarted and mine and begun(self.folder)

    def begin(self, data: DataSettings, settings: TrainSettings) -> dict[str, Any]:
        """Trains from step 1; returns what result.json holds. Raises as `train`."""
        return self._run(lambda: _begin(self, data, settings))

    def resume(self, data_given: dict[str, Any], settings_given: dict[str, Any]) -> dict[str, Any]:
        """Goes on from the folder's last checkpoint, with the settings it was begun with."""
        return self._run(lambda: _resume(self, data_given, settings_given))

    def _run(self, prepare: Callable[[], Trainer]) -> dict[str, Any]:
        patience = LINGERING if self.team.restarted else LEAVING
        with only_one(self.folder, patience) if self.team.is_main else nullcontext():
            training = prepare()
            with training.machine.running(static_shapes=True), self._reported(training) as saved:
                ended = training.run(self.stop, saved)
        best = self.folder / BEST
        if self.team.is_main and best.is_file():
            write_model_card(best, read_metadata(best))
        if ended["diverged"]:
            text, again = after_divergence(self.name, read_metadata(self.folder / LAST), ended)
            raise VerydeepError(f"{text} {' '.join(again)}")
        self._compare(ended)
        return ended

    def _compare(self, ended: dict[str, Any]) -> None:
        """Says so where linear SVMs on the start's descriptors have a lower dev error than fine-tuning."""
        probe, best = ended["probe_dev_top1_error"], ended.get("best_dev_top1_error")
        if probe is not None and best is not None and probe < best and ended["ended"] != "interrupted":
            self.reporter.warn(
                f"linear SVMs on the start's descriptors have a dev error of {probe:.2f} %, fine-tuning {best:.2f} %: "
                f"train those with `{probe_command(read_metadata(self.folder / BEST), str(self.folder))}`"
            )

    @contextmanager
    def _reported(self, training: Trainer) -> Iterator[Callable[[], None]]:
        """A context in which the run's report is kept up to date by what it yields; however it ends, that is told."""
        if not self.team.is_main:
            yield lambda: None
            return
        report = self.live_report(self.folder, training.sets["train"], self.reporter)
        try:
            yield lambda: report(True)
        finally:
            report(False)


def _machine(settings: TrainSettings, wish: MachineSettings) -> Machine:
    """The machine for a training: a step is three times the work of the forward pass."""
    return resolve_device(wish, 3 * net_facts(settings.net, 1, settings.crop, settings.width).multiply_adds)


def route(given: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Given settings by the dataclass that has them; raises VerydeepError for one that none has."""
    kinds = (MachineSettings, DataSettings, TrainSettings)
    names = [{item.name for item in fields(kind)} for kind in kinds]
    known = set().union(*names)
    for name in given:
        if name not in known:
            raise VerydeepError(unknown_setting(flag(name), sorted(flag(item) for item in known)))
    routed = [{name: value for name, value in given.items() if name in mine} for mine in names]
    return routed[0], routed[1], routed[2]


def _begin(job: TrainingRun, data: DataSettings, settings: TrainSettings) -> Trainer:
    run, folder, reporter = job.name, job.folder, job.reporter
    machine = _machine(settings, job.wish)
    if begun(folder):
        raise VerydeepError(f"{folder} already holds a run: add --resume to go on with it, or give another --out.")
    if (folder / CLASSIFIER).exists():
        raise VerydeepError(f"{folder} holds SVMs of `verydeep svm` or `probe`: give another --out.")
    check_place(folder)
    job.team.mark(str(folder.absolute()))
    data = replace(data, data=lasting_name(data.data), boxes=lasting_boxes(data.boxes))
    opened = job.task.open(data, reporter)
    settings = chosen_start(settings)
    weights = None if settings.start == "none" else read_weights(settings.start, settings.preprocessing)
    settings = _with_batch(settings, len(opened.set("train")))
    log_dataset(opened, settings, reporter)
    if settings.start == "none" and papers_start(run):
        reporter.warn(f"in the paper {run} starts from {papers_start(run)}: --start names its folder; now from random")
    look, dev = _look(opened, settings, machine, job)
    metadata = _metadata(job, data, settings, look, weights, opened.fingerprint())
    at_once = choose_micro_batch(settings, metadata.outputs, machine, reporter, job.team.size)
    net, random = first_net(settings, weights, metadata, reporter)
    if weights is not None:
        job.task.prepare(net, metadata, look.dataset, settings, reporter)
    fitted = Fitted(random, None)
    if job.fit is not None and weights is not None:
        fitted = job.fit(net, metadata, random, (look.dataset, dev), machine, job.watched, job.team)
    log = None
    if job.team.is_main:
        _write_down(job, data, settings, weights, machine, _contents(opened))
        log = RunLog(folder, tensorboard=job.wish.tensorboard)
        _note_faults(folder, look.faults)
    sets = {"train": look.dataset, "dev": dev}
    state = TrainState(random=fitted.random, at_once=at_once, probe_error=fitted.probe_error)
    start = TrainStart(net, metadata, settings, sets, state, momentum={})
    return Trainer(job.task, start, machine, folder, log, reporter, job.team)


def _metadata(
    job: TrainingRun,
    data: DataSettings,
    settings: TrainSettings,
    look: ImageScan,
    weights: Weights | None,
    fingerprint: str,
) -> Metadata:
    """What the net must remember."""
    mean = weights.mean if weights else (float(look.mean[0]), float(look.mean[1]), float(look.mean[2]))
    return Metadata(
        net=settings.net,
        crop=settings.crop,
        width=settings.width,
        classes=look.dataset.classes,
        mean=mean,
        test_scale=settings.S.test_scale,
        pooling=settings.pooling,
        resampling=settings.resampling,
        other_side=settings.other_side,
        colour_axes=look.colour_axes.tolist(),
        data=to_json(data),
        data_fingerprint=fingerprint,
        settings=to_json(settings),
        box_settings=job.task.box_settings,
        origin=origin_of(weights),
    )


def _write_down(
    job: TrainingRun,
    data: DataSettings,
    settings: TrainSettings,
    weights: Weights | None,
    machine: Machine,
    photos: dict[str, str],
) -> None:
    """config.json and environment.json, enough to begin the run again, and to know its ``photos`` again."""
    config = {"run": job.name, "data": to_json(data), "settings": to_json(settings), "photos": photos}
    if weights is not None:  # which net exactly it began from
        config["start_sha256"] = file_sha256(Path(weights.source))
        config["start_path"] = str(Path(weights.source).absolute())  # to find it again from anywhere
    write_json(job.folder / "config.json", config)
    write_json(job.folder / "environment.json", environment(machine.describe()))


def _contents(opened: Data) -> dict[str, str]:
    """Digests of the files of the sets that training reads."""
    return {name: opened.sets[name].contents() for name in ("train", "dev")}


def _resume(job: TrainingRun, data_given: dict[str, Any], settings_given: dict[str, Any]) -> Trainer:
    run, folder, reporter = job.name, job.folder, job.reporter
    if not begun(folder):
        raise VerydeepError(f"{folder} holds no training to go on with: leave --resume out to begin one there.")
    config = read_json(folder / "config.json")
    if config.get("run") != run:
        raise VerydeepError(f"{folder} holds run {config.get('run')}, not {run}: name that run to resume it.")
    checkpoint = last_good(folder, reporter, job.team)
    metadata = checkpoint.metadata
    if metadata.box_settings != job.task.box_settings:
        ways = ", ".join(f"{flag(name)} {value}" for name, value in metadata.box_settings.items())
        told = f"box net of {ways}" if ways else "net that tells classes"
        raise VerydeepError(f"{folder} holds a {told}: resume it with the command it began with.")
    settings, data = metadata.train_settings, metadata.data_settings
    settings = apply_overrides(settings, resume_overrides(settings_given))
    data_given = typed(DataSettings, data_given)
    if "data" in data_given:
        data_given["data"] = lasting_name(data_given["data"])
    if "boxes" in data_given:
        data_given["boxes"] = lasting_boxes(data_given["boxes"])
    began_with = data
    data = apply_overrides(moved(data, data_given.get("data", data.data)), data_given)
    check_still_there(data)
    machine = _machine(settings, job.wish)
    net, state = resumed(checkpoint)
    opened = job.task.open(data, reporter)
    changed = opened.fingerprint() != metadata.data_fingerprint
    if changed or (data.data != began_with.data and config.get("photos") not in (None, _contents(opened))):
        raise VerydeepError(
            f"{opened.name} is not as it was when the run began{' (a file has changed)' if not changed else ''}: "
            "put its photos back, or begin a new run."
        )
    bad = set(_noted_faults(folder))
    sets = {name: _without(opened.sets[name], bad) for name in ("train", "dev")}
    state = replace(state, at_once=machine.device_batch or state.at_once)
    reporter.say(f"resuming {folder} at step {state.step} (epoch {state.epoch + 1})")
    metadata = replace(metadata, data=to_json(data), settings=to_json(settings))
    log = RunLog(folder, state.epoch, job.wish.tensorboard) if job.team.is_main else None
    start = TrainStart(net, metadata, settings, sets, state, checkpoint.momentum)
    return Trainer(job.task, start, machine, folder, log, reporter, job.team)


def _with_batch(settings: TrainSettings, photos: int) -> TrainSettings:
    if settings.batch:
        return settings
    return replace(settings, batch=max(1, min(256, photos // 8)))


def _look(opened: Data, settings: TrainSettings, machine: Machine, job: TrainingRun) -> tuple[ImageScan, Dataset]:
    """Both sets that training reads, looked at, without unreadable photos if those are to be skipped."""
    looks = [
        scan_images(opened.sets[name], settings.S.smallest, machine.readers, job.watched, job.team)
        for name in ("train", "dev")
    ]
    faults = {**looks[0].faults, **looks[1].faults}
    check_readable(faults, settings.bad_images == "skip", job.reporter)
    return replace(looks[0], faults=faults), looks[1].dataset


def _note_faults(folder: Path, faults: dict[str, str]) -> None:
    if faults:
        write_json(folder / "bad_images.json", faults)


def _noted_faults(folder: Path) -> list[str]:
    path = folder / "bad_images.json"
    return list(read_json(path)) if path.exists() else []


def _without(dataset: Dataset, bad: set[str]) -> Dataset:
    kept = [index for index, photo in enumerate(dataset.ids) if photo not in bad]
    return dataset.take(np.array(kept, dtype=np.int64))
