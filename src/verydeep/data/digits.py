"""`digits`, the embedded default: photo-like scenes with one real handwritten digit each.

The 1,797 handwritten digits (8x8, UCI "Optical Recognition of Handwritten Digits", CC BY 4.0, the
copy scikit-learn ships) are parted once: the scenes of `train`, `dev` and `val` show different
digits. A scene is a pure function of its set and number: a textured ground, and a digit of random
scale, place, colour and shade. Its box, in pixels, is where the ink is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..config import DataSettings
from ..errors import VerydeepError
from ..images import Pixels
from .sets import Data, Dataset, NamedBox

SETS = {"train": 6000, "dev": 1000, "val": 2000}  # scenes
PARTS = {"train": (0, 1197), "dev": (1197, 1397), "val": (1397, 1797)}  # of the shuffled digits
LEAST = 60
SMALLEST_SIDE = 96
SIDES = (96, 112, 128)  # of the other side: square to 4:3, as photos are
CLASSES = tuple(str(digit) for digit in range(10))
_SHUFFLE = 1797


@dataclass(frozen=True)
class SceneReader:
    """Paints the scene of an id such as ``val/00012``."""

    def __call__(self, photo_id: str) -> Pixels:
        """uint8 RGB (H,W,3)."""
        return _painted(photo_id).copy()


@dataclass(frozen=True)
class SceneBoxes:
    """Tells where the digit of a scene is."""

    def __call__(self, photo_id: str) -> list[NamedBox]:
        """One box."""
        set_name, _, number = photo_id.partition("/")
        digit = digit_shown(set_name, int(number))
        return [NamedBox(CLASSES[int(_digits()[1][digit])], scene(set_name, int(number))[1])]


def open_named(name: str, _root: Path | None, _settings: DataSettings) -> Data:
    """The three sets; they come split, so no fraction is read.

    ``digits:600`` has 600 training scenes and the others in proportion, to try something in seconds.

    Raises:
        VerydeepError: not a number of scenes that there is.
    """
    share = _share(name.partition(":")[2])
    counts = {set_name: math.ceil(count * share) for set_name, count in SETS.items()}
    return Data(name, {set_name: _open_set(name, set_name, count) for set_name, count in counts.items()}, False)


def _share(text: str) -> float:
    """The part of the scenes that a number of training scenes asks for."""
    if not text:
        return 1.0
    if not text.isdecimal() or not LEAST <= int(text) <= SETS["train"]:
        raise VerydeepError(f"digits:{text} asks for no number of training scenes: give {LEAST} to {SETS['train']}.")
    return int(text) / SETS["train"]


def _open_set(name: str, set_name: str, count: int) -> Dataset:
    subjects = np.array([digit_shown(set_name, index) for index in range(count)], dtype=np.int64)
    labels = _digits()[1][subjects].astype(np.int64)
    ids = tuple(f"{set_name}/{index:05d}" for index in range(count))
    return Dataset(name, set_name, CLASSES, ids, labels, SceneReader(), subjects=subjects, find_boxes=SceneBoxes())


def digit_shown(set_name: str, index: int) -> int:
    """Which of the 1,797 handwritten digits a scene shows; scenes share digits within a set only."""
    first, end = PARTS[set_name]
    return int(_order()[first + index % (end - first)])


def scene(set_name: str, index: int) -> tuple[Pixels, tuple[float, float, float, float]]:
    """A scene, uint8 (H,W,3), and its digit's box: xmin, ymin, xmax, ymax in continuous pixels."""
    rng = np.random.default_rng([_SHUFFLE, list(SETS).index(set_name), index])
    width, height = SMALLEST_SIDE, int(rng.choice(SIDES))
    if rng.random() < 0.5:
        width, height = height, width
    ground = _ground(rng, height, width)
    size = int(SMALLEST_SIDE * rng.uniform(0.5, 0.95))
    x, y = int(rng.integers(0, width - size + 1)), int(rng.integers(0, height - size + 1))
    ink = _ink(digit_shown(set_name, index), size)
    patch = ground[y : y + size, x : x + size]
    colour = _ink_colour(rng, patch.mean(axis=(0, 1)))
    patch += ink[:, :, None] * (colour - patch)
    rows, columns = np.nonzero(ink.max(axis=1) > 0.5)[0], np.nonzero(ink.max(axis=0) > 0.5)[0]
    box = (x + columns[0], y + rows[0], x + columns[-1] + 1, y + rows[-1] + 1)
    return np.clip(ground, 0, 255).astype(np.uint8), (float(box[0]), float(box[1]), float(box[2]), float(box[3]))


@lru_cache(maxsize=SETS["train"])  # painting a scene takes longer than all that follows, every epoch
def _painted(photo_id: str) -> Pixels:
    """The scene of an id; whoever may write to it gets a copy."""
    set_name, _, number = photo_id.partition("/")
    return scene(set_name, int(number))[0]


@cache
def _digits() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    with (files(__package__) / "digits.npz").open("rb") as file, np.load(file) as stored:
        return stored["images"], stored["labels"]


@cache
def _order() -> NDArray[np.int64]:
    return np.random.default_rng(_SHUFFLE).permutation(len(_digits()[1]))


def _ground(rng: np.random.Generator, height: int, width: int) -> NDArray[np.float32]:
    """A base colour, a shading, three gratings and grain: float32 (height, width, 3)."""
    down = np.linspace(0, 1, height, dtype=np.float32)[:, None]
    across = np.linspace(0, 1, width, dtype=np.float32)[None, :]
    shade = rng.uniform(-25, 25) * down + rng.uniform(-25, 25) * across
    for _ in range(3):
        turns, angle, phase = rng.uniform(1, 9), rng.uniform(0, np.pi), rng.uniform(0, 2 * np.pi)
        step = 2 * math.pi * turns
        wave = (step * math.cos(angle)) * across + (step * math.sin(angle) * down + phase)
        shade = shade + rng.uniform(2, 9) * np.sin(wave)
    tint = rng.uniform(0.6, 1.0, 3).astype(np.float32)
    ground = rng.uniform(70, 185, 3).astype(np.float32) + shade[:, :, None] * tint
    grain = rng.standard_normal((height, width), dtype=np.float32) * np.float32(rng.uniform(2, 8))
    return np.asarray(ground + grain[:, :, None], dtype=np.float32)


def _ink(digit: int, size: int) -> NDArray[np.float32]:
    """How much of each pixel the pen covers, 0 to 1, (size, size)."""
    pen = Image.fromarray(_digits()[0][digit] * np.uint8(15), mode="L")
    smooth = np.asarray(pen.resize((size, size), Image.Resampling.BICUBIC), dtype=np.float32) / 240
    return np.clip(smooth * 1.6 - 0.3, 0, 1)


def _ink_colour(rng: np.random.Generator, ground: NDArray[np.float32]) -> NDArray[np.float32]:
    """A colour at least 90 grey levels lighter or darker than the ground beneath."""
    level = float(ground.mean())
    darker = rng.random() < level / 255
    gap = rng.uniform(90, 130)
    tint = rng.uniform(-25, 25, 3)
    return np.asarray((level - gap if darker else level + gap) + tint - tint.mean(), dtype=np.float32)
