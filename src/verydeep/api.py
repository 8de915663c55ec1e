"""The public functions that compose several packages, such as training and its report.

The command line calls the same functions, so both write the same files. Public functions of a single package are
defined there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Unpack

from .checkpoints.convert import convert_weights
from .checkpoints.load import pretrained_checkpoint
from .checkpoints.pretrained import read_weights
from .checkpoints.registry import ilsvrc_classes
from .checkpoints.run_dir import EVALUATIONS, REPORT
from .core.arguments import ClassifierArguments, LocaliserArguments, takes_settings
from .core.config import from_json, typed
from .core.errors import VerydeepError
from .core.progress import Reporter
from .core.settings import (
    BoxSettings,
    DataSettings,
    DescriptorSettings,
    FeatureSettings,
    MachineSettings,
    MergeSettings,
    SuspectSettings,
    SvmSettings,
    TrainSettings,
    named_data,
)
from .core.team import Team
from .core.terminal import default_reporter
from .data.datasets.voc import NAMES as VOC_NAMES
from .data.open import Dataset, open_data
from .evaluation.calibrate import fit_calibration
from .evaluation.evaluate import Evaluation, prepare_evaluation
from .evaluation.sanity_check import check_on_photos
from .localisation.datasets import open_box_sets
from .localisation.evaluate import BoxEvaluation, LocalisationEvaluator, open_tests
from .localisation.task import LocalisationTask
from .reports.figures import write_box_pictures, write_evaluation_pictures
from .reports.html import check_page_place
from .reports.run_report import LiveReport, refresh_report
from .reports.suspects import SUSPECTS_PAGE, write_suspects_page
from .reports.svm_report import write_svm_report
from .training.classification import ClassificationTask
from .training.rate_finder import RateTest, range_test
from .training.recipes import settings_of_box_run, settings_of_run
from .training.resume import metadata_of_run
from .training.run import TrainingRun, route
from .transfer.backbone import usual_layer
from .transfer.evaluate import learn_svms
from .transfer.extract import extract_features
from .transfer.features_file import load_features
from .transfer.fit_layers import fit_start
from .transfer.learning_curve import DRAWS, learning_curve
from .transfer.suspects import described_images, suspects_among, write_suspects
from .transfer.svm_file import write_transfer

FEATURES, SUSPECTS = "features.safetensors", "suspects.csv"


@takes_settings(DataSettings, TrainSettings, MachineSettings)
def train(
    run: str,
    out: str | Path | None = None,
    resume: bool = False,
    reporter: Reporter | None = None,
    stop: Callable[[], bool] | None = None,
    team: Team | None = None,
    **given: Unpack[ClassifierArguments],
) -> dict[str, Any]:
    """Trains a classifier and writes a run directory.

    Args:
        run: a net (``D``: the recipe for own images) or a run of the paper (``D/256``, ``D/256-512``).
        out: the run directory; ``runs/<run>`` by default.
        resume: continue from the directory's last checkpoint, with the settings that it was started with.
        reporter: shows progress.
        stop: called after each step, and during data loading and evaluation: whether to save and stop.
        team: the processes that train together (`verydeep.joined`); a restarted team resumes.
        given: any field of DataSettings, TrainSettings and MachineSettings, as a value or as text.

    Returns:
        The content of result.json: how training ended, epochs, steps, best dev error, folder.

    Raises:
        VerydeepError: invalid settings or data, a training that diverged (its directory is complete and holds the best
            epoch), a full disk.
        Interrupted: ``stop`` before the first step, when there was nothing to save.
    """
    folder = Path(out) if out else Path("runs") / run
    machine, data_given, train_given = route({**given})
    fit = fit_start if "/" not in run else None  # a run of the paper starts as the paper says
    training = TrainingRun(
        *(ClassificationTask(), run, folder, machine, reporter or default_reporter(), team or Team()),
        *(stop or _never, live_report, fit),
    )
    if resume or training.restarted:
        return training.resume(data_given, typed(TrainSettings, train_given))
    return training.start(named_data(data_given), settings_of_run(run, train_given))


@takes_settings(DataSettings, TrainSettings, MachineSettings)
def find_rate(run: str, reporter: Reporter | None = None, **given: Unpack[ClassifierArguments]) -> RateTest:
    """Tests learning rates by some steps of `train` whose rate rises, and suggests one; writes nothing.

    Args:
        run, reporter, given: as of `train`; ``lr`` is only what the suggestion is compared with.

    Returns:
        The loss at each learning rate, and the suggestion (`verydeep.training.rate_finder`).

    Raises:
        VerydeepError: invalid settings or data.
    """
    machine, data_given, train_given = route({**given})
    fit = fit_start if "/" not in run else None
    test = TrainingRun(
        ClassificationTask(), run, Path(), machine, reporter or default_reporter(), Team(), _never, live_report, fit
    )
    return range_test(test, named_data(data_given), settings_of_run(run, train_given))


@takes_settings(DataSettings, TrainSettings, BoxSettings, MachineSettings)
def train_boxes(
    run: str,
    out: str | Path | None = None,
    resume: bool = False,
    strict: bool = False,
    reporter: Reporter | None = None,
    stop: Callable[[], bool] | None = None,
    team: Team | None = None,
    **given: Unpack[LocaliserArguments],
) -> dict[str, Any]:
    """Trains a localisation model and writes a run directory.

    Args:
        run: a net (``D``: the recipe for own images) or a run of the paper (``D/384-PCR``, ``D/384-SCR-fc``).
        out: the run directory; by default ``runs/<run>``, and for a net's name alone ``runs/<net>-<regression>``.
        resume: continue from the directory's last checkpoint, with the settings that it was started with.
        strict: refuse boxes with any fault; otherwise faults that are safe to repair are repaired and counted.
        team: the processes that train together, as for `verydeep.train`.
        given: any field of DataSettings, TrainSettings, BoxSettings and MachineSettings, as a value or as text.

    Returns:
        The content of result.json: how training ended, epochs, steps, best GT-class error of the dev part, folder.

    Raises:
        VerydeepError: invalid settings, data or boxes, a training that diverged, a full disk.
    """
    of_boxes = {item.name for item in fields(BoxSettings)}
    box_given: dict[str, Any] = {name: value for name, value in given.items() if name in of_boxes}
    machine, data_given, train_given = route({name: value for name, value in given.items() if name not in of_boxes})
    settings, boxes = settings_of_box_run(run, {**train_given, **box_given})
    folder = Path(out) if out else Path("runs") / (run if "/" in run else f"{run}-{boxes.regression}")
    task = LocalisationTask(boxes, strict)
    training = TrainingRun(
        *(task, run, folder, machine, reporter or default_reporter(), team or Team(), stop or _never, live_report)
    )
    if resume or training.restarted:
        metadata = None if box_given else metadata_of_run(folder)
        if metadata is not None and metadata.is_localiser:  # with the settings of its start
            task = LocalisationTask(metadata.localiser_settings, strict)
        return replace(training, task=task).resume(data_given, typed(TrainSettings, train_given))
    return training.start(named_data(data_given), settings)


def convert(
    source: str,
    out: str | Path,
    to: str | None = None,
    preprocessing: str = "recorded",
    class_names: str | None = None,
    check: bool = True,
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """Writes a net's weights in another layout, with a sidecar and a model card beside them.

    Args:
        source: a run directory, a checkpoint, released weights by name (``oxford-D``), or a public weight file.
        out: a file, whose extension names the layout; a path without an extension, or with a version's (``net-v1.0``),
            is a run directory, which `evaluate`, `predict` and all others take.
        to: ``verydeep``, ``torchvision``, ``keras`` or ``caffe``, where the extension does not name the layout.
        preprocessing: a key of `verydeep.checkpoints.preprocessing.KNOWN` for files that do not record theirs.
        class_names: ``ilsvrc`` or a file with one name per line, for sources without class names.
        check: whether a net of ILSVRC's 1000 classes classifies three photos, which finds a wrong channel order, mean,
            scale or order of fc6's inputs (`verydeep.evaluation.sanity_check`); ``check`` of the result, else None.
        reporter: shows progress, and a warning about a net that does not recognise the photos.

    Raises:
        VerydeepError: no such source or layout, an output that exists, class names missing, a net that the layout
            cannot represent, a full disk.
    """
    result = convert_weights(source, out, to, preprocessing, class_names)
    checked = None
    if check and result["classes"] == len(ilsvrc_classes()) and not result["boxes"]:
        checked = check_on_photos(pretrained_checkpoint(read_weights(result["file"])), reporter or default_reporter())
    return {**result, "check": checked.to_json() if checked else None}


def _never() -> bool:
    return False


def live_report(folder: Path, images: Dataset, reporter: Reporter) -> Callable[[bool], None]:
    """The callback of `TrainingRun` that keeps a run's report up to date."""
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
    """Evaluates a classifier by a protocol and writes scores, errors, pictures and the run's report.

    Args:
        run: a run's folder, a checkpoint, or an exported file; released weights as `verydeep.load` takes them.
        protocol: such as ``dense@256,384,512`` (see `verydeep.evaluation.protocols`); by default that of `predict`.
        data: other data than the run was trained on; their classes must be the net's, by name.
        set_name: a set of the data; by default the reported one, or all images of other, unsplit data.
        last: the last checkpoint instead of the best.
        out: folder for the files; by default ``evaluations/<set>/<protocol>`` in the run's folder.
        bad_images: ``stop`` or ``skip`` on unreadable images.
        team: the processes that share the images (`verydeep.joined`); the main one writes the files.

    Returns:
        Its ``problems`` are the messages of pictures that could not be written.

    Raises:
        VerydeepError: no such run or data, unknown classes, Q below the crop, an unreadable image.
    """
    reporter, team = reporter or default_reporter(), team or Team()
    prepared = prepare_evaluation(run, protocol, data, set_name, last, out, reporter)
    evaluation = prepared.run(bad_images, machine, team)
    if not team.is_main:
        return evaluation
    problems = _problems(lambda: write_evaluation_pictures(evaluation)) if evaluation.scores.labelled else ()
    refresh_report(evaluation.folder, reporter)
    return replace(evaluation, problems=problems)


def calibrate(
    run: str | Path,
    protocol: str | None = None,
    data: str | None = None,
    set_name: str = "dev",
    last: bool = False,
    machine: MachineSettings | None = None,
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """Makes a classifier's probabilities as often right as they say, by one temperature for a protocol.

    It is stored in the checkpoint, in place of an earlier one of the protocol, with the risk-coverage curve that
    ``reject_at`` of `predict` chooses its threshold from. `load`, `predict`, the server and exported files use it;
    errors, stored scores and the order of classes stay as they are.

    Args:
        run: a run's folder or a checkpoint.
        protocol: such as ``dense@256``; by default that of `predict`.
        data: other labelled data than the run was trained on; their classes must be the net's, by name.
        set_name: a set of the data that the net was not trained on.
        last: the last checkpoint instead of the best.

    Returns:
        ``temperature``, ``images``, NLL and ECE of these images before and after, and ``risk_coverage``.

    Raises:
        VerydeepError: no such run, data or set, fewer than 20 labelled images, a file that cannot hold the temperature,
            or images of which no temperature is the best. Unreadable images are skipped with a warning.
    """
    reporter = reporter or default_reporter()
    result = fit_calibration(run, protocol, data, set_name, last, machine, reporter)
    folder = Path(result["checkpoint"]).parent
    if (folder / REPORT).exists():
        refresh_report(folder / EVALUATIONS / "any", reporter)
    return result


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
    """Evaluates localisation models by a procedure of Sect. A.1; writes boxes, errors, pictures and the run's report.

    Args:
        tests: pairs of a localisation run and a protocol, ``("runs/D/384-PCR", "dense@352,384")``; the boxes of several
            are combined. A protocol of None is the default of `verydeep.load_localiser`.
        scores: a scores file of classifiers; boxes are predicted for its most probable labels.
        classifier: the run that scores boxes and, without ``scores``, predicts labels; by default the first's start.
        data, boxes, set_name: other images than the reported set of the run's own data.
        out: directory of the results; by default in the first run's ``evaluations``.
        server_file: a submission to write for ILSVRC's localisation server; needs ``devkit``.

    Returns:
        Its summary has ``images``, and in percent, with intervals, ``gt_class_error``, ``localisation_error`` and
        ``classification_error``, the last two None for centre crops without scores. Its ``problems`` are the messages
        of pictures that could not be written.

    Raises:
        VerydeepError: no such run or data; models of other classes; scores of other images; faults with ``strict``.
    """
    reporter = reporter or default_reporter()
    opened = open_tests(tests, reporter)
    sets = open_box_sets(opened[0].checkpoint, data, reporter, boxes, set_name, strict)
    evaluator = LocalisationEvaluator(opened, classifier, sets, merging, machine, reporter)
    evaluation = evaluator.run(scores, out, server_file, devkit)
    labelled = evaluation.guesses.dataset.labelled
    problems = _problems(lambda: write_box_pictures(evaluation.guesses, evaluation.folder)) if labelled else ()
    refresh_report(evaluation.folder, reporter)
    return replace(evaluation, problems=problems)


def _problems(write: Callable[[], object]) -> tuple[str, ...]:
    """Writes pictures; returns the message of an error, so that the results are kept."""
    try:
        write()
    except VerydeepError as fault:
        return (str(fault),)
    return ()


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
    curve: bool = False,
    draws: int = DRAWS,
) -> dict[str, Any]:
    """Extracts descriptors of images with a frozen net, and trains and evaluates linear SVMs on them (App. B).

    Args:
        data: a directory with a subdirectory per class, or other data with one class per image or several.
        weights: a run, a checkpoint or a weight file.
        out: directory of descriptors, classifier, figures and page; results in it are reused.
        features: None takes fc7, or pool5 of a file without FC layers, at the net's own scale.
        curve, draws: whether to add the error by the number of training images (`verydeep.learning_curve`).

    Returns the content of ``result.json``, ``page``, and ``seconds`` spent on descriptors.

    Raises:
        VerydeepError: as `extract_features`, `learn_svms` and `learning_curve`.
    """
    folder, reporter, machine = Path(out), reporter or default_reporter(), machine or MachineSettings()
    settings = from_json(DataSettings, {"data": data, "classes": classes, "folders": folders})
    open_data(settings, several=data.partition(":")[0] not in VOC_NAMES)  # fails early: VOC has protocols of its own
    features = features or FeatureSettings(layer=usual_layer(weights, preprocessing))
    reporter.say(f"extracting {features.layer} descriptors")
    extraction = extract_features(
        *(weights, data, folder / FEATURES, None, None, classes, features, preprocessing),
        *(bad_images, machine, reporter, None, folders),
    )
    transfer = learn_svms("own", [extraction.path], descriptor, svm, extraction.scales, machine, reporter)
    found = learning_curve(transfer, draws, machine=machine, reporter=reporter) if curve else None
    result = write_transfer(transfer, folder, found)
    _, page = write_svm_report(folder)
    return {**result, "page": str(page), "described": extraction.computed, "seconds": round(extraction.seconds, 2)}


def find_suspects(
    data: str | Path,
    features: str | Path | None = None,
    weights: str | Path | None = None,
    out: str | Path = "runs/check",
    settings: SuspectSettings | None = None,
    classes: tuple[str, ...] = (),
    folders: str = "auto",
    exclude: str | None = None,
    feature_settings: FeatureSettings | None = None,
    preprocessing: str = "recorded",
    machine: MachineSettings | None = None,
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """Finds near duplicates, leaks between sets and labels that are probably wrong, by descriptors of the images.

    Args:
        data: as `open_data` takes it.
        features: a features file of these images, at any scales.
        weights: without ``features``: a run, a checkpoint or a weight file, whose descriptors are extracted into
            ``out`` and reused; unreadable images are skipped.
        out: directory of ``suspects.csv`` and of the page that shows the images.
        exclude: a list of images to leave out, such as an earlier ``suspects.csv``.
        feature_settings: None takes fc7, or pool5 of a file without FC layers, at the net's own scale.

    Returns:
        The content of `Suspects.to_json`, ``csv``, and ``page``.

    Raises:
        VerydeepError: no such data, file or net; features of other images; a file cannot be written.
    """
    folder, reporter = Path(out), reporter or default_reporter()
    named = {"data": str(data), "classes": classes, "folders": folders, "exclude": exclude}
    opened = open_data(data_settings := from_json(DataSettings, named), several=True)
    check_page_place(folder / SUSPECTS_PAGE)
    if features is None and weights is None:
        raise VerydeepError("descriptors are needed: pass a features file (--features) or a net (--weights).")
    if features is None:
        features = _described(str(weights), data_settings, folder, feature_settings, preprocessing, machine, reporter)
    images = described_images(opened, load_features(features), str(features), data_settings)
    found = suspects_among(images, settings or SuspectSettings())
    write_suspects(folder / SUSPECTS, found)
    write_suspects_page(folder / SUSPECTS_PAGE, found, opened)
    return {**found.to_json(), "csv": str(folder / SUSPECTS), "page": str(folder / SUSPECTS_PAGE)}


def _described(
    weights: str,
    data: DataSettings,
    folder: Path,
    settings: FeatureSettings | None,
    preprocessing: str,
    machine: MachineSettings | None,
    reporter: Reporter,
) -> Path:
    """The features file of some data in a directory, which is written or completed; unreadable images are skipped."""
    settings = settings or FeatureSettings(layer=usual_layer(weights, preprocessing))
    reporter.say(f"extracting {settings.layer} descriptors")
    return extract_features(
        *(weights, data.data, folder / FEATURES, None, None, data.classes, settings, preprocessing),
        *("skip", machine, reporter, None, data.folders),
    ).path
