"""The two things a net is trained for: to tell classes (Sect. 3.1), or boxes (Sect. A.1).

What a training has in common is in `verydeep.preparing` and `verydeep.training`; here is what differs before it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any
from typing import Protocol as Interface

from .box_settings import BoxSettings
from .checkpoints import Card
from .config import DataSettings, TrainSettings, to_json
from .data import Data, Dataset, open_data
from .data.located import located
from .machine import Machine
from .objectives import BoxObjective, ClassObjective, Objective
from .progress import Reporter


class Task(Interface):
    """What a net is trained for; ``box_settings`` is what its card says of boxes."""

    @property
    def box_settings(self) -> dict[str, Any]:
        """The JSON of BoxSettings; empty for classes."""

    def open(self, data: DataSettings, reporter: Reporter) -> Data:
        """The data, their `train` and `dev` sets as training reads them."""

    def objective(
        self, dev: Dataset, card: Card, settings: TrainSettings, machine: Machine, reporter: Reporter
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

    def objective(
        self, dev: Dataset, card: Card, settings: TrainSettings, machine: Machine, reporter: Reporter
    ) -> Objective:
        """Multinomial logistic regression."""
        return ClassObjective(dev, card, settings.validate, machine, reporter)


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

    def objective(
        self, dev: Dataset, card: Card, settings: TrainSettings, machine: Machine, reporter: Reporter
    ) -> Objective:
        """The Euclidean loss."""
        return BoxObjective(dev, card, self.boxes, machine, reporter)
