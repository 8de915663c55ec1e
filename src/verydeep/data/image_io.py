"""Image files, bytes and arrays to pixels.

Pixels are uint8 RGB arrays (H,W,3), 0-255. Decoding rules, the same in every verb: the content and
not the file name decides the format; EXIF orientation is applied; the first frame of several is
taken; transparency is laid over white; 16-bit grey is scaled to 8 bits; grey, palette and CMYK
become RGB.
"""

from __future__ import annotations

import errno
import os
import stat
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, UnidentifiedImageError

from ..core.errors import FormatError, ImageError, NotAnImageError, ReadError, SizeError
from ..core.pixel_limit import most_pixels
from .image_files import open_photo
from .image_formats import HEAD, not_read

Pixels = NDArray[np.uint8]

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


def read_image(source: str | Path) -> Pixels:
    """The photo in a file, uint8 RGB (H,W,3).

    Raises:
        ImageError: missing, of no format that is read, broken, or of more than `most_pixels` pixels.
    """
    return decode(read_bytes(source), str(source))


def read_bytes(source: str | Path) -> bytes:
    """A photo's file as it is; raises ImageError where it cannot be read."""
    try:
        with open(source, "rb", opener=_open_file) as file:
            return file.read()
    except (FileNotFoundError, ValueError) as fault:
        reason = getattr(fault, "strerror", None) or fault
        raise ImageError(f"cannot read {source}: {reason}.") from None
    except OSError as fault:
        raise ReadError(f"cannot read {source}: {fault.strerror or fault}.") from None


def _open_file(path: str, flags: int) -> int:
    """Opens a file, and nothing that would wait for somebody to write into it."""
    handle = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise FileNotFoundError(errno.ENOENT, "it is no regular file", path)
    return handle


def image_size(source: str | Path) -> tuple[int, int]:
    """Height and width that `read_image` gives, from the file's header alone.

    Raises:
        ImageError: missing, or of no known format.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with open(source, "rb", opener=_open_file) as file, open_photo(file) as image:
                # Of a TIFF Pillow tells the turned size already.
                turned = None if image.format == "TIFF" else TURNS.get(orientation(image))
                width, height = image.size
        except Exception as fault:  # whatever a decoder trips over in a stranger's bytes
            raise ImageError(f"{source} cannot be read as a photo ({_first_line(fault)}).") from None
    return (width, height) if turned in SIDEWAYS else (height, width)


def declared_pixels(data: bytes, heic: bool = True) -> int:
    """How many pixels encoded bytes declare to hold; 0 where they are no photo, which `decode` tells of."""
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
    """The photo in encoded bytes, uint8 RGB (H,W,3); ``name`` stands in the error's sentence.

    Args:
        most: pixels it may have, at most `most_pixels`, which it is by default.
        heic: whether HEIC may be read, where pillow-heif is installed.

    Raises:
        ImageError: as `read_image`; in no known format it is a FormatError, of too many pixels a SizeError.
    """
    if not data:
        raise ImageError(f"{name} is an empty file, not a photo: remove or replace it.")
    allowed = most_pixels() if most is None else most
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of odd but readable files; broken ones raise
        try:
            with open_photo(data, heic) as image:
                width, height = image.size
                if width * height <= allowed:
                    return _to_rgb(image)
        except Image.DecompressionBombError:
            pass
        except UnidentifiedImageError:
            raise FormatError(not_read(data[:HEAD], name, heic)) from None
        except Exception as fault:  # whatever a decoder trips over in a stranger's bytes
            raise ImageError(f"{name} is broken and cannot be decoded ({_first_line(fault)}).") from None
    raise SizeError(
        f"{name} declares more than {allowed:,} pixels, which is refused: make it smaller, or raise --max-pixels."
    )


def _first_line(fault: BaseException) -> str:
    return (str(fault).splitlines() or [type(fault).__name__])[0][:120]


def _to_rgb(image: Image.Image) -> Pixels:
    image.load()
    upright = _upright(image)
    if upright.mode.startswith("I"):
        return _grey16_to_rgb(upright)
    if upright.mode == "LAB":
        return np.asarray(_lab_to_srgb(upright), dtype=np.uint8)
    if upright.mode == "F":
        raise ValueError("floating-point pixels have no agreed range")
    if upright.has_transparency_data:
        seen = upright.convert("RGBA")
        white = Image.new("RGBA", seen.size, (255, 255, 255, 255))
        upright = Image.alpha_composite(white, seen)
    return np.array(upright.convert("RGB"), dtype=np.uint8)


def _upright(image: Image.Image) -> Image.Image:
    """The image turned as its EXIF orientation says."""
    turned = TURNS.get(orientation(image))
    return image if turned is None else image.transpose(turned)


def orientation(image: Image.Image) -> int:
    """The turn that EXIF asks for, 1 for none; EXIF that cannot be read says nothing."""
    try:
        orientation = image.getexif().get(ORIENTATION)
    except Exception:
        return 1
    return orientation if isinstance(orientation, int) else 1


def _grey16_to_rgb(image: Image.Image) -> Pixels:
    """16-bit grey to 8 bits by scale (65535 to 255), never by clipping."""
    deep = np.asarray(image).astype(np.int64)
    if deep.size and (deep.min() < 0 or deep.max() > 65535):
        raise ValueError("grey values outside 16 bits")
    grey = ((deep * 255 + 32767) // 65535).astype(np.uint8)
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        grey[deep == clear] = 255
    return np.repeat(grey[:, :, None], 3, axis=2)


def _lab_to_srgb(image: Image.Image) -> Image.Image:
    to_srgb = ImageCms.buildTransform(ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB")
    converted = ImageCms.applyTransform(image, to_srgb)
    assert converted is not None
    return converted


def as_pixels(image: Any, name: str = "image") -> Pixels:
    """Anything a caller may hold as one image, as uint8 RGB (H,W,3).

    Args:
        image: a path, encoded bytes, a file opened as "rb", a PIL image, a uint8 array or tensor (H,W), (H,W,1),
            (H,W,3), (1,H,W) or (3,H,W).
        name: stands in the error's sentence.

    Raises:
        ImageError: not readable as a photo.
        NotAnImageError: none of these, a TypeError too; arrays of other types, as their range is not known.
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
            raise ImageError(f"{name} cannot be read as RGB ({_first_line(fault)}).") from None
    return _array_to_rgb(image, name)


def _content(file: Any, name: str) -> bytes:
    """What is left to read of an open file."""
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
    except Exception:  # NumPy and other libraries each raise their own
        array = np.array(None)
    if array.dtype.kind not in "biuf" or not array.ndim:
        raise NotAnImageError(
            f"{name} is a {type(image).__name__}: give a path, bytes, a file, a PIL image or uint8 values (H,W,3)."
        )
    if array.dtype != np.uint8:
        span = f" from {float(array.min()):g} to {float(array.max()):g}" if array.size else ""
        raise NotAnImageError(f"{name} is an array of {array.dtype}{span}: give uint8 values, 0-255.")
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim == 3 and array.shape[0] in (1, 3) and array.shape[2] not in (1, 3):
        array = array.transpose(1, 2, 0)
    if array.ndim != 3 or array.shape[2] not in (1, 3) or not array.size:
        shape = np.shape(image)
        raise NotAnImageError(f"{name} has shape {shape}: give (H,W,3), (3,H,W), (H,W,1), (1,H,W) or (H,W).")
    return np.ascontiguousarray(np.broadcast_to(array, (*array.shape[:2], 3)))
