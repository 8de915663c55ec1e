"""Evaluate a trained net on the test set: errors with intervals, worst classes, confusions."""

from __future__ import annotations

from typing import Any

from ...core.progress import duration
from ...core.settings import MachineSettings
from ..execution import OK, reporter_of, show_result, status_of, team_of
from ..output import error_cells, probability_line, show, show_table
from ..parser import OF_TRAINING, CommandParser, Options, add_settings, add_shared, settings_from

DISTRIBUTED = True


def add_arguments(parser: CommandParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument("run", metavar="MODEL", help="a run's folder, a checkpoint or a weight file")
    add_shared(parser, "protocol")
    data, output = parser.group("Data"), parser.group("Output")
    data.add_argument("--data", metavar="DATA", help="dataset to evaluate on (default: that of the run)")
    data.add_argument(
        "--set", metavar="NAME", help="train, dev, val, test or all (default: the one not used in training)"
    )
    add_shared(parser, "--bad-images", "--last")
    output.add_argument(
        "--plan",
        action="store_true",
        help="only print what the protocol costs on this machine; without PROTOCOL, those of the paper",
    )
    output.add_argument("--out", metavar="DIR", help="folder for the results (default: in the run's folder)")
    add_settings(parser, MachineSettings, leave_out=OF_TRAINING)


def run(options: Options) -> int:
    """Evaluates a net on a set."""
    if options.plan:
        return _plan(options)
    from ...api import evaluate

    with team_of(options) as team:
        evaluation = evaluate(
            options.run,
            options.protocol,
            data=options.data,
            set_name=options.set,
            last=options.last,
            out=options.out,
            bad_images=options.bad_images,
            machine=settings_from(options, MachineSettings),
            reporter=reporter_of(team, options.quiet),
            team=team,
        )
    if not team.is_main:
        return OK
    show_result(options, evaluation.summary, _show)
    return status_of(evaluation.problems, some_done=True)


def _plan(options: Options) -> int:
    """Prints multiply-adds and time of each protocol."""
    from ...evaluation.cost import papers_protocols, protocol_costs
    from ...evaluation.evaluate import prepare_evaluation

    with team_of(options) as team:
        reporter = reporter_of(team, options.quiet)
        prepared = prepare_evaluation(
            options.run, options.protocol, options.data, options.set, options.last, options.out
        )
        protocols = [prepared.protocol] if options.protocol else papers_protocols(prepared.checkpoint.metadata)
        costs = protocol_costs(prepared, protocols, settings_from(options, MachineSettings), reporter)
    if team.is_main:
        rows = [cost.to_json() for cost in costs]
        show_result(options, {"images": len(prepared.dataset), "protocols": rows}, _show_plan)
    return OK


def _show_plan(plan: dict[str, Any]) -> None:
    rows = [
        (row["protocol"], f"{row['multiply_adds_per_image'] / 1e9:.1f}", duration(row["seconds"]))
        for row in plan["protocols"]
    ]
    show_table(f"{plan['images']} images", ["protocol", "G multiply-adds per image", "about"], rows)


def _show(summary: dict[str, Any]) -> None:
    from ...data.class_names import display_name

    title = f"{summary['protocol']} on {summary['images']} images of {summary['data']} ({summary['set']})"
    rows = [(name.replace("_", " "), *error_cells(summary, name)) for name in ("top1_error", "top5_error")]
    show_table(title, ["", "error", "95 % interval"], [row for row in rows if row[1]])
    if summary["mean_class_recall"] is not None:
        show(f"mean class recall: {summary['mean_class_recall']:.2f} %")
    if summary["ece"] is not None:
        show(probability_line(summary))
        if summary["calibrated"] is not None:
            show(probability_line(summary["calibrated"]))
    worst = sorted(summary["classes"], key=lambda row: -row["top1_error"])[:10]
    if worst:
        worst_rows = [(display_name(row["class"]), row["images"], f"{row['top1_error']:.1f} %") for row in worst]
        show_table("", ["worst classes", "images", "top1 error"], worst_rows)
    for pair in summary["confused"][:5]:
        show(f"{display_name(pair['class'])} misclassified as {display_name(pair['taken_for'])}: {pair['images']}")
    cost = summary["multiply_adds_per_image"] / 1e9
    show(f"{cost:.2f} G multiply-adds per image, {summary['images_per_second']:.1f} images/s")
    show(f"scores, all classes and pictures: {summary['folder']}")
