"""App. A, data: own photos whose classes and boxes are told by box files, and not by folders.

``boxes`` lists files or folders of boxes, each, if wished, after the folder its names count from:
``boxes.csv``, ``Annotations/``, ``airplanes=airplane.csv,Faces=face.csv``. An image is found by its path below
that folder, with or without its extension, or by its bare name where one photo alone has it.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from ..boxes import area
from ..config import DataSettings
from ..errors import VerydeepError
from .boxfiles import ByImage, read_boxes
from .folder import photos_below, split_whole
from .sets import Data, Dataset, NamedBox, PhotoReader


@dataclass(frozen=True)
class PhotoBoxes:
    """The boxes of each photo by its id; what the box files name that is no photo here, and photos they leave out."""

    by_photo: dict[str, list[NamedBox]]
    unmatched: tuple[str, ...]
    without: tuple[str, ...]

    def __call__(self, photo_id: str) -> list[NamedBox]:
        """Its boxes, faults and all; none where no file tells of it."""
        return self.by_photo.get(photo_id, [])


def open_boxed(settings: DataSettings) -> Data:
    """The photos below a folder that have boxes, split three ways; a photo's class is that with most box area.

    Raises:
        VerydeepError: no such folder or file, an image's name that several photos have, boxes of no photo at all.
    """
    root = Path(settings.data)
    if not root.is_dir():
        raise VerydeepError(f"with boxes the data are a folder of photos, and {root} is none: give that folder.")
    photos, ignored = photos_below(root)
    boxes = _matched(root, [str(PurePosixPath(photo.relative_to(root))) for photo in photos], settings.boxes)
    ids = tuple(sorted(boxes.by_photo))
    names = [_main_class(boxes.by_photo[photo]) for photo in ids]
    classes = tuple(sorted(set(names)))
    labels = np.array([classes.index(name) for name in names], dtype=np.int64)
    whole = Dataset(str(root), root.name, classes, ids, labels, PhotoReader(root), ignored, find_boxes=boxes)
    return split_whole(whole, settings)


def _matched(root: Path, photos: list[str], places: tuple[str, ...]) -> PhotoBoxes:
    """The boxes of all places by the photos that their names stand for."""
    by_path, by_name = _Names.of(photos, whole=True), _Names.of(photos, whole=False)
    found: ByImage = defaultdict(list)
    unmatched = []
    for place in places:
        folder, equals, file = place.rpartition("=")
        if equals and not (root / folder).is_dir():
            raise VerydeepError(f"{root} has no folder {folder}, from which the names in {file} would count.")
        for image, boxes in read_boxes(Path(file)).items():
            photo = by_path.one(str(PurePosixPath(folder) / image), file)
            photo = by_name.one(image, file) if photo is None and not equals else photo
            if photo is None:
                unmatched.append(image)
            elif boxes:
                found[photo] += boxes
    if not found:
        first = f" (the first is {unmatched[0]})" if unmatched else ""
        raise VerydeepError(
            f"the boxes name no photo below {root}{first}: give the folder that their names "
            f"count from as --data, or as FOLDER=FILE below it."
        )
    return PhotoBoxes(dict(found), tuple(unmatched), tuple(photo for photo in photos if photo not in found))


@dataclass(frozen=True)
class _Names:
    """Photos by a name they can be called by, with or without its extension."""

    photos: dict[str, list[str]]

    @staticmethod
    def of(photos: list[str], whole: bool) -> _Names:
        """By their path below the data's folder where ``whole``, else by their bare name."""
        found = defaultdict(list)
        for photo in photos:
            called = photo if whole else PurePosixPath(photo).name
            for name in {called, str(PurePosixPath(called).with_suffix(""))}:
                found[name].append(photo)
        return _Names(dict(found))

    def one(self, name: str, file: str) -> str | None:
        """The photo of that name; None where there is none.

        Raises:
            VerydeepError: several photos have it.
        """
        several = self.photos.get(name, [])
        if len(several) > 1:
            raise VerydeepError(
                f"{file} names {name}, and {len(several)} photos are called so ({several[0]}, {several[1]}, …): write "
                "its path below the data's folder, or give FOLDER=FILE with the folder that its names count from."
            )
        return several[0] if several else None


def _main_class(boxes: list[NamedBox]) -> str:
    """The class with most area; among equals the first in the alphabet."""
    areas: dict[str, float] = defaultdict(float)
    for box in boxes:
        x1, y1, x2, y2 = box.xyxy  # swapped or not
        areas[box.name] += float(area([min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)]))
    return min(areas, key=lambda name: (-areas[name], name))
