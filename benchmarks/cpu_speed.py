"""Speed of net D on a CPU beside other runtimes, quiet and busy, and of training beside torchvision.

    python benchmarks/cpu_speed.py run      # about an hour; interrupted, it goes on with the next measurement
    python benchmarks/cpu_speed.py write    # into docs/scale.md

`pip install 'verydeep[rivals]'` installs the runtimes. Each measurement is one `verydeep benchmark`: all contenders in
turns, batches of 8 and of 1, alone and beside four other busy processes; in bf16 only where the processor has units for
it. Results are stored by processor; those of another commit are measured anew. The machine should do nothing else.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from verydeep.checkpoints.run_dir import environment
from verydeep.core.device import resolve_device
from verydeep.core.files import read_json, write_json
from verydeep.core.settings import MachineSettings
from verydeep.core.terminal import Terminal
from verydeep.deploy.benchmark.plot import draw_rates
from verydeep.paper.tables import markdown_table, write_block

TOP = Path(__file__).resolve().parents[1]
RESULTS = TOP / "docs" / "results" / "cpu_speed.json"
PICTURE = TOP / "docs" / "pictures" / "cpu_speed.png"
REPEATS, BUSY = 7, 4
RIVALS = {
    ("infer", "float32"): "torchvision,onnxruntime,openvino,mnn,ncnn",
    ("infer", "bf16"): "torchvision,openvino",
    ("train", "float32"): "torchvision",
}
# By name: what is measured, the precision, the images of a batch, and the busy processes beside it.
MEASUREMENTS: dict[str, tuple[str, str, int, int]] = {
    "inference, batch 8, quiet": ("infer", "float32", 8, 0),
    "inference, batch 1, quiet": ("infer", "float32", 1, 0),
    "inference in bf16, batch 8, quiet": ("infer", "bf16", 8, 0),
    "inference in bf16, batch 1, quiet": ("infer", "bf16", 1, 0),
    "training, batch 8, quiet": ("train", "float32", 8, 0),
    f"inference, batch 8, beside {BUSY} busy processes": ("infer", "float32", 8, BUSY),
    f"inference, batch 1, beside {BUSY} busy processes": ("infer", "float32", 1, BUSY),
    f"inference in bf16, batch 8, beside {BUSY} busy processes": ("infer", "bf16", 8, BUSY),
    f"training, batch 8, beside {BUSY} busy processes": ("train", "float32", 8, BUSY),
}


def run() -> None:
    """Makes each measurement that is not stored of this processor and commit, and stores it."""
    reporter, stored = Terminal(), read_json(RESULTS) if RESULTS.exists() else {}
    here = environment({})
    ours = stored.setdefault(here["processor"], {})
    has_bf16 = resolve_device(MachineSettings(device="cpu"), 0).may_lower
    for name, (what, precision, batch, load) in MEASUREMENTS.items():
        if name in ours and ours[name]["environment"]["commit"] == here["commit"]:
            continue
        if precision == "bf16" and not has_bf16:
            continue
        reporter.say(name)
        words = [what, "D", "--batch", batch, "--precision", precision, "--repeats", REPEATS, "--load", load, "--json"]
        words += ["--against", RIVALS[what, precision]]
        command = [sys.executable, "-m", "verydeep", "benchmark", *map(str, words)]
        measured = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
        ours[name] = {**measured, "environment": environment(measured["machine"])}
        write_json(RESULTS, stored)


def write() -> None:
    """Writes a table of all processors, and the picture and the tables of the one that was measured last."""
    stored = read_json(RESULTS)
    for measured in (measured for ours in stored.values() for measured in ours.values()):
        measured["rows"][-1]["name"] = "verydeep"
    summary = [_summary(processor, name, ours[name]) for processor, ours in stored.items() for name in _in_order(ours)]
    last = max(stored, key=lambda processor: max(one["environment"]["time"] for one in stored[processor].values()))
    latest = [(name, stored[last][name]["rows"]) for name in _in_order(stored[last])]
    draw_rates(latest, PICTURE)
    heads = ["", "images/s", "min–max", "ratio to the first", "to the best rival", "posteriors differ by"]
    tables = [
        f"**{name[:1].upper()}{name[1:]}**\n\n{markdown_table(heads, [_cells(row) for row in rows])}"
        for name, rows in latest
    ]
    first_heads = ["processor", "", "images/s", "ratio to torchvision", "best rival", "ratio to the best rival"]
    text = [
        markdown_table(first_heads, summary),
        *(_note(processor, list(ours.values())) for processor, ours in stored.items()),
        f"All runtimes on the {last}:",
        *tables,
        "![Images/s of each runtime, quiet and busy](pictures/cpu_speed.png)",
    ]
    write_block(TOP / "docs" / "scale.md", "cpu_speed", "\n\n".join(text))


def _in_order(ours: dict[str, Any]) -> list[str]:
    return [name for name in MEASUREMENTS if name in ours]


def _summary(processor: str, name: str, measured: dict[str, Any]) -> list[str]:
    """A measurement in one line."""
    *rivals, row = measured["rows"]
    best = max(rivals, key=lambda rival: rival["images_per_second"])
    return [
        *(processor, name, f"{row['images_per_second']:.2f}", f"{row['ratio_to_first']:.2f}"),
        *(f"{best['name']}, {best['images_per_second']:.2f}", f"{row['ratio_to_best_rival']:.2f}"),
    ]


def _note(processor: str, measurements: list[dict[str, Any]]) -> str:
    last, where = measurements[-1], measurements[-1]["environment"]
    commits = "/".join(dict.fromkeys(str(measured["environment"]["commit"]) for measured in measurements))
    return (
        f"{processor}: net D, 1000 classes, {last['size']}x{last['size']} pixels; median of {last['repeats']} turns; "
        f"{where['threads']} threads for each; torch {where['versions']['torch']}, {where['time'][:10]}, "
        f"commit {commits}."
    )


def _cells(row: dict[str, Any]) -> list[str]:
    to_best, differs = row["ratio_to_best_rival"], row["largest_difference"]
    return [
        *(row["name"], f"{row['images_per_second']:.2f}", f"{row['least']:.2f}–{row['most']:.2f}"),
        *(f"{row['ratio_to_first']:.2f}", "" if to_best is None else f"{to_best:.2f}"),
        "" if differs is None else f"{differs:.0e}",
    ]


if __name__ == "__main__":
    {"run": run, "write": write}[sys.argv[1]]()
