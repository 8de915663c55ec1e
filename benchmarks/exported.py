"""Sect. 3.2: how fast net D answers in PyTorch, as an exported file and in 8 bits, in one run.

    python benchmarks/exported.py run
    python benchmarks/exported.py write    # into README and docs/weights.md

Net D at 224 with 1000 classes and random weights, batches of 8, one centre crop a photo: `verydeep benchmark` asks each
in turn. 8 bits are calibrated on scenes of digits: the speed does not depend on the ranges. What counts is the ratio.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from verydeep.checkpoints import Card, save_checkpoint
from verydeep.exporting import ENDING, export
from verydeep.files import read_json, write_json
from verydeep.nets import create_net
from verydeep.runs import environment
from verydeep.speed import benchmark
from verydeep.tables import markdown_table, write_block
from verydeep.terminal import Terminal
from verydeep.weights.pixels import MEAN_RGB

TOP = Path(__file__).resolve().parents[1]
RESULTS = TOP / "docs" / "results" / "exported.json"
FORMS = ("pt2", "onnx", "onnx-int8")
REPEATS, BATCH, DIGITS = 9, 8, "digits:60"


def run() -> None:
    """Measures and stores."""
    with tempfile.TemporaryDirectory() as place:
        whole = Path(place) / "PyTorch"
        card = Card("D", 224, 1.0, tuple(map(str, range(1000))), MEAN_RGB, 256)
        save_checkpoint(whole, create_net("D"), card)
        files = {form: Path(place) / f"net{ENDING[form]}" for form in FORMS}
        for form, path in files.items():
            export(whole, form, path, photos=DIGITS, reporter=Terminal())
        told = benchmark([str(whole), *map(str, files.values())], BATCH, repeats=REPEATS, reporter=Terminal())
        for row, name in zip(told["rows"], ("PyTorch", *FORMS), strict=True):
            row["net"], row["bytes"] = name, files.get(name, whole).stat().st_size
    write_json(RESULTS, {**told, "environment": environment(told["machine"])})


def write() -> None:
    """Puts the stored measurement into the page."""
    stored = read_json(RESULTS)
    names = {"PyTorch": "PyTorch, channels last", "pt2": "`.pt2`", "onnx": "ONNX Runtime", "onnx-int8": "its 8 bits"}
    rows = [
        [
            *(names[row["net"]], f"{row['photos_per_second']:.2f}", f"{row['least']:.2f}–{row['most']:.2f}"),
            *(f"{row['ratio_to_first']:.2f}", f"{row['bytes'] / 1e6:.0f}"),
        ]
        for row in stored["rows"]
    ]
    where = stored["environment"]
    note = (
        f"Net D, 1000 classes, batches of {stored['batch']} photos of {stored['size']}x{stored['size']} pixels, uint8 "
        f"in, posteriors out; median of {stored['repeats']} turns. {where['processor']}, {where['threads']} threads; "
        f"torch {where['versions']['torch']}, {where['time'][:10]}, commit {where['commit']}."
    )
    table = markdown_table(["", "photos/s", "least–most", "ratio", "MB"], rows)
    for page in (TOP / "docs" / "weights.md", TOP / "README.md"):
        write_block(page, "exported", f"{table}\n\n{note}")


if __name__ == "__main__":
    {"run": run, "write": write}[sys.argv[1]]()
