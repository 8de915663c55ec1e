"""Photos as schemathesis draws them for request bodies: small JPEGs of some size, with some rectangles."""

from __future__ import annotations

import io
import random

import schemathesis
from hypothesis import strategies
from PIL import Image


def jpeg(width: int, height: int, seed: int) -> bytes:
    """A JPEG file."""
    draw, file = random.Random(seed), io.BytesIO()
    image = Image.new("RGB", (width, height))
    for _ in range(4):
        corner = (draw.randrange(width), draw.randrange(height))
        image.paste(tuple(draw.randrange(256) for _ in range(3)), (*corner, width, height))
    image.save(file, "JPEG", quality=draw.randrange(10, 95))
    return file.getvalue()


SIDE = strategies.integers(8, 200)
schemathesis.openapi.media_type("image/*", strategies.builds(jpeg, SIDE, SIDE, strategies.integers(0, 2**32)))
