"""Sect. 3.2: the dense net as PyTorch's own exported program (``.pt2``), with batch, height and width free.

Tracing takes a side of 1 for a constant, and at the crop the score map has one cell. So the last pooled map has a row
and a column more than are used: of zeros, which are added before pooling, where a maximum of maps after ReLU never
takes them, and whose cells of the score map are weighted with 0. The cells that count are as in
`verydeep.models.vgg.Net`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..checkpoints.exported import UINT8
from ..core.config import LARGEST_SIDE
from ..models.vgg import Net

MOST_PHOTOS = 4096


class Traceable(nn.Module):
    """A net as `torch.export` can trace it at any size: photos to posteriors, or pixels to scores, (B,K)."""

    def __init__(self, net: Net, mean: tuple[float, float, float], takes: str) -> None:
        super().__init__()
        self.net, self.takes = net, takes
        self.mean: Tensor
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32)[:, None, None])

    def forward(self, shown: Tensor) -> Tensor:
        """uint8 (B,H,W,3) to posteriors, or float (B,3,H,W) minus the mean to scores."""
        # Channels last is the faster layout on CPUs (NOTES.md); maps keep that of the first.
        if self.takes == UINT8:
            return F.softmax(self._scores(shown.permute(0, 3, 1, 2).float() - self.mean), dim=1)
        return self._scores(shown.contiguous(memory_format=torch.channels_last))

    def _scores(self, x: Tensor) -> Tensor:
        net, specs = self.net, self.net.specs
        for number, spec in enumerate(specs[:-3]):
            x = F.relu(net.layer(spec.name)(x))
            if net.lrn is not None and number == 0:
                x = net.lrn(x)
            if specs[number + 1].stage != spec.stage:
                more = (net.pooling == "up") + 2 * (spec.stage == 5)
                x = F.max_pool2d(F.pad(x, (0, more, 0, more)), 2, 2)
        fc8 = net.layer("fc8")
        return F.linear(self._mean_of_fc7(x), fc8.weight.flatten(1), fc8.bias)

    def _mean_of_fc7(self, x: Tensor) -> Tensor:
        """fc7 of the last pooled map, averaged over all places but those of its last row and column, (B,D)."""
        side = self.net.layer("fc6").kernel_size[0]
        height, width = x.shape[2] - side, x.shape[3] - side
        # A convolution of this kernel is slow where the map is hardly larger; one of its patches, as a row, is not.
        x = F.relu(_along_row(self.net, "fc6", F.unfold(x, side)))
        x = F.relu(_along_row(self.net, "fc7", x))
        place = torch.arange((height + 1) * (width + 1), device=x.device)
        counted = (place // (width + 1) < height) & (place % (width + 1) < width)
        return (x * (counted.to(x.dtype) / (height * width))).sum(2)


def _along_row(net: Net, name: str, x: Tensor) -> Tensor:
    """An FC layer at each place of a row (B,D,places)."""
    layer = net.layer(name)
    return F.conv1d(x, layer.weight.flatten(1)[:, :, None], layer.bias)


def trace(net: Net, mean: tuple[float, float, float], takes: str) -> torch.export.ExportedProgram:
    """The exported program of a net in evaluation mode; ``takes`` as in `verydeep.deploy.onnx.build`."""
    batch = torch.export.Dim("batch", min=1, max=MOST_PHOTOS)
    height, width = (torch.export.Dim(name, min=net.crop, max=LARGEST_SIDE) for name in ("height", "width"))
    sides = (2, net.crop + 33, net.crop + 70)  # no two are equal, so that none stands for another
    if takes == UINT8:
        shown, free = torch.zeros(*sides, 3, dtype=torch.uint8), {0: batch, 1: height, 2: width}
    else:
        shown, free = torch.zeros(sides[0], 3, *sides[1:]), {0: batch, 2: height, 3: width}
    return torch.export.export(Traceable(net, mean, takes).eval(), (shown,), dynamic_shapes=(free,))
