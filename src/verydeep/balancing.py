"""Before a new last layer learns: the FC layers' maps are brought to one size, and the net stays what it was.

A ReLU net is homogeneous: a layer times s and the next one over s tell the same. How large fc7's map is has no
meaning, then, but a Euclidean loss on a new last layer only learns while the rate times the map's squared length is
small: with momentum .9 it diverges above about 4. FC layers learned on top of 0-255 pixels may be ten times larger
than that at the paper's rate of 1e-3. So fc6 and fc7 are scaled until that product is 1, dropout's doubling counted.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from .nets import Net


def balance(net: Net, images: Tensor, rate: float) -> tuple[float, float]:
    """Scales fc6 and fc7 in place so that their maps have a mean squared length of 1 / (2 · rate).

    What the net tells through fc7 is the same but for fc7's own factor, which only a new fc8 may follow.

    Args:
        images: crops, float (B,3,crop,crop), minus the mean.
        rate: the learning rate to come.

    Returns:
        The factors of fc6's and fc7's maps; 1 where a map is all zeros.
    """
    with torch.no_grad():
        pooled = net.stages(images)[-1]
        sixth = F.relu(net.layer("fc6")(pooled))
        first = _factor(sixth, rate)
        second = _factor(F.relu(net.layer("fc7")(sixth)), rate)
        _scale(net, "fc6", first, first)
        _scale(net, "fc7", second / first, second)
    return first, second


def _factor(found: Tensor, rate: float) -> float:
    length = float(found.float().flatten(1).square().sum(1).mean())
    return (1 / (2 * rate * length)) ** 0.5 if length > 0 else 1.0


def _scale(net: Net, name: str, of_weight: float, of_bias: float) -> None:
    layer = net.layer(name)
    layer.weight.mul_(of_weight)
    assert layer.bias is not None
    layer.bias.mul_(of_bias)
