"""Sect. 3.2: a net and photos to posteriors, as `verydeep.evaluation.protocols` states them.

Photos of exactly equal size share a batch, and so do the crops of such a batch; nothing is padded,
which would change scores. Crops are cut, and images mirrored, on the device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Protocol as TypingProtocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ..checkpoints.checkpoint import Metadata
from ..core.device import Machine
from ..data.image_io import Pixels
from ..data.transforms import OtherSide, Resampling, centre_crop, rescale
from ..models.architectures import Layer
from ..models.vgg import Pooling
from .protocols import Protocol

BATCH_PIXELS = 2_000_000  # of all photos of a batch together: bounds the memory of their maps
BATCH_PHOTOS = 64
WAITING_PIXELS = 50_000_000


@dataclass(frozen=True)
class ResizeToScales:
    """From a photo's pixels to what the net is shown: one uint8 (H,W,3) for each scale Q."""

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


class InferenceModel(TypingProtocol):
    """What a test asks of a net: `verydeep.models.vgg.Net`, or an exported file that stands for one.

    ``takes`` is ``float``, RGB minus the mean, or ``uint8``, for a net that subtracts it itself.
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
    """Posteriors of N photos, float32 (N,K), and the forward multiply-adds a photo, on average."""

    posteriors: NDArray[np.float32]
    multiply_adds: float


def joined_answers(shares: list[Posteriors]) -> Posteriors:
    """Those of several shares of a set, in their order, as of the whole set."""
    found = np.concatenate([share.posteriors for share in shares])
    cost = sum(share.multiply_adds * len(share.posteriors) for share in shares)
    return Posteriors(found, cost / max(1, len(found)))


def posterior(net: InferenceModel, images: Tensor, protocol: Protocol) -> Tensor:
    """Posteriors (B,K) of float images (B,3,H,W) of one scale, averaged with the mirror image's if so asked.

    The mirror image is cropped by the same grid, so a photo and its mirror image have one posterior.
    """
    found = _one_way(net, images, protocol)
    if protocol.mirror:
        found = (found + _one_way(net, images.flip(3), protocol)) / 2
    return found


def _one_way(net: InferenceModel, images: Tensor, protocol: Protocol) -> Tensor:
    if protocol.method == "dense":
        return _dense(net, images, protocol.softmax_first)
    found = _windowed(net, images, protocol.corners(images.shape[2], images.shape[3], net.crop))
    if protocol.method == "both":
        found = (found + _dense(net, images, protocol.softmax_first)) / 2
    return found


def _dense(net: InferenceModel, images: Tensor, softmax_first: bool) -> Tensor:
    """Soft-max of the mean scores, or the mean of each place's soft-max, (B,K)."""
    if softmax_first:
        scores: Tensor = net(images)
        return F.softmax(scores.float(), dim=1).mean(dim=(2, 3))
    return F.softmax(net.mean_scores(images).float(), dim=1)


def _windowed(net: InferenceModel, images: Tensor, corners: list[tuple[int, int]]) -> Tensor:
    """Mean over the crops at ``corners`` of their soft-max, (B,K); all go through the net as one batch."""
    side = net.crop
    crops = torch.cat([images[:, :, top : top + side, left : left + side] for top, left in corners])
    found = F.softmax(net.mean_scores(crops).float(), dim=1)
    return found.view(len(corners), len(images), -1).mean(0)


def posteriors(
    net: InferenceModel,
    mean: NDArray[np.float64],
    protocol: Protocol,
    views: Iterable[tuple[int, list[Pixels]]],
    photos: int,
    machine: Machine,
    done: Callable[[int], None] = lambda count: None,
) -> Posteriors:
    """Posteriors of N photos; each row depends on its own photo alone.

    Args:
        net: on the machine's device, in evaluation mode.
        mean: RGB mean to subtract, (3,).
        views: a photo's index, 0 to N-1, and its `ResizeToScales`, in any order.
        photos: N.
        done: told how many views were finished since it was last told.
    """
    sums, cost = np.zeros((photos, net.classes), dtype=np.float64), 0
    shift = torch.tensor(-np.asarray(mean), dtype=torch.float32)[None]
    with torch.inference_mode(), machine.autocast():
        for indices, batch in equal_sizes(views, partial(protocol.shown_pixels, net.crop)):
            images = shown_to(net, torch.from_numpy(batch), machine, shift)
            found = posterior(net, images, protocol).cpu().double().numpy()
            np.add.at(sums, indices, found)
            height, width = batch.shape[1:3]
            cost += len(indices) * protocol.multiply_adds(net.specs, net.crop, height, width, net.pooling)
            done(len(indices))
    return Posteriors((sums / len(protocol.scales)).astype(np.float32), cost / max(1, photos))


def shown_to(net: InferenceModel, photos: Tensor, machine: Machine, shift: Tensor) -> Tensor:
    """Photos uint8 (B,H,W,3) as a net takes them, (B,3,H,W); ``shift`` (1,3) is minus the mean."""
    images = photos.permute(0, 3, 1, 2)
    return machine.to_input(images, shift) if net.takes == "float" else images


def equal_sizes(
    views: Iterable[tuple[int, list[Pixels]]], shown: Callable[[int, int], int]
) -> Iterator[tuple[list[int], NDArray[np.uint8]]]:
    """Views gathered into batches of one size: photo indices and uint8 (B,H,W,3).

    Sizes that are rare wait for others of their kind, but never more than `WAITING_PIXELS` in all.

    Args:
        shown: pixels that go through the net for a view of some height and width.
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
            work = len(group) * shown(shape[0], shape[1])
            if full or work >= BATCH_PIXELS or len(group) >= BATCH_PHOTOS:
                pixels -= len(group) * shape[0] * shape[1]
                yield _gather(waiting.pop(shape))
    for group in waiting.values():
        yield _gather(group)


def _gather(group: list[tuple[int, Pixels]]) -> tuple[list[int], NDArray[np.uint8]]:
    return [index for index, _ in group], np.stack([view for _, view in group])
