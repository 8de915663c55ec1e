"""How many photos are enough: the learning curve of a probe on sixteen classes of Caltech-101.

    CALTECH101=folder NET_E=run python examples/learning_curve.py run
    python examples/learning_curve.py write     # the stored results into docs/transfer.md, with the picture

fc7 of net E whole, at Q = 256 without mirror images; descriptors that exist are not computed again. The power law is
checked where the answer is known: fitted to the points of few photos, it predicts the error at more.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from commands import TOP, run_json
from matplotlib.figure import Figure

from verydeep.core.files import read_json, write_json
from verydeep.paper.tables import markdown_table, write_block

RESULTS = TOP / "docs" / "results" / "learning_curve.json"
PICTURE = TOP / "docs" / "pictures" / "learning_curve.png"
CLASSES = (
    "bonsai,brain,buddha,butterfly,chandelier,ewer,grand_piano,hawksbill,helicopter,ibis,kangaroo,ketch,laptop,llama,"
    "menorah,minaret"
)
COMMAND = (
    f"probe --data $CALTECH101 --classes '{CLASSES}' --weights $NET_E --mirror no --scales 256 --threads 1 --workers 0 "
    "--curve --out runs/curve/E"
)
CHECKED_AT = 20  # photos per class: the law is fitted to points up to there


def run() -> None:
    """Runs the probe and stores its curve."""
    result = run_json(COMMAND)
    features = [{**row, "file": Path(row["file"]).name} for row in result["features"]]
    kept = {name: result[name] for name in ("curve", "classes", "dimensions", "images", "environment")}
    write_json(RESULTS, {**kept, "features": features})


def predicted(points: list[dict[str, Any]]) -> tuple[dict[str, Any], float]:
    """The first point after `CHECKED_AT`, and the error that a power law of the points before predicts there."""
    last = next(place for place, point in enumerate(points) if point["images_per_class"] == CHECKED_AT)
    used = [point for point in points[: last + 1] if 8 * point["images"] >= points[last]["images"]]
    images, errors = (np.log([point[name] for point in used]) for name in ("images", "top1_error"))
    slope, level = np.polyfit(images, errors, 1)
    after: dict[str, Any] = points[last + 1]
    return after, float(np.exp(level + slope * np.log(after["images"])))


def write() -> None:
    """Writes the stored curve into docs/transfer.md, and its picture."""
    stored = read_json(RESULTS)
    curve, where, first = stored["curve"], stored["environment"], stored["features"][0]
    cells = [
        [
            "all" if point["images_per_class"] is None else point["images_per_class"],
            point["images"],
            _with_spread(point, "top1_error"),
            _with_spread(point, "mean_class_recall"),
        ]
        for point in curve["points"]
    ]
    heads = ["photos per class", "photos", "top-1 error %", "mean class recall %"]
    after, error = predicted(curve["points"])
    note = (
        f"{first['layer']} of net {first['net']} at Q = {first['scales'][0]}, {curve['classes']} classes of "
        f"Caltech-101, the same {curve['test_images']} test photos; mean ± standard deviation of "
        f"{curve['points'][0]['draws']} draws, "
        f"seed {curve['seed']}, C = {curve['C']:g}. {where['processor']}, torch {where['versions']['torch']}, "
        f"{where['time'][:10]}, commit {where['commit']}."
    )
    check = (
        f"“{curve['sentence']}” A check of the law: fitted to the points up to {CHECKED_AT} photos per class, it "
        f"predicts {error:.2f} % at {after['images_per_class']}; measured were {after['top1_error']:.2f} %."
    )
    _draw(curve)
    picture = f"![error by number of training photos](pictures/{PICTURE.name})"
    text = f"{markdown_table(heads, cells)}\n\n{note}\n\n{check}\n\n{picture}"
    write_block(TOP / "docs" / "transfer.md", "learning curve", text)


def _with_spread(point: dict[str, Any], name: str) -> str:
    std = point[f"{name}_std"]
    return f"{point[name]:.2f}{'' if std is None else f' ± {std:.2f}'}"


def _draw(curve: dict[str, Any]) -> None:
    figure = Figure(figsize=(6.0, 3.4), layout="constrained")
    ax = figure.subplots()
    images, errors = ([point[name] for point in curve["points"]] for name in ("images", "top1_error"))
    spreads = [point["top1_error_std"] or 0 for point in curve["points"]]
    a, b = curve["doubling"]["law"]
    xs = np.geomspace(curve["doubling"]["fitted_from_images"], 2 * images[-1], 50)
    ax.plot(xs, a * xs**-b, "--", color="#b3541e", label="fitted power law, to twice as many photos")
    ax.errorbar(images, errors, yerr=spreads, fmt="o-", color="#1f5fa8", capsize=3, label="mean and spread of draws")
    ax.set_xscale("log", base=2)
    ax.set_xticks(images, [str(point["images_per_class"] or "all") for point in curve["points"]])
    ax.set_ylim(bottom=0)
    ax.set_xlabel("training photos per class")
    ax.set_ylabel("top-1 error (%)")
    ax.grid(alpha=0.3)
    ax.legend(frameon=False)
    figure.savefig(PICTURE, dpi=110)


if __name__ == "__main__":
    {"run": run, "write": write}[sys.argv[1]]()
