"""Weights of classes in a loss, for sets in which some classes have few images. The paper's are all 1."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..core.errors import VerydeepError
from ..core.nearest import nearest
from .tables import CLASS, Columns, read_table

NONE, BALANCED = "none", "balanced"
SHOWN = 4  # classes in a message
_FORM = "weight"
COLUMNS = Columns(
    names={"class": CLASS},
    usual=("class", "weight"),
    least=2,
    is_row=lambda cells: _is_number(cells[1]),
    forms=((_FORM, (("weight",), ("classweight",))),),
)


def class_weights(choice: str, labels: NDArray[np.int64], classes: Sequence[str]) -> NDArray[np.float64] | None:
    """The factor of the loss of each class's images, (K,), with a mean of 1 over the images; None if all are 1.

    Args:
        choice: ``none``; ``balanced``, for factors inversely proportional to the numbers of images; or a CSV, TSV or
            JSONL file with the columns class and weight.
        labels: classes of the training images, (N,).
        classes: the K names.

    Raises:
        VerydeepError: no such file; a class is missing, unknown or listed twice; a weight is not above 0.
    """
    if choice == NONE:
        return None
    counts = np.bincount(labels, minlength=len(classes))
    weights = 1 / np.maximum(counts, 1) if choice == BALANCED else _read(Path(choice), classes)
    return np.asarray(weights * len(labels) / (weights @ counts))


def _read(path: Path, classes: Sequence[str]) -> NDArray[np.float64]:
    if not path.is_file():
        raise VerydeepError(f"class_weights must be none, balanced or a file of class,weight; {path} is no such file.")
    found: dict[str, float] = {}
    for row in read_table(path, COLUMNS):
        name, weight = row.cells["class"], row.numbers[0]
        where = f"{path}, line {row.line}"
        if name not in classes:
            close = nearest(name, classes)
            raise VerydeepError(f"{where}: unknown class {name!r}{f'; did you mean {close!r}?' if close else '.'}")
        if name in found:
            raise VerydeepError(f"{where}: class {name!r} is listed twice.")
        if not (math.isfinite(weight) and weight > 0):
            raise VerydeepError(f"{where}: the weight of {name!r} must be above 0, not {weight:g}.")
        found[name] = weight
    missing = [name for name in classes if name not in found]
    if missing:
        shown = ", ".join(map(repr, missing[:SHOWN])) + (", …" if len(missing) > SHOWN else "")
        raise VerydeepError(f"{path} has no weight for {len(missing)} of {len(classes)} classes: {shown}.")
    return np.array([found[name] for name in classes])


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
