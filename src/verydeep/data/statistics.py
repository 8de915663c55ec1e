"""Sect. 3.1: one look at every training photo before epoch 1: can it be read, and what is its colour?

The mean RGB value and the axes of the colour shift are those of the training photos' pixels, rescaled
to the smallest training scale, each photo counting the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..core.device import LoaderSettings
from ..core.errors import ImageError
from ..core.progress import Reporter
from ..core.team import SingleProcess, Team
from .dataloader import each_photo
from .dataset import Dataset
from .image_io import Pixels
from .transforms import colour_statistics, pixel_sums, rescale
from .workers import Fault


@dataclass(frozen=True)
class ColourSums:
    """A photo's `pixel_sums` after rescaling to the smallest side."""

    smallest: int

    def __call__(self, pixels: Pixels) -> NDArray[np.float64]:
        """float64 (12,)."""
        return pixel_sums(rescale(pixels, self.smallest))


@dataclass(frozen=True)
class ImageScan:
    """A set after the look: only readable photos, and what was wrong with the others, by id."""

    dataset: Dataset
    mean: NDArray[np.float64]
    colour_axes: NDArray[np.float64]
    faults: dict[str, str]


def scan_images(
    dataset: Dataset, smallest: int, readers: LoaderSettings, reporter: Reporter, team: Team | None = None
) -> ImageScan:
    """Reads every photo of a set once, each process of a team its share.

    Raises:
        ImageError: none can be read.
    """
    team = team or SingleProcess()
    mine = team.shard(len(dataset))
    sums = np.zeros(12)
    broken: dict[int, str] = {}
    with reporter.track(f"reading the {dataset.set_name} photos", len(mine)) as advance:
        for place, found in each_photo(dataset.take(np.array(mine, dtype=np.int64)), ColourSums(smallest), readers):
            if isinstance(found, Fault):
                broken[mine[place]] = found.message
            else:
                sums += found
            advance(1, "")
    shares = team.all_gather((sums, broken))
    sums = sum((theirs for theirs, _ in shares), np.zeros(12))
    faults_at = {index: sentence for _, theirs in shares for index, sentence in theirs.items()}
    readable = [index for index in range(len(dataset)) if index not in faults_at]
    faults = {dataset.ids[index]: sentence for index, sentence in faults_at.items()}
    if not readable:
        raise ImageError(f"none of the {len(dataset)} photos can be read; the first: {next(iter(faults.values()))}")
    mean, axes = colour_statistics(sums / len(readable))
    kept = dataset if not faults else dataset.take(np.array(readable, dtype=np.int64))
    return ImageScan(kept, mean, axes, faults)


def check_readable(faults: dict[str, str], skip: bool, reporter: Reporter) -> None:
    """Refuses unreadable photos, or with ``skip`` warns of each.

    Raises:
        ImageError: there are some, and they are not to be skipped; the sentence names the first.
    """
    if faults and not skip:
        first, *others = faults.values()
        more = f" {len(others)} more cannot be read either: `verydeep data check` lists them." if others else ""
        raise ImageError(f"{first}{more} Fix or remove them, or train with --bad-images skip.")
    for sentence in faults.values():
        reporter.warn(f"skipped: {sentence}")
