"""Sect. 2.2: Table 1 as text, and layers, parameters and multiply-adds computed from it, without PyTorch.

A row is a net, a cell between bars a stage that ends in max-pooling, ``3-64`` a convolution of 3x3 kernels with 64
channels (the paper's ``conv3-64``). FC-4096, FC-4096 and FC-classes follow in every net; the first of them is stored as
a convolution whose kernel covers the last map of a training crop (``crop / 32`` cells).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..core.config import STRIDE, check_crop
from ..core.errors import VerydeepError
from ..core.nearest import nearest

TABLE_1 = """
A         | 3-64      | 3-128       | 3-256 3-256             | 3-512 3-512             | 3-512 3-512
A-LRN     | 3-64 LRN  | 3-128       | 3-256 3-256             | 3-512 3-512             | 3-512 3-512
B         | 3-64 3-64 | 3-128 3-128 | 3-256 3-256             | 3-512 3-512             | 3-512 3-512
C         | 3-64 3-64 | 3-128 3-128 | 3-256 3-256 1-256       | 3-512 3-512 1-512       | 3-512 3-512 1-512
D         | 3-64 3-64 | 3-128 3-128 | 3-256 3-256 3-256       | 3-512 3-512 3-512       | 3-512 3-512 3-512
E         | 3-64 3-64 | 3-128 3-128 | 3-256 3-256 3-256 3-256 | 3-512 3-512 3-512 3-512 | 3-512 3-512 3-512 3-512
shallow-B | 5-64      | 5-128       | 5-256                   | 5-512                   | 5-512
"""

FC_CHANNELS = 4096
BY_LAYERS = {11: "A", 13: "B", 16: "D", 19: "E"}  # as in VGG-16
_ROWS = {
    cells[0].strip(): tuple(tuple(cell.split()) for cell in cells[1:])
    for cells in (line.split("|") for line in TABLE_1.strip().splitlines())
}
NET_NAMES = tuple(_ROWS)


@dataclass(frozen=True)
class Layer:
    """A layer with weights: ``outputs`` channels from ``inputs`` with kernels of ``kernel`` x ``kernel``.

    ``stage`` is 1 to 5 for convolutions (a stage ends in max-pooling) and 6 for the FC layers.
    """

    name: str
    stage: int
    kernel: int
    inputs: int
    outputs: int

    @property
    def parameters(self) -> int:
        """The number of weights and biases."""
        return self.outputs * (self.inputs * self.kernel**2 + 1)


@dataclass(frozen=True)
class NetFacts:
    """Facts about a net, such as those of Table 2; multiply-adds are of one crop, forward."""

    name: str
    weight_layers: int
    parameters: int
    multiply_adds: int
    receptive_field: int
    crop: int
    width: float
    classes: int
    layers: tuple[Layer, ...]


def check_net_name(name: str) -> str:
    """Returns the name of a net of Table 1; raises VerydeepError, which suggests the nearest name, if it is none."""
    if name not in _ROWS:
        raise VerydeepError(f"there is no net {name!r}: {_suggestion(name)}The nets are {', '.join(NET_NAMES)}.")
    return name


def _suggestion(name: str) -> str:
    """The net that an unknown name may mean, as a sentence; empty if there is none."""
    plain = re.sub(r"[-_ ]|^net|^model", "", name.lower())
    number = re.fullmatch(r"vgg(?:net)?(\d{1,3})(bn)?", plain)
    if number and int(number[1]) in BY_LAYERS:
        net = BY_LAYERS[int(number[1])]
        batch_norm = "no net here has batch normalisation; " if number[2] else ""
        return f"{batch_norm}VGG-{number[1]} is net {net}. "
    near = nearest(plain.removeprefix("vgg"), NET_NAMES) or nearest(name, NET_NAMES, 0.4)
    return f"did you mean {near}? " if near else ""


def layers(name: str, classes: int = 1000, crop: int = 224, width: float = 1.0) -> tuple[Layer, ...]:
    """The layers with weights of a net, from the input to fc8 (Table 1).

    Args:
        name: a net of Table 1, or ``shallow-B`` (Sect. 4.1).
        classes: outputs of fc8, at least 1.
        crop: side of a training crop in pixels, a multiple of 32.
        width: factor on the channels of every hidden layer (1 in the paper).
    """
    check_net_name(name), check_crop(crop)
    if not classes >= 1 or not 0 < width <= 16:
        raise VerydeepError(f"a net needs at least 1 class and a width above 0 (up to 16), not {classes} and {width}.")
    result: list[Layer] = []
    channels = 3
    for stage, cells in enumerate(_ROWS[name], start=1):
        convolutions = [cell for cell in cells if cell != "LRN"]
        for number, cell in enumerate(convolutions, start=1):
            kernel, wide = (int(part) for part in cell.split("-"))
            outputs = max(1, round(wide * width))
            result.append(Layer(f"conv{stage}_{number}", stage, kernel, channels, outputs))
            channels = outputs
    hidden = max(1, round(FC_CHANNELS * width))
    for fc, kernel, outputs in (("fc6", crop // STRIDE, hidden), ("fc7", 1, hidden), ("fc8", 1, classes)):
        result.append(Layer(fc, 6, kernel, channels, outputs))
        channels = outputs
    return tuple(result)


def has_lrn(name: str) -> bool:
    """Whether the net has local response normalisation after its first convolution (A-LRN only)."""
    return "LRN" in _ROWS[name][0]


def net_facts(name: str, classes: int = 1000, crop: int = 224, width: float = 1.0) -> NetFacts:
    """Layers, parameters, multiply-adds and receptive field of a net."""
    specs = layers(name, classes, crop, width)
    return NetFacts(
        name=name,
        weight_layers=len(specs),
        parameters=sum(layer.parameters for layer in specs),
        multiply_adds=multiply_adds(specs, crop, crop),
        receptive_field=receptive_field(specs),
        crop=crop,
        width=width,
        classes=classes,
        layers=specs,
    )


def multiply_adds(
    specs: tuple[Layer, ...], height: int, width: int, pooling: str = "up", everywhere: bool = False
) -> int:
    """Forward multiply-adds of the layers on one image of ``height`` x ``width`` pixels.

    Args:
        pooling: rounds the pooled size ``up`` or ``down``.
        everywhere: whether fc8 is applied to each cell of fc7's map, not once to its mean.
    """
    total, stage = 0, 1
    for layer in specs:
        if layer.stage > stage:
            up = 1 if pooling == "up" else 0
            height, width, stage = (height + up) // 2, (width + up) // 2, layer.stage
        if layer.name == "fc6":
            height, width = max(1, height - layer.kernel + 1), max(1, width - layer.kernel + 1)
        cells = 1 if layer.name == "fc8" and not everywhere else height * width
        total += layer.inputs * layer.outputs * layer.kernel**2 * cells
    return total


def receptive_field(specs: tuple[Layer, ...]) -> int:
    """Side in pixels of the receptive field of an output of fc6 (404 for D: Sect. 3.2's wider context).

    A kernel of k cells adds (k - 1) steps of its input's stride; each pooling doubles the stride.
    """
    field, stride, stage = 1, 1, 1
    for layer in specs:
        while stage < layer.stage:
            field, stride, stage = field + stride, stride * 2, stage + 1
        field += (layer.kernel - 1) * stride
    return field
