"""Sect. 4: the results of an experiment's rows, from stored scores; no net is loaded.

``results.json`` in the folder of the runs holds, by row, errors in percent with 95 % intervals, what they
are of, and when and at which commit its tests were made; and by claim the paired differences it speaks of.
Rows and claims whose scores are no longer of the runs there are leave it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..checkpoints.checkpoint import read_metadata
from ..checkpoints.run_dir import BEST
from ..core.errors import VerydeepError
from ..core.files import read_json, write_json
from ..core.progress import Reporter
from ..core.settings import TrainSettings
from ..evaluation.metrics import difference_interval, error_with_interval, mcnemar, wrong_at
from ..evaluation.protocols import Protocol
from ..evaluation.scores import Scores, load_scores, mean_scores
from .plan import ExperimentDir, real_parts
from .rows.row import Claim, Experiment, Row
from .stored import RESULTS, read_results


def write_results(
    place: ExperimentDir, experiment: Experiment, rows: tuple[Row, ...], reporter: Reporter
) -> dict[str, Any]:
    """Computes some rows, and every claim that they and earlier scores decide.

    Returns:
        What ``results.json`` now holds: ``rows`` by name, ``claims`` by name.

    Raises:
        VerydeepError: a row's scores are missing or broken, or cannot be fused.
    """
    path = place.root / RESULTS
    stored = read_results(path)
    table = _Rows(place, experiment)
    found: dict[str, Any] = {}
    for row in experiment.rows:
        before = stored["rows"].get(row.name)
        if row in rows:
            found[row.name] = table.result(row)
        elif before is not None and "nets" in before and before["checkpoints"] == table.checkpoints(row):
            found[row.name] = before
    results = with_others(stored, found, experiment)
    write_json(path, results)
    for claim in experiment.claims:
        names = {name for pair in claim.pairs for name in pair}
        if all(table.checkpoints(table.by_name[name]) for name in names):
            try:
                seed = table.result(table.by_name[claim.pairs[0][0]])["seed"]
                results["claims"][claim.name] = decided(claim, table.wrong, seed)
            except VerydeepError as fault:
                reporter.warn(f"the claim {claim.name} is left out: {fault}")
    write_json(path, results)
    return results


def with_others(stored: dict[str, Any], rows: dict[str, Any], experiment: Experiment) -> dict[str, Any]:
    """Results of an experiment's rows, none of its claims yet, and the rows and claims of others as stored."""
    mine = {row.name for row in experiment.rows}, {claim.name for claim in experiment.claims}
    others = {name: row for name, row in stored["rows"].items() if name not in mine[0]}
    claims = {name: claim for name, claim in stored["claims"].items() if name not in mine[1]}
    return {"rows": {**others, **rows}, "claims": claims}


@dataclass(frozen=True)
class Wrong:
    """Which photos a row gets wrong, and what tells them apart."""

    ids: tuple[str, ...]
    subjects: NDArray[np.int64]
    wrong: NDArray[np.bool_]


class _Rows:
    """An experiment's rows at a place, each computed at most once."""

    def __init__(self, place: ExperimentDir, experiment: Experiment) -> None:
        self.by_name = {row.name: row for row in experiment.rows}
        self._place = place
        self._hashes: dict[str, str | None] = {}
        self._computed: dict[str, tuple[dict[str, Any], Wrong]] = {}

    def checkpoints(self, row: Row) -> dict[str, str] | None:
        """The hash of each run's checkpoint, where all of the row's scores are of these; else None."""
        tested = [(run, self._hash(run), part) for run, part in real_parts(row.tests, self._place.size)]
        if not tested or any(self._place.part_result(run, part, digest) is None for run, digest, part in tested):
            return None
        return {run: digest for run, digest, _ in tested if digest is not None}

    def result(self, row: Row) -> dict[str, Any]:
        """A row's result."""
        return self._row(row)[0]

    def wrong(self, name: str) -> Wrong:
        """Which photos a row gets wrong."""
        return self._row(self.by_name[name])[1]

    def _hash(self, run: str) -> str | None:
        if run not in self._hashes:
            self._hashes[run] = self._place.run_hash(run)
        return self._hashes[run]

    def _row(self, row: Row) -> tuple[dict[str, Any], Wrong]:
        if row.name not in self._computed:
            self._computed[row.name] = self._compute(row)
        return self._computed[row.name]

    def _compute(self, row: Row) -> tuple[dict[str, Any], Wrong]:
        """The mean over the row's tests of the mean over each test's parts."""
        checkpoints = self.checkpoints(row)
        if checkpoints is None:
            raise VerydeepError(f"the scores of {row.name} are not all there: reproduce it again.")
        place, tests, parts = self._place, [], []
        for test in row.tests:
            named = real_parts((test,), place.size)
            folders = [place.part_folder(run, part) for run, part in named]
            found = [_load(folder, part, checkpoints[run]) for folder, (run, part) in zip(folders, named, strict=True)]
            tests.append(mean_scores(found, [str(folder) for folder in folders]))
            parts += [read_json(folder / "result.json") for folder in folders]
        fused = mean_scores(tests, [f"{test.run} {test.protocol}" for test in row.tests])
        result: dict[str, Any] = {
            "size": place.size.name,
            "data": parts[0]["data"],
            "set": fused.set_name,
            "images": len(fused.ids),
            "subjects": len(np.unique(fused.subjects)),
            "tests": [{"run": test.run, "protocol": place.size.protocol(test.protocol)} for test in row.tests],
            **error_with_interval(fused, "top1_val", 1),
            **error_with_interval(fused, "top5_val", 5),
            "top5_test": None,  # only the server knows the test set's classes
            **self._trained(row),
            **_cost(parts),
            "nets": {run: self._size(run) for run in checkpoints},
            "classes": len(fused.classes),
            "classes_shown": len(np.unique(fused.labels)),
            "checkpoints": checkpoints,
            "date": max(part["environment"]["time"][:10] for part in parts),
            "commit": "/".join(sorted({part["environment"]["commit"] or "unknown" for part in parts})),
        }
        return result, _wrong(fused)

    def _size(self, run: str) -> dict[str, Any]:
        """What tells a net from another of the same name: its crop and width."""
        metadata = read_metadata(self._place.root / run / BEST)
        return {"crop": metadata.crop, "width": metadata.width}

    def _trained(self, row: Row) -> dict[str, Any]:
        """Seeds and steps of the row's runs; released models have none."""
        folders = [self._place.root / run for run in dict.fromkeys(test.run for test in row.tests)]
        trained = [folder for folder in folders if (folder / "result.json").exists()]
        seeds = {read_json(folder / "config.json")["settings"]["seed"] for folder in trained}
        if len(seeds) > 1:
            raise VerydeepError(f"the runs of {row.name} have seeds {sorted(seeds)}: one folder is for one seed.")
        ends = [read_json(folder / "result.json") for folder in trained]
        cut = any(end["ended"] == "max_steps" and end["steps"] < TrainSettings.max_steps for end in ends)
        return {"seed": seeds.pop() if seeds else None, "steps": [end["steps"] for end in ends], "cut_short": cut}


def _load(folder: Path, part: Protocol, checkpoint: str) -> Scores:
    """A part's scores, which must be what result.json beside them says."""
    scores = load_scores(folder)
    if (scores.checkpoint, scores.protocol) != (checkpoint, str(part)):
        raise VerydeepError(f"{folder} holds scores of another test: remove it, and the same command tests again.")
    return scores


def _cost(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Of all parts together: forward multiply-adds a photo, and photos a second as they were tested."""
    return {
        "multiply_adds_per_image": sum(part["multiply_adds_per_image"] for part in parts),
        "images_per_second": round(1 / sum(1 / max(part["images_per_second"], 1e-9) for part in parts), 4),
    }


def _wrong(scores: Scores) -> Wrong:
    wrong = wrong_at(scores.posteriors, scores.labels, 1)
    if wrong is None:
        raise VerydeepError(f"{scores.title} has one class only: there is no error to speak of.")
    return Wrong(scores.ids, scores.subjects, wrong)


def decided(claim: Claim, wrong: Callable[[str], Wrong], seed: int | None) -> dict[str, Any]:
    """The paired difference of each of a claim's pairs, in points of error, first minus second.

    Args:
        wrong: which photos a row gets wrong, by its name.

    Raises:
        VerydeepError: two rows are of other photos.
    """
    pairs = []
    for names in claim.pairs:
        first, second = (wrong(name) for name in names)
        if first.ids != second.ids:
            raise VerydeepError(f"{names[0]} and {names[1]} were tested on other photos.")
        low, high = difference_interval(first.wrong, second.wrong, first.subjects)
        errors = [100 * float(found.wrong.mean()) for found in (first, second)]
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
    return {"text": claim.text, "section": claim.section, "no_better": claim.no_better, "seed": seed, "pairs": pairs}
