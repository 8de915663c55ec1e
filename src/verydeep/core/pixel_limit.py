"""The maximum number of pixels of an image, for the whole process; worker processes are passed the same limit."""

from __future__ import annotations

from PIL import Image

from .settings import PIXEL_LIMIT

_limit = PIXEL_LIMIT


def most_pixels() -> int:
    """The maximum number of pixels of an image in this process."""
    return _limit


def allow_pixels(most: int) -> None:
    """Sets `most_pixels`; Pillow's own limit is raised with it, but never lowered."""
    global _limit  # noqa: PLW0603 - Pillow's limit is global as well
    _limit = most
    if Image.MAX_IMAGE_PIXELS is not None and most > PIXEL_LIMIT:
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, most)
