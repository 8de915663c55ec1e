"""App. A: rows of Tables 8 to 10: localisation models, which start from classification runs.

The first procedure needs the classification run that a localisation model starts from; the second also the posteriors
of the best classification system (Table 6's last row), whose five best classes are the labels. `Row.needs` names the
row of the classification experiment that is required first.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ..checkpoints.checkpoint import checkpoint_sha256
from ..checkpoints.run_dir import BEST
from ..core.files import read_json
from ..core.progress import Stopping
from ..core.settings import MergeSettings
from ..evaluation.ensemble import fuse
from ..localisation.datasets import open_box_sets
from ..localisation.evaluate import GUESSES, LocalisationEvaluator, open_tests
from ..localisation.merge import check_tunable
from .plan import ExperimentDir, Job, Plan, make_plan, real_parts
from .reproduce_classification import rows_from_scores
from .results import RESULTS, WrongImages, read_results, trainings, write_results
from .rows.localisation import LABELS_ROW, RATING_RUN
from .rows.row import Row, experiment, find_rows

LABELS = "localisation-labels"  # folder, beside the runs, of the fused posteriors that give the labels


def localisation_plan(job: Job) -> Plan:
    """The runs of a job's rows, with the runs and evaluations of the classification rows they need.

    Raises:
        VerydeepError: as `make_plan`; boxes would be merged at a threshold that is neither given nor tuned.
    """
    if job.merging.t is None:
        check_tunable(job.merging)
    return make_plan(_needed(job), job.place, job.settings, trained=job.rows)


def localisation_results(job: Job) -> dict[str, Any]:
    """Evaluates and stores a job's rows; keeps earlier rows of the same checkpoints and merging.

    Returns results.json.
    """
    root = job.place.root
    rows_from_scores(job.place, experiment("classification"), _needed(job), job.reporter)
    tested = {row.name: _result(job, row) for row in job.rows}
    checkpoints = {run: digest for result in tested.values() for run, digest in result["checkpoints"].items()}
    names, usual = {row.name for row in job.experiment.rows}, asdict(MergeSettings())
    kept = {
        name: row
        for name, row in read_results(root / RESULTS)["rows"].items()
        if name in names
        and row.get("merging", usual) in (None, asdict(job.merging))  # None: nothing is merged on the central crop
        and all(checkpoints.get(run, digest) == digest for run, digest in row["checkpoints"].items())
    }
    rows = {**kept, **tested}
    evaluated = [name for name in rows if (root / "localisation" / name / GUESSES).exists()]
    decidable = evaluated, lambda name: _wrong(root / "localisation" / name, rows[name]["seed"])
    return write_results(root, job.experiment, rows, decidable, job.reporter)


def _needed(job: Job) -> tuple[Row, ...]:
    """Rows of the classification experiment that are required first."""
    names = dict.fromkeys(name for row in job.rows for name in row.needs)
    return tuple(row for name in names for row in find_rows(name)[1])


def _result(job: Job, row: Row) -> dict[str, Any]:
    """Evaluates a row; returns its result as in results.json."""
    place, root = job.place, job.place.root
    labelled = LABELS_ROW in row.needs
    scores, reporter = _labels(place) if labelled else None, Stopping(job.reporter, job.stop)
    tests = open_tests([(root / test.run, place.size.protocol(test.protocol)) for test in row.tests], reporter)
    sets, rater = open_box_sets(tests[0].checkpoint, job.data, reporter), root / RATING_RUN if labelled else None
    evaluator = LocalisationEvaluator(tests, rater, sets, job.merging, job.machine, reporter)
    evaluation = evaluator.run(scores, root / "localisation" / row.name)
    summary, environment = evaluation.summary, read_json(evaluation.folder / "result.json")["environment"]
    return {
        "size": place.size.name,
        "data": summary["data"],
        "set": summary["set"],
        "images": summary["images"],
        "subjects": len(np.unique(evaluation.guesses.dataset.groups)),
        "tests": [{"run": test.run, "protocol": place.size.protocol(test.protocol)} for test in row.tests],
        "top1_val": None,
        "top5_val": summary["localisation_error"],
        "top5_val_interval": summary["localisation_error_interval"],
        "top5_test": None,  # only the server has the test set's boxes
        "gt_class_val": None if labelled else summary["gt_class_error"],
        "gt_class_val_interval": None if labelled else summary["gt_class_error_interval"],
        "classification_error": summary["classification_error"],
        "constant_box_error": summary["constant_box_error"],
        "merging": summary["merging"],
        "t": summary["t"],
        **trainings(row, root),
        "checkpoints": {test.run: checkpoint_sha256(root / test.run / BEST) for test in row.tests},
        "date": environment["time"][:10],
        "commit": environment["commit"] or "unknown",
    }


def _labels(place: ExperimentDir) -> Path:
    """Fuses the stored scores of the best classification system's parts."""
    (row,) = find_rows(LABELS_ROW)[1]
    fuse([place.part_folder(run, part) for run, part in real_parts(row.tests, place.size)], out=place.root / LABELS)
    return place.root / LABELS


def _wrong(folder: Path, seed: int | None) -> WrongImages:
    """Which images a row gets wrong, from the files of its evaluation."""
    with np.load(folder / GUESSES, allow_pickle=False) as stored:
        return WrongImages(tuple(map(str, stored["ids"])), stored["subjects"], stored["wrong"], seed)
