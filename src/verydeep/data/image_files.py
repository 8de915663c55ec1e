"""Encoded photos opened, before their pixels are decoded: which formats, how many pixels, which texts of a PNG."""

from __future__ import annotations

import io
import math
import struct
import zlib
from typing import IO

from PIL import (
    AvifImagePlugin,  # noqa: F401 - registers its format, as TIFF's and WebP's do
    Image,
    PngImagePlugin,
    TiffImagePlugin,  # noqa: F401
    WebPImagePlugin,  # noqa: F401
)

from .image_formats import readable_formats

PNG = b"\x89PNG\r\n\x1a\n"
PROFILE, TEXTS = b"iCCP", (b"tEXt", b"zTXt", b"iTXt")


def open_photo(source: bytes | IO[bytes], heic: bool = True) -> Image.Image:
    """An encoded photo, of which nothing but the header is read; a PNG's file is read whole.

    Args:
        heic: whether it may be HEIC, where pillow-heif is installed.

    Raises:
        Exception: whatever a decoder trips over in a stranger's bytes.
    """
    if not isinstance(source, bytes):
        begin = source.read(len(PNG))
        source.seek(0)
        if begin != PNG:
            return Image.open(source, formats=readable_formats(heic))
        source = source.read()
    return Image.open(io.BytesIO(without_large_texts(source)), formats=readable_formats(heic))


def without_large_texts(data: bytes) -> bytes:
    """A PNG without its colour profile and texts that Pillow would refuse it for; other bytes as they are.

    Those change no pixel. What is left out unpacks to more than a megabyte, or is text beyond 64 MB in all.
    """
    if not data.startswith(PNG):
        return data
    kept, start, place = [], 0, len(PNG)
    room: float = PngImagePlugin.MAX_TEXT_MEMORY
    while place + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        end = place + 12 + length
        if end > len(data):  # torn, which Pillow tells of
            break
        size = _unpacked(kind, data[place + 8 : end - 4]) if kind in (PROFILE, *TEXTS) else 0
        if size > room:
            kept.append(data[start:place])
            start = end
        elif kind in TEXTS:
            room -= size
        place = end
    return b"".join([*kept, data[start:]])


def _unpacked(kind: bytes, body: bytes) -> float:
    """Bytes of a text or profile as Pillow keeps it; without end where it unpacks to more than Pillow allows."""
    content = body.partition(b"\0")[2]
    if kind == b"tEXt" or (kind == b"iTXt" and content[:1] != b"\1"):
        return len(body)
    packed = content[2:].split(b"\0", 2)[-1] if kind == b"iTXt" else content[1:]
    unpacking = zlib.decompressobj()
    try:
        found = unpacking.decompress(packed, PngImagePlugin.MAX_TEXT_CHUNK)
    except zlib.error:  # Pillow takes it for empty
        return 0
    return math.inf if unpacking.unconsumed_tail else len(found)
