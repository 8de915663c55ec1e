"""Groups of images that are not independent, as those of one animal, video or patient, stay in one part of a split.

The group is in a column of the list file, or a regular expression finds it in an image's path: its first parenthesis,
or else all of its match. Groups are the `subjects` of a `Dataset`, so that intervals and tests count them too.
"""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np

from ..core.errors import VerydeepError
from .dataset import Dataset


def with_groups(sets: dict[str, Dataset], group_by: str | None) -> dict[str, Dataset]:
    """The sets with the group of each image as its subject, equal for groups of the same name in several sets.

    Args:
        group_by: the pattern; None, or sets that have subjects already, change nothing.

    Raises:
        VerydeepError: an invalid pattern, or one that an image's path does not match.
    """
    if group_by is None or any(dataset.subjects is not None for dataset in sets.values()):
        return sets
    try:
        pattern = re.compile(group_by)
    except (re.error, RecursionError, OverflowError) as fault:
        raise VerydeepError(f"--group-by {group_by!r} is not a regular expression ({fault}).") from None
    names = {image: _group(pattern, image) for dataset in sets.values() for image in dataset.ids}
    without = [image for image, name in names.items() if name is None]
    if without:
        raise VerydeepError(
            f"--group-by {group_by!r} is not a column of a list file, and as a pattern it does not match the paths of "
            f"{len(without)} of {len(names)} images, such as {without[0]}."
        )
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names.values()))}
    return {
        key: replace(dataset, subjects=np.array([numbers[names[image]] for image in dataset.ids], dtype=np.int64))
        for key, dataset in sets.items()
    }


def _group(pattern: re.Pattern[str], image: str) -> str | None:
    match = pattern.search(image)
    return None if match is None else match[min(1, pattern.groups)]


def group_notes(train: Dataset, others: dict[str, Dataset], group_by: str | None) -> tuple[str, ...]:
    """A message for each set of its own that shares groups with the training images."""
    if group_by is None:
        return ()
    shared = {name: len(np.intersect1d(train.groups, dataset.groups)) for name, dataset in others.items()}
    return tuple(
        f"{count} groups of --group-by {group_by} are in train and in {name}" for name, count in shared.items() if count
    )


def described_split(dataset: Dataset, group_by: str | None) -> str:
    """How images are drawn, for the description of a split."""
    if group_by is None:
        return ""
    return f", in whole groups ({len(np.unique(dataset.groups))} by --group-by {group_by})"
