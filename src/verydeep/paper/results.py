"""``results.json``: the stored results of an experiment's rows and claims, checked whenever it is read.

The file is in the folder of the runs. For each row it has errors in percent with 95 % intervals, their data, date and
commit; for each claim the paired differences that decide it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.errors import VerydeepError
from ..core.files import read_json, write_json
from ..core.progress import Reporter
from ..core.settings import TrainSettings
from ..evaluation.metrics import difference_interval, mcnemar
from .rows.row import Claim, Experiment, Row

RESULTS = "results.json"
ERRORS = ("top1_val", "top5_val", "top5_test")
BOX_ERRORS = ("gt_class_val",)  # in rows of App. A only
FIGURE = "figure"  # in rows of App. B only: a mean average precision or class recall
# Of VOC's rows: the mean average precision on val, by the SVMs of train with the C that is best there; and where the
# files for VOC's server are, beside results.json: it alone has the labels of 2012's test set.
FIGURE_VAL, SERVER_FILES = "figure_val", "server_files"


@dataclass(frozen=True)
class WrongImages:
    """Which of a row's N images are misclassified, with their subjects, and the seed of its runs."""

    ids: tuple[str, ...]
    subjects: NDArray[np.int64]
    wrong: NDArray[np.bool_]
    seed: int | None


def write_results(
    root: Path,
    experiment: Experiment,
    rows: dict[str, dict[str, Any]],
    decidable: tuple[Collection[str], Callable[[str], WrongImages]],
    reporter: Reporter,
) -> dict[str, Any]:
    """Stores an experiment's rows and every claim that they decide; those of other experiments are kept.

    Args:
        rows: all results of the experiment that are current, by name.
        decidable: names of rows whose wrong images are known, and a function that returns them.

    Returns:
        The new content of ``results.json``: ``rows`` by name, ``claims`` by name.
    """
    stored = read_results(root / RESULTS)
    names = {row.name for row in experiment.rows}, {claim.name for claim in experiment.claims}
    others = {name: row for name, row in stored["rows"].items() if name not in names[0]}
    claims = {name: claim for name, claim in stored["claims"].items() if name not in names[1]}
    for claim in experiment.claims:
        if all(name in decidable[0] for pair in claim.pairs for name in pair):
            try:
                claims[claim.name] = _decide(claim, decidable[1])
            except VerydeepError as fault:
                reporter.warn(f"the claim {claim.name} is left out: {fault}")
    results = {"rows": {**others, **rows}, "claims": claims}
    write_json(root / RESULTS, results)
    return results


def _decide(claim: Claim, wrong_images: Callable[[str], WrongImages]) -> dict[str, Any]:
    """The paired difference of each of a claim's pairs, in points of error, first minus second.

    Raises:
        VerydeepError: two rows are of different images.
    """
    pairs = []
    for names in claim.pairs:
        first, second = (wrong_images(name) for name in names)
        if first.ids != second.ids:
            raise VerydeepError(f"{names[0]} and {names[1]} were evaluated on different images.")
        low, high = difference_interval(first.wrong, second.wrong, first.subjects)
        errors = [100 * float(row.wrong.mean()) for row in (first, second)]
        pairs.append(
            {
                "first": names[0],
                "second": names[1],
                "errors": [round(error, 4) for error in errors],
                "difference": round(errors[0] - errors[1], 4),
                "interval": [round(low, 4), round(high, 4)],
                "p": mcnemar(first.wrong, second.wrong, first.subjects)["p"],
            }
        )
    seed = wrong_images(claim.pairs[0][0]).seed
    return {"text": claim.text, "section": claim.section, "no_better": claim.no_better, "seed": seed, "pairs": pairs}


def trainings(row: Row, root: Path) -> dict[str, Any]:
    """Seed and steps of a row's runs; released models have none.

    Raises:
        VerydeepError: the runs have different seeds.
    """
    folders = [root / run for run in dict.fromkeys(test.run for test in row.tests)]
    trained = [folder for folder in folders if (folder / "result.json").exists()]
    seeds = {read_json(folder / "config.json")["settings"]["seed"] for folder in trained}
    if len(seeds) > 1:
        raise VerydeepError(f"the runs of {row.name} have seeds {sorted(seeds)}: use one folder per seed.")
    ends = [read_json(folder / "result.json") for folder in trained]
    cut = any(end["ended"] == "max_steps" and end["steps"] < TrainSettings.max_steps for end in ends)
    return {"seed": seeds.pop() if seeds else None, "steps": [end["steps"] for end in ends], "cut_short": cut}


def read_results(path: Path) -> dict[str, Any]:
    """``rows`` and ``claims`` by name, both empty where there is no file.

    Raises:
        VerydeepError: the file is broken or holds something else.
    """
    if not path.exists():
        return {"rows": {}, "claims": {}}
    stored = read_json(path)
    try:
        for row in stored["rows"].values():
            _check_row(row)
        for claim in stored["claims"].values():
            _check_claim(claim)
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError):
        raise VerydeepError(
            f"{path} was not written by `verydeep reproduce`: remove it, then run the same command again."
        ) from None
    return {"rows": stored["rows"], "claims": stored["claims"]}


def _check_row(row: dict[str, Any]) -> None:
    """Raises a built-in error where a row is not as `verydeep reproduce` writes it."""
    for name in (*ERRORS, *(name for name in BOX_ERRORS if name in row)):
        if row[name] is not None:
            low, high = row[f"{name}_interval"]
            _require(all(map(_percent, (low, row[name], high))) and low <= row[name] <= high)
    if FIGURE in row:
        _require(all(row[name] is None or _percent(row[name]) for name in (FIGURE, f"{FIGURE}_std")))
    _require(row.get(FIGURE_VAL) is None or _percent(row[FIGURE_VAL]))
    _require(isinstance(row.get(SERVER_FILES), str | None))
    _require(all(_whole(row[name]) and row[name] > 0 for name in ("images", "subjects")))
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
