"""Caltech-101 and Caltech-256 by the paper's protocol (App. B).

Of each class 30 images are for training and up to 50 for testing (60 and the rest for Caltech-256), in a random split
by ``split_seed``; a fifth of the training images is the ``dev`` set.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from ...core.errors import VerydeepError
from ...core.settings import DataSettings, dev_share
from ..dataset import Data, Dataset, split
from .folder import class_folders

NAMES = ("caltech101", "caltech256")

FOLDERS = {"caltech101": "101_ObjectCategories", "caltech256": "256_ObjectCategories"}
TRAIN_PHOTOS = {"caltech101": 30, "caltech256": 60}
TEST_PHOTOS = {"caltech101": 50, "caltech256": 1_000_000}
DEV_SHARE = 0.2


def open_named(name: str, root: Path | None, settings: DataSettings) -> Data:
    """Caltech-101 or -256 in a folder, or in its ``1??_ObjectCategories``.

    Raises:
        VerydeepError: a class has too few images for the split.
    """
    assert root is not None
    folder = root / FOLDERS[name] if (root / FOLDERS[name]).is_dir() else root
    unsplit = replace(class_folders(folder, folder), name=name)
    return Data(name, caltech_sets(name, unsplit, settings), split_by_us=False, unsplit=unsplit)


def caltech_sets(name: str, whole: Dataset, settings: DataSettings) -> dict[str, Dataset]:
    """The sets ``train``, ``dev`` and ``test`` of a random split; raises VerydeepError if a class is too small."""
    learn = TRAIN_PHOTOS[name]
    counts = np.bincount(whole.labels, minlength=len(whole.classes))
    if counts.min() <= learn:
        few = whole.classes[int(counts.argmin())]
        raise VerydeepError(f"class {few!r} of {name} has {counts.min()} images; the split needs more than {learn}.")
    parts = split(whole, {"learn": learn, "test": TEST_PHOTOS[name]}, settings.split_seed, leave=0)
    sets = split(parts["learn"], {"dev": dev_share(settings, DEV_SHARE)}, settings.split_seed)
    return {**sets, "test": parts["test"]}
