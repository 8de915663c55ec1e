"""``results.json``, the stored results of an experiment's rows: its shape, checked whenever it is read."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from ..core.errors import VerydeepError
from ..core.files import read_json

RESULTS = "results.json"  # in the folder of an experiment's runs
ERRORS = ("top1_val", "top5_val", "top5_test")
BOX_ERRORS = ("gt_class_val",)  # in rows of App. A only
FIGURE = "figure"  # in rows of App. B only: a mean average precision or class recall


def read_results(path: Path) -> dict[str, Any]:
    """``rows`` and ``claims`` by name, both empty where there is no file.

    Raises:
        VerydeepError: the file is broken or holds something else.
    """
    if not path.exists():
        return {"rows": {}, "claims": {}}
    found = read_json(path)
    try:
        for row in found["rows"].values():
            _check_row(row)
        for claim in found["claims"].values():
            _check_claim(claim)
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError):
        raise VerydeepError(
            f"{path} is not what `verydeep reproduce` writes: remove it, and the same command makes it anew."
        ) from None
    return {"rows": found["rows"], "claims": found["claims"]}


def _check_row(row: dict[str, Any]) -> None:
    """Raises one of Python's errors where a row is not as `verydeep.paper.results` makes it."""
    for name in (*ERRORS, *(name for name in BOX_ERRORS if name in row)):
        if row[name] is not None:
            _require(_percent(row[name]))
            low, high = row[f"{name}_interval"]
            _require(_percent(low) and _percent(high) and low <= row[name] <= high)
    if FIGURE in row:
        _require(row[FIGURE] is None or _percent(row[FIGURE]))
        _require(row[f"{FIGURE}_std"] is None or _percent(row[f"{FIGURE}_std"]))
    for name in ("images", "subjects"):
        _require(_whole(row[name]) and row[name] > 0)
    _require(all(isinstance(row[name], str) for name in ("size", "data", "set", "date", "commit")))
    _require(row["seed"] is None or _whole(row["seed"]))
    _require(isinstance(row["steps"], list) and all(map(_whole, row["steps"])))
    _require(isinstance(row["checkpoints"], dict) and isinstance(row["cut_short"], bool))


def _check_claim(claim: dict[str, Any]) -> None:
    _require(isinstance(claim["seed"], int | None) and isinstance(claim["pairs"], list))
    for pair in claim["pairs"]:
        numbers = [*pair["errors"], pair["difference"], *pair["interval"], pair["p"]]
        _require(len(numbers) == 6 and all(map(_number, numbers)))
        _require(isinstance(pair["first"], str) and isinstance(pair["second"], str))


def _require(good: bool) -> None:
    if not good:
        raise ValueError


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _percent(value: Any) -> bool:
    return _number(value) and 0 <= value <= 100
