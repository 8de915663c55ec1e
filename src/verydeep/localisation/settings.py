"""App. A: the settings of a box net's training, and of the merging of its boxes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..core.config import setting
from ..core.errors import VerydeepError


@dataclass(frozen=True)
class BoxSettings:
    """What a box net is: one box for all classes, or one for each; Sect. A.1."""

    regression: Literal["PCR", "SCR"] = setting("PCR", "a box per class (PCR), or a single one for all classes (SCR)")
    dropout: bool = setting(True, "dropout in training; on few photos it makes the boxes of testing too small")
    balance: bool = setting(True, "scale the start's FC maps to fit the rate, which changes nothing a net tells")
    half_of_box: bool = setting(False, "OverFeat's rule: training crops that show at least half of the box")

    def outputs(self, classes: int) -> int:
        """Outputs of the last layer: 4 of a box, for each class under PCR."""
        return 4 * classes if self.regression == "PCR" else 4


@dataclass(frozen=True)
class MergeSettings:
    """How many boxes become one a label, where the paper leaves it open; `verydeep.data.boxes` says what each means."""

    t: float | None = setting(None, "boxes merge while the best match is at most t; none: tuned on dev photos")
    match: Literal["relative", "literal"] = setting("relative", "distance over size plus 1 - IoU, or OverFeat's text")
    coordinates: Literal["windows", "pair"] = setting("windows", "a merged box: mean of its windows, or half-way")
    merge: Literal["within", "across"] = setting("within", "boxes of one label merge, or those of all together")
    rate: Literal["window", "image"] = setting(
        "window", "a box counts its own window's posterior of the label, or the image's (which counts windows)"
    )

    def __post_init__(self) -> None:
        if self.t is not None and not self.t >= 0:
            raise VerydeepError(f"t is how far apart boxes may be that merge: 0 or more, not {self.t}.")
