"""App. B: which photos an SVM learns from, which choose its C, and which are reported.

- ``caltech101``, ``caltech256``: random splits, 30 (60) photos a class to learn from and up to 50 (the rest) to test;
  a fifth of the first chooses C, and with it the SVM learns from all of them again.
- ``voc2007``, ``voc2012``, ``voc2012-action``: C is chosen on ``val``, the SVM learns again from ``train`` and ``val``.
- ``own``: the sets the data came in (``train``, ``dev`` or ``val``, ``test``), or random splits by the shares that
  training uses.

A split depends on (seed, photo) alone, and is the one that training would use.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..core.errors import VerydeepError
from ..core.settings import DataSettings
from ..data.dataset import Dataset, ImageSource
from ..data.datasets.caltech import TRAIN_PHOTOS, caltech_sets
from ..data.datasets.folder import split_whole
from ..data.datasets.voc import OF_BOXES
from ..data.image_io import Pixels
from .features_file import Features

Indices = NDArray[np.int64]
VOC = ("voc2007", "voc2012", "voc2012-action")
PROTOCOLS = (*TRAIN_PHOTOS, *VOC, "own")


@dataclass(frozen=True)
class Parts:
    """One split, as indices of photos: those to learn from first, those that choose C, those that are reported."""

    name: str
    fit: Indices
    dev: Indices
    test: Indices

    @property
    def learn(self) -> Indices:
        """All photos to learn from in the end."""
        return np.sort(np.concatenate([self.fit, self.dev]))


def parts_of(protocol: str, features: Features, splits: int, seed: int) -> list[Parts]:
    """The splits of a protocol.

    Raises:
        VerydeepError: no such protocol, a class with too few photos, or sets that are not there.
    """
    if protocol not in PROTOCOLS:
        raise VerydeepError(f"there is no protocol {protocol!r}: they are {', '.join(PROTOCOLS)}.")
    if (features.marks is not None) != (protocol in VOC):
        kind = "several classes a photo" if features.marks is not None else "one class a photo"
        raise VerydeepError(f"protocol {protocol} does not fit {features.data}, which has {kind}.")
    if protocol in VOC and features.data.removesuffix(OF_BOXES.removeprefix(VOC[-1])) != protocol:
        raise VerydeepError(f"protocol {protocol} does not fit these features, which are of {features.data}.")
    if features.marks is None and (features.labels < 0).any():
        unknown = features.ids[int((features.labels < 0).argmax())]
        raise VerydeepError(f"nobody tells the class of {unknown}: an SVM learns from photos of known classes.")
    given = any(features.sets)
    if protocol in VOC or (protocol == "own" and given):
        return [_given(features)]
    known = int(features.recipe.get("splits") or 0)
    if known and (protocol not in TRAIN_PHOTOS or seed + splits > known):
        raise VerydeepError(
            f"the features are of the photos of {features.data}'s splits 0 to {known - 1} only, and {protocol} with "
            f"--seed {seed} --splits {splits} needs others: describe all photos, or ask for those."
        )
    if given:
        raise VerydeepError(f"protocol {protocol} draws its splits, and these features are of one set of the data.")
    whole = Dataset(features.data, "all", features.classes, features.ids, features.labels, _NoImages())
    return [_drawn(protocol, whole, number) for number in range(seed, seed + splits)]


class _NoImages(ImageSource):
    """Descriptors without their images."""

    def read(self, image_id: str) -> Pixels:
        raise VerydeepError(f"the image {image_id} is not available, only its descriptor.")


def _given(features: Features) -> Parts:
    """The sets that the data came in; of VOC ``val`` chooses."""
    sets = {name: np.flatnonzero(np.array(features.sets) == name) for name in dict.fromkeys(features.sets)}
    dev = "dev" if "dev" in sets else "val"
    reported = "test" if "test" in sets else "val"
    missing = [name for name in ("train", dev) if name not in sets]
    if missing:
        raise VerydeepError(
            f"the features of {features.data} lack the set {missing[0]}, and have {', '.join(sets)}: describe all sets."
        )
    empty = np.zeros(0, dtype=np.int64)
    return Parts("given", sets["train"], sets[dev], sets[reported] if reported != dev and reported in sets else empty)


def _drawn(protocol: str, whole: Dataset, seed: int) -> Parts:
    settings = DataSettings(split_seed=seed)
    sets = split_whole(whole, settings).sets if protocol == "own" else caltech_sets(protocol, whole, settings)
    place = {photo: index for index, photo in enumerate(whole.ids)}
    few = [name for name in ("train", "dev", "test") if not len(sets[name])]
    if few:
        raise VerydeepError(f"{whole.name} has too few photos for a {few[0]} part: give at least 3 photos a class.")
    parts = [np.array([place[photo] for photo in sets[name].ids], dtype=np.int64) for name in ("train", "dev", "test")]
    return Parts(f"seed {seed}", *parts)
