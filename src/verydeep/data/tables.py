"""Users' tables of images, classes and boxes: CSV, TSV and JSON lines.

Columns are recognised by name, in any order, ignoring case, blanks, ``_`` and ``-``; other columns are ignored. A CSV
without a header has the columns that its reader defines. Cells are separated by commas, tabs or semicolons, whichever
fits the first row. Blank lines are skipped, and so are lines that start with ``#``, unless they are valid rows. Error
messages give the line.
"""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
import json
import math
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ..core.errors import VerydeepError
from ..core.files import check_text, read_text

DELIMITERS = {".csv": ",\t;", ".tsv": "\t,;"}  # by file extension, the likeliest first
ENDINGS = (*DELIMITERS, ".jsonl")
SHOWN = 4  # names of a column in a message
THOUSANDS = re.compile(r"\d{1,3}(,\d{3})+")
# Usual names of columns in lower case without punctuation; those of a list count if none of the lists before it occurs.
Names = tuple[tuple[str, ...], ...]
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
SEVERAL = ("labels", "classes", "categories", "tags")  # of columns whose cells may hold several classes
SEPARATORS = re.compile(r"[|;]")


@dataclass(frozen=True)
class Columns:
    """The columns that a table must have.

    ``names`` are the names of each kind of cell; ``optional`` kinds may be missing. ``forms`` are alternative groups of
    number columns, the preferred first, each with its possible lists of names. ``usual`` are the columns of a table
    without a header, of which the first ``least`` are required; ``is_row`` recognises the cells of such a row. A cell
    of a kind in ``several`` may hold several names, if its column has one of the names `SEVERAL`: as a text with
    `SEPARATORS`, or a JSON array.
    """

    names: dict[str, Names]
    usual: tuple[str, ...]
    least: int
    is_row: Callable[[Sequence[str]], bool]
    optional: tuple[str, ...] = ()
    several: tuple[str, ...] = ()
    forms: tuple[tuple[str, tuple[tuple[str, ...], ...]], ...] = ()

    def fits(self, cells: Sequence[str]) -> bool:
        """Whether cells are a complete row of a table without a header."""
        return self.least <= len(cells) <= len(self.usual) and self.is_row(cells)

    def advice(self) -> str:
        """The columns of a table without a header, for messages."""
        rows = (self.usual[: self.least], self.usual)
        return " or ".join(dict.fromkeys(",".join(row) for row in rows))

    def accepted(self) -> str:
        """The names that a header may contain, for messages."""
        kinds = [" or ".join(names[0][:SHOWN]) for kind, names in self.names.items() if kind not in self.optional]
        forms = [" or ".join(",".join(names) for names in several[:SHOWN]) for _, several in self.forms]
        return "; ".join([*kinds, *forms])


class Row(NamedTuple):
    """A row of a table: its line, its cells by kind, the numbers of a form, and other cells by column name.

    ``several`` are the names, perhaps none, of a cell that may hold several.
    """

    line: int
    cells: dict[str, str]
    form: str
    numbers: tuple[float, ...]
    others: dict[str, str]
    several: dict[str, tuple[str, ...]]


Line = tuple[int, tuple[str, ...], Sequence[Any]]  # its number, the names of its columns, its cells


def read_table(path: Path, columns: Columns) -> list[Row]:
    """The rows of a ``.csv``, ``.tsv`` or ``.jsonl`` file.

    Raises:
        VerydeepError: unreadable or not UTF-8; a column is missing or ambiguous; a row is longer than the header, is
            not a JSON object, or lacks a text or number.
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
    """The positions of the cells of each kind, of those of a form, and of the others.

    ``several`` are the kinds whose columns are named in the plural.
    """

    kinds: dict[str, int]
    form: str
    numbers: tuple[int, ...]
    others: tuple[int, ...]
    several: tuple[str, ...]


def _places(where: str, header: tuple[str, ...], columns: Columns) -> _Places:
    """The positions of a header's columns; raises VerydeepError if one is missing or ambiguous."""
    keys = [column_key(name) for name in header]
    form, numbers = _form(where, header, keys, columns)
    kinds: dict[str, int] = {}
    for strength, kind in itertools.product(range(max(map(len, columns.names.values()))), columns.names):
        names = columns.names[kind][strength] if strength < len(columns.names[kind]) else ()
        used = {*numbers, *kinds.values()}
        matches = [place for place, key in enumerate(keys) if key in names and place not in used]
        if matches and kind not in kinds:
            _check_unique(where, header, matches, 1, kind, columns)
            kinds[kind] = matches[0]
    missing = [kind for kind in columns.names if kind not in (*kinds, *columns.optional)]
    missing += ["box"] if columns.forms and not numbers else []
    if missing:
        shown = ",".join(header)[:120]
        raise VerydeepError(f"{where}: no column of {shown!r} is the {missing[0]}; accepted are {columns.accepted()}.")
    others = tuple(place for place in range(len(header)) if place not in {*kinds.values(), *numbers})
    several = tuple(kind for kind in columns.several if kind in kinds and keys[kinds[kind]] in SEVERAL)
    return _Places(kinds, form, numbers, others, several)


def _form(where: str, header: tuple[str, ...], keys: list[str], columns: Columns) -> tuple[str, tuple[int, ...]]:
    """The first form of which all columns exist, and their positions; raises VerydeepError if they exist twice."""
    for form, alternatives in columns.forms:
        complete = [names for names in alternatives if set(names) <= set(keys)]
        if complete:
            matches = [place for place, key in enumerate(keys) if any(key in names for names in complete)]
            _check_unique(where, header, matches, len(complete[0]), "box", columns)
            return form, tuple(keys.index(name) for name in complete[0])
    return "", ()


def column_key(name: str) -> str:
    """A column's name as `Names` has it."""
    return re.sub(r"[\W_]", "", unicodedata.normalize("NFC", name).casefold())


def _check_unique(
    where: str, header: tuple[str, ...], matches: list[int], most: int, kind: str, columns: Columns
) -> None:
    if len(matches) > most:
        several = ", ".join(repr(header[place]) for place in matches)
        raise VerydeepError(
            f"{where}: each of {several} may be the {kind}: keep one; accepted are {columns.accepted()}."
        )


def _row(
    line: int, header: tuple[str, ...], cells: Sequence[Any], places: _Places, delimiter: str, columns: Columns
) -> Row:
    """A row from its cells; raises ValueError if one is invalid."""
    several = {kind: _names(kind, cells[places.kinds[kind]], columns) for kind in places.several}
    kinds = {
        kind: "|".join(several[kind]) if kind in several else _text(kind, cells[place], columns)
        for kind, place in places.kinds.items()
    }
    numbers = tuple([_number(cells[place], delimiter, columns) for place in places.numbers])
    others = {header[place]: str(cells[place]) for place in places.others}
    return Row(line, kinds, places.form, numbers, others, several)


def _names(kind: str, value: Any, columns: Columns) -> tuple[str, ...]:
    """The names in a cell, each once; raises ValueError for another JSON value."""
    if isinstance(value, list):
        return tuple(dict.fromkeys(_text(kind, name, columns) for name in value))
    text = "" if value in (None, "") else _text(kind, value, columns)
    return tuple(dict.fromkeys(name.strip() for name in SEPARATORS.split(text) if name.strip()))


def _text(kind: str, value: Any, columns: Columns) -> str:
    """A cell as text; raises ValueError if it is empty and required, or another JSON value."""
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
    more = f"; several names are read in a column {SEVERAL[0]!r}" * (
        isinstance(value, list) and kind in columns.several
    )
    raise ValueError(f"the {kind} is {json.dumps(value, ensure_ascii=False)[:80]}: use a name or an integer{more}")


def _number(value: Any, delimiter: str, columns: Columns) -> float:
    """A cell as a number; a comma is the decimal point, unless it may separate thousands."""
    text = str(value)
    if "," in text and (delimiter == ";" or not THOUSANDS.fullmatch(text)):
        text = text.replace(",", ".", 1)
    with contextlib.suppress(ValueError):
        if math.isfinite(float(text)):
            return float(text)
    raise ValueError(f"expected {columns.advice()}, with the box in numbers, got {str(value)[:80]!r}")


def _csv_lines(path: Path, text: str, delimiter: str, columns: Columns) -> Iterator[Line]:
    header: tuple[str, ...] = ()
    records = list(_records(path, text, delimiter, columns))
    for place, (line, cells) in enumerate(records):
        if _is_comment(cells, columns) and (place or not _is_header(cells, columns)):
            continue
        if not columns.is_row(cells):
            if _is_header(cells, columns):  # the first, or that of another table appended to it
                header = tuple(cells)
                continue
            if not header and _may_be_header(cells, records[place + 1 : place + 2], columns):
                _places(f"{path}, line {line}", tuple(cells), columns)  # raises an error that says what is missing
        names = header or columns.usual
        if not header and not columns.least <= len(cells) <= len(names):
            raise VerydeepError(f"{path}, line {line}: expected {columns.advice()}, got {','.join(cells)[:80]!r}.")
        if len(cells) > len(names):
            raise VerydeepError(
                f"{path}, line {line}: expected {len(names)} cells, as in the header, got {len(cells)}."
            )
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
    """Whether an invalid first row contains the name of a column, or precedes a valid row."""
    known = {name for names in columns.names.values() for several in names for name in several}
    return not known.isdisjoint(map(column_key, cells)) or any(columns.fits(row) for _, row in after)


def _delimiter(path: Path, text: str, columns: Columns) -> str:
    """The delimiter with which the first line is a header or a complete row, or else has several cells."""
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
    """The first line and the cells of each row that is not blank, without trailing empty cells."""
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
        raise VerydeepError(f"{path}, line {line}: expected {columns.advice()} ({fault}).") from None


def _json_lines(path: Path, text: str) -> Iterator[Line]:
    for line, written in enumerate(io.StringIO(text, newline=None), start=1):
        if written.strip():
            try:
                row = json.loads(written)
            except (ValueError, RecursionError):
                row = None
            if not isinstance(row, dict):
                shown = written.strip()[:80]
                raise VerydeepError(f'{path}, line {line}: expected {{"path": …, "label": …}}, got {shown!r}.')
            yield line, tuple(row), tuple(row.values())
