"""Sect. 4 with the paper's own net on real photos: net E's rows of Tables 3 to 5 on samples of ILSVRC's validation set.

    export NET_E=run NET_E_INT8=file ILSVRC_SMALL=folder ILSVRC_LARGE=folder PRECISION=bf16
    python examples/ilsvrc.py run [HOURS [THREADS]]
    python examples/ilsvrc.py write     # the stored results into docs/results.md

NET_E_INT8 is made by `verydeep export $NET_E --to onnx-int8 --photos imagenet:$ILSVRC_SMALL --out $NET_E_INT8`; its
predictions are compared with the net's. PRECISION is float32 by default; where it is bf16, the centre crops are
evaluated in float32 too, and compared.

Two folders ``<WNID>/<file>``: 1,300 photos warped to 227x227, and 60 of nearly original size. The photos of each are
drawn in an order by seed and evaluated by the real command in parts of `PART`, one method at one scale each; a
completed part is not repeated, and after HOURS no further part starts. Crops are 50 times the work of a centre crop, so
they are evaluated on the first parts of the small photos alone. Every comparison is made in pairs on the same photos.
Stored are the ranks of the right classes; no photo is.
"""

from __future__ import annotations

import os
import random
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from commands import TOP, run_json
from numpy.typing import NDArray

from verydeep.checkpoints.run_dir import environment
from verydeep.core.files import read_json, write_json
from verydeep.evaluation.metrics import error_interval, label_ranks, mcnemar
from verydeep.evaluation.protocols import parse_protocol
from verydeep.evaluation.scores import Scores, load_scores, mean_scores
from verydeep.paper.rows.row import find_rows
from verydeep.paper.tables import markdown_table, write_block

RESULTS = TOP / "docs" / "results" / "ilsvrc.json"
RUNS = Path(os.environ.get("ILSVRC_RUNS", TOP / "runs" / "ilsvrc"))
PRECISION, EXACT = os.environ.get("PRECISION", "float32"), "float32"
PART, RANKS = 50, "0123456789"  # ranks from 9 on are stored as 9
SMALL, LARGE = "small", "large"
FOLDERS = {SMALL: "ILSVRC_SMALL", LARGE: "ILSVRC_LARGE"}
PHOTOS = {SMALL: "227x227 pixels, warped from the whole photo", LARGE: "nearly original size"}
SCALES = ("256", "384", "512")
# What is evaluated, by the beginning of its folders' names: the file and the precision.
MODELS = {"": ("$NET_E", PRECISION), f"{EXACT}-": ("$NET_E", EXACT), "int8-": ("$NET_E_INT8", EXACT)}
COMPARED = (SMALL, "centre@224", 1300)  # the net with its int8 file, and with itself in float32
# In order of work: a sample, a method at one scale, and the photos that it is evaluated on, first a part of them.
TESTS = [
    (SMALL, "centre@224", 1300),
    (LARGE, "centre@256", 60),
    *[(LARGE, f"dense@{scale}", 60) for scale in SCALES],
    *[(SMALL, f"dense@{scale}", 400) for scale in SCALES],
    *[(LARGE, f"crops@{scale}", 60) for scale in SCALES],
    *[(SMALL, f"crops@{scale}", 150) for scale in SCALES],
    *[(SMALL, f"dense@{scale}", 1300) for scale in SCALES],
    (SMALL, "crops@256", 400),
]
ALL = ",".join(SCALES)
# A table's row, its protocol, and the row of the paper.
ROWS = [
    ("centre crop", "centre@224", ""),
    ("centre crop", "centre@256", "released/E/centre"),
    ("Table 3, single scale", "dense@256", ""),
    ("Table 3, single scale", "dense@384", "table3/E/256-512"),
    ("Tables 4 and 5, dense", f"dense@{ALL}", "table4/E/256-512"),
    ("multi-crop, one scale", "crops@256", ""),
    ("both, one scale", "both@256", ""),
    ("Table 5, multi-crop", f"crops@{ALL}", "table5/E/crops"),
    ("Table 5, both", f"both@{ALL}", "table5/E/both"),
]
# What the paper finds, as the protocol with the larger error and that with the smaller.
FINDINGS = [
    ("dense is better than one centre crop", "centre@224", "dense@256"),
    ("dense is better than one centre crop", "centre@256", "dense@256"),
    ("three scales are better than one", "dense@384", f"dense@{ALL}"),
    ("multi-crop is better than dense, one scale", "dense@256", "crops@256"),
    ("both together are better than dense, one scale", "dense@256", "both@256"),
    ("multi-crop is better than dense", f"dense@{ALL}", f"crops@{ALL}"),
    ("both together are better than dense", f"dense@{ALL}", f"both@{ALL}"),
    ("both together are better than multi-crop", f"crops@{ALL}", f"both@{ALL}"),
]


def drawn(sample: str) -> list[Path]:
    """The photos of a sample, in an order by seed."""
    photos = sorted(Path(os.environ[FOLDERS[sample]]).resolve().glob("*/*.JPEG"))
    random.Random(0).shuffle(photos)
    return photos


def part_folder(sample: str, number: int, photos: list[Path]) -> Path:
    """A part of a sample as a folder of links."""
    folder = RUNS / "photos" / f"{sample}-{number}"
    for photo in photos[number * PART : (number + 1) * PART]:
        link = folder / photo.parent.name / photo.name
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.exists():
            link.symlink_to(photo)
    return folder


def run(hours: float, threads: int) -> None:
    """Evaluates what is missing, and stores the ranks after each test."""
    until = time.monotonic() + 3600 * hours
    others = [model for model in MODELS if model and (model != f"{EXACT}-" or PRECISION != EXACT)]
    for model, (sample, protocol, count) in [
        ("", TESTS[0]),
        *((model, COMPARED) for model in others),
        *(("", test) for test in TESTS[1:]),
    ]:
        photos = drawn(sample)
        for number in range(-(-min(count, len(photos)) // PART)):
            out = scores_folder(model + sample, protocol, number)
            if (out / "result.json").exists() or time.monotonic() > until:
                continue
            shutil.rmtree(out, ignore_errors=True)
            data = part_folder(sample, number, photos)
            print(f"{sample} {protocol}, part {number}", flush=True)
            source, precision = MODELS[model]
            flags = f"--data imagenet:{data} --out {out} --threads {threads} --workers 0 --precision {precision}"
            run_json(f"evaluate {source} {protocol} {flags}")
        store()


def scores_folder(sample: str, protocol: str, number: int) -> Path:
    """Where the scores of a part are."""
    return RUNS / "scores" / f"{sample}-{protocol}-{number}"


def scores_of(sample: str, protocol: str) -> Scores | None:
    """The scores of a protocol on the photos that all of its parts have been evaluated on, None if there are none."""
    parts = [_of_one(sample, str(part)) for part in parse_protocol(protocol).parts()]
    found = [part for part in parts if part is not None]
    if len(found) < len(parts):
        return None
    shortest = min(len(part.ids) for part in found)
    return mean_scores([_first(part, shortest) for part in found], [part.protocol for part in found])


def _of_one(sample: str, protocol: str) -> Scores | None:
    """All completed parts of one method at one scale, up to the first that is missing."""
    parts: list[Scores] = []
    while (scores_folder(sample, protocol, len(parts)) / "result.json").exists():
        parts.append(load_scores(scores_folder(sample, protocol, len(parts))))
    if not parts:
        return None
    labels, subjects, posteriors = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("labels", "subjects", "posteriors")
    )
    ids = tuple(name for part in parts for name in part.ids)
    return replace(
        parts[0], ids=ids, labels=labels, subjects=np.arange(len(subjects)), posteriors=posteriors, data=sample
    )


def _first(scores: Scores, count: int) -> Scores:
    return replace(
        scores,
        ids=scores.ids[:count],
        labels=scores.labels[:count],
        subjects=scores.subjects[:count],
        posteriors=scores.posteriors[:count],
    )


def store() -> None:
    """Stores the ranks of the right classes, by sample and protocol, and what they were computed with."""
    ranks: dict[str, dict[str, str]] = {}
    for sample in FOLDERS:
        for _, protocol, _ in ROWS:
            scores = scores_of(sample, protocol)
            if scores is not None:
                found = np.minimum(label_ranks(scores.posteriors, scores.labels), len(RANKS) - 1)
                ranks.setdefault(sample, {})[protocol] = "".join(RANKS[rank] for rank in found)
    results = {path: read_json(path) for path in sorted(RUNS.glob("scores/*/result.json"))}
    ours = [result for path, result in results.items() if path.parent.name.startswith(tuple(FOLDERS))]
    (checkpoint,) = {result["checkpoint_sha256"] for result in ours}
    (precision,) = {result["environment"]["precision"] for result in ours}
    commits = sorted({str(result["environment"]["commit"]) for result in results.values()})
    where = environment({"cores": os.cpu_count(), "precision": precision})
    compared = {model.removesuffix("-"): _compared(model) for model in MODELS if model}
    stored = {"ranks": ranks, "compared": compared, "commits": commits, "checkpoint": checkpoint, "environment": where}
    write_json(RESULTS, stored)


def _compared(model: str) -> dict[str, Any] | None:
    """On how many photos a model predicts the net's class, and the errors of both; None where not evaluated."""
    sample, protocol, _ = COMPARED
    other, ours = scores_of(f"{model}{sample}", protocol), scores_of(sample, protocol)
    if other is None or ours is None:
        return None
    count = min(len(other.ids), len(ours.ids))
    ours, other = _first(ours, count), _first(other, count)
    wrongs = [int((label_ranks(scores.posteriors, scores.labels) > 0).sum()) for scores in (ours, other)]
    same = int((other.posteriors.argmax(1) == ours.posteriors.argmax(1)).sum())
    apart = float(np.abs(other.posteriors - ours.posteriors).sum(1).mean() / 2)
    return {
        "protocol": protocol,
        "images": count,
        "same": same,
        "ours_wrong": wrongs[0],
        "wrong": wrongs[1],
        "total_variation": apart,
    }


def wrong(ranks: str, k: int) -> NDArray[np.bool_]:
    """Which photos' class is not among the top ``k``, (N,)."""
    return np.array([int(rank) >= k for rank in ranks])


def write() -> None:
    """Writes the stored results into docs/results.md."""
    stored = read_json(RESULTS)
    rows = [_row(sample, *row, stored["ranks"][sample]) for sample in FOLDERS for row in ROWS]
    columns = ["photos", "n", "row", "protocol", "top-1 error %", "top-5 error %", "paper, all 50,000"]
    table = markdown_table(columns, [row for row in rows if row])
    lines = [_finding(sample, *finding, stored["ranks"][sample]) for sample in FOLDERS for finding in FINDINGS]
    where = stored["environment"]
    note = (
        "Errors with 95 % intervals. Small photos are "
        f"{PHOTOS[SMALL]}: larger scales only magnify them. Large photos are of {PHOTOS[LARGE]}. Net E, 8-bit copy of "
        f"Oxford's weights (SHA-256 {stored['checkpoint'][:12]}), {where['precision']}, {where['processor']}, "
        f"torch {where['versions']['torch']}, {where['time'][:10]}, commit {'/'.join(stored['commits'])}."
    )
    names = {"int8": "The int8 ONNX file", EXACT: f"The net in {EXACT}"}
    for model, other in stored["compared"].items():
        if other is not None:
            note += (
                f" {names[model]} predicts the same class on {other['same']} of {other['images']} small photos "
                f"(`{other['protocol']}`); it errs on {other['wrong']} of them, the net here on {other['ours_wrong']}; "
                f"their posteriors' mean total variation is {other['total_variation']:.4f}."
            )
    findings = "\n".join(line for line in lines if line)
    text = f"{table}\n\n{note}\n\nThe paper's findings, in pairs on the same photos (McNemar's test):\n\n{findings}"
    write_block(TOP / "docs" / "results.md", "ilsvrc", text)


def _row(sample: str, name: str, protocol: str, paper: str, ranks: dict[str, str]) -> list[str]:
    """A row of the table; empty where the protocol is not evaluated on the sample."""
    if protocol not in ranks:
        return []
    found = ranks[protocol]
    printed = find_rows(paper)[1][0].paper if paper else None
    theirs = f"{printed.top1_val} / {printed.top5_val}" if printed else ""
    return [sample, str(len(found)), name, f"`{protocol}`", *(error(wrong(found, k)) for k in (1, 5)), theirs]


def error(mistakes: NDArray[np.bool_]) -> str:
    """The error in percent with its 95 % interval."""
    low, high = error_interval(mistakes, np.arange(len(mistakes)))
    return f"{100 * mistakes.mean():.1f} ({low:.1f}–{high:.1f})"


def _finding(sample: str, text: str, larger: str, smaller: str, ranks: dict[str, str]) -> str:
    """One of the paper's findings on the photos that both protocols were evaluated on: confirmed, or not."""
    if larger not in ranks or smaller not in ranks:
        return ""
    count = min(len(ranks[larger]), len(ranks[smaller]))
    verdicts = []
    for k in (1, 5):
        test = mcnemar(wrong(ranks[larger][:count], k), wrong(ranks[smaller][:count], k), np.arange(count))
        better, worse, p = test["only_first_wrong"], test["only_second_wrong"], test["p"]
        decided = "undecided" if p >= 0.05 else "confirmed" if better > worse else "contradicted"
        verdicts.append(f"top-{k} {decided} ({better} corrected, {worse} newly wrong, p = {p:.2g})")
    return f"- {text}: {'; '.join(verdicts)} (`{smaller}` beside `{larger}`, {count} {sample} photos)"


if __name__ == "__main__":
    if sys.argv[1] == "run":
        run(float(sys.argv[2]) if len(sys.argv) > 2 else float("inf"), int(sys.argv[3]) if len(sys.argv) > 3 else 0)
    else:
        write()
