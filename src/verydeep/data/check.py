"""Checks data before training: unreadable images, class balance, sizes, duplicates, samples."""

from __future__ import annotations

import contextlib
import hashlib
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from ..core.config import STRIDE, from_json
from ..core.device import ONE_BY_ONE, LoaderSettings
from ..core.errors import VerydeepError
from ..core.progress import Collected, Reporter, Silent
from ..core.settings import DataSettings, TrainSettings
from ..core.terminal import default_reporter
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


def _size_and_digest(pixels: Pixels) -> tuple[int, int, str]:
    """An image's height, width and a digest of its pixels."""
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
    exclude: str | None = None,
) -> dict[str, Any]:
    """Reads every image of every set once and reports what is wrong, as JSON values.

    Keys: ``data``, ``classes``; ``split``: where the sets come from, as text; ``notes``: how ambiguous folders were
    interpreted; ``ignored``: the number of skipped files and folders, ``skipped``: by kind their ``count`` and the
    ``first``; ``unread``: a message for each image format that is not supported; ``sets``: number of images, class
    balance and smallest sides of each; ``faults``: image and message; ``duplicates``: lists of ``set/photo`` of equal
    pixels; ``box_faults``: messages on faulty boxes; ``boxes``: the first three as read, in the file's own pixels;
    ``boxes_skipped``: messages on annotations without a box, which are not faults.

    Raises:
        VerydeepError: the data cannot be opened.
    """
    settings = from_json(
        DataSettings, {"data": data, "classes": classes, "boxes": boxes, "folders": folders, "exclude": exclude}
    )
    opened = open_data(settings, least_classes=1 if settings.boxes else 2, several=True)
    faults: list[dict[str, str]] = []
    pictures: dict[str, list[str]] = defaultdict(list)
    sets = {}
    for name, dataset in opened.sets.items():
        sides = _read_all(name, dataset, faults, pictures, readers, reporter or default_reporter())
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
        **_check_boxes(list(opened.sets.values())),
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
    """The smallest side of each image; adds unreadable images to ``faults``, and each digest's to ``pictures``."""
    sides: list[int] = []
    with reporter.track(f"reading the {name} images", len(dataset)) as advance:
        for index, item in each_photo(dataset, _size_and_digest, readers):
            advance(1, "")
            if isinstance(item, Fault):
                faults.append({"set": name, "photo": dataset.where(index), "fault": item.message})
                continue
            height, width, digest = item
            sides.append(min(height, width))
            pictures[digest].append(f"{name}: {dataset.where(index)}")
    return sides


def _check_boxes(datasets: list[Dataset]) -> dict[str, Any]:
    """The faults of all sets' boxes, and the first boxes; computed images have no faults."""
    first, faults = datasets[0], list[str]()
    for dataset in datasets:
        if dataset.find_boxes is not None and dataset.source.root is not None:
            reporter = Collected()
            try:
                located(dataset, False, reporter)
                faults += reporter.warnings
            except VerydeepError as fault:
                faults += [*reporter.warnings, str(fault)]
    skipped = list(getattr(first.find_boxes, "skipped", ()))
    return {"box_faults": faults, "boxes": _first_boxes(first), "boxes_skipped": skipped}


def _first_boxes(dataset: Dataset) -> list[dict[str, Any]]:
    """The first three boxes of a file, or of the set's images; none of computed images."""
    if dataset.find_boxes is None or dataset.source.root is None:
        return []
    rows: list[dict[str, Any]] = []
    for image_id in getattr(dataset.find_boxes, "by_photo", dataset.ids):
        with contextlib.suppress(VerydeepError):  # it is among the faults
            for box in dataset.find_boxes(image_id):
                corners = zip(("xmin", "ymin", "xmax", "ymax"), box.written or box.xyxy, strict=True)
                rows.append({"image": image_id, "class": box.name, **dict(corners)})
        if len(rows) >= FIRST_BOXES:
            break
    return rows[:FIRST_BOXES]


def _balance(opened: Data, name: str) -> dict[str, int]:
    """The number of images of each class."""
    marks = opened.sets[name].marks
    if marks is not None:
        return dict(zip(opened.classes, (marks == 1).sum(axis=0).tolist(), strict=True))
    counts = Counter(opened.sets[name].labels.tolist())
    return {label: counts.get(number, 0) for number, label in enumerate(opened.sets[name].classes)}


def _spread(values: list[int]) -> list[int] | None:
    """Minimum, median and maximum; None without values."""
    return [min(values), int(np.median(values)), max(values)] if values else None


def sample_crops(data: str, settings: TrainSettings, photos: int, **given: Any) -> list[tuple[Pixels, str]]:
    """Random crops of training images as the net sees them, mirrored and shifted in colour, with class names.

    ``given`` are other fields of DataSettings.
    """
    few = open_data(from_json(DataSettings, {"data": data, **given})).set("train").evenly(photos)
    scan = scan_images(few, settings.S.smallest, ONE_BY_ONE, Silent())
    return [(pixels, name) for pixels, name, _ in crops_of(scan.dataset, settings, scan.colour_axes)]


def crops_of(
    dataset: Dataset, settings: TrainSettings, colour_axes: NDArray[np.float64], targets: BoxTargets | None = None
) -> list[tuple[Pixels, str, NDArray[np.float32]]]:
    """A random crop of each image as in the first epoch of training, its class, and its target.

    The target is cxcywh (4,) in fractions of the crop's side, or (0,) without ``targets``.

    Raises:
        ImageError: an image cannot be read.
    """
    loader = TrainingLoader(dataset, settings, colour_axes, 1, ONE_BY_ONE, targets)
    crops: list[tuple[Pixels, str, NDArray[np.float32]]] = []
    for batch in loader.epoch(0):
        images = batch.images if batch.cells is None else _windows(batch.images, batch.cells, settings.crop)
        pixels = (images.float() + batch.shift[:, :, None, None]).round().clamp(0, 255).byte()
        names = [dataset.classes[label] for label in batch.labels.tolist()]
        crops.extend(zip(pixels.permute(0, 2, 3, 1).numpy(), names, batch.boxes.numpy(), strict=True))
    return crops


def _windows(images: Tensor, cells: Tensor, crop: int) -> Tensor:
    """The pixels of each image's cell, uint8 (B,3,crop,crop), black beyond the image."""
    extended = pad(images, (0, crop, 0, crop))
    corners = (cells * STRIDE).tolist()
    return torch.stack([image[:, y : y + crop, x : x + crop] for image, (y, x) in zip(extended, corners, strict=True)])
