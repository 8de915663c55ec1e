"""Photos with more pixels, texts and profiles than usual: what is read, what is refused, and by which setting."""

from __future__ import annotations

import io
import json
import multiprocessing
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from conftest import make_photos, paint, run_command
from verydeep.core.device import LoaderSettings
from verydeep.core.errors import ImageError, SizeError
from verydeep.core.pixel_limit import allow_pixels, most_pixels
from verydeep.core.settings import PIXEL_LIMIT
from verydeep.data.dataloader import _Each
from verydeep.data.dataset import Dataset, FolderSource
from verydeep.data.image_io import declared_pixels, decode, image_size, without_large_texts
from verydeep.data.transforms import reduced
from verydeep.data.workers import Fault, WatchedLoader

FAST = ("--workers", 0, "--threads", 1)
MEGABYTE = 2**20
PIXELS = np.arange(6 * 4 * 3, dtype=np.uint8).reshape(6, 4, 3)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(before: bytes = b"", after: bytes = b"", pixels: Any = PIXELS) -> bytes:
    """A PNG with chunks of our own before and after its pixels."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    data = file.getvalue()
    start, end = data.index(b"IDAT") - 4, data.index(b"IEND") - 4
    return data[:start] + before + data[start:end] + after + data[end:]


def packed(size: int) -> bytes:
    return zlib.compress(b"x" * size)


def text_of(keyword: bytes, content: bytes) -> bytes:
    """A packed international text: flag 1, method 0, no language, no translated keyword."""
    return chunk(b"iTXt", keyword + b"\0\1\0\0\0" + content)


XMP = b"XML:com.adobe.xmp"
TURN = b'<x tiff:Orientation="6"/>'  # a quarter to the right
EXIF = Image.Exif()
EXIF[0x0112] = 6
TURNED = np.rot90(PIXELS, -1)
RAW_EXIF = b"\nexif\n      26\n" + EXIF.tobytes().hex().encode() + b"\n"
# What a PNG holds beside its pixels, and whether it is turned by it. Pillow's limits are 1 MB a text, 64 MB in all.
BESIDE = {
    "a packed text of 3 MB": (chunk(b"zTXt", b"Comment\0\0" + packed(3 * MEGABYTE)), False),
    "an international text of 3 MB": (text_of(b"Comment", packed(3 * MEGABYTE)), False),
    "a colour profile of 3 MB": (chunk(b"iCCP", b"wide\0\0" + packed(3 * MEGABYTE)), False),
    "texts of 72 MB in all": (chunk(b"zTXt", b"C\0\0" + packed(MEGABYTE - 1)) * 72, False),
    "a text of 65 MB as it is": (chunk(b"tEXt", b"C\0" + b"x" * 65 * MEGABYTE), False),
    "a text that unpacks to a gigabyte": (chunk(b"zTXt", b"C\0\0" + packed(1000 * MEGABYTE)), False),
    "a turn in EXIF, and a large profile": (
        chunk(b"eXIf", EXIF.tobytes()[6:]) + chunk(b"iCCP", b"wide\0\0" + packed(3 * MEGABYTE)),
        True,
    ),
    "a turn in XMP, and a large text": (
        chunk(b"iTXt", XMP + b"\0\0\0\0\0" + TURN) + chunk(b"zTXt", b"C\0\0" + packed(3 * MEGABYTE)),
        True,
    ),
    "a turn in packed XMP": (text_of(XMP, zlib.compress(TURN)), True),
    "a turn in ImageMagick's text": (chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(RAW_EXIF)), True),
    "XMP that unpacks to 3 MB": (text_of(XMP, packed(3 * MEGABYTE)), False),
    "XMP that does not unpack": (text_of(XMP, b"no zlib"), False),
}


@pytest.mark.parametrize("name", BESIDE)
@pytest.mark.parametrize("where", ["before", "after"])
def test_large_texts_and_profiles_do_not_make_a_png_unreadable(tmp_path: Path, name: str, where: str) -> None:
    beside, turned = BESIDE[name]
    data = png(**{where: beside})
    expected = TURNED if turned else PIXELS
    np.testing.assert_array_equal(decode(data), expected)
    assert declared_pixels(data) == 24
    (tmp_path / "a.png").write_bytes(data)
    assert image_size(tmp_path / "a.png") == expected.shape[:2]
    assert reduced(data, "a", 4, "bilinear", "round").photo == expected.shape[:2]


def test_only_large_texts_and_profiles_are_removed() -> None:
    plain = png(chunk(b"tEXt", b"a\0b"), chunk(b"iCCP", b"c\0\0" + packed(MEGABYTE)))
    assert without_large_texts(plain) == plain
    large = chunk(b"zTXt", b"a\0\0" + packed(MEGABYTE + 1))
    assert without_large_texts(png(large, large)) == png()
    odd = png(chunk(b"zTXt", b"C\0\7abc"))  # of no known method: Pillow says so, as before
    with pytest.raises(ImageError, match="corrupted at its start"):
        decode(odd)
    torn = png(chunk(b"tEXt", b"a\0" + b"b" * 99))
    torn = torn[: torn.index(b"b" * 99) + 9]
    assert without_large_texts(torn) == torn
    with pytest.raises(ImageError, match="corrupted"):
        decode(torn)
    jpeg = io.BytesIO()
    Image.fromarray(PIXELS).save(jpeg, "JPEG", icc_profile=bytes(3 * MEGABYTE))
    assert without_large_texts(jpeg.getvalue()) == jpeg.getvalue()
    assert decode(jpeg.getvalue()).shape == PIXELS.shape


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Limits as they were, afterwards."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
    yield
    allow_pixels(PIXEL_LIMIT)


@pytest.mark.usefixtures("limit")
def test_the_limit_holds_for_every_way_to_decode(tmp_path: Path) -> None:
    huge = b"P5 20000 20000 255\n"  # 400 megapixels, beyond what Pillow opens by default
    (tmp_path / "huge.ppm").write_bytes(huge)
    with pytest.raises(SizeError, match=r"more than 89,478,485 pixels, the limit: .* or raise --max-pixels"):
        decode(huge)
    with pytest.raises(ImageError, match="cannot be read"):
        image_size(tmp_path / "huge.ppm")
    assert declared_pixels(huge) > most_pixels()
    allow_pixels(500_000_000)
    assert image_size(tmp_path / "huge.ppm") == (20000, 20000)
    assert declared_pixels(huge) == 400_000_000
    with pytest.raises(ImageError, match="corrupted"):  # it has no pixels
        decode(huge)
    allow_pixels(23)
    for read in (decode, lambda data: reduced(data, "a", 4, "bilinear", "round")):
        with pytest.raises(SizeError, match="more than 23 pixels"):
            read(png())
    jpeg = io.BytesIO()
    Image.fromarray(PIXELS).save(jpeg, "JPEG")
    with pytest.raises(SizeError):
        reduced(jpeg.getvalue(), "a", 4, "bilinear", "round")


@pytest.mark.parametrize("way", ["fork", "spawn"])
@pytest.mark.usefixtures("limit")
def test_workers_have_the_limit(tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    paint(tmp_path / "a.png", 0, (1, 2, 3))
    dataset = Dataset("x", "train", ("c",), ("a.png",), np.zeros(1, dtype=np.int64), FolderSource(tmp_path))
    allow_pixels(48 * 40 - 1)
    monkeypatch.setattr("verydeep.data.workers.multiprocessing", multiprocessing.get_context(way))
    (found,) = WatchedLoader(_Each(dataset, np.mean), range(1), dataset.where, LoaderSettings(1))
    assert isinstance(found, Fault)
    assert "more than 1,919 pixels" in found.message


def test_an_image_of_90_megapixels_is_read_on_request(trained: Path, tmp_path: Path) -> None:
    Image.new("1", (9500, 9500)).save(tmp_path / "large.png")
    refused = run_command("predict", trained, tmp_path / "large.png", *FAST).mistake()
    assert refused.endswith("has more than 89,478,485 pixels, the limit: make it smaller, or raise --max-pixels.")
    answer = run_command("predict", trained, tmp_path / "large.png", "--max-pixels", 100_000_000, *FAST, "--json")
    assert answer.status == 0, answer.stderr
    assert len(json.loads(answer.stdout)[0]["predictions"]) == 3


def test_the_setting_reaches_every_command_that_reads_photos(trained: Path, tmp_path: Path) -> None:
    """Lowered, as no photo of a test is large: photos have 1,920 and 2,080 pixels."""
    photos = make_photos(tmp_path / "photos", per_class=4)
    few = ("--max-pixels", 2000)
    checked = run_command("data", "check", photos, *few)
    assert checked.status == 2
    assert "unreadable images: 6" in checked.stdout
    sentence = "has more than 2,000 pixels"
    words: list[list[object]] = [
        ["evaluate", trained, "centre@36", "--data", photos, "--workers", 2, "--threads", 1],
        ["train", "A", "--data", photos, "--crop", 32, "--width", 0.03125, "--S", 36, "--start", "none", *FAST],
        ["features", trained, "--data", photos, "--out", "f.safetensors", "--scales", 36, *FAST],
        ["data", "pack", photos, "pack", "--size", 36, "--workers", 0],
        ["predict", trained, photos / "red" / "001.png", *FAST],
    ]
    for typed in words:
        assert sentence in run_command(*typed, *few, cwd=tmp_path).mistake(), typed
    assert run_command("data", "show", photos, "--crop", 32, "--S", 36, *few, cwd=tmp_path).status == 0  # of the others


@pytest.mark.parametrize("value", ["-1", "9999999999", "many", "1.5"])
def test_invalid_numbers_of_pixels(trained: Path, value: str) -> None:
    told = run_command("predict", trained, "a.png", f"--max-pixels={value}").mistake()
    assert "max-pixels" in told
