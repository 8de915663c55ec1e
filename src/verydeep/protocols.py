"""Sect. 3.2: how a photo becomes a posterior, stated before it is coded.

``dense@Q,…``
    The whole photo, rescaled so that its smallest side is Q. The net gives a score map (K,h,w); its
    spatial mean goes through the soft-max. The posteriors of the photo and of its mirror image are
    averaged, then those of the scales Q. ``dense@Q,…:softmax-first`` is the named alternative: the
    soft-max of each place of the map, then the spatial mean.
``centre@Q,…``
    The one central crop of the photo rescaled to Q, without its mirror image; averaged over Q.

Photos of exactly equal size share a batch; nothing is padded, which would change scores.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from .configurations import LARGEST_SIDE
from .errors import VerydeepError
from .images import OtherSide, Pixels, Resampling, centre_crop, rescale
from .machine import Machine
from .nets import Net

GRAMMAR = "METHOD@Q or METHOD@Q,Q,… with METHOD dense or centre, e.g. dense@256,384,512 or centre@256"
SOFTMAX_FIRST = ":softmax-first"
BATCH_PIXELS = 2_000_000  # of all photos of a batch together: bounds the memory of their maps
BATCH_PHOTOS = 64
WAITING_PIXELS = 50_000_000


@dataclass(frozen=True)
class Protocol:
    """A method of testing at one or several scales Q.

    ``mirror`` averages with the mirror image; ``softmax_first`` takes the soft-max before the spatial mean.
    """

    method: Literal["dense", "centre"]
    scales: tuple[int, ...]
    mirror: bool
    softmax_first: bool = False

    def __str__(self) -> str:
        name = f"{self.method}@{','.join(str(scale) for scale in self.scales)}"
        return name + (SOFTMAX_FIRST if self.softmax_first else "")


def parse_protocol(text: str) -> Protocol:
    """A protocol from its name, such as ``dense@256,384,512``.

    Raises:
        VerydeepError: it does not follow the grammar, which the sentence shows.
    """
    match = re.fullmatch(rf"(dense|centre)@(\d+(?:,\d+)*)({SOFTMAX_FIRST})?", text.strip())
    if not match:
        raise VerydeepError(f"{text!r} is not a protocol: write {GRAMMAR}.")
    scales = tuple(int(scale) for scale in match[2].split(","))
    if len(set(scales)) < len(scales):
        raise VerydeepError(f"{text!r} names a scale twice: each Q once.")
    if max(scales) > LARGEST_SIDE:
        raise VerydeepError(f"Q = {max(scales)} in {text!r} is above {LARGEST_SIDE} pixels, more than any photo needs.")
    if match[1] == "dense":
        return Protocol("dense", scales, mirror=True, softmax_first=bool(match[3]))
    if match[3]:
        raise VerydeepError(f"{text!r}: a centre crop has one place, so {SOFTMAX_FIRST} is for dense only.")
    return Protocol("centre", scales, mirror=False)


def check_protocol(protocol: Protocol, crop: int) -> None:
    """Raises VerydeepError where a scale Q is below the net's crop."""
    if min(protocol.scales) < crop:
        raise VerydeepError(
            f"Q = {min(protocol.scales)} in {protocol} is below the net's crop of {crop} pixels: use Q from {crop} up."
        )


@dataclass(frozen=True)
class Views:
    """From a photo's pixels to what the net is shown: one uint8 (H,W,3) for each scale Q."""

    protocol: Protocol
    crop: int
    resampling: Resampling = "bilinear"
    other_side: OtherSide = "round"

    def __call__(self, pixels: Pixels) -> list[Pixels]:
        """The rescaled photo, or its central crop, at each Q."""
        scaled = [rescale(pixels, scale, self.resampling, self.other_side) for scale in self.protocol.scales]
        return scaled if self.protocol.method == "dense" else [centre_crop(view, self.crop) for view in scaled]


def posterior(net: Net, images: Tensor, protocol: Protocol) -> Tensor:
    """Posteriors (B,K) of float images (B,3,H,W) of one scale, averaged with the mirror image's if so asked."""
    found = _one_way(net, images, protocol.softmax_first)
    if protocol.mirror:
        found = (found + _one_way(net, images.flip(3), protocol.softmax_first)) / 2
    return found


def _one_way(net: Net, images: Tensor, softmax_first: bool) -> Tensor:
    """Soft-max of the mean scores, or the mean of each place's soft-max, (B,K)."""
    if softmax_first:
        scores: Tensor = net(images)
        return F.softmax(scores.float(), dim=1).mean(dim=(2, 3))
    return F.softmax(net.mean_scores(images).float(), dim=1)


def posteriors(
    net: Net,
    mean: NDArray[np.float64],
    protocol: Protocol,
    views: Iterable[tuple[int, list[Pixels]]],
    photos: int,
    machine: Machine,
    done: Callable[[int], None] = lambda count: None,
) -> NDArray[np.float32]:
    """Posteriors of N photos, float32 (N,K); each row depends on its own photo alone.

    Args:
        net: on the machine's device, in evaluation mode.
        mean: RGB mean to subtract, (3,).
        views: a photo's index, 0 to N-1, and its `Views`, in any order.
        photos: N.
        done: told how many photos were finished since it was last told.
    """
    sums = np.zeros((photos, net.classes), dtype=np.float64)
    shift = torch.tensor(-np.asarray(mean), dtype=torch.float32)[None]
    with torch.inference_mode(), machine.products():
        for indices, batch in equal_sizes(views):
            images = machine.images(torch.from_numpy(batch).permute(0, 3, 1, 2), shift)
            found = posterior(net, images, protocol).cpu().double().numpy()
            np.add.at(sums, indices, found)
            done(len(indices))
    return (sums / len(protocol.scales)).astype(np.float32)


def equal_sizes(views: Iterable[tuple[int, list[Pixels]]]) -> Iterator[tuple[list[int], NDArray[np.uint8]]]:
    """Views gathered into batches of one size: photo indices and uint8 (B,H,W,3).

    Sizes that are rare wait for others of their kind, but never more than `WAITING_PIXELS` in all.
    """
    waiting: dict[tuple[int, ...], list[tuple[int, Pixels]]] = {}
    pixels = 0
    for index, shown in views:
        for view in shown:
            waiting.setdefault(view.shape, []).append((index, view))
            pixels += view.size // 3
            shape = view.shape
            if pixels > WAITING_PIXELS:
                shape = max(waiting, key=lambda size: len(waiting[size]) * size[0] * size[1])
            group = waiting[shape]
            area = len(group) * shape[0] * shape[1]
            if area >= BATCH_PIXELS or len(group) >= BATCH_PHOTOS or pixels > WAITING_PIXELS:
                pixels -= area
                yield _gather(waiting.pop(shape))
    for group in waiting.values():
        yield _gather(group)


def _gather(group: list[tuple[int, Pixels]]) -> tuple[list[int], NDArray[np.uint8]]:
    return [index for index, _ in group], np.stack([view for _, view in group])
