"""Real photos: localisation at the paper's crop of 224 from net E, by both test procedures.

    NET_E=run ILSVRC_SMALL=folder ILSVRC_BOXES=file CALTECH101=folder CALTECH101_BOXES=folder \
        python examples/boxes_at_224.py run [HOURS [THREADS]]
    python examples/boxes_at_224.py write     # the stored results into docs/localisation.md

ILSVRC_SMALL holds validation photos of ILSVRC-2012, WNID/NAME.JPEG; ILSVRC_BOXES is a CSV of their boxes in pixels
counted from 1: ``WNID/NAME.JPEG,xmin,ymin,xmax,ymax,WNID``. SCR needs no classes, so the photos are one class. Of
Caltech-101 three classes are used, 200 photos each. Only FC layers learn, on windows of whole photos at S = 256,
whose maps are computed once. A part is stored when it ends and not repeated; after HOURS no further part starts.
"""

from __future__ import annotations

import csv
import os
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from commands import TOP, error_cell, run_json, verdict
from numpy.typing import NDArray

from localisation import FILES, PLACE, take_boxes
from verydeep.checkpoints.run_dir import environment
from verydeep.core.files import read_json, write_json
from verydeep.evaluation.metrics import BOX_IOU, mcnemar
from verydeep.paper.tables import markdown_table, write_block

RESULTS = TOP / "docs" / "results" / "boxes_at_224.json"
RUNS = Path(os.environ.get("BOXES_RUNS", TOP / "runs" / "boxes-224"))
SCALE, EPOCHS, TESTS = 256, 30, ("centre", "dense")
SEEDS = (0, 1)
RECIPE = f"--context photo --colour-shift off --S {SCALE} --max-epochs {EPOCHS}"
SPLIT = "--dev-fraction 0.1 --test-fraction 0.4"


@dataclass(frozen=True)
class Part:
    """A training: on which photos, which kind of boxes, which layers, which seed."""

    data: str
    regression: str
    learn: str
    seed: int

    @property
    def name(self) -> str:
        """Its folder's name and its key in the stored results."""
        return f"{self.data}-{self.regression}-{self.learn}-{self.seed}"

    @property
    def title(self) -> str:
        """Its name in a list."""
        return f"{NAMES[self.data]}, {self.regression}, {LAYERS[self.learn]}, seed {self.seed}"


WAYS = [("ilsvrc", "SCR", "fc"), ("ilsvrc", "SCR", "last"), ("caltech", "SCR", "fc"), ("caltech", "PCR", "fc")]
PARTS = [Part(*way, seed) for seed in SEEDS for way in WAYS]
LAYERS = {"fc": "all FC layers", "last": "last layer"}
NAMES = {"ilsvrc": "ILSVRC validation, one class", "caltech": "Caltech-101, three classes"}


def ilsvrc() -> str:
    """The flags of ILSVRC's photos, as one class."""
    place = RUNS / "ilsvrc" / "object"
    place.mkdir(parents=True, exist_ok=True)
    with Path(os.environ["ILSVRC_BOXES"]).open(newline="") as file:
        boxes = [(name, [int(corner) for corner in corners]) for name, *corners, _ in csv.reader(file)]
    with (RUNS / "ilsvrc.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "xmin", "ymin", "xmax", "ymax", "class"])
        for name, (left, top, right, bottom) in boxes:
            photo = Path(os.environ["ILSVRC_SMALL"], name).resolve()
            if not (place / photo.name).exists():
                (place / photo.name).symlink_to(photo)
            writer.writerow([f"object/{photo.name}", left - 1, top - 1, right, bottom, "object"])
    return f"--data {RUNS}/ilsvrc --boxes {RUNS}/ilsvrc.csv"


def caltech() -> str:
    """The flags of three classes of Caltech-101."""
    take_boxes()
    return f"--data $CALTECH101 --boxes {','.join(f'{name}={PLACE}/{name}.csv' for name in FILES)}"


DATA: dict[str, Callable[[], str]] = {"ilsvrc": ilsvrc, "caltech": caltech}


def run(hours: float, threads: int) -> None:
    """Trains and tests what is missing, and stores each part."""
    until, machine = time.monotonic() + 3600 * hours, f"--threads {threads} --workers 0"
    for part in PARTS:
        stored, folder = _stored(), RUNS / part.name
        if part.name in stored or time.monotonic() > until:
            continue
        print(part.name, flush=True)
        resume = "--resume" if (folder / "last.safetensors").exists() else ""
        way = f"--regression {part.regression} --learn {part.learn} --seed {part.seed}"
        place = f"--start $NET_E --out {folder} {resume}"
        trained = run_json(f"localise train E {DATA[part.data]()} {SPLIT} {RECIPE} {way} {place} {machine}")
        result = {"trained": {key: trained[key] for key in ("seconds", "epochs", "steps", "ended")}}
        result["tests"] = {method: _tested(folder, f"{method}@{SCALE}", machine) for method in TESTS}
        write_json(RESULTS, stored | {part.name: result | {"environment": environment({"cores": os.cpu_count()})}})
        shutil.rmtree(folder)


def _stored() -> dict[str, Any]:
    return dict(read_json(RESULTS)) if RESULTS.exists() else {}


def _tested(folder: Path, protocol: str, machine: str) -> dict[str, Any]:
    """The error of the true class's box, and which photos are wrong."""
    result = run_json(f"localise evaluate {folder} {protocol} {machine}")
    with np.load(Path(TOP, result["folder"]) / "guesses.npz", allow_pickle=False) as guesses:
        wrong = (guesses["true_class_overlaps"] < BOX_IOU).astype(int)
    keys = ("images", "gt_class_error", "gt_class_error_interval", "constant_box_error", "seconds")
    return {**{key: result[key] for key in keys}, "wrong": "".join(map(str, wrong))}


def write() -> None:
    """Writes the stored results into docs/localisation.md."""
    stored = _stored()
    done = [part for part in PARTS if part.name in stored]
    rows = [[*_cells(part, stored[part.name])] for part in done]
    columns = [
        "photos",
        "boxes",
        "trained",
        "seed",
        "test photos",
        "central crop",
        "whole photo",
        "best constant box",
        "training",
    ]
    lines = [f"- {part.title}: {_verdict(stored[part.name])}" for part in done]
    last = stored[done[-1].name]["environment"]
    commits = sorted({stored[part.name]["environment"]["commit"] for part in done})
    note = (
        f"Error of the true class's box in percent (95 % interval). Net E, crop 224, S = Q = {SCALE}, at most {EPOCHS} "
        "epochs on windows of whole photos; trained on half of the photos, validated on a tenth. Times are beside "
        f"other work. {last['processor']}, {last['cores']} cores, torch {last['versions']['torch']}, "
        f"{last['time'][:10]}, commit {'/'.join(commits)}."
    )
    claim = (
        'The paper finds that "application of the localisation ConvNet to the whole image substantially improves the '
        'results":'
    )
    text = "\n\n".join([markdown_table(columns, rows), note, claim, "\n".join(lines)])
    write_block(TOP / "docs" / "localisation.md", "boxes-224", text)


def _cells(part: Part, result: dict[str, Any]) -> list[str]:
    tests, trained = result["tests"], result["trained"]
    errors = [error_cell(tests[method], "gt_class_error") for method in TESTS]
    first = tests[TESTS[0]]
    time_cell = f"{trained['seconds'] / 60:.0f} min, {trained['epochs']} epochs"
    row = [NAMES[part.data], part.regression, LAYERS[part.learn], str(part.seed), str(first["images"]), *errors]
    return [*row, f"{first['constant_box_error']:.1f}", time_cell]


def _verdict(result: dict[str, Any]) -> str:
    first, second = (_wrong(result["tests"][method]) for method in TESTS)
    return verdict(mcnemar(first, second, np.arange(len(first))))


def _wrong(test: dict[str, Any]) -> NDArray[np.bool_]:
    return np.array([digit == "1" for digit in test["wrong"]])


if __name__ == "__main__":
    if sys.argv[1] == "run":
        run(float(sys.argv[2]) if len(sys.argv) > 2 else float("inf"), int(sys.argv[3]) if len(sys.argv) > 3 else 0)
    else:
        write()
