"""App. A, data: own images with classes and boxes from annotation files (`verydeep.data.annotations`).

``boxes`` lists files or folders of boxes, each optionally after the folder that its names are relative to:
``boxes.csv``, ``Annotations/``, ``airplanes=airplane.csv,Faces=face.csv``. An image is found by its path below that
folder, with or without its extension, or by its file name if it is unique.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
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
    """The boxes of each image by its id; names without an image, images that no file names, and broken files."""

    by_photo: dict[str, list[NamedBox]]
    unmatched: tuple[str, ...]
    without: tuple[str, ...]
    broken: tuple[str, ...]
    skipped: tuple[str, ...] = ()  # messages on annotations without a box

    def __call__(self, photo_id: str) -> list[NamedBox]:
        """The image's boxes, unchecked; empty if no file names it."""
        return self.by_photo.get(photo_id, [])


def open_boxed(settings: DataSettings) -> Data:
    """The images below a folder that have boxes, split at random; an image's class is that with most box area.

    Raises:
        VerydeepError: no such folder or file, an ambiguous name, no image with boxes.
    """
    root = Path(settings.data)
    if not root.is_dir():
        raise VerydeepError(f"with boxes the data must be a folder of images, and {root} is not a folder.")
    skipped = Skipped(str(root))
    images = [str(PurePosixPath(image.relative_to(root))) for image in files_below(root, skipped)]
    boxes = _match_boxes(root, images, settings.boxes)
    ids = tuple(sorted(boxes.by_photo))
    classes, labels = numbered([_main_class(boxes.by_photo[image], root / image) for image in ids])
    dataset = Dataset(str(root), root.name, classes, ids, labels, FolderSource(root), skipped, find_boxes=boxes)
    return split_whole(dataset, settings)


def _match_boxes(root: Path, images: list[str], places: tuple[str, ...]) -> PhotoBoxes:
    """The boxes of all files by the images that their names mean."""
    by_path, by_name = _by_name(images, lambda path: path), _by_name(images, lambda path: PurePosixPath(path).name)
    by_image: ByImage = defaultdict(list)
    unmatched, broken, skipped = [], [], []
    for place in places:
        folder, file = parted(place)
        if folder and not (root / folder).is_dir():
            raise VerydeepError(f"{root} has no folder {folder}, to which {file} says its image names are relative.")
        in_file, broken_files, without_box = read_boxes(Path(file))
        broken += broken_files
        skipped += without_box
        for written, boxes in in_file.items():
            image = None
            for name in (written, written.replace("\\", "/")):  # as in the file, or as a path of Windows
                image = image or _unique(by_path, str(PurePosixPath(folder) / name), file)
                image = image or (None if folder else _unique(by_name, name, file))
            if image is None:
                unmatched.append(written)
            elif boxes:
                by_image[image] += _in_pixels(boxes, root / image)
    if not by_image:
        first = f" (the first is {unmatched[0]})" if unmatched else ""
        raise VerydeepError(
            f"none of the images in the box files is below {root}{first}: pass the folder to which their "
            "names are relative as --data, or as FOLDER=FILE below it."
        )
    without = tuple(image for image in images if image not in by_image)
    spelling = one_spelling(box.name for boxes in by_image.values() for box in boxes)
    for boxes in by_image.values():
        boxes[:] = [replace(box, name=spelling[box.name]) for box in boxes]
    return PhotoBoxes(dict(by_image), tuple(unmatched), without, tuple(broken), tuple(skipped))


def _in_pixels(boxes: list[NamedBox], photo: Path) -> list[NamedBox]:
    """The boxes with the corners of relative ones in pixels of the image."""
    if not any(box.relative for box in boxes):
        return boxes
    try:
        height, width = image_size(photo)
    except ImageError:  # reported when the images are read
        height, width = LARGEST_SIDE, LARGEST_SIDE
    scaled = []
    for box in boxes:
        x1, y1, x2, y2 = box.xyxy
        scaled.append(replace(box, xyxy=(x1 * width, y1 * height, x2 * width, y2 * height), relative=False))
    return scaled


def parted(place: str) -> tuple[str, str]:
    """``FOLDER=FILE`` as folder and file; an existing file of that name has no folder.

    Raises:
        VerydeepError: it names no file.
    """
    folder, equals, file = place.partition("=")
    if not equals or Path(place).exists():
        folder, file = "", place
    if not file:
        raise VerydeepError(f"--boxes {place!r} names no file: pass FILE, or FOLDER=FILE.")
    return folder, file


def _by_name(images: list[str], name_of: Callable[[str], str]) -> dict[str, list[str]]:
    """Images by a name, with or without its extension."""
    exact, stems = defaultdict(list), defaultdict(list)
    for image in images:
        name = name_of(image)
        exact[name].append(image)
        stems[str(PurePosixPath(name).with_suffix(""))].append(image)
    return {**stems, **exact}


def _unique(images: dict[str, list[str]], name: str, file: str) -> str | None:
    """The image of a name, None if there is none; raises VerydeepError if there are several."""
    several = images.get(name, [])
    if len(several) > 1:
        raise VerydeepError(
            f"{file} names {name}, which {len(several)} images are called ({several[0]}, {several[1]}, …): use "
            "its path below the data's folder, or FOLDER=FILE with the folder that its names are relative to."
        )
    return several[0] if several else None


def _main_class(boxes: list[NamedBox], photo: Path) -> str:
    """The class with most area in the image; among equals the first in alphabetical order."""
    areas: dict[str, float] = {box.name: 0.0 for box in boxes}
    if len(areas) == 1:
        return boxes[0].name
    try:
        height, width = image_size(photo)
    except ImageError:  # reported when the images are read
        height, width = LARGEST_SIDE, LARGEST_SIDE
    for box in boxes:
        x1, y1, x2, y2 = box.xyxy  # perhaps swapped
        areas[box.name] += float(area(clip([min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)], height, width)))
    return min(areas, key=lambda name: (-areas[name], name))
