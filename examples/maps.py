"""Real photos: boxes of a classification net from its score maps and Grad-CAM, beside boxes at the centre.

    NET=run DATA=folder BOXES=file python examples/maps.py run [THREADS]
    python examples/maps.py write     # the stored results into docs/localisation.md

NET is net E as released (see docs/weights.md), DATA photos of ILSVRC-2012's validation set in folders named by WNID,
and BOXES their boxes in a format of `--boxes`. A completed kind of maps is not repeated.
"""

from __future__ import annotations

import os
import shlex
import sys
from typing import Any

from commands import TOP, error_cell, run_json

from verydeep.core.files import read_json, write_json
from verydeep.paper.tables import markdown_table, write_block

RESULTS = TOP / "docs" / "results" / "maps.json"
PLACE = "runs/maps"
KINDS = {"map": "score map", "gradcam": "Grad-CAM"}


def run(threads: int) -> None:
    """Evaluates both kinds of maps, and stores the figures."""
    net, data, boxes = (shlex.quote(os.environ[name]) for name in ("NET", "DATA", "BOXES"))
    stored: dict[str, Any] = {}
    for kind in KINDS:
        folder = f"{PLACE}/{kind}"
        if not (TOP / folder / "localisation.json").exists():
            run_json(
                f"localise evaluate {net} --from {kind} --data {data} --boxes {boxes} --out {folder} "
                f"--threads {threads} --workers 0"
            )
        result = read_json(TOP / folder / "localisation.json")
        stored[kind] = {key: value for key, value in result.items() if key not in ("run", "data", "folder")}
        write_json(RESULTS, stored)


def write() -> None:
    """Writes the stored results into docs/localisation.md."""
    stored = read_json(RESULTS)
    rows = [
        [
            f"{KINDS[kind]}, Q = {result['scale']}",
            *(error_cell(result, name) for name in ("gt_known_error", "top1_localisation_error")),
            *(f"{result[name]:.1f}" for name in ("max_box_acc", "max_box_acc_v2", "best_threshold")),
        ]
        for kind, result in stored.items()
    ]
    last = next(reversed(stored.values()))
    centre, where = last["centre_box"], last["environment"]
    rows.append(
        ["box at the centre", "", "", *(f"{centre[name]:.1f}" for name in ("max_box_acc", "max_box_acc_v2")), ""]
    )
    columns = [
        "boxes from",
        "GT-known error %",
        "top-1 localisation error %",
        "MaxBoxAcc V1 %",
        "V2 %",
        "best threshold",
    ]
    note = (
        f"Net E as released, on {last['images']} photos of ILSVRC-2012's validation set with their boxes; errors at "
        f"the threshold {last['threshold']:g} with 95 % intervals; top-1 classification error "
        f"{error_cell(last, 'top1_error')} %. "
        f"{where['processor']}, torch {where['versions']['torch']}, {where['time'][:10]}, commit {where['commit']}."
    )
    write_block(TOP / "docs" / "localisation.md", "maps", f"{markdown_table(columns, rows)}\n\n{note}")


if __name__ == "__main__":
    if sys.argv[1] == "run":
        run(int(sys.argv[2]) if len(sys.argv) > 2 else 1)
    else:
        write()
