"""App. A: candidate boxes of a data set, stored on disk so that merging and fusing models never load a net.

One ``.npz`` of plain arrays per model, set and scale: ``ids`` (N,), ``labels`` int64 (N,L) (the classes localised),
``counts`` (N,) candidates per image, ``boxes`` float32 (M,L,4) and ``ratings`` float32 (M,L) of all images' candidates
one after another, and the text ``key``, a digest of the images and nets they were made from.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.errors import ImageError
from ..core.files import write_atomically
from ..core.progress import Reporter
from ..data.dataloader import each_photo
from ..data.open import Dataset
from ..data.workers import Fault
from .inference import BoxPredictor, BoxViews, CandidateBoxes

FILE_NAME = "windows.npz"


def dataset_windows(
    predictor: BoxPredictor, dataset: Dataset, labels: NDArray[np.int64], reporter: Reporter, label: str
) -> dict[int, CandidateBoxes]:
    """The candidate boxes of each image of a dataset, by index; protocols of one scale.

    Args:
        labels: the classes to locate, (N,L).
        label: of the progress bar.

    Raises:
        ImageError: an image cannot be read.
    """
    metadata = predictor.metadata
    views = BoxViews(predictor.protocol.scales[0], metadata.resampling, metadata.other_side)

    def shown() -> Iterator[Any]:
        for index, loaded in each_photo(dataset, views, predictor.machine.readers):
            if isinstance(loaded, Fault):
                raise ImageError(f"{loaded.message} Fix it, or remove it and its boxes from the data.")
            yield index, loaded

    with reporter.track(label, len(dataset)) as advance:
        return predictor.run(shown(), labels, lambda count: advance(count, ""))


@dataclass(frozen=True)
class Windows:
    """The candidate boxes of a set's images, with their ids and labels."""

    ids: tuple[str, ...]
    labels: NDArray[np.int64]
    photos: tuple[CandidateBoxes, ...]


def windows_key(**of: object) -> str:
    """A digest of what candidate boxes depend on: hashes of nets, the protocol, images and labels."""
    return hashlib.sha256(json.dumps(of, sort_keys=True, default=str).encode()).hexdigest()


def save_windows(folder: Path, windows: Windows, key: str) -> None:
    """Writes a set's candidate boxes atomically; raises VerydeepError where it cannot."""
    arrays = {
        "ids": np.array(windows.ids),
        "labels": windows.labels,
        "counts": np.array([len(photo.boxes) for photo in windows.photos]),
        "boxes": np.concatenate([photo.boxes for photo in windows.photos]),
        "ratings": np.concatenate([photo.ratings for photo in windows.photos]),
        "key": np.array(key),
    }
    write_atomically(folder / FILE_NAME, lambda file: np.savez(file, **arrays))  # type: ignore[arg-type]


def load_windows(folder: Path, key: str) -> Windows | None:
    """A set's stored candidate boxes; None where there are none of this key, or they are broken."""
    try:
        with (folder / FILE_NAME).open("rb") as file, np.load(file, allow_pickle=False) as stored:
            if str(stored["key"]) != key:
                return None
            counts, labels, arrays = stored["counts"], stored["labels"], (stored["boxes"], stored["ratings"])
            shape = (int(counts.sum()), labels.shape[1])
            fits = counts.min() > 0 and len(counts) == len(labels) == len(stored["ids"])
            if not fits or arrays[0].shape != (*shape, 4) or arrays[1].shape != shape:
                return None
            if not all(np.isfinite(array).all() for array in arrays):
                return None
            boxes, ratings = (np.split(array, np.cumsum(counts)[:-1]) for array in arrays)
            photos = tuple(CandidateBoxes(*pair) for pair in zip(boxes, ratings, strict=True))
            return Windows(tuple(map(str, stored["ids"])), stored["labels"], photos)
    except Exception:  # whatever numpy and zipfile raise for a broken file: it is computed again
        return None
