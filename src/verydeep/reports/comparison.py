"""Sect. 4 and App. B: runs, or SVMs, on the same data side by side on one page: numbers, curves and settings.

The first run is the reference. Where both runs were evaluated on the same images and the predictions are stored, the
difference of their errors has a paired interval and McNemar's test, as the parts of an ensemble have.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.arrays import opened_arrays
from ..core.errors import VerydeepError
from ..data.class_names import same_classes
from ..evaluation.metrics import difference_interval, mcnemar, wrong_at
from ..evaluation.scores import FILE_NAME, load_scores
from ..localisation.evaluate import GUESSES
from .charts import Line, line_chart
from .html import counted, write_page
from .run_reader import EvalRecord, RunRecord, short_name
from .run_report import ERROR_NAMES
from .svm_report import FIGURE_NAMES, SvmRecord, ticks_of_c

Outcome = tuple[tuple[str, ...], NDArray[np.bool_], NDArray[np.int64]]  # of N images: ids, whether wrong, subjects
SVM_KEYS = ("layer", "pool", "mirror", "width", "crop", "scales")  # of each net in the JSON row of SVMs


def labels_of(folders: Sequence[Path]) -> list[str]:
    """Short names of directories: their paths relative to their common parent."""
    places = [os.path.abspath(folder) for folder in folders]
    above = os.path.commonpath([os.path.dirname(place) for place in places])
    return [os.path.relpath(place, above) for place in places]


def run_row(run: RunRecord) -> dict[str, Any]:
    """A run's numbers as JSON values: errors in percent, times in seconds, None where there are none."""
    best_error, best_epoch = run.best or (None, None)
    return {
        **{"folder": str(run.folder), "run": run.run, "state": run.state, "net": run.metadata.net, "S": run.scale},
        **{"data": run.data, "classes": len(run.metadata.classes), "parameters": run.facts.parameters},
        "epochs": len(run.log),
        "error": run.error_name,
        "best_dev_error": None if best_error is None else round(best_error, 4),
        "best_epoch": best_epoch,
        "images_per_second": run.images_per_second,
        "seconds": round(run.seconds, 1),
        "tests": [_evaluation_row(evaluation, evaluation in run.current) for evaluation in run.evaluations],
    }


def _evaluation_row(evaluation: EvalRecord, current: bool) -> dict[str, Any]:
    error, name = evaluation.error, evaluation.error_name
    return {
        **{"test": evaluation.name, "data": evaluation.data, "set": evaluation.set_name, "images": evaluation.images},
        name: None if error is None else error.value,
        f"{name}_interval": None if error is None or error.ends is None else list(error.ends),
        "of_this_net": current,
    }


def why_not_comparable(first: RunRecord | SvmRecord, other: RunRecord | SvmRecord) -> str | None:
    """Why two directories cannot be compared: other kinds, tasks, protocols or data; None where they can."""
    if isinstance(first, SvmRecord) and isinstance(other, SvmRecord):
        return _svms_differ(first, other)
    if isinstance(first, RunRecord) and isinstance(other, RunRecord):
        return _runs_differ(first, other)
    svms, run = (first, other) if isinstance(first, SvmRecord) else (other, first)
    return f"{svms.folder} contains SVMs and {run.folder} a run: compare directories of one kind."


def _runs_differ(first: RunRecord, other: RunRecord) -> str | None:
    tasks = [f"a {'localisation' if run.metadata.is_localiser else 'classification'} run" for run in (other, first)]
    if tasks[0] != tasks[1]:
        return f"{other.folder} is {tasks[0]} and {first.folder} {tasks[1]}: compare runs of one kind."
    alike = other.data == first.data or other.metadata.data_fingerprint == first.metadata.data_fingerprint != ""
    if not alike or not same_classes(other.metadata.classes, first.metadata.classes):
        data = " and ".join(f"{run.data} with {len(run.metadata.classes)} classes" for run in (other, first))
        return f"{other.folder} has other data than {first.folder} ({data}): compare runs on the same images."
    return None


def _svms_differ(first: SvmRecord, other: SvmRecord) -> str | None:
    keys = [(svms.protocol, svms.data, svms.classes) for svms in (other, first)]
    if keys[0] == keys[1]:
        return None
    data = " and ".join(f"{protocol} of {name} with {classes} classes" for protocol, name, classes in keys)
    return (
        f"{other.folder} has other data than {first.folder} ({data}): compare SVMs of one protocol on the same images."
    )


def pairs(runs: Sequence[RunRecord]) -> list[dict[str, Any]]:
    """Each run after the first against the first, on evaluations of the same images whose predictions are stored.

    Keys: ``first``, ``second`` (directories), their tests, ``images``; ``difference``, the second's error minus the
    first's in points, its 95 % ``interval``; and `metrics.mcnemar`'s.
    """
    rows = []
    for other in runs[1:]:
        for evaluation, others in _matching(runs[0], other):
            first, second = _outcome(evaluation), _outcome(others)
            if first is None or second is None or first[0] != second[0]:
                continue
            (_, wrong, subjects), (_, others_wrong, _) = first, second
            ends = [round(end, 4) for end in difference_interval(others_wrong, wrong, subjects)]
            rows.append(
                {
                    **{"first": str(runs[0].folder), "second": str(other.folder)},
                    **{"first_test": evaluation.name, "second_test": others.name, "photos": evaluation.photos},
                    "images": len(wrong),
                    "difference": round(100 * float(others_wrong.mean() - wrong.mean()), 4),
                    "interval": ends,
                    **mcnemar(wrong, others_wrong, subjects),
                }
            )
    return rows


def _matching(first: RunRecord, other: RunRecord) -> list[tuple[EvalRecord, EvalRecord]]:
    """Evaluations of the same images by the same protocol; without any, those in the headlines, each at its own Q."""
    of_first, of_other = (
        {(evaluation.photos, evaluation.name, evaluation.error_name): evaluation for evaluation in run.current}
        for run in (first, other)
    )
    matching = [(of_first[key], of_other[key]) for key in of_first if key in of_other]
    headlines = first.evaluation, other.evaluation
    if matching or headlines[0] is None or headlines[1] is None:
        return matching
    same = (headlines[0].photos, headlines[0].error_name) == (headlines[1].photos, headlines[1].error_name)
    return [(headlines[0], headlines[1])] if same else []


def _outcome(evaluation: EvalRecord) -> Outcome | None:
    """Which images an evaluation got wrong; None where that is not stored, or there are no labels."""
    if evaluation.of_boxes:
        try:
            with opened_arrays(evaluation.folder / GUESSES) as stored:
                return tuple(map(str, stored["ids"])), stored["wrong"], stored["subjects"]
        except (OSError, ValueError, KeyError, VerydeepError):
            return None
    try:
        scores = load_scores(evaluation.folder / FILE_NAME)
    except VerydeepError:
        return None
    wrong = wrong_at(scores.posteriors, scores.labels, 1) if scores.labelled else None
    return None if wrong is None else (scores.ids, wrong, scores.subjects)


def write_comparison(runs: Sequence[RunRecord], path: Path) -> dict[str, Any]:
    """Writes the page of comparable runs; returns ``runs``, ``pairs`` and ``differing`` settings as JSON values.

    Raises:
        VerydeepError: the page cannot be written.
    """
    names = labels_of([run.folder for run in runs])
    named = list(zip(names, runs, strict=True))
    result = {"runs": [run_row(run) for run in runs], "pairs": pairs(runs), "differing": differing(runs, names)}
    fingerprints = {run.metadata.data_fingerprint for run in runs if run.metadata.data_fingerprint}
    context = {
        "title": f"{counted(len(runs), 'run')} on {short_name(runs[0].data)}",
        "summary": f"{len(runs[0].metadata.classes)} classes; {names[0]} is the reference.",
        **{"runs": named, "error_name": ERROR_NAMES[runs[0].error_name], "other_splits": len(fingerprints) > 1},
        # Those of current checkpoints, by data and protocol.
        "evaluations": sorted(
            ((name, evaluation) for name, run in named for evaluation in run.current),
            key=lambda row: (row[1].photos, row[1].name),
        ),
        **{"pairs": result["pairs"], "labels": {str(run.folder): name for name, run in named}},
        "charts": _charts(named),
        "settings": [
            [row["setting"].replace("_", "-"), *(_shown(row["values"][name]) for name in names)]
            for row in result["differing"]
        ],
    }
    write_page(path, "comparison.html", context)
    return result


def _charts(named: Sequence[tuple[str, RunRecord]]) -> list[str]:
    logs = [(name, run.log) for name, run in named if run.log]
    losses = [Line(name, tuple((row.epoch, row.loss) for row in log)) for name, log in logs]
    errors = [Line(name, tuple((row.epoch, row.dev_error) for row in log)) for name, log in logs]
    title = f"dev {ERROR_NAMES[named[0][1].error_name]} (%)"
    return [line_chart("training loss", losses, "epoch"), line_chart(title, errors, "epoch")] if logs else []


def differing(runs: Sequence[RunRecord], names: list[str]) -> list[dict[str, Any]]:
    """Settings that are not the same in all runs: ``setting``, and the value in each run by its name."""
    settings = [{**run.metadata.data, **run.metadata.settings, **run.metadata.box_settings} for run in runs]
    keys = dict.fromkeys(key for values in settings for key in values)
    apart = [key for key in keys if any(values.get(key) != settings[0].get(key) for values in settings)]
    return [
        {"setting": key, "values": {name: values.get(key) for name, values in zip(names, settings, strict=True)}}
        for key in apart
    ]


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def write_svm_comparison(svms: Sequence[SvmRecord], path: Path) -> dict[str, Any]:
    """Writes the page of comparable SVMs; returns ``svms``, a row each, as JSON values.

    Raises:
        VerydeepError: the page cannot be written.
    """
    names, first = labels_of([record.folder for record in svms]), svms[0]
    what = "linear SVM" if all(record.classifier == "svm" for record in svms) else "classifier"
    context = {
        "title": f"{counted(len(svms), what)} on {short_name(first.data)}",
        "summary": f"{first.protocol}, {first.classes} classes.",
        **{"svms": list(zip(names, svms, strict=True)), "figure_name": FIGURE_NAMES[first.figure]},
        "chart": _svms_chart(svms, names),
    }
    write_page(path, "svm_comparison.html", context)
    return {"svms": list(map(_svms_row, svms))}


def _svms_row(svms: SvmRecord) -> dict[str, Any]:
    result, name = svms.result, svms.figure
    nets = [{"net": net["net"], **{key: net.get(key) for key in SVM_KEYS}} for net in result["features"]]
    return {
        **{"folder": str(svms.folder), "features": nets, "aggregate": svms.aggregate, "loss": svms.loss},
        **{"dimensions": svms.dimensions, "C": [split.C for split in svms.splits]},
        **{key: result[key] for key in (name, f"{name}_std", "top1_error", "top1_error_std")},
    }


def _svms_chart(svms: Sequence[SvmRecord], names: list[str]) -> str:
    """The dev part's figure by C on the first split of each."""
    tried = [record.splits[0].dev for record in svms]
    values = sorted({value for dev in tried for value in dev}, key=float)
    position = {value: float(number) for number, value in enumerate(values)}
    lines = [
        Line(name, tuple((position[value], dev[value]) for value in sorted(dev, key=float)))
        for name, dev in zip(names, tried, strict=True)
        if dev
    ]
    return line_chart(f"{FIGURE_NAMES[svms[0].figure]} (%)", lines, "C", x_ticks=ticks_of_c(values), from_zero=False)
