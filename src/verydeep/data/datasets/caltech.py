"""Caltech-101 and Caltech-256 by the paper's protocol (App. B).

Each class gives 30 photos to training and up to 50 to the test (60 and the rest for Caltech-256),
by a random split that ``split_seed`` draws; a fifth of the training photos is the ``dev`` part.
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
    """Caltech-101 or -256 below a folder, or in its ``10?_ObjectCategories``.

    Raises:
        VerydeepError: a class has too few photos for the split.
    """
    assert root is not None
    inside = root / FOLDERS[name]
    whole = replace(class_folders(*([inside] * 2 if inside.is_dir() else [root] * 2)), name=name)
    return Data(name, caltech_sets(name, whole, settings), split_by_us=False, unsplit=whole)


def caltech_sets(name: str, whole: Dataset, settings: DataSettings) -> dict[str, Dataset]:
    """The sets ``train``, ``dev`` and ``test`` of one random split.

    Raises:
        VerydeepError: a class has too few photos for it.
    """
    learn = TRAIN_PHOTOS[name]
    counts = np.bincount(whole.labels, minlength=len(whole.classes))
    if counts.min() <= learn:
        few = whole.classes[int(counts.argmin())]
        raise VerydeepError(f"class {few!r} of {name} has {counts.min()} photos; the split needs more than {learn}.")
    parts = split(whole, {"learn": learn, "test": TEST_PHOTOS[name]}, settings.split_seed, leave=0)
    sets = split(parts["learn"], {"dev": dev_share(settings, DEV_SHARE)}, settings.split_seed)
    return {**sets, "test": parts["test"]}
