"""App. A: candidate boxes of a dataset on disk, so that merging them and combining models load no net.

One ``.npz`` of plain arrays per model, set and scale: ``ids`` (N,), ``labels`` int64 (N,L) (the classes located),
``counts`` (N,) candidates per image, ``boxes`` float32 (M,L,4) and ``ratings`` float32 (M,L) of all images' candidates
concatenated, and the string ``key``, a digest of the images and nets that they were computed from.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..core.arrays import opened_arrays
from ..core.files import write_atomically
from ..core.progress import Reporter
from ..data.open import Dataset
from ..evaluation.inference import readable_images
from .inference import BoxPredictor, BoxViews, CandidateBoxes

FILE_NAME = "windows.npz"


def dataset_windows(
    predictor: BoxPredictor, dataset: Dataset, labels: NDArray[np.int64], reporter: Reporter, label: str
) -> dict[int, CandidateBoxes]:
    """The candidate boxes of each image of a dataset by index; for protocols of one scale.

    Args:
        labels: the classes to locate, (N,L).
        label: of the progress bar.

    Raises:
        ImageError: an image cannot be read.
    """
    metadata = predictor.metadata
    views = BoxViews(predictor.protocol.scales[0], metadata.resampling, metadata.other_side)
    advice = "Fix it, or remove it and its boxes from the data."
    images = readable_images(dataset, range(len(dataset)), views, predictor.machine, advice)
    with reporter.track(label, len(dataset)) as advance:
        return predictor.run(images, labels, lambda count: advance(count, ""))


def windows_key(**of: object) -> str:
    """A digest of what candidate boxes depend on: nets, protocol, images and labels."""
    return hashlib.sha256(json.dumps(of, sort_keys=True, default=str).encode()).hexdigest()


def save_windows(
    folder: Path, ids: tuple[str, ...], labels: NDArray[np.int64], candidates: Sequence[CandidateBoxes], key: str
) -> None:
    """Writes the candidate boxes of images for labels (N,L), atomically; raises VerydeepError if it cannot."""
    arrays = {
        "ids": np.array(ids),
        "labels": labels,
        "counts": np.array([len(of_image.boxes) for of_image in candidates]),
        "boxes": np.concatenate([of_image.boxes for of_image in candidates]),
        "ratings": np.concatenate([of_image.ratings for of_image in candidates]),
        "key": np.array(key),
    }
    write_atomically(folder / FILE_NAME, lambda file: np.savez(file, **arrays))  # type: ignore[arg-type]


def load_windows(folder: Path, key: str) -> tuple[CandidateBoxes, ...] | None:
    """The stored candidate boxes of a dataset's images; None if there are none of this key, or they are broken."""
    try:
        with opened_arrays(folder / FILE_NAME) as stored:
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
            return tuple(CandidateBoxes(*pair) for pair in zip(boxes, ratings, strict=True))
    except Exception:  # numpy and zipfile raise many types for a broken file; the boxes are computed again
        return None
