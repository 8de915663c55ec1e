"""PASCAL VOC-2007 and -2012 for App. B: images with several labels, and actions of people in boxes.

``voc2007:DIR`` and ``voc2012:DIR`` are the classification sets: DIR contains ``ImageSets`` and ``JPEGImages``, or
``VOC2007`` or ``VOCdevkit/VOC2007`` that do. An image's mark for a class is 1, -1, or 0 if all objects of the class are
difficult: these count neither as positive nor as negative. ``voc2012-action:DIR`` has an entry per person, with the id
``photo#number`` by the order of objects in the annotation, and reads the whole image; ``voc2012-action-box:DIR`` reads
the person's box. Labels of VOC-2012's test sets are only on its server.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...core.errors import ImageError, VerydeepError
from ...core.settings import DataSettings
from ..annotations import read_xml
from ..dataset import Data, Dataset, FolderSource, ImageSource
from ..image_io import Pixels, read_image

NAMES = ("voc2007", "voc2012", "voc2012-action", "voc2012-action-box")

CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog"),
    *("horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
ACTIONS = (
    *("jumping", "phoning", "playinginstrument", "reading", "ridingbike", "ridinghorse", "running"),
    *("takingphoto", "usingcomputer", "walking", "other"),
)
NOT_SCORED = "other"  # the mean is over the ten other actions
SETS = ("train", "val", "test")
OF_BOXES = "voc2012-action-box"
PERSON = "#"  # separates an image's id from the person's number


@dataclass(frozen=True)
class PersonReader(ImageSource):
    """Reads the image of an id such as ``2010_006215#1``; with ``annotations``, only the person's box."""

    photos: Path
    annotations: Path | None = None

    def read(self, image_id: str) -> Pixels:
        """uint8 RGB (H,W,3); raises ImageError, also if the annotation is broken or has no such person."""
        photo, _, number = image_id.partition(PERSON)
        pixels = read_image(self.photos / f"{photo}.jpg")
        if self.annotations is None:
            return pixels
        path = self.annotations / f"{photo}.xml"
        try:
            people = read_xml(path)
        except VerydeepError as fault:
            raise ImageError(str(fault)) from None
        if not 1 <= int(number) <= len(people):
            raise ImageError(f"{path} has {len(people)} objects, but no number {number}.")
        return _cut(pixels, people[int(number) - 1].xyxy, image_id)

    @property
    def shows(self) -> str:
        """The part of an image that is read: boxes, or all of it."""
        return "photos" if self.annotations is None else "boxes"

    def files(self, image_id: str) -> list[Path]:
        """The image, and the annotation if it is used."""
        photo = image_id.partition(PERSON)[0]
        boxes = [] if self.annotations is None else [self.annotations / f"{photo}.xml"]
        return [self.photos / f"{photo}.jpg", *boxes]


def _cut(pixels: Pixels, xyxy: tuple[float, float, float, float], photo_id: str) -> Pixels:
    height, width = pixels.shape[:2]
    x1, y1, x2, y2 = (round(value) for value in xyxy)
    inside = pixels[max(0, y1) : min(height, y2), max(0, x1) : min(width, x2)]
    if not inside.size:
        raise ImageError(f"the box of {photo_id} is outside its image of {width}x{height} pixels.")
    return inside


def open_named(name: str, root: Path | None, _settings: DataSettings) -> Data:
    """VOC's sets ``train``, ``val`` and, if its lists exist, ``test``.

    Raises:
        VerydeepError: the folders are not VOC's; a list is broken, or has other images than those of other classes.
    """
    assert root is not None
    year = name[3:7]
    places = (root, root / f"VOC{year}", root / "VOCdevkit" / f"VOC{year}")
    home = next((place for place in places if (place / "ImageSets").is_dir()), None)
    if home is None:
        raise VerydeepError(
            f"{root} is not VOC-{year}: it, its VOC{year} or VOCdevkit/VOC{year} must contain ImageSets and JPEGImages."
        )
    action = "action" in name
    boxes = home / "Annotations" if name == OF_BOXES else None
    images = home / "JPEGImages"
    source: ImageSource = PersonReader(images, boxes) if action else FolderSource(images)
    classes = ACTIONS if action else CLASSES
    sets = {}
    for set_name in SETS:
        entries = _read_set(home / "ImageSets" / ("Action" if action else "Main"), set_name, classes, action)
        if entries is not None:
            ids, marks = entries
            unknown = np.full(len(ids), -1, np.int64)
            sets[set_name] = Dataset(name, set_name, classes, tuple(ids), unknown, source, marks=marks)
    return Data(name, sets, split_by_us=False)


def _read_set(
    folder: Path, set_name: str, classes: tuple[str, ...], action: bool
) -> tuple[list[str], NDArray[np.int8]] | None:
    """Ids and marks (N,K) of a set; marks are 0 if only its images are listed, None if it has no lists."""
    files = [folder / f"{name}_{set_name}.txt" for name in classes]
    if not any(path.is_file() for path in files):
        images = folder / f"{set_name}.txt"
        if set_name == "test" and not images.is_file():
            return None
        ids = [_id(images, words, action) for words in _lines(images, 2 if action else 1)]
        if set_name != "test":
            raise VerydeepError(f"{files[0]} is missing: it lists which images of {set_name} show the class.")
        return ids, np.zeros((len(ids), len(classes)), np.int8)
    columns, ids = [], []
    for path in files:
        rows = _lines(path, 3 if action else 2)
        in_file = [_id(path, words, action) for words in rows]
        if ids and in_file != ids:
            raise VerydeepError(f"{path} lists other images than {files[0].name}: the lists are not of one release.")
        ids = in_file
        columns.append([_mark(path, words[-1]) for words in rows])
    if len(set(ids)) < len(ids):
        raise VerydeepError(f"{files[0]} lists an image twice.")
    return ids, np.array(columns, dtype=np.int8).T


def _id(path: Path, words: list[str], action: bool) -> str:
    if action and not words[1].isdecimal():
        raise VerydeepError(f"{path} lists person {words[1]!r} of image {words[0]}: it must be a number.")
    return f"{words[0]}{PERSON}{words[1]}" if action else f"{words[0]}.jpg"


def _mark(path: Path, word: str) -> int:
    if word not in ("1", "+1", "0", "-1"):
        raise VerydeepError(f"{path} has a line that ends in {word!r}: it must be 1, -1 or 0.")
    return int(word)


def _lines(path: Path, words: int) -> list[list[str]]:
    """The words of each line of a list."""
    try:
        rows = [line.split() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as fault:
        raise VerydeepError(f"cannot read {path}: {getattr(fault, 'strerror', None) or 'it is not text'}.") from None
    wrong = next((row for row in rows if len(row) != words), None)
    if wrong is not None or not rows:
        what = "is empty" if wrong is None else f"has the line {' '.join(wrong)[:60]!r}"
        raise VerydeepError(f"{path} {what}: every line must have {words} words.")
    return rows
