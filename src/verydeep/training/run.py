"""Sect. 3.1: a training run: what happens before step 1, and the files of its directory.

The data are opened and every training image is read once, for the mean and the colour axes; the net is created, or
started from another; memory is estimated; settings and environment are written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from ..checkpoints.checkpoint import Checkpoint, Metadata, checkpoint_sha256, read_metadata
from ..checkpoints.model_card import write_model_card
from ..checkpoints.pretrained import Weights, read_weights
from ..checkpoints.run_dir import BEST, CLASSIFIER, LAST, RunLog, bad_images, environment
from ..checkpoints.trackers import Trackers, check_trackers
from ..core.config import flag, to_json, typed, unknown_setting
from ..core.device import Machine, resolve_device
from ..core.errors import VerydeepError
from ..core.files import LEAVING, check_place, only_one, read_json, write_json
from ..core.progress import Reporter, Stopping
from ..core.settings import DataSettings, MachineSettings, TrainSettings
from ..core.team import Team
from ..data.open import Data, Dataset, check_still_there, lasting, lasting_boxes, lasting_file, lasting_name, moved
from ..data.statistics import ImageScan, check_readable, scan_images
from ..models.architectures import net_facts
from ..transfer.fit_layers import Fitted
from .initialise import chosen_start, first_net, origin_of
from .memory import choose_micro_batch, log_dataset
from .optim import TrainState
from .recipes import apply_overrides, papers_start, resume_overrides
from .rerun import after_divergence, probe_command
from .resume import last_good, resumable
from .task import Task
from .trainer import Trainer, TrainStart, resumed

LINGERING = 30.0  # seconds for which the data workers of a dead main process may hold the directory
SETS = ("train", "dev")


LiveReport = Callable[[Path, Dataset, Reporter], Callable[[bool], None]]


@dataclass(frozen=True)
class TrainingRun:
    """A run: its task, name and directory, and the machine it trains on.

    ``live_report`` takes the directory, the training images and the reporter, and returns a callback for every change
    of the directory, which takes whether training continues. ``fit`` is `verydeep.transfer.fit_layers.fit_start` or
    None.
    """

    task: Task
    name: str
    folder: Path
    machine: MachineSettings
    reporter: Reporter
    team: Team
    stop: Callable[[], bool]
    live_report: LiveReport
    fit: Callable[..., Fitted] | None = None

    @property
    def interruptible(self) -> Reporter:
        """A reporter for work that can be interrupted without a checkpoint."""
        return Stopping(self.reporter, self.stop)

    @property
    def restarted(self) -> bool:
        """Whether torchrun has restarted the team during this run, so that it resumes."""
        marked = self.team.marked(str(self.folder.absolute()))
        return self.team.restarted and marked and resumable(self.folder)

    def start(self, data: DataSettings, settings: TrainSettings) -> dict[str, Any]:
        """Trains from step 1; returns the content of result.json. Raises as `verydeep.train`."""
        return self._run(lambda: _start(self, data, settings))

    def resume(self, data_overrides: dict[str, Any], setting_overrides: dict[str, Any]) -> dict[str, Any]:
        """Resumes from the directory's last checkpoint, with the settings of its start."""
        return self._run(lambda: _resume(self, data_overrides, setting_overrides))

    def _run(self, prepare: Callable[[], Trainer]) -> dict[str, Any]:
        if self.team.is_main:
            check_trackers(self.machine.track)
        patience = LINGERING if self.team.restarted else LEAVING
        with only_one(self.folder, patience) if self.team.is_main else nullcontext():
            trainer = prepare()
            with trainer.machine.running(static_shapes=True), self._reported(trainer) as saved:
                result = trainer.run(self.stop, saved)
        best = self.folder / BEST
        if self.team.is_main and best.is_file():
            write_model_card(best, read_metadata(best))
        if result["diverged"]:
            text, command = after_divergence(self.name, read_metadata(self.folder / LAST), result, self.folder)
            raise VerydeepError(f"{text} {' '.join(command)}")
        self._compare_with_probe(result)
        return result

    def _compare_with_probe(self, result: dict[str, Any]) -> None:
        """Warns where linear SVMs on descriptors of the initial weights have a lower dev error than fine-tuning."""
        probe, best = result["probe_dev_top1_error"], result.get("best_dev_top1_error")
        if probe is not None and best is not None and probe < best and result["ended"] != "interrupted":
            self.reporter.warn(
                f"linear SVMs on descriptors of the initial weights have a dev error of {probe:.2f} %, "
                f"fine-tuning {best:.2f} %: "
                f"train those with `{probe_command(read_metadata(self.folder / BEST), str(self.folder))}`"
            )

    @contextmanager
    def _reported(self, trainer: Trainer) -> Iterator[Callable[[], None]]:
        """Yields a callback that updates the run's report; completes the report at the end, however training ended."""
        if not self.team.is_main:
            yield lambda: None
            return
        report = self.live_report(self.folder, trainer.sets["train"], self.reporter)
        try:
            yield lambda: report(True)
        finally:
            report(False)
            trainer.close_log()


def _machine(settings: TrainSettings, machine: MachineSettings) -> Machine:
    """The machine to train on: a step costs three times the forward pass."""
    return resolve_device(machine, 3 * net_facts(settings.net, 1, settings.crop, settings.width).multiply_adds)


def route(given: dict[str, Any]) -> tuple[MachineSettings, dict[str, Any], dict[str, Any]]:
    """Settings by the dataclass that has them: machine, data, training; raises VerydeepError for an unknown one."""
    kinds = (MachineSettings, DataSettings, TrainSettings)
    names = [{item.name for item in fields(kind)} for kind in kinds]
    known = set().union(*names)
    for name in given:
        if name not in known:
            raise VerydeepError(unknown_setting(flag(name), sorted(flag(item) for item in known)))
    machine, data, training = ({name: value for name, value in given.items() if name in of} for of in names)
    return MachineSettings(**typed(MachineSettings, machine)), data, training


@dataclass(frozen=True)
class Prepared:
    """What training starts from, before anything is written."""

    start: TrainStart
    machine: Machine
    opened: Data
    weights: Weights | None
    faults: dict[str, str]

    def trainer(self, run: TrainingRun, log: RunLog | None) -> Trainer:
        """The trainer of a run."""
        return Trainer(run.task, self.start, self.machine, run.folder, log, run.reporter, run.team)


def _start(run: TrainingRun, data: DataSettings, settings: TrainSettings) -> Trainer:
    _check_new(run.folder)
    run.team.mark(str(run.folder.absolute()))
    prepared = prepare(run, data, settings)
    log = None
    if run.team.is_main:
        _write_config(run, prepared.start.metadata, prepared.weights, _contents(prepared.opened))
        write_json(run.folder / "environment.json", environment(prepared.machine.describe()))
        log = _log(run)
        if prepared.faults:
            write_json(run.folder / "bad_images.json", prepared.faults)
    return prepared.trainer(run, log)


def prepare(run: TrainingRun, data: DataSettings, settings: TrainSettings) -> Prepared:
    """Opens the data, reads all images once, and makes the net that training starts from; writes nothing."""
    machine = _machine(settings, run.machine)
    data = lasting(data)
    opened = run.task.open(data, run.reporter)
    settings = chosen_start(settings)
    weights = None if settings.start == "none" else read_weights(settings.start, settings.preprocessing)
    if not settings.batch:
        settings = replace(settings, batch=max(1, min(256, len(opened.set("train")) // 8)))
    log_dataset(opened, settings, run.reporter)
    run.task.class_weights(opened.set("train"), settings)  # an error is raised before anything is written
    start = papers_start(run.name) if weights is None else None
    if start:
        run.reporter.warn(f"in the paper {run.name} starts from {start}, not random weights: pass it to --start")
    scan, dev = _scan(run, opened, settings, machine)
    metadata = _metadata(run.task, settings, scan, weights)
    metadata = replace(metadata, data=to_json(data), data_fingerprint=opened.fingerprint())
    micro_batch = choose_micro_batch(settings, metadata.outputs, machine, run.reporter, run.team.size)
    net, random = first_net(settings, weights, metadata, run.reporter)
    fitted = Fitted(random, None)
    if weights is not None:
        run.task.prepare(net, metadata, scan.dataset, settings, run.reporter)
        if run.fit is not None:
            fitted = run.fit(net, metadata, random, (scan.dataset, dev), machine, run.interruptible, run.team)
    state = TrainState(random=fitted.random, at_once=micro_batch, probe_error=fitted.probe_error)
    beginning = TrainStart(net, metadata, settings, {"train": scan.dataset, "dev": dev}, state, momentum={})
    return Prepared(beginning, machine, opened, weights, scan.faults)


def _log(run: TrainingRun, keep_epochs: int | None = None) -> RunLog:
    """The log of a run, of which a resumed one keeps some epochs."""
    trackers = Trackers(run.machine.track, run.folder, keep_epochs is not None, run.reporter.warn)
    return RunLog(run.folder, keep_epochs, run.machine.tensorboard, trackers)


def _check_new(folder: Path) -> None:
    """Raises VerydeepError where a run cannot start in a directory."""
    if resumable(folder):
        raise VerydeepError(f"{folder} already contains a run: add --resume to continue it, or use another --out.")
    if (folder / CLASSIFIER).exists():
        raise VerydeepError(f"{folder} contains SVMs of `verydeep svm` or `probe`: use another --out.")
    check_place(folder)


def _metadata(task: Task, settings: TrainSettings, scan: ImageScan, weights: Weights | None) -> Metadata:
    """The net's metadata, without its data."""
    red, green, blue = (float(value) for value in (weights.mean if weights else scan.mean))
    return Metadata(
        net=settings.net,
        crop=settings.crop,
        width=settings.width,
        classes=scan.dataset.classes,
        mean=(red, green, blue),
        test_scale=settings.S.test_scale,
        pooling=settings.pooling,
        resampling=settings.resampling,
        other_side=settings.other_side,
        colour_axes=scan.colour_axes.tolist(),
        settings=to_json(settings),
        box_settings=task.box_settings,
        origin=origin_of(weights),
    )


def _write_config(run: TrainingRun, metadata: Metadata, weights: Weights | None, photos: dict[str, str]) -> None:
    """Writes config.json: enough to repeat the run, and to recognise its images by the digests ``photos``."""
    config: dict[str, Any] = {"run": run.name, "data": metadata.data, "settings": metadata.settings, "photos": photos}
    if weights is not None:  # identifies the file by content and by absolute path
        config["start_sha256"] = checkpoint_sha256(Path(weights.source))
        config["start_path"] = str(Path(weights.source).absolute())
    write_json(run.folder / "config.json", config)


def _contents(opened: Data) -> dict[str, str]:
    """Digests of the files of the sets that training reads."""
    return {name: opened.sets[name].contents() for name in SETS}


def _resume(run: TrainingRun, data_overrides: dict[str, Any], setting_overrides: dict[str, Any]) -> Trainer:
    config, checkpoint = _saved(run)
    metadata = checkpoint.metadata
    settings = apply_overrides(metadata.train_settings, resume_overrides(setting_overrides))
    data = _moved_data(metadata.data_settings, typed(DataSettings, data_overrides))
    machine = _machine(settings, run.machine)
    net, state = resumed(checkpoint)
    opened = run.task.open(data, run.reporter)
    photos = None if data.data == metadata.data["data"] else config.get("photos")
    _check_unchanged(opened, metadata, photos, data.exclude is not None)
    unreadable = bad_images(run.folder)
    sets = {name: opened.sets[name].without(unreadable) for name in SETS}
    state = replace(state, at_once=machine.device_batch or state.at_once)
    run.reporter.say(f"resuming {run.folder} at step {state.step} (epoch {state.epoch + 1})")
    metadata = replace(metadata, data=to_json(data), settings=to_json(settings), calibration={})  # the weights change
    log = _log(run, state.epoch) if run.team.is_main else None
    start = TrainStart(net, metadata, settings, sets, state, checkpoint.momentum)
    return Trainer(run.task, start, machine, run.folder, log, run.reporter, run.team)


def _saved(run: TrainingRun) -> tuple[dict[str, Any], Checkpoint]:
    """The config and the last good checkpoint of a run; raises VerydeepError where they are not of this run."""
    if not resumable(run.folder):
        raise VerydeepError(f"{run.folder} has no training to resume: omit --resume to start one there.")
    config = read_json(run.folder / "config.json")
    if config.get("run") != run.name:
        raise VerydeepError(
            f"{run.folder} contains run {config.get('run')}, not {run.name}: name that run to resume it."
        )
    checkpoint = last_good(run.folder, run.reporter, run.team)
    metadata = checkpoint.metadata
    boxes = to_json(metadata.localiser_settings) if metadata.is_localiser else {}  # with settings newer than the run
    if boxes != run.task.box_settings:
        settings = ", ".join(f"{flag(name)} {value}" for name, value in metadata.box_settings.items())
        kind = f"localisation model with {settings}" if metadata.is_localiser else "classifier"
        raise VerydeepError(f"{run.folder} contains a {kind}: resume it with the command that started it.")
    return config, checkpoint


def _moved_data(data: DataSettings, overrides: dict[str, Any]) -> DataSettings:
    """The data of a run, in another directory if ``overrides`` say so; raises VerydeepError if they are missing."""
    if "data" in overrides:
        overrides["data"] = lasting_name(overrides["data"])
    if "boxes" in overrides:
        overrides["boxes"] = lasting_boxes(overrides["boxes"])
    if overrides.get("exclude") is not None:
        overrides["exclude"] = lasting_file(overrides["exclude"])
    data = apply_overrides(moved(data, overrides.get("data", data.data)), overrides)
    check_still_there(data)
    return data


def _check_unchanged(opened: Data, metadata: Metadata, photos: dict[str, str] | None, excludes: bool) -> None:
    """Raises VerydeepError where data differ from a run's: other images or, for moved data, other digests."""
    other_images = opened.fingerprint() != metadata.data_fingerprint
    if other_images or (photos is not None and photos != _contents(opened)):
        listed = ", without the images that --exclude lists," if metadata.data.get("exclude") or excludes else ""
        raise VerydeepError(
            f"{opened.name}{listed} has changed since the run started"
            f"{'' if other_images else ' (a file has changed)'}: restore its images, or start a new run."
        )


def _scan(run: TrainingRun, opened: Data, settings: TrainSettings, machine: Machine) -> tuple[ImageScan, Dataset]:
    """Reads both sets once; unreadable images are left out if the settings say so."""
    scans = [
        scan_images(opened.sets[name], settings.S.smallest, machine.readers, run.interruptible, run.team)
        for name in SETS
    ]
    faults = {**scans[0].faults, **scans[1].faults}
    check_readable(faults, settings.bad_images == "skip", run.reporter)
    return replace(scans[0], faults=faults), scans[1].dataset
