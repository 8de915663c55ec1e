"""App. B: Tables 11 and 12, and the descriptor of each data set.

The runs ``D/released`` and ``E/released`` are weight files, given on the command line; nothing is trained but SVMs. A
test's protocol is the data set; `RECIPES` has the scales and how they are combined. For actions the paper names no
scales: they are VOC's here. Wei et al. have two rows, as some of their figures are of nets
trained on 2000 classes; Oquab et al.'s net was trained on 1512.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from .released import D, E
from .row import Experiment, Paper, Row, Table, Test

SCALES, MORE_SCALES = (256, 384, 512), (256, 384, 512, 640, 768)


@dataclass(frozen=True)
class Recipe:
    """The descriptor of a data set: fc7, averaged with mirror images, normalised as by default."""

    scales: tuple[int, ...]
    aggregate: Literal["stack", "average"]


RECIPES = {
    "voc2007": Recipe(MORE_SCALES, "average"),
    "voc2012": Recipe(MORE_SCALES, "average"),
    "caltech101": Recipe(SCALES, "stack"),
    "caltech256": Recipe(SCALES, "stack"),
    "voc2012-action": Recipe(MORE_SCALES, "average"),
    "voc2012-action-box": Recipe(MORE_SCALES, "average"),
}
LAYER = "fc7"
SETS = {
    "voc2007": "VOC-2007 (mean AP)",
    "voc2012": "VOC-2012 (mean AP)",
    "caltech101": "Caltech-101 (mean class recall)",
    "caltech256": "Caltech-256 (mean class recall)",
}
DOLL_RUNS = {D: "D/256-512", E: "E/256-512"}  # the released nets are the paper's of these
NETS = {"D": (D,), "E": (E,), "D+E": (D, E)}
Figures = dict[str, float | tuple[float, float]]


def _rows(name: str, method: str, figures: Figures, runs: tuple[str, ...] = ()) -> list[Row]:
    """A method's row of Table 11 as a row a data set; a figure with a spread is a pair."""
    rows = []
    for data, value in figures.items():
        figure, spread = value if isinstance(value, tuple) else (value, None)
        tests = tuple(Test(run, data) for run in runs)
        row_name = f"table11/{name}/{data}"
        rows.append(Row(row_name, (method, SETS[data]), Paper(figure=figure, figure_std=spread), tests))
    return rows


def _table_11(*methods: list[Row]) -> tuple[Row, ...]:
    """Rows sorted by data set, as in the paper's columns."""
    every = [row for method in methods for row in method]
    return tuple(row for data in SETS for row in every if row.name.endswith(f"/{data}"))


HEADS = {"figure": "mean AP or class recall (%)"}
TABLE_11 = Table(
    "11",
    "Comparison with the state of the art on VOC-2007, VOC-2012, Caltech-101 and Caltech-256",
    ("method", "data"),
    _table_11(
        _rows(
            "Zeiler", "Zeiler & Fergus (2013)", {"voc2012": 79.0, "caltech101": (86.5, 0.5), "caltech256": (74.2, 0.3)}
        ),
        _rows(
            "Chatfield",
            "Chatfield et al. (2014)",
            {"voc2007": 82.4, "voc2012": 83.2, "caltech101": (88.4, 0.6), "caltech256": (77.6, 0.1)},
        ),
        _rows("He", "He et al. (2014)", {"voc2007": 82.4, "caltech101": (93.4, 0.5)}),
        _rows("Wei", "Wei et al. (2014)", {"voc2007": 81.5, "voc2012": 81.7}),
        _rows("Wei-2000", "Wei et al. (2014), net of 2000 classes", {"voc2007": 85.2, "voc2012": 90.3}),
        _rows(
            "D",
            "VGG Net-D (16 layers)",
            {"voc2007": 89.3, "voc2012": 89.0, "caltech101": (91.8, 1.0), "caltech256": (85.0, 0.2)},
            NETS["D"],
        ),
        _rows(
            "E",
            "VGG Net-E (19 layers)",
            {"voc2007": 89.3, "voc2012": 89.0, "caltech101": (92.3, 0.5), "caltech256": (85.1, 0.3)},
            NETS["E"],
        ),
        _rows(
            "D+E",
            "VGG Net-D & Net-E",
            {"voc2007": 89.7, "voc2012": 89.3, "caltech101": (92.7, 0.5), "caltech256": (86.2, 0.3)},
            NETS["D+E"],
        ),
    ),
    ("figure",),
    HEADS,
)
IMAGE, BOX = "voc2012-action", "voc2012-action-box"
WHOLE = tuple(Test(run, IMAGE) for run in (D, E))
TABLE_12 = Table(
    "12",
    "Comparison with the state of the art in single-image action classification on VOC-2012",
    ("method",),
    (
        Row("table12/Oquab", ("Oquab et al. (2014), net of 1512 classes",), Paper(figure=70.2)),
        Row("table12/Gkioxari", ("Gkioxari et al. (2014)",), Paper(figure=73.6)),
        Row("table12/Hoai", ("Hoai (2014)",), Paper(figure=76.3)),
        Row("table12/image", ("VGG Net-D & Net-E, image-only",), Paper(figure=79.2), WHOLE),
        Row(
            "table12/image-and-box",
            ("VGG Net-D & Net-E, image and bounding box",),
            Paper(figure=84.0),
            (*WHOLE, *(Test(run, BOX) for run in (D, E))),
        ),
    ),
    ("figure",),
    {"figure": "VOC-2012 (mean AP, %)"},
)
EXPERIMENT = Experiment("transfer", (TABLE_11, TABLE_12), task="transfer", released=True)


def data_of(row: Row) -> str:
    """The data set whose protocol tests a row."""
    return row.tests[0].protocol


def doll_rows(rows: tuple[Row, ...]) -> tuple[Row, ...]:
    """The rows with the runs that are trained at doll size in place of the released nets."""
    return tuple(
        replace(row, tests=tuple(replace(test, run=DOLL_RUNS[test.run]) for test in row.tests)) for row in rows
    )
