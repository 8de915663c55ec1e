"""Sect. 4: the paper's experiments as data: the rows of its tables, the tests of each row, its numbers.

A `Row` names the runs and protocols that it fuses, in the paper's pixels; runs form a chain by what each starts from
(`verydeep.training.recipes.papers_start`). Nothing here trains or tests: `verydeep.paper.reproduce` does, and
`verydeep.paper.tables` puts our results beside the paper's. A new row, table or experiment is added here alone.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field, replace

from ...core.errors import VerydeepError
from ...core.nearest import nearest
from ...evaluation.protocols import SOFTMAX_FIRST
from ...training.recipes import papers_start

DENSE = ("dense@", "both@")  # protocols with a spatial mean
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
    """A claim of the paper on pairs of its rows: that the first's top-1 error is larger than the second's.

    With ``no_better`` it claims instead that the second is no improvement on the first.
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
    loaded = importlib.import_module(f".{name}", __package__).EXPERIMENT
    assert isinstance(loaded, Experiment)
    return loaded


def early_softmax(of: Experiment) -> Experiment:
    """The experiment with the soft-max at each place, before the spatial mean, in every dense evaluation."""

    def changed(test: Test) -> Test:
        return replace(test, protocol=test.protocol + SOFTMAX_FIRST * test.protocol.startswith(DENSE))

    def rows(table: Table) -> tuple[Row, ...]:
        return tuple(replace(row, tests=tuple(map(changed, row.tests))) for row in table.rows)

    return replace(of, tables=tuple(replace(table, rows=rows(table)) for table in of.tables))


def find_table(name: str) -> Table:
    """A table by its name, such as ``3``, ``text`` or ``released``.

    Raises:
        VerydeepError: no such table.
    """
    known = {table.name: table for module in MODULES for table in experiment(module).tables}
    if name not in known:
        raise VerydeepError(
            f"there is no table {name!r} here: the tables are {', '.join(['1', '2', *known])}, doll, fusion and claims."
        )
    return known[name]


def find_rows(name: str) -> tuple[Experiment, tuple[Row, ...]]:
    """The rows a name stands for: an experiment, a table (``table3``), a part of one (``table3/D``) or a row.

    Raises:
        VerydeepError: no such row; the message suggests the nearest name. Or a row of other authors' results only.
    """
    wanted = str(name).rstrip("/")
    wanted = f"table{wanted}" if wanted.isdigit() else wanted
    for module in MODULES:
        of_module = experiment(module)
        rows = [row for row in of_module.rows if wanted == module or f"{row.name}/".startswith(f"{wanted}/")]
        if rows:
            own = tuple(row for row in rows if row.tests)
            if not own:
                raise VerydeepError(f"{wanted} is a result of other authors: there is nothing to reproduce.")
            return of_module, own
    names = [*MODULES, *(row.name for module in MODULES for row in experiment(module).rows if row.tests)]
    tables = sorted({row.partition("/")[0] for row in names} - set(MODULES))
    near = nearest(wanted, [*names, *tables], 0.4)
    hint = f"did you mean {near}? " if near else ""
    raise VerydeepError(f"there is no row {name!r}: {hint}Use {', '.join([*MODULES, *tables])}, or a row of those.")


def runs_of(rows: tuple[Row, ...]) -> tuple[str, ...]:
    """The runs of the rows and all they start from, each after the one it starts from."""
    runs: list[str] = []

    def add(run: str) -> None:
        start = papers_start(run)
        if start is not None:
            add(start)
        if run not in runs:
            runs.append(run)

    for row in rows:
        for test in row.tests:
            add(test.run)
    return tuple(runs)
