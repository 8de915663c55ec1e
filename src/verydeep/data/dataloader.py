"""Photos to the net, in worker processes; what a worker does depends on (seed, epoch, index) alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..core.device import LoaderSettings
from ..core.errors import ImageError, ReadError, VerydeepError
from ..core.settings import TrainSettings
from ..core.team import SingleProcess, Team
from .boxes import area, clip, xyxy_to_cxcywh
from .dataset import Dataset
from .image_io import Pixels
from .transforms import Rescaled, Whole, Window, colour_shift, draw_window, reduced
from .workers import Fault, WatchedLoader

T = TypeVar("T")
ORDER, PHOTO = 0, 1  # purposes of a draw: the first number of its key
PIXEL = np.dtype("V3")  # three bytes at once: mirrored crops are copied pixel by pixel
NO_BOX = np.zeros(0, dtype=np.float32)
DRAWS = 10  # of a crop that is to show half of a box


@dataclass(frozen=True)
class _Each(Generic[T]):
    """Every photo of a set once, with some work done on its pixels."""

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
    """Runs ``work`` (which must pickle) on every photo of a set, once, in order.

    Yields:
        The photo's index and the work's result, or a `Fault` where it could not be read.

    Raises:
        VerydeepError: a worker was killed or timed out.
    """
    yield from enumerate(WatchedLoader(_Each(dataset, work), range(len(dataset)), dataset.where, readers))


@dataclass(frozen=True)
class Batch:
    """B training crops: images uint8 (B,3,crop,crop), labels int64 (B,).

    ``shift`` is the colour shift, float (B,3); ``keep`` the units dropout keeps, bool (B,D); ``boxes`` what a
    box net is to tell of each crop, float (B,4), or (B,0) where nothing is asked of boxes.
    """

    images: Tensor
    labels: Tensor
    shift: Tensor
    keep: Tensor
    boxes: Tensor

    def parts(self, size: int) -> Iterator[Batch]:
        """The batch in parts of at most ``size`` photos; a batch of none is one part."""
        for start in range(0, max(1, len(self.labels)), size):
            yield Batch(*(column[start : start + size] for column in self._columns))

    def to(self, device: torch.device) -> Batch:
        """The batch on a device."""
        return Batch(*(column.to(device) for column in self._columns))

    @property
    def _columns(self) -> tuple[Tensor, ...]:
        return self.images, self.labels, self.shift, self.keep, self.boxes


@dataclass(frozen=True)
class BoxTargets:
    """App. A: what a box net is to tell of a crop: centre and size of a box, in shares of the crop's side.

    Of several boxes one is drawn each time. ``half`` is OverFeat's rule: a crop that shows less than half of the
    box is drawn again, up to `DRAWS` times, and then that which shows most is taken.
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
        """A crop's place, and its target, cxcywh (4,).

        Args:
            photo: height and width of the photo, whose pixels the boxes are in.
            rescaled: those of the rescaled photo that is cropped.
        """
        mine = self.boxes[index]
        scale = np.array([rescaled[1] / photo[1], rescaled[0] / photo[0]] * 2)
        box = mine[int(rng.integers(len(mine)))] * scale
        drawn = [draw_window(*rescaled, settings.crop, rng, settings.mirror)]
        while self.half and _shown(box, drawn[-1], settings.crop) < 0.5 and len(drawn) < DRAWS:
            drawn.append(draw_window(*rescaled, settings.crop, rng, settings.mirror))
        window = max(drawn, key=lambda one: _shown(box, one, settings.crop))
        return window, box_in_window(box, window, settings.crop)


def box_in_window(box: NDArray[np.float64], window: Window, crop: int) -> NDArray[np.float32]:
    """A box, xyxy (4,) in pixels of the rescaled photo, as a crop sees it: cxcywh (4,) in shares of its side.

    What lies outside the crop is not cut off: its net has to guess it.
    """
    corner = np.array([window.left, window.top])
    cx, cy, w, h = xyxy_to_cxcywh((box - np.tile(corner, 2)) / crop).tolist()
    return np.array([1 - cx if window.mirrored else cx, cy, w, h], dtype=np.float32)


def _shown(box: NDArray[np.float64], window: Window, crop: int) -> float:
    """How much of a box's area a crop shows, 0 to 1."""
    inside = clip(box - np.array([window.left, window.top] * 2), crop, crop)
    return float(area(inside) / area(box))


@dataclass(frozen=True)
class _Crops:
    """One random crop of a photo, for a key (epoch, index)."""

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
            photo = self._photo(index, scale)
            if self.targets is None:
                window, box = draw_window(*photo.size, settings.crop, rng, settings.mirror), NO_BOX
            else:
                window, box = self.targets.draw(index, photo.photo, photo.size, settings, rng)
            crop = photo.cut(window, settings.crop)
        except ImageError as fault:
            return _fault_of(fault, self.dataset, index)
        shift = colour_shift(self.colour_axes, settings.colour_shift, rng)
        keep = rng.random(self.dropout_units, dtype=np.float32) >= 0.5
        return crop, np.array(self.dataset.labels[index]), shift, keep, box

    def _photo(self, index: int, scale: int) -> Rescaled:
        """A photo at a scale S, to be cropped; raises ImageError."""
        ways = self.settings.resampling, self.settings.other_side
        if self.settings.decoding == "reduced":
            encoded = self.dataset.source.encoded(self.dataset.ids[index])
            if encoded is not None:
                return reduced(encoded, self.dataset.where(index), scale, *ways)
        return Whole(self.dataset.pixels(index), scale, *ways)

    def stack(self, items: list[tuple[NDArray[Any], ...] | Fault]) -> Batch | Fault:
        """A batch of such crops, perhaps of none: a process's share of a small batch can be that."""
        for item in items:
            if isinstance(item, Fault):
                return item
        if not items:
            return self._nothing()
        images, *columns = zip(*items, strict=True)
        crops = np.empty((len(items), self.settings.crop, self.settings.crop), dtype=PIXEL)
        for place, image in enumerate(images):
            crops[place] = image.view(PIXEL)[..., 0]
        pixels = torch.from_numpy(crops.view(np.uint8).reshape(*crops.shape, 3))
        others = [torch.from_numpy(np.stack(column)) for column in columns]
        return Batch(pixels.permute(0, 3, 1, 2), *others)  # as channels last lie: no pixel moves

    def _nothing(self) -> Batch:
        crop = self.settings.crop
        return Batch(
            torch.zeros((0, 3, crop, crop), dtype=torch.uint8),
            torch.zeros(0, dtype=torch.int64),
            torch.zeros((0, 3)),
            torch.zeros((0, self.dropout_units), dtype=torch.bool),
            torch.zeros((0, 4 if self.targets else 0)),
        )


@dataclass
class _Order:
    """The batches of the coming epoch, as lists of keys; `epoch` and `skip` are set before each epoch.

    Of each batch a process of a team gets its share.
    """

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
            mine = self.team.shard(len(keys))
            yield [(self.epoch, int(index)) for index in keys[slice(mine.start, mine.stop)]]

    def __len__(self) -> int:
        return max(0, -(-self.photos // self.batch) - self.skip)


class TrainingLoader:
    """The training batches of any epoch, from any batch on; each photo once an epoch, the last batch smaller.

    A process of a team reads its share of each batch.
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
        self._order = _Order(len(dataset), settings.batch, settings.seed, team or SingleProcess())
        crops = _Crops(dataset, settings, colour_axes, dropout_units, targets)
        self._loader = WatchedLoader(
            *(crops, self._order, dataset.where, readers),
            stack=crops.stack,
            batch_bytes=settings.batch * (3 * settings.crop**2 + dropout_units),
        )

    def epoch(self, epoch: int, skip: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, without the first ``skip``.

        Raises:
            ImageError: a photo could no longer be read.
            VerydeepError: a worker was killed or timed out.
        """
        self._order.epoch, self._order.skip = epoch, skip
        for batch in self._loader:
            if isinstance(batch, Fault):
                raise ImageError(batch.message)
            yield batch
