"""Evaluate localisation models, or boxes from the maps of a classifier: errors with intervals, pictures."""

from __future__ import annotations

from typing import Any

from ...core.config import flag, typed
from ...core.errors import VerydeepError
from ...core.settings import DataSettings, MachineSettings, MergeSettings
from ...core.terminal import Terminal
from ..execution import show_result, status_of
from ..output import error_cells, show, show_table
from ..parser import ALONE, CommandParser, Options, add_settings, add_shared, boxes_of, settings_from


def add_arguments(parser: CommandParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument(
        "tests",
        metavar="MODEL PROTOCOL",
        nargs="+",
        help="a run's folder or a checkpoint of a localisation model, and centre@Q or dense@Q,… (default: that of "
        "`localise predict`); several pairs: the ensemble of the models",
    )
    data, net = parser.group("Data"), parser.group("Net and weights")
    data.add_argument("--data", metavar="DATA", help="dataset to evaluate on (default: that of the run)")
    data.add_argument("--boxes", metavar="FILE,…", action="append", help="box files (default: those of the run)")
    data.add_argument(
        "--set", metavar="NAME", help="train, dev, val, test or all (default: the one not used in training)"
    )
    net.add_argument(
        "--classifier",
        metavar="MODEL",
        help="classifier that scores boxes (default: the one that training started from)",
    )
    net.add_argument("--scores", metavar="FILE", help="scores file of `evaluate`: its best classes are located")
    net.add_argument(
        "--from",
        dest="maps",
        choices=("map", "gradcam"),
        help="MODEL is a classifier: boxes from its score maps or its Grad-CAM (weakly supervised localisation)",
    )
    net.add_argument(
        "--threshold",
        type=float,
        metavar="X",
        help="with --from: boxes are around regions above this fraction of a map's range (default: 0.2)",
    )
    parser.group("Output").add_argument(
        "--out", metavar="DIR", help="folder for the results (default: in the run's folder)"
    )
    add_shared(parser, "--strict", "--server-file", "--devkit")
    add_settings(parser, MergeSettings)
    add_settings(parser, MachineSettings, leave_out=ALONE)


def run(options: Options) -> int:
    """Evaluates one model or several combined."""
    if options.maps is not None:
        return _run_maps(options)
    if options.threshold is not None:
        raise VerydeepError("--threshold applies to boxes from maps: add --from map or --from gradcam.")
    from ...api import evaluate_boxes

    words = [*options.tests, None] if len(options.tests) == 1 else options.tests
    if len(words) % 2:
        raise VerydeepError("pass pairs of a run's folder and a protocol, such as `runs/D/384-PCR dense@352,384`.")
    evaluation = evaluate_boxes(
        list(zip(words[::2], words[1::2], strict=True)),
        scores=options.scores,
        classifier=options.classifier,
        data=options.data,
        boxes=typed(DataSettings, {"boxes": boxes_of(options.boxes)})["boxes"] if options.boxes else (),
        set_name=options.set,
        out=options.out,
        strict=options.strict,
        merging=settings_from(options, MergeSettings),
        server_file=options.server_file,
        devkit=options.devkit,
        machine=settings_from(options, MachineSettings),
        reporter=Terminal(options.quiet),
    )
    show_result(options, evaluation.summary, _show)
    return status_of(evaluation.problems, some_done=True)


def _run_maps(options: Options) -> int:
    from ...localisation.maps import USUAL_THRESHOLD, evaluate_maps
    from ...reports.run_report import refresh_report

    others = [
        f"--{flag(name)}" for name in ("classifier", "scores", "server_file") if getattr(options, name) is not None
    ]
    if others or len(options.tests) > 2:
        what = f"{others[0]} does not apply" if others else "one model is evaluated"
        raise VerydeepError(f"with --from, {what}: pass a classifier, and no more than a protocol such as dense@256.")
    reporter = Terminal(options.quiet)
    evaluation = evaluate_maps(
        options.tests[0],
        options.maps,
        (*options.tests, None)[1],
        data=options.data,
        boxes=typed(DataSettings, {"boxes": boxes_of(options.boxes)})["boxes"] if options.boxes else (),
        set_name=options.set,
        out=options.out,
        threshold=USUAL_THRESHOLD if options.threshold is None else options.threshold,
        strict=options.strict,
        machine=settings_from(options, MachineSettings),
        reporter=reporter,
    )
    refresh_report(evaluation.folder, reporter)
    return show_result(options, evaluation.summary, _show_maps)


def _show_maps(summary: dict[str, Any]) -> None:
    title = f"boxes from {summary['maps']}@{summary['scale']} on {summary['images']} images of {summary['data']}"
    names = {
        "gt_known_error": f"GT-known localisation, threshold {summary['threshold']:g}",
        "top1_localisation_error": "top-1 localisation",
        "top1_error": "top-1 classification",
    }
    rows = [(text, *error_cells(summary, name)) for name, text in names.items()]
    show_table(f"{title} ({summary['set']})", ["error", "", "95 % interval"], rows)
    centre = summary["centre_box"]
    accuracies = [
        (text, f"{summary[name]:.2f} %", f"{centre[name]:.2f} %")
        for name, text in {"max_box_acc": "MaxBoxAcc V1", "max_box_acc_v2": "MaxBoxAcc V2"}.items()
    ]
    show_table("", ["accuracy at the best threshold", "", "centre box"], accuracies)
    show(f"best threshold of V1: {summary['best_threshold']:g}; boxes: {summary['folder']}/boxes.csv")


def _show(summary: dict[str, Any]) -> None:
    from ...reports.run_report import BOX_ERRORS

    tests = " and ".join(f"{test['folder']} {test['protocol']}" for test in summary["tests"])
    title = f"{tests} on {summary['images']} images of {summary['data']} ({summary['set']})"
    errors = {name: text for name, text in BOX_ERRORS.items() if summary.get(name) is not None}
    rows = [(text, *error_cells(summary, name)) for name, text in errors.items()]
    if rows:
        show_table(title, ["error", "", "95 % interval"], rows)
    else:
        show(f"{title}: without labels, so no errors")
    if summary["localisation_error"] is not None:
        t = "" if summary["t"] is None else f"; t = {summary['t']:g}, tuned on {summary['tuned_on'] or 'nothing'}"
        show(f"{summary['guesses']} guesses per image{t}")
    show(f"guesses and pictures: {summary['folder']}")
