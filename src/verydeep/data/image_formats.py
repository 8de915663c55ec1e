"""Image formats: those that are read, and those that are only recognised, so that a message can name them.

Content decides the format of a file that is opened. Listing a folder goes by the file's extension, as opening every
file would take too long; only files with the extension of a format that is not read are looked into, because many
``.heic`` files are JPEGs. Most cameras' raw files are TIFF inside, so that their extension decides.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from PIL import features

_AVIF = ("AVIF",) if features.check("avif") else ()
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", *_AVIF)
EXTENSIONS = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".bmp", ".gif"),
    *(".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", *(".avif" for _ in _AVIF)),
)
READ, HEIC = "read", "HEIC"
HEIC_EXTENSIONS = (".heic", ".heif", ".hif", ".heics", ".heifs")
HEAD = 512  # bytes that tell every format below

UNREAD = {
    HEIC: " ".join(HEIC_EXTENSIONS),
    "AVIF": ".avif .avifs",
    "camera raw": ".3fr .arw .cr2 .cr3 .crw .dcr .dng .erf .gpr .iiq .k25 .kdc .mef .mrw .nef .nrw .orf .pef .raf .rw2"
    " .rwl .sr2 .srf .srw .x3f",
    "JPEG XL": ".jxl",
    "JPEG 2000": ".jp2 .j2c .j2k .jpc .jpf .jpm .jpx",
    "JPEG XR": ".jxr .wdp .hdp",
    "Photoshop": ".psd .psb",
    "SVG": ".svg .svgz",
    "PostScript": ".eps",
    "GIMP": ".xcf",
    "OpenEXR": ".exr",
    "DICOM": ".dcm .dicom",
    "FITS": ".fits",
    "Targa": ".tga",
    "DDS": ".dds",
    "icon": ".ico .icns",
    "QOI": ".qoi",
    "BPG": ".bpg",
    "PCX": ".pcx",
}
_BY_EXTENSION = {extension: name for name, extensions in UNREAD.items() for extension in extensions.split()}
# What a file begins with; where it is not at the beginning, the offset is told.
_READ_BY_CONTENT = ((0, b"\xff\xd8\xff"), (0, b"\x89PNG\r\n\x1a\n"), (0, b"GIF8"), (8, b"WEBP"))
_UNREAD_BY_CONTENT = (
    (0, b"\x00\x00\x00\x0cJXL ", "JPEG XL"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"\x00\x00\x00\x0cjP  ", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"II\xbc", "JPEG XR"),
    (0, b"8BPS", "Photoshop"),
    (0, b"%!PS", "PostScript"),
    (0, b"gimp xcf", "GIMP"),
    (0, b"\x76\x2f\x31\x01", "OpenEXR"),
    (128, b"DICM", "DICOM"),
    (0, b"SIMPLE  =", "FITS"),
    (0, b"DDS ", "DDS"),
    (0, b"\x00\x00\x01\x00", "icon"),
    (0, b"icns", "icon"),
    (0, b"qoif", "QOI"),
    (0, b"BPG\xfb", "BPG"),
    (0, b"II*\x00\x10\x00\x00\x00CR", "camera raw"),  # Canon's
    (0, b"FUJIFILMCCD-RAW", "camera raw"),
    (0, b"IIRO", "camera raw"),
    (0, b"IIU\x00", "camera raw"),
    (0, b"FOVb", "camera raw"),
    (6, b"HEAPCCDR", "camera raw"),
)
_BRANDS = {b"avif": "AVIF", b"avis": "AVIF", b"crx ": "camera raw"}
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1")


@cache
def reads_heic() -> bool:
    """Whether HEIC is read: the user has installed pillow-heif, and it can be loaded."""
    if find_spec("pillow_heif") is None:
        return False
    try:
        importlib.import_module("pillow_heif").register_heif_opener()
    except Exception:  # whatever a library of another machine or version trips over
        return False
    return True


def readable_formats(heic: bool = True) -> tuple[str, ...]:
    """Pillow's names of the formats that are read; without ``heic`` also where pillow-heif is installed."""
    return (*FORMATS, "HEIF") if heic and reads_heic() else FORMATS


def kind_by_name(path: str | Path) -> str | None:
    """As `kind_of_file`, by the extension alone."""
    extension = os.path.splitext(path)[1].lower()
    if extension in EXTENSIONS or (extension in HEIC_EXTENSIONS and reads_heic()):
        return READ
    return _BY_EXTENSION.get(extension)


def kind_of_file(path: str | Path) -> str | None:
    """`READ` for a file that is read as a photo, a key of `UNREAD` for an image that is not read, None for all else."""
    named = kind_by_name(path)
    if named in (None, READ):
        return named
    head = _head(path)
    if any(head[offset:].startswith(magic) for offset, magic in _READ_BY_CONTENT):
        return READ
    return format_by_content(head) or named


def format_by_content(head: bytes) -> str | None:
    """The name, a key of `UNREAD`, of a format that is not read, by a file's first `HEAD` bytes; None of others."""
    if head[4:8] == b"ftyp":
        brands = list(_brands(head))
        known = next((_BRANDS[brand] for brand in brands if brand in _BRANDS), None)
        return known or (HEIC if any(brand in _HEIF_BRANDS for brand in brands) else None)
    if b"<svg" in head and head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        return "SVG"
    return next((name for offset, magic, name in _UNREAD_BY_CONTENT if head[offset:].startswith(magic)), None)


def advice(name: str, heic: bool = True) -> str:
    """What to do about images of a format that is not read."""
    return f"{'install pillow-heif, or ' if name == HEIC and heic else ''}convert them to JPEG or PNG"


def not_read(head: bytes, file: str, heic: bool = True) -> str:
    """The sentence for a file that no decoder knows, by its first `HEAD` bytes."""
    name = format_by_content(head)
    if name is None or name in FORMATS or (name == HEIC and heic and reads_heic()):
        return f"{file} is not a photo in a known format ({', '.join(FORMATS)}), or broken at its start."
    return f"{file} is of a format that is not read ({name}): {advice(name, heic).replace('them', 'it')}."


def _brands(head: bytes) -> Iterator[bytes]:
    """The major and the compatible brands of an ISO base media file."""
    yield head[8:12]
    yield from (head[at : at + 4] for at in range(16, min(len(head), int.from_bytes(head[:4], "big")), 4))


def _head(path: str | Path) -> bytes:
    """A file's first bytes; none where it cannot be opened or is no regular file."""
    try:
        if not os.path.isfile(path):
            return b""
        with open(path, "rb") as file:
            return file.read(HEAD)
    except OSError:
        return b""
