"""Terminal output: results to stdout, messages and progress bars to stderr; plain lines without a terminal."""

from __future__ import annotations

import io
import json
import shutil
import sys
import textwrap
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

from rich.bar import Bar
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from ..core.progress import Advance, duration

PLAIN_EVERY_SECONDS = 20.0
PIPE_WIDTH, WIDEST_FIGURE, BAR_WIDTH = 200, 24, 20


def escape_what_cannot_be_encoded() -> None:
    """Makes stdout and stderr accept any text: what their encoding lacks is written as a backslash escape."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def clean(text: str) -> str:
    """Text with control characters escaped, which could move or colour a terminal."""
    shown = text.encode("utf8", "backslashreplace").decode("utf8")
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in shown)


class Terminal:
    """The reporter of the command line; with ``quiet`` only warnings are printed."""

    def __init__(self, quiet: bool = False) -> None:
        self._quiet = quiet
        # Notebooks show the text of stderr; rich's own output there is HTML, and its bars need ipywidgets.
        self._console = Console(stderr=True, highlight=False, soft_wrap=True, force_jupyter=False)

    def say(self, text: str) -> None:
        """Prints a line to stderr."""
        if not self._quiet:
            self._console.print(Text(clean(text)))

    def warn(self, text: str) -> None:
        """Prints a warning to stderr."""
        self._console.print(Text(f"warning: {clean(text)}", style="yellow"))

    @contextmanager
    def track(self, label: str, total: int) -> Iterator[Advance]:
        """A progress bar on a terminal; elsewhere a line now and then."""
        if self._quiet:
            yield lambda count, note: None
        elif self._console.is_terminal and sys.stderr.isatty():  # FORCE_COLOR makes any file a terminal for rich
            with _bar(self._console) as bar:
                task = bar.add_task(clean(label), total=total, note="")
                yield lambda count, note: bar.update(task, advance=count, note=note)
        else:
            yield _PlainLines(self, label, total).advance


class _PlainLines:
    """Progress as lines, one every `PLAIN_EVERY_SECONDS`."""

    def __init__(self, terminal: Terminal, label: str, total: int) -> None:
        self._terminal, self._label, self._total = terminal, label, total
        self._started = self._printed = time.monotonic()
        self._done = 0

    def advance(self, count: int, note: str) -> None:
        self._done += count
        now = time.monotonic()
        if now - self._printed >= PLAIN_EVERY_SECONDS and self._done:
            left = (now - self._started) / self._done * (self._total - self._done)
            self._terminal.say(f"{self._label}: {self._done}/{self._total}  {note}  {duration(left)} left")
            self._printed = now


def _bar(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, TextColumn("{task.fields[note]}"), console=console, transient=True)


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
