"""Image files, bytes and arrays to pixels.

Pixels are uint8 RGB arrays (H,W,3), 0-255. All commands decode alike: the content decides the format, not the file
name; EXIF orientation is applied; of several frames the first is used; transparency, and what a GIF's frame leaves
uncovered, is composited over white; 16-bit grey is scaled to 8 bits; grey, palette and CMYK are converted to RGB.
"""

from __future__ import annotations

import errno
import io
import math
import os
import stat
import struct
import warnings
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import (
    AvifImagePlugin,  # noqa: F401 - registers its format, as TIFF's and WebP's do
    Image,
    ImageCms,
    PngImagePlugin,
    TiffImagePlugin,  # noqa: F401
    UnidentifiedImageError,
    WebPImagePlugin,  # noqa: F401
)
from PIL.GifImagePlugin import GifImageFile

from ..core.errors import FormatError, ImageError, NotAnImageError, ReadError, SizeError, first_line
from ..core.pixel_limit import most_pixels
from .image_formats import HEAD, not_read, readable_formats

Pixels = NDArray[np.uint8]

PNG = b"\x89PNG\r\n\x1a\n"
PROFILE, TEXTS = b"iCCP", (b"tEXt", b"zTXt", b"iTXt")
ORIENTATION = 0x0112  # the EXIF tag
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SIDEWAYS = [turn for number, turn in TURNS.items() if number >= 5]


class NamedImage(str):
    """An encoded image in memory, as a text that is its name in messages and results; it is read like a path."""

    data: bytes

    def __new__(cls, name: str, data: bytes) -> NamedImage:
        """``name`` is what the image came from, such as a URL."""
        image = super().__new__(cls, name)
        image.data = data
        return image


def open_photo(source: bytes | IO[bytes], heic: bool = True) -> Image.Image:
    """Opens an encoded image and reads its header; a PNG file is read completely.

    Args:
        heic: whether HEIC is allowed, if pillow-heif is installed.

    Raises:
        Exception: decoders raise many types for untrusted bytes.
    """
    if not isinstance(source, bytes):
        start = source.read(len(PNG))
        source.seek(0)
        if start != PNG:
            return Image.open(source, formats=readable_formats(heic))
        source = source.read()
    return Image.open(io.BytesIO(without_large_texts(source)), formats=readable_formats(heic))


def without_large_texts(data: bytes) -> bytes:
    """Removes colour profiles and texts from a PNG for which Pillow would refuse it; other bytes are returned as is.

    They do not change pixels. Removed are those that unpack to more than a megabyte, and texts beyond 64 MB in all.
    """
    if not data.startswith(PNG):
        return data
    kept, start, place = [], 0, len(PNG)
    remaining: float = PngImagePlugin.MAX_TEXT_MEMORY
    while place + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        end = place + 12 + length
        if end > len(data):  # truncated, which Pillow reports
            break
        size = _unpacked_size(kind, data[place + 8 : end - 4]) if kind in (PROFILE, *TEXTS) else 0
        if size > remaining:
            kept.append(data[start:place])
            start = end
        elif kind in TEXTS:
            remaining -= size
        place = end
    return b"".join([*kept, data[start:]])


def _unpacked_size(kind: bytes, body: bytes) -> float:
    """Bytes of a text or profile as Pillow stores it; infinite if it unpacks to more than Pillow allows."""
    content = body.partition(b"\0")[2]
    if kind == b"tEXt" or (kind == b"iTXt" and content[:1] != b"\1"):
        return len(body)
    packed = content[2:].split(b"\0", 2)[-1] if kind == b"iTXt" else content[1:]
    unpacking = zlib.decompressobj()
    try:
        unpacked = unpacking.decompress(packed, PngImagePlugin.MAX_TEXT_CHUNK)
    except zlib.error:  # Pillow reads it as empty
        return 0
    return math.inf if unpacking.unconsumed_tail else len(unpacked)


def read_image(source: str | Path) -> Pixels:
    """Reads an image file, uint8 RGB (H,W,3).

    Raises:
        ImageError: missing, of an unsupported format, broken, or of more than `most_pixels` pixels.
    """
    return decode(read_bytes(source), str(source))


def read_bytes(source: str | Path) -> bytes:
    """The bytes of an image file; raises ImageError if it cannot be read."""
    if isinstance(source, NamedImage):
        return source.data
    try:
        with open(source, "rb", opener=_open_file) as file:
            return file.read()
    except (FileNotFoundError, ValueError) as fault:
        reason = getattr(fault, "strerror", None) or fault
        raise ImageError(f"cannot read {source}: {reason}.") from None
    except OSError as fault:
        raise ReadError(f"cannot read {source}: {fault.strerror or fault}.") from None


def _open_file(path: str, flags: int) -> int:
    """Opens a regular file; opening a named pipe would block."""
    handle = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise FileNotFoundError(errno.ENOENT, "not a regular file", path)
    return handle


def image_size(source: str | Path) -> tuple[int, int]:
    """Height and width of the pixels that `read_image` returns, from the file's header.

    Raises:
        ImageError: missing, or of an unknown format.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with open(source, "rb", opener=_open_file) as file, open_photo(file) as image:
                # Pillow gives the size of TIFF files after the rotation.
                turn = None if image.format == "TIFF" else TURNS.get(orientation(image))
                width, height = image.size
        except Exception as fault:  # decoders raise many types for untrusted bytes
            raise ImageError(f"{source} cannot be read as an image ({first_line(fault)}).") from None
    return (width, height) if turn in SIDEWAYS else (height, width)


def declared_pixels(data: bytes, heic: bool = True) -> int:
    """The number of pixels that an encoded image declares; 0 for other bytes, which `decode` reports."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with open_photo(data, heic) as image:
                return image.width * image.height
        except Image.DecompressionBombError:
            return most_pixels() + 1
        except Exception:
            return 0


def decode(data: bytes, name: str = "image", most: int | None = None, heic: bool = True) -> Pixels:
    """Decodes an image, uint8 RGB (H,W,3); ``name`` is for error messages.

    Args:
        most: the maximum number of pixels, by default `most_pixels`, and no larger.
        heic: whether HEIC is allowed, if pillow-heif is installed.

    Raises:
        ImageError: as `read_image`; of an unknown format it is a FormatError, of too many pixels a SizeError.
    """
    if not data:
        raise ImageError(f"{name} is an empty file, not an image: remove or replace it.")
    allowed = most_pixels() if most is None else most
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about unusual but readable files; broken ones raise
        try:
            with open_photo(data, heic) as image:
                width, height = image.size
                if width * height <= allowed:
                    return _to_rgb(image)
        except Image.DecompressionBombError:
            pass
        except UnidentifiedImageError:
            raise FormatError(not_read(data[:HEAD], name, heic)) from None
        except Exception as fault:  # decoders raise many types for untrusted bytes
            reason = first_line(fault)
            if reason.lower().startswith("unsupported"):
                raise ImageError(
                    f"{name} is of a kind that is not supported ({reason}): save it as JPEG or PNG."
                ) from None
            raise ImageError(f"{name} is corrupted and cannot be decoded ({reason}).") from None
    raise SizeError(f"{name} has more than {allowed:,} pixels, the limit: make it smaller, or raise --max-pixels.")


def _to_rgb(image: Image.Image) -> Pixels:
    covered = image.tile[0].extents if isinstance(image, GifImageFile) and image.tile and not image.tell() else None
    image.load()
    turn = TURNS.get(orientation(image))
    if covered and covered != (0, 0, *image.size):
        image = _frame(image, covered)
    upright = image if turn is None else image.transpose(turn)
    if upright.mode.startswith("I"):
        return _grey16_to_rgb(upright)
    if upright.mode == "LAB":
        return np.asarray(_lab_to_srgb(upright), dtype=np.uint8)
    if upright.mode == "F":
        raise ValueError("the range of floating-point pixels is unknown")
    if upright.has_transparency_data:
        rgba = upright.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        upright = Image.alpha_composite(white, rgba)
    return np.array(upright.convert("RGB"), dtype=np.uint8)


def _frame(image: Image.Image, covered: tuple[int, int, int, int]) -> Image.Image:
    """A GIF's first frame on transparent ground, as browsers show it; Pillow fills the rest with any colour."""
    ground = Image.new("RGBA", image.size)
    ground.paste(image.convert("RGBA").crop(covered), covered)
    return ground


def orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 if it is missing or unreadable."""
    try:
        orientation = image.getexif().get(ORIENTATION)
    except Exception:
        return 1
    return orientation if isinstance(orientation, int) else 1


def _grey16_to_rgb(image: Image.Image) -> Pixels:
    """Scales 16-bit grey to 8 bits (65535 to 255), without clipping."""
    wide = np.asarray(image).astype(np.int64)
    if wide.size and (wide.min() < 0 or wide.max() > 65535):
        raise ValueError("grey values outside 16 bits")
    grey = ((wide * 255 + 32767) // 65535).astype(np.uint8)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey[wide == transparent] = 255
    return np.repeat(grey[:, :, None], 3, axis=2)


def _lab_to_srgb(image: Image.Image) -> Image.Image:
    to_srgb = ImageCms.buildTransform(ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB")
    converted = ImageCms.applyTransform(image, to_srgb)
    assert converted is not None
    return converted


def as_pixels(image: Any, name: str = "image") -> Pixels:
    """Converts any kind of image to uint8 RGB (H,W,3).

    Args:
        image: a path, encoded bytes, a file opened as "rb", a PIL image, a uint8 array or tensor (H,W), (H,W,1),
            (H,W,3), (1,H,W) or (3,H,W).
        name: for error messages.

    Raises:
        ImageError: it cannot be read as an image.
        NotAnImageError: another type of object, or an array of another dtype, whose range is unknown.
    """
    if isinstance(image, str | os.PathLike):
        return read_image(os.fspath(image))
    if hasattr(image, "read"):
        image = _content(image, name)
    if isinstance(image, bytes | bytearray | memoryview):
        return decode(bytes(image), name)
    if isinstance(image, Image.Image):
        try:
            return _to_rgb(image)
        except Exception as fault:
            raise ImageError(f"{name} cannot be converted to RGB ({first_line(fault)}).") from None
    return _array_to_rgb(image, name)


def _content(file: Any, name: str) -> bytes:
    """The rest of an open file."""
    try:
        data = file.read()
    except UnicodeDecodeError:
        data = ""
    except (OSError, ValueError) as fault:  # closed, or not open for reading
        raise ImageError(f"{name} cannot be read: {fault}.") from None
    if not isinstance(data, bytes):
        raise NotAnImageError(f'{name} is a file opened as text: open it with "rb".')
    return data


def _array_to_rgb(image: Any, name: str) -> Pixels:
    try:
        array = np.asarray(image.detach().cpu() if hasattr(image, "detach") else image)
    except Exception:  # NumPy and other libraries raise many types
        array = np.array(None)
    if array.dtype.kind not in "biuf" or not array.ndim:
        raise NotAnImageError(
            f"{name} is a {type(image).__name__}: pass a path, bytes, a file, a PIL image or uint8 values (H,W,3)."
        )
    if array.dtype != np.uint8:
        extent = f" from {float(array.min()):g} to {float(array.max()):g}" if array.size else ""
        raise NotAnImageError(f"{name} is an array of {array.dtype}{extent}: pass uint8 values from 0 to 255.")
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim == 3 and array.shape[0] in (1, 3) and array.shape[2] not in (1, 3):
        array = array.transpose(1, 2, 0)
    if array.ndim != 3 or array.shape[2] not in (1, 3) or not array.size:
        shape = np.shape(image)
        raise NotAnImageError(f"{name} has shape {shape}: expected (H,W,3), (3,H,W), (H,W,1), (1,H,W) or (H,W).")
    return np.ascontiguousarray(np.broadcast_to(array, (*array.shape[:2], 3)))
