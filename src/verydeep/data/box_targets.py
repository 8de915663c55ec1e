"""App. A, data: a set's boxes as an annotation tells them, checked photo by photo, mended where that is safe.

Only boxes of the photo's own class count. A file's name for a class may be the class's name, its WNID, or one of
the words of its synset. Corners that are of another size of the same photo are rescaled to it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from ..core.errors import ImageError, VerydeepError
from ..core.progress import Reporter
from .boxes import clip
from .class_names import WNID, class_key, nfc
from .dataset import Dataset, NamedBox

# What may be wrong, and what is done about it unless ``strict`` refuses it.
FAULTS = {
    "swapped": "a box with swapped corners: put right",
    "outside": "a box that reaches outside the photo: cut at its edge",
    "away": "a box that lies outside the photo: left out",
    "empty": "a box without area: left out",
    "shape": "a box of a photo of another shape: left out",
    "broken": "an annotation that cannot be read: left out",
    "none": "no box of its class: the photo is left out",
    "unmatched": "a box of a photo that is not there: left out",
    "without": "a photo that no box file names: left out",
}
NO_AREA = 1.0  # pixels: a side of no more is a slip of the mouse, or a row of a file whose corners are equal
SLACK = 1.0  # pixels beyond an edge that files reach by counting from 0 or from 1
SAME_SHAPE = 0.02  # relative difference of two ratios of sides that rounding explains


@dataclass
class _Faults:
    """Photos by what is wrong with their boxes."""

    found: dict[str, list[str]] = field(default_factory=lambda: {name: [] for name in FAULTS})

    def lines(self) -> list[str]:
        """A line for each kind of fault there is."""
        return [
            f"{len(photos)} times {FAULTS[name]}; {photos[0]}" + (f" and {len(photos) - 1} more" if photos[1:] else "")
            for name, photos in self.found.items()
            if photos
        ]


@dataclass(frozen=True)
class Located:
    """A set whose photos all have boxes, and the photos with faults by their kind (see `FAULTS`)."""

    dataset: Dataset
    faults: dict[str, list[str]]


def located(dataset: Dataset, strict: bool, reporter: Reporter) -> Located:
    """The photos of a set that have a box of their class, with these boxes.

    Args:
        strict: any fault is an error; else what is safe is mended, and all is counted and told.

    Raises:
        VerydeepError: the set has no boxes at all, or with ``strict`` a fault; the sentence names the first photo.
    """
    if dataset.find_boxes is None:
        raise VerydeepError(f"{dataset.name} has no boxes: name their files with --boxes.")
    faults, kept, boxes = _Faults(), [], []
    if dataset.set_name != "dev":  # what is of no set is told once, with the others' training photos or when tested
        for name in ("broken", "unmatched", "without"):
            faults.found[name] += getattr(dataset.find_boxes, name, ())
        for line in getattr(dataset.find_boxes, "skipped", ()):  # no fault: files of COCO's are so
            reporter.say(f"boxes: {line}")
    with reporter.track(f"boxes of the {dataset.set_name} photos", len(dataset)) as advance:
        for index in range(len(dataset)):
            found = _boxes_of(dataset, index, faults.found)
            advance(1, "")
            if len(found):
                kept.append(index)
                boxes.append(found)
            else:
                faults.found["none"].append(dataset.where(index))
    lines = faults.lines()
    if strict and lines:
        raise VerydeepError(f"{dataset.name} ({dataset.set_name}): {lines[0]}; fix it, or run without --strict.")
    for line in lines:
        reporter.warn(f"{dataset.set_name}: {line}")
    if not kept:
        raise VerydeepError(f"no {dataset.set_name} photo of {dataset.name} has a box of its class.")
    chosen = dataset.take(np.array(kept, dtype=np.int64))
    told = {name: photos for name, photos in faults.found.items() if photos}
    return Located(replace(chosen, boxes=tuple(boxes)), told)


def _boxes_of(dataset: Dataset, index: int, faults: dict[str, list[str]]) -> NDArray[np.float64]:
    """The photo's boxes of its class, mended, (n,4)."""
    assert dataset.find_boxes is not None
    where, title = dataset.where(index), dataset.classes[int(dataset.labels[index])]
    try:
        named = [box for box in dataset.find_boxes(dataset.ids[index]) if _is_class(title, box.name)]
    except VerydeepError:
        faults["broken"].append(where)
        return np.zeros((0, 4))
    try:
        size = dataset.size(index)
    except ImageError:  # told, with all other photos that cannot be read, by who reads them
        size = None
    mended = [box for box in (_mended(box, size, where, faults) for box in named) if box is not None]
    return np.array(mended, dtype=np.float64).reshape(-1, 4)


def _is_class(title: str, name: str) -> bool:
    """Whether a box's name stands for the class: its name, its WNID, or a word of its synset."""
    if class_key(name) == class_key(title):
        return True
    wnid, _, words = nfc(title).partition(" ")
    return WNID.fullmatch(wnid) is not None and nfc(name).replace("_", " ") in words.split(", ")


def _mended(
    box: NamedBox, size: tuple[int, int] | None, where: str, faults: dict[str, list[str]]
) -> NDArray[np.float64] | None:
    """One box within its photo; None where nothing is left of it."""
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
