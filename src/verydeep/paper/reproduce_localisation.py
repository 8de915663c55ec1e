"""App. A: rows of Tables 8 to 10 by their names: what they need of Sect. 4, box nets, tests, results.

The first procedure needs the classification run that a box net starts from; the second also the posteriors of the
best classification system (Table 6's last row), whose five best classes are the labels. Both are made by the
classification experiment, by its own names, and found again there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..api import train_boxes
from ..checkpoints.checkpoint import read_metadata
from ..checkpoints.run_dir import BEST, LAST
from ..core.config import flag, to_json
from ..core.errors import VerydeepError
from ..core.files import file_sha256, only_one, read_json, write_json
from ..core.interrupt import Interrupted, Stopping
from ..core.progress import Reporter, duration
from ..core.settings import DataSettings, MachineSettings, TrainSettings
from ..data.open import Data
from ..evaluation.ensemble import fuse
from ..localisation.evaluate import GUESSES, BoxEvaluation, evaluate_boxes
from ..training.recipes import papers_start, settings_of_box_run
from .estimate import estimated
from .plan import BEGUN, DONE, FREE, MISSING, ExperimentDir, Plan, RunStatus, real_parts
from .results import Wrong, decided, with_others
from .rows.localisation import CENTRE_ROW, LABELS_ROW, RATING_RUN
from .rows.row import Experiment, Row, Test, find_rows
from .stored import RESULTS, read_results

LABELS = "localisation-labels"  # folder, beside the runs, of the fused posteriors that tell the labels


@dataclass(frozen=True)
class BoxJob:
    """Some rows of App. A at a place."""

    rows: tuple[Row, ...]
    place: ExperimentDir
    data: DataSettings
    given: dict[str, Any]
    wish: MachineSettings
    reporter: Reporter
    stop: Callable[[], bool]

    @property
    def needs(self) -> tuple[str, ...]:
        """Rows of the classification experiment that have to be there first."""
        tests = [test for row in self.rows for test in row.tests]
        scales = sorted({_scale(test.run) for test in tests})
        labels = [LABELS_ROW] if any(_is_dense(test) for test in tests) else []
        return tuple(labels or [CENTRE_ROW.format(scale) for scale in scales])

    def works(self) -> list[RunStatus]:
        """The box nets' runs, and how far each is."""
        runs = dict.fromkeys(test.run for row in self.rows for test in row.tests)
        return [self._work(run) for run in runs]

    def _work(self, run: str) -> RunStatus:
        folder = self.place.root / run
        settings = settings_of_box_run(run, {**self.place.size.settings(run), **self.given})[0]
        checkpoint = next((folder / name for name in (LAST, BEST) if (folder / name).exists()), None)
        if checkpoint is None:
            return RunStatus(run, folder, MISSING, settings)
        start = self.place.run_hash(papers_start(run) or "")
        if read_json(folder / "config.json").get("start_sha256") != start:
            raise VerydeepError(
                f"{folder} holds a box net that did not begin from the {papers_start(run)} there is now: "
                "remove it, or give another --out."
            )
        begun, now = to_json(read_metadata(checkpoint).train_settings), to_json(settings)
        other = [name for name in now if name not in FREE and now[name] != begun[name]]
        if other:
            told = f"{flag(other[0])} {begun[other[0]]}, not {now[other[0]]}"
            raise VerydeepError(f"{folder} holds a box net begun with {told}: give another --out, or remove it.")
        ended = read_json(folder / "result.json") if (folder / "result.json").exists() else {}
        short = ended.get("ended") == "max_epochs" and ended.get("epochs", 0) < settings.max_epochs
        going = ended.get("ended") in (None, "interrupted") or short
        return RunStatus(run, folder, BEGUN if going else DONE, settings)

    def train(self, work: RunStatus) -> bool:
        """Trains a box net; False where somebody asked to stop."""
        begun = work.state == BEGUN
        settings: dict[str, Any] = {"max_epochs": work.settings.max_epochs, "max_steps": work.settings.max_steps}
        if not begun:
            start = str(self.place.root / str(papers_start(work.run)))
            settings = {**self.place.size.settings(work.run), **self.given, "data": self.data.data, "start": start}
        result = train_boxes(
            work.run,
            out=work.folder,
            resume=begun,
            reporter=self.reporter,
            stop=self.stop,
            **asdict(self.wish),
            **settings,
        )
        return bool(result["ended"] != "interrupted")

    def test(self, row: Row) -> tuple[dict[str, Any], BoxEvaluation]:
        """A row's result, as results.json holds it, and what it is computed from."""
        size, root = self.place.size, self.place.root
        dense = any(_is_dense(test) for test in row.tests)
        found = evaluate_boxes(
            [(root / test.run, size.protocol(test.protocol)) for test in row.tests],
            scores=self._labels() if dense else None,
            classifier=root / RATING_RUN if dense else None,
            data=self.data.data,
            out=root / "localisation" / row.name,
            machine=self.wish,
            reporter=Stopping(self.reporter, self.stop),
        )
        return self._result(row, found), found

    def _labels(self) -> Path:
        """The fused posteriors of the best classification system, computed from the stored scores of its parts."""
        place, folder = self.place, self.place.root / LABELS
        (row,) = find_rows(LABELS_ROW)[1]
        parts = [place.part_folder(run, part) for run, part in real_parts(row.tests, place.size)]
        fuse(parts, out=folder)
        return folder

    def _result(self, row: Row, found: BoxEvaluation) -> dict[str, Any]:
        summary, place = found.summary, self.place
        folders = [place.root / test.run for test in row.tests]
        ends = [read_json(folder / "result.json") for folder in folders]
        seeds = {read_metadata(folder / BEST).settings["seed"] for folder in folders}
        if len(seeds) > 1:
            raise VerydeepError(f"the runs of {row.name} have seeds {sorted(seeds)}: one folder is for one seed.")
        where = read_json(found.folder / "result.json")["environment"]
        cut = any(end["ended"] == "max_steps" and end["steps"] < TrainSettings.max_steps for end in ends)
        dense = summary["localisation_error"] is not None
        return {
            "size": place.size.name,
            "data": summary["data"],
            "set": summary["set"],
            "images": summary["images"],
            "subjects": len(np.unique(found.guesses.dataset.groups)),
            "tests": [{"run": test.run, "protocol": place.size.protocol(test.protocol)} for test in row.tests],
            "top1_val": None,
            "top5_val": summary["localisation_error"],
            "top5_val_interval": summary["localisation_error_interval"],
            "top5_test": None,  # only the server knows the test set's boxes
            "gt_class_val": None if dense else summary["gt_class_error"],
            "gt_class_val_interval": None if dense else summary["gt_class_error_interval"],
            "classification_error": summary["classification_error"],
            "constant_box_error": summary["constant_box_error"],
            "t": summary["t"],
            "seed": seeds.pop(),
            "steps": [end["steps"] for end in ends],
            "cut_short": cut,
            "checkpoints": {test.run: file_sha256(place.root / test.run / BEST) for test in row.tests},
            "date": where["time"][:10],
            "commit": where["commit"] or "unknown",
        }


def _scale(run: str) -> str:
    """The S of a box net's run, as its name tells."""
    return run.partition("/")[2].partition("-SCR")[0].partition("-PCR")[0]


def _is_dense(test: Test) -> bool:
    return test.protocol.startswith("dense")


def reproduce_boxes(
    job: BoxJob,
    experiment: Experiment,
    opened: Data | None,
    plan_only: bool,
    classified: Callable[[str], dict[str, Any]],
) -> dict[str, Any]:
    """Rows of App. A: ``plan``, ``ended``, ``rows``, ``claims``, as `verydeep.paper.reproduce.reproduce` answers.

    Args:
        opened: None where the data are not there, for a plan.
        classified: reproduces a row of the classification experiment, or only plans it.
    """
    needed = [classified(name) for name in job.needs]
    plan = estimated(Plan(tuple(job.works()), ()), opened, job.wish, job.reporter)
    answer: dict[str, Any] = {
        "plan": _together([one["plan"] for one in needed], plan.to_json()),
        "ended": "planned",
        "rows": {},
        "claims": {},
    }
    if plan_only:
        return answer
    if any(one["ended"] == "interrupted" for one in needed):
        return {**answer, "ended": "interrupted"}
    for work in plan.to_train:
        told = f"at most {work.settings.max_epochs} epochs, about {duration(work.seconds)}"
        job.reporter.say(f"to train: box net {work.run} from {papers_start(work.run)}, S = {work.settings.S}, {told}")
    with only_one(job.place.root):
        for work in job.works():
            if work.state != DONE and not job.train(work):
                return {**answer, "ended": "interrupted"}
        try:
            found = {row.name: job.test(row)[0] for row in job.rows}
        except Interrupted:
            return {**answer, "ended": "interrupted"}
        return {**answer, "ended": "done", **_stored(job.place.root, experiment, found)}


def _together(plans: list[dict[str, Any]], boxes: dict[str, Any]) -> dict[str, Any]:
    """Several plans as one, each run and test once."""
    every = [*plans, boxes]
    train = {row["run"]: row for plan in every for row in plan["train"]}
    test = {(row["run"], row["protocol"]): row for plan in every for row in plan["test"]}
    rows = [*train.values(), *test.values()]
    return {
        "train": list(train.values()),
        "test": list(test.values()),
        "done": sorted({run for plan in every for run in plan["done"]}),
        "seconds": sum(row["seconds"] for row in rows),
        "disk_bytes": sum(plan["disk_bytes"] for plan in every),
    }


def _stored(root: Path, experiment: Experiment, found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Puts rows into results.json; earlier rows of the same nets stay, and all claims that the rows decide."""
    before = read_results(root / RESULTS)
    nets = {run: digest for result in found.values() for run, digest in result["checkpoints"].items()}
    mine = {row.name for row in experiment.rows}
    kept = {
        name: row
        for name, row in before["rows"].items()
        if name in mine and all(nets.get(run, digest) == digest for run, digest in row["checkpoints"].items())
    }
    rows = {**kept, **found}
    results = with_others(before, rows, experiment)
    for claim in experiment.claims:
        names = {name for pair in claim.pairs for name in pair}
        if all(name in rows and (root / "localisation" / name / GUESSES).exists() for name in names):
            seed = rows[claim.pairs[0][0]]["seed"]
            results["claims"][claim.name] = decided(claim, lambda name: _wrong(root / "localisation" / name), seed)
    write_json(root / RESULTS, results)
    return results


def _wrong(folder: Path) -> Wrong:
    """Which photos a row gets wrong, from what testing it left."""
    with np.load(folder / GUESSES, allow_pickle=False) as stored:
        return Wrong(tuple(map(str, stored["ids"])), stored["subjects"], stored["wrong"])
