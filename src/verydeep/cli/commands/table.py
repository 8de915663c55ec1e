"""Show a table of the paper with our results beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...core.terminal import Terminal
from ..execution import OK
from ..output import show, show_json, show_note, show_table
from ..parser import CommandParser, Options


def add_arguments(parser: CommandParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument("table", metavar="N", help="1 to 12, text, released, doll, fusion or claims")
    folders = "folders written by `reproduce` (default: runs); of several: the mean over seeds; fusion: by `fuse --out`"
    parser.group("Data").add_argument("--from", dest="results", metavar="DIR", nargs="+", action="extend", help=folders)
    markers = "also write the table to a Markdown page, between <!-- table-N --> and <!-- /table-N -->"
    parser.group("Output").add_argument("--write", metavar="PAGE", help=markers)


def run(options: Options) -> int:
    """Shows a table or the claims, or writes them into a page."""
    from ...paper.results import RESULTS
    from ...paper.tables import claims, fusion_rows, read_places, table_rows, write_block

    name = options.table.removeprefix("table")
    if name == "fusion":
        return _show_fusion(options, fusion_rows(options.results or []))
    usual = [place for place in ("runs", "runs/doll") if (Path(place) / RESULTS).exists()]
    results = read_places(options.results or usual[:1])
    if not results and not options.json:
        Terminal(options.quiet).say("no results in runs or runs/doll: pass another folder as --from")
    if options.write is not None:
        write_block(Path(options.write), f"table-{name}", _markdown(name, results))
    if options.json:
        show_json(claims(results) if name == "claims" else table_rows(name, results))
    elif options.write is not None:
        show(f"{options.write}: table {name}")
    elif name == "claims":
        for line in _markdown(name, results).split("\n"):
            show(line)
    else:
        show_paper_table(name, results)
    return OK


def _markdown(name: str, results: list[dict[str, Any]]) -> str:
    """A table, or the paper's claims, as Markdown."""
    from ...paper.tables import claim_lines, markdown_table, table_text

    if name == "claims":
        undecided = "No claim is decided yet: `verydeep reproduce classification` runs all rows."
        return "\n".join(claim_lines(results)) or undecided
    caption, heads, cells, note = table_text(name, results)
    return f"**{caption}**\n\n{markdown_table(heads, cells)}\n\n{note}"


def _show_fusion(options: Options, rows: list[dict[str, Any]]) -> int:
    """Shows stored fusions, or writes them into a page."""
    from ...paper.tables import fusion_text, markdown_table, write_block

    caption, heads, cells, note = fusion_text(rows)
    if options.write is not None:
        text = f"**{caption}**\n\n{markdown_table(heads, cells)}\n\n{note}"
        write_block(Path(options.write), "table-fusion", text)
    if options.json:
        show_json(rows)
    elif options.write is not None:
        show(f"{options.write}: table fusion")
    else:
        show_table(caption, heads, cells)
        show_note(note)
    return OK


def show_paper_table(name: str, results: list[dict[str, Any]]) -> None:
    """Prints a table of the paper with results beside it."""
    from ...paper.tables import table_text

    caption, heads, cells, note = table_text(name, results)
    show_table(caption, heads, cells)
    if note:
        show_note(note)
