"""FC layers that the start does not have: what they pass on, and how large their maps are.

Random FC layers lose what the convolutions tell: on few photos fine-tuning takes many epochs to find it again
(NOTES.md). So new fc6 and fc7 begin as layers that pass pool5 on: a unit of fc6 is the mean of one channel over a part
of the map (all of it, its quarters, its centre cell, its upper and its lower half, in turn), and fc7 is the identity.

How large their maps are decides at which rate fc8 diverges: the curvature of the cross-entropy in fc8's weights is at
most half the squared length of fc7's map, which dropout doubles, and at momentum .9 gradient descent diverges where
rate times curvature passes about 4. Where that squared length is above 1 / rate it is scaled down to it. A ReLU net is
homogeneous, so that the map of a trained fc7 changes by a factor only, which the new fc8 follows.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .vgg import Net

HIDDEN = ("fc6", "fc7")


def pass_pool5_on(net: Net) -> None:
    """Gives fc6 and fc7 the weights that pass pool5 on, in place."""
    with torch.no_grad():
        sixth, seventh = (net.layer(name).weight for name in HIDDEN)
        units, channels, cells = sixth.shape[:3]
        sixth.zero_()
        seventh.zero_()
        regions = _regions(cells)
        for unit in range(units):
            down, across = regions[(unit // channels) % len(regions)]
            part = sixth[unit, unit % channels, down, across]
            part.fill_(1 / part.numel())
        for unit in range(min(seventh.shape[:2])):
            seventh[unit, unit] = 1
        for name in HIDDEN:
            bias = net.layer(name).bias
            assert bias is not None
            bias.zero_()


def _regions(cells: int) -> list[tuple[slice, slice]]:
    """Rows and columns of the parts of a map of ``cells`` x ``cells``."""
    whole, half, middle = slice(0, cells), (cells + 1) // 2, cells // 2
    low, high, centre = slice(0, half), slice(cells - half, cells), slice(middle, middle + 1)
    quarters = [(down, across) for down in (low, high) for across in (low, high)]
    return [(whole, whole), *quarters, (centre, centre), (low, whole), (high, whole)]


def fit_to_rate(net: Net, length: float, rate: float, new: Sequence[str]) -> float:
    """Scales fc6 and fc7 down, in place: both where both are new, else fc7 alone.

    Args:
        length: the mean squared length of fc7's map.
        rate: the learning rate to come.
        new: the layers that the start does not have.

    Returns:
        What fc7's map is multiplied by, 1 at most.
    """
    factor = min(1.0, (rate * length) ** -0.5) if length > 0 else 1.0
    layers = HIDDEN if set(HIDDEN) <= set(new) else HIDDEN[1:]
    with torch.no_grad():
        for name in layers:
            one = factor ** (1 / len(layers))
            scale_layer(net, name, one, one)
    return factor


def squared_length(found: Tensor) -> float:
    """The mean squared length of a map."""
    return float(found.flatten(1).square().sum(1).mean())


def scale_layer(net: Net, name: str, of_weight: float, of_bias: float) -> None:
    """Multiplies a layer's weights and biases, in place."""
    layer = net.layer(name)
    layer.weight.mul_(of_weight)
    assert layer.bias is not None
    layer.bias.mul_(of_bias)
