"""`digits`, the built-in dataset: synthetic scenes with one real handwritten digit each.

The 1,797 handwritten digits (8x8, UCI "Optical Recognition of Handwritten Digits", CC BY 4.0, the copy that
scikit-learn ships) are split: the scenes of `train`, `dev` and `val` show different digits. A scene is a pure function
of its set and number: a textured background, and a digit of random scale, place, colour and shade. Its box is the
bounding box of the ink.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...core.errors import VerydeepError
from ...core.settings import DataSettings
from ..dataset import Data, Dataset, ImageSource, NamedBox
from ..image_io import Pixels

NAMES = ("digits",)

SETS = {"train": 6000, "dev": 1000, "val": 2000}  # scenes
PARTS = {"train": (0, 1197), "dev": (1197, 1397), "val": (1397, 1797)}  # of the shuffled digits
LEAST = 60
SMALLEST_SIDE = 96
SIDES = (96, 112, 128)  # of the other side: square to 4:3, as photos are
CLASSES = tuple(str(digit) for digit in range(10))
_SHUFFLE = 1797


Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class _Drawn:
    """The random numbers of a scene, except for the digit's colour, which ``rng`` draws next."""

    slopes: tuple[float, float]
    waves: list[tuple[float, float, float, float]]  # periods, angle, phase, amplitude
    tint: NDArray[np.float32]
    base: NDArray[np.float32]
    grain: NDArray[np.float32]
    x: int
    y: int
    ink: NDArray[np.float32]
    rng: np.random.Generator

    @property
    def box(self) -> Box:
        """The bounding box of the ink."""
        visible = self.ink > 0.5
        rows, columns = np.nonzero(visible.any(axis=1))[0], np.nonzero(visible.any(axis=0))[0]
        low, high = (self.x + columns[0], self.y + rows[0]), (self.x + columns[-1] + 1, self.y + rows[-1] + 1)
        return (float(low[0]), float(low[1]), float(high[0]), float(high[1]))


@dataclass(frozen=True)
class SceneReader(ImageSource):
    """Computes the scene of an id such as ``val/00012``."""

    def read(self, image_id: str) -> Pixels:
        """uint8 RGB (H,W,3)."""
        return _cached_scene(image_id).copy()

    def size(self, image_id: str) -> tuple[int, int]:
        """Height and width, without computing the scene."""
        set_name, number = _split_id(image_id)
        return _size(_generator(set_name, number))


def _scene_boxes(image_id: str) -> list[NamedBox]:
    """The box of a scene's digit."""
    set_name, number = _split_id(image_id)
    digit = digit_shown(set_name, number)
    return [NamedBox(CLASSES[int(_digits()[1][digit])], _draw(set_name, number).box)]


def open_named(name: str, _root: Path | None, _settings: DataSettings) -> Data:
    """The three sets, whose split is fixed.

    ``digits:600`` has 600 training scenes and the other sets in proportion, for quick experiments.

    Raises:
        VerydeepError: an invalid number of scenes.
    """
    number = name.partition(":")[2] or str(SETS["train"])
    if not number.isdecimal() or not LEAST <= int(number) <= SETS["train"]:
        raise VerydeepError(f"{name}: the number of training scenes must be {LEAST} to {SETS['train']}.")
    share = int(number) / SETS["train"]
    counts = {set_name: math.ceil(count * share) for set_name, count in SETS.items()}
    return Data(name, {set_name: _open_set(name, set_name, count) for set_name, count in counts.items()}, False)


def _open_set(name: str, set_name: str, count: int) -> Dataset:
    subjects = np.array([digit_shown(set_name, index) for index in range(count)], dtype=np.int64)
    labels = _digits()[1][subjects].astype(np.int64)
    ids = tuple(f"{set_name}/{index:05d}" for index in range(count))
    return Dataset(name, set_name, CLASSES, ids, labels, SceneReader(), subjects=subjects, find_boxes=_scene_boxes)


def digit_shown(set_name: str, index: int) -> int:
    """Which of the 1,797 handwritten digits a scene shows; scenes share digits within a set only."""
    first, end = PARTS[set_name]
    return int(_order()[first + index % (end - first)])


def scene(set_name: str, index: int) -> tuple[Pixels, Box]:
    """A scene, uint8 (H,W,3), and its digit's box: xmin, ymin, xmax, ymax in continuous pixels."""
    drawn = _draw(set_name, index)
    image = _background(drawn)
    _paint(image, drawn.ink, drawn.x, drawn.y, drawn.rng)
    return _as_pixels(image), drawn.box


def scene_of(shown: Sequence[tuple[int, int, int]], rng: np.random.Generator) -> Pixels:
    """A scene of several digits side by side, uint8 (`SMALLEST_SIDE`, W,3), which the digits of `val` are drawn for.

    Args:
        shown: of each digit its value, its side in pixels, at most `SMALLEST_SIDE`, and the left edge of its place.
    """
    index = int(rng.integers(SETS["val"]))
    width = max(SMALLEST_SIDE, *(x + side for _, side, x in shown))
    background = np.asarray(
        Image.fromarray(_as_pixels(_background(_draw("val", index)))).resize((width, SMALLEST_SIDE))
    )
    image = background.astype(np.float32)
    for value, side, x in shown:
        first, end = PARTS["val"]
        alike = [digit for digit in _order()[first:end] if _digits()[1][digit] == value]
        y = int(rng.integers(0, SMALLEST_SIDE - side + 1))
        _paint(image, _ink(int(rng.choice(alike)), side), x, y, rng)
    return _as_pixels(image)


def _paint(image: NDArray[np.float32], ink: NDArray[np.float32], x: int, y: int, rng: np.random.Generator) -> None:
    """Paints ink into an image, in a colour that its background lets see."""
    patch = image[y : y + len(ink), x : x + len(ink)]
    colour = _ink_colour(rng, patch.mean(axis=(0, 1)))
    for channel in range(3):
        patch[:, :, channel] += ink * (colour[channel] - patch[:, :, channel])


def _as_pixels(image: NDArray[np.float32]) -> Pixels:
    return np.clip(image, 0, 255).astype(np.uint8)


def _split_id(image_id: str) -> tuple[str, int]:
    set_name, _, number = image_id.partition("/")
    return set_name, int(number)


@lru_cache(maxsize=SETS["train"])  # computing a scene takes longer than all other work on it in an epoch
def _cached_scene(image_id: str) -> Pixels:
    """The scene of an id, which must not be written to."""
    return scene(*_split_id(image_id))[0]


@cache
def _digits() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    with (files(__package__) / "digits.npz").open("rb") as file, np.load(file) as stored:
        return stored["images"], stored["labels"]


@cache
def _order() -> NDArray[np.int64]:
    return np.random.default_rng(_SHUFFLE).permutation(len(_digits()[1]))


def _draw(set_name: str, index: int) -> _Drawn:
    """Draws the random numbers of a scene, in an order that must stay as it is."""
    rng = _generator(set_name, index)
    height, width = _size(rng)
    slopes = (rng.uniform(-25, 25), rng.uniform(-25, 25))
    waves = [(rng.uniform(1, 9), rng.uniform(0, np.pi), rng.uniform(0, 2 * np.pi), rng.uniform(2, 9)) for _ in range(3)]
    tint, base = (rng.uniform(low, high, 3).astype(np.float32) for low, high in ((0.6, 1.0), (70, 185)))
    grain = rng.standard_normal((height, width), dtype=np.float32) * np.float32(rng.uniform(2, 8))
    size = int(SMALLEST_SIDE * rng.uniform(0.5, 0.95))
    x, y = int(rng.integers(0, width - size + 1)), int(rng.integers(0, height - size + 1))
    return _Drawn(slopes, waves, tint, base, grain, x, y, _ink(digit_shown(set_name, index), size), rng)


def _generator(set_name: str, index: int) -> np.random.Generator:
    return np.random.default_rng([_SHUFFLE, list(SETS).index(set_name), index])


def _size(rng: np.random.Generator) -> tuple[int, int]:
    """Height and width, the first random numbers of a scene."""
    width, height = SMALLEST_SIDE, int(rng.choice(SIDES))
    return (width, height) if rng.random() < 0.5 else (height, width)


def _background(drawn: _Drawn) -> NDArray[np.float32]:
    """A base colour, shading, three gratings and noise: float32 (height, width, 3)."""
    height, width = drawn.grain.shape
    down = np.linspace(0, 1, height, dtype=np.float32)[:, None]
    across = np.linspace(0, 1, width, dtype=np.float32)[None, :]
    shade = drawn.slopes[0] * down + drawn.slopes[1] * across
    for periods, angle, phase, amplitude in drawn.waves:
        step = 2 * math.pi * periods
        wave = (step * math.cos(angle)) * across + (step * math.sin(angle) * down + phase)
        shade = shade + amplitude * np.sin(wave)
    # Channel by channel: operations over a last axis of three take much longer (NOTES.md).
    channels = [base + shade * tint + drawn.grain for base, tint in zip(drawn.base, drawn.tint, strict=True)]
    return np.stack(channels, axis=2)


def _ink(digit: int, size: int) -> NDArray[np.float32]:
    """The share of each pixel that ink covers, 0 to 1, (size, size)."""
    pen = Image.fromarray(_digits()[0][digit] * np.uint8(15), mode="L")
    smooth = np.asarray(pen.resize((size, size), Image.Resampling.BICUBIC), dtype=np.float32) / 240
    return np.clip(smooth * 1.6 - 0.3, 0, 1)


def _ink_colour(rng: np.random.Generator, ground: NDArray[np.float32]) -> NDArray[np.float32]:
    """A colour at least 90 grey levels lighter or darker than the background."""
    level = float(ground.mean())
    darker = rng.random() < level / 255
    gap = rng.uniform(90, 130)
    tint = rng.uniform(-25, 25, 3)
    return np.asarray((level - gap if darker else level + gap) + tint - tint.mean(), dtype=np.float32)
