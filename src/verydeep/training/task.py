"""The interface between training and its tasks: classification (Sect. 3.1) and localisation (Sect. A.1).

`verydeep.training.run` and `verydeep.training.trainer` are the same for both; all differences are in the task.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..checkpoints.checkpoint import Metadata
from ..core.device import Machine
from ..core.progress import Reporter
from ..core.settings import DataSettings, TrainSettings
from ..core.team import Team
from ..data.class_weights import class_weights
from ..data.dataloader import Batch, BoxTargets
from ..data.open import Data, Dataset
from ..models.vgg import Net


class Task(ABC):
    """What a net is trained for; the defaults are those of classification.

    ``error`` is the error's name in logs, ``loss`` that of the dev loss, which decides among epochs of equal error.
    """

    error: ClassVar[str]
    loss: ClassVar[str]

    @property
    def box_settings(self) -> dict[str, Any]:
        """The JSON of BoxSettings; empty for classification."""
        return {}

    @property
    def dropout(self) -> bool:
        """Whether dropout is used."""
        return True

    @abstractmethod
    def open(self, data: DataSettings, reporter: Reporter) -> Data:
        """The data, with the `train` and `dev` sets that training reads."""

    def prepare(  # noqa: B027 - nothing to do by default
        self, net: Net, metadata: Metadata, train: Dataset, settings: TrainSettings, reporter: Reporter
    ) -> None:
        """Changes a net that starts from another, in place, before step 1."""

    def targets(self, train: Dataset) -> BoxTargets | None:
        """The boxes that crops are regressed to; None for none."""
        return None

    def class_weights(self, train: Dataset, settings: TrainSettings) -> Tensor | None:
        """The factor of the loss of each class's images, float32 (K,); None for 1."""
        weights = class_weights(settings.class_weights, train.labels, train.classes)
        return None if weights is None else torch.from_numpy(weights).float()

    @abstractmethod
    def batch_loss(self, outputs: Tensor, batch: Batch, weights: Tensor | None = None) -> tuple[Tensor, int]:
        """The sum of the images' losses, a scalar, and how many images are wrong.

        Args:
            outputs: float (B,C) of the net on the batch's crops.
            batch: its labels and boxes on the device of the outputs.
            weights: `class_weights`.
        """

    @abstractmethod
    def chance(self, dev: Dataset) -> float:
        """The dev error of a constant prediction, in percent."""

    @abstractmethod
    def chance_loss(self, dev: Dataset) -> float:
        """The dev loss of a constant prediction."""

    @abstractmethod
    def validate(
        self, net: Net, metadata: Metadata, dev: Dataset, machine: Machine, reporter: Reporter, team: Team
    ) -> tuple[float, float]:
        """The dev error in percent, and the dev loss; both NaN if the net's outputs are not finite."""


def in_full_precision(outputs: Tensor) -> Tensor:
    """Outputs in float32; float64 stays."""
    return outputs.to(torch.promote_types(outputs.dtype, torch.float32))
