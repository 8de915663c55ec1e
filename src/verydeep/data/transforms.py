"""Sect. 3.1: a photo at a training scale, of which one crop is cut: the whole of it rescaled, or that crop alone.

``whole`` decodes and rescales all of the photo, then cuts. ``reduced`` decodes a JPEG at a half, a quarter or an eighth
of its size where that is still larger than what is asked for, and rescales the crop alone: the same crop, but for
rounding and for how the coarser decoding averages, in a fraction of the time where photos are large.
"""

from __future__ import annotations

import warnings
from typing import Literal, Protocol

import numpy as np
from PIL import Image

from ..core.errors import ImageError
from ..core.pixel_limit import most_pixels
from .image_files import open_photo
from .image_io import (
    FILTERS,
    OtherSide,
    Pixels,
    Resampling,
    Window,
    check_ratio,
    decode,
    orientation,
    rescale,
    rescaled_size,
)

Decoding = Literal["whole", "reduced"]
MARGIN = 2  # a coarse decoding has so many times more pixels a side than what is asked for: NOTES.md


class Rescaled(Protocol):
    """A photo of ``photo`` pixels (H,W) at a scale where it has ``size`` pixels (H,W)."""

    photo: tuple[int, int]
    size: tuple[int, int]

    def cut(self, window: Window, crop: int) -> Pixels:
        """A crop, uint8 (crop,crop,3)."""


class Whole:
    """All of a photo, rescaled; raises ImageError for a strip."""

    def __init__(self, pixels: Pixels, scale: int, resampling: Resampling, other_side: OtherSide) -> None:
        self._pixels = rescale(pixels, scale, resampling, other_side)
        self.photo = (pixels.shape[0], pixels.shape[1])
        self.size = (self._pixels.shape[0], self._pixels.shape[1])

    def cut(self, window: Window, crop: int) -> Pixels:
        """A view of the crop's pixels."""
        return window.cut(self._pixels, crop)


class Reduced:
    """An upright RGB or grey JPEG that is not decoded before it is known which crop is wanted."""

    def __init__(self, image: Image.Image, scale: int, resampling: Resampling, other_side: OtherSide) -> None:
        self._image, self._filter = image, FILTERS[resampling]
        self.photo = (image.height, image.width)
        check_ratio(self.photo)
        self.size = rescaled_size(*self.photo, scale, other_side)

    def cut(self, window: Window, crop: int) -> Pixels:
        """The crop, rescaled from a decoding that is as coarse as its scale allows; raises ImageError."""
        height, width = self.size
        try:
            finer = (round(MARGIN * width), round(MARGIN * height))
            drafted = self._image.draft(self._image.mode, finer)
            # A coarse decoding has whole pixels, of which the last may reach beyond the photo's edge.
            whole = self._image.size if drafted is None else drafted[1][2:]
            across, down = whole[0] / width, whole[1] / height
            box = (window.left * across, window.top * down, (window.left + crop) * across, (window.top + crop) * down)
            found = self._image.resize((crop, crop), self._filter, box=box).convert("RGB")
        except (OSError, ValueError, SyntaxError) as fault:
            raise ImageError(f"broken and cannot be decoded ({str(fault)[:120]}).") from None
        pixels = np.asarray(found)
        return pixels[:, ::-1] if window.mirrored else pixels


def reduced(data: bytes, name: str, scale: int, resampling: Resampling, other_side: OtherSide) -> Rescaled:
    """A photo from its encoded bytes; what is no plain JPEG is decoded whole.

    Raises:
        ImageError: as `verydeep.data.image_io.decode`.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image = open_photo(data)
            plain = image.format == "JPEG" and image.mode in ("RGB", "L") and orientation(image) in (0, 1)
            if plain and image.width * image.height <= most_pixels():
                return Reduced(image, scale, resampling, other_side)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            pass  # decoding it whole tells what is wrong
    return Whole(decode(data, name), scale, resampling, other_side)
