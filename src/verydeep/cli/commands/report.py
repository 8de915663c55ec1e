"""Write an HTML report of a run, a probe or SVMs, or one that compares several."""

from __future__ import annotations

from typing import Any

from ...core.settings import MachineSettings
from ..execution import show_result, status_of
from ..output import show, show_table
from ..parser import CommandParser, Options, add_settings


def add_arguments(parser: CommandParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument(
        "folders", metavar="DIR", nargs="+", help="folders of runs, probes or SVMs; several are compared"
    )
    parser.group("Output").add_argument(
        "--out",
        metavar="FILE",
        help="HTML file to write (default: report.html in DIR; for several: comparison.html here)",
    )
    add_settings(parser, MachineSettings, only=("max_pixels",))


def run(options: Options) -> int:
    """Writes a report; status 1 where some of several folders are left out."""
    from ...reports.write import write_report

    result = write_report(options.folders, options.out)
    show_result(options, result, _show)
    return status_of(result.get("faults", ()), some_done=True)


def _show(result: dict[str, Any]) -> None:
    if "runs" in result:
        _show_runs(result)
    show(f"report: {result['page']}")


def _show_runs(result: dict[str, Any]) -> None:
    """The runs as rows, and how the others differ from the first."""
    rows = [
        (
            *(row["folder"], row["net"], row["S"], f"{row['parameters'] / 1e6:.2f} M"),
            *("" if row["best_dev_error"] is None else f"{row['best_dev_error']:.2f} %", row["epochs"]),
        )
        for row in result["runs"]
    ]
    show_table("", ["run", "net", "S", "parameters", "best dev error", "epochs"], rows)
    tests = [
        (
            *(pair["second"], pair["second_test"], f"{pair['difference']:+.2f}"),
            *(f"{pair['interval'][0]:+.2f} to {pair['interval'][1]:+.2f}", f"{pair['p']:.2g}"),
        )
        for pair in result["pairs"]
    ]
    if tests:
        columns = ["", "test", "points of error", "95 % interval", "p"]
        show_table(f"against {result['runs'][0]['folder']}, on the same images", columns, tests)
