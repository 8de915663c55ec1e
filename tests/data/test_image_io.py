"""Sect. 3.1: decoding, rescaling, cropping and the colour shift."""

from __future__ import annotations

import csv
import io
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from conftest import SHARED
from verydeep.core.errors import ImageError, VerydeepError
from verydeep.core.settings import PIXEL_LIMIT
from verydeep.data.image_io import as_pixels, decode, read_image
from verydeep.data.transforms import (
    centre_crop,
    colour_shift,
    colour_statistics,
    draw_window,
    pixel_sums,
    rescale,
    rescaled_size,
)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    data = io.BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


def ramp(height: int = 20, width: int = 30) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.arange(height * width * 3, dtype=np.uint32).reshape(height, width, 3).astype(np.uint8)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_formats_are_exact(kind: str) -> None:
    np.testing.assert_array_equal(decode(encoded(Image.fromarray(ramp()), kind)), ramp())


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    """The upright picture is light above, dark below and red at the left: so it must come out."""
    upright = np.zeros((24, 36, 3), np.uint8)
    upright[:12] = 200
    upright[:, :6] = (255, 0, 0)
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = Image.fromarray(upright)
    if orientation in undo:
        stored = stored.transpose(undo[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    np.testing.assert_array_equal(decode(encoded(stored, "PNG", exif=exif)), upright)


@settings(max_examples=200, deadline=None)
@given(st.binary(min_size=0, max_size=60), st.booleans())
def test_broken_exif_is_ignored(noise: bytes, orientation: bool) -> None:
    """EXIF that cannot be read says nothing; the pixels are good."""
    header = b"Exif\0\0MM\0*\0\0\0\x08" + (b"\0\x02\x01\x12\0\x03\0\0\0\x01\0\x06\0\0" if orientation else b"")
    photo = encoded(Image.new("RGB", (6, 4), (10, 200, 30)), "JPEG", exif=header + noise)
    assert decode(photo).shape in ((4, 6, 3), (6, 4, 3))


def test_transparency_is_composited_over_white() -> None:
    clear = Image.new("RGBA", (4, 4), (10, 20, 30, 0))
    half = Image.new("RGBA", (4, 4), (0, 0, 0, 128))
    assert (decode(encoded(clear)) == 255).all()
    assert np.abs(decode(encoded(half)).astype(int) - 127).max() <= 1
    grey = Image.new("LA", (4, 4), (7, 0))
    assert (decode(encoded(grey)) == 255).all()
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 9, 9, 9])
    assert (decode(encoded(palette, transparency=1)) == 255).all()
    assert (decode(encoded(palette)) == 9).all()


def test_16_bit_grey_is_scaled_not_clipped() -> None:
    deep = np.array([[0, 257, 32768, 65535]], dtype=np.uint16)
    found = decode(encoded(Image.fromarray(deep)))
    np.testing.assert_array_equal(found[0, :, 0], [0, 1, 128, 255])
    assert found.shape == (1, 4, 3)


def test_cmyk_and_grey_become_rgb() -> None:
    cmyk = Image.new("CMYK", (8, 8), (0, 255, 255, 0))  # magenta and yellow ink: red
    red = decode(encoded(cmyk, "JPEG", quality=95))
    assert red.shape == (8, 8, 3)
    assert red[..., 0].min() > 200
    assert red[..., 1:].max() < 60
    assert (decode(encoded(Image.new("L", (3, 2), 77), "PNG")) == 77).all()
    assert decode(encoded(Image.new("1", (3, 2), 1), "PNG")).shape == (2, 3, 3)


def test_the_content_decides_the_format(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(encoded(Image.fromarray(ramp()), "PNG"))
    np.testing.assert_array_equal(read_image(path), ramp())


def test_first_frame_of_an_animation() -> None:
    frames = [Image.new("L", (5, 5), value) for value in (30, 200)]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert (decode(data) == 30).all()


@pytest.mark.parametrize("transparency", [None, 0])
def test_what_the_frame_of_a_gif_leaves_uncovered_is_white(transparency: int | None) -> None:
    """The frame has 2 x 1 pixels, and the image, by its header, 4 x 2."""
    options = {} if transparency is None else {"transparency": transparency}
    data = encoded(Image.fromarray(np.array([[[9, 9, 9], [200, 0, 0]]], np.uint8)).quantize(2), "GIF", **options)
    read = decode(data[:6] + bytes([4, 0, 2, 0]) + data[10:])
    assert (decode(data) == read[:1, :2]).all()
    read[:1, :2] = 255
    assert read.shape == (2, 4, 3)
    assert (read == 255).all()


def jpeg() -> bytes:
    return encoded(Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)), "JPEG")


def bitfields() -> bytes:
    """A BMP of one pixel whose red has 11 bits."""
    masks = struct.pack("<3I", 0xFFE00000, 0x001FF800, 0x000007FF)
    return b"BM" + struct.pack("<IIIIiiHHIIiiII", 70, 0, 66, 40, 1, 1, 1, 32, 3, 4, 0, 0, 0, 0) + masks + bytes(4)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "empty file"),
        (b"not a photo at all", "not an image in a known format"),
        (jpeg()[:-200], "corrupted"),
        (encoded(Image.new("RGB", (9, 9)))[:40], "corrupted"),
        (jpeg().replace(b"\xff\xc0\x00\x11\x08", b"\xff\xc0\x00\x11\x0c"), "a JPEG image, .* 12 bits a sample"),
        (bitfields(), "of a kind that is not supported .*: save it as JPEG or PNG"),
        (b"<svg></svg>", r"an unsupported format \(SVG\)"),
    ],
)
def test_errors_name_the_file(data: bytes, says: str) -> None:
    with pytest.raises(ImageError, match=f"kitten.jpg.*{says}"):
        decode(data, "kitten.jpg")


def test_a_bomb_is_refused_before_it_is_decoded() -> None:
    side = int(PIXEL_LIMIT**0.5) + 1
    header = f"P6 {side} {side} 255\n".encode()
    with pytest.raises(ImageError, match="more than 89,478,485 pixels"):
        decode(header + b"\0" * 100)
    with pytest.raises(ImageError):
        decode(b"P6 900000 900000 255\n" + b"\0" * 100)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"cannot read .*gone\.jpg"):
        read_image(tmp_path / "gone.jpg")


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=300), st.integers(0, 60))
def test_any_bytes_decode_or_raise_one_exception(noise: bytes, cut: int) -> None:
    for data in (noise, jpeg()[: 200 + cut] + noise, encoded(Image.new("P", (9, 9)))[:cut] + noise):
        try:
            found = decode(data)
        except ImageError as fault:
            assert "\n" not in str(fault)
        else:
            assert found.dtype == np.uint8
            assert found.shape[2] == 3


def odd_images() -> list[tuple[str, str]]:
    index = SHARED / "external" / "odd_images" / "INDEX.tsv"
    if not index.exists():
        return []
    with index.open() as file:
        return [(row["file"], row["action"]) for row in csv.DictReader(file, delimiter="\t")]


@pytest.mark.skipif(not odd_images(), reason="the odd photos are not on this machine")
def test_public_broken_images() -> None:
    folder = SHARED / "external" / "odd_images"
    assert len(odd_images()) == 30
    for name, action in odd_images():
        try:
            found = read_image(folder / name)
            assert action in ("LOAD", "EITHER"), name
            assert found.shape[2] == 3
        except ImageError as fault:
            assert action in ("REJECT", "EITHER"), (name, fault)
    upright = [read_image(folder / f"exif{number}.jpg").astype(int) for number in (2, 5, 8)]
    assert max(np.abs(upright[0] - other).mean() for other in upright[1:]) < 4
    difference = read_image(folder / "cmyk_logo.jpg").astype(int) - read_image(folder / "rgb_ref.jpg")
    assert np.abs(difference).mean() < 10


PNGSUITE = SHARED / "external" / "pngsuite"


@pytest.mark.skipif(not PNGSUITE.exists(), reason="PngSuite is not on this machine")
def test_all_of_pngsuite_is_read_as_an_independent_decoder_does() -> None:
    """Where a pixel is opaque within 1; the broken files are refused. 16-bit grey is scaled, which Pillow clips."""
    expected = np.load(PNGSUITE / "expected_rgba.npz")
    read, refused = 0, []
    for path in sorted((PNGSUITE / "png").glob("*.png")):
        try:
            found = read_image(path)
        except ImageError:
            refused.append(path.stem)
            continue
        opaque = expected[path.stem][..., 3] == 255
        difference = np.abs(found.astype(int) - expected[path.stem][..., :3].astype(int))[opaque]
        assert difference.size == 0 or difference.max() <= 1, path.stem
        read += 1
    assert read == len(expected.files) == 162
    assert len(refused) == 13
    assert not set(refused) & set(expected.files)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(32, 600))
def test_the_smallest_side_becomes_s_and_the_ratio_stays(height: int, width: int, smallest: int) -> None:
    new_height, new_width = rescaled_size(height, width, smallest)
    assert min(new_height, new_width) == smallest
    longer, shorter = max(height, width), min(height, width)
    assert abs(max(new_height, new_width) - longer * smallest / shorter) <= 0.5 + 1e-9
    assert (new_height >= new_width) == (height >= width) or new_height == new_width


def test_the_other_side_may_be_truncated_and_the_filter_chosen() -> None:
    assert rescaled_size(300, 401, 256) == (256, 342)  # 342.19
    assert rescaled_size(300, 402, 256, "truncate") == (256, 343)  # 343.04
    assert rescaled_size(300, 403, 256) == (256, 344)  # 343.89
    assert rescaled_size(300, 403, 256, "truncate") == (256, 343)
    edge = np.zeros((40, 40, 3), np.uint8)
    edge[:, 20:] = 200
    found = [rescale(edge, 64, name) for name in ("bilinear", "bicubic")]
    assert not np.array_equal(found[0], found[1])


def test_rescale_keeps_a_constant_and_averages_when_shrinking() -> None:
    assert (rescale(np.full((90, 70, 3), 123, np.uint8), 33) == 123).all()
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 200
    small = rescale(stripes, 16).astype(int)
    assert np.abs(small[2:-2, 2:-2] - 100).max() <= 2  # antialiased: neither 0 nor 200
    same = ramp()
    assert rescale(same, 20) is same


def test_a_strip_is_refused() -> None:
    with pytest.raises(ImageError, match="aspect ratio above 50"):
        rescale(np.zeros((2, 200, 3), np.uint8), 32)


def test_centre_crop() -> None:
    found = centre_crop(ramp(20, 31), 10)
    np.testing.assert_array_equal(found, ramp(20, 31)[5:15, 10:20])


def test_random_crops_reach_every_place_and_mirror_half_of_the_time() -> None:
    pixels = ramp(12, 14)
    rng = np.random.default_rng(1)
    places = set()
    mirrored = 0
    for _ in range(2000):
        crop = draw_window(12, 14, 10, rng).cut(pixels, 10)
        found = [
            (top, left, flip)
            for top in range(3)
            for left in range(5)
            for flip in (False, True)
            if np.array_equal(pixels[top : top + 10, left : left + 10][:, :: -1 if flip else 1], crop)
        ]
        assert len(found) == 1
        places.add(found[0])
        mirrored += found[0][2]
    assert len(places) == 30
    assert 900 < mirrored < 1100


def test_a_crop_larger_than_the_photo_is_refused() -> None:
    with pytest.raises(VerydeepError, match="smaller than the crop of 32"):
        draw_window(20, 40, 32, np.random.default_rng(0))


def test_mean_and_colour_axes_are_those_of_the_pixels() -> None:
    rng = np.random.default_rng(2)
    photos = [rng.integers(0, 256, (8, 9, 3)).astype(np.uint8) for _ in range(5)]
    mean, axes = colour_statistics(np.mean([pixel_sums(photo) for photo in photos], axis=0))
    flat = np.concatenate([photo.reshape(-1, 3) for photo in photos]).astype(float)
    np.testing.assert_allclose(mean, flat.mean(axis=0))
    np.testing.assert_allclose(axes @ axes.T, np.cov(flat.T, bias=True))
    lengths = np.linalg.norm(axes, axis=0)
    assert (np.diff(lengths) <= 0).all()


def imagenet_axes() -> np.ndarray[Any, np.dtype[np.float64]]:
    """ILSVRC's published eigenvalues (colours in [0,1]) and eigenvectors (columns), in grey levels."""
    values = np.array([0.2175, 0.0188, 0.0045])
    vectors = np.array([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]])
    return np.asarray(vectors * np.sqrt(values) * 255)


@pytest.mark.parametrize(("convention", "levels"), [("sqrt", 7.2), ("eigenvalue", 3.2), ("off", 0.0)])
def test_colour_shift_has_the_published_size(convention: Any, levels: float) -> None:
    """About 7.2 grey levels with square roots, 3.2 with eigenvalues (root mean square over channels)."""
    rng = np.random.default_rng(3)
    shifts = np.array([colour_shift(imagenet_axes(), convention, rng) for _ in range(20_000)])
    assert np.sqrt((shifts**2).mean()) == pytest.approx(levels, abs=0.1)


def test_colour_shift_moves_along_the_columns() -> None:
    """The trap: shift_c = sum_j V[c,j]·alpha_j·s_j, eigenvectors in the columns."""
    axes = imagenet_axes()
    for convention, lengths in (("sqrt", np.sqrt([0.2175, 0.0188, 0.0045])), ("eigenvalue", [0.2175, 0.0188, 0.0045])):
        alpha = np.random.default_rng(7).normal(0, 0.1, 3)
        vectors = axes / np.linalg.norm(axes, axis=0)
        expected = [255 * sum(vectors[c, j] * alpha[j] * lengths[j] for j in range(3)) for c in range(3)]
        found = colour_shift(axes, convention, np.random.default_rng(7))  # type: ignore[arg-type]
        np.testing.assert_allclose(found, expected, rtol=0.002, atol=0.01)


def test_published_pca_values_agree_with_the_ones_typed_here() -> None:
    path = SHARED / "external" / "pca_colour.json"
    if not path.exists():
        pytest.skip("the published colour axes are not on this machine")
    stored = json.loads(path.read_text())
    vectors = np.array(stored["eigvec_columns_are_components"])
    np.testing.assert_allclose(imagenet_axes(), vectors * np.sqrt(stored["eigval"]) * 255)


def test_images_in_memory() -> None:
    pixels = ramp()
    for held in (pixels, Image.fromarray(pixels), torch.from_numpy(pixels), torch.from_numpy(pixels).permute(2, 0, 1)):
        np.testing.assert_array_equal(as_pixels(held), pixels)
    np.testing.assert_array_equal(as_pixels(encoded(Image.fromarray(pixels))), pixels)
    assert as_pixels(pixels[:, :, 0]).shape == (20, 30, 3)
    grey = pixels[:, :, :1]
    for held in (grey, grey.transpose(2, 0, 1), torch.from_numpy(grey.copy())):
        np.testing.assert_array_equal(as_pixels(held), np.repeat(grey, 3, axis=2))


@pytest.mark.parametrize(
    ("held", "says"),
    [
        (
            np.full((4, 4, 3), 0.5, np.float32),
            "image is an array of float32 from 0.5 to 0.5: pass uint8 values from 0 to 255",
        ),
        (torch.ones(3, 4, 4), "array of float32 from 1 to 1"),  # 1 may be white or nearly black
        (np.zeros((4, 4, 3), np.int64), "array of int64 from 0 to 0"),
        (np.zeros((4, 4, 3), bool), "array of bool"),
        (np.zeros((4, 4, 5), np.uint8), r"has shape \(4, 4, 5\): expected"),
        (np.zeros((4, 4, 4), np.uint8), r"has shape \(4, 4, 4\)"),  # RGBA, BGRA or CMYK
        (np.zeros((0, 4, 3), np.uint8), r"has shape \(0, 4, 3\)"),
        (np.uint8(3), "image is a uint8: pass a path"),
        (None, "image is a NoneType: pass a path"),
        ({"a.jpg"}, "image is a set"),
        (io.StringIO("x"), 'a file opened as text: open it with "rb"'),
    ],
)
def test_objects_that_are_not_images_are_refused(held: object, says: str) -> None:
    with pytest.raises(TypeError, match=says) as raised:
        as_pixels(held)
    assert isinstance(raised.value, ImageError)  # as it was, for those who catch that
