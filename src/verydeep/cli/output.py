"""Results of commands as text on stdout, and errors on stderr; progress is `core.terminal`'s."""

from __future__ import annotations

import io
import json
import shutil
import sys
import textwrap
from collections.abc import Iterable
from typing import Any, Literal

from rich.bar import Bar
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..core.terminal import clean

PIPE_WIDTH, WIDEST_FIGURE, BAR_WIDTH = 200, 24, 20


def escape_what_cannot_be_encoded() -> None:
    """Makes stdout and stderr accept any text: what their encoding lacks is written as a backslash escape."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def show(text: str) -> None:
    """Prints a line of the result to stdout."""
    print(clean(text))


def show_raw(text: str) -> None:
    """Writes a whole document (JSON, CSV) to stdout, unchanged and at once."""
    sys.stdout.write(text.encode("utf8", "backslashreplace").decode("utf8"))
    sys.stdout.flush()


def show_json(value: Any) -> None:
    """Prints one JSON document to stdout, in ASCII and without control characters."""
    text = json.dumps(value, indent=2, allow_nan=False).replace("\x7f", "\\u007f")  # which JSON lets pass
    show_raw(text + "\n")


def error_cells(row: dict[str, Any], name: str) -> tuple[str, str]:
    """An error and its interval as table cells, empty where there is none."""
    if row[name] is None:
        return "", ""
    interval = row.get(f"{name}_interval")  # a baseline has none
    return f"{row[name]:.2f} %", "" if interval is None else f"{interval[0]:.2f} to {interval[1]:.2f} %"


def probability_line(row: dict[str, Any]) -> str:
    """How far the posteriors are probabilities, as a line of text."""
    temperature = row.get("temperature")
    what = "probabilities" if temperature is None else f"calibrated (temperature {temperature:.3f})"
    return f"{what}: ECE {row['ece']:.2f} %, NLL {row['nll']:.4f}, Brier score {row['brier']:.4f}"


def show_table(title: str, columns: list[str], rows: Iterable[Iterable[object]]) -> None:
    """Prints a title and a table to stdout; the first column is left-aligned, the others right-aligned."""
    show_note(title)
    table = Table(box=None, pad_edge=False)
    cells = [[clean(str(cell)) for cell in row] for row in rows]
    for number, column in enumerate(columns):
        # Only the first column and the heads may be wrapped.
        widest = max((len(row[number]) for row in cells), default=0) if number else 0
        word = max(map(len, column.split()), default=0)
        side: Literal["left", "right"] = "right" if number else "left"
        most = max(widest, word) if number else None
        table.add_column(column, justify=side, overflow="fold", min_width=min(widest, WIDEST_FIGURE), max_width=most)
    for row in cells:
        table.add_row(*(Text(cell) for cell in row))
    # In a file or a pipe long lines are better than wrapped cells.
    _Plain(highlight=False, width=None if sys.stdout.isatty() else PIPE_WIDTH).print(table)


def show_shares(rows: Iterable[tuple[str, float]]) -> None:
    """Prints names with their shares of 1, one per line, to stdout; with bars on a UTF-8 terminal."""
    if not sys.stdout.isatty() or not sys.stdout.encoding.lower().startswith("utf"):
        for name, share in rows:
            show(f"  {100 * share:5.1f} %  {name}")
        return
    table = Table.grid(padding=(0, 2))
    for name, share in rows:
        table.add_row(Text(f"  {100 * share:5.1f} %"), Bar(1.0, 0.0, share, width=BAR_WIDTH), Text(clean(name)))
    _Plain(highlight=False).print(table)


class _Plain(Console):
    """A console that raises BrokenPipeError, for `cli.main` to handle."""

    def on_broken_pipe(self) -> None:
        """Raises it again."""
        raise BrokenPipeError


def show_note(text: str) -> None:
    """Prints a paragraph to stdout, wrapped between words on a terminal."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 10**6
    show_raw("\n".join(textwrap.wrap(clean(text), width)) + "\n")


def fail(sentence: str) -> None:
    """Prints an error, one sentence, to stderr."""
    sys.stderr.write(f"verydeep: {clean(sentence)}\n")
