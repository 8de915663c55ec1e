"""Sect. 4: what the paper did, as data: its tables' rows, the tests each is made of, its numbers.

A `Row` names the runs and protocols whose fusion it is, in the paper's pixels; runs form a chain by
what each starts from (`verydeep.training.recipes.papers_start`). Nothing here trains or tests:
`verydeep.paper.reproduce` does, and `verydeep.paper.tables` puts its results beside the paper's.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field

from ...core.errors import VerydeepError
from ...core.nearest import nearest
from ...training.recipes import papers_start

MODULES = ("classification", "localisation", "released", "transfer")


@dataclass(frozen=True)
class Test:
    """A run tested by a protocol, both in the paper's names and pixels: ``D/256-512``, ``dense@256,384,512``."""

    run: str
    protocol: str


@dataclass(frozen=True)
class Paper:
    """The paper's errors in percent on ILSVRC; None where it prints a dash, a blank, or nothing.

    In the tables of App. A ``top5_…`` are localisation errors, and ``gt_class_val`` is that of the true class's box. In
    those of App. B ``figure`` is a mean average precision or class recall in percent, ``figure_std`` its spread.
    """

    top1_val: float | None = None
    top5_val: float | None = None
    top5_test: float | None = None
    note: str = ""
    gt_class_val: float | None = None
    figure: float | None = None
    figure_std: float | None = None


@dataclass(frozen=True)
class Row:
    """A row of a table: its name, its cells left of the errors, its tests (none for others' methods).

    ``needs`` are names of rows, of other experiments, that have to be reproduced first.
    """

    name: str
    cells: tuple[str, ...]
    paper: Paper
    tests: tuple[Test, ...] = ()
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """A table: its name (``3``), its caption, the heads of its cells, its rows, which errors it has and their heads."""

    name: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    errors: tuple[str, ...] = ("top1_val", "top5_val")
    heads: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Claim:
    """What the paper says of two of its rows: that the first's top-1 error is larger than the second's.

    With ``no_better`` it says instead that the second is no improvement on the first.
    """

    name: str
    text: str
    section: str
    pairs: tuple[tuple[str, str], ...]
    no_better: bool = False


@dataclass(frozen=True)
class Experiment:
    """Tables and claims that are reproduced together, under one name.

    ``task`` says how rows are evaluated (`verydeep.paper.reproduce.TASKS`); ``released`` that the nets are weight files
    given on the command line, which nothing trains.
    """

    name: str
    tables: tuple[Table, ...]
    claims: tuple[Claim, ...] = field(default=())
    task: str = "classification"
    released: bool = False

    @property
    def rows(self) -> tuple[Row, ...]:
        """All rows of all tables, in order."""
        return tuple(row for table in self.tables for row in table.rows)


def experiment(name: str) -> Experiment:
    """An experiment by its name; raises VerydeepError for none."""
    if name not in MODULES:
        raise VerydeepError(f"there is no experiment {name!r}: they are {', '.join(MODULES)}.")
    found = importlib.import_module(f".{name}", __package__).EXPERIMENT
    assert isinstance(found, Experiment)
    return found


def find_table(name: str) -> Table:
    """A table by its name, such as ``3``, ``text`` or ``released``.

    Raises:
        VerydeepError: no such table.
    """
    known = {table.name: table for module in MODULES for table in experiment(module).tables}
    if name not in known:
        raise VerydeepError(
            f"there is no table {name!r} here: the tables are {', '.join(['1', '2', *known])} and claims."
        )
    return known[name]


def find_rows(name: str) -> tuple[Experiment, tuple[Row, ...]]:
    """The rows a name stands for: an experiment, a table (``table3``), a part of one (``table3/D``) or a row.

    Raises:
        VerydeepError: none; the sentence suggests the nearest name. Or a row of other people's results only.
    """
    asked = str(name).rstrip("/")
    asked = f"table{asked}" if asked.isdigit() else asked
    for module in MODULES:
        found = experiment(module)
        rows = [row for row in found.rows if asked == module or f"{row.name}/".startswith(f"{asked}/")]
        if rows:
            own = tuple(row for row in rows if row.tests)
            if not own:
                raise VerydeepError(f"{asked} is the result of others' nets: there is nothing here to reproduce.")
            return found, own
    names = [*MODULES, *(row.name for module in MODULES for row in experiment(module).rows if row.tests)]
    tables = sorted({row.partition("/")[0] for row in names} - set(MODULES))
    near = nearest(asked, [*names, *tables], 0.4)
    hint = f"did you mean {near}? " if near else ""
    raise VerydeepError(f"there is no row {name!r}: {hint}Give {', '.join([*MODULES, *tables])}, or a row of those.")


def runs_of(rows: tuple[Row, ...]) -> tuple[str, ...]:
    """The runs of some rows and all they start from, each after what it starts from."""
    found: list[str] = []

    def add(run: str) -> None:
        start = papers_start(run)
        if start is not None:
            add(start)
        if run not in found:
            found.append(run)

    for row in rows:
        for test in row.tests:
            add(test.run)
    return tuple(found)
