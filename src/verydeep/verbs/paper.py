"""The verbs that make the paper's tables: fuse, reproduce, table."""

from __future__ import annotations

import argparse
from typing import Any

from ..errors import VerydeepError
from ..terminal import show, show_table
from . import OK, answer_json, error_cells


def fuse(options: argparse.Namespace) -> int:
    """The mean of stored posteriors, with errors, intervals and paired tests."""
    from ..fusion import fuse as fuse_files

    weights = _weights(options.weights)
    if (options.server_file is None) != (options.devkit is None):
        raise VerydeepError("--server-file and --devkit go together: the devkit tells each class's ILSVRC2012_ID.")
    found = fuse_files(options.files, weights, options.out, options.server_file, options.devkit)
    if options.json:
        answer_json(found)
    else:
        _show_fusion(found)
        if options.server_file:
            show(f"server file: {options.server_file}")
    return OK


def _weights(text: str | None) -> list[float] | None:
    try:
        return None if text is None else [float(part) for part in text.split(",")]
    except ValueError:
        raise VerydeepError(f"weights are numbers with commas between, such as 1,2,1, not {text!r}.") from None


def _show_fusion(found: dict[str, Any]) -> None:
    fusion = found["fusion"]
    rows = [
        (f"{number} {part['run']} {part['protocol']}", f"{part['weight']:.2f}", *_errors(part))
        for number, part in enumerate(found["parts"], start=1)
    ]
    title = f"{fusion['images']} photos of {fusion['data']} ({fusion['set']})"
    columns = ["", "weight", "top1 error", "95 % interval", "top5 error", "95 % interval"]
    show_table(title, columns, [*rows, ("fusion", "", *_errors(fusion))])
    names = {0: "fusion", **{number: str(number) for number in range(1, len(rows) + 1)}}
    tests = [
        (
            f"{names[pair['first']]} and {names[pair['second']]}, {pair['error'].replace('_', ' ')}",
            pair["only_first_wrong"],
            pair["only_second_wrong"],
            f"{pair['p']:.2g}",
        )
        for pair in found["pairs"]
    ]
    if tests:
        show_table("", ["McNemar's test", "only first wrong", "only second wrong", "p"], tests)
    if found["folder"]:
        show(f"fused scores: {found['folder']}")


def _errors(row: dict[str, Any]) -> tuple[str, ...]:
    return (*error_cells(row, "top1_error"), *error_cells(row, "top5_error"))
