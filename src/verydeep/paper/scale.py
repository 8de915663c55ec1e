"""The size of an experiment: the paper's, or doll size, which takes minutes.

Experiments write S and Q in the paper's pixels; here they are converted, once, by the ratio of the crops. Nothing else
of a run's name or of a row changes with the size.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from ..core.config import Scale
from ..training.recipes import papers_start

PAPER_CROP = 224


@dataclass(frozen=True)
class Size:
    """The crop in pixels, the data, and where results go by default."""

    name: str
    crop: int
    data: str
    folder: str
    doll: bool = False

    def pixels(self, q: int) -> int:
        """The paper's pixels at this size."""
        return round(q * self.crop / PAPER_CROP)

    def protocol(self, text: str) -> str:
        """A protocol in this size's pixels: ``dense@256`` is ``dense@73`` at a crop of 64."""
        method, _, rest = text.partition("@")
        return f"{method}@" + re.sub(r"\d+", lambda match: str(self.pixels(int(match[0]))), rest)

    def settings(self, run: str) -> dict[str, Any]:
        """Settings of a run of the paper besides those of its name; none at the paper's size."""
        if not self.doll:
            return {}
        boxes = re.fullmatch(r".+/(.+?)-(?:SCR|PCR)(?:-fc)?", run)
        scale = Scale.parse(boxes[1] if boxes else run.partition("/")[2].removesuffix("-fc"))
        stages = {None: DOLL_FROM_RANDOM, "A/256": DOLL_FROM_A}
        stage = DOLL_BOXES if boxes else stages.get(papers_start(run), DOLL_FINE_TUNE)
        return {**DOLL_NET, **stage, "S": Scale(self.pixels(scale.smallest), self.pixels(scale.largest))}


PAPER = Size("paper", PAPER_CROP, "imagenet", "runs")
DOLL = Size("doll", 64, "digits", "runs/doll", doll=True)
# The rate and batch with which every seed tried converged (NOTES.md); the paper's are for its own size.
DOLL_NET: dict[str, Any] = {"crop": DOLL.crop, "width": 1 / 8, "batch": 32, "initialise": "glorot"}
DOLL_FROM_RANDOM: dict[str, Any] = {"lr": 5e-3, "drop_at": (18,), "max_epochs": 22}
DOLL_FROM_A: dict[str, Any] = {"lr": 5e-3, "drop_at": (12,), "max_epochs": 16}
# Sect. 3.1: from a net trained at another S, a tenth of the rate.
DOLL_FINE_TUNE: dict[str, Any] = {"lr": 5e-4, "drop_at": (9,), "max_epochs": 11}
DOLL_BOXES: dict[str, Any] = {"lr": 5e-3, "drop_at": (6,), "max_epochs": 8}
