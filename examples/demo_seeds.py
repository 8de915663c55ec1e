"""Does the demo train for every seed? Five demos, their errors and times, into docs/tour.md.

python examples/demo_seeds.py run
python examples/demo_seeds.py write
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from verydeep.checkpoints.run_dir import environment
from verydeep.core.files import read_json, write_json
from verydeep.paper.tables import markdown_table, write_block

TOP = Path(__file__).resolve().parents[1]
RESULTS = TOP / "docs" / "results" / "demo.json"
SEEDS = range(5)


def run() -> None:
    """Runs `verydeep demo` with each seed and stores its results."""
    runs = []
    for seed in SEEDS:
        with tempfile.TemporaryDirectory() as place:
            words = [sys.executable, "-m", "verydeep", "demo", "--seed", str(seed), "--json", "--out", f"{place}/demo"]
            done = subprocess.run(words, stdout=subprocess.PIPE, check=True)
        result = json.loads(done.stdout)
        runs.append({"seed": seed, "seconds": result["seconds"], "evaluations": result["evaluations"]})
        write_json(RESULTS, {"runs": runs, "environment": environment({"cores": os.cpu_count()})})


def write() -> None:
    """Writes the stored results into docs/tour.md."""
    stored = read_json(RESULTS)
    protocols = [row["protocol"] for row in stored["runs"][0]["evaluations"]]
    rows = []
    for done in stored["runs"]:
        errors = [f"{row['top1_error']:.2f}" for row in done["evaluations"]]
        rows.append([done["seed"], *errors, f"{done['seconds']:.0f}"])
    columns = list(zip(*[[row["top1_error"] for row in done["evaluations"]] for done in stored["runs"]], strict=True))
    spread = [f"{statistics.mean(errors):.2f} ± {statistics.stdev(errors):.2f}" for errors in columns]
    rows.append(["mean ± std", *spread, f"{statistics.mean(done['seconds'] for done in stored['runs']):.0f}"])
    where, scenes = stored["environment"], stored["runs"][0]["evaluations"][0]["images"]
    note = (
        f"Top-1 error in percent on {scenes} held-out scenes of digits; net A with crop 64 and an eighth of the "
        f"width. {where['processor']}, {where['cores']} cores, torch {where['versions']['torch']}, "
        f"{where['time'][:10]}, commit {where['commit']}."
    )
    table = markdown_table(["seed", *protocols, "seconds in all"], rows)
    write_block(TOP / "docs" / "tour.md", "demo", f"{table}\n\n{note}")


if __name__ == "__main__":
    {"run": run, "write": write}[sys.argv[1]]()
