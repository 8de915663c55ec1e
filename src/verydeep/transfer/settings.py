"""App. B: what a descriptor is, and how a linear SVM learns from it; where the paper is silent, a named setting."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..core.config import setting
from ..core.errors import VerydeepError
from ..models.architectures import LARGEST_SIDE, STRIDE

FEWEST_SPLITS, MOST_SPLITS = 1, 100


@dataclass(frozen=True)
class FeatureSettings:
    """What is computed of each photo at each scale; the spatial mean is averaged with the mirror image's."""

    layer: str = setting("fc7", "the layer: fc7, fc6, pool5, conv4_3, … (after ReLU), or fc7-before-relu, …")
    scales: tuple[int, ...] = setting((), "smallest sides Q in pixels: 256,384,512 (the net's own test scale, or 256)")
    pool: Literal["mean", "max"] = setting("mean", "over the map's cells: their mean (App. B) or their maximum")
    mirror: bool = setting(True, "average with the mirror image's descriptor")

    def __post_init__(self) -> None:
        if len(set(self.scales)) < len(self.scales):
            raise VerydeepError(f"scales names one twice: {','.join(map(str, self.scales))}.")
        for scale in self.scales:
            if not STRIDE <= scale <= LARGEST_SIDE:
                raise VerydeepError(f"a scale is {STRIDE} to {LARGEST_SIDE} pixels, not {scale}.")


@dataclass(frozen=True)
class DescriptorSettings:
    """How a photo's descriptors at several scales, and of several nets, become one vector.

    Scales are averaged, stacked or their maximum taken; nets are stacked. With ``normalise`` each net's descriptor
    at each scale is brought to length 1 first (``scale``), the final vector is (``end``), or both, so that no scale
    outweighs another.
    """

    aggregate: Literal["stack", "average", "max"] = setting("stack", "scales: stacked, averaged, or their maximum")
    normalise: Literal["both", "scale", "end", "none"] = setting("both", "length 1: each scale's, the whole, or both")


@dataclass(frozen=True)
class SvmSettings:
    """The linear SVM: its loss, the values of C that are tried, and the random splits of Caltech and own photos."""

    loss: Literal["squared-hinge", "hinge"] = setting("squared-hinge", "of a margin below 1")
    C: tuple[float, ...] = setting((0.01, 0.1, 1.0, 10.0, 100.0), "values tried; one is taken as it is")
    splits: int = setting(3, "random splits into training and test photos, where the data are split by chance")
    seed: int = setting(0, "seed of the first split; the next ones count up from it")

    def __post_init__(self) -> None:
        if not self.C or not all(value > 0 for value in self.C):
            raise VerydeepError(f"C lists values above 0, not {','.join(f'{value:g}' for value in self.C) or 'none'}.")
        if len(set(self.C)) < len(self.C):
            raise VerydeepError(f"C names a value twice: {','.join(f'{value:g}' for value in self.C)}.")
        if not FEWEST_SPLITS <= self.splits <= MOST_SPLITS:
            raise VerydeepError(f"splits is {FEWEST_SPLITS} to {MOST_SPLITS}, not {self.splits}.")
        if self.seed < 0:
            raise VerydeepError(f"seed must be 0 or more, not {self.seed}.")
