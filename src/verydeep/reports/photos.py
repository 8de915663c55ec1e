"""The photos of a run for its report: what its net sees of them, and those of its tests, where they still are."""

from __future__ import annotations

import contextlib
from functools import cached_property
from pathlib import Path

import numpy as np

from ..checkpoints.checkpoint import Metadata
from ..checkpoints.run_dir import bad_images
from ..core.errors import VerydeepError
from ..core.progress import Silent
from ..data.box_targets import located
from ..data.check import some_of
from ..data.open import Data, Dataset, open_data
from .evaluations import Read
from .figures import training_crops
from .html import paragraph, tiles
from .run_reader import EvalRecord

CROPS = 16


class RunPhotos:
    """The photos of a run, opened when they are first asked for, and only where they still are."""

    def __init__(self, folder: Path, metadata: Metadata, train: Dataset | None = None) -> None:
        self._folder, self._metadata, self._train = folder, metadata, train

    @cached_property
    def crops(self) -> list[str]:
        """What the net sees, or a sentence in its place."""
        if not self._metadata.settings or not self._metadata.data:
            return [paragraph("It was not trained here, so it is not known what it was shown.")]
        try:
            seen = training_crops(self._few(), self._metadata)
        except VerydeepError as fault:
            return [paragraph(f"There is no picture, as the photos it learnt from are gone: {fault}")]
        settings = self._metadata.train_settings
        boxes = " Green is the box it is to tell." if self._metadata.is_localiser else ""
        text = f"Random crops of {settings.crop} pixels of training photos at S = {settings.S}.{boxes}"
        return [paragraph(text, "note"), tiles(seen, "a training crop of")]

    def reader(self, test: EvalRecord) -> Read | None:
        """What reads the photos of a test of the run's own data; None of other data, and where they are gone."""
        if not self._metadata.data or test.folder.parent.parent.name.startswith("of-"):
            return None
        with contextlib.suppress(VerydeepError):
            return self._data.set(test.told["set"]).read
        return None

    @cached_property
    def _data(self) -> Data:
        return open_data(self._metadata.data_settings, least_classes=1)

    def _few(self) -> Dataset:
        if self._train is not None:
            return some_of(self._train, CROPS)
        train, bad = self._data.set("train"), bad_images(self._folder)
        kept = train.take(np.array([index for index, photo in enumerate(train.ids) if photo not in bad], dtype=int))
        few = some_of(kept, CROPS)
        return located(few, False, Silent()).dataset if self._metadata.is_localiser else few
