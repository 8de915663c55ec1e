"""What a net learns, and how its dev part is judged: classes (Sect. 3.1), or boxes (App. A)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal
from typing import Protocol as Interface

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..checkpoints.checkpoint import Card
from ..core.device import Machine
from ..core.progress import Reporter
from ..core.settings import BoxSettings
from ..core.team import Team
from ..data.boxes import cxcywh_to_xyxy, iou
from ..data.dataloader import Batch, BoxTargets
from ..data.open import Dataset
from ..evaluation.evaluate import dataset_posteriors
from ..evaluation.metrics import BOX_IOU, best_overlap, chance_error, mean_log_loss, topk_error
from ..evaluation.protocols import BoxProtocol, Protocol
from ..localisation.windows_file import dataset_windows
from ..models.vgg import Net


class Objective(Interface):
    """What is minimised on training crops, and measured on the dev part after each epoch.

    ``error`` is the error's name in logs, ``loss`` that of what decides among epochs of equal error; ``chance`` and
    ``chance_loss`` are the error in percent and the loss of knowing nothing.
    """

    @property
    def dropout(self) -> bool:
        """Whether dropout is at work in training."""

    @property
    def error(self) -> str:
        """The error's name."""

    @property
    def loss(self) -> str:
        """The name of the dev part's loss."""

    @property
    def chance(self) -> float:
        """In percent."""

    @property
    def chance_loss(self) -> float:
        """The dev part's loss of knowing nothing."""

    def targets(self, train: Dataset) -> BoxTargets | None:
        """What crops are to tell of boxes; None for nothing."""

    def batch_loss(self, outputs: Tensor, batch: Batch) -> tuple[Tensor, int]:
        """The sum of the photos' losses, a scalar, and how many photos are wrong.

        Args:
            outputs: float (B,C) of the net on the batch's crops.
            batch: its labels and boxes on the device of the outputs.
        """

    def test(self, net: Net) -> tuple[float, float]:
        """The dev part's error in percent, and its loss; NaN where the net's answers are."""


@dataclass(frozen=True)
class ClassObjective:
    """Multinomial logistic regression; the dev part by top-1 error at Q = S."""

    dev: Dataset
    card: Card
    method: Literal["centre", "dense"]
    machine: Machine
    reporter: Reporter
    team: Team
    error: str = "top1_error"
    loss: str = "loss"
    dropout: bool = True

    @property
    def chance(self) -> float:
        """The error of always guessing the commonest class."""
        return chance_error(self.dev.labels)

    @property
    def chance_loss(self) -> float:
        """That of the same probability for every class."""
        return float(np.log(len(self.dev.classes)))

    def targets(self, train: Dataset) -> BoxTargets | None:
        """None."""
        return None

    def batch_loss(self, outputs: Tensor, batch: Batch) -> tuple[Tensor, int]:
        """Cross-entropy."""
        loss = F.cross_entropy(_full(outputs), batch.labels, reduction="sum")
        return loss, int((outputs.argmax(1) != batch.labels).sum())

    def test(self, net: Net) -> tuple[float, float]:
        """Top-1 error in percent, and mean log loss."""
        protocol = Protocol(self.method, (self.card.test_scale,), mirror=self.method == "dense")
        answers = dataset_posteriors(
            net, self.card, self.dev, protocol, self.machine, self.reporter, "testing dev", team=self.team
        )
        if not np.isfinite(answers.posteriors).all():
            return np.nan, np.nan
        error = topk_error(answers.posteriors, self.dev.labels, 1)
        assert error is not None
        return error, mean_log_loss(answers.posteriors, self.dev.labels)


@dataclass(frozen=True)
class BoxObjective:
    """Sect. A.1's Euclidean loss, half the squared distance of (cx, cy, w, h), all in shares of the crop's side.

    Under PCR only the four outputs of a photo's class are asked for, and get a gradient. The dev part is judged by
    the first procedure: the centre crop at Q = S, the true class, right at an overlap of `BOX_IOU`.
    """

    dev: Dataset
    card: Card
    boxes: BoxSettings
    machine: Machine
    reporter: Reporter
    team: Team
    error: str = "gt_class_error"
    loss: str = "missed_overlap"
    chance: float = 100.0
    chance_loss: float = 1.0

    @property
    def dropout(self) -> bool:
        """As the settings say."""
        return self.boxes.dropout

    def targets(self, train: Dataset) -> BoxTargets | None:
        """The boxes of the training photos."""
        assert train.boxes is not None
        return BoxTargets(train.boxes, self.boxes.half_of_box)

    def batch_loss(self, outputs: Tensor, batch: Batch) -> tuple[Tensor, int]:
        """The Euclidean loss; a crop is wrong where the overlap with its target is below `BOX_IOU`."""
        told = _full(outputs)
        if self.boxes.regression == "PCR":
            told = told.view(len(told), -1, 4)[torch.arange(len(told), device=told.device), batch.labels]
        loss = (told - batch.boxes).square().sum() / 2
        overlap = iou(*(_corners(boxes) for boxes in (told, batch.boxes)))
        return loss, int((overlap < BOX_IOU).sum())

    def test(self, net: Net) -> tuple[float, float]:
        """GT-class error in percent, and the mean of 1 - IoU with the nearest box of the class."""
        protocol = BoxProtocol("centre", (self.card.test_scale,))
        labels = self.dev.labels[:, None]
        mine = np.array(self.team.share(len(self.dev)), dtype=np.int64)
        found = dataset_windows(
            *(net, self.card, None, self.dev.take(mine), labels[mine], protocol, self.machine, self.reporter),
            "testing dev",
        )
        boxes = [found[place].boxes[0, 0] for place in range(len(mine))]
        guesses = np.stack([box for share in self.team.collect(boxes) for box in share])
        if not np.isfinite(guesses).all():
            return np.nan, np.nan
        assert self.dev.boxes is not None
        overlap = best_overlap(guesses, self.dev.boxes)
        return 100 * float((overlap < BOX_IOU).mean()), float(1 - overlap.mean())


def _full(outputs: Tensor) -> Tensor:
    """Outputs in float32, or as they are where they are finer."""
    return outputs.to(torch.promote_types(outputs.dtype, torch.float32))


def _corners(boxes: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return cxcywh_to_xyxy(boxes.detach().cpu().numpy())
