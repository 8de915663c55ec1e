"""Real photos: Caltech-101 by the paper's protocol (App. B, Table 11).

    CALTECH101=folder NET_D_CONV=file NET_E=run python examples/transfer.py run [D|E]
    python examples/transfer.py write     # the stored results into docs/transfer.md

Three random splits of 30 training photos per class and up to 50 test photos; C is chosen on a fifth of the first.
Descriptors are those of net D's convolutions alone, without mirror images, at larger scales only for the classes from c
to e, and fc7 of the whole net E, with mirror images as in the paper. Stored features are not computed again, and an
interrupted extraction resumes. ``PRECISION=bf16`` halves the time on a processor with bf16 instructions.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from commands import TOP, run_json

from verydeep.core.files import read_json, write_json
from verydeep.paper.rows.row import find_rows
from verydeep.paper.tables import markdown_table, write_block

RESULTS = TOP / "docs" / "results" / "transfer.json"
HOME = os.environ.get("TRANSFER_RUNS", "runs/transfer")
PRECISION = os.environ.get("PRECISION", "float32")
FEATURES = f"--data caltech101:$CALTECH101 --splits 3 --precision {PRECISION}"
# Each file of a net: the photos and scales it holds.
FILES = {
    "D": {
        "all": f"features $NET_D_CONV {FEATURES} --layer pool5 --mirror no --scales 192,256",
        "some": f"features $NET_D_CONV {FEATURES} --layer pool5 --mirror no --classes '[c-e]*' --scales 256,384,512",
    },
    "E": {"fc7": f"features $NET_E {FEATURES} --layer fc7 --scales 256"},
}
# Each row of a net: the classes, its name, the file, and the options.
ROWS: dict[str, list[tuple[str, str, str, str]]] = {
    "D": [
        ("all", "Q = 192", "all", "--scales 192"),
        ("all", "Q = 256", "all", "--scales 256"),
        ("all", "192, 256 stacked", "all", "--aggregate stack"),
        ("c to e", "Q = 256", "some", "--scales 256"),
        ("c to e", "Q = 384", "some", "--scales 384"),
        ("c to e", "Q = 512", "some", "--scales 512"),
        ("c to e", "256, 384, 512 stacked", "some", "--aggregate stack"),
        ("c to e", "256, 384, 512 averaged", "some", "--aggregate average"),
        ("c to e", "256, 384, 512, the maximum", "some", "--aggregate max"),
    ],
    "E": [
        ("all", "Q = 256", "fc7", ""),
        ("all", "Q = 256, not normalised", "fc7", "--normalise none"),
        ("all", "Q = 256, hinge loss", "fc7", "--loss hinge"),
        ("all", "Q = 256, C = 0.01", "fc7", "--C 0.01"),
        ("all", "Q = 256, C = 100", "fc7", "--C 100"),
        ("all", "Q = 256, nearest neighbours", "fc7", "--classifier knn"),
    ],
}


def run(nets: list[str]) -> None:
    """Extracts missing features of some nets, trains the SVMs, and stores every row."""
    rows = [row for row in read_json(RESULTS)["rows"] if _features(row)["net"] not in nets] if RESULTS.exists() else []
    for net in nets:
        for photos, name, file, options in ROWS[net]:
            path = f"{HOME}/{net}-{file}.safetensors"
            run_json(f"{FILES[net][file]} --out {path}")
            result = run_json(f"svm caltech101 --features {path} {options} --out {HOME}/svm")
            rows.append({**result, "photos": photos, "descriptor": name})
            kept = [_kept(row) for row in sorted(rows, key=lambda row: str(_features(row)["net"]))]
            write_json(RESULTS, {"rows": kept})


def _features(row: dict[str, Any]) -> dict[str, Any]:
    """What a row records of its features."""
    features: dict[str, Any] = row["features"][0]
    return features


def _kept(row: dict[str, Any]) -> dict[str, Any]:
    left_out = ("by_class", "folder", "mistakes", "risk_coverage")
    features = [{**one, "file": Path(one["file"]).name} for one in row["features"]]
    return {**{name: value for name, value in row.items() if name not in left_out}, "features": features}


def write() -> None:
    """Writes the stored results into docs/transfer.md."""
    rows = read_json(RESULTS)["rows"]
    nets = sorted({_features(row)["net"] for row in rows})
    cells = [
        [
            f"{_features(row)['net']}, {_features(row)['layer']}",
            f"{row['photos']} ({row['classes']})",
            row["descriptor"],
            row["dimensions"],
            row["images"][0]["test"],
            f"{row['mean_class_recall']:.1f} ± {row['mean_class_recall_std']:.1f}",
            f"{row['top1_error']:.1f} ± {row['top1_error_std']:.1f}",
        ]
        for row in rows
    ]
    heads = ["net", "classes", "descriptor", "dimensions", "test photos per split"]
    table = markdown_table([*heads, "mean class recall %", "top-1 error %"], cells)
    notes = "\n".join(_note(net, [row for row in rows if _features(row)["net"] == net]) for net in nets)
    text = f"{table}\n\nMean ± standard deviation over random splits.\n\n{notes}\n\n{_verdict(rows)}"
    write_block(TOP / "docs" / "transfer.md", "transfer", text)
    write_block(TOP / "docs" / "results.md", "table-11", _table_11(next(row for row in rows if _is_of_e(row))))


def _is_of_e(row: dict[str, Any]) -> bool:
    return bool(_features(row)["net"] == "E")


def _table_11(row: dict[str, Any]) -> str:
    """Net E's row of Table 11, split by split, beside the paper's."""
    paper = find_rows("table11/E/caltech101")[1][0].paper
    splits = ", ".join(f"{split['mean_class_recall']:.1f}" for split in row["splits"])
    ours = f"{row['mean_class_recall']:.1f} ± {row['mean_class_recall_std']:.1f}"
    scales = ",".join(map(str, _features(row)["scales"]))
    cells = [
        ["the paper", "256, 384, 512 stacked", f"{paper.figure} ± {paper.figure_std}", ""],
        ["here", scales, ours, splits],
    ]
    images = " or ".join(sorted({str(one["test"]) for one in row["images"]}))
    where = row["environment"]
    note = (
        f"Caltech-101, {row['classes']} classes, three random splits of 30 training photos a class and {images} test "
        f"photos. fc7 of net E, mirror images, linear SVMs, C chosen on a fifth of the training photos. "
        f"{where['processor']}, torch {where['versions']['torch']}, {where['time'][:10]}, commit {where['commit']}. "
        "Other normalisations, losses, values of C: [transfer.md](transfer.md)."
    )
    heads = ["net E", "Q", "mean class recall %", "split by split"]
    return f"{markdown_table(heads, cells)}\n\n{note}"


def _note(net: str, rows: list[dict[str, Any]]) -> str:
    """How a net's rows were measured, beside the paper's figure."""
    where, first = rows[0]["environment"], _features(rows[0])
    commits = sorted({str(row["environment"]["commit"]) for row in rows})
    described = sorted({name for row in rows for name in _features(row)["described_at_commits"]})
    paper = find_rows(f"table11/{net}/caltech101")[1][0].paper
    return (
        f"- Net {net}: {first['layer']}, mean over the map, {'with' if first['mirror'] else 'without'} mirror images, "
        f"{len(rows[0]['splits'])} splits, precision {first['precision']}; the paper's, fc7 of three scales stacked, "
        f"has {paper.figure} ± {paper.figure_std} on all classes. {where['processor']}, torch "
        f"{where['versions']['torch']}, {where['time'][:10]}, features at commit {'/'.join(described)}, SVMs at "
        f"{'/'.join(commits)}."
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
    if sys.argv[1] == "run":
        run(sys.argv[2:] or list(ROWS))
    else:
        write()
