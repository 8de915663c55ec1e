"""Tables that people hand in: CSV, TSV and JSON lines of photos, their classes and boxes.

Columns are found by their names, in any order, whatever their capitals, blanks, ``_`` and ``-``; other columns are
passed over. A CSV without a header has the columns that its reader states. Cells are separated by commas, tabs or
semicolons, whichever fits the first row. Blank lines are passed over, and so is a line that begins with ``#``, unless
it is a row as it stands. Errors name the file's line.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ..core.errors import VerydeepError
from ..core.files import check_text
from ..core.text_files import read_text

DELIMITERS = {".csv": ",\t;", ".tsv": "\t,;"}  # by a file's ending, the likeliest first
ENDINGS = (*DELIMITERS, ".jsonl")
SHOWN = 4  # names of a column in a message
THOUSANDS = re.compile(r"\d{1,3}(,\d{3})+")
# Usual names of columns without capitals and punctuation; those of the second list only where none of the first is.
Names = tuple[tuple[str, ...], tuple[str, ...]]
IMAGE: Names = (
    (
        *("path", "image", "filename", "file", "filepath", "imagepath", "imagefile", "imagefilename", "imagename"),
        *("img", "imgpath", "imgfile", "imgname", "photo", "picture", "relpath", "relativepath"),
    ),
    ("imageid", "imgid", "id", "name"),
)
CLASS: Names = (
    ("label", "class", "category", "classname", "labelname", "categoryname", "classlabel", "labels"),
    ("classid", "labelid", "categoryid", "target", "species", "breed", "name"),
)


@dataclass(frozen=True)
class Columns:
    """What a table must have.

    ``names`` are those of each kind of cell, of which ``optional`` ones may be missing. ``forms`` are ways to write
    several numbers that belong together, the preferred first: each with the lists of names it goes by. ``usual`` are
    the columns of a table without a header, the first ``least`` of them needed; ``is_row`` knows such a row's cells.
    """

    names: dict[str, Names]
    usual: tuple[str, ...]
    least: int
    is_row: Callable[[Sequence[str]], bool]
    optional: tuple[str, ...] = ()
    forms: tuple[tuple[str, tuple[tuple[str, ...], ...]], ...] = ()

    def fits(self, cells: Sequence[str]) -> bool:
        """Whether cells are a whole row of a table without a header."""
        return self.least <= len(cells) <= len(self.usual) and self.is_row(cells)

    def advice(self) -> str:
        """What a row without a header has, for a message."""
        rows = (self.usual[: self.least], self.usual)
        return " or ".join(dict.fromkeys(",".join(row) for row in rows))

    def accepted(self) -> str:
        """The names that a header may have, for a message."""
        kinds = [" or ".join(names[0][:SHOWN]) for kind, names in self.names.items() if kind not in self.optional]
        forms = [" or ".join(",".join(names) for names in several[:SHOWN]) for _, several in self.forms]
        return "; ".join([*kinds, *forms])


class Row(NamedTuple):
    """A row of a table: its line; its cells by kind, the numbers of a form, the other cells by their column's name."""

    line: int
    cells: dict[str, str]
    form: str
    numbers: tuple[float, ...]
    others: dict[str, str]


Line = tuple[int, tuple[str, ...], Sequence[Any]]  # its number, the names of its columns, its cells


def read_table(path: Path, columns: Columns) -> list[Row]:
    """The rows of a ``.csv``, ``.tsv`` or ``.jsonl`` file.

    Raises:
        VerydeepError: it cannot be read or is not UTF-8; a column is missing or may be two; a row is longer than the
            header, is no JSON object, or lacks a cell that is text or a number.
    """
    text, delimiter = read_text(path), ""
    if path.suffix.lower() in DELIMITERS:
        delimiter = _delimiter(path, text, columns)
        lines = _csv_lines(path, text, delimiter, columns)
    else:
        lines = _json_lines(path, text)
    known: dict[tuple[str, ...], _Places] = {}
    rows = []
    for line, header, cells in lines:
        if header not in known:
            known[header] = _places(f"{path}, line {line}", header, columns)
        try:
            rows.append(_row(line, header, cells, known[header], delimiter, columns))
        except ValueError as fault:
            raise VerydeepError(f"{path}, line {line}: {fault}.") from None
    return rows


@dataclass(frozen=True)
class _Places:
    """Where in a row the cells of each kind are, those of a form, and the others."""

    kinds: dict[str, int]
    form: str
    together: tuple[int, ...]
    others: tuple[int, ...]


def _places(where: str, header: tuple[str, ...], columns: Columns) -> _Places:
    """Raises VerydeepError where a column is missing, or two may be the same."""
    keys = [_key(name) for name in header]
    form, together = _form(where, header, keys, columns)
    kinds: dict[str, int] = {}
    for strength, kind in ((strength, kind) for strength in (0, 1) for kind in columns.names):
        hits = [
            n
            for n, key in enumerate(keys)
            if key in columns.names[kind][strength] and n not in {*together, *kinds.values()}
        ]
        if hits and kind not in kinds:
            _check(where, header, hits, 1, kind, columns)
            kinds[kind] = hits[0]
    missing = [kind for kind in columns.names if kind not in (*kinds, *columns.optional)]
    missing += ["box"] if columns.forms and not together else []
    if missing:
        shown = ",".join(header)[:120]
        raise VerydeepError(f"{where}: no column of {shown!r} is the {missing[0]}; accepted are {columns.accepted()}.")
    others = tuple(place for place in range(len(header)) if place not in {*kinds.values(), *together})
    return _Places(kinds, form, together, others)


def _form(where: str, header: tuple[str, ...], keys: list[str], columns: Columns) -> tuple[str, tuple[int, ...]]:
    """The first form whose columns are all there, and where; raises VerydeepError where they are there twice."""
    for form, several in columns.forms:
        there = [names for names in several if set(names) <= set(keys)]
        if there:
            hits = [n for n, key in enumerate(keys) if any(key in names for names in there)]
            _check(where, header, hits, len(there[0]), "box", columns)
            return form, tuple(keys.index(name) for name in there[0])
    return "", ()


def _key(name: str) -> str:
    return re.sub(r"[\W_]", "", unicodedata.normalize("NFC", name).casefold())


def _check(where: str, header: tuple[str, ...], hits: list[int], most: int, kind: str, columns: Columns) -> None:
    if len(hits) > most:
        several = ", ".join(repr(header[place]) for place in hits)
        raise VerydeepError(
            f"{where}: each of {several} may be the {kind}: keep one; accepted are {columns.accepted()}."
        )


def _row(
    line: int, header: tuple[str, ...], cells: Sequence[Any], places: _Places, delimiter: str, columns: Columns
) -> Row:
    """Raises ValueError where a cell is none of its kind."""
    kinds = {kind: _text(kind, cells[n], columns) for kind, n in places.kinds.items()}
    numbers = tuple([_number(cells[n], delimiter, columns) for n in places.together])
    others = {header[n]: str(cells[n]) for n in places.others}
    return Row(line, kinds, places.form, numbers, others)


def _text(kind: str, value: Any, columns: Columns) -> str:
    """A cell as text; raises ValueError where it is none and needed: JSON has other values than names."""
    if isinstance(value, str) and value.isascii() and value.strip():
        return value
    if kind in columns.optional and (value is None or value == ""):
        return ""
    named = isinstance(value, str) and value.strip() != ""
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    with contextlib.suppress(ValueError):  # of half a surrogate pair
        check_text(str(value))
        if named or number:
            return str(value)
    raise ValueError(f"the {kind} is {json.dumps(value, ensure_ascii=False)[:80]}: give a name or a whole number")


def _number(value: Any, delimiter: str, columns: Columns) -> float:
    """A cell as a number; a comma is the decimal point, but not where it may part thousands."""
    text = str(value)
    if "," in text and (delimiter == ";" or not THOUSANDS.fullmatch(text)):
        text = text.replace(",", ".", 1)
    with contextlib.suppress(ValueError):
        if math.isfinite(float(text)):
            return float(text)
    raise ValueError(f"give {columns.advice()}, with the box in numbers, not {str(value)[:80]!r}")


def _csv_lines(path: Path, text: str, delimiter: str, columns: Columns) -> Iterator[Line]:
    header: tuple[str, ...] = ()
    records = list(_records(path, text, delimiter, columns))
    for place, (line, cells) in enumerate(records):
        if _is_comment(cells, columns) and (place or not _is_header(cells, columns)):
            continue
        if not columns.is_row(cells):
            if _is_header(cells, columns):  # the first, or that of a table put behind another
                header = tuple(cells)
                continue
            if not header and _may_be_header(cells, records[place + 1 : place + 2], columns):
                _places(f"{path}, line {line}", tuple(cells), columns)  # which tells what it lacks
        names = header or columns.usual
        if not header and not columns.least <= len(cells) <= len(names):
            raise VerydeepError(f"{path}, line {line}: give {columns.advice()}, not {','.join(cells)[:80]!r}.")
        if len(cells) > len(names):
            raise VerydeepError(f"{path}, line {line}: it has {len(cells)} cells, and the header has {len(names)}.")
        cells.extend([""] * (len(names) - len(cells)))
        yield line, names, cells


def _is_comment(cells: Sequence[str], columns: Columns) -> bool:
    return cells[0].startswith("#") and not columns.fits(cells)


def _is_header(cells: Sequence[str], columns: Columns) -> bool:
    try:
        _places("", tuple(cells), columns)
    except VerydeepError:
        return False
    return True


def _may_be_header(cells: Sequence[str], after: list[tuple[int, list[str]]], columns: Columns) -> bool:
    """Whether a first row that is none names a known column, or stands before a row."""
    known = {name for names in columns.names.values() for several in names for name in several}
    return not known.isdisjoint(map(_key, cells)) or any(columns.fits(row) for _, row in after)


def _delimiter(path: Path, text: str, columns: Columns) -> str:
    """What separates the cells: what makes of the first line a header or a whole row, else of several cells."""
    usual = DELIMITERS[path.suffix.lower()]
    first: dict[str, list[str]] = {}
    for delimiter in usual:
        with contextlib.suppress(VerydeepError):
            rows = (cells for _, cells in _records(path, text, delimiter, columns))
            first[delimiter] = next((cells for cells in rows if not _is_comment(cells, columns)), [""])
    for delimiter, cells in first.items():
        if columns.fits(cells) or _is_header(cells, columns):
            return delimiter
    return next((delimiter for delimiter, cells in first.items() if len(cells) > 1), usual[0])


def _records(path: Path, text: str, delimiter: str, columns: Columns) -> Iterator[tuple[int, list[str]]]:
    """The first line and the cells of each row that is not blank, without empty cells at its end."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True)
    line = 1
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            while cells and not cells[-1]:
                cells.pop()
            if cells:
                yield line, cells
            line = reader.line_num + 1
    except csv.Error as fault:
        raise VerydeepError(f"{path}, line {line}: give {columns.advice()} ({fault}).") from None


def _json_lines(path: Path, text: str) -> Iterator[Line]:
    for line, told in enumerate(io.StringIO(text, newline=None), start=1):
        if told.strip():
            try:
                row = json.loads(told)
            except (ValueError, RecursionError):
                row = None
            if not isinstance(row, dict):
                raise VerydeepError(f'{path}, line {line}: give {{"path": …, "label": …}}, not {told.strip()[:80]!r}.')
            yield line, tuple(row), tuple(row.values())
