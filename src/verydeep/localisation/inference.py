"""App. A: applies a localisation model to images: a candidate box for each label at each position, and its rating.

Output (i, j) of the map belongs to the crop whose corner is at (32 i, 32 j) of the rescaled image; the net predicts a
box's centre and size relative to that crop. Boxes are returned in pixels of the image, clipped at its edges. A box is
rated by the classification net on the same rescaled image: by its posterior of the label at the same position.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ..checkpoints.checkpoint import Metadata
from ..core.config import STRIDE
from ..core.device import Machine
from ..core.errors import VerydeepError
from ..data.boxes import clip
from ..data.class_names import same_classes
from ..data.image_io import Pixels
from ..data.transforms import OtherSide, Resampling, rescale
from ..evaluation.inference import equal_sizes
from ..evaluation.protocols import BoxProtocol
from ..models.vgg import Net


@dataclass(frozen=True)
class BoxViews:
    """Transforms an image to the input of a localisation model: its height and width, and the image rescaled to Q."""

    scale: int
    resampling: Resampling
    other_side: OtherSide

    def __call__(self, pixels: Pixels) -> tuple[tuple[int, int], Pixels]:
        """The size, and uint8 (h,w,3) at the scale."""
        return pixels.shape[:2], rescale(pixels, self.scale, self.resampling, self.other_side)


@dataclass(frozen=True)
class ScoringNet:
    """A classification net on the device, and its metadata."""

    net: Net
    metadata: Metadata


@dataclass(frozen=True)
class CandidateBoxes:
    """The n candidates of one image for each of L labels: boxes xyxy float32 (n,L,4), and their ratings (n,L)."""

    boxes: NDArray[np.float32]
    ratings: NDArray[np.float32]


def check_rater(box_metadata: Metadata, rater: Metadata) -> None:
    """Raises VerydeepError where position (i, j) of the two nets' maps would not be the same part of an image."""
    for name in ("crop", "pooling", "resampling", "other_side"):
        expected, actual = getattr(box_metadata, name), getattr(rater, name)
        if actual != expected:
            raise VerydeepError(
                f"the classification net has {name} {actual} and the localisation model {expected}: it cannot score "
                "boxes by position; use another --classifier, or --rate image."
            )


def check_finite(candidates: dict[int, CandidateBoxes], net: str) -> None:
    """Raises VerydeepError where a box or a rating is NaN or infinite."""
    if not all(np.isfinite(image.boxes).all() and np.isfinite(image.ratings).all() for image in candidates.values()):
        raise VerydeepError(f"{net} predicts NaN boxes; the weights are corrupted: train it again.")


def check_classes(box_metadata: Metadata, rater: Metadata) -> None:
    """Raises VerydeepError where the two nets have different classes or another order of them."""
    if not same_classes(box_metadata.classes, rater.classes):
        raise VerydeepError(
            "the classification net has other classes than the localisation model: use another --classifier."
        )


class BoxPredictor:
    """Applies a localisation model, and the net that rates its boxes, to images of one scale."""

    def __init__(
        self, net: Net, metadata: Metadata, rater: ScoringNet | None, protocol: BoxProtocol, machine: Machine
    ) -> None:
        """Takes nets in evaluation mode on the device; without a ``rater`` every rating is 1."""
        self._net, self.metadata, self._rater, self.machine = net, metadata, rater, machine
        self.protocol = protocol

    def run(
        self,
        views: Iterable[tuple[int, tuple[tuple[int, int], Pixels]]],
        labels: NDArray[np.int64],
        done: Callable[[int], None] = lambda count: None,
    ) -> dict[int, CandidateBoxes]:
        """The candidate boxes of images by index.

        Args:
            views: an image's index and its `BoxViews`, in any order.
            labels: the classes to locate in each image, (N,L).
            done: called with the number of images finished since the last call.
        """
        sizes: dict[int, tuple[int, int]] = {}
        candidates: dict[int, CandidateBoxes] = {}

        def scaled() -> Iterator[tuple[int, list[Pixels]]]:
            for index, (size, pixels) in views:
                sizes[index] = size
                yield index, [pixels]

        with torch.inference_mode(), self.machine.autocast():
            for indices, batch in equal_sizes(scaled(), self._pixels):
                of_batch = torch.from_numpy(labels[indices]).to(self.machine.device)
                mirrored = (False, True) if self.protocol.mirror else (False,)
                pieces = [self._candidates(batch, of_batch, mirror) for mirror in mirrored]
                boxes, ratings = (torch.cat(parts, 2).float().cpu().numpy() for parts in zip(*pieces, strict=True))
                for row, index in enumerate(indices):
                    in_image = _in_image(boxes[row], batch.shape[1:3], sizes[index])
                    candidates[index] = CandidateBoxes(in_image, ratings[row].T)
                done(len(indices))
        return candidates

    def _pixels(self, height: int, width: int) -> int:
        """Pixels that go through a net for one image of this size."""
        crops = self.protocol.corners(height, width, self._net.crop)
        return len(crops) * self._net.crop**2 or height * width

    def _candidates(self, batch: NDArray[np.uint8], labels: Tensor, mirrored: bool) -> tuple[Tensor, Tensor]:
        """Boxes in pixels of the rescaled image, xyxy (B,L,n,4), and ratings (B,L,n)."""
        raw = torch.from_numpy(batch).permute(0, 3, 1, 2)
        maps = self._maps(self._net, raw, self.metadata, mirrored)
        boxes = torch.cat([self._boxes(scores.float(), corners, labels) for corners, scores in maps], dim=2)
        if mirrored:
            left, right = boxes[..., 0].clone(), boxes[..., 2].clone()
            boxes[..., 0], boxes[..., 2] = batch.shape[2] - right, batch.shape[2] - left
        if self._rater is None:
            return boxes, torch.ones_like(boxes[..., 0])
        rated = self._maps(self._rater.net, raw, self._rater.metadata, mirrored)
        posteriors = torch.cat([F.softmax(scores.float(), dim=1).flatten(2) for _, scores in rated], dim=2)
        return boxes, posteriors.gather(1, labels[:, :, None].expand(-1, -1, posteriors.shape[2]))

    def _maps(self, net: Net, raw: Tensor, metadata: Metadata, mirrored: bool) -> list[tuple[tuple[int, int], Tensor]]:
        """Score maps (B,C,h,w), each with the top and left of its first cell's crop."""
        images = self.machine.to_input(raw, -torch.tensor(metadata.mean, dtype=torch.float32)[None])
        images = images.flip(3) if mirrored else images
        if self.protocol.offsets:
            return net.shifted_scores(images)
        if self.protocol.method == "dense":
            return [((0, 0), net(images))]
        corners = self.protocol.corners(images.shape[2], images.shape[3], net.crop)
        crops = [images[:, :, top : top + net.crop, left : left + net.crop] for top, left in corners]
        return list(zip(corners, net(torch.cat(crops)).chunk(len(corners)), strict=True))

    def _boxes(self, scores: Tensor, corner: tuple[int, int], labels: Tensor) -> Tensor:
        """The boxes of the labels at each position of a map, xyxy (B,L,h·w,4)."""
        count, _, down, across = scores.shape
        offsets = scores.view(count, -1, 4, down * across)  # one box, or one per class
        if self.metadata.localiser_settings.regression == "PCR":
            offsets = offsets[torch.arange(count, device=labels.device)[:, None], labels]
        else:
            offsets = offsets.expand(-1, labels.shape[1], -1, -1)
        rows = corner[0] + STRIDE * torch.arange(down, device=scores.device)
        columns = corner[1] + STRIDE * torch.arange(across, device=scores.device)
        corners = torch.stack([columns.repeat(down), rows.repeat_interleave(across)])
        cx, cy = (offsets[:, :, axis] * self._net.crop + corners[axis] for axis in (0, 1))
        half_w, half_h = (offsets[:, :, axis].clamp(min=0) * self._net.crop / 2 for axis in (2, 3))
        return torch.stack([cx - half_w, cy - half_h, cx + half_w, cy + half_h], dim=-1)


def _in_image(boxes: NDArray[np.float32], rescaled: tuple[int, ...], image: tuple[int, int]) -> NDArray[np.float32]:
    """Boxes (L,n,4) of a rescaled image in the image's own pixels, clipped at its edges, (n,L,4)."""
    scale = np.array([image[1] / rescaled[1], image[0] / rescaled[0]] * 2)
    return clip(boxes * scale, *image).astype(np.float32).transpose(1, 0, 2)
