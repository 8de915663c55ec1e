"""Made-up VOC and Caltech sets of handwritten digits, in the folders and lists of the real ones (App. B at doll size).

The pictures are scenes of the digits that no doll net was trained on, 96 pixels high, and stand in for photos:

- Caltech: a class is a number of two digits.
- VOC's classification: a picture has one to three digits. VOC's first ten classes are the digits where they are large,
  its last ten where they are small.
- VOC's actions: a picture has two people, who are digits; the digit is the action, and small people do something else.
  So a whole picture does not tell which of two people does what, and the box does.

Unlike the real VOC-2012, its test set has labels.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from .datasets.caltech import FOLDERS, TRAIN_PHOTOS
from .datasets.digits import SMALLEST_SIDE, scene_of
from .datasets.voc import ACTIONS, CLASSES

LARGE, SMALL = 84, 54  # sides of a digit in pixels
CALTECH_CLASSES = {"caltech101": 20, "caltech256": 10}
CALTECH_TEST = 10  # pictures of a class
OTHER, OTHERS = ACTIONS.index("other"), 0.15  # the share of people who do something else
VOC_SETS = {"train": 200, "val": 200, "test": 200}
SEEDS = {"caltech101": 101, "caltech256": 256, "voc2007": 2007, "voc2012": 2012}
Shown = list[tuple[int, int, int]]  # as `scene_of` takes it


def doll_set(name: str, folder: Path) -> Path:
    """A folder below ``folder`` with a made-up set, written where it is missing.

    Args:
        name: ``caltech101``, ``caltech256``, ``voc2007``, ``voc2012``, and the two of actions, which are VOC-2012's.
    """
    of = name.partition("-")[0]
    place = folder / of
    if not place.exists():
        unfinished = folder / f"{of}.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        (_write_caltech if of in FOLDERS else _write_voc)(of, unfinished)
        os.replace(unfinished, place)
    return place


def _write_caltech(name: str, root: Path) -> None:
    rng = np.random.default_rng(SEEDS[name])
    for number in rng.permutation(100)[: CALTECH_CLASSES[name]].tolist():
        for index in range(1, TRAIN_PHOTOS[name] + CALTECH_TEST + 1):
            side = int(rng.integers(SMALL, LARGE + 1))
            shown = [(number // 10, side, 0), (number % 10, side, side * 3 // 4)]
            _save(shown, rng, root / FOLDERS[name] / f"{number:02d}" / f"image_{index:04d}.jpg")


def _write_voc(name: str, root: Path) -> None:
    rng, lists = np.random.default_rng(SEEDS[name]), root / "ImageSets"
    ids = (f"{number:06d}" for number in range(1, 10**6))
    for set_name, count in VOC_SETS.items():
        pictures = {next(ids): _large_and_small(rng) for _ in range(count)}
        for picture, shown in pictures.items():
            _save(shown, rng, root / "JPEGImages" / f"{picture}.jpg")
        marks = {
            picture: {digit + 10 * (side == SMALL) for digit, side, _ in shown} for picture, shown in pictures.items()
        }
        _write_lists(lists / "Main", set_name, CLASSES, marks)
        if name == "voc2012":
            people = dict(_people(rng, ids, root, count // 2))
            _write_lists(lists / "Action", set_name, ACTIONS, people)


def _large_and_small(rng: np.random.Generator) -> Shown:
    """One to three different digits, each large or small."""
    digits = rng.permutation(10)[: int(rng.integers(1, 4))].tolist()
    sides = [LARGE if rng.random() < 0.5 else SMALL for _ in digits]
    return [(digit, side, sum(sides[:place])) for place, (digit, side) in enumerate(zip(digits, sides, strict=True))]


def _people(rng: np.random.Generator, ids: Iterator[str], root: Path, count: int) -> Iterator[tuple[str, set[int]]]:
    """Writes pictures of two people each, with their boxes; yields each person, ``picture number``, and the action."""
    for _ in range(count):
        picture, digits = next(ids), rng.permutation(10)[:2].tolist()
        sides = [SMALL if rng.random() < OTHERS else LARGE for _ in digits]
        shown = [(digit, side, LARGE * place) for place, (digit, side) in enumerate(zip(digits, sides, strict=True))]
        _save(shown, rng, root / "JPEGImages" / f"{picture}.jpg")
        objects = "".join(
            f"<object><name>person</name><bndbox><xmin>{x + 1}</xmin><ymin>1</ymin><xmax>{x + side}</xmax>"
            f"<ymax>{SMALLEST_SIDE}</ymax></bndbox></object>"
            for _, side, x in shown
        )
        annotation = root / "Annotations" / f"{picture}.xml"
        annotation.parent.mkdir(parents=True, exist_ok=True)
        annotation.write_text(f"<annotation>{objects}</annotation>", encoding="utf8")
        for place, (digit, side, _) in enumerate(shown, start=1):
            yield f"{picture} {place}", {digit if side == LARGE else OTHER}


def _write_lists(folder: Path, set_name: str, classes: Sequence[str], marks: dict[str, set[int]]) -> None:
    """VOC's lists of a set: its pictures, and of each class which of them show it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{set_name}.txt").write_text("".join(f"{entry}\n" for entry in marks), encoding="utf8")
    for number, name in enumerate(classes):
        lines = "".join(f"{entry} {1 if number in shown else -1:2d}\n" for entry, shown in marks.items())
        (folder / f"{name}_{set_name}.txt").write_text(lines, encoding="utf8")


def _save(shown: Shown, rng: np.random.Generator, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(scene_of(shown, rng)).save(path, quality=95)
