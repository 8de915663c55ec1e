"""ILSVRC's true devkit, labels and boxes of its 50,000 validation images, through our readers and our error.

    python tests/external/ilsvrc_val.py DIR     # in DIR a clone of each of `DEVKIT` and `BOXES` (bare ones do)

The images themselves are not needed: grey ones of the recorded sizes stand for them, in the layout of the archives.
Labels by way of the devkit's own numbers (`meta.mat`, ground truth) are compared with published indices into sorted
WNIDs; every box has to be read, or named as a fault. Predictions are drawn at random near the true boxes, rounded to
pixels as in a server file, and the localisation error is compared with a count in whole numbers by the devkit's rule:
corners are inclusive, so a side is the difference plus 1, and count from 0.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from suites import SuiteResult, store

from verydeep.core.progress import Silent
from verydeep.core.settings import DataSettings
from verydeep.data.box_targets import located
from verydeep.data.boxes import inclusive_to_xyxy
from verydeep.data.dataset import Dataset
from verydeep.data.open import open_data
from verydeep.evaluation.metrics import boxes_wrong

DEVKIT, BOXES = "ghimiredhikura/ILSVRC2012_img_val_10K", "clovaai/wsolevaluation"
DEVKIT_DATA, LISTS = "data/ILSVRC2012_devkit_t12/data", "metadata/ILSVRC/test"
PREDICTIONS = 5
Boxes = dict[str, list[tuple[int, int, int, int]]]


def content(clone: Path, path: str) -> bytes:
    """A file of a clone's newest commit."""
    return subprocess.run(["git", "-C", str(clone), "show", f"HEAD:{path}"], capture_output=True, check=True).stdout


def rows(clone: Path, name: str) -> list[tuple[str, list[int]]]:
    """A published list: an image's file name, and numbers."""
    lines = content(clone, f"{LISTS}/{name}.txt").decode().split()
    return [(Path(line.split(",")[0]).name, [int(cell) for cell in line.split(",")[1:]]) for line in lines]


def lay_out(folder: Path, clones: Path, sizes: dict[str, tuple[int, int]]) -> None:
    """The devkit, and images of the given width and height, as the archives unpack; images of a size share a file."""
    data = folder / "ILSVRC2012_devkit_t12" / "data"
    data.mkdir(parents=True)
    for name in ("meta.mat", "ILSVRC2012_validation_ground_truth.txt"):
        (data / name).write_bytes(content(clones / DEVKIT, f"{DEVKIT_DATA}/{name}"))
    (folder / "val").mkdir()
    (folder / "grey").mkdir()
    for name, size in sizes.items():
        grey = folder / "grey" / "{}x{}.jpg".format(*size)
        if not grey.exists():
            Image.new("L", size, 128).save(grey)
        (folder / "val" / name).symlink_to(grey)


def annotate(folder: Path, dataset: Dataset, boxes: Boxes, sizes: dict[str, tuple[int, int]]) -> None:
    """The boxes as ILSVRC's XML files, named by WNID."""
    place = folder / "ILSVRC2012_bbox_val_v3" / "val"
    place.mkdir(parents=True)
    tags = ("xmin", "ymin", "xmax", "ymax")
    for image, label in zip(dataset.ids, dataset.labels.tolist(), strict=True):
        name, wnid = Path(image).name, dataset.classes[label].split()[0]
        width, height = sizes[name]
        objects = "".join(
            f"<object><name>{wnid}</name><bndbox>"
            + "".join(f"<{tag}>{value}</{tag}>" for tag, value in zip(tags, box, strict=True))
            + "</bndbox></object>"
            for box in boxes[name]
        )
        size = f"<size><width>{width}</width><height>{height}</height></size>"
        (place / f"{Path(name).stem}.xml").write_text(f"<annotation>{size}{objects}</annotation>")


def wrong_by_the_devkit(predicted: list[tuple[int, tuple[int, ...]]], label: int, truths: Boxes, name: str) -> bool:
    """Whether no prediction of the right label overlaps a true box by half, in whole numbers."""
    for guess, box in predicted:
        for true in truths[name] if guess == label else ():
            wide = min(box[2], true[2]) - max(box[0], true[0]) + 1
            high = min(box[3], true[3]) - max(box[1], true[1]) + 1
            areas = sum((one[2] - one[0] + 1) * (one[3] - one[1] + 1) for one in (box, true))
            if wide > 0 and high > 0 and 2 * wide * high >= areas - wide * high:
                return False
    return True


def drawn(
    rng: np.random.Generator, label: int, truths: list[tuple[int, int, int, int]], size: tuple[int, int]
) -> list[tuple[int, tuple[int, ...]]]:
    """Five predictions, some of the right label, around one of the true boxes."""
    predicted = []
    for _ in range(PREDICTIONS):
        true = np.array(truths[rng.integers(len(truths))])
        sides = np.tile(true[2:] - true[:2], 2)
        box = np.rint(true + rng.normal(0, 0.15, 4) * sides).astype(int)
        low, high = np.minimum(box[:2], box[2:]), np.maximum(box[:2], box[2:])
        last = np.array(size) - 1
        corners = [*np.clip(low, 0, last), *np.clip(high, 0, last)]
        guess = label if rng.random() < 0.3 else int(rng.integers(1000))
        predicted.append((guess, tuple(int(value) for value in corners)))
    return predicted


def check_errors(dataset: Dataset, boxes: Boxes, sizes: dict[str, tuple[int, int]]) -> tuple[list[str], float]:
    """Images on which our localisation error and the devkit's differ, and the error in percent."""
    rng = np.random.default_rng(0)
    names = [Path(image).name for image in dataset.ids]
    every = [
        drawn(rng, label, boxes[name], sizes[name]) for name, label in zip(names, dataset.labels.tolist(), strict=True)
    ]
    labels = np.array([[guess for guess, _ in predicted] for predicted in every])
    corners = inclusive_to_xyxy(np.array([[box for _, box in predicted] for predicted in every]) + 1)  # from 1
    assert dataset.boxes is not None
    _, ours = boxes_wrong(labels, corners, dataset.labels, dataset.boxes)
    theirs = [
        wrong_by_the_devkit(predicted, label, boxes, name)
        for predicted, label, name in zip(every, dataset.labels.tolist(), names, strict=True)
    ]
    differ = [name for name, one, other in zip(names, ours.tolist(), theirs, strict=True) if one != other]
    return [f"{name}: our localisation error and the devkit's differ" for name in differ], 100 * float(ours.mean())


def compared(clones: Path, folder: Path) -> tuple[int, list[str], dict[str, float], dict[str, Any]]:
    """Cases, faults, figures, and what is odd about the boxes."""
    sizes = {name: (width, height) for name, (width, height) in rows(clones / BOXES, "image_sizes")}
    boxes: Boxes = {}
    for name, (x1, y1, x2, y2) in rows(clones / BOXES, "localization"):
        boxes.setdefault(name, []).append((x1, y1, x2, y2))
    lay_out(folder, clones, sizes)
    settings = DataSettings(data=f"imagenet:{folder}")
    val = open_data(settings).set("val")
    published = {name: label for name, (label,) in rows(clones / BOXES, "class_labels")}
    faults = [
        f"{image}: label {label}, not {published[Path(image).name]}"
        for image, label in zip(val.ids, val.labels.tolist(), strict=True)
        if label != published[Path(image).name]
    ]
    annotate(folder, val, boxes, sizes)
    found = located(open_data(settings).set("val"), strict=False, reporter=Silent())
    kept, total = sum(map(len, found.dataset.boxes or ())), sum(map(len, boxes.values()))
    named = Counter({name: len(images) for name, images in found.faults.items()})
    if kept + sum(named.values()) != total:
        faults.append(f"{kept} of {total} boxes are read, and {sum(named.values())} are named as faults")
    differ, error = check_errors(found.dataset, boxes, sizes)
    odd = {
        "boxes that begin in row or column 0": sum(min(box[:2]) == 0 for of in boxes.values() for box in of),
        "boxes that end in row or column height or width": sum(
            box[2] >= sizes[name][0] or box[3] >= sizes[name][1] for name, of in boxes.items() for box in of
        ),
        "images with a box twice": sum(len(set(of)) < len(of) for of in boxes.values()),
        "boxes of an image at most": max(map(len, boxes.values())),
        "named as faults": dict(named),
    }
    figures = {"boxes read": float(kept), "localisation error of random predictions, %": error}
    return len(val) * 2 + total, faults + differ, figures, odd


def main(clones: str) -> int:
    """Compares everything; 1 where something differs."""
    with tempfile.TemporaryDirectory() as folder:
        count, faults, figures, odd = compared(Path(clones), Path(folder))
    heads = {
        name: subprocess.run(
            ["git", "-C", f"{clones}/{name}", "rev-parse", "--short=12", "HEAD"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for name in (DEVKIT, BOXES)
    }
    title = "ILSVRC's devkit, labels and boxes, with the devkit's rule"
    store("ilsvrc_val", SuiteResult(title, heads, count, faults, figures, odd))
    print(json.dumps({"cases": count, "faults": len(faults), **figures, **odd}), *faults[:20], sep="\n")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
