"""Sect. 3.2: posteriors of images, as `verydeep.evaluation.protocols` defines them.

Images of equal size share a batch, and so do their crops; nothing is padded, which would change scores. Images are
cropped and mirrored on the device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol as TypingProtocol
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ..checkpoints.checkpoint import Metadata
from ..core.device import Machine
from ..core.errors import ImageError
from ..data.dataloader import each_photo
from ..data.image_io import Pixels
from ..data.open import Dataset
from ..data.transforms import OtherSide, Resampling, centre_crop, rescale
from ..data.workers import Fault
from ..models.architectures import Layer
from ..models.vgg import Pooling
from .protocols import Protocol

BATCH_PIXELS = 2_000_000  # of all images of a batch: bounds the memory of their maps
BATCH_IMAGES = 64
WAITING_PIXELS = 50_000_000
LEAVE_OUT = "Remove it, or leave it out with --bad-images skip."
T = TypeVar("T")


@dataclass(frozen=True)
class ResizeToScales:
    """Transforms an image, uint8 (H,W,3), to a list of uint8 (h,w,3), one for each scale Q."""

    protocol: Protocol
    crop: int
    resampling: Resampling = "bilinear"
    other_side: OtherSide = "round"

    @staticmethod
    def for_net(metadata: Metadata, protocol: Protocol) -> ResizeToScales:
        """The transform of a net, as it was trained."""
        return ResizeToScales(protocol, metadata.crop, metadata.resampling, metadata.other_side)

    def __call__(self, pixels: Pixels) -> list[Pixels]:
        """The image rescaled to each Q; only its centre crop where the protocol needs nothing else."""
        scaled = [rescale(pixels, scale, self.resampling, self.other_side) for scale in self.protocol.scales]
        alone = self.protocol.method == "centre" and not self.protocol.mirror
        return [centre_crop(view, self.crop) for view in scaled] if alone else scaled


def readable_images(
    dataset: Dataset,
    indices: Sequence[int],
    transform: Callable[[Pixels], T],
    machine: Machine,
    advice: str,
    faults: dict[int, str] | None = None,
) -> Iterator[tuple[int, T]]:
    """Reads and transforms the images of a dataset at ``indices``, in this order; yields each with its index.

    Args:
        advice: what to do about an unreadable image, as the end of the message.
        faults: receives the message of each unreadable image by index; None raises instead.

    Raises:
        ImageError: an image cannot be read, and ``faults`` is None.
    """
    for place, loaded in each_photo(dataset.take(np.array(indices, dtype=np.int64)), transform, machine.readers):
        if not isinstance(loaded, Fault):
            yield indices[place], loaded
        elif faults is None:
            raise ImageError(f"{loaded.message} {advice}")
        else:
            faults[indices[place]] = loaded.message


class InferenceModel(TypingProtocol):
    """A model for inference: `verydeep.models.vgg.Net`, or an exported file.

    ``takes`` is ``float`` (RGB minus the mean) or ``uint8``, for a model that subtracts the mean itself.
    """

    takes: str
    crop: int
    classes: int
    pooling: Pooling
    specs: tuple[Layer, ...]

    def mean_scores(self, images: Tensor) -> Tensor:
        """The mean score map (B,K) of images (B,3,H,W)."""
        ...

    def __call__(self, images: Tensor) -> Tensor:
        """The score map (B,K,h,w)."""
        ...


@dataclass(frozen=True)
class Posteriors:
    """Posteriors of N images, float32 (N,K), and the mean forward multiply-adds per image."""

    posteriors: NDArray[np.float32]
    multiply_adds: float


def concatenate(shards: list[Posteriors]) -> Posteriors:
    """The posteriors of a set from those of its consecutive shards."""
    joined = np.concatenate([shard.posteriors for shard in shards])
    cost = sum(shard.multiply_adds * len(shard.posteriors) for shard in shards)
    return Posteriors(joined, cost / max(1, len(joined)))


def posterior(net: InferenceModel, images: Tensor, protocol: Protocol) -> Tensor:
    """Posteriors (B,K) of float images (B,3,H,W) at one scale, by the protocol's method and mirror setting.

    Mirror images are cropped by the same grid, so an image and its mirror image have equal posteriors.
    """
    if not protocol.mirror:
        return _unmirrored(net, images, protocol)
    both = _unmirrored(net, torch.cat([images, images.flip(3)]), protocol)  # in one batch: weights are read once
    return both.view(2, len(images), -1).mean(0)


def _unmirrored(net: InferenceModel, images: Tensor, protocol: Protocol) -> Tensor:
    if protocol.method == "dense":
        return _dense(net, images, protocol.softmax_first)
    result = _crops(net, images, protocol.corners(images.shape[2], images.shape[3], net.crop))
    if protocol.method == "both":
        result = (result + _dense(net, images, protocol.softmax_first)) / 2
    return result


def _dense(net: InferenceModel, images: Tensor, softmax_first: bool) -> Tensor:
    """Soft-max of the mean scores, or the mean over the map of each cell's soft-max, (B,K)."""
    if softmax_first:
        scores: Tensor = net(images)
        return F.softmax(scores.float(), dim=1).mean(dim=(2, 3))
    return F.softmax(net.mean_scores(images).float(), dim=1)


def _crops(net: InferenceModel, images: Tensor, corners: list[tuple[int, int]]) -> Tensor:
    """Mean soft-max of the crops at ``corners``, (B,K); all crops go through the net as one batch."""
    side = net.crop
    crops = torch.cat([images[:, :, top : top + side, left : left + side] for top, left in corners])
    return F.softmax(net.mean_scores(crops).float(), dim=1).view(len(corners), len(images), -1).mean(0)


def posteriors(
    net: InferenceModel,
    mean: NDArray[np.float64],
    protocol: Protocol,
    views: Iterable[tuple[int, list[Pixels]]],
    count: int,
    machine: Machine,
    done: Callable[[int], None] = lambda views: None,
) -> Posteriors:
    """Posteriors (N,K) of N images; each row depends on its own image only.

    Args:
        net: on the machine's device, in evaluation mode.
        mean: RGB mean to subtract, (3,).
        views: an image's index, 0 to N-1, and its `ResizeToScales`, in any order.
        count: N.
        done: called with the number of views finished since the last call.
    """
    sums, cost = np.zeros((count, net.classes), dtype=np.float64), 0
    shift = torch.tensor(-np.asarray(mean), dtype=torch.float32)[None]
    with torch.inference_mode(), machine.autocast():
        for indices, batch in equal_sizes(views, partial(protocol.shown_pixels, net.crop)):
            images = model_input(net, torch.from_numpy(batch), machine, shift)
            np.add.at(sums, indices, posterior(net, images, protocol).cpu().double().numpy())
            height, width = batch.shape[1:3]
            cost += len(indices) * protocol.multiply_adds(net.specs, net.crop, height, width, net.pooling)
            done(len(indices))
    return Posteriors((sums / len(protocol.scales)).astype(np.float32), cost / max(1, count))


def model_input(net: InferenceModel, pixels: Tensor, machine: Machine, shift: Tensor) -> Tensor:
    """The input (B,3,H,W) of a model from uint8 images (B,H,W,3); ``shift`` (1,3) is minus the mean."""
    images = pixels.permute(0, 3, 1, 2)
    return machine.to_input(images, shift) if net.takes == "float" else images


def equal_sizes(
    views: Iterable[tuple[int, list[Pixels]]], cost: Callable[[int, int], int]
) -> Iterator[tuple[list[int], NDArray[np.uint8]]]:
    """Batches of views of equal size: image indices and uint8 (B,H,W,3).

    Views of rare sizes wait for others of their size, at most `WAITING_PIXELS` in all.

    Args:
        cost: pixels that go through the net for a view of some height and width.
    """
    waiting: dict[tuple[int, ...], list[tuple[int, Pixels]]] = {}
    pixels = 0
    for index, several in views:
        for view in several:
            waiting.setdefault(view.shape, []).append((index, view))
            pixels += view.shape[0] * view.shape[1]
            full, shape = pixels > WAITING_PIXELS, view.shape
            if full:
                shape = max(waiting, key=lambda size: len(waiting[size]) * size[0] * size[1])
            group = waiting[shape]
            work = len(group) * cost(shape[0], shape[1])
            if full or work >= BATCH_PIXELS or len(group) >= BATCH_IMAGES:
                pixels -= len(group) * shape[0] * shape[1]
                yield _gather(waiting.pop(shape))
    for group in waiting.values():
        yield _gather(group)


def _gather(group: list[tuple[int, Pixels]]) -> tuple[list[int], NDArray[np.uint8]]:
    return [index for index, _ in group], np.stack([view for _, view in group])
