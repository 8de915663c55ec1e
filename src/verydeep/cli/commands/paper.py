"""The verbs that make the paper's tables: fuse, reproduce, table."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import Any

from ...core.errors import VerydeepError
from ...core.progress import duration
from .. import output
from ..arguments import given_settings
from ..output import Terminal, show, show_note, show_table
from .common import OK, Stopper, answer_json, error_cells


def fuse(options: argparse.Namespace) -> int:
    """The mean of stored posteriors, with errors, intervals and paired tests."""
    from ...evaluation.ensemble import fuse as fuse_files

    weights = _weights(options.weights)
    found = fuse_files(options.files, weights, options.out, options.server_file, options.devkit)
    if options.json:
        answer_json(found)
    else:
        _show_fusion(found)
        if options.server_file:
            show(f"server file: {options.server_file}")
    return OK


def reproduce(options: argparse.Namespace) -> int:
    """Rows of the paper's tables, trained and tested as far as they are missing; 130 or 143 where interrupted."""
    from ...paper.reproduce import reproduce as reproduce_rows

    reporter = Terminal(options.quiet)
    with Stopper(reporter) as stopper:
        found = reproduce_rows(
            options.name,
            data=options.data,
            out=options.out,
            doll=options.doll,
            plan_only=options.plan,
            weights=_files_by_net(options.weights or []),
            reporter=reporter,
            stop=stopper,
            **given_settings(options),
        )
    if options.json:
        answer_json(found)
    if found["ended"] == "interrupted":
        output.fail("interrupted; what is done is kept: go on with the same command.")
        return 128 + stopper.signal
    if options.json:
        return OK
    if found["ended"] == "planned":
        _show_plan(found)
    else:
        _show_rows(options.name, found)
    return OK


def _files_by_net(words: list[str]) -> dict[str, str]:
    files: dict[str, str] = {}
    for word in words:
        net, _, file = word.partition("=")
        if not net or not file or net in files:
            raise VerydeepError(
                f"weights are given as NET=FILE, once a net, such as D=net_d.safetensors, not {word!r}."
            )
        files[net] = file
    return files


def _show_plan(found: dict[str, Any]) -> None:
    plan = found["plan"]
    rows = [
        (row["run"], row["start"] or "random weights", row["S"], row["most_epochs"], duration(row["seconds"]))
        for row in plan["train"]
    ]
    show_table(f"{found['name']}, into {found['folder']}", ["to train", "from", "S", "epochs at most", "about"], rows)
    tests = [(f"{row['run']} {row['protocol']}", duration(row["seconds"])) for row in plan["test"]]
    show_table("", ["to test", "about"], tests)
    if plan["done"]:
        show(f"done already: {', '.join(plan['done'])}")
    for run in plan["without_file"]:
        net = run.partition("/")[0]
        fetch = f"`verydeep weights fetch oxford-{net}` downloads it, and --weights {net}=oxford-{net} takes it"
        show(f"{run} lacks its weight file: add --weights {net}=FILE ({fetch})")
    show(f"in all about {duration(plan['seconds'])} and {plan['disk_bytes'] / 2**30:.2f} GiB of disk")


def _show_rows(name: str, found: dict[str, Any]) -> None:
    from ...paper.rows.row import find_rows

    results = [{"rows": found["rows"], "claims": {}}]
    rows = find_rows(name)[1]
    for table in dict.fromkeys(row.name.partition("/")[0].removeprefix("table") for row in rows):
        _show_table(table, results)
    show(f"to see them again: verydeep table {table} --from {shlex.quote(found['folder'])}")


def table(options: argparse.Namespace) -> int:
    """A table of the paper with our results beside it; into a page with --write."""
    from ...paper.results import RESULTS
    from ...paper.tables import claim_lines, claims, markdown_table, read_places, table_rows, table_text, write_block

    usual = [place for place in ("runs", "runs/doll") if (Path(place) / RESULTS).exists()]
    results = read_places(options.results or usual[:1])
    if not results and not options.json:
        Terminal(options.quiet).say("nothing is stored in runs or runs/doll: --from names another folder")
    name = options.table.removeprefix("table")
    if name == "claims":
        lines = claim_lines(results) or ["No claim is decided yet: `verydeep reproduce classification` runs all rows."]
        if options.json:
            answer_json(claims(results))
        elif options.write is None:
            for line in lines:
                show(line)
        text = "\n".join(lines)
    else:
        caption, heads, cells, note = table_text(name, results)
        if options.json:
            answer_json(table_rows(name, results))
        elif options.write is None:
            _show_table(name, results)
        text = f"**{caption}**\n\n{markdown_table(heads, cells)}\n\n{note}"
    if options.write is not None:
        write_block(Path(options.write), f"table-{name}", text)
        if not options.json:
            show(f"{options.write}: table {name}")
    return OK


def _show_table(name: str, results: list[dict[str, Any]]) -> None:
    from ...paper.tables import table_text

    caption, heads, cells, note = table_text(name, results)
    show_table(caption, heads, cells)
    if note:
        show_note(note)


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
    if fusion["top1_error"] is None:
        show_table(f"{title}: their classes are not known, so there are no errors", columns[:2], [r[:2] for r in rows])
    else:
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
