"""Real photos: the evaluation protocols side by side, and two nets fused, on Caltech-101.

    CALTECH101=folder NET_D_CONV=file python examples/protocols.py run
    python examples/protocols.py write     # the stored results into docs/testing.md

Trains a net D at a fixed S, and from it a second one at jittered S as the paper does, and tests them by the
real commands, one method at one scale each; the rest are means of those scores. Stored scores are not
computed again. ``PRECISION=bf16`` halves the time on a processor with bf16 instructions; its effect is
measured too.
"""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import Any

from commands import TOP, error_cell, run_json, verdict

from verydeep.checkpoints.run_dir import environment
from verydeep.core.files import read_json, write_json
from verydeep.evaluation.ensemble import fuse
from verydeep.evaluation.protocols import parse_protocol
from verydeep.evaluation.scores import load_scores
from verydeep.paper.tables import markdown_table, write_block

RESULTS = TOP / "docs" / "results" / "protocols.json"
FIXED, JITTERED = "runs/protocols/D-110", "runs/protocols/D-110-219"
PRECISION = os.environ.get("PRECISION", "float32")
# The paper's S = 256 and [256;512] at a crop of 96 are 110 and [110;219].
EXACT = "runs/protocols/float32"  # one evaluation in float32, to see the effect of bf16
COMMON = "train D --data caltech101:$CALTECH101 --classes '[c-e]*' --crop 96"
TRAIN = {
    FIXED: f"{COMMON} --start $NET_D_CONV --max-epochs 10 --out {FIXED}",
    JITTERED: f"{COMMON} --S 110-219 --start {FIXED} --max-epochs 6 --out {JITTERED}",
}
ONE, THREE, WIDE = "110", "96,110,124", "110,165,219"
ROWS: dict[str, list[tuple[str, str]]] = {
    **{
        f"D, S = 110: {method}@{scales}": [(FIXED, f"{method}@{scales}")]
        for method in ("centre", "ten", "dense", "crops", "both")
        for scales in (ONE, THREE)
    },
    f"D, S in [110;219]: dense@{WIDE}": [(JITTERED, f"dense@{WIDE}")],
    "both nets, dense at three scales": [(FIXED, f"dense@{THREE}"), (JITTERED, f"dense@{WIDE}")],
}
# What the paper finds, as the row with the larger error and that with the smaller.
FINDINGS: list[tuple[str, str, str]] = [
    ("dense is better than one centre crop", f"centre@{ONE}", f"dense@{ONE}"),
    ("three scales are better than one, dense", f"dense@{ONE}", f"dense@{THREE}"),
    ("three scales are better than one, multi-crop", f"crops@{ONE}", f"crops@{THREE}"),
    ("multi-crop is better than dense", f"dense@{THREE}", f"crops@{THREE}"),
    ("both together are better than dense", f"dense@{THREE}", f"both@{THREE}"),
    ("both together are better than multi-crop", f"crops@{THREE}", f"both@{THREE}"),
]


def parts(tests: list[tuple[str, str]]) -> list[Path]:
    """The folders of the scores whose mean a row is."""
    named = [(run, part) for run, protocol in tests for part in parse_protocol(protocol).parts()]
    return [TOP / run / "evaluations" / "test" / str(part) for run, part in named]


def run() -> None:
    """Trains and tests what is missing and stores every row."""
    for run_folder, command in TRAIN.items():
        done = TOP / run_folder / "result.json"
        if not done.exists() or read_json(done)["ended"] == "interrupted":
            _run(command + (" --resume" if (TOP / run_folder / "last.safetensors").exists() else ""))
    for folder in dict.fromkeys(folder for tests in ROWS.values() for folder in parts(tests)):
        if not (folder / "result.json").exists():  # written last
            _run(f"evaluate {shlex.quote(str(folder.parents[2]))} {folder.name}")
            store()
    if not (TOP / EXACT / "result.json").exists():
        run_json(f"evaluate {FIXED} dense@{ONE} --out {EXACT}")
    store()


def _run(command: str) -> None:
    run_json(f"{command} --precision {PRECISION}")


def store() -> None:
    """Stores every row and finding whose tests are there."""
    rows = {name: _row(parts(tests)) for name, tests in ROWS.items() if _tested(parts(tests))}
    pairs = [(text, parts([(FIXED, larger)]), parts([(FIXED, smaller)])) for text, larger, smaller in FINDINGS]
    single = [parts([tests]) for tests in ROWS["both nets, dense at three scales"]]
    for name, folders in zip(("the net of fixed S", "the net of jittered S"), single, strict=True):
        pairs.append((f"two nets together are better than {name}", folders, [*single[0], *single[1]]))
    findings = [_compared(text, larger, smaller) for text, larger, smaller in pairs if _tested([*larger, *smaller])]
    where = environment({"cores": os.cpu_count(), "precision": PRECISION})
    settings = read_json(TOP / FIXED / "config.json")["settings"]
    classes = len(load_scores(parts(ROWS[next(iter(rows))])[0]).classes)
    stored = {"rows": rows, "findings": findings, "classes": classes, "crop": settings["crop"], "environment": where}
    if (TOP / EXACT / "result.json").exists():
        stored["float32"] = _against_float32()
    write_json(RESULTS, stored)


def _against_float32() -> dict[str, Any]:
    """One evaluation in float32 beside the same in this precision: errors, and photos with the same top-1 class."""
    exact, short = (load_scores(folder) for folder in (TOP / EXACT, *parts([(FIXED, f"dense@{ONE}")])))
    return {
        "top1_error": read_json(TOP / EXACT / "result.json")["top1_error"],
        "same_answers": int((exact.posteriors.argmax(1) == short.posteriors.argmax(1)).sum()),
        "largest_difference": float(abs(exact.posteriors - short.posteriors).max()),
    }


def _row(folders: list[Path]) -> dict[str, Any]:
    results = [read_json(folder / "result.json") for folder in folders]
    fused = fuse(folders)["fusion"]
    return {
        **{
            key: fused[key]
            for key in ("images", "top1_error", "top1_error_interval", "top5_error", "top5_error_interval")
        },
        "multiply_adds_per_image": sum(result["multiply_adds_per_image"] for result in results),
        "commits": sorted({str(result["environment"]["commit"]) for result in results}),
        "images_per_second": 1 / sum(1 / result["images_per_second"] for result in results),
    }


def _tested(folders: list[Path]) -> bool:
    return all((folder / "result.json").exists() for folder in folders)


def _compared(text: str, larger: list[Path], smaller: list[Path]) -> dict[str, Any]:
    """McNemar's test between the means of two lists of scores."""
    places = []
    for number, folders in enumerate((larger, smaller)):
        places.append(TOP / "runs" / "compared" / str(number))
        fuse(folders, out=places[-1])
    test = fuse(places)["pairs"][0]
    return {"text": text, **{key: test[key] for key in ("only_first_wrong", "only_second_wrong", "p")}}


def write() -> None:
    """Writes the stored results into docs/testing.md."""
    stored = read_json(RESULTS)
    rows = [
        [
            name,
            error_cell(row, "top1_error"),
            error_cell(row, "top5_error"),
            f"{row['multiply_adds_per_image'] / 1e9:.1f}",
            f"{row['images_per_second']:.2f}",
        ]
        for name, row in stored["rows"].items()
    ]
    columns = [
        "net and protocol",
        "top-1 error % (95 % interval)",
        "top-5 error %",
        "G multiply-adds per photo",
        "photos/s",
    ]
    commits = sorted({commit for row in stored["rows"].values() for commit in row["commits"]})
    where, images = stored["environment"], next(iter(stored["rows"].values()))["images"]
    note = (
        f"{images} test photos of {stored['classes']} classes, crop {stored['crop']}; one run per net. Photos/s "
        f"were measured on a machine that was busy at times. {where['processor']}, {where['cores']} cores, "
        f"torch {where['versions']['torch']}, {where['time'][:10]}, tested at commit {'/'.join(commits)}."
    )
    if where.get("precision", "float32") != "float32" and "float32" in stored:
        exact = stored["float32"]
        note += (
            f" Precision {where['precision']}; in float32 dense@{ONE} has {exact['top1_error']:.1f} % top-1 error "
            f"and predicts the same class for {exact['same_answers']} of {images} photos."
        )
    if len(stored["rows"]) < len(ROWS):
        note += f" {len(ROWS) - len(stored['rows'])} of {len(ROWS)} rows are not measured yet and left out."
    findings = [f"- {row['text']}: {verdict(row)}" for row in stored["findings"]]
    text = (
        f"{markdown_table(columns, rows)}\n\n{note}\n\nThe paper's findings, tested here (McNemar's test):\n\n"
        + "\n".join(findings)
    )
    write_block(TOP / "docs" / "testing.md", "protocols", text)


if __name__ == "__main__":
    {"run": run, "write": write}[sys.argv[1]]()
