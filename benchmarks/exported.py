"""Sect. 3.2: inference speed of net D here, exported and in 8 bits, beside torchvision's layers, and training speed.

    python benchmarks/exported.py run
    python benchmarks/exported.py write    # into docs/scale.md

Net D at 224 with 1000 classes and random weights, batches of 8, one centre crop a photo: `verydeep benchmark`
times each in turn, and torchvision's net with its defaults (where it does not import, the same layers in its order).
8 bits are calibrated on scenes of digits: the speed does not depend on the ranges. What counts is the ratio.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from verydeep.checkpoints.checkpoint import Metadata, save_checkpoint
from verydeep.checkpoints.preprocessing import MEAN_RGB
from verydeep.checkpoints.run_dir import RUNTIMES, environment
from verydeep.core.files import read_json, write_json
from verydeep.core.terminal import Terminal
from verydeep.deploy.benchmark.benchmark import benchmark
from verydeep.deploy.export import ENDING, export
from verydeep.models.vgg import create_net
from verydeep.paper.tables import markdown_table, write_block

TOP = Path(__file__).resolve().parents[1]
RESULTS = TOP / "benchmarks" / "results" / "exported.json"
FORMS = ("onnx", "onnx-int8")
REPEATS, BATCH, DIGITS = 9, 8, "digits:60"
NAMES = {"PyTorch": "verydeep", "onnx": "ONNX file", "onnx-int8": "ONNX file, int8"}


def run() -> None:
    """Measures and stores."""
    with tempfile.TemporaryDirectory() as directory:
        checkpoint = Path(directory) / "PyTorch"
        metadata = Metadata("D", 224, 1.0, tuple(map(str, range(1000))), MEAN_RGB, 256)
        save_checkpoint(checkpoint, create_net("D"), metadata)
        files = {form: Path(directory) / f"net{ENDING[form]}" for form in FORMS}
        for form, path in files.items():
            export(checkpoint, form, path, photos=DIGITS, reporter=Terminal())
        sources = [str(checkpoint), *map(str, files.values())]
        results = benchmark("infer", sources, BATCH, repeats=REPEATS, against="torchvision", reporter=Terminal())
        for row, name in zip(results["rows"][1:], ("PyTorch", *FORMS), strict=True):
            row["name"], row["bytes"] = name, files.get(name, checkpoint).stat().st_size
    results["training"] = benchmark("train", ["D"], BATCH, repeats=REPEATS, against="torchvision", reporter=Terminal())
    write_json(RESULTS, {**results, "environment": environment(results["machine"])})


def write() -> None:
    """Writes the stored measurement into docs/scale.md."""
    stored = read_json(RESULTS)
    training = stored["training"]["rows"]
    training[1]["name"] = "verydeep"
    where = stored["environment"]
    note = (
        f"Net D, 1000 classes, batches of {stored['batch']} images of {stored['size']}x{stored['size']} pixels, from "
        f"uint8 images to posteriors, and training steps; median of {stored['repeats']} turns. The peak is that of a "
        f"product of two large matrices: {stored['peak_multiply_adds_per_second'] / 1e9:.0f} G multiply-adds a second "
        f"here. {where['processor']}, {where['threads']} threads; {_runtimes(where['versions'])}, "
        f"{where['time'][:10]}, commit {where['commit']}."
    )
    table = markdown_table(
        ["", "images/s", "min–max", "ratio", "share of peak", "MB"],
        [_cells(row) for row in stored["rows"]] + [_cells(row, "training, ") for row in training],
    )
    write_block(TOP / "docs" / "scale.md", "exported", f"{table}\n\n{note}")


def _runtimes(versions: dict[str, str]) -> str:
    """PyTorch's version, and that of what ran the ONNX files."""
    return ", ".join(f"{name} {versions[name]}" for name in ("torch", *RUNTIMES) if name in versions)


def _cells(row: dict[str, Any], what: str = "") -> list[str]:
    share, size = row["share_of_peak"], row.get("bytes")
    return [
        *(what + NAMES.get(row["name"], row["name"]), f"{row['images_per_second']:.2f}"),
        *(f"{row['least']:.2f}–{row['most']:.2f}", f"{row['ratio_to_first']:.2f}"),
        *("" if share is None else f"{share:.2f}", "" if size is None else f"{size / 1e6:.0f}"),
    ]


if __name__ == "__main__":
    {"run": run, "write": write}[sys.argv[1]]()
