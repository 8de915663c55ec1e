"""App. A, data: own photos whose classes and boxes are told by box files, and not by folders.

``boxes`` lists files or folders of boxes, each, if wished, after the folder its names count from:
``boxes.csv``, ``Annotations/``, ``airplanes=airplane.csv,Faces=face.csv``. An image is found by its path below
that folder, with or without its extension, or by its bare name where one photo alone has it.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from ...core.config import LARGEST_SIDE
from ...core.errors import ImageError, VerydeepError
from ...core.settings import DataSettings
from ..annotations import ByImage, read_boxes
from ..boxes import area, clip
from ..class_names import numbered, one_spelling
from ..dataset import Data, Dataset, FolderSource, NamedBox
from ..image_io import image_size
from ..walk import Skipped, files_below
from .folder import split_whole


@dataclass(frozen=True)
class PhotoBoxes:
    """The boxes of each photo by its id; and names that are no photo's, photos that no file names, broken files."""

    by_photo: dict[str, list[NamedBox]]
    unmatched: tuple[str, ...]
    without: tuple[str, ...]
    broken: tuple[str, ...]
    skipped: tuple[str, ...] = ()  # lines on annotations without a box

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
    skipped = Skipped(str(root))
    photos = files_below(root, skipped)
    boxes = _matched(root, [str(PurePosixPath(photo.relative_to(root))) for photo in photos], settings.boxes)
    ids = tuple(sorted(boxes.by_photo))
    names = [_main_class(boxes.by_photo[photo], root / photo) for photo in ids]
    classes, labels = numbered(names)
    whole = Dataset(str(root), root.name, classes, ids, labels, FolderSource(root), skipped, find_boxes=boxes)
    return split_whole(whole, settings)


def _matched(root: Path, photos: list[str], places: tuple[str, ...]) -> PhotoBoxes:
    """The boxes of all places by the photos that their names stand for."""
    by_path, by_name = _Names.of(photos, whole=True), _Names.of(photos, whole=False)
    found: ByImage = defaultdict(list)
    unmatched, broken, skipped = [], [], []
    for place in places:
        folder, file = parted(place)
        if folder and not (root / folder).is_dir():
            raise VerydeepError(f"{root} has no folder {folder}, from which the names in {file} would count.")
        found_here, torn, boxless = read_boxes(Path(file))
        broken += torn
        skipped += boxless
        for image, boxes in found_here.items():
            names = [image, image.replace("\\", "/")]  # as the file has it, or as Windows writes paths
            photo = next(filter(None, (_photo_of(name, folder, file, by_path, by_name) for name in names)), None)
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
    without = tuple(photo for photo in photos if photo not in found)
    called = one_spelling(box.name for boxes in found.values() for box in boxes)
    for boxes in found.values():
        boxes[:] = [replace(box, name=called[box.name]) for box in boxes]
    return PhotoBoxes(dict(found), tuple(unmatched), without, tuple(broken), tuple(skipped))


def _photo_of(image: str, folder: str, file: str, by_path: _Names, by_name: _Names) -> str | None:
    photo = by_path.one(str(PurePosixPath(folder) / image), file)
    return by_name.one(image, file) if photo is None and not folder else photo


def parted(place: str) -> tuple[str, str]:
    """``FOLDER=FILE`` as folder and file; what is a file as it stands has no folder.

    Raises:
        VerydeepError: it names no file.
    """
    folder, equals, file = place.partition("=")
    if not equals or Path(place).exists():
        folder, file = "", place
    if not file:
        raise VerydeepError(f"boxes {place!r} name no file: give FILE, or FOLDER=FILE.")
    return folder, file


@dataclass(frozen=True)
class _Names:
    """Photos by a name they can be called by, with or without its extension."""

    photos: dict[str, list[str]]

    @staticmethod
    def of(photos: list[str], whole: bool) -> _Names:
        """By their path below the data's folder where ``whole``, else by their bare name."""
        exact, stems = defaultdict(list), defaultdict(list)
        for photo in photos:
            called = photo if whole else PurePosixPath(photo).name
            exact[called].append(photo)
            stems[str(PurePosixPath(called).with_suffix(""))].append(photo)
        return _Names({**stems, **exact})

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


def _main_class(boxes: list[NamedBox], photo: Path) -> str:
    """The class with most area in the photo; among equals the first in the alphabet."""
    areas: dict[str, float] = {box.name: 0.0 for box in boxes}
    if len(areas) == 1:
        return boxes[0].name
    try:
        height, width = image_size(photo)
    except ImageError:  # told by who reads the photos
        height, width = LARGEST_SIDE, LARGEST_SIDE
    for box in boxes:
        x1, y1, x2, y2 = box.xyxy  # swapped or not
        areas[box.name] += float(area(clip([min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)], height, width)))
    return min(areas, key=lambda name: (-areas[name], name))
