"""Average the class probabilities of several evaluations (ensemble), with McNemar's test of each pair."""

from __future__ import annotations

from typing import Any

from ...core.errors import VerydeepError
from ..execution import OK, show_result
from ..output import error_cells, show, show_table
from ..parser import CommandParser, Options, add_shared


def add_arguments(parser: CommandParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument("files", metavar="FILE", nargs="+", help="scores files, or folders written by `evaluate`")
    parser.group("Ensemble").add_argument(
        "--weights", metavar="X,…", help="weights of the average, one per file, normalised to sum to 1 (default: equal)"
    )
    parser.group("Output").add_argument(
        "--out", metavar="DIR", help="folder for the averaged scores (default: not written)"
    )
    add_shared(parser, "--server-file", "--devkit")
    parser.epilog = "Example: `verydeep fuse D.npz E.npz --weights 2,1 --out runs/fused`"


def run(options: Options) -> int:
    """Fuses stored posteriors; prints errors, intervals and paired tests."""
    from ...evaluation.ensemble import fuse

    result = fuse(options.files, _weights(options.weights), options.out, options.server_file, options.devkit)
    show_result(options, result, _show)
    if options.server_file and not options.json:
        show(f"submission: {options.server_file}")
    return OK


def _weights(text: str | None) -> list[float] | None:
    try:
        return None if text is None else [float(part) for part in text.split(",")]
    except ValueError:
        raise VerydeepError(f"--weights must be numbers separated by commas, such as 1,2,1, not {text!r}.") from None


def _show(result: dict[str, Any]) -> None:
    fusion = result["fusion"]
    rows = [
        (f"{number} {part['run']} {part['protocol']}", f"{part['weight']:.2f}", *_errors(part))
        for number, part in enumerate(result["parts"], start=1)
    ]
    title = f"{fusion['images']} images of {fusion['data']} ({fusion['set']})"
    columns = ["", "weight", "top1 error", "95 % interval", "top5 error", "95 % interval"]
    if fusion["top1_error"] is None:
        show_table(f"{title}: without labels, so no errors", columns[:2], [row[:2] for row in rows])
    else:
        show_table(title, columns, [*rows, ("fusion", "", *_errors(fusion))])
    names = {0: "fusion", **{number: str(number) for number in range(1, len(rows) + 1)}}
    tests = [
        (
            f"{names[pair['first']]} and {names[pair['second']]}, {pair['error'].replace('_', ' ')}",
            *(pair["only_first_wrong"], pair["only_second_wrong"], f"{pair['p']:.2g}"),
        )
        for pair in result["pairs"]
    ]
    if tests:
        show_table("", ["McNemar's test", "only first wrong", "only second wrong", "p"], tests)
    if result["folder"]:
        show(f"fused scores: {result['folder']}")


def _errors(row: dict[str, Any]) -> tuple[str, ...]:
    return (*error_cells(row, "top1_error"), *error_cells(row, "top5_error"))
