"""Sect. 4: rows of classification and of the released models, from stored scores; no net is loaded.

A row's posteriors are the mean over its tests of the mean over each test's parts. Rows whose scores are not of the
runs in the folder are removed from results.json.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from ..checkpoints.checkpoint import read_metadata
from ..checkpoints.run_dir import BEST
from ..core.errors import VerydeepError
from ..core.files import read_json
from ..core.progress import Reporter
from ..evaluation.metrics import top_errors, wrong_at
from ..evaluation.protocols import Protocol
from ..evaluation.scores import Scores, load_scores, mean_scores
from .plan import ExperimentDir, Job, Plan, make_plan, real_parts
from .results import RESULTS, WrongImages, read_results, trainings, write_results
from .rows.row import Experiment, Row


def classification_plan(job: Job) -> Plan:
    """The runs and tests of a job's rows."""
    return make_plan(job.rows, job.place, job.settings)


def classification_results(job: Job) -> dict[str, Any]:
    """Computes a job's rows, and every claim that they and earlier scores can decide; returns results.json.

    Raises:
        VerydeepError: a row's scores are missing or broken, or cannot be fused.
    """
    return rows_from_scores(job.place, job.experiment, job.rows, job.reporter)


def rows_from_scores(
    place: ExperimentDir, experiment: Experiment, rows: tuple[Row, ...], reporter: Reporter
) -> dict[str, Any]:
    """`classification_results` of rows of any experiment."""
    stored = read_results(place.root / RESULTS)["rows"]
    table = _Rows(place)
    hashes = {row.name: table.checkpoints(row) for row in experiment.rows}
    results: dict[str, Any] = {}
    for row in experiment.rows:
        before = stored.get(row.name)
        if row in rows:
            results[row.name] = table.result(row)[0]
        elif before is not None and "nets" in before and table.is_current(row, before):
            results[row.name] = before
    scored = {row.name: row for row in experiment.rows if hashes[row.name]}
    decidable = scored, lambda name: table.result(scored[name])[1]
    return write_results(place.root, experiment, results, decidable, reporter)


class _Rows:
    """Rows of an experiment in a folder, each computed at most once."""

    def __init__(self, place: ExperimentDir) -> None:
        self._place = place
        self._hash = cache(place.run_hash)
        self.result = cache(self._compute)

    def checkpoints(self, row: Row) -> dict[str, str] | None:
        """The hash of each run's checkpoint; None unless all of the row's scores are of these."""
        tested = [(run, self._hash(run), part) for run, part in real_parts(row.tests, self._place.size)]
        if not tested or any(self._place.part_result(run, part, digest) is None for run, digest, part in tested):
            return None
        return {run: digest for run, digest, _ in tested if digest is not None}

    def tests(self, row: Row) -> list[dict[str, str]]:
        """The row's runs and protocols, in this size's pixels."""
        return [{"run": test.run, "protocol": self._place.size.protocol(test.protocol)} for test in row.tests]

    def is_current(self, row: Row, result: dict[str, Any]) -> bool:
        """Whether a stored result is of these protocols and of the runs' checkpoints."""
        return result["checkpoints"] == self.checkpoints(row) and result.get("tests") == self.tests(row)

    def _compute(self, row: Row) -> tuple[dict[str, Any], WrongImages]:
        """A row's result, and which images it classifies wrongly."""
        checkpoints = self.checkpoints(row)
        if checkpoints is None:
            raise VerydeepError(f"scores of {row.name} are missing: run the same command again.")
        place, tests, parts = self._place, [], []
        for test in row.tests:
            named = real_parts((test,), place.size)
            folders = [place.part_folder(run, part) for run, part in named]
            scores = [_load(folder, part, checkpoints[run]) for folder, (run, part) in zip(folders, named, strict=True)]
            tests.append(mean_scores(scores, [str(folder) for folder in folders]))
            parts += [read_json(folder / "result.json") for folder in folders]
        fused = mean_scores(tests, [f"{test.run} {test.protocol}" for test in row.tests])
        result: dict[str, Any] = {
            "size": place.size.name,
            "data": parts[0]["data"],
            "set": fused.set_name,
            "images": len(fused.ids),
            "subjects": len(np.unique(fused.subjects)),
            "tests": self.tests(row),
            **top_errors(fused, "_val"),
            "top5_test": None,  # only the server has the test set's classes
            **trainings(row, place.root),
            **_cost(parts),
            "nets": {run: self._size(run) for run in checkpoints},
            "classes": len(fused.classes),
            "classes_shown": len(np.unique(fused.labels)),
            "checkpoints": checkpoints,
            "date": max(part["environment"]["time"][:10] for part in parts),
            "commit": "/".join(sorted({part["environment"]["commit"] or "unknown" for part in parts})),
        }
        return result, _wrong(fused, result["seed"])

    def _size(self, run: str) -> dict[str, Any]:
        """Crop and width, in which two nets of the same name can differ."""
        metadata = read_metadata(self._place.root / run / BEST)
        return {"crop": metadata.crop, "width": metadata.width}


def _load(folder: Path, part: Protocol, checkpoint: str) -> Scores:
    """A part's scores; raises VerydeepError where they are not those of the result.json beside them."""
    scores = load_scores(folder)
    if (scores.checkpoint, scores.protocol) != (checkpoint, str(part)):
        raise VerydeepError(
            f"{folder} already contains scores of a different evaluation: remove it, then run the same command again."
        )
    return scores


def _cost(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Of all parts together: forward multiply-adds per image, and images per second as measured."""
    return {
        "multiply_adds_per_image": sum(part["multiply_adds_per_image"] for part in parts),
        "images_per_second": round(1 / sum(1 / max(part["images_per_second"], 1e-9) for part in parts), 4),
    }


def _wrong(scores: Scores, seed: int | None) -> WrongImages:
    wrong = wrong_at(scores.posteriors, scores.labels, 1)
    if wrong is None:
        raise VerydeepError(f"{scores.title} has only one class, so there is no error.")
    return WrongImages(scores.ids, scores.subjects, wrong, seed)
