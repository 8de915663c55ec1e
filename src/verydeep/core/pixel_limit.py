"""How many pixels an image may have, in the whole process; loader processes are handed the same limit."""

from __future__ import annotations

from PIL import Image

from .settings import PIXEL_LIMIT

_limit = PIXEL_LIMIT


def most_pixels() -> int:
    """How many pixels a photo may have in this process."""
    return _limit


def allow_pixels(most: int) -> None:
    """Sets `most_pixels`; Pillow's own limit is raised with it, and never lowered."""
    global _limit  # noqa: PLW0603 - Pillow has one in a process as well
    _limit = most
    if Image.MAX_IMAGE_PIXELS is not None and most > PIXEL_LIMIT:
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, most)
