"""Sect. 3.1: a scan of all training images before epoch 1: which are readable, and the statistics of their colours.

The mean RGB value and the axes of the colour shift are those of the pixels of the training images, rescaled to the
smallest training scale, with equal weight for each image.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ..core.device import LoaderSettings
from ..core.errors import ImageError
from ..core.progress import Reporter
from ..core.team import Team
from .dataloader import each_photo
from .dataset import Dataset
from .image_io import Pixels
from .transforms import colour_statistics, pixel_sums, rescale
from .workers import Fault


def _rescaled_sums(pixels: Pixels, smallest: int) -> NDArray[np.float64]:
    """An image's `pixel_sums` (12,) after rescaling to the smallest side."""
    return pixel_sums(rescale(pixels, smallest))


@dataclass(frozen=True)
class ImageScan:
    """A scanned set: only readable images, and the faults of the others, by id."""

    dataset: Dataset
    mean: NDArray[np.float64]
    colour_axes: NDArray[np.float64]
    faults: dict[str, str]


def scan_images(
    dataset: Dataset, smallest: int, readers: LoaderSettings, reporter: Reporter, team: Team | None = None
) -> ImageScan:
    """Reads every image of a set once, each process of a team its share.

    Raises:
        ImageError: none can be read.
    """
    team = team or Team()
    share = team.shard(len(dataset))
    sums = np.zeros(12)
    broken: dict[int, str] = {}
    with reporter.track(f"reading the {dataset.set_name} images", len(share)) as advance:
        images, work = dataset.take(np.array(share, dtype=np.int64)), partial(_rescaled_sums, smallest=smallest)
        for place, item in each_photo(images, work, readers):
            if isinstance(item, Fault):
                broken[share[place]] = item.message
            else:
                sums += item
            advance(1, "")
    shares = team.all_gather((sums, broken))
    sums = sum((part for part, _ in shares), np.zeros(12))
    messages = {index: message for _, part in shares for index, message in part.items()}
    readable = [index for index in range(len(dataset)) if index not in messages]
    faults = {dataset.ids[index]: message for index, message in messages.items()}
    if not readable:
        raise ImageError(f"none of the {len(dataset)} images can be read; the first: {next(iter(faults.values()))}")
    mean, axes = colour_statistics(sums / len(readable))
    kept = dataset if not faults else dataset.take(np.array(readable, dtype=np.int64))
    return ImageScan(kept, mean, axes, faults)


def check_readable(faults: dict[str, str], skip: bool, reporter: Reporter) -> None:
    """Raises ImageError for the first unreadable image, or with ``skip`` warns about each."""
    if faults and not skip:
        first, *others = faults.values()
        more = f" {len(others)} more cannot be read either: `verydeep data check` lists them." if others else ""
        raise ImageError(f"{first}{more} Fix or remove them, or train with --bad-images skip.")
    for message in faults.values():
        reporter.warn(f"skipped: {message}")
