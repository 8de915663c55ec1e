"""Real photos: localisation models trained on crops surrounded by zeros, or on windows of whole images.

    CALTECH101=folder CALTECH101_BOXES=folder NET_D_CONV=file python examples/box_context.py run [HOURS [THREADS]]
    python examples/box_context.py write     # the stored results into docs/localisation.md

Three classes of Caltech-101, 200 photos each, crop 96, net D's convolutions frozen; both ways start from the same
classification net and differ in `--context` alone. Each model is tested on its central crop and on whole images. A
completed part is not repeated; after HOURS no further part starts.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from typing import Any

import numpy as np
from commands import TOP, error_cell, run_json

from localisation import CLASSES, COMMON, PLACE, take_boxes
from verydeep.checkpoints.run_dir import environment
from verydeep.core.files import read_json, write_json
from verydeep.evaluation.metrics import BOX_IOU, mcnemar
from verydeep.paper.tables import markdown_table, write_block

RESULTS = TOP / "docs" / "results" / "box_context.json"
SEEDS, SCALES, WAYS = (0, 1, 2), (160, 128), {"crop": "crops", "photo": "whole images"}
PARTS = [(seed, scale, way) for seed in SEEDS for scale in SCALES for way in WAYS]
EPOCHS = 15


def run(hours: float, threads: int) -> None:
    """Trains and tests what is missing, and stores each part."""
    until, machine = time.monotonic() + 3600 * hours, f"--threads {threads} --workers 0"
    take_boxes()
    if not (TOP / PLACE / "classes" / "result.json").exists():
        shutil.rmtree(TOP / PLACE / "classes", ignore_errors=True)
        run_json(f"{CLASSES} {machine}")
    for seed, scale, way in PARTS:
        stored, folder = _stored(), f"{PLACE}/context-{way}-{scale}-{seed}"
        if f"{way}-{scale}-{seed}" in stored or time.monotonic() > until:
            continue
        shutil.rmtree(TOP / folder, ignore_errors=True)
        trained = run_json(
            f"localise train D {COMMON} --S {scale} --start {PLACE}/classes --learn fc --max-epochs {EPOCHS} "
            f"--context {way} --seed {seed} --out {folder} {machine}"
        )
        tests = {method: _tested(folder, f"{method}@{scale}", machine) for method in ("centre", "dense")}
        part = {"way": way, "scale": scale, "seed": seed, "trained": trained["seconds"], "tests": tests}
        part["environment"] = environment({"cores": os.cpu_count()})
        write_json(RESULTS, stored | {f"{way}-{scale}-{seed}": part})


def _stored() -> dict[str, Any]:
    return dict(read_json(RESULTS)) if RESULTS.exists() else {}


def _tested(folder: str, protocol: str, machine: str) -> dict[str, Any]:
    """The error of the true class's box, and which photos are wrong."""
    result = run_json(f"localise evaluate {folder} {protocol} {machine}")
    with np.load(TOP / result["folder"] / "guesses.npz", allow_pickle=False) as guesses:
        wrong = (guesses["true_class_overlaps"] < BOX_IOU).astype(int)
    keys = ("images", "gt_class_error", "gt_class_error_interval", "constant_box_error")
    return {**{key: result[key] for key in keys}, "wrong": "".join(map(str, wrong))}


def write() -> None:
    """Writes the stored results into docs/localisation.md."""
    parts = list(_stored().values())
    rows = []
    for scale in SCALES:
        for way, name in WAYS.items():
            same = [part["tests"] for part in parts if (part["scale"], part["way"]) == (scale, way)]
            if same:
                cells = [", ".join(error_cell(tests[method], "gt_class_error") for tests in same) for method in same[0]]
                rows.append([str(scale), name, str(len(same)), *cells])
    first = parts[0]["tests"]["centre"]
    where, commits = parts[-1]["environment"], sorted({part["environment"]["commit"] for part in parts})
    note = (
        f"Error of the true class's box in percent with its 95 % interval, a seed each, on {first['images']} test "
        f"photos; the best constant box has {first['constant_box_error']:.1f} %. PCR, FC layers, crop 96, at most "
        f"{EPOCHS} epochs. "
        f"{where['processor']}, {where['cores']} cores, torch {where['versions']['torch']}, {where['time'][:10]}, "
        f"commit {'/'.join(commits)}."
    )
    columns = ["S = Q", "trained on", "seeds", "tested on the central crop", "tested on whole images"]
    text = f"{markdown_table(columns, rows)}\n\n{note}\n\n" + "\n".join(_findings(parts))
    write_block(TOP / "docs" / "localisation.md", "box-context", text)


def _findings(parts: list[dict[str, Any]]) -> list[str]:
    """McNemar's tests of one model's two procedures, and of the two ways on whole images, for each S and seed."""
    lines = []
    by_key = {(part["way"], part["scale"], part["seed"]): part["tests"] for part in parts}
    for (way, scale, seed), tests in by_key.items():
        if way == "photo" and ("crop", scale, seed) in by_key:
            pairs = {
                "the net trained on crops": by_key["crop", scale, seed]["dense"],
                "its own central crop": tests["centre"],
            }
            for name, other in pairs.items():
                first, second = (np.array(list(test["wrong"])) == "1" for test in (other, tests["dense"]))
                test = mcnemar(first, second, np.arange(len(first)))
                counts = f"{test['only_first_wrong']} photos corrected, {test['only_second_wrong']} newly wrong"
                lines.append(
                    f"- S = {scale}, seed {seed}: on whole images, beside {name}: {counts}, p = {test['p']:.2g}"
                )
    return lines


if __name__ == "__main__":
    if sys.argv[1] == "run":
        run(float(sys.argv[2]) if len(sys.argv) > 2 else float("inf"), int(sys.argv[3]) if len(sys.argv) > 3 else 0)
    else:
        write()
