"""App. B: dense descriptors of images.

An image is rescaled so that its smallest side is Q, the net is applied to the whole image, and the layer's map
(B,D,h,w) is averaged over its cells to a descriptor (B,D), which is averaged with that of the mirror image. Each scale
has its own descriptor; `combine` makes one vector of them: it stacks, averages or takes the maximum over scales, stacks
nets, and normalises to length 1 as in `DescriptorSettings`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..core.device import Machine
from ..core.errors import VerydeepError
from ..core.settings import DescriptorSettings
from ..data.image_io import Pixels
from ..evaluation.inference import equal_sizes
from ..models.vgg import Net
from .backbone import FeatureNet

Array = NDArray[np.float32]


def descriptor(net: Net, images: Tensor, layer: str, pool: Literal["mean", "max"], mirror: bool) -> Tensor:
    """Descriptors (B,D) of float images (B,3,H,W) of one scale, not normalised.

    Args:
        pool: over the map's cells.
        mirror: whether to average with the mirror image's.
    """
    pooled = _pooled(net.activations(images, layer), pool)
    if mirror:
        pooled = (pooled + _pooled(net.activations(images.flip(3), layer), pool)) / 2
    return pooled


def _pooled(maps: Tensor, pool: Literal["mean", "max"]) -> Tensor:
    return maps.float().mean(dim=(2, 3)) if pool == "mean" else maps.float().amax(dim=(2, 3))


def descriptors(
    source: FeatureNet,
    views: Iterable[tuple[int, list[Pixels]]],
    pool: Literal["mean", "max"],
    mirror: bool,
    machine: Machine,
) -> Iterator[tuple[int, list[int], Array]]:
    """Computes descriptors in batches of views of equal size, in any order; each depends on its own image only.

    Args:
        source: with its net on the machine's device.
        views: an image's index and the image at each scale.

    Yields:
        A scale Q, image indices (B,), and their descriptors float32 (B,D).

    Raises:
        VerydeepError: a descriptor is not finite, which half precision may cause.
    """
    shift = -torch.tensor(source.metadata.mean, dtype=torch.float32)[None]
    for indices, batch in equal_sizes(views, lambda height, width: height * width):
        with torch.inference_mode(), machine.autocast():
            images = machine.to_input(torch.from_numpy(batch).permute(0, 3, 1, 2), shift)
            rows = descriptor(source.net, images, source.layer, pool, mirror).cpu().numpy()
        if not np.isfinite(rows).all():
            raise VerydeepError("a descriptor is NaN or infinite: try --precision float32.")
        yield min(batch.shape[1:3]), indices, rows  # Q is the smallest side


def combine(nets: Sequence[dict[int, Array]], settings: DescriptorSettings) -> Array:
    """One vector per image, float32 (N,D), from the descriptors (N,D) of each net at each scale.

    A descriptor that is 0 everywhere stays 0.
    """
    stacked = np.concatenate([_combine_scales(list(scales.values()), settings) for scales in nets], axis=1)
    return unit(stacked) if settings.normalise in ("both", "end") else stacked


def _combine_scales(scales: list[Array], settings: DescriptorSettings) -> Array:
    if settings.normalise in ("both", "scale"):
        scales = [unit(rows) for rows in scales]
    if settings.aggregate == "stack":
        return np.concatenate(scales, axis=1)
    combined: Array = np.mean(scales, axis=0) if settings.aggregate == "average" else np.max(scales, axis=0)
    return combined


def unit(rows: Array) -> Array:
    """Rows (N,D) normalised to L2 length 1."""
    lengths = np.sqrt(np.einsum("nd,nd->n", rows, rows, dtype=np.float64))[:, None]
    divided: Array = (rows / np.where(lengths > 0, lengths, 1)).astype(np.float32)
    return divided


def class_means(rows: Array, labels: NDArray[np.int64], classes: int) -> Array:
    """The mean descriptor of each class, of L2 length 1, (K,D)."""
    return unit(np.stack([unit(rows[labels == number]).mean(axis=0) for number in range(classes)]))


def similarity(rows: Array, means: Array) -> NDArray[np.float32]:
    """The cosine of descriptors (N,D) and the nearest of class means (K,D), (N,)."""
    nearest: NDArray[np.float32] = (unit(rows) @ means.T).max(axis=1)
    return nearest
