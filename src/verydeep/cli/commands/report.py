"""The verb that writes reports: report."""

from __future__ import annotations

import argparse
from typing import Any

from ..output import show, show_table
from .common import answer_json, status_of


def report(options: argparse.Namespace) -> int:
    """A page on a run, a probe or SVMs, or on several of them; status 1 where some of several are left out."""
    from ...reports.write import write_report

    told = write_report(options.folders, options.out)
    if options.json:
        answer_json(told)
    else:
        if "runs" in told:
            _show_runs(told)
        show(f"report: {told['page']}")
    return status_of(told.get("faults", ()), answered=True)


def _show_runs(told: dict[str, Any]) -> None:
    """The runs as rows, and how the others differ from the first."""
    rows = [
        (
            *(row["folder"], row["net"], row["S"], f"{row['parameters'] / 1e6:.2f} M"),
            *("" if row["best_dev_error"] is None else f"{row['best_dev_error']:.2f} %", row["epochs"]),
        )
        for row in told["runs"]
    ]
    show_table("", ["run", "net", "S", "parameters", "best dev error", "epochs"], rows)
    tests = [
        (
            *(pair["second"], pair["second_test"], f"{pair['difference']:+.2f}"),
            *(f"{pair['interval'][0]:+.2f} to {pair['interval'][1]:+.2f}", f"{pair['p']:.2g}"),
        )
        for pair in told["pairs"]
    ]
    if tests:
        heads = ["", "test", "points of error", "95 % interval", "p"]
        show_table(f"against {told['runs'][0]['folder']}, on the same photos", heads, tests)
