"""Evaluate localisation models: errors with intervals, pictures of right and wrong boxes."""

from __future__ import annotations

from typing import Any

from ...core.config import typed
from ...core.errors import VerydeepError
from ...core.settings import DataSettings, MachineSettings, MergeSettings
from ..execution import show_result, status_of
from ..output import Terminal, error_cells, show, show_table
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
    parser.group("Output").add_argument(
        "--out", metavar="DIR", help="folder for the results (default: in the run's folder)"
    )
    add_shared(parser, "--strict", "--server-file", "--devkit")
    add_settings(parser, MergeSettings)
    add_settings(parser, MachineSettings, leave_out=ALONE)


def run(options: Options) -> int:
    """Evaluates one model or several combined."""
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
