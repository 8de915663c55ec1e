"""What others would run in our place, by their defaults: torchvision's VGG nets, or equal ones where it is missing."""

from __future__ import annotations

import importlib
import itertools

import torch
from torch import Tensor, nn

from ...core.errors import VerydeepError
from ...models.architectures import layers as table_row

PEERS = ("torchvision",)
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TORCHVISION = {"A": "vgg11", "B": "vgg13", "D": "vgg16", "E": "vgg19"}


def check_peer(name: str, net: str) -> None:
    """Raises VerydeepError where there is no such peer, or it has no such net."""
    if name not in PEERS:
        raise VerydeepError(f"there is no peer {name!r} to compare with: use {', '.join(PEERS)}.")
    if net not in TORCHVISION:
        raise VerydeepError(f"{name} has no net {net}: compare {', '.join(TORCHVISION)}.")


def peer(name: str, net: str, classes: int) -> tuple[str, nn.Module]:
    """A peer's net with random weights, and what to call it; raises VerydeepError as `check_peer`."""
    check_peer(name, net)
    try:
        models = importlib.import_module("torchvision.models")
    except Exception:  # missing, or built for another PyTorch, which fails in several ways
        return f"{TORCHVISION[net]}, torchvision's layers", plain_net(net, classes)
    found: nn.Module = getattr(models, TORCHVISION[net])(weights=None, num_classes=classes)
    return f"torchvision {TORCHVISION[net]}", found


def plain_net(net: str, classes: int) -> nn.Module:
    """The layers torchvision's net has, in its order: convolutions, ReLU, pooling, FC layers with dropout."""
    layers: list[nn.Module] = []
    specs = table_row(net, classes)
    for _, stage in itertools.groupby([spec for spec in specs if spec.stage <= 5], key=lambda spec: spec.stage):
        for spec in stage:
            layers += [nn.Conv2d(spec.inputs, spec.outputs, spec.kernel, padding=spec.kernel // 2), nn.ReLU(True)]
        layers.append(nn.MaxPool2d(2, 2))
    inputs, hidden = 49 * 512, 4096
    layers += [nn.AdaptiveAvgPool2d(7), nn.Flatten(), nn.Linear(inputs, hidden), nn.ReLU(True), nn.Dropout()]
    layers += [nn.Linear(hidden, hidden), nn.ReLU(True), nn.Dropout(), nn.Linear(hidden, classes)]
    return nn.Sequential(*layers)


def as_they_do(photos: Tensor) -> Tensor:
    """uint8 (B,H,W,3) as its transforms make it: float (B,3,H,W) from 0 to 1, minus mean, over deviation."""
    images = photos.permute(0, 3, 1, 2).contiguous().float().div(255)
    mean, deviation = (torch.tensor(values, device=photos.device)[:, None, None] for values in (MEAN, DEVIATION))
    return (images - mean) / deviation
