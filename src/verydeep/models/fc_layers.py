"""Initialisation of FC layers that a start does not have, and the scale of their maps.

Random FC layers destroy the information in the convolutions' maps: on few images fine-tuning takes many epochs to
recover it (NOTES.md). So new fc6 and fc7 are initialised to pass pool5 on: a unit of fc6 is the mean of one channel
over a part of the map (all of it, its quarters, its centre cell, its upper and its lower half, in turn), and fc7 is the
identity.

The scale of fc7's map decides at which learning rate fc8 diverges: the curvature of the cross-entropy in fc8's weights
is at most half the squared norm of fc7's map, which dropout doubles, and at momentum .9 gradient descent diverges where
rate times curvature exceeds about 4. A squared norm above 1 / rate is scaled down to it. A ReLU net is homogeneous, so
scaling changes the map of a trained fc7 by a factor only, which the new fc8 compensates.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .vgg import Net

HIDDEN = ("fc6", "fc7")


def pass_pool5_on(net: Net) -> None:
    """Initialises fc6 and fc7 to pass pool5 on, in place."""
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
    """Rows and columns of each part of a map of ``cells`` x ``cells``."""
    whole, half, middle = slice(0, cells), (cells + 1) // 2, cells // 2
    low, high, centre = slice(0, half), slice(cells - half, cells), slice(middle, middle + 1)
    quarters = [(down, across) for down in (low, high) for across in (low, high)]
    return [(whole, whole), *quarters, (centre, centre), (low, whole), (high, whole)]


def fit_to_rate(net: Net, length: float, rate: float, new: Sequence[str]) -> float:
    """Scales fc6 and fc7 down to fit a learning rate, in place: both if both are new, else fc7 only.

    Args:
        length: the mean squared norm of fc7's map.
        rate: the learning rate.
        new: the layers that the start does not have.

    Returns:
        The factor on fc7's map, at most 1.
    """
    factor = min(1.0, (rate * length) ** -0.5) if length > 0 else 1.0
    layers = HIDDEN if set(HIDDEN) <= set(new) else HIDDEN[1:]
    with torch.no_grad():
        for name in layers:
            share = factor ** (1 / len(layers))
            scale_layer(net, name, share, share)
    return factor


def squared_length(maps: Tensor) -> float:
    """The mean squared norm of maps (B,D,h,w)."""
    return float(maps.flatten(1).square().sum(1).mean())


def scale_layer(net: Net, name: str, of_weight: float, of_bias: float) -> None:
    """Multiplies a layer's weights and biases, in place."""
    layer = net.layer(name)
    layer.weight.mul_(of_weight)
    assert layer.bias is not None
    layer.bias.mul_(of_bias)
