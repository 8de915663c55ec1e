"""Rescales the FC layers to fit the learning rate, before a new last layer is trained on boxes.

A ReLU net is homogeneous: a layer times s and the next one over s compute the same. So the scale of fc6's and fc7's
maps is arbitrary, but it decides at which learning rate gradient descent diverges: the curvature of a Euclidean loss
does not depend on how good the net is, and at momentum .9 a step diverges where rate times curvature exceeds about 4. A
layer's part of the curvature is the squared length of its input times that of the box's gradient with respect to its
output. FC layers trained on 0-255 pixels can be far above that at the paper's rate of 1e-3 (NOTES.md). So

- fc7's map is scaled so that fc8's part, times the rate, is 1 (including dropout's factor of 2);
- fc6's map is scaled, and fc7's weights inversely, so that the parts of fc6 and fc7 are equal;
- fc8, which is new, is scaled so that its first outputs are about `FIRST_BOX` of the crop, whatever its random weights.

The net's fc7 outputs are those of the start times one factor.
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
        outputs = net.layer("fc8")(seventh * second).square().mean().sqrt()
        third = _factor(FIRST_BOX, float(outputs)) ** 2
        scale_layer(net, "fc8", third, 1.0)
        # The gradients of a box's four numbers with respect to the two maps, through the active units.
        last, middle = net.layer("fc8").weight[:4].flatten(1), net.layer("fc7").weight.flatten(1)
        slopes = last[None] * (seventh.flatten(1) > 0)[:, None]
        deeper = (slopes @ middle) * (sixth.flatten(1) > 0)[:, None]
        inputs = squared_length(pooled), 2 * squared_length(sixth)
        gradients = [float(slope.square().sum((1, 2)).mean()) for slope in (deeper, slopes)]
        first = _factor((inputs[0] * gradients[0]) ** 0.5, (inputs[1] * gradients[1]) ** 0.5)
        scale_layer(net, "fc6", first, first)
        scale_layer(net, "fc7", 1 / first, 1.0)
    return first, second, third


def _factor(target: float, length: float) -> float:
    """The factor that makes a squared length the target; 1 where either is 0."""
    return (target / length) ** 0.5 if length > 0 and target > 0 else 1.0
