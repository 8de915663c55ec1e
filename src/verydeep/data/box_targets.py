"""App. A, data: the annotated boxes of a set, checked image by image and corrected where that is safe.

Only boxes of the image's own class are used. An annotation may name the class by its name, its WNID, or a word of its
synset. Boxes annotated at another size of the same image are rescaled.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..core.errors import ImageError, VerydeepError
from ..core.progress import Reporter
from .boxes import clip
from .class_names import WNID, class_key, nfc
from .dataset import Dataset, NamedBox

# What may be wrong with a box or an image's boxes, and how it is corrected unless ``strict`` refuses it.
FAULTS = {
    "swapped": "box with swapped corners, corrected",
    "outside": "box that extends beyond the image, clipped",
    "away": "box outside the image, left out",
    "empty": "box without area, left out",
    "shape": "box annotated on an image of another shape, left out",
    "broken": "annotation that cannot be read, left out",
    "none": "image without a box of its class, left out",
    "unmatched": "box of an image that does not exist, left out",
    "without": "image that is not in the box files, left out",
}
NO_AREA = 1.0  # pixels: the largest side of a box that counts as empty, such as a slip of the mouse
SLACK = 1.0  # pixels that a box may extend beyond the image, from counting from 0 or from 1
SAME_SHAPE = 0.02  # relative difference of aspect ratios that rounding explains


@dataclass(frozen=True)
class Located:
    """A set whose images all have boxes, and the images with faults by their kind (see `FAULTS`)."""

    dataset: Dataset
    faults: dict[str, list[str]]


def located(dataset: Dataset, strict: bool, reporter: Reporter) -> Located:
    """The images of a set that have a box of their class, with these boxes.

    Args:
        strict: any fault is an error; else boxes are corrected or left out, and all faults are reported.

    Raises:
        VerydeepError: the set has no boxes at all, or with ``strict`` a fault; the message names the first image.
    """
    if dataset.find_boxes is None:
        raise VerydeepError(f"{dataset.name} has no boxes: name their files with --boxes.")
    faults: dict[str, list[str]] = {name: [] for name in FAULTS}
    kept, boxes = [], []
    if dataset.set_name != "dev":  # faults of files are reported once, with the training or test images
        for name in ("broken", "unmatched", "without"):
            faults[name] += getattr(dataset.find_boxes, name, ())
        for line in getattr(dataset.find_boxes, "skipped", ()):  # not a fault: usual in COCO's files
            reporter.say(f"boxes: {line}")
    with reporter.track(f"boxes of the {dataset.set_name} images", len(dataset)) as advance:
        for index in range(len(dataset)):
            image_boxes = _boxes_of(dataset, index, faults)
            advance(1, "")
            if len(image_boxes):
                kept.append(index)
                boxes.append(image_boxes)
            else:
                faults["none"].append(dataset.where(index))
    faults = {name: images for name, images in faults.items() if images}
    lines = [
        f"{len(images)} times: {FAULTS[name]}; {images[0]}" + (f" and {len(images) - 1} more" if images[1:] else "")
        for name, images in faults.items()
    ]
    if strict and lines:
        raise VerydeepError(f"{dataset.name} ({dataset.set_name}): {lines[0]}; fix it, or run without --strict.")
    for line in lines:
        reporter.warn(f"{dataset.set_name}: {line}")
    if not kept:
        raise VerydeepError(f"no {dataset.set_name} image of {dataset.name} has a box of its class.")
    return Located(replace(dataset.take(np.array(kept, dtype=np.int64)), boxes=tuple(boxes)), faults)


def _boxes_of(dataset: Dataset, index: int, faults: dict[str, list[str]]) -> NDArray[np.float64]:
    """The image's boxes of its class, corrected, (n,4)."""
    assert dataset.find_boxes is not None
    where, title = dataset.where(index), dataset.classes[int(dataset.labels[index])]
    try:
        named = [box for box in dataset.find_boxes(dataset.ids[index]) if _is_class(title, box.name)]
    except VerydeepError:
        faults["broken"].append(where)
        return np.zeros((0, 4))
    try:
        size = dataset.size(index)
    except ImageError:  # reported when the images are read
        size = None
    boxes = [box for box in (_corrected(box, size, where, faults) for box in named) if box is not None]
    return np.array(boxes, dtype=np.float64).reshape(-1, 4)


def _is_class(title: str, name: str) -> bool:
    """Whether an annotation's name means the class: its name, its WNID, or a word of its synset."""
    if class_key(name) == class_key(title):
        return True
    wnid, _, words = nfc(title).partition(" ")
    return WNID.fullmatch(wnid) is not None and nfc(name).replace("_", " ") in words.split(", ")


def _corrected(
    box: NamedBox, size: tuple[int, int] | None, where: str, faults: dict[str, list[str]]
) -> NDArray[np.float64] | None:
    """A box within its image; None if nothing is left of it."""
    x1, y1, x2, y2 = box.xyxy
    if box.swapped:
        faults["swapped"].append(where)
    corners = np.array([min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)])
    if min(corners[2:] - corners[:2]) <= NO_AREA:
        faults["empty"].append(where)
        return None
    if size is None:
        return corners
    if box.size is not None and box.size != size:
        scale = np.array([size[1] / box.size[1], size[0] / box.size[0]])
        if abs(scale[0] / scale[1] - 1) > SAME_SHAPE + 1 / min(size) + 1 / min(box.size):
            faults["shape"].append(where)
            return None
        corners = corners * np.tile(scale, 2)
    inside = clip(corners, *size)
    if min(inside[2:] - inside[:2]) <= NO_AREA / 2:
        faults["away"].append(where)
        return None
    if np.abs(inside - corners).max() > SLACK:
        faults["outside"].append(where)
    return inside
