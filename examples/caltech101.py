"""Real photos: net D fine-tuned from ILSVRC's convolutions against net A from random weights, on Caltech-101.

    CALTECH101=folder NET_D_CONV=file python examples/caltech101.py run
    python examples/caltech101.py write     # the stored results into docs/train.md

Runs the commands below as a user would, stores their results in docs/results/caltech101.json, and writes
commands, times and errors into docs/train.md. Stored runs are not repeated. On a CPU the crop is 96 and 23
classes are used; with a CUDA device all 102 classes at 224.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import torch
from commands import TOP, error_cell, run_json

from verydeep.checkpoints.run_dir import environment
from verydeep.core.files import read_json, write_json
from verydeep.paper.tables import markdown_table, write_block

RESULTS = TOP / "docs" / "results" / "caltech101.json"
DATA = "--data caltech101:$CALTECH101"
CPU = {
    "size": "23 of the classes, crop 96",
    "train": [
        f"train D {DATA} --classes '[c-e]*' --crop 96 --start $NET_D_CONV --max-epochs 15 --out runs/caltech-D",
        f"train A {DATA} --classes '[c-e]*' --crop 96 --start none --lr 5e-3 --batch 32 --max-epochs 20 "
        "--out runs/caltech-A",
    ],
    "protocols": ["dense@110", "dense@96,110,124"],
}
GPU = {
    "size": "all 102 classes, crop 224",
    "train": [
        f"train D {DATA} --start $NET_D_CONV --out runs/caltech-D",
        f"train A {DATA} --start none --lr 5e-3 --batch 32 --out runs/caltech-A",
    ],
    "protocols": ["dense@256", "dense@224,256,288"],
}
STARTS = {"D": "ILSVRC conv layers, random FC layers", "A": "random weights"}


def timed(command: str) -> tuple[Any, float]:
    """A command's JSON, and its seconds."""
    start = time.monotonic()
    return run_json(command), round(time.monotonic() - start, 1)


def run() -> None:
    """Trains and tests both nets and stores the results."""
    size = GPU if torch.cuda.is_available() else CPU
    rows = [row for row in _stored() if row["command"] in size["train"]]
    for command in size["train"]:
        if command in [row["command"] for row in rows]:
            continue
        trained = _trained(command)
        row = {
            "net": command.split()[1],
            "command": command,
            "seconds": trained["seconds"],
            "commit": read_json(TOP / command.split()[-1] / "environment.json")["commit"],
            "training": trained,
            "tests": [],
        }
        for protocol in size["protocols"]:
            test = f"evaluate {command.split()[-1]} {protocol}"
            summary, took = timed(test)
            fields = {
                key: value
                for key, value in summary.items()
                if key not in ("classes", "confused", "checkpoint", "folder")
            }
            row["tests"].append({"command": test, "seconds": took, **fields})
        rows.append(row)
        write_json(RESULTS, {"size": size["size"], "runs": rows, "environment": environment({"cores": os.cpu_count()})})


def _trained(command: str) -> dict[str, Any]:
    """The training's result.json; the command runs where there is none yet."""
    done = TOP / command.rsplit(maxsplit=1)[-1] / "result.json"
    if done.exists():
        return read_json(done)
    result: dict[str, Any] = run_json(command)
    return result


def _stored() -> list[dict[str, Any]]:
    return list(read_json(RESULTS)["runs"]) if RESULTS.exists() else []


def write() -> None:
    """Writes the stored results into docs/train.md."""
    stored = read_json(RESULTS)
    commands, rows = [], []
    for done in stored["runs"]:
        commands += [f"verydeep {done['command']}", *(f"verydeep {test['command']}" for test in done["tests"])]
        for test in done["tests"]:
            errors = [error_cell(test, "top1_error"), error_cell(test, "top5_error")]
            training = f"{done['seconds'] / 60:.0f} min, {done['training']['epochs']} epochs"
            testing = f"{test['seconds'] / 60:.1f} min"
            rows.append([done["net"], STARTS[done["net"]], training, test["protocol"], *errors, testing])
    columns = ["net", "start", "training", "protocol", "top-1 error % (95 % interval)", "top-5 error %", "evaluation"]
    where = stored["environment"]
    commits = ", ".join(f"{done['commit']} ({done['net']})" for done in stored["runs"])
    one = stored["runs"][0]["tests"][0]
    note = (
        f"{stored['size']}, Caltech-101's split of 30 training photos per class; {one['images']} test photos; "
        "one run each, on a machine that was busy at times. "
        f"{where['processor']}, {where['cores']} cores, torch {where['versions']['torch']}, "
        f"{where['time'][:10]}, trained at commits {commits}."
    )
    code = "```sh\n" + "\n".join(commands) + "\n```"
    write_block(TOP / "docs" / "train.md", "caltech101", f"{code}\n\n{markdown_table(columns, rows)}\n\n{note}")


if __name__ == "__main__":
    {"run": run, "write": write}[sys.argv[1]]()
