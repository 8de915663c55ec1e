"""Show a table of the paper with our results beside it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..execution import OK
from ..output import Terminal, show, show_json, show_note, show_table
from ..parser import CommandParser


def add_arguments(parser: CommandParser) -> None:
    parser.add_argument("table", metavar="N", help="1 to 12, text, released, or claims")
    folders = "folders that reproduce wrote (runs); of several, the mean over seeds"
    parser.group("Data").add_argument("--from", dest="results", metavar="DIR", nargs="+", action="extend", help=folders)
    markers = "write it into a Markdown page, between <!-- table-N --> and <!-- /table-N -->"
    parser.group("Output").add_argument("--write", metavar="PAGE", help=markers)


def run(options: argparse.Namespace) -> int:
    """Shows a table or the claims, or writes them into a page."""
    from ...paper.results import RESULTS
    from ...paper.tables import read_places, write_block

    usual = [place for place in ("runs", "runs/doll") if (Path(place) / RESULTS).exists()]
    results = read_places(options.results or usual[:1])
    if not results and not options.json:
        Terminal(options.quiet).say("no results in runs or runs/doll: give another folder with --from")
    name = options.table.removeprefix("table")
    shown = not options.json and options.write is None
    text = (_claims if name == "claims" else _table)(name, results, options.json, shown)
    if options.write is not None:
        write_block(Path(options.write), f"table-{name}", text)
        if not options.json:
            show(f"{options.write}: table {name}")
    return OK


def _claims(_name: str, results: list[dict[str, Any]], as_json: bool, shown: bool) -> str:
    """The paper's claims as Markdown, printed where wanted."""
    from ...paper.tables import claim_lines, claims

    lines = claim_lines(results) or ["No claim is decided yet: `verydeep reproduce classification` runs all rows."]
    if as_json:
        show_json(claims(results))
    elif shown:
        for line in lines:
            show(line)
    return "\n".join(lines)


def _table(name: str, results: list[dict[str, Any]], as_json: bool, shown: bool) -> str:
    """A table as Markdown, printed where wanted."""
    from ...paper.tables import markdown_table, table_rows, table_text

    caption, heads, cells, note = table_text(name, results)
    if as_json:
        show_json(table_rows(name, results))
    elif shown:
        show_paper_table(name, results)
    return f"**{caption}**\n\n{markdown_table(heads, cells)}\n\n{note}"


def show_paper_table(name: str, results: list[dict[str, Any]]) -> None:
    """Prints a table of the paper with results beside it."""
    from ...paper.tables import table_text

    caption, heads, cells, note = table_text(name, results)
    show_table(caption, heads, cells)
    if note:
        show_note(note)
