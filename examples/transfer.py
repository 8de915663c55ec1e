"""Real photos: Caltech-101 by the paper's protocol, with descriptors of the convolutions alone (App. B).

    CALTECH101=folder NET_D_CONV=file python examples/transfer.py run
    python examples/transfer.py write     # the stored results into docs/transfer.md

Three random splits of 30 training photos per class and up to 50 test photos; C is chosen on a fifth of the first. All
without mirror images; larger scales only for the classes from c to e, to stay within the time of one machine. Stored
features are not computed again. ``PRECISION=bf16`` halves the time on a processor with bf16 instructions.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from commands import TOP, run_json

from verydeep.core.files import read_json, write_json
from verydeep.paper.tables import markdown_table, write_block

RESULTS = TOP / "docs" / "results" / "transfer.json"
HOME = "runs/transfer"
PRECISION = os.environ.get("PRECISION", "float32")
PAPER = "91.8 ± 1.0"  # Table 11: net D, fc7, stacked over 256, 384 and 512
FEATURES = (
    f"features $NET_D_CONV --data caltech101:$CALTECH101 --splits 3 --layer pool5 --mirror no --precision {PRECISION}"
)
# Each file: the photos and scales it holds.
FILES = {"all": f"{FEATURES} --scales 192,256", "some": f"{FEATURES} --classes '[c-e]*' --scales 256,384,512"}
# Each row: the classes, its name, the file, and the options.
ROWS: list[tuple[str, str, str, str]] = [
    ("all", "Q = 192", "all", "--scales 192"),
    ("all", "Q = 256", "all", "--scales 256"),
    ("all", "192, 256 stacked", "all", "--aggregate stack"),
    ("c to e", "Q = 256", "some", "--scales 256"),
    ("c to e", "Q = 384", "some", "--scales 384"),
    ("c to e", "Q = 512", "some", "--scales 512"),
    ("c to e", "256, 384, 512 stacked", "some", "--aggregate stack"),
    ("c to e", "256, 384, 512 averaged", "some", "--aggregate average"),
    ("c to e", "256, 384, 512, the maximum", "some", "--aggregate max"),
]


def run() -> None:
    """Extracts missing features, trains the SVMs, and stores every row."""
    rows = []
    for photos, name, file, options in ROWS:
        path = f"{HOME}/{file}.safetensors"
        run_json(f"{FILES[file]} --out {path}")
        result = run_json(f"svm caltech101 --features {path} {options} --out {HOME}/svm")
        rows.append({"photos": photos, "descriptor": name, **result})
        write_json(RESULTS, {"rows": [_kept(row) for row in rows]})


def _kept(row: dict[str, Any]) -> dict[str, Any]:
    left_out = ("by_class", "folder")
    features = [{**one, "file": Path(one["file"]).name} for one in row["features"]]
    return {**{name: value for name, value in row.items() if name not in left_out}, "features": features}


def write() -> None:
    """Writes the stored results into docs/transfer.md."""
    rows = read_json(RESULTS)["rows"]
    cells = [
        [
            f"{row['photos']} ({row['classes']})",
            row["descriptor"],
            row["dimensions"],
            row["images"][0]["test"],
            f"{row['mean_class_recall']:.1f} ± {row['mean_class_recall_std']:.1f}",
            f"{row['top1_error']:.1f} ± {row['top1_error_std']:.1f}",
        ]
        for row in rows
    ]
    heads = ["classes", "descriptor", "dimensions", "test photos per split", "mean class recall %", "top-1 error %"]
    where, first = rows[0]["environment"], rows[0]["features"][0]
    commits = sorted({str(row["environment"]["commit"]) for row in rows})
    described = sorted({name for row in rows for one in row["features"] for name in one["described_at_commits"]})
    note = (
        f"{first['layer']} of net {first['net']}, mean over the map, {len(rows[0]['splits'])} random splits, mean ± "
        f"standard deviation; precision {first['precision']}. The paper's net D, with fc7 and three scales stacked, "
        f"has {PAPER} on all classes. {where['processor']}, torch {where['versions']['torch']}, {where['time'][:10]}, "
        f"features at commit {'/'.join(described)}, SVMs at {'/'.join(commits)}."
    )
    write_block(
        TOP / "docs" / "transfer.md", "transfer", f"{markdown_table(heads, cells)}\n\n{note}\n\n{_verdict(rows)}"
    )


def _verdict(rows: list[dict[str, Any]]) -> str:
    """Whether stacking beats averaging and the maximum, split by split, as the paper finds on Caltech."""
    by = {row["descriptor"]: [split["mean_class_recall"] for split in row["splits"]] for row in rows}
    return " ".join(
        _compared(by["256, 384, 512 stacked"], by[f"256, 384, 512{end}"], name)
        for end, name in ((" averaged", "averaging"), (", the maximum", "the maximum"))
    )


def _compared(stacked: list[float], other: list[float], name: str) -> str:
    leads = [one - two for one, two in zip(stacked, other, strict=True)]
    points = ", ".join(f"{lead:+.1f}" for lead in leads)
    if all(lead > 0 for lead in leads):
        return f"Stacking beats {name} in each split ({points} points), as the paper finds."
    if all(lead < 0 for lead in leads):
        return f"Stacking is worse than {name} in each split ({points} points), unlike in the paper."
    return (
        f"Stacking against {name}, as the paper compares them, is not decided here ({points} points, split by split)."
    )


if __name__ == "__main__":
    {"run": run, "write": write}[sys.argv[1]]()
