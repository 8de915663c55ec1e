"""Thumbnails of the images of a features file."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from ...data.open import Dataset
from ...reports.html import encoded

SIDE, CACHED = 160, 512  # pixels of the longer side; thumbnails


class Thumbnails:
    """Thumbnails by an image's place in the file, so that no name in a request can reach another file."""

    def __init__(self, dataset: Dataset, ids: Sequence[str]) -> None:
        """``ids`` are those of the images in the order of the file."""
        self._dataset, self._ids = dataset, ids
        self._cached = lru_cache(CACHED)(self._make)

    def picture(self, place: int) -> bytes | None:
        """A small JPEG; None where the file has no image at this place.

        Raises:
            ImageError: the image is gone, or broken by now.
        """
        return self._cached(place) if 0 <= place < len(self._ids) else None

    def _make(self, place: int) -> bytes:
        return encoded(self._dataset.source.read(self._ids[place]), "JPEG", SIDE)
