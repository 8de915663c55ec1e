"""Before a new last layer learns classes: fc6 and fc7 are brought to a scale that fits the learning rate.

The curvature of the cross-entropy in fc8's weights is at most half the squared length of fc7's map, which dropout
doubles; at momentum .9 gradient descent diverges where rate times curvature passes about 4. How long that map is
depends on the pixels, the crop and the draw of new layers (NOTES.md). So where its squared length is above 1 / rate it
is scaled down to that: both layers by the same factor where both are new, else fc7 alone. A ReLU net is homogeneous, so
that the map of a trained fc7 changes by a factor only, which the new fc8 follows.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from .nets import Net


def fit_fc_to_rate(net: Net, images: Tensor, rate: float, new: Sequence[str]) -> float:
    """Scales fc6 and fc7, or fc7 alone, in place.

    Args:
        images: crops, float (B,3,crop,crop), minus the mean.
        rate: the learning rate to come.
        new: the layers that are random.

    Returns:
        The factor of each scaled layer, 1 at most.
    """
    layers = ("fc6", "fc7") if {"fc6", "fc7"} <= set(new) else ("fc7",)
    with torch.no_grad():
        sixth = F.relu(net.layer("fc6")(net.stages(images)[-1]))
        length = squared_length(F.relu(net.layer("fc7")(sixth)))
        factor = min(1.0, (rate * length) ** (-0.5 / len(layers))) if length > 0 else 1.0
        for name in layers:
            scale_layer(net, name, factor, factor)
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
