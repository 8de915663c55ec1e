"""Real photos: localisation on three classes of Caltech-101, in the layout of the paper's Tables 8 and 9.

    CALTECH101=folder CALTECH101_BOXES=folder NET_D_CONV=file python examples/localisation.py run
    python examples/localisation.py write     # the stored results into docs/localisation.md

Runs the commands as a user would and stores their results; completed steps are not repeated. On a CPU the
crop is 96 and there are 100 training photos per class; with a CUDA device the crop is 224 and all photos are used. S
and Q are multiples of 32, as all of the paper's are: then dense evaluation covers the photo to its edges.
``PRECISION=bf16`` halves the time on a processor with bf16 instructions.
"""

from __future__ import annotations

import csv
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from commands import TOP, error_cell, run_json, verdict
from numpy.typing import NDArray
from PIL import Image

from verydeep.checkpoints.run_dir import environment
from verydeep.core.files import read_json, write_json
from verydeep.evaluation.metrics import BOX_IOU, mcnemar
from verydeep.paper.tables import markdown_table, write_block

RESULTS = TOP / "docs" / "results" / "localisation.json"
PICTURES = TOP / "docs" / "pictures"
PLACE = "runs/localisation"
FILES = {"airplanes": "airplane.csv", "Faces": "face.csv", "Motorbikes": "motorcycle.csv"}
PRECISION = os.environ.get("PRECISION", "float32")
ON_GPU = torch.cuda.is_available()
CROP, SMALL, LARGE, PHOTOS, EPOCHS = (224, 256, 384, 0, 30) if ON_GPU else (96, 128, 160, 200, 15)
SEVERAL = f"{LARGE - 32},{LARGE}"
DATA = f"--data $CALTECH101 --boxes {','.join(f'{name}={PLACE}/{name}.csv' for name in FILES)}"
COMMON = f"{DATA} --dev-fraction 0.1 --test-fraction 0.4 --crop {CROP} --precision {PRECISION}"
CLASSES = f"train D {COMMON} --S {SMALL} --start $NET_D_CONV --learn fc --max-epochs 3 --out {PLACE}/classes"
KINDS = [("SCR", "fc", LARGE), ("PCR", "fc", LARGE), ("PCR", "all", LARGE), ("PCR", "all", SMALL)]


def net(regression: str, layers: str, scale: int) -> str:
    """The directory of a localisation model."""
    return f"{PLACE}/{regression}-{layers}-{scale}"


def training(regression: str, layers: str, scale: int) -> str:
    """The command that trains it."""
    return (
        f"localise train D {COMMON} --S {scale} --start {PLACE}/classes --regression {regression} --learn {layers} "
        f"--max-epochs {EPOCHS} --out {net(regression, layers, scale)}"
    )


CENTRE = {
    "1st and 2nd FC, SCR": [(net("SCR", "fc", LARGE), f"centre@{LARGE}")],
    "1st and 2nd FC, PCR": [(net("PCR", "fc", LARGE), f"centre@{LARGE}")],
    "all, PCR": [(net("PCR", "all", LARGE), f"centre@{LARGE}")],
    f"all, PCR, S = Q = {SMALL}": [(net("PCR", "all", SMALL), f"centre@{SMALL}")],
}
DENSE = {
    f"{SMALL}, {SMALL}": [(net("PCR", "all", SMALL), f"dense@{SMALL}")],
    f"{LARGE}, {LARGE}": [(net("PCR", "all", LARGE), f"dense@{LARGE}")],
    f"{LARGE}, {SEVERAL}": [(net("PCR", "all", LARGE), f"dense@{SEVERAL}")],
    f"fusion: {SMALL}/{SMALL} and {LARGE}/{SEVERAL}": [
        (net("PCR", "all", SMALL), f"dense@{SMALL}"),
        (net("PCR", "all", LARGE), f"dense@{SEVERAL}"),
    ],
}
ROWS = {**CENTRE, **DENSE}
CENTRE_NAMES, DENSE_NAMES = list(CENTRE), list(DENSE)
# What the paper finds: the row with the larger GT-class error, and that with the smaller.
FINDINGS = [
    ("PCR is better than SCR", CENTRE_NAMES[0], CENTRE_NAMES[1]),
    ("all layers are better than the FC layers only", CENTRE_NAMES[1], CENTRE_NAMES[2]),
    (f"the whole photo is better than a central crop (S = {LARGE})", CENTRE_NAMES[2], DENSE_NAMES[1]),
    (f"the whole photo is better than a central crop (S = {SMALL})", CENTRE_NAMES[3], DENSE_NAMES[0]),
    ("two test scales are better than one", DENSE_NAMES[1], DENSE_NAMES[2]),
    (f"two models are better than that of S = {LARGE}", DENSE_NAMES[2], DENSE_NAMES[3]),
    (f"two models are better than that of S = {SMALL}", DENSE_NAMES[0], DENSE_NAMES[3]),
]


def run() -> None:
    """Trains and tests what is missing and stores every row."""
    take_boxes()
    commands = {f"{PLACE}/classes": CLASSES, **{net(*kind): training(*kind) for kind in KINDS}}
    for folder, command in commands.items():
        done = TOP / folder / "result.json"
        if not done.exists() or read_json(done)["ended"] == "interrupted":
            run_json(command + (" --resume" if (TOP / folder / "last.safetensors").exists() else ""))
    rows = {}
    for number, (name, tests) in enumerate(ROWS.items()):
        out = f"{PLACE}/found/{number}"
        if not (TOP / out / "result.json").exists():
            words = " ".join(f"{folder} {protocol}" for folder, protocol in tests)
            run_json(f"localise evaluate {words} --out {out} --precision {PRECISION}")
        rows[name] = {**read_json(TOP / out / "result.json"), "folder": out}
        _store(rows, commands)
    _keep_pictures(f"{PLACE}/found/{list(ROWS).index('all, PCR')}")


def take_boxes() -> None:
    """The box files with as many photos per class as are used, evenly spread."""
    (TOP / PLACE).mkdir(parents=True, exist_ok=True)
    for name, file in FILES.items():
        with (Path(os.environ["CALTECH101_BOXES"]) / file).open(newline="") as boxes:
            rows = list(csv.reader(boxes))
        count = min(len(rows), PHOTOS or len(rows))
        with (TOP / PLACE / f"{name}.csv").open("w", newline="") as chosen:
            csv.writer(chosen).writerows(rows[place * len(rows) // count] for place in range(count))


def _store(rows: dict[str, Any], commands: dict[str, str]) -> None:
    errors = ("gt_class_error", "localisation_error", "classification_error", "box_only_error")
    keys = ("images", "t", "seconds", "constant_box_error", "regression", "guesses", "environment", *errors)
    stored_rows = {
        name: {key: row[key] for key in (*keys, *(f"{error}_interval" for error in errors))}
        for name, row in rows.items()
    }
    ended = {folder: read_json(TOP / folder / "result.json") for folder in commands}
    trained = {folder: {key: one[key] for key in ("seconds", "steps", "epochs")} for folder, one in ended.items()}
    size = {"crop": CROP, "photos_a_class": PHOTOS, "small": SMALL, "large": LARGE, "precision": PRECISION}
    findings = [_finding(*finding, rows) for finding in FINDINGS if {finding[1], finding[2]} <= rows.keys()]
    results = {
        "rows": stored_rows,
        "findings": findings,
        "trained": trained,
        "commands": list(commands.values()),
        "size": size,
    }
    write_json(RESULTS, {**results, "environment": environment({"cores": os.cpu_count()})})


def _finding(text: str, larger: str, smaller: str, rows: dict[str, Any]) -> dict[str, Any]:
    """McNemar's test of two rows' boxes of the true class on the same photos."""
    first, second = (_missed(rows[name]["folder"]) for name in (larger, smaller))
    errors = [rows[name]["gt_class_error"] for name in (larger, smaller)]
    return {"text": text, "errors": errors, **mcnemar(first, second, np.arange(len(first)))}


def _missed(folder: str) -> NDArray[np.bool_]:
    """Which photos' box of the true class is wrong."""
    with np.load(TOP / folder / "guesses.npz", allow_pickle=False) as stored:
        return np.asarray(stored["true_class_overlaps"] < BOX_IOU)


def _keep_pictures(folder: str) -> None:
    """The pictures of correct and wrong boxes on the central crop, all layers trained, for README and docs."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    for name in ("right", "wrong"):
        if (TOP / folder / f"{name}.png").exists():
            with Image.open(TOP / folder / f"{name}.png") as picture:
                picture.convert("RGB").save(PICTURES / f"boxes-{name}.jpg", quality=80)


def write() -> None:
    """Writes the stored results into docs/localisation.md."""
    stored = read_json(RESULTS)
    rows = stored["rows"]
    centre = [
        [name, error_cell(row, "gt_class_error"), f"{row['seconds']:.0f}"]
        for name, row in rows.items()
        if row["localisation_error"] is None
    ]
    errors = ("localisation_error", "classification_error", "gt_class_error")
    dense = [
        [name, *(error_cell(row, error) for error in errors), f"{row['t']:g}", f"{row['seconds']:.0f}"]
        for name, row in rows.items()
        if row["localisation_error"] is not None
    ]
    findings = [
        f"- {row['text']}: {row['errors'][0]:.1f} % to {row['errors'][1]:.1f} %, {verdict(row)}"
        for row in stored["findings"]
    ]
    heads = ["train (S), test (Q)", "localisation error %", "of which wrong class", "GT class error %", "t", "seconds"]
    parts = [
        f"One central crop, S = Q = {stored['size']['large']}, as in Table 8:",
        markdown_table(["fine-tuned layers, regression", "GT class error %", "seconds"], centre),
        "Dense over the whole photo with merging; PCR, all layers; as in Table 9:",
        markdown_table(heads, dense),
        _note(stored),
        "The paper's findings, tested here (GT class error, McNemar's test):",
        "\n".join(findings),
    ]
    write_block(TOP / "docs" / "localisation.md", "localisation", "\n\n".join(parts))


def _note(stored: dict[str, Any]) -> str:
    size, where, rows = stored["size"], stored["environment"], stored["rows"]
    one = next(iter(rows.values()))
    guesses = next((row["guesses"] for row in rows.values() if row["guesses"]), 0)
    minutes = sum(run["seconds"] for run in stored["trained"].values()) / 60
    commits = "/".join(sorted({str(row["environment"]["commit"]) for row in rows.values()}))
    return (
        f"95 % intervals in brackets; {one['images']} test photos of three classes ({size['photos_a_class'] or 'all'} "
        f"photos per class in all); net D, crop {size['crop']}; {guesses} guess per photo, as there are fewer than 10 "
        f"classes. The best constant box has {one['constant_box_error']:.1f} % GT class error. One run per net, all "
        f"trained in {minutes:.0f} min on a busy machine, precision {size['precision']}; seconds count only "
        f"candidate boxes that no earlier row had stored. {where['processor']}, {where['cores']} cores, torch "
        f"{where['versions']['torch']}, {where['time'][:10]}, commit {commits}."
    )


if __name__ == "__main__":
    {"run": run, "write": write}[sys.argv[1]]()
