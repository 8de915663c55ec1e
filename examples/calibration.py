"""Calibration measured: a temperature is fitted on some images, and ECE and NLL are of others.

    NET_E=runs/E ILSVRC=folder DEMO=runs/demo python examples/calibration.py run
    python examples/calibration.py write     # the stored results into docs/testing.md

Net E whole (`verydeep convert` of Oxford's weights) on ILSVRC's validation photos, one folder per WNID: fitted on
every second photo, evaluated on the others. The net of `verydeep demo`: fitted on its dev part, evaluated on its test
part. Both are copied to runs/calibration, as a temperature is stored in the checkpoint. What is stored there is not
computed again.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

from commands import TOP, error_cell, run_json

from verydeep.checkpoints.checkpoint import read_metadata
from verydeep.checkpoints.run_dir import BEST, environment
from verydeep.core.files import read_json, write_json
from verydeep.paper.tables import markdown_table, write_block

RESULTS = TOP / "docs" / "results" / "calibration.json"
HOME = TOP / "runs" / "calibration"
FIT, REST = HOME / "fit", HOME / "rest"
# Each row: the net, its run, the protocol, and the images of both commands.
ROWS = [
    ("E, ILSVRC", "NET_E", "centre@224", f"--data {FIT} --set all", f"--data {REST} --set all"),
    ("A, digits of the demo", "DEMO", "dense@73", "", ""),
    ("A, digits of the demo", "DEMO", "dense@64,73,82", "", ""),
]


def run() -> None:
    """Calibrates and evaluates each row and stores it."""
    if not FIT.exists():
        _halve(Path(os.environ["ILSVRC"]))
    rows = []
    for net, name, protocol, fitted_on, evaluated_on in ROWS:
        folder = HOME / name.lower()
        if not folder.exists():
            folder.mkdir(parents=True)
            for file in (BEST, "config.json"):
                shutil.copy(Path(os.environ[name]) / file, folder)
        words = f"{shlex.quote(str(folder))} {protocol}"
        done = HOME / f"{name.lower()}-{protocol}.json"
        if not done.exists():
            fitted = run_json(f"calibrate {words} {fitted_on}")
            write_json(done, {"fitted": fitted, "evaluated": run_json(f"evaluate {words} {evaluated_on}")})
        rows.append(_row(net, folder, read_json(done)))
        write_json(RESULTS, {"rows": rows, "environment": environment({"cores": os.cpu_count()})})


def _halve(photos: Path) -> None:
    """Copies every second photo, in order of their names, to each of two folders with all classes."""
    for number, path in enumerate(sorted(photos.glob("*/*"), key=lambda path: path.name)):
        target = (FIT, REST)[number % 2] / path.parent.name
        target.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)


def _row(net: str, folder: Path, done: dict[str, Any]) -> dict[str, Any]:
    """What is kept of a row: figures of the images that the temperature was not fitted on."""
    evaluated = done["evaluated"]
    names = ("protocol", "images", "top1_error", "top1_error_interval", "ece", "nll", "brier", "calibrated")
    return {
        **{
            "net": net,
            "origin": read_metadata(folder / BEST).origin.get("name"),
            "fitted_on": done["fitted"]["images"],
        },
        **{name: evaluated[name] for name in names},
    }


def write() -> None:
    """Writes the stored results into docs/testing.md."""
    stored = read_json(RESULTS)
    columns = ["net", "protocol", "fitted on", "evaluated on", "top-1 error % (95 % interval)", "temperature"]
    columns += ["ECE %, before", "after", "NLL, before", "after", "Brier score, before", "after"]
    rows = []
    for row in stored["rows"]:
        after = row["calibrated"]
        cells = [row["net"], row["protocol"], str(row["fitted_on"]), str(row["images"]), error_cell(row, "top1_error")]
        cells += [f"{after['temperature']:.3f}"]
        for name, form in (("ece", ".2f"), ("nll", ".4f"), ("brier", ".4f")):
            cells += [format(row[name], form), format(after[name], form)]
        rows.append(cells)
    where = stored["environment"]
    note = (
        f"Counts are of images. {where['processor']}, {where['cores']} cores, torch {where['versions']['torch']}, "
        f"{where['time'][:10]}, commit {where['commit']}."
    )
    write_block(TOP / "docs" / "testing.md", "calibration", f"{markdown_table(columns, rows)}\n\n{note}")


if __name__ == "__main__":
    {"run": run, "write": write}[sys.argv[1]]()
