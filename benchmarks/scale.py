"""Sect. 3.3: the cost of training and feature extraction on one machine and many, from measurements here.

    python benchmarks/scale.py run      # reading, several processes, A beside A-LRN: some ten minutes of two cores
    python benchmarks/scale.py write    # into docs/scale.md

Costs are arithmetic over measured images/s: of `benchmarks/gpu.sh` where its results are in `benchmarks/results/gpu`,
else of an assumption that the page states.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from verydeep.checkpoints.run_dir import environment
from verydeep.core.files import read_json, write_json
from verydeep.core.progress import duration
from verydeep.models.architectures import net_facts
from verydeep.paper.tables import markdown_table, write_block

TOP = Path(__file__).resolve().parents[1]
RESULTS, GPU = TOP / "benchmarks" / "results" / "scale.json", TOP / "benchmarks" / "results" / "gpu"
PAGE = TOP / "docs" / "scale.md"
ILSVRC, EPOCHS, BATCH = 1_281_167, 74, 256
GPUS = (1, 4, 8, 16, 64)
ASSUMED_D = 5_200.0  # images/s of net D in training on one H200
PEAK = 989e12  # floating-point operations a second of an H200 in bf16, dense, as NVIDIA states it
NVLINK, NETWORK, IN_A_BOX = 300e9, 200e9, 8  # bytes/s of a ring: NVLink in a machine; eight cards of 200 Gb/s out of it
DESCRIBED, FORWARD = 1e9, 3.0  # photos; a forward pass is a third of a step


def run() -> None:
    """Measures and stores."""
    results = {
        "data": _verydeep("data"),
        "processes": _verydeep("train", "A", "--size", "64", "--batch", "32", "--processes", "1,2", "--repeats", "5"),
        "lrn": [_verydeep("train", net, "--batch", "8", "--repeats", "3") for net in ("A", "A-LRN")],
        "svm": _verydeep("svm", "--against", "scikit-learn", "--repeats", "1"),
    }
    write_json(RESULTS, {**results, "environment": environment(results["data"]["sets"][0]["machine"])})


def _verydeep(*words: str) -> Any:
    command = [sys.executable, "-m", "verydeep", "benchmark", *words, "--json"]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)


def write() -> None:
    """Writes the tables into the page."""
    stored = read_json(RESULTS)
    where = stored["environment"]
    note = (
        f"{where['processor']}, {where['cores']} cores; torch {where['versions']['torch']}, {where['time'][:10]}, "
        f"commit {where['commit']}."
    )
    write_block(PAGE, "data", f"{_reading(stored['data'])}\n\nOne core; median of {stored['data']['repeats']}. {note}")
    write_block(PAGE, "processes", f"{_processes(stored['processes'])}\n\n{note}")
    write_block(PAGE, "lrn", f"{_lrn(stored['lrn'])}\n\nTraining steps of 8 crops of 224. {note}")
    rate, source = _rate()
    write_block(PAGE, "cost", f"{_cost(rate)}\n\n{source}")
    write_block(PAGE, "billion", f"{_billion(rate)}\n\n{source}")


def _reading(results: dict[str, Any]) -> str:
    rows = [
        [part["photos"], row["name"], f"{row['images_per_second']:,.0f}", f"{row['ratio_to_first']:.1f}"]
        for part in results["sets"]
        for row in part["rows"]
    ]
    return markdown_table(["image size", "source", "images/s", "ratio to Pillow"], rows)


def _processes(results: dict[str, Any]) -> str:
    rows = [
        [
            *(row["processes"], row["rows"][0]["name"], row["batch"], f"{row['rows'][0]['images_per_second']:.1f}"),
            *(f"{row['speed_up']:.2f}", f"{row['efficiency']:.2f}"),
        ]
        for row in results["runs"]
    ]
    return markdown_table(["processes", "net", "batch", "images/s", "speed-up", "efficiency"], rows)


def _lrn(results: list[dict[str, Any]]) -> str:
    rows = [
        [
            *(result["rows"][0]["name"], f"{result['rows'][0]['images_per_second']:.2f}"),
            f"{result['peak_memory_bytes'] / 2**30:.2f}",
        ]
        for result in results
    ]
    return markdown_table(["net", "images/s", "peak GiB"], rows)


def _rate() -> tuple[float, str]:
    """Images/s of a training step of net D on one GPU, and the source of the figure."""
    path = GPU / "train.json"
    if not path.is_file():
        share = ASSUMED_D * 2 * FORWARD * net_facts("D").multiply_adds / PEAK
        text = (
            f"No GPU was available: net D is assumed to train at {ASSUMED_D:,.0f} images/s on one H200, "
            f"{100 * share:.0f} % of its peak of {PEAK / 1e12:.0f} TFLOP/s in bf16; `benchmarks/gpu.sh` measures it. "
            "Other nets are in proportion to their multiply-adds."
        )
        return ASSUMED_D, text
    results = read_json(path)
    rate = results["rows"][0]["images_per_second"]
    return rate, f"From {rate:,.0f} images/s of net D, measured on one {results['machine']['device']}."


def _step_seconds(net: str, gpus: int, rate: float) -> tuple[float, float]:
    """Of a step of 256 images: computing, and summing gradients, which overlaps with it but for the last bucket."""
    facts, of_d = net_facts(net), net_facts("D")
    computing = BATCH / gpus / (rate * of_d.multiply_adds / facts.multiply_adds)
    sent = 2 * (gpus - 1) / gpus * 4 * facts.parameters  # a ring sends each gradient twice
    return computing, sent / (NVLINK if gpus <= IN_A_BOX else NETWORK)


def _cost(rate: float) -> str:
    steps = -(-ILSVRC // BATCH) * EPOCHS
    rows = []
    for net in ("A", "B", "C", "D", "E"):
        cells: list[Any] = [net]
        for gpus in GPUS:
            computing, summing = _step_seconds(net, gpus, rate)
            hours = steps * max(computing, summing)
            cells.append(f"{duration(hours)}{'*' if summing > computing else ''}")
        rows.append(cells)
    heads = ["net", *(f"{gpus} GPU{'s' if gpus > 1 else ''}" for gpus in GPUS)]
    note = (
        f"{EPOCHS} epochs of ILSVRC in batches of {BATCH}; * where the all-reduce of the gradients takes longer "
        f"than computing them and sets the time. Gradients of net D are {4 * net_facts('D').parameters / 1e6:.0f} MB; "
        f"a ring sends 2(N-1)/N of them, at {NVLINK / 1e9:.0f} GB/s within a machine of {IN_A_BOX} and "
        f"{NETWORK / 1e9:.0f} GB/s between machines (a network card of 200 Gb/s for each GPU). "
        "With `--bf16-gradients yes` half of that, and with a larger `--batch` fewer steps."
    )
    return f"{markdown_table(heads, rows)}\n\n{note}"


def _billion(rate: float) -> str:
    facts = net_facts("D")
    forward = rate * FORWARD
    raw, small = 256 * 341 * 3, 35e3
    rows = [
        [
            "images as JPEGs of smallest side 256",
            f"{DESCRIBED * small / 1e12:,.0f} TB",
        ],
        ["the same, raw", f"{DESCRIBED * raw / 1e12:,.0f} TB"],
        ["descriptors of fc7, float32", f"{DESCRIBED * 4096 * 4 / 1e12:.1f} TB"],
        ["arithmetic", f"{DESCRIBED * facts.multiply_adds / 1e18:.1f} E multiply-adds at one crop an image"],
        *([f"{gpus} GPU{'s' if gpus > 1 else ''}", duration(DESCRIBED / (forward * gpus))] for gpus in (1, 8, 64)),
        ["cores that decode at 400 images/s, to feed 8 GPUs", f"{8 * forward / 400:.0f}"],
    ]
    return markdown_table(["a billion images", ""], rows)


if __name__ == "__main__":
    {"run": run, "write": write}[sys.argv[1]]()
