"""Small pictures of the photos of a features file."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from io import BytesIO
from typing import Literal

import numpy as np
from PIL import Image

from ...data.image_io import Pixels
from ...data.open import Dataset

SIDE, KEPT = 160, 512  # pixels of a picture's longer side; how many are kept


class Thumbnails:
    """Pictures by a photo's place in the file, which no name from outside can lead elsewhere."""

    def __init__(self, photos: Dataset, ids: Sequence[str]) -> None:
        """``ids`` are the photos' in the order of the file."""
        self._photos, self._ids = photos, ids
        self._made = lru_cache(KEPT)(self._make)

    def picture(self, place: int) -> bytes | None:
        """A small JPEG; None where the file has no photo of this place.

        Raises:
            ImageError: the photo is gone, or broken by now.
        """
        return self._made(place) if 0 <= place < len(self._ids) else None

    def _make(self, place: int) -> bytes:
        picture = Image.fromarray(self._photos.read(self._ids[place]))
        picture.thumbnail((SIDE, SIDE))
        return encoded(np.asarray(picture), "JPEG")


def encoded(pixels: Pixels, form: Literal["PNG", "JPEG"]) -> bytes:
    """A picture's file."""
    file = BytesIO()
    Image.fromarray(pixels).save(file, form, compress_level=1)
    return file.getvalue()
