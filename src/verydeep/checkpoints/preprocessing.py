"""Sect. 2.1, "subtracting the mean RGB value": the pixels that a weight file expects, converted to those of our nets.

Our nets take RGB, 0-255, minus a mean. Other preprocessing is folded into the first layer exactly: for BGR its input
channels are flipped, for a standard deviation they are scaled. Zero padding stays zero, so this holds at the borders.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..core.errors import VerydeepError

MEAN_RGB = (123.68, 116.779, 103.939)  # of ILSVRC's training set, as released with the weights
CAFFE_MEAN_BGR = (103.939, 116.779, 123.68)
Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Preprocessing:
    """The pixels that a weight file expects: (x · scale - mean) / std in ``order``, x from 0 to 255."""

    order: str
    mean: Triple
    scale: float = 1.0
    std: Triple = (1.0, 1.0, 1.0)

    def to_json(self) -> dict[str, Any]:
        """As sidecars record it; `from_json` reads it."""
        return {"channel_order": self.order, "scale": self.scale, "mean": list(self.mean), "std": list(self.std)}

    @staticmethod
    def from_json(values: dict[str, Any]) -> Preprocessing:
        """Reads `to_json`; raises KeyError, TypeError or ValueError where it is incomplete."""
        if values["channel_order"] not in ("RGB", "BGR"):
            raise ValueError
        return Preprocessing(
            values["channel_order"], triple(values["mean"]), float(values["scale"]), triple(values["std"])
        )

    def formula(self) -> str:
        """``BGR, x - (103.939, 116.779, 123.68), x from 0 to 255``: numbers are in the order of the channels."""
        text = "x" if self.scale == 1 else f"x / {1 / self.scale:.9g}"
        text = f"{text} - {_numbers(self.mean)}"
        if self.std != (1.0, 1.0, 1.0):
            text = f"({text}) / {_numbers(self.std)}"
        return f"{self.order}, {text}, x from 0 to 255"


def _numbers(values: Triple) -> str:
    """With as many digits as distinguish neighbouring 32-bit floats."""
    return f"({', '.join(f'{value:.9g}' for value in values)})"


def our_pixels(mean: Triple) -> Preprocessing:
    """What a net of ours takes: RGB, 0-255, minus its mean."""
    return Preprocessing("RGB", mean)


KNOWN = {
    "caffe": Preprocessing("BGR", CAFFE_MEAN_BGR),
    "rgb-mean": Preprocessing("RGB", MEAN_RGB),
    "torchvision": Preprocessing("RGB", (0.485, 0.456, 0.406), 1 / 255, (0.229, 0.224, 0.225)),
    "torchvision-features": Preprocessing("RGB", (0.48235, 0.45882, 0.40784), 1 / 255, (1 / 255, 1 / 255, 1 / 255)),
}
CHOICES = (
    "caffe (BGR 0-255 minus Oxford's mean), rgb-mean (RGB 0-255 minus it), torchvision (RGB in [0,1], normalised) "
    "or torchvision-features (of IMAGENET1K_FEATURES)"
)


def triple(values: Any) -> Triple:
    """Three numbers, one per channel; raises TypeError or ValueError for anything else."""
    first, second, third = (float(value) for value in values)
    return first, second, third


def pixels_named(name: str) -> Preprocessing:
    """The preprocessing of a name in `KNOWN`; raises VerydeepError for another name."""
    if name not in KNOWN:
        raise VerydeepError(f"preprocessing must be recorded, {', '.join(KNOWN)}, not {name!r}.")
    return KNOWN[name]


def to_our_pixels(first: Tensor, pixels: Preprocessing) -> tuple[Tensor, Triple]:
    """conv1_1's weights (D,3,k,k), changed to take RGB 0-255 minus the returned mean."""
    factors = [pixels.scale / std for std in pixels.std]
    mean = tuple(value / pixels.scale for value in pixels.mean)
    if factors != [1.0, 1.0, 1.0]:
        first = first * torch.tensor(factors)[None, :, None, None]
    if pixels.order == "BGR":
        first, mean = first.flip(1), mean[::-1]
    return first.contiguous(), triple(mean)
