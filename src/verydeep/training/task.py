"""The two things a net is trained for: to tell classes (Sect. 3.1), or boxes (Sect. A.1).

What a training has in common is in `verydeep.training.run` and `verydeep.training.trainer`; here is what differs before
it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any
from typing import Protocol as Interface

import numpy as np
import torch

from ..checkpoints.checkpoint import Card
from ..core.config import to_json
from ..core.device import Machine
from ..core.progress import Reporter
from ..core.settings import BoxSettings, DataSettings, TrainSettings
from ..core.team import Team
from ..data.box_targets import located
from ..data.image_io import centre_crop, rescale
from ..data.open import Data, Dataset, open_data
from ..localisation.rebalance import balance
from ..models.vgg import Net
from .objectives import BoxObjective, ClassObjective, Objective

LOOKED_AT = 64  # training photos whose maps are looked at


class Task(Interface):
    """What a net is trained for; ``box_settings`` is what its card says of boxes."""

    @property
    def box_settings(self) -> dict[str, Any]:
        """The JSON of BoxSettings; empty for classes."""

    def open(self, data: DataSettings, reporter: Reporter) -> Data:
        """The data, their `train` and `dev` sets as training reads them."""

    def prepare(self, net: Net, card: Card, train: Dataset, settings: TrainSettings, reporter: Reporter) -> None:
        """What is done to a net that starts from another, before step 1."""

    def objective(
        self, dev: Dataset, card: Card, settings: TrainSettings, machine: Machine, reporter: Reporter, team: Team
    ) -> Objective:
        """What is minimised, and how the dev part is judged."""


@dataclass(frozen=True)
class TellClasses:
    """Classification."""

    @property
    def box_settings(self) -> dict[str, Any]:
        """Empty."""
        return {}

    def open(self, data: DataSettings, reporter: Reporter) -> Data:
        """All photos."""
        return open_data(data)

    def prepare(self, net: Net, card: Card, train: Dataset, settings: TrainSettings, reporter: Reporter) -> None:
        """Nothing."""

    def objective(
        self, dev: Dataset, card: Card, settings: TrainSettings, machine: Machine, reporter: Reporter, team: Team
    ) -> Objective:
        """Multinomial logistic regression."""
        return ClassObjective(dev, card, settings.validate, machine, reporter, team)


@dataclass(frozen=True)
class TellBoxes:
    """Localisation; with ``strict`` any fault of the boxes is an error."""

    boxes: BoxSettings
    strict: bool

    @property
    def box_settings(self) -> dict[str, Any]:
        """Of the boxes."""
        return to_json(self.boxes)

    def open(self, data: DataSettings, reporter: Reporter) -> Data:
        """The photos that have boxes of their class."""
        opened = open_data(data, least_classes=1)
        learned = {name: located(opened.set(name), self.strict, reporter).dataset for name in ("train", "dev")}
        return replace(opened, sets={**opened.sets, **learned})

    def prepare(self, net: Net, card: Card, train: Dataset, settings: TrainSettings, reporter: Reporter) -> None:
        """Balances the FC layers' maps, seen on centre crops of a few training photos."""
        if not self.boxes.balance:
            return
        chosen = np.unique(np.linspace(0, len(train) - 1, min(LOOKED_AT, len(train))).astype(np.int64))
        scaled = [rescale(train.pixels(int(index)), card.test_scale, card.resampling) for index in chosen]
        crops = torch.from_numpy(np.stack([centre_crop(pixels, card.crop) for pixels in scaled])).permute(0, 3, 1, 2)
        factors = balance(net, crops.float() - torch.tensor(card.mean)[None, :, None, None], settings.lr)
        reporter.say("fc6, fc7 and fc8 are scaled by {:.2g}, {:.2g} and {:.2g} to fit the rate".format(*factors))

    def objective(
        self, dev: Dataset, card: Card, settings: TrainSettings, machine: Machine, reporter: Reporter, team: Team
    ) -> Objective:
        """The Euclidean loss."""
        return BoxObjective(dev, card, self.boxes, machine, reporter, team)
