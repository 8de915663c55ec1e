"""Before a new last layer learns boxes: the FC layers are brought to a size that fits the rate.

A ReLU net is homogeneous: a layer times s and the next one over s tell the same. How large fc6's and fc7's maps are
has no meaning, then, but it decides at which rate gradient descent diverges: a Euclidean loss has the same curvature
however good the net is, and at momentum .9 a step diverges where rate times curvature passes about 4. A weight
layer's part of the curvature is the squared length of what it is shown times that of how the box hangs on what it
tells. FC layers learned on 0-255 pixels can be far above that at the paper's rate of 1e-3 (NOTES.md). So

- fc7's map is scaled until fc8's part, times the rate, is 1 (dropout's doubling counted);
- fc6's map is scaled, and fc7's weights the other way, until the parts of fc6 and fc7 are equal;
- fc8, which is new, is scaled until what it tells first is about `FIRST_BOX` of the crop, and its draw cannot matter.

What the net tells through fc7 is what the start told, but for one factor, which the new fc8 follows.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..models.fc_layers import scale_layer, squared_length
from ..models.vgg import Net

FIRST_BOX = 0.02


def balance(net: Net, images: Tensor, rate: float) -> tuple[float, float, float]:
    """Scales fc6, fc7 and fc8 in place.

    Args:
        images: crops, float (B,3,crop,crop), minus the mean.
        rate: the learning rate to come.

    Returns:
        The factors of fc6's map, of fc7's, and of fc8's weights; 1 where a map is all zeros.
    """
    with torch.no_grad():
        pooled = net.stages(images)[-1]
        sixth = F.relu(net.layer("fc6")(pooled))
        seventh = F.relu(net.layer("fc7")(sixth))
        second = _factor(1 / (2 * rate), squared_length(seventh))
        scale_layer(net, "fc7", second, second)
        told = net.layer("fc8")(seventh * second).square().mean().sqrt()
        third = _factor(FIRST_BOX, float(told)) ** 2
        scale_layer(net, "fc8", third, 1.0)
        # How a box hangs on the two maps: its four numbers' slopes, through the units that are on.
        last, middle = net.layer("fc8").weight[:4].flatten(1), net.layer("fc7").weight.flatten(1)
        slopes = last[None] * (seventh.flatten(1) > 0)[:, None]
        deeper = (slopes @ middle) * (sixth.flatten(1) > 0)[:, None]
        shown = squared_length(pooled), 2 * squared_length(sixth)
        hangs = [float(one.square().sum((1, 2)).mean()) for one in (deeper, slopes)]
        first = _factor((shown[0] * hangs[0]) ** 0.5, (shown[1] * hangs[1]) ** 0.5)
        scale_layer(net, "fc6", first, first)
        scale_layer(net, "fc7", 1 / first, 1.0)
    return first, second, third


def _factor(wanted: float, found: float) -> float:
    """What makes a squared length the wanted one; 1 where there is none."""
    return (wanted / found) ** 0.5 if found > 0 and wanted > 0 else 1.0
