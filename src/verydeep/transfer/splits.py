"""App. B: the images that an SVM is trained on, those that choose its C, and the test images.

- ``caltech101``, ``caltech256``: random splits, 30 (60) training images per class and up to 50 (the rest) to test; C is
  chosen on a fifth of the former, and the final SVM is trained on all of them.
- ``voc2007``, ``voc2012``, ``voc2012-action``: C is chosen on ``val``, the final SVM is trained on both sets.
- ``own``: the sets of the data (``train``, ``dev`` or ``val``, ``test``), or random splits in the proportions that
  training uses; images have one class each, or several.

A split depends on (seed, image) only, and is the one that training a net would use.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..core.errors import VerydeepError
from ..core.settings import DataSettings
from ..data.dataset import Dataset, FolderSource
from ..data.datasets.caltech import TRAIN_PHOTOS, caltech_sets
from ..data.datasets.folder import split_whole
from ..data.datasets.voc import OF_BOXES
from .features_file import Features

Indices = NDArray[np.int64]
VOC = ("voc2007", "voc2012", "voc2012-action")
PROTOCOLS = (*TRAIN_PHOTOS, *VOC, "own")


@dataclass(frozen=True)
class Parts:
    """One split, as indices of images: those to fit, those that choose C, those to test."""

    name: str
    fit: Indices
    dev: Indices
    test: Indices

    @property
    def train(self) -> Indices:
        """All training images, once C is chosen."""
        return np.sort(np.concatenate([self.fit, self.dev]))

    def without(self, images: Indices) -> Parts:
        """The split without some images."""
        return Parts(self.name, *(part[~np.isin(part, images)] for part in (self.fit, self.dev, self.test)))


def parts_of(protocol: str, features: Features, splits: int, seed: int, group_by: str | None = None) -> list[Parts]:
    """The splits of a protocol; of ``own`` those that are drawn keep the groups of ``group_by`` in one part.

    Raises:
        VerydeepError: no such protocol, a class with too few images, or missing sets.
    """
    if protocol not in PROTOCOLS:
        raise VerydeepError(f"unknown protocol {protocol!r}; the protocols are {', '.join(PROTOCOLS)}.")
    own = protocol == "own" and features.data not in (*VOC, OF_BOXES)
    if (features.marks is not None) != (protocol in VOC) and not own:
        kind = "several classes per image" if features.marks is not None else "one class per image"
        raise VerydeepError(f"protocol {protocol} does not fit {features.data}, which has {kind}.")
    if protocol in VOC and features.data.removesuffix(OF_BOXES.removeprefix(VOC[-1])) != protocol:
        raise VerydeepError(f"protocol {protocol} does not fit these features, which are of {features.data}.")
    if features.marks is None and (features.labels < 0).any():
        unlabelled = features.ids[int((features.labels < 0).argmax())]
        raise VerydeepError(f"{unlabelled} has no label: SVMs are trained on labelled images.")
    has_sets = any(features.sets)
    if group_by is not None and (protocol != "own" or has_sets):
        raise VerydeepError("--group-by applies to random splits of own images: these features have fixed sets.")
    if protocol in VOC or (protocol == "own" and has_sets):
        return [_fixed(features)]
    known = int(features.recipe.get("splits") or 0)
    if known and (protocol not in TRAIN_PHOTOS or seed + splits > known):
        raise VerydeepError(
            f"the features are of the images of {features.data}'s splits 0 to {known - 1} only, and {protocol} with "
            f"--seed {seed} --splits {splits} needs others: extract features of all images, or use these splits."
        )
    if has_sets:
        raise VerydeepError(f"protocol {protocol} draws random splits, and these features are of fixed sets.")
    no_images = FolderSource(Path())  # splits depend on ids and labels only
    labels, marks = features.labels, features.marks
    whole = Dataset(features.data, "all", features.classes, features.ids, labels, no_images, marks=marks)
    return [_drawn(protocol, whole, number, group_by) for number in range(seed, seed + splits)]


def _fixed(features: Features) -> Parts:
    """The sets of the data; for VOC, ``val`` chooses C."""
    sets = {name: np.flatnonzero(np.array(features.sets) == name) for name in dict.fromkeys(features.sets)}
    dev = "dev" if "dev" in sets else "val"
    reported = "test" if "test" in sets else "val"
    missing = [name for name in ("train", dev) if name not in sets]
    if missing:
        raise VerydeepError(
            f"the features of {features.data} are missing the set {missing[0]}; they have {', '.join(sets)}: "
            "extract features of all sets."
        )
    empty = np.zeros(0, dtype=np.int64)
    return Parts("given", sets["train"], sets[dev], sets[reported] if reported != dev and reported in sets else empty)


def _drawn(protocol: str, whole: Dataset, seed: int, group_by: str | None) -> Parts:
    settings = DataSettings(split_seed=seed, group_by=group_by)
    sets = split_whole(whole, settings).sets if protocol == "own" else caltech_sets(protocol, whole, settings)
    index_of = {image: index for index, image in enumerate(whole.ids)}
    names = ("train", "dev", "test")
    empty = [name for name in names if not len(sets[name])]
    if empty:
        raise VerydeepError(f"{whole.name} has too few images for a {empty[0]} part: at least 3 per class are needed.")
    parts = [np.array([index_of[image] for image in sets[name].ids], dtype=np.int64) for name in names]
    return Parts(f"seed {seed}", *parts)
