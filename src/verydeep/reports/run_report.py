"""Sect. 3.1 and 4 on a page: a run explains itself, while it is trained and after.

``report.html`` in the run's folder is made from what the folder tells, and from photos where they still are.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from ..checkpoints.checkpoint import Metadata
from ..checkpoints.run_dir import BEST, EVALUATIONS, LAST, REPORT
from ..core.errors import VerydeepError
from ..core.files import utf8_path
from ..core.progress import Reporter, duration
from ..core.settings import TrainSettings
from ..data.open import Dataset
from ..training.rerun import after_divergence, command_of
from .charts import Line, drops, line_chart
from .evaluations import ERROR_NAMES, test_blocks, tests_table
from .figures import filters_picture
from .html import (
    beside,
    command,
    counted,
    facts,
    folded,
    headline,
    paragraph,
    picture,
    png_of,
    section,
    table,
    write_page,
)
from .photos import RunPhotos
from .run_reader import RunRecord, read_run, short_name

REFRESH_SECONDS = 30
FIRST_LAYER = "conv1_1.weight"
ENDS = {
    "plateau": "it ended by itself, at the plateau after the last drop of the rate",
    "max_epochs": "it ended after as many epochs as were asked for",
    "max_steps": "it ended after as many steps as were asked for",
}


class LiveReport:
    """The report of a run that is being trained: written anew after each epoch.

    It never ends a training: what keeps it from being written is told once.
    """

    def __init__(self, folder: Path, train: Dataset, reporter: Reporter) -> None:
        self._folder, self._train, self._reporter = folder, train, reporter
        self._photos: RunPhotos | None = None
        self._told = False

    def write(self, running: bool = True) -> None:
        """Writes it; that of a run which does not run is finished, and is read once."""
        try:
            run = read_run(self._folder, running)
            self._photos = self._photos or RunPhotos(self._folder, run.metadata, self._train)
            _write(run, self._photos, self._folder / REPORT)
        except Exception as fault:  # whatever is wrong with a page, a training goes on
            if not self._told:
                self._reporter.warn(f"the run's report is not written, which leaves the training as it is: {fault}")
            self._told = True


def write_run_report(folder: Path, out: Path | None = None) -> tuple[RunRecord, Path]:
    """Writes the report of a run anew, by default ``report.html`` in its folder; returns what it is of, and its place.

    Raises:
        VerydeepError: the folder is no run, or the page cannot be written.
    """
    run = read_run(folder)
    return run, _write(run, RunPhotos(folder, run.metadata), out or folder / REPORT)


def refresh_report(evaluation: Path, reporter: Reporter) -> None:
    """Writes the report of the run in whose folder a test's files are; a test elsewhere has none.

    A report that cannot be written is told of, and what was tested is kept.
    """
    of_tests = [place for place in evaluation.absolute().parents if place.name.startswith(EVALUATIONS)]
    if not of_tests:
        return
    try:
        write_run_report(of_tests[-1].parent)
    except VerydeepError as fault:
        reporter.warn(f"the run's report is not written anew: {fault}")


def _write(run: RunRecord, photos: RunPhotos, path: Path) -> Path:
    net = f"et {run.metadata.net} at S = {run.scale}"
    title = f"N{net}" if run.run == run.metadata.net else f"{run.run}: n{net}"
    blocks = [*_divergence(run), _headline(run, title), *training_section(run), *_testing(run, photos)]
    blocks += [section("What the net sees", *photos.crops), *_filters(run.folder), _recipe(run)]
    return write_page(path, title, blocks, REFRESH_SECONDS if run.state == "training" else None)


def _divergence(run: RunRecord) -> list[str]:
    """The first lines of the page of a run that diverged."""
    if run.state != "diverged":
        return []
    text, again = after_divergence(run.run, run.metadata, run.result)
    return [paragraph(text), command(again)]


def _headline(run: RunRecord, title: str) -> str:
    figures = []
    if run.test is not None:
        figures.append(("test error", run.test.value, f"{run.test.interval}, {run.test.name}"))
    if run.best is not None:
        error, epoch = run.best
        figures.append(("best dev error", f"{error:.2f} %", f"epoch {epoch}" if epoch else "before training"))
    probe = run.result.get("probe_dev_top1_error")
    if isinstance(probe, float):
        figures.append(("dev error of a probe", f"{probe:.2f} %", "linear SVMs on the start's descriptors"))
    if run.rate is not None:
        figures.append(("throughput", f"{run.rate:,.1f}", "training photos/s"))
        figures.append(("time", duration(run.seconds), counted(len(run.log), "epoch")))
    figures.append(("parameters", f"{run.facts.parameters / 1e6:.2f} M", f"{run.facts.weight_layers} weight layers"))
    return headline(title, run.state, _state_told(run), figures)


def _state_told(run: RunRecord) -> str:
    kind = "Boxes of" if run.metadata.is_localiser else ""
    of = f"{kind} {len(run.metadata.classes)} classes, learnt from {short_name(run.data)}.".strip()
    done = counted(len(run.log), "epoch")
    if run.state == "training":
        return f"{of} {_time_left(run)} Written anew after each epoch; this page reads it again by itself."
    if run.state == "finished":
        return f"{of} {done}, {run.result['steps']:,} steps: {ENDS.get(str(run.result.get('ended')), 'it ended')}."
    if run.state == "diverged":
        return f"{of} {done}, {run.result['steps']:,} steps, before training diverged."
    if run.state == "a net":
        named = run.metadata.origin.get("name") or run.metadata.origin.get("file") or "weights of others"
        return f"{len(run.metadata.classes)} classes; it was not trained here, but made from {named}."
    how = "stopped in order" if run.state == "interrupted" else "ended before its time"
    return f"{of} It was {how}, after {done}; the same command with --resume goes on."


def _time_left(run: RunRecord) -> str:
    settings = run.metadata.train_settings
    if not run.log:
        return f"At most {settings.max_epochs} epochs are to come."
    last = run.log[-1]
    epochs = min(
        settings.max_epochs - last["epoch"], (settings.max_steps - last["step"]) * last["epoch"] / last["step"]
    )
    middle = sorted(row["seconds"] for row in run.log)[len(run.log) // 2]
    early = "" if settings.drop_at else ", less where a plateau ends it"
    left = duration(max(0.0, epochs) * middle)
    return f"Epoch {last['epoch']} of at most {settings.max_epochs}; about {left} left{early}."


def training_section(run: RunRecord) -> list[str]:
    """A run's curves and their numbers as a section; none of a net that was not trained here."""
    if not run.log:
        return [] if run.state == "a net" else [section("Training", paragraph("No epoch is finished yet."))]
    log, error = run.log, run.error
    called = ERROR_NAMES[error]

    def line(name: str, key: str) -> Line:
        return Line(name, tuple((row["epoch"], row[key]) for row in log))

    losses = [line("training crops", "loss")]
    if not run.metadata.is_localiser and all("dev_loss" in row for row in log):
        losses.append(line("dev part", "dev_loss"))
    errors = [line("training crops", f"train_{error}"), line("dev part", f"dev_{error}")]
    charts = beside(
        line_chart("loss", losses, "epoch", drops(log)), line_chart(f"{called} (%)", errors, "epoch", drops(log))
    )
    rows = [
        (
            *(row["epoch"], f"{row['loss']:.3f}", f"{row[f'train_{error}']:.2f} %", f"{row[f'dev_{error}']:.2f} %"),
            *(f"{row['lr']:.3g}", f"{row['images_per_second']:,.1f}", f"{row['seconds']:.1f}"),
        )
        for row in log
    ]
    heads = ["epoch", "loss", "training error", "dev error", "lr", "photos/s", "seconds"]
    text = "Dotted uprights are drops of the learning rate." if drops(log) else ""
    return [section("Training", charts, paragraph(text, "note"), folded("Numbers", table("By epoch", heads, rows)))]


def _testing(run: RunRecord, photos: RunPhotos) -> list[str]:
    """All tests, and the one to speak of in detail; else the first."""
    if not run.tests:
        return []
    shown = run.test or run.tests[0]
    blocks = [tests_table(run)]
    with contextlib.suppress(KeyError, TypeError, ValueError, AttributeError):  # a file that somebody has changed
        blocks += test_blocks(shown, photos.reader(shown))
    return [section("Testing", *blocks)]


def _filters(folder: Path) -> list[str]:
    """The filters of the best net, or of the last."""
    for path in (folder / BEST, folder / LAST):
        with contextlib.suppress(SafetensorError, OSError):
            with utf8_path(path) as opened, safe_open(opened, framework="numpy") as file:
                weights = np.asarray(file.get_tensor(FIRST_LAYER), dtype=np.float32)
            text = f"The {len(weights)} filters of conv1_1, 3x3 pixels each; grey is 0, of {path.name}."
            return [
                section("First layer", picture(png_of(filters_picture(weights)), "Filters of conv1_1", text, "pixels"))
            ]
    return []


def _recipe(run: RunRecord) -> str:
    metadata = run.metadata
    rows = [("net", _net_told(run)), ("classes", _some(metadata.classes))]
    if not metadata.settings:
        return section("What it is", facts(rows))
    settings = metadata.train_settings
    rows += [
        ("data", run.data),
        ("folder", str(run.folder)),
        *_settings_told(metadata, settings),
        *_machine_told(run.environment),
    ]
    if run.state == "a net":  # nothing tells by what name it was trained
        return section("Data and recipe", facts(rows))
    again = command(command_of(run.run, metadata, str(run.folder)))
    return section(
        "Data and recipe",
        facts(rows),
        paragraph("The command that makes it again, from the folder it was begun in:"),
        again,
    )


def _net_told(run: RunRecord) -> str:
    metadata, known = run.metadata, run.facts
    width = "" if metadata.width == 1 else f", {metadata.width:g} of its width"
    return (
        f"{metadata.net} of Table 1{width}: {known.weight_layers} weight layers, {known.parameters:,} parameters, "
        f"{known.multiply_adds / 1e9:.3g} G multiply-adds a crop of {metadata.crop} pixels"
    )


def _some(names: tuple[str, ...]) -> str:
    return f"{len(names)}: {', '.join(names[:20])}{', …' if len(names) > 20 else ''}"


def _settings_told(metadata: Metadata, settings: TrainSettings) -> list[tuple[str, str]]:
    """The settings that matter, in words."""
    start = f"random weights ({settings.initialise})" if settings.start == "none" else settings.start
    mirror = "half of them mirrored" if settings.mirror else "none mirrored"
    rule = f"after {settings.patience} epochs in which the dev error does not improve by {settings.improvement:g}"
    if settings.drop_at:
        rule = f"after epochs {', '.join(map(str, settings.drop_at))}"
    times = "" if settings.drop_at else f"at most {counted(settings.drops, 'time')}, "
    shift = "none" if settings.colour_shift == "off" else f"by PCA ({settings.colour_shift})"
    rows = [
        ("start", start),
        ("learns", {"all": "all layers", "fc": "the FC layers", "last": "the last layer"}[settings.learn]),
        ("crops", f"{settings.crop} pixels at S = {settings.S}, {mirror}; colour shift {shift}"),
        ("steps", f"batches of {settings.batch}, momentum {settings.momentum:g}, L2 {settings.weight_decay:g}"),
        ("learning rate", f"{settings.lr:g}, divided by 10 {times}{rule}"),
        ("ends", f"after {settings.max_epochs} epochs or {settings.max_steps:,} steps at the latest"),
        ("seed", str(settings.seed)),
    ]
    if metadata.is_localiser:
        boxes = metadata.localiser_settings
        what = "a box for each class (PCR)" if boxes.regression == "PCR" else "one box for all classes (SCR)"
        rows.insert(0, ("tells", f"{what}, {'with' if boxes.dropout else 'without'} dropout"))
    return rows


def _machine_told(environment: dict[str, Any]) -> list[tuple[str, str]]:
    if not environment:
        return []
    versions = environment.get("versions")
    names = [f"{name} {value}" for name, value in versions.items()] if isinstance(versions, dict) else []
    words = [f"{environment.get(name)}" for name in ("processor", "device", "precision")]
    words.append(f"threads: {environment.get('threads')}")
    return [
        ("machine", ", ".join(words)),
        ("software", ", ".join([f"Python {environment.get('python')}", *names])),
        ("begun", f"{environment.get('time')}, commit {environment.get('commit')}"),
    ]
