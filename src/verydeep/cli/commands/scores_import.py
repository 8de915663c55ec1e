"""Import predictions that another program stored, so that `fuse` averages and compares them."""

from __future__ import annotations

from typing import Any

from ..execution import show_result
from ..output import error_cells, show, show_table
from ..parser import CommandParser, Options


def add_arguments(parser: CommandParser) -> None:
    """Adds the arguments of the command."""
    data, output = parser.group("Data"), parser.group("Output")
    listed = "predictions: .npz of probabilities and classes (N,L), or .csv of id, class, probability; others are 0"
    parser.add_argument("file", metavar="FILE", help=listed)
    data.add_argument(
        "--labels", metavar="FILE", required=True, help="true classes: .npz of labels (N,), or .csv of id, class"
    )
    names = "class names: ilsvrc, or a file with a name per line (default: the numbers from 0)"
    data.add_argument("--class-names", metavar="FILE", help=names)
    data.add_argument(
        "--set",
        metavar="NAME",
        default="val",
        help="set that the images are of; only scores of one set can be fused (default: val)",
    )
    output.add_argument("--out", metavar="FILE", required=True, help="scores file to write")


def run(options: Options) -> int:
    """Writes a scores file; prints its errors."""
    from ...evaluation.import_scores import import_scores
    from ...evaluation.metrics import summarise

    scores = import_scores(options.file, options.labels, options.out, options.class_names, options.set)
    summary = {**summarise(scores), "truncated": scores.truncated, "file": options.out}
    return show_result(options, summary, _show)


def _show(summary: dict[str, Any]) -> None:
    columns = ["", "top1 error", "95 % interval", "top5 error", "95 % interval"]
    row = (summary["run"], *error_cells(summary, "top1_error"), *error_cells(summary, "top5_error"))
    show_table(f"{summary['images']} images of {summary['data']} ({summary['set']})", columns, [row])
    if summary["truncated"]:
        show("truncated: classes that are not listed have probability 0 and are in no image's top 5")
    show(f"scores: {summary['file']}")
