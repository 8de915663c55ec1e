"""Real photos: Caltech-101 by the paper's protocol (App. B, Table 11).

    CALTECH101=folder NET_D_CONV=file NET_E=run python examples/transfer.py run [D|E|agreement]
    python examples/transfer.py write     # the stored results into docs/transfer.md

Three random splits of 30 training photos per class and up to 50 test photos; C is chosen on a fifth of the first.
Descriptors are those of net D's convolutions alone, without mirror images, at larger scales only for the classes from c
to e, and those of the whole net E, with mirror images as in the paper. Stored features are not computed again, and an
interrupted extraction resumes. ``PRECISION=bf16`` takes a third of the time on a processor with AMX; ``agreement``
compares net E's descriptors of a few similar classes, and their SVMs, in both precisions.
"""

from __future__ import annotations

import csv
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from commands import TOP, run_json

from verydeep.checkpoints.run_dir import environment
from verydeep.core.files import read_json, write_json
from verydeep.paper.rows.row import find_rows
from verydeep.paper.tables import markdown_table, write_block
from verydeep.transfer.descriptors import unit
from verydeep.transfer.features_file import load_features

RESULTS = TOP / "docs" / "results" / "transfer.json"
HOME = os.environ.get("TRANSFER_RUNS", "runs/transfer")
PRECISION = os.environ.get("PRECISION", "float32")
FEATURES = "--data caltech101:$CALTECH101 --splits 3"
SIMILAR = "--classes 'c[or]*'"  # cougars, crabs, crayfish, crocodiles
# Each file of a net: the photos and scales it holds.
FILES = {
    "D": {
        "all": f"$NET_D_CONV {FEATURES} --precision {PRECISION} --layer pool5 --mirror no --scales 192,256",
        "some": f"$NET_D_CONV {FEATURES} --precision {PRECISION} --layer pool5 --mirror no --classes '[c-e]*' "
        "--scales 256,384,512",
    },
    "E": {
        "fc7": f"$NET_E {FEATURES} --precision {PRECISION} --layer fc7 --scales 256,384,512",
        "no-mirror": f"$NET_E {FEATURES} --precision {PRECISION} --layer fc7 --mirror no --scales 256",
        "fc6": f"$NET_E {FEATURES} --precision {PRECISION} --layer fc6 --scales 256",
        "pool5": f"$NET_E {FEATURES} --precision {PRECISION} --layer pool5 --scales 256",
        "float32": f"$NET_E {FEATURES} --precision float32 --layer fc7 {SIMILAR} --scales 256",
        "bf16": f"$NET_E {FEATURES} --precision bf16 --layer fc7 {SIMILAR} --scales 256",
    },
}
STACKED, AGREEMENT = "256, 384, 512 stacked", "agreement"
# Each row of a net: the classes, its name, the file, and the options.
ROWS: dict[str, list[tuple[str, str, str, str]]] = {
    "D": [
        ("all", "Q = 192", "all", "--scales 192"),
        ("all", "Q = 256", "all", "--scales 256"),
        ("all", "192, 256 stacked", "all", "--aggregate stack"),
        ("c to e", "Q = 256", "some", "--scales 256"),
        ("c to e", "Q = 384", "some", "--scales 384"),
        ("c to e", "Q = 512", "some", "--scales 512"),
        ("c to e", STACKED, "some", "--aggregate stack"),
        ("c to e", "256, 384, 512 averaged", "some", "--aggregate average"),
        ("c to e", "256, 384, 512, the maximum", "some", "--aggregate max"),
    ],
    "E": [
        ("all", "Q = 256", "fc7", "--scales 256"),
        ("all", "Q = 384", "fc7", "--scales 384"),
        ("all", "Q = 512", "fc7", "--scales 512"),
        ("all", STACKED, "fc7", ""),
        ("all", "256, 384, 512 averaged", "fc7", "--aggregate average"),
        ("all", "256, 384, 512, the maximum", "fc7", "--aggregate max"),
        ("all", "256, 384, 512 stacked, not normalised", "fc7", "--normalise none"),
        ("all", "256, 384, 512 stacked, C = 0.01", "fc7", "--C 0.01"),
        ("all", "256, 384, 512 stacked, C = 100", "fc7", "--C 100"),
        ("all", "Q = 256, nearest neighbours", "fc7", "--scales 256 --classifier knn"),
        ("all", "Q = 256, no mirror images", "no-mirror", ""),
        ("all", "Q = 256", "fc6", ""),
        ("all", "Q = 256", "pool5", ""),
    ],
}


def run(parts: list[str]) -> None:
    """Extracts missing features, trains the SVMs, and stores every row; rows of other nets and precisions stay."""
    stored = read_json(RESULTS) if RESULTS.exists() else {"rows": []}
    for part in parts:
        if part == AGREEMENT:
            stored[AGREEMENT] = _agreement()
            write_json(RESULTS, stored)
            continue
        same = (part, PRECISION)
        stored["rows"] = [row for row in stored["rows"] if (_features(row)["net"], _precision(row)) != same]
        for photos, name, file, options in ROWS[part]:
            path = _extracted(part, file)
            result = run_json(f"svm caltech101 --features {path} {options} --out {HOME}/svm")
            stored["rows"].append(_kept({**result, "photos": photos, "descriptor": name}))
            stored["rows"].sort(key=lambda row: (str(_features(row)["net"]), _precision(row)))
            write_json(RESULTS, stored)


def _extracted(net: str, file: str) -> str:
    """The path of a features file, with all of its scales."""
    path = f"{HOME}/{net}-{file}.safetensors"
    run_json(f"features {FILES[net][file]} --out {path}")
    return path


def _agreement() -> dict[str, Any]:
    """Cosines of net E's descriptors in bf16 and in float32, and on how many test photos their SVMs agree."""
    paths = [_extracted("E", precision) for precision in ("float32", "bf16")]
    (exact, rounded) = (unit(load_features(Path(path)).scales[256]) for path in paths)
    cosines = (exact * rounded).sum(axis=1)
    predicted = []
    for path in paths:
        run_json(f"svm caltech101 --features {path} --out {HOME}/svm")
        with (Path(TOP, HOME) / "svm" / "answers.csv").open(encoding="utf8", newline="") as file:
            predicted.append([max(row, key=lambda name: float(row[name])) for row in _scores(file)])
    same = sum(one == other for one, other in zip(*predicted, strict=True))
    figures = {"images": len(cosines), "mean_cosine": float(cosines.mean()), "least_cosine": float(cosines.min())}
    return {**figures, "test_images": len(predicted[0]), "same": same, "environment": environment({})}


def _scores(file: TextIO) -> Iterator[dict[str, str]]:
    """The scores of each test photo by class."""
    for row in csv.DictReader(file):
        yield {name: score for name, score in row.items() if name != "image"}


def _precision(row: dict[str, Any]) -> str:
    return str(_features(row)["precision"])


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
    stored = read_json(RESULTS)
    rows = stored["rows"]
    nets: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        nets.setdefault((_features(row)["net"], _precision(row)), []).append(row)
    cells = [
        [
            f"{_features(row)['net']}, {_features(row)['layer']}, {_precision(row)}",
            f"{row['photos']} ({row['classes']})",
            row["descriptor"],
            row["dimensions"],
            row["images"][0]["test"],
            f"{row['mean_class_recall']:.1f} ± {row['mean_class_recall_std']:.1f}",
            f"{row['top1_error']:.1f} ± {row['top1_error_std']:.1f}",
        ]
        for row in rows
    ]
    heads = ["net, layer, precision", "classes", "descriptor", "dimensions", "test photos per split"]
    table = markdown_table([*heads, "mean class recall %", "top-1 error %"], cells)
    notes = "\n".join(_note(net, several) for (net, _), several in nets.items())
    verdicts = "\n".join(
        f"- {_verdict(net, several)}" for (net, _), several in nets.items() if STACKED in _by_descriptor(several)
    )
    found = "\n\n".join([verdicts, *([_agreed(stored[AGREEMENT])] if AGREEMENT in stored else [])])
    text = f"{table}\n\nMean ± standard deviation over random splits.\n\n{notes}\n\n{found}"
    write_block(TOP / "docs" / "transfer.md", "transfer", text)
    write_block(TOP / "docs" / "results.md", "table-11", _table_11(next(row for row in rows if _is_of_table_11(row))))


def _is_of_table_11(row: dict[str, Any]) -> bool:
    return (_features(row)["net"], row["photos"], row["descriptor"]) == ("E", "all", STACKED)


def _agreed(found: dict[str, Any]) -> str:
    where = found["environment"]
    return (
        f"bf16 beside float32: of {found['images']} photos of six similar classes (cougars, crabs, crayfish, "
        f"crocodiles), descriptors of net E (fc7, Q = 256) have a cosine of {found['mean_cosine']:.5f} on average and "
        f"of {found['least_cosine']:.5f} at least, and the SVMs trained on them predict the same class on "
        f"{found['same']} of {found['test_images']} test photos of the first split ({where['processor']}, "
        f"{where['time'][:10]}, commit "
        f"{where['commit']})."
    )


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
        f"photos. fc7 of net E in {_precision(row)}, mirror images, linear SVMs, C chosen on a fifth of the training "
        f"photos. {where['processor']}, torch {where['versions']['torch']}, {where['time'][:10]}, commit "
        f"{where['commit']}. "
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


def _by_descriptor(rows: list[dict[str, Any]]) -> dict[str, list[float]]:
    """The figure of each split."""
    return {row["descriptor"]: [split["mean_class_recall"] for split in row["splits"]] for row in rows}


def _verdict(net: str, rows: list[dict[str, Any]]) -> str:
    """Whether stacking beats averaging and the maximum, split by split, as the paper finds on Caltech."""
    by = _by_descriptor(rows)
    return f"Net {net}: " + " ".join(
        _compared(by[STACKED], by[f"256, 384, 512{end}"], name)
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
        run(sys.argv[2:] or [*ROWS, AGREEMENT])
    else:
        write()
