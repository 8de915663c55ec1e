"""Sect. 4: the results of an experiment's rows, from stored scores; no net is loaded.

``results.json`` in the folder of the runs holds, by row, errors in percent with 95 % intervals, what they
are of, when and at which commit they were made; and by claim the paired differences it speaks of.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import VerydeepError
from .experiments import Claim, Experiment, Row
from .experiments.sizes import Size
from .files import read_json, write_json
from .metrics import difference_interval, wrong_at
from .planning import part_folder, real_parts
from .runs import commit
from .scores import Scores, load_scores, mean_scores
from .summary import error_with_interval

RESULTS = "results.json"


@dataclass(frozen=True)
class Place:
    """Where an experiment's scores are, and what they are of."""

    root: Path
    size: Size
    set_name: str
    seed: int


@dataclass(frozen=True)
class _Wrong:
    """Which photos a row gets wrong, and what tells them apart."""

    ids: tuple[str, ...]
    subjects: NDArray[np.int64]
    top1: NDArray[np.bool_]


def write_results(place: Place, experiment: Experiment, rows: Iterable[Row]) -> dict[str, Any]:
    """Computes the rows and every claim of the experiment that they and earlier scores decide.

    Returns:
        What ``results.json`` now holds: ``rows`` by name, ``claims`` by name.

    Raises:
        VerydeepError: scores are broken, or cannot be fused.
    """
    path = place.root / RESULTS
    stored = read_json(path) if path.exists() else {}
    results: dict[str, Any] = {"rows": {**stored.get("rows", {})}, "claims": {**stored.get("claims", {})}}
    wrong: dict[str, _Wrong] = {}
    for row in rows:
        results["rows"][row.name], wrong[row.name] = _row(place, row)
    by_name = {row.name: row for row in experiment.rows}
    for claim in experiment.claims:
        names = [name for pair in claim.pairs for name in pair]
        if not any(name in wrong for name in names) or not all(_scored(place, by_name[name]) for name in names):
            continue
        for name in names:
            if name not in wrong:
                results["rows"][name], wrong[name] = _row(place, by_name[name])
        results["claims"][claim.name] = _claim(claim, wrong)
    write_json(path, results)
    return results


def _folders(place: Place, row: Row) -> list[list[Path]]:
    """The folders of each test's parts."""
    return [
        [part_folder(place.root, run, place.set_name, part) for run, part in real_parts((test,), place.size)]
        for test in row.tests
    ]


def _scored(place: Place, row: Row) -> bool:
    return all((folder / "result.json").exists() for folders in _folders(place, row) for folder in folders)


def _row(place: Place, row: Row) -> tuple[dict[str, Any], _Wrong]:
    """A row's result: the mean over its tests of the mean over each test's parts."""
    adds, tests, checkpoints = 0, [], []
    for folders in _folders(place, row):
        tests.append(mean_scores([load_scores(folder) for folder in folders], [str(folder) for folder in folders]))
        adds += sum(int(read_json(folder / "result.json")["multiply_adds_per_image"]) for folder in folders)
        checkpoints.append(tests[-1].checkpoint)
    fused = mean_scores(tests, [f"{test.run} {test.protocol}" for test in row.tests])
    result: dict[str, Any] = {
        "size": place.size.name,
        "data": Path(fused.data).name,
        "set": fused.set_name,
        "images": len(fused.ids),
        "subjects": len(np.unique(fused.subjects)),
        "seed": place.seed,
        "tests": [{"run": test.run, "protocol": place.size.protocol(test.protocol)} for test in row.tests],
        **error_with_interval(fused, "top1_val", 1),
        **error_with_interval(fused, "top5_val", 5),
        "top5_test": None,  # only the server knows the test set's classes
        "multiply_adds_per_image": adds,
        "checkpoints": checkpoints,
        "date": time.strftime("%Y-%m-%d"),
        "commit": commit(),
    }
    return result, _wrong(fused)


def _wrong(scores: Scores) -> _Wrong:
    wrong = wrong_at(scores.posteriors, scores.labels, 1)
    if wrong is None:
        raise VerydeepError(f"{scores.title} has one class only: there is no error to speak of.")
    return _Wrong(scores.ids, scores.subjects, wrong)


def _claim(claim: Claim, wrong: dict[str, _Wrong]) -> dict[str, Any]:
    """The paired difference of each of a claim's pairs, in points of top-1 error, first minus second."""
    pairs = []
    for larger, smaller in claim.pairs:
        first, second = wrong[larger], wrong[smaller]
        if first.ids != second.ids:
            raise VerydeepError(f"{larger} and {smaller} were tested on other photos: reproduce both again.")
        low, high = difference_interval(first.top1, second.top1, first.subjects)
        errors = [100 * float(found.top1.mean()) for found in (first, second)]
        pairs.append(
            {
                "first": larger,
                "second": smaller,
                "errors": [round(error, 4) for error in errors],
                "difference": round(errors[0] - errors[1], 4),
                "interval": [round(low, 4), round(high, 4)],
            }
        )
    return {"text": claim.text, "section": claim.section, "no_better": claim.no_better, "pairs": pairs}
