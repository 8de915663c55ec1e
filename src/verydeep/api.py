"""What users call, from Python and from the command line alike: each composes training, tests and models with reports.

So both leave the same files. What one package does alone is public where it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from .checkpoints.run_dir import CLASSIFIER
from .core.config import from_json, typed
from .core.errors import VerydeepError
from .core.progress import Reporter, Silent
from .core.settings import (
    BoxSettings,
    DataSettings,
    DescriptorSettings,
    FeatureSettings,
    MachineSettings,
    MergeSettings,
    SvmSettings,
    TrainSettings,
    named_data,
)
from .core.team import SingleProcess, Team
from .data.open import Dataset, open_data
from .evaluation import evaluate as evaluation
from .evaluation.evaluate import Evaluation
from .evaluation.predict import Classifier, Prediction, find_photos, load_net
from .localisation import evaluate as localisation
from .localisation.evaluate import BoxEvaluation
from .localisation.task import LocalisationTask
from .reports.figures import write_box_pictures, write_evaluation_pictures
from .reports.run_report import LiveReport, refresh_report
from .reports.svm_report import write_svm_report
from .training.classification import ClassificationTask
from .training.recipes import settings_of_box_run, settings_of_run
from .training.resume import metadata_of_run
from .training.run import TrainingRun, route
from .transfer.backbone import usual_layer
from .transfer.evaluate import Transfer, learn_svms
from .transfer.extract import Extraction, extract_features
from .transfer.fit_layers import fit_start
from .transfer.predict import SvmClassifier, load_svm_classifier
from .transfer.svm_file import write_transfer

FEATURES = "features.safetensors"


def train(
    run: str,
    out: str | Path | None = None,
    resume: bool = False,
    reporter: Reporter | None = None,
    stop: Callable[[], bool] = lambda: False,
    team: Team | None = None,
    **given: Any,
) -> dict[str, Any]:
    """Trains a net and leaves a run's folder.

    Args:
        run: a net (``D``: the recipe for own photos) or a run of the paper (``D/256``, ``D/256-512``).
        out: the run's folder; ``runs/<run>`` by default.
        resume: go on from the folder's last checkpoint, with the settings it was begun with.
        reporter: told of progress.
        stop: called after each step, and while photos are read and tested: whether to save and leave.
        team: the processes that train it together (`verydeep.joined`); one that was begun again resumes.
        given: any field of DataSettings, TrainSettings and MachineSettings, as a value or as text.

    Returns:
        What result.json holds: how training ended, epochs, steps, best dev error, folder.

    Raises:
        VerydeepError: a mistake in the settings or the data, a training that diverged (its folder is complete and
            holds the best epoch), a full disk.
        Interrupted: ``stop`` asked to leave before the first step, when there was nothing to save.
    """
    folder = Path(out) if out else Path("runs") / run
    wishes, data_given, train_given = route(given)
    wish, told = MachineSettings(**typed(MachineSettings, wishes)), reporter or Silent()
    fit = fit_start if "/" not in run else None  # a run of the paper starts as the paper says
    job = TrainingRun(ClassificationTask(), run, folder, wish, told, team or SingleProcess(), stop, _live_report, fit)
    if resume or job.broke_off:
        return job.resume(data_given, typed(TrainSettings, train_given))
    return job.begin(named_data(data_given), settings_of_run(run, train_given))


def train_boxes(
    run: str,
    out: str | Path | None = None,
    resume: bool = False,
    strict: bool = False,
    reporter: Reporter | None = None,
    stop: Callable[[], bool] = lambda: False,
    team: Team | None = None,
    **given: Any,
) -> dict[str, Any]:
    """Trains a box net and leaves a run's folder.

    Args:
        run: a net (``D``: the recipe for own photos) or a run of the paper (``D/384-PCR``, ``D/384-SCR-fc``).
        out: the run's folder; by default ``runs/<run>``, and for a net's name alone ``runs/<net>-<regression>``.
        resume: go on from the folder's last checkpoint, with the settings it was begun with.
        strict: refuse boxes with any fault; else what is safe is repaired, and counted.
        team: the processes that train it together, as for `verydeep.train`.
        given: any field of DataSettings, TrainSettings, BoxSettings and MachineSettings, as a value or as text.

    Returns:
        What result.json holds: how training ended, epochs, steps, best GT-class error of the dev part, folder.

    Raises:
        VerydeepError: a mistake in the settings, the data or their boxes, a loss that is not finite, a full disk.
    """
    names = {item.name for item in fields(BoxSettings)}
    box_given = {name: value for name, value in given.items() if name in names}
    wishes, data_given, train_given = route({key: value for key, value in given.items() if key not in names})
    settings, boxes = settings_of_box_run(run, {**train_given, **box_given})
    folder = Path(out) if out else Path("runs") / (run if "/" in run else f"{run}-{boxes.regression}")
    wish, told = MachineSettings(**typed(MachineSettings, wishes)), reporter or Silent()
    task = LocalisationTask(boxes, strict)
    job = TrainingRun(task, run, folder, wish, told, team or SingleProcess(), stop, _live_report)
    if resume or job.broke_off:
        metadata = None if box_given else metadata_of_run(folder)
        if metadata is not None and metadata.is_localiser:  # as it was begun
            task = LocalisationTask(metadata.localiser_settings, strict)
        return replace(job, task=task).resume(data_given, typed(TrainSettings, train_given))
    return job.begin(named_data(data_given), settings)


def _live_report(folder: Path, images: Dataset, reporter: Reporter) -> Callable[[bool], None]:
    return LiveReport(folder, images, reporter).write


def evaluate(
    run: str | Path,
    protocol: str | None = None,
    data: str | None = None,
    set_name: str | None = None,
    last: bool = False,
    out: str | Path | None = None,
    bad_images: str = "stop",
    machine: MachineSettings | None = None,
    reporter: Reporter | None = None,
    team: Team | None = None,
) -> Evaluation:
    """Tests a run's net by a protocol and writes what was found: scores, errors, pictures, the run's report.

    Args:
        run: a run's folder, a checkpoint, or an exported file; released weights as `verydeep.load` takes them.
        protocol: such as ``dense@256,384,512`` (see `verydeep.evaluation.protocols`); by default that of `predict`.
        data: other data than the run was trained on; their classes must be the net's, by name.
        set_name: a set of the data; by default the reported one, or all photos of other, unsplit data.
        last: the last checkpoint instead of the best.
        out: folder for the files; by default ``evaluations/<set>/<protocol>`` in the run's folder.
        bad_images: ``stop`` or ``skip`` photos that cannot be read.
        team: the processes that share the photos (`verydeep.joined`); the first of them writes the files.

    Returns:
        Its ``problems`` are the pictures that could not be written, a sentence each.

    Raises:
        VerydeepError: no such run or data, unknown classes, Q below the crop, an unreadable photo.
    """
    reporter, team = reporter or Silent(), team or SingleProcess()
    found = evaluation.evaluate(run, protocol, data, set_name, last, out, bad_images, machine, reporter, team)
    if not team.is_main:
        return found
    problems = _written(lambda: write_evaluation_pictures(found)) if found.scores.labelled else ()
    refresh_report(found.folder, reporter)
    return replace(found, problems=problems)


def evaluate_boxes(
    tests: Sequence[tuple[str | Path, str | None]],
    scores: str | Path | None = None,
    classifier: str | Path | None = None,
    data: str | None = None,
    boxes: tuple[str, ...] = (),
    set_name: str | None = None,
    out: str | Path | None = None,
    strict: bool = False,
    merging: MergeSettings | None = None,
    server_file: str | Path | None = None,
    devkit: str | Path | None = None,
    machine: MachineSettings | None = None,
    reporter: Reporter | None = None,
) -> BoxEvaluation:
    """Tests box nets by a procedure of Sect. A.1, and writes what was found: boxes, errors, pictures, the run's report.

    Args:
        tests: a box net's run and where it is applied, ``("runs/D/384-PCR", "dense@352,384")``; boxes of several
            are put together. None in place of a protocol takes the one that `verydeep.load_localiser` does.
        scores: a scores file of the classification nets, whose most probable labels get boxes.
        classifier: the run that rates boxes, and without ``scores`` predicts the labels; by default the first's start.
        data, boxes, set_name: other photos than the run's own set that is reported.
        out: folder for the files; by default in the first run's ``evaluations``.
        server_file: file to write for ILSVRC's localisation server; needs ``devkit``.

    Returns:
        Its summary has ``images``, and in percent, with intervals, ``gt_class_error``, ``localisation_error`` and
        ``classification_error``, both None for centre crops without scores. Its ``problems`` are the pictures that
        could not be written, a sentence each.

    Raises:
        VerydeepError: no such run or data; nets of other classes; scores of other photos; faults with ``strict``.
    """
    reporter = reporter or Silent()
    found = localisation.evaluate_boxes(
        tests, scores, classifier, data, boxes, set_name, out, strict, merging, server_file, devkit, machine, reporter
    )
    labelled = found.guesses.dataset.labelled
    problems = _written(lambda: write_box_pictures(found.guesses, found.folder)) if labelled else ()
    refresh_report(found.folder, reporter)
    return replace(found, problems=problems)


def _written(write: Callable[[], object]) -> tuple[str, ...]:
    """Writes pictures; a fault there is a sentence and does not lose the results."""
    try:
        write()
    except VerydeepError as fault:
        return (str(fault),)
    return ()


def load(run: str | Path, last: bool = False, machine: MachineSettings | None = None) -> Classifier | SvmClassifier:
    """A net or an SVM, ready to predict.

    Args:
        run: a run's folder (its best net, or ``last``) or a checkpoint; what `verydeep svm` or `verydeep probe` wrote;
            an exported file; released weights by name (``oxford-D``); any public weight file with all its layers; or
            ``hub:owner/name``, which is downloaded from the Hugging Face hub once.

    Raises:
        VerydeepError: none of these, broken, class names or pixels that a weight file does not record.
    """
    wish = machine or MachineSettings(workers=0)
    if str(run).startswith("hub:"):
        from .checkpoints.hub import download_shared  # an extra

        return load_net(download_shared(str(run)), False, wish)
    path = Path(run) / CLASSIFIER if Path(run).is_dir() else Path(run)
    if path.name == CLASSIFIER and path.exists():
        if last:
            raise VerydeepError(f"{path} is of SVMs, which have no last checkpoint: leave out --last.")
        return load_svm_classifier(path, wish)
    return load_net(run, last, wish)


def predict(run: str | Path, images: Any, top: int = 5, protocol: str | None = None) -> list[Prediction]:
    """`load` and its ``predict`` in one; a single path is a file, a folder of photos or a glob."""
    photos = find_photos(images) if isinstance(images, str | Path) else images
    return load(run).predict(photos, top, protocol)


def probe(
    data: str,
    weights: str | Path,
    out: str | Path = "runs/probe",
    classes: tuple[str, ...] = (),
    features: FeatureSettings | None = None,
    descriptor: DescriptorSettings | None = None,
    svm: SvmSettings | None = None,
    preprocessing: str = "recorded",
    bad_images: str = "stop",
    machine: MachineSettings | None = None,
    reporter: Reporter | None = None,
    folders: str = "auto",
) -> dict[str, Any]:
    """Extracts descriptors of photos by a net that stays as it is, and trains and tests linear SVMs on them (App. B).

    Args:
        data: a folder with a folder per class, or other data with one class a photo.
        weights: a run, a checkpoint or a weight file.
        out: folder for descriptors, classifier, figures and page; what it holds of the same is not made again.
        features: None takes fc7, or pool5 of a file without FC layers, at the net's own scale.

    Returns what ``result.json`` holds, ``page``, and ``seconds`` spent on descriptors.

    Raises:
        VerydeepError: as `extract_features` and `learn_svms`.
    """
    folder, reporter, machine = Path(out), reporter or Silent(), machine or MachineSettings()
    open_data(from_json(DataSettings, {"data": data, "classes": classes, "folders": folders}))  # mistakes come first
    features = features or FeatureSettings(layer=usual_layer(weights, preprocessing))
    reporter.say(f"extracting {features.layer} descriptors")
    made = extract_features(
        weights,
        data,
        folder / FEATURES,
        settings=features,
        preprocessing=preprocessing,
        machine=machine,
        reporter=reporter,
        classes=classes,
        bad_images=bad_images,
        folders=folders,
    )
    found = learn_svms("own", [made.path], descriptor, svm, made.scales, machine, reporter)
    return _write_probe(made, found, folder)


def _write_probe(made: Extraction, found: Transfer, folder: Path) -> dict[str, Any]:
    """Writes figures, classifier and page; returns what `probe` does."""
    result = write_transfer(found, folder)
    _, page = write_svm_report(folder)
    return {**result, "page": str(page), "described": made.computed, "seconds": round(made.seconds, 2)}
