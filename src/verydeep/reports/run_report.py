"""Sect. 3.1 and 4 on a page: the report of one run, during training and after.

``report.html`` in the run's directory is made from what the directory holds, and from images where they still exist.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError

from ..checkpoints.checkpoint import RISK_COVERAGE, Metadata
from ..checkpoints.integrity import open_safetensors
from ..checkpoints.run_dir import BEST, EVALUATIONS, LAST, REPORT, bad_images
from ..core.errors import VerydeepError
from ..core.progress import Reporter, Silent, duration
from ..data.box_targets import located
from ..data.class_names import display_name
from ..data.open import Data, Dataset, open_data
from ..evaluation.metrics import RELIABILITY_BINS, probability_metrics, reliability
from ..evaluation.rejection import rejection_results, risk_coverage
from ..evaluation.scores import FILE_NAME, Scores, load_scores
from ..evaluation.temperature import tempered
from ..training.rerun import after_divergence, command_of
from .charts import Line, drops, line_chart, reliability_chart, risk_chart
from .figures import Read, filters_picture, mistakes, training_crops
from .html import Tile, encoded, percent, png_url, tiles, write_page
from .run_reader import EvalRecord, RunRecord, read_run, short_name

REFRESH_SECONDS = 30
FIRST_LAYER = "conv1_1.weight"
CROPS, MISTAKES, FIRST_CLASSES, NAMED_CLASSES = 16, 16, 12, 20  # as many as are shown
ERROR_NAMES = {
    "top1_error": "top-1 error",
    "gt_class_error": "GT-class error",
    "localisation_error": "localisation error",
}
BOX_ERRORS = {
    "gt_class_error": "GT-class error: wrong box of the true class",
    "localisation_error": "localisation error: no guess with the true class and a right box",
    "classification_error": "of these, no guess of the true class",
    "box_only_error": "of these, the true class with a wrong box",
    "one_guess_error": "localisation error with one guess",
    "localisation_error_without_blacklisted": "localisation error without blacklisted images, as the devkit",
    "constant_box_error": "baseline: the best constant box",
}


class LiveReport:
    """The report of a run during training, rewritten after each epoch.

    A report that cannot be written does not stop training; the reason is reported once.
    """

    def __init__(self, folder: Path, train: Dataset, reporter: Reporter) -> None:
        self._folder, self._train, self._reporter = folder, train, reporter
        self._images: _RunImages | None = None
        self._warned = False

    def write(self, running: bool = True) -> None:
        """Writes it; a page of a run that is not ``running`` does not reload itself."""
        try:
            run = read_run(self._folder, running)
            self._images = self._images or _RunImages(self._folder, run.metadata, self._train)
            _write(run, self._images, self._folder / REPORT)
        except Exception as fault:  # training continues, whatever is wrong with the page
            if not self._warned:
                self._reporter.warn(f"cannot write the run's report; training continues: {fault}")
            self._warned = True


def write_run_report(folder: Path, out: Path | None = None) -> tuple[RunRecord, Path]:
    """Writes the report of a run, by default ``report.html`` in its directory; returns its record and the page's path.

    Raises:
        VerydeepError: it is not a run directory, or the page cannot be written.
    """
    run = read_run(folder)
    return run, _write(run, _RunImages(folder, run.metadata), out or folder / REPORT)


def refresh_report(evaluation: Path, reporter: Reporter) -> None:
    """Rewrites the report of the run whose directory contains an evaluation's files; elsewhere there is none.

    A report that cannot be written is a warning; the evaluation is kept.
    """
    above = [place for place in evaluation.absolute().parents if place.name.startswith(EVALUATIONS)]
    if not above:
        return
    try:
        write_run_report(above[-1].parent)
    except VerydeepError as fault:
        reporter.warn(f"cannot update the run's report: {fault}")


class _RunImages:
    """The images of a run, opened when they are first needed, and only where they still exist."""

    def __init__(self, folder: Path, metadata: Metadata, train: Dataset | None = None) -> None:
        self._folder, self._metadata, self._train = folder, metadata, train

    @cached_property
    def crops(self) -> tuple[list[Tile], str]:
        """Training crops and a note; no crops where the note says why."""
        if not self._metadata.settings or not self._metadata.data:
            return [], "Imported weights; training data unknown."
        try:
            crops = training_crops(self._few(), self._metadata)
        except VerydeepError as fault:
            return [], f"No picture, as the training images no longer exist: {fault}"
        settings = self._metadata.train_settings
        boxes = " The target box is green." if self._metadata.is_localiser else ""
        return tiles(crops), f"Random crops of {settings.crop} pixels at S = {settings.S}, as the net sees them.{boxes}"

    def reader(self, evaluation: EvalRecord) -> Read | None:
        """Reads images of an evaluation on the run's own data; None for other data, or where the images are gone."""
        if not self._metadata.data or evaluation.folder.parent.parent.name.startswith("of-"):
            return None
        with contextlib.suppress(VerydeepError):
            return self._data.set(evaluation.set_name).source.read
        return None

    @cached_property
    def _data(self) -> Data:
        return open_data(self._metadata.data_settings, least_classes=1)

    def _few(self) -> Dataset:
        if self._train is not None:
            return self._train.evenly(CROPS)
        train, bad = self._data.set("train"), bad_images(self._folder)
        few = train.without(bad).evenly(CROPS)
        return located(few, False, Silent()).dataset if self._metadata.is_localiser else few


def _divergence(run: RunRecord) -> tuple[str, list[str]] | None:
    return after_divergence(run.run, run.metadata, run.result, run.folder) if run.state == "diverged" else None


def _write(run: RunRecord, images: _RunImages, path: Path) -> Path:
    net = f"et {run.metadata.net} at S = {run.scale}"
    crops, crops_note = images.crops
    repeatable = bool(run.metadata.settings) and run.state != "a net"  # which has lost the name it was trained by
    context = {
        "title": f"N{net}" if run.run == run.metadata.net else f"{run.run}: n{net}",
        **{"run": run, "state": run.status, "data": short_name(run.data)},
        "time_left": _time_left(run) if run.state == "training" else None,
        "divergence": _divergence(run),
        "training": training_context(run),
        "evaluations": _evaluations_table(run) if run.evaluations else None,
        **(_evaluation_context(run, run.evaluation or run.evaluations[0], images) if run.evaluations else {}),
        **{"crops": crops, "crops_note": crops_note, "filters": _filters(run.folder), "named_classes": NAMED_CLASSES},
        "command": command_of(run.run, run.metadata, str(run.folder)) if repeatable else None,
    }
    return write_page(path, "run.html", context, REFRESH_SECONDS if run.state == "training" else None)


def _time_left(run: RunRecord) -> str:
    settings = run.metadata.train_settings
    if not run.log:
        return f"At most {settings.max_epochs} epochs."
    last = run.log[-1]
    epochs = min(settings.max_epochs - last.epoch, (settings.max_steps - last.step) * last.epoch / last.step)
    median = sorted(row.seconds for row in run.log)[len(run.log) // 2]
    left = duration(max(0.0, epochs) * median)
    early = "" if settings.drop_at else ", less if it stops at a plateau"
    return f"Epoch {last.epoch} of at most {settings.max_epochs}; about {left} left{early}."


def training_context(run: RunRecord) -> dict[str, Any] | None:
    """Charts of the epochs; None for imported weights."""
    if not run.log:
        return None if run.state == "a net" else {"charts": []}
    losses = [Line("training crops", tuple((row.epoch, row.loss) for row in run.log))]
    dev = tuple((row.epoch, row.dev_loss) for row in run.log if row.dev_loss is not None)
    if not run.metadata.is_localiser and len(dev) == len(run.log):
        losses.append(Line("dev part", dev))
    errors = [
        Line("training crops", tuple((row.epoch, row.train_error) for row in run.log)),
        Line("dev part", tuple((row.epoch, row.dev_error) for row in run.log)),
    ]
    marks = drops(run.log)
    error_chart = line_chart(f"{ERROR_NAMES[run.error_name]} (%)", errors, "epoch", marks)
    return {"charts": [line_chart("loss", losses, "epoch", marks), error_chart], "drops": marks}


def _evaluations_table(run: RunRecord) -> dict[str, list[Any]]:
    """All evaluations of a run, without columns that none of them fills."""
    rows = []
    for evaluation in run.evaluations:
        rate, top5 = evaluation.images_per_second, evaluation.errors.get("top5_error")
        recall = evaluation.mean_class_recall
        rows.append(
            (
                *(evaluation.name, evaluation.photos, f"{evaluation.images:,}", *evaluation.error_and_interval),
                *("" if top5 is None else str(top5), "" if recall is None else percent(recall)),
                "" if rate is None else f"{rate:,.1f}",
                "" if evaluation in run.current else "an earlier one",
            )
        )
    heads = ["protocol", "data", "images", ERROR_NAMES[run.evaluations[0].error_name], "95 % interval", "top-5 error"]
    heads += ["mean class recall", "images/s", "checkpoint"]
    filled = [number for number in range(len(heads)) if number < 4 or any(row[number] for row in rows)]
    shown = [[row[number] for number in filled] for row in rows]
    return {"heads": [heads[number] for number in filled], "rows": shown}


def _evaluation_context(run: RunRecord, evaluation: EvalRecord, images: _RunImages) -> dict[str, Any]:
    """One evaluation in detail: errors of boxes, or by class with confused pairs and mistakes.

    Mistakes are shown on images where they can be read, else as the picture that the evaluation stored.
    """
    errors = [(text, evaluation.errors[name]) for name, text in BOX_ERRORS.items() if name in evaluation.errors]
    worst = sorted(evaluation.classes, key=lambda row: (-row.top1_error, row.name))
    rows = [(display_name(row.name), f"{row.images:,}", row.top1_error) for row in worst]
    scores = None if evaluation.of_boxes else _labelled_scores(evaluation)
    wrong = not evaluation.of_boxes and evaluation.error is not None and evaluation.error.value > 0
    return {
        **{"evaluation": evaluation, "labelled": bool(errors if evaluation.of_boxes else rows), "wrong": wrong},
        **{"box_errors": errors, "by_class": rows, "first_classes": FIRST_CLASSES},
        "mistakes": _mistakes(scores, images.reader(evaluation)) if wrong else [],
        "probabilities": None
        if scores is None or scores.truncated
        else _probabilities(scores, run.calibration(evaluation)),
        "stored": {picture: _stored(evaluation, picture) for picture in ("right", "wrong", "mistakes")},
    }


def _labelled_scores(evaluation: EvalRecord) -> Scores | None:
    """The scores that an evaluation stored; None where they are gone, or their images have no labels."""
    with contextlib.suppress(VerydeepError):
        scores = load_scores(evaluation.folder / FILE_NAME)
        return scores if scores.labelled else None
    return None


def _probabilities(scores: Scores, calibration: dict[str, Any]) -> dict[str, Any]:
    """How far posteriors are probabilities, before and after calibration: figures, the reliability diagram and the
    risk-coverage curve.
    """
    parts, temperature = {"": scores.posteriors}, calibration.get("temperature")
    if temperature is not None:
        parts["calibrated"] = tempered(scores.posteriors, temperature).astype(np.float32)
    last = list(parts.values())[-1]  # that `predict` shows
    confidence, right = last.max(axis=1), last.argmax(axis=1) == scores.labels
    curve = calibration.get(RISK_COVERAGE)
    return {
        "rows": [(name, probability_metrics(replace(scores, posteriors=part))) for name, part in parts.items()],
        **{"bins": RELIABILITY_BINS, "temperature": temperature},
        "chart": reliability_chart([reliability(part, scores.labels) for part in parts.values()]),
        "risk_chart": risk_chart(risk_coverage(confidence, right), curve),
        "rejections": [] if curve is None else rejection_results(curve, confidence, right),
    }


def _mistakes(scores: Scores | None, read: Read | None) -> list[Tile]:
    """Misclassified images; none where no image can be read."""
    if scores is None or read is None:
        return []
    images = mistakes(scores, read, MISTAKES)
    return tiles(images) if any(pixels is not None for pixels, _ in images) else []


def _stored(evaluation: EvalRecord, name: str) -> str | None:
    """The URL of a picture that the evaluation left in its folder; None without it."""
    try:
        return png_url((evaluation.folder / f"{name}.png").read_bytes())
    except OSError:
        return None


def _filters(folder: Path) -> dict[str, Any] | None:
    """The first layer's filters of the best checkpoint, else of the last."""
    for path in (folder / BEST, folder / LAST):
        with contextlib.suppress(SafetensorError, OSError, ValueError):
            with open_safetensors(path, "numpy") as file:
                weights = np.asarray(file.get_tensor(FIRST_LAYER), dtype=np.float32)
            return {"url": png_url(encoded(filters_picture(weights), "PNG")), "count": len(weights), "file": path.name}
    return None
