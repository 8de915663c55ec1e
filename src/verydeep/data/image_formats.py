"""Image formats: the supported ones, and others that are only recognised, so that messages can name them.

The content of a file decides its format when it is opened. Folders are listed by file extension, as opening every file
would take too long; only files with the extension of an unsupported format are opened, as many ``.heic`` files are
JPEGs. Most camera raw files are TIFF inside, so their extension decides.
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
HEAD = 512  # bytes that identify every format below

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
# The offset and bytes that identify a format.
_READ_BY_CONTENT = (
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    (0, b"GIF8", "GIF"),
    (8, b"WEBP", "WebP"),
)
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
    """Whether HEIC is supported: pillow-heif is installed and can be loaded."""
    if find_spec("pillow_heif") is None:
        return False
    try:
        importlib.import_module("pillow_heif").register_heif_opener()
    except Exception:  # of a library for another machine or version
        return False
    return True


def readable_formats(heic: bool = True) -> tuple[str, ...]:
    """Pillow's names of the supported formats; HEIC only with ``heic`` and pillow-heif."""
    return (*FORMATS, "HEIF") if heic and reads_heic() else FORMATS


def kind_by_name(path: str | Path) -> str | None:
    """As `kind_of_file`, by the extension only."""
    extension = os.path.splitext(path)[1].lower()
    if extension in EXTENSIONS or (extension in HEIC_EXTENSIONS and reads_heic()):
        return READ
    return _BY_EXTENSION.get(extension)


def kind_of_file(path: str | Path) -> str | None:
    """`READ` for a supported image, a key of `UNREAD` for an unsupported one, None for any other file."""
    kind = kind_by_name(path)
    if kind in (None, READ):
        return kind
    head = _head(path)
    return READ if _named(head, _READ_BY_CONTENT) else format_by_content(head) or kind


def format_by_content(head: bytes) -> str | None:
    """The unsupported format, a key of `UNREAD`, of a file's first `HEAD` bytes; None for other files."""
    if head[4:8] == b"ftyp":
        brands = list(_brands(head))
        known = next((_BRANDS[brand] for brand in brands if brand in _BRANDS), None)
        return known or (HEIC if any(brand in _HEIF_BRANDS for brand in brands) else None)
    if b"<svg" in head and head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        return "SVG"
    return _named(head, _UNREAD_BY_CONTENT)


def _named(head: bytes, formats: tuple[tuple[int, bytes, str], ...]) -> str | None:
    return next((name for offset, magic, name in formats if head[offset:].startswith(magic)), None)


def advice(name: str, heic: bool = True) -> str:
    """What to do about images in an unsupported format."""
    return f"{'install pillow-heif, or ' if name == HEIC and heic else ''}convert them to JPEG or PNG"


def not_read(head: bytes, file: str, heic: bool = True) -> str:
    """The message for a file that no decoder recognises, by its first `HEAD` bytes."""
    supported = _named(head, _READ_BY_CONTENT)
    if supported:
        return (
            f"{file} begins as a {supported} image, but is corrupted at its start, or of a rare kind such as 12 bits a "
            "sample: save it as an ordinary JPEG or PNG."
        )
    name = format_by_content(head)
    if name is None or name in FORMATS or (name == HEIC and heic and reads_heic()):
        return f"{file} is not an image in a known format ({', '.join(FORMATS)}), or corrupted at its start."
    return f"{file} is in an unsupported format ({name}): {advice(name, heic).replace('them', 'it')}."


def _brands(head: bytes) -> Iterator[bytes]:
    """The major and the compatible brands of an ISO base media file."""
    yield head[8:12]
    yield from (head[at : at + 4] for at in range(16, min(len(head), int.from_bytes(head[:4], "big")), 4))


def _head(path: str | Path) -> bytes:
    """A file's first bytes; empty if it cannot be opened or is not a regular file."""
    try:
        if not os.path.isfile(path):
            return b""
        with open(path, "rb") as file:
            return file.read(HEAD)
    except OSError:
        return b""
