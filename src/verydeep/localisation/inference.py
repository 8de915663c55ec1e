"""App. A: applies a localisation net to images: at each place a candidate box for each label, and its rating.

Output (i, j) of the map belongs to the crop whose corner is at (32 i, 32 j) of the rescaled image; the net predicts a
box's centre and size in shares of that crop. Boxes are returned in pixels of the image, clipped at its edges. A box is
rated by the classification net applied to the same rescaled image: its posterior of the label at the same place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

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
    """From an image's pixels to a localisation net's input: its height and width, and the image rescaled to Q."""

    scale: int
    resampling: Resampling
    other_side: OtherSide

    def __call__(self, pixels: Pixels) -> tuple[tuple[int, int], Pixels]:
        """uint8 (H,W,3) at the scale."""
        shown = rescale(pixels, self.scale, self.resampling, self.other_side)
        return (pixels.shape[0], pixels.shape[1]), shown


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
    """Raises VerydeepError where window (i, j) of the two nets would not be the same piece of an image."""
    for name in ("crop", "pooling", "resampling", "other_side"):
        own, theirs = getattr(box_metadata, name), getattr(rater, name)
        if own != theirs:
            raise VerydeepError(
                f"the classification net has {name} {theirs} and the localisation model {own}: it cannot rate "
                "boxes place by place; give another --classifier, or --rate image."
            )


def check_finite(found: dict[int, CandidateBoxes], net: str) -> None:
    """Raises VerydeepError where a box or a rating is NaN or infinite."""
    if not all(np.isfinite(photo.boxes).all() and np.isfinite(photo.ratings).all() for photo in found.values()):
        raise VerydeepError(f"{net} predicts NaN boxes; the weights are corrupt: train it again.")


def check_classes(box_metadata: Metadata, rater: Metadata) -> None:
    """Raises VerydeepError where the two nets' outputs do not stand for the same classes in the same order."""
    if not same_classes(box_metadata.classes, rater.classes):
        raise VerydeepError("the classification net has other classes than the localisation net: give another one.")


class BoxPredictor:
    """Applies a localisation net, and the net that rates, to images of one scale."""

    def __init__(
        self, net: Net, metadata: Metadata, rater: ScoringNet | None, protocol: BoxProtocol, machine: Machine
    ) -> None:
        """Args as for `run`; ``rater`` None rates every window 1. Nets are in evaluation mode on the device."""
        self._net, self.metadata, self._rater, self.machine = net, metadata, rater, machine
        self.protocol = protocol
        self._shift = _minus_mean(metadata)
        self._rater_shift = None if rater is None else _minus_mean(rater.metadata)

    def run(
        self,
        views: Iterable[tuple[int, tuple[tuple[int, int], Pixels]]],
        labels: NDArray[np.int64],
        done: Callable[[int], None] = lambda count: None,
    ) -> dict[int, CandidateBoxes]:
        """Returns the candidate boxes of images by their index.

        Args:
            views: an image's index and its `BoxViews`, in any order.
            labels: the classes to localise in each image, (N,L).
            done: called with the number of images finished since its last call.
        """
        sizes: dict[int, tuple[int, int]] = {}
        found: dict[int, CandidateBoxes] = {}

        def shown() -> Any:
            for index, (size, pixels) in views:
                sizes[index] = size
                yield index, [pixels]

        with torch.inference_mode(), self.machine.autocast():
            for indices, batch in equal_sizes(shown(), self._pixels):
                wanted = torch.from_numpy(labels[indices]).to(self.machine.device)
                pieces = [self._candidates(batch, wanted, mirrored) for mirrored in self._ways]
                boxes, ratings = (torch.cat(parts, 2).float().cpu().numpy() for parts in zip(*pieces, strict=True))
                for row, index in enumerate(indices):
                    in_image = _in_image(boxes[row], batch.shape[1:3], sizes[index])
                    found[index] = CandidateBoxes(in_image, ratings[row].T)
                done(len(indices))
        return found

    def _pixels(self, height: int, width: int) -> int:
        """Pixels that go through a net for one image of this size."""
        crops = self.protocol.corners(height, width, self._net.crop)
        return len(crops) * self._net.crop**2 or height * width

    @property
    def _ways(self) -> tuple[bool, ...]:
        return (False, True) if self.protocol.mirror else (False,)

    def _candidates(self, batch: NDArray[np.uint8], labels: Tensor, mirrored: bool) -> tuple[Tensor, Tensor]:
        """Boxes in pixels of the rescaled image, xyxy (B,L,n,4), and ratings (B,L,n)."""
        raw = torch.from_numpy(batch).permute(0, 3, 1, 2)
        maps = self._maps(self._net, raw, self._shift, mirrored)
        boxes = torch.cat([self._boxes(scores.float(), corners, labels) for corners, scores in maps], dim=2)
        if mirrored:
            left, right = boxes[..., 0].clone(), boxes[..., 2].clone()
            boxes[..., 0], boxes[..., 2] = batch.shape[2] - right, batch.shape[2] - left
        if self._rater is None or self._rater_shift is None:
            return boxes, torch.ones_like(boxes[..., 0])
        rated = self._maps(self._rater.net, raw, self._rater_shift, mirrored)
        posteriors = torch.cat([F.softmax(scores.float(), dim=1).flatten(2) for _, scores in rated], dim=2)
        return boxes, posteriors.gather(1, labels[:, :, None].expand(-1, -1, posteriors.shape[2]))

    def _maps(self, net: Net, raw: Tensor, shift: Tensor, mirrored: bool) -> list[tuple[tuple[int, int], Tensor]]:
        """Score maps (B,C,h,w), each with the pixels, down and across, of its first window's corner."""
        images = self.machine.to_input(raw, shift)
        images = images.flip(3) if mirrored else images
        if self.protocol.offsets:
            return net.shifted_scores(images)
        if self.protocol.method == "dense":
            return [((0, 0), net(images))]
        corners = self.protocol.corners(images.shape[2], images.shape[3], net.crop)
        crops = [images[:, :, top : top + net.crop, left : left + net.crop] for top, left in corners]
        return list(zip(corners, net(torch.cat(crops)).chunk(len(corners)), strict=True))

    def _boxes(self, scores: Tensor, corner: tuple[int, int], labels: Tensor) -> Tensor:
        """The boxes of the labels at each place of a map, xyxy (B,L,h·w,4)."""
        count, _, down, across = scores.shape
        offsets = scores.view(count, -1, 4, down * across)  # one box, or one per class
        if self.metadata.localiser_settings.regression == "PCR":
            offsets = offsets[torch.arange(count, device=labels.device)[:, None], labels]
        else:
            offsets = offsets.expand(-1, labels.shape[1], -1, -1)
        rows = corner[0] + STRIDE * torch.arange(down, device=scores.device)
        columns = corner[1] + STRIDE * torch.arange(across, device=scores.device)
        places = torch.stack([columns.repeat(down), rows.repeat_interleave(across)])
        cx, cy = (offsets[:, :, axis] * self._net.crop + places[axis] for axis in (0, 1))
        half_w, half_h = (offsets[:, :, axis].clamp(min=0) * self._net.crop / 2 for axis in (2, 3))
        return torch.stack([cx - half_w, cy - half_h, cx + half_w, cy + half_h], dim=-1)


def _minus_mean(metadata: Metadata) -> Tensor:
    return -torch.tensor(metadata.mean, dtype=torch.float32)[None]


def _in_image(boxes: NDArray[np.float32], rescaled: tuple[int, ...], image: tuple[int, int]) -> NDArray[np.float32]:
    """Boxes (L,n,4) of a rescaled image in the image's own pixels, clipped at its edges, (n,L,4)."""
    scale = np.array([image[1] / rescaled[1], image[0] / rescaled[0]] * 2)
    return clip(boxes * scale, *image).astype(np.float32).transpose(1, 0, 2)
