"""Loading images in worker processes; random crops depend on (seed, epoch, index) only."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..core.config import STRIDE
from ..core.device import LoaderSettings
from ..core.errors import ImageError, ReadError, VerydeepError
from ..core.settings import TrainSettings
from ..core.team import Team
from .boxes import area, clip, xyxy_to_cxcywh
from .dataset import Dataset
from .image_io import Pixels
from .transforms import Rescaled, Whole, Window, colour_shift, draw_window, reduced, rescale
from .workers import Fault, WatchedLoader

T = TypeVar("T")
ORDER, PHOTO = 0, 1  # the first number of a random generator's key
PIXEL = np.dtype("V3")  # copies mirrored crops by pixels of three bytes
NO_BOX = np.zeros(0, dtype=np.float32)
NO_PLACE = np.zeros(0, dtype=np.int64)
DRAWS = 10  # at most, of a crop that should show half of a box


@dataclass(frozen=True)
class _Each(Generic[T]):
    """The result of a function for each image of a set."""

    dataset: Dataset
    work: Callable[[Pixels], T]

    def __getitem__(self, index: int) -> T | Fault:
        try:
            return self.work(self.dataset.pixels(index))
        except ImageError as fault:
            return _fault_of(fault, self.dataset, index)
        except VerydeepError as fault:
            return Fault(str(fault))


def _fault_of(fault: ImageError, dataset: Dataset, index: int) -> Fault:
    return Fault(str(fault.named(dataset.where(index))), isinstance(fault, ReadError))


def each_photo(
    dataset: Dataset, work: Callable[[Pixels], T], readers: LoaderSettings
) -> Iterator[tuple[int, T | Fault]]:
    """Calls ``work`` (which must pickle) on the pixels of every image of a set, in order.

    Yields:
        The image's index and the result, or a `Fault` if it could not be read.

    Raises:
        VerydeepError: a worker was killed or timed out.
    """
    yield from enumerate(WatchedLoader(_Each(dataset, work), range(len(dataset)), dataset.where, readers))


@dataclass(frozen=True)
class Batch:
    """B training crops: images uint8 (B,3,crop,crop), labels int64 (B,).

    ``shift`` is the colour shift, float (B,3); ``keep`` the dropout mask, bool (B,D); ``boxes`` the target boxes of
    localisation, float (B,4), or (B,0) for classification. Of whole images, which are padded to the largest and sorted
    by size, ``places`` int64 (B,4) are height and width, and row and column of a cell of the last map; of crops (B,0).
    """

    images: Tensor
    labels: Tensor
    shift: Tensor
    keep: Tensor
    boxes: Tensor
    places: Tensor = field(default_factory=lambda: torch.zeros((0, 0), dtype=torch.int64))

    @property
    def cells(self) -> Tensor | None:
        """Row and column of each image's cell, int64 (B,2); None for crops."""
        return self.places[:, 2:] if self.places.shape[1] else None

    def parts(self, size: int) -> Iterator[Batch]:
        """The batch in parts of at most ``size`` images of one size, without padding; an empty batch is one part."""
        for run in self._of_one_size():
            for start in range(0, max(1, len(run.labels)), size):
                yield Batch(*(column[start : start + size] for column in run._columns))

    def _of_one_size(self) -> Iterator[Batch]:
        if self.cells is None or not len(self.labels):
            yield self
            return
        start = 0
        for (height, width), same in groupby(self.places[:, :2].tolist()):
            end = start + len(list(same))
            images, *others = (column[start:end] for column in self._columns)
            yield Batch(images[:, :, :height, :width], *others)
            start = end

    def to(self, device: torch.device) -> Batch:
        """The batch on a device."""
        return Batch(*(column.to(device) for column in self._columns))

    @property
    def _columns(self) -> tuple[Tensor, ...]:
        return self.images, self.labels, self.shift, self.keep, self.boxes, self.places


@dataclass(frozen=True)
class BoxTargets:
    """App. A: the targets of localisation: centre and size of a box, in fractions of the crop's side.

    Of several boxes one is drawn at random. ``half`` is OverFeat's rule: a crop that shows less than half of the box is
    drawn again, up to `DRAWS` times; then the one that shows most is used.
    """

    boxes: tuple[NDArray[np.float64], ...]
    half: bool

    def draw(
        self,
        index: int,
        photo: tuple[int, int],
        rescaled: tuple[int, int],
        settings: TrainSettings,
        rng: np.random.Generator,
    ) -> tuple[Window, NDArray[np.float32]]:
        """A random crop, and its target, cxcywh (4,).

        Args:
            photo: height and width of the image, in whose pixels boxes are.
            rescaled: those of the rescaled image that is cropped.
        """
        boxes = self.boxes[index]
        scale = np.array([rescaled[1] / photo[1], rescaled[0] / photo[0]] * 2)
        box = boxes[int(rng.integers(len(boxes)))] * scale
        windows = [draw_crop(settings, rescaled, rng)]
        while self.half and _shown(box, windows[-1], settings.crop) < 0.5 and len(windows) < DRAWS:
            windows.append(draw_crop(settings, rescaled, rng))
        window = max(windows, key=lambda window: _shown(box, window, settings.crop))
        return window, box_in_window(box, window, settings.crop)


def draw_crop(settings: TrainSettings, size: tuple[int, int], rng: np.random.Generator) -> Window:
    """A random crop of an image of some height and width: anywhere, or with ``context`` photo that of a random cell."""
    if settings.context == "photo":
        return _draw_cell(settings, size, rng)
    return draw_window(*size, settings.crop, rng, settings.mirror)


def _draw_cell(settings: TrainSettings, size: tuple[int, int], rng: np.random.Generator) -> Window:
    """The window of a random cell of a whole image's last map, which dense evaluation takes for a crop.

    Top and left are multiples of `STRIDE`, left from the right edge of an image that is mirrored. Where pooling rounds
    up, the last windows extend beyond the image.
    """
    rows, columns = (side - settings.crop // STRIDE + 1 for side in map_size(size, settings.pooling))
    top, left = STRIDE * int(rng.integers(rows)), STRIDE * int(rng.integers(columns))
    mirrored = settings.mirror and bool(rng.random() < 0.5)
    return Window(top, size[1] - settings.crop - left if mirrored else left, mirrored)


def map_size(size: tuple[int, int], pooling: str) -> tuple[int, int]:
    """Height and width of the last pooled map of an image's height and width."""
    height, width = (-(-side // STRIDE) if pooling == "up" else side // STRIDE for side in size)
    return height, width


def box_in_window(box: NDArray[np.float64], window: Window, crop: int) -> NDArray[np.float32]:
    """A box, xyxy (4,) in pixels of the rescaled image, relative to a crop: cxcywh (4,) in fractions of its side.

    It is not clipped to the crop: the net has to predict the invisible part.
    """
    corner = np.array([window.left, window.top])
    cx, cy, w, h = xyxy_to_cxcywh((box - np.tile(corner, 2)) / crop).tolist()
    return np.array([1 - cx if window.mirrored else cx, cy, w, h], dtype=np.float32)


def _shown(box: NDArray[np.float64], window: Window, crop: int) -> float:
    """The fraction of a box's area that a crop shows."""
    inside = clip(box - np.array([window.left, window.top] * 2), crop, crop)
    return float(area(inside) / area(box))


@dataclass(frozen=True)
class _Crops:
    """A random crop of an image, for a key (epoch, index)."""

    dataset: Dataset
    settings: TrainSettings
    colour_axes: NDArray[np.float64]
    dropout_units: int
    targets: BoxTargets | None

    def __getitem__(self, key: tuple[int, int]) -> tuple[NDArray[Any], ...] | Fault:
        epoch, index = key
        settings = self.settings
        rng = np.random.default_rng([PHOTO, settings.seed, epoch, index])
        scale = int(rng.integers(settings.S.smallest, settings.S.largest + 1))
        try:
            pixels, box, place = self._seen(index, scale, rng)
        except ImageError as fault:
            return _fault_of(fault, self.dataset, index)
        shift = colour_shift(self.colour_axes, settings.colour_shift, rng)
        keep = rng.random(self.dropout_units, dtype=np.float32) >= 0.5
        return pixels, np.array(self.dataset.labels[index]), shift, keep, box, place

    def _seen(
        self, index: int, scale: int, rng: np.random.Generator
    ) -> tuple[Pixels, NDArray[np.float32], NDArray[np.int64]]:
        """What the net sees of an image at a scale: pixels, target box and place, as in `Batch`; raises ImageError."""
        image = self._rescaled(index, scale)
        window, box = self._draw(index, image.photo, image.size, rng)
        return image.cut(window, self.settings.crop), box, NO_PLACE

    def _draw(
        self, index: int, photo: tuple[int, int], rescaled: tuple[int, int], rng: np.random.Generator
    ) -> tuple[Window, NDArray[np.float32]]:
        """A random crop of an image and its target box, as `BoxTargets.draw`."""
        if self.targets is None:
            return draw_crop(self.settings, rescaled, rng), NO_BOX
        return self.targets.draw(index, photo, rescaled, self.settings, rng)

    def _rescaled(self, index: int, scale: int) -> Rescaled:
        """An image at a scale S, to be cropped; raises ImageError."""
        options = self.settings.resampling, self.settings.other_side
        if self.settings.decoding == "reduced":
            encoded = self.dataset.source.encoded(self.dataset.ids[index])
            if encoded is not None:
                return reduced(encoded, self.dataset.where(index), scale, *options)
        return Whole(self.dataset.pixels(index), scale, *options)

    def stack(self, items: list[tuple[NDArray[Any], ...] | Fault]) -> Batch | Fault:
        """A batch of crops; it may be empty, as a process's share of a small batch."""
        read: list[tuple[NDArray[Any], ...]] = []
        for item in items:
            if isinstance(item, Fault):
                return item
            read.append(item)
        if not read:
            return self._empty_batch()
        # Sorted by size: crops keep their order, and whole images of one size follow each other.
        images, *columns = zip(*sorted(read, key=lambda item: item[0].shape), strict=True)
        padded = np.zeros((len(read), *np.max([image.shape[:2] for image in images], axis=0)), dtype=PIXEL)
        for number, image in enumerate(images):
            padded[number, : image.shape[0], : image.shape[1]] = image.view(PIXEL)[..., 0]
        pixels = torch.from_numpy(padded.view(np.uint8).reshape(*padded.shape, 3))
        others = [torch.from_numpy(np.stack(column)) for column in columns]
        return Batch(pixels.permute(0, 3, 1, 2), *others)  # channels last, without copying

    def _empty_batch(self) -> Batch:
        crop = self.settings.crop
        return Batch(
            torch.zeros((0, 3, crop, crop), dtype=torch.uint8),
            torch.zeros(0, dtype=torch.int64),
            torch.zeros((0, 3)),
            torch.zeros((0, self.dropout_units), dtype=torch.bool),
            torch.zeros((0, 4 if self.targets else 0)),
            torch.zeros((0, 4 if self.settings.context == "photo" else 0), dtype=torch.int64),
        )


class _WholeImages(_Crops):
    """A whole image and a random cell of its last map, for a key (epoch, index); it is always decoded whole."""

    def _seen(
        self, index: int, scale: int, rng: np.random.Generator
    ) -> tuple[Pixels, NDArray[np.float32], NDArray[np.int64]]:
        settings, pixels = self.settings, self.dataset.pixels(index)
        scaled = rescale(pixels, scale, settings.resampling, settings.other_side)
        height, width = scaled.shape[:2]
        window, box = self._draw(index, (pixels.shape[0], pixels.shape[1]), (height, width), rng)
        left = width - settings.crop - window.left if window.mirrored else window.left
        place = np.array([height, width, window.top // STRIDE, left // STRIDE])
        return np.ascontiguousarray(scaled[:, ::-1]) if window.mirrored else scaled, box, place


@dataclass
class _Order:
    """This process's share of the batches of an epoch, as lists of keys; ``epoch`` and ``skip`` are set before it."""

    photos: int
    batch: int
    seed: int
    team: Team
    epoch: int = 0
    skip: int = 0

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = np.random.default_rng([ORDER, self.seed, self.epoch]).permutation(self.photos)
        for start in range(self.skip * self.batch, self.photos, self.batch):
            keys = order[start : start + self.batch]
            share = self.team.shard(len(keys))
            yield [(self.epoch, int(index)) for index in keys[share.start : share.stop]]

    def __len__(self) -> int:
        return max(0, -(-self.photos // self.batch) - self.skip)


class TrainingLoader:
    """The training batches of any epoch, each image once; the last batch may be smaller.

    A process of a team loads its share of each batch.
    """

    def __init__(
        self,
        dataset: Dataset,
        settings: TrainSettings,
        colour_axes: NDArray[np.float64],
        dropout_units: int,
        readers: LoaderSettings,
        targets: BoxTargets | None = None,
        team: Team | None = None,
    ) -> None:
        self._order = _Order(len(dataset), settings.batch, settings.seed, team or Team())
        kind = _WholeImages if settings.context == "photo" else _Crops
        crops = kind(dataset, settings, colour_axes, dropout_units, targets)
        self._loader = WatchedLoader(
            *(crops, self._order, dataset.where, readers),
            stack=crops.stack,
            batch_bytes=settings.batch * (3 * settings.crop**2 + dropout_units),
        )

    def epoch(self, epoch: int, skip: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, without the first ``skip``.

        Raises:
            ImageError: an image could no longer be read.
            VerydeepError: a worker was killed or timed out.
        """
        self._order.epoch, self._order.skip = epoch, skip
        for batch in self._loader:
            if isinstance(batch, Fault):
                raise ImageError(batch.message)
            yield batch
