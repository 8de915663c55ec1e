"""A look at data before anything is trained on them: faults, balance, sizes, duplicates, samples."""

from __future__ import annotations

import contextlib
import hashlib
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.config import from_json
from ..core.device import ONE_BY_ONE, LoaderSettings
from ..core.errors import VerydeepError
from ..core.progress import Collected, Reporter, Silent
from ..core.settings import DataSettings, TrainSettings
from .box_targets import located
from .dataloader import BoxTargets, TrainingLoader, each_photo
from .dataset import Dataset
from .image_io import Pixels
from .open import Data, open_data
from .statistics import scan_images
from .transforms import check_ratio
from .walk import unread_sentences
from .workers import Fault

FIRST_BOXES = 3


@dataclass(frozen=True)
class Imprint:
    """A photo's height, width and a digest of its pixels."""

    def __call__(self, pixels: Pixels) -> tuple[int, int, str]:
        """Equal digests are equal pictures, however their files were written."""
        check_ratio(pixels.shape)
        digest = hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).hexdigest()
        return pixels.shape[0], pixels.shape[1], digest


def check_data(
    data: str | Path = "digits",
    classes: str | tuple[str, ...] = (),
    boxes: str | tuple[str, ...] = (),
    readers: LoaderSettings = ONE_BY_ONE,
    reporter: Reporter | None = None,
    folders: str = "auto",
) -> dict[str, Any]:
    """Reads every photo of every set once and tells what is wrong, as JSON values.

    Keys: ``data``, ``classes``; ``split``: where the sets come from, in words; ``notes``: how what could be read in two
    ways was read; ``ignored``: how many files and folders were skipped, ``skipped``: by kind their
    ``count`` and the ``first``; ``unread``: a sentence for each image format that is not read; ``sets``: photos, class
    balance and smallest sides of each; ``faults``: photo and sentence; ``duplicates``: lists of ``set/photo`` showing
    the same picture; ``box_faults``: lines of what is wrong with boxes; ``boxes``: the first three as read, in the
    file's own pixels; ``boxes_skipped``: lines of annotations that have no box, which are no faults.

    Raises:
        VerydeepError: the data cannot be opened at all.
    """
    settings = from_json(DataSettings, {"data": data, "classes": classes, "boxes": boxes, "folders": folders})
    opened = open_data(settings, least_classes=1 if settings.boxes else 2, several=True)
    faults: list[dict[str, str]] = []
    pictures: dict[str, list[str]] = defaultdict(list)
    sets = {}
    for name, dataset in opened.sets.items():
        sides = _read_all(name, dataset, faults, pictures, readers, reporter or Silent())
        sets[name] = {"photos": len(dataset), "balance": _balance(opened, name), "smallest_side": _spread(sides)}
    return {
        "data": opened.name,
        "classes": list(opened.classes),
        "reported": opened.reported,
        "split": f"{opened.split}; {opened.reported} is reported",
        "notes": list(opened.notes),
        "ignored": opened.skipped.total,
        "skipped": opened.skipped.to_json(),
        "unread": unread_sentences(opened.skipped),
        "sets": sets,
        "faults": faults,
        "box_faults": [line for dataset in opened.sets.values() for line in _box_faults(dataset)],
        **_boxes_as_read(next(iter(opened.sets.values()))),
        "duplicates": sorted(photos for photos in pictures.values() if len(photos) > 1),
    }


def _read_all(
    name: str,
    dataset: Dataset,
    faults: list[dict[str, str]],
    pictures: dict[str, list[str]],
    readers: LoaderSettings,
    reporter: Reporter,
) -> list[int]:
    """The smallest side of each photo of a set; ``faults`` takes the unreadable ones, ``pictures`` who shows what."""
    sides: list[int] = []
    with reporter.track(f"reading the {name} photos", len(dataset)) as advance:
        for index, found in each_photo(dataset, Imprint(), readers):
            advance(1, "")
            if isinstance(found, Fault):
                faults.append({"set": name, "photo": dataset.where(index), "fault": found.message})
                continue
            sides.append(min(found[:2]))
            pictures[found[2]].append(f"{name}: {dataset.where(index)}")
    return sides


def _box_faults(dataset: Dataset) -> list[str]:
    """Lines on the boxes of real photos; scenes have theirs right."""
    if dataset.find_boxes is None or dataset.source.root is None:
        return []
    told = Collected()
    try:
        located(dataset, False, told)
    except VerydeepError as fault:
        return [*told.warnings, str(fault)]
    return told.warnings


def _boxes_as_read(dataset: Dataset) -> dict[str, Any]:
    return {"boxes": _first_boxes(dataset), "boxes_skipped": list(getattr(dataset.find_boxes, "skipped", ()))}


def _first_boxes(dataset: Dataset) -> list[dict[str, Any]]:
    """The first three boxes of a file, or of the set's photos; none of scenes."""
    if dataset.find_boxes is None or dataset.source.root is None:
        return []
    rows: list[dict[str, Any]] = []
    for photo in getattr(dataset.find_boxes, "by_photo", dataset.ids):
        with contextlib.suppress(VerydeepError):  # it is listed with the faults
            for box in dataset.find_boxes(photo):
                corners = zip(("xmin", "ymin", "xmax", "ymax"), box.written or box.xyxy, strict=True)
                rows.append({"image": photo, "class": box.name, **dict(corners)})
        if len(rows) >= FIRST_BOXES:
            break
    return rows[:FIRST_BOXES]


def _balance(opened: Data, name: str) -> dict[str, int]:
    """Photos of each class; without classes that are known, of none."""
    marks = opened.sets[name].marks
    if marks is not None:
        return dict(zip(opened.classes, (marks == 1).sum(axis=0).tolist(), strict=True))
    counts = Counter(opened.sets[name].labels.tolist())
    return {label: counts.get(number, 0) for number, label in enumerate(opened.sets[name].classes)}


def _spread(values: list[int]) -> list[int] | None:
    """Least, median and largest; None of nothing."""
    return [min(values), int(np.median(values)), max(values)] if values else None


def sample_crops(data: str, settings: TrainSettings, photos: int, **given: Any) -> list[tuple[Pixels, str]]:
    """What the net will see: random crops of training photos, with mirror and colour shift, and class names.

    ``given`` are other fields of DataSettings.
    """
    few = some_of(open_data(from_json(DataSettings, {"data": data, **given})).set("train"), photos)
    look = scan_images(few, settings.S.smallest, ONE_BY_ONE, Silent())
    return [(pixels, name) for pixels, name, _ in crops_of(look.dataset, settings, look.colour_axes)]


def some_of(dataset: Dataset, photos: int) -> Dataset:
    """At most so many photos of a set, evenly spread."""
    return dataset.take(np.linspace(0, len(dataset) - 1, min(photos, len(dataset))).astype(np.int64))


def crops_of(
    dataset: Dataset, settings: TrainSettings, colour_axes: NDArray[np.float64], targets: BoxTargets | None = None
) -> list[tuple[Pixels, str, NDArray[np.float32]]]:
    """A random crop of each photo as training shows it in its first epoch, its class, and its target.

    The target is cxcywh (4,) in shares of the crop's side, or (0,) without ``targets``.

    Raises:
        ImageError: a photo cannot be read.
    """
    loader = TrainingLoader(dataset, settings, colour_axes, 1, ONE_BY_ONE, targets)
    found: list[tuple[Pixels, str, NDArray[np.float32]]] = []
    for batch in loader.epoch(0):
        seen = (batch.images.float() + batch.shift[:, :, None, None]).round().clamp(0, 255).byte()
        names = [dataset.classes[label] for label in batch.labels.tolist()]
        found.extend(zip(seen.permute(0, 2, 3, 1).numpy(), names, batch.boxes.numpy(), strict=True))
    return found
