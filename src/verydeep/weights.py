"""Sect. 1, "we have released our two best-performing models": weights from outside, made ours.

Our nets take RGB, 0-255, minus a mean. A weight file's own pixels are turned into that exactly, by
changing the first layer alone: BGR flips its input channels, and pixels divided by a standard
deviation scale them. What a file means is read from what it records, never guessed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from .checkpoints import CARD_KEY, load_checkpoint, read_safetensors
from .configurations import NET_NAMES, layers
from .errors import VerydeepError
from .runs import checkpoint_of

MEAN_RGB = (123.68, 116.779, 103.939)  # of ILSVRC's training set, as released with the weights
CAFFE_MEAN_BGR = MEAN_RGB[::-1]


@dataclass(frozen=True)
class Preprocessing:
    """The pixels a weight file expects: (x · scale - mean) / std in ``order``, x from 0 to 255."""

    order: str
    mean: tuple[float, float, float]
    scale: float = 1.0
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)


KNOWN = {
    "caffe": Preprocessing("BGR", (CAFFE_MEAN_BGR[0], CAFFE_MEAN_BGR[1], CAFFE_MEAN_BGR[2])),
    "rgb-mean": Preprocessing("RGB", MEAN_RGB),
    "torchvision": Preprocessing("RGB", (0.485, 0.456, 0.406), 1 / 255, (0.229, 0.224, 0.225)),
}


@dataclass(frozen=True)
class Weights:
    """Layers by name for RGB 0-255 minus ``mean`` (None where only some net's shape is known)."""

    net: str
    tensors: dict[str, Tensor]
    mean: tuple[float, float, float]
    classes: tuple[str, ...] | None
    source: str


def read_weights(start: str, preprocessing: str = "recorded") -> Weights:
    """Weights to start from: a run's folder (its best), a checkpoint, or a safetensors weight file.

    Args:
        start: the path.
        preprocessing: a key of `KNOWN` for files that do not record their pixels.

    Raises:
        VerydeepError: not there, broken, not weights of a known net, or pixels unknown.
    """
    path = Path(start)
    if path.is_dir():
        path = checkpoint_of(path, last=False)
    elif not path.exists():
        raise VerydeepError(f"there is no run or weight file {start} to start from; --start none starts from random.")
    metadata, tensors = read_safetensors(path)
    if CARD_KEY in metadata:
        loaded = load_checkpoint(path)
        classes = None if loaded.card.box_settings else loaded.card.classes
        return Weights(loaded.card.net, loaded.weights, loaded.card.mean, classes, str(path))
    tensors = {name: value.float() for name, value in tensors.items()}
    bad = [name for name, value in tensors.items() if not torch.isfinite(value).all()]
    if bad:
        raise VerydeepError(f"{path} has NaN or infinite values in {bad[0]}: the file is broken.")
    pixels = _preprocessing(path, metadata, preprocessing)
    net = metadata.get("net") or _net_of(path, tensors)
    return Weights(net, *_to_rgb(path, tensors, pixels), classes=None, source=str(path))


def _preprocessing(path: Path, metadata: dict[str, str], named: str) -> Preprocessing:
    if named != "recorded":
        return KNOWN[named]
    order = metadata.get("channel_order", "")
    recorded = metadata.get(f"mean_{order.lower()}", "").split(",")
    if order in ("RGB", "BGR") and len(recorded) == 3 and metadata.get("input_range") == "0-255":
        first, second, third = (float(value) for value in recorded)
        return Preprocessing(order, (first, second, third))
    raise VerydeepError(
        f"{path} does not record which pixels its weights expect: say --preprocessing caffe (BGR minus mean), "
        "rgb-mean (RGB minus mean) or torchvision (RGB in [0,1], normalised)."
    )


def _net_of(path: Path, tensors: dict[str, Tensor]) -> str:
    """The net whose convolutions the file has, all and no others."""
    shapes = {name: tuple(value.shape) for name, value in tensors.items() if name.startswith("conv")}
    for name in NET_NAMES:
        wanted = [spec for spec in layers(name) if spec.stage <= 5]
        expected: dict[str, tuple[int, ...]] = {
            f"{s.name}.weight": (s.outputs, s.inputs, s.kernel, s.kernel) for s in wanted
        }
        expected |= {f"{s.name}.bias": (s.outputs,) for s in wanted}
        if shapes == expected:
            return name
    raise VerydeepError(f"{path} does not hold the convolutions of a net of Table 1 (conv1_1.weight, …).")


def _to_rgb(
    path: Path, tensors: dict[str, Tensor], pixels: Preprocessing
) -> tuple[dict[str, Tensor], tuple[float, float, float]]:
    """Tensors for RGB 0-255 minus the returned mean; zero padding stays zero, so this is exact."""
    if "conv1_1.weight" not in tensors or tensors["conv1_1.weight"].shape[1:2] != (3,):
        raise VerydeepError(f"{path} has no conv1_1.weight of three input channels: is it a weight file of these nets?")
    first = tensors["conv1_1.weight"] * (pixels.scale / torch.tensor(pixels.std))[None, :, None, None]
    mean = tuple(value / pixels.scale for value in pixels.mean)
    if pixels.order == "BGR":
        first, mean = first.flip(1), mean[::-1]
    return {**tensors, "conv1_1.weight": first.contiguous()}, (mean[0], mean[1], mean[2])
