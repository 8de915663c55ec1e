"""Sect. 4: several runs of the same data side by side, on one page: numbers, curves, and what was set otherwise.

The first run is the one that the others are compared with. Where both were tested on the same photos and what they
answered is stored, the difference of their errors has a paired interval and McNemar's test, as a fusion's parts have.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.errors import VerydeepError
from ..core.progress import duration
from ..data.class_names import same_classes
from ..evaluation.metrics import difference_interval, mcnemar, wrong_at
from ..evaluation.scores import FILE_NAME, load_scores
from ..localisation.evaluate import GUESSES
from .charts import Line, line_chart
from .evaluations import ERROR_NAMES
from .html import beside, counted, headline, paragraph, section, table, write_page
from .run_reader import EvalRecord, RunRecord, short_name

Outcome = tuple[tuple[str, ...], NDArray[np.bool_], NDArray[np.int64]]  # of N photos: ids, which are wrong, subjects


def labels_of(folders: Sequence[Path]) -> list[str]:
    """What to call folders beside one another: their paths below the folder that they have in common."""
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
        "error": run.error,
        "best_dev_error": None if best_error is None else round(best_error, 4),
        "best_epoch": best_epoch,
        "images_per_second": run.rate,
        "seconds": round(run.seconds, 1),
        "tests": [_test_row(test, test.checkpoint in run.current) for test in run.tests],
    }


def _test_row(test: EvalRecord, current: bool) -> dict[str, Any]:
    told = {name: test.told.get(name) for name in ("data", "set", "images", test.error, f"{test.error}_interval")}
    return {"test": test.name, **told, "of_this_net": current}


def why_not_comparable(first: RunRecord, other: RunRecord) -> str | None:
    """The sentence for runs that predict different things, or learnt from different data; None for others."""
    kinds = {True: "boxes", False: "classes"}
    mine, theirs = (run.metadata.is_localiser for run in (first, other))
    if mine != theirs:
        return f"{other.folder} tells {kinds[theirs]} and {first.folder} {kinds[mine]}: compare runs of one kind."
    alike = other.data == first.data or other.metadata.data_fingerprint == first.metadata.data_fingerprint != ""
    if not alike or not same_classes(other.metadata.classes, first.metadata.classes):
        of = f"{_data(other)} and {_data(first)}"
        return f"{other.folder} is of other data than {first.folder} ({of}): compare runs of the same photos."
    return None


def _data(run: RunRecord) -> str:
    return f"{run.data} with {len(run.metadata.classes)} classes"


def pairs(runs: Sequence[RunRecord]) -> list[dict[str, Any]]:
    """Each run after the first against the first, on tests of the same photos whose answers are stored.

    Keys: ``first``, ``second`` (folders), their tests, ``images``; ``difference``, the second's error minus the
    first's in points, its 95 % ``interval``; and `metrics.mcnemar`'s.
    """
    rows = []
    for other in runs[1:]:
        for mine, theirs in _tests_alike(runs[0], other):
            one, another = _outcome(mine), _outcome(theirs)
            if one is None or another is None or one[0] != another[0]:
                continue
            (_, wrong, subjects), (_, others_wrong, _) = one, another
            ends = [round(end, 4) for end in difference_interval(others_wrong, wrong, subjects)]
            rows.append(
                {
                    **{"first": str(runs[0].folder), "second": str(other.folder)},
                    **{"first_test": mine.name, "second_test": theirs.name, "photos": mine.photos},
                    "images": len(wrong),
                    "difference": round(100 * float(others_wrong.mean() - wrong.mean()), 4),
                    "interval": ends,
                    **mcnemar(wrong, others_wrong, subjects),
                }
            )
    return rows


def _tests_alike(first: RunRecord, other: RunRecord) -> list[tuple[EvalRecord, EvalRecord]]:
    """Tests of the same photos by the same protocol; without any, those to speak of, each at its own scale."""
    mine, theirs = (
        {(test.photos, test.name, test.error): test for test in run.tests if test.checkpoint in run.current}
        for run in (first, other)
    )
    alike = [(mine[key], theirs[key]) for key in mine if key in theirs]
    usual = first.test, other.test
    if alike or usual[0] is None or usual[1] is None:
        return alike
    same = (usual[0].photos, usual[0].error) == (usual[1].photos, usual[1].error)
    return [(usual[0], usual[1])] if same else []


def _outcome(test: EvalRecord) -> Outcome | None:
    """Which photos a test got wrong; None where that is not stored, or not known."""
    if test.of_boxes:
        try:
            with np.load(test.folder / GUESSES, allow_pickle=False) as stored:
                return tuple(map(str, stored["ids"])), stored["wrong"], stored["subjects"]
        except (OSError, ValueError, KeyError):
            return None
    try:
        scores = load_scores(test.folder / FILE_NAME)
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
    found = {"runs": [run_row(run) for run in runs], "pairs": pairs(runs), "differing": differing(runs, names)}
    what = ERROR_NAMES[runs[0].error]
    title = f"{counted(len(runs), 'run')} on {short_name(runs[0].data)}"
    text = f"{len(runs[0].metadata.classes)} classes; {names[0]} is the one the others are compared with."
    split = {run.metadata.data_fingerprint for run in runs if run.metadata.data_fingerprint}
    note = "Their photos were split otherwise, so that their dev errors are of other photos." if len(split) > 1 else ""
    blocks = [
        headline(title, "", text, []),
        section("Side by side", _table(runs, names, what), paragraph(note, "note") if note else ""),
        *_tested(runs, names, found["pairs"]),
        *_curves(runs, names, what),
        _settings(found["differing"], names),
    ]
    write_page(path, title, blocks)
    return found


def _table(runs: Sequence[RunRecord], names: list[str], what: str) -> str:
    rows = []
    for run, name in zip(runs, names, strict=True):
        best = "" if run.best is None else f"{run.best[0]:.2f} %"
        test = ("", "") if run.test is None else (run.test.value, run.test.interval)
        rate = "" if run.rate is None else f"{run.rate:,.1f}"
        size = f"{run.facts.parameters / 1e6:.2f} M"
        rows.append(
            (name, run.state, run.metadata.net, run.scale, size, best, *test, rate, duration(run.seconds), len(run.log))
        )
    heads = ["run", "state", "net", "S", "parameters", f"best dev {what}", f"test {what}", "95 % interval"]
    return table("Runs", [*heads, "photos/s", "time", "epochs"], rows)


def _tested(runs: Sequence[RunRecord], names: list[str], found: list[dict[str, Any]]) -> list[str]:
    """All tests, and the paired differences."""
    rows = [
        (name, test.name, test.photos, f"{test.told['images']:,}", test.value, test.interval)
        for run, name in zip(runs, names, strict=True)
        for test in run.tests
        if test.checkpoint in run.current
    ]
    if not rows:
        return []
    rows.sort(key=lambda row: (row[2], row[1]))
    blocks = [table("Tests", ["run", "test", "photos of", "photos", "error", "95 % interval"], rows)]
    called = {str(run.folder): name for run, name in zip(runs, names, strict=True)}
    cells = [
        (
            *(called[pair["second"]], _tests_told(pair), f"{pair['images']:,}", _signed(pair["difference"])),
            *(f"{_signed(pair['interval'][0])} to {_signed(pair['interval'][1])}",),
            *(pair["only_second_wrong"], pair["only_first_wrong"], f"{pair['p']:.2g}"),
        )
        for pair in found
    ]
    if cells:
        heads = ["run", "tests", "photos", "points", "95 % interval", "only it wrong", f"only {names[0]} wrong", "p"]
        blocks.append(table(f"Error minus that of {names[0]}, on the same photos", heads, cells))
        blocks.append(paragraph("Intervals are paired; p is McNemar's. A minus sign is fewer errors.", "note"))
    return [section("Tested", *blocks)]


def _tests_told(pair: dict[str, Any]) -> str:
    tests = pair["first_test"], pair["second_test"]
    return f"{tests[0]}, {pair['photos']}" if tests[0] == tests[1] else f"{tests[1]} against {tests[0]}"


def _signed(value: float) -> str:
    return f"{'−' if value < 0 else '+'}{abs(value):.2f}"


def _curves(runs: Sequence[RunRecord], names: list[str], what: str) -> list[str]:
    drawn = []
    for title, key in (("training loss", "loss"), (f"dev {what} (%)", f"dev_{runs[0].error}")):
        lines = [
            Line(name, tuple((row["epoch"], row[key]) for row in run.log))
            for run, name in zip(runs, names, strict=True)
            if run.log
        ]
        drawn.append(line_chart(title, lines, "epoch"))
    return [section("Curves", beside(*drawn))] if any(drawn) else []


def differing(runs: Sequence[RunRecord], names: list[str]) -> list[dict[str, Any]]:
    """Settings that are not the same in all runs: ``setting``, and the value in each run by its name."""
    told = [{**run.metadata.data, **run.metadata.settings, **run.metadata.box_settings} for run in runs]
    keys = dict.fromkeys(key for values in told for key in values)
    apart = [key for key in keys if any(values.get(key) != told[0].get(key) for values in told)]
    return [
        {"setting": key, "values": {name: values.get(key) for name, values in zip(names, told, strict=True)}}
        for key in apart
    ]


def _settings(found: list[dict[str, Any]], names: list[str]) -> str:
    if not found:
        return section("Settings", paragraph("All settings are the same."))
    rows = [(row["setting"].replace("_", "-"), *(_shown(row["values"][name]) for name in names)) for row in found]
    return section("Settings that differ", table("By run", ["setting", *names], rows))


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
