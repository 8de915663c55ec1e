"""Sect. 3.1: transforms of images: rescaling, random crops, mirroring, colour shift; random generators are passed in.

A training crop is cut from an image at a training scale. ``whole`` decodes and rescales the whole image, then crops;
``reduced`` decodes a JPEG at a half, a quarter or an eighth of its size if that is still large enough, and rescales
only the crop: the same crop up to rounding and the averaging of the coarser decoding, and much faster for large images.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..core.errors import ImageError, VerydeepError
from ..core.pixel_limit import most_pixels
from .image_io import Pixels, decode, open_photo, orientation

ColourShift = Literal["sqrt", "eigenvalue", "off"]
Resampling = Literal["bilinear", "bicubic"]
OtherSide = Literal["round", "truncate"]
Decoding = Literal["whole", "reduced"]
MARGIN = 2  # factor by which the sides of a coarse decoding exceed the rescaled size at least (NOTES.md)
FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
LONGEST_RATIO = 50


def rescaled_size(height: int, width: int, smallest: int, other_side: OtherSide = "round") -> tuple[int, int]:
    """Height and width after isotropic rescaling to a smallest side (Sect. 3.1).

    The other side is rounded to the nearest pixel, or truncated as in most ports, but is never below ``smallest``.
    """
    more = 0.5 if other_side == "round" else 0.0
    if height <= width:
        return smallest, max(smallest, int(width * smallest / height + more))
    return max(smallest, int(height * smallest / width + more)), smallest


def check_ratio(shape: tuple[int, ...]) -> None:
    """Raises ImageError for a narrow strip (H,W), which would not fit into memory after rescaling."""
    if max(shape[:2]) > LONGEST_RATIO * min(shape[:2]):
        size = f"{shape[1]}x{shape[0]}"
        raise ImageError(f"an image of {size} pixels has an aspect ratio above {LONGEST_RATIO}: crop it.")


def rescale(
    pixels: Pixels, smallest: int, resampling: Resampling = "bilinear", other_side: OtherSide = "round"
) -> Pixels:
    """Rescales isotropically to a smallest side of S or Q pixels, antialiased; raises ImageError as `check_ratio`."""
    check_ratio(pixels.shape)
    height, width = rescaled_size(pixels.shape[0], pixels.shape[1], smallest, other_side)
    if (height, width) == pixels.shape[:2]:
        return pixels
    image = Image.fromarray(pixels).resize((width, height), FILTERS[resampling])
    return np.asarray(image, dtype=np.uint8)


def centre_crop(pixels: Pixels, crop: int) -> Pixels:
    """The central ``crop`` x ``crop`` pixels; an odd pixel is left over below and to the right."""
    top, left = (pixels.shape[0] - crop) // 2, (pixels.shape[1] - crop) // 2
    return pixels[top : top + crop, left : left + crop]


@dataclass(frozen=True)
class Window:
    """The place of a crop in a rescaled image: its top and left pixel, and whether it is mirrored."""

    top: int
    left: int
    mirrored: bool

    def cut(self, pixels: Pixels, crop: int) -> Pixels:
        """The pixels of the crop; a view, not a copy."""
        cropped = pixels[self.top : self.top + crop, self.left : self.left + crop]
        return cropped[:, ::-1] if self.mirrored else cropped


def draw_window(height: int, width: int, crop: int, rng: np.random.Generator, mirror: bool = True) -> Window:
    """Draws a random crop, mirrored half of the time (Sect. 3.1); raises VerydeepError if the image is smaller."""
    if min(height, width) < crop:
        raise VerydeepError(f"an image of {width}x{height} pixels is smaller than the crop of {crop}.")
    top, left = int(rng.integers(0, height - crop + 1)), int(rng.integers(0, width - crop + 1))
    return Window(top, left, mirror and bool(rng.random() < 0.5))


class Rescaled(Protocol):
    """An image of ``photo`` pixels (H,W) at a scale at which it has ``size`` pixels (H,W)."""

    photo: tuple[int, int]
    size: tuple[int, int]

    def cut(self, window: Window, crop: int) -> Pixels:
        """A crop, uint8 (crop,crop,3)."""


class Whole:
    """A completely rescaled image; raises ImageError for a strip."""

    def __init__(self, pixels: Pixels, scale: int, resampling: Resampling, other_side: OtherSide) -> None:
        self._pixels = rescale(pixels, scale, resampling, other_side)
        self.photo = (pixels.shape[0], pixels.shape[1])
        self.size = (self._pixels.shape[0], self._pixels.shape[1])

    def cut(self, window: Window, crop: int) -> Pixels:
        """The pixels of the crop; a view."""
        return window.cut(self._pixels, crop)


class Reduced:
    """An upright RGB or grey JPEG that is decoded when the crop is known."""

    def __init__(self, image: Image.Image, scale: int, resampling: Resampling, other_side: OtherSide) -> None:
        self._image, self._filter = image, FILTERS[resampling]
        self.photo = (image.height, image.width)
        check_ratio(self.photo)
        self.size = rescaled_size(*self.photo, scale, other_side)

    def cut(self, window: Window, crop: int) -> Pixels:
        """The crop, rescaled from a decoding that is as coarse as possible; raises ImageError."""
        height, width = self.size
        try:
            drafted = self._image.draft(self._image.mode, (round(MARGIN * width), round(MARGIN * height)))
            # The last pixels of a coarse decoding may extend beyond the image.
            decoded = self._image.size if drafted is None else drafted[1][2:]
            across, down = decoded[0] / width, decoded[1] / height
            box = (window.left * across, window.top * down, (window.left + crop) * across, (window.top + crop) * down)
            rescaled = self._image.resize((crop, crop), self._filter, box=box).convert("RGB")
        except (OSError, ValueError, SyntaxError) as fault:
            raise ImageError(f"corrupted and cannot be decoded ({str(fault)[:120]}).") from None
        pixels = np.asarray(rescaled)
        return pixels[:, ::-1] if window.mirrored else pixels


def reduced(data: bytes, name: str, scale: int, resampling: Resampling, other_side: OtherSide) -> Rescaled:
    """An image from its encoded bytes, `Reduced` if it is a plain JPEG, else `Whole`; raises ImageError as `decode`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image = open_photo(data)
            plain = image.format == "JPEG" and image.mode in ("RGB", "L") and orientation(image) in (0, 1)
            if plain and image.width * image.height <= most_pixels():
                return Reduced(image, scale, resampling, other_side)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            pass  # decoding the whole image raises an error that says what is wrong
    return Whole(decode(data, name), scale, resampling, other_side)


def pixel_sums(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The mean colour of an image and the mean outer product of its colours, (12,), from which PCA is computed."""
    flat = pixels.reshape(-1, 3).astype(np.float64)
    return np.concatenate([flat.mean(axis=0), (flat.T @ flat / len(flat)).ravel()])


def colour_statistics(sums: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean RGB (3,) and colour axes (3,3) of a training set, with equal weight for each image.

    Args:
        sums: the images' `pixel_sums` averaged over the set, (12,).

    Returns:
        The mean, and a matrix whose columns are the eigenvectors of the colours' covariance, scaled by the square roots
        of their eigenvalues, in grey levels, largest first.
    """
    mean, second = sums[:3], sums[3:].reshape(3, 3)
    values, vectors = np.linalg.eigh(second - np.outer(mean, mean))
    order = np.argsort(values)[::-1]
    axes = vectors[:, order] * np.sqrt(np.maximum(values[order], 0))
    signs = np.sign(axes[np.abs(axes).argmax(axis=0), range(3)])  # eigh does not define them
    return mean, axes * np.where(signs == 0, 1, signs)


def colour_shift(
    axes: NDArray[np.float64], convention: ColourShift, rng: np.random.Generator, sigma: float = 0.1
) -> NDArray[np.float32]:
    """A random RGB shift in grey levels, (3,): alpha ~ N(0, sigma) is drawn for each colour axis.

    ``sqrt`` shifts along an axis by alpha times the square root of its eigenvalue (Krizhevsky's and Oxford's code);
    ``eigenvalue`` by alpha times the eigenvalue of colours in [0, 1] (the text of Krizhevsky et al. 2012), in grey
    levels; ``off`` draws the same numbers and returns zeros.
    """
    alpha = rng.normal(0.0, sigma, 3)
    if convention == "sqrt":
        return np.asarray(axes @ alpha, dtype=np.float32)
    if convention == "eigenvalue":
        lengths = np.linalg.norm(axes, axis=0)  # sqrt of eigenvalue, grey levels
        return np.asarray((axes * (lengths / 255)) @ alpha, dtype=np.float32)
    return np.zeros(3, dtype=np.float32)
