"""The peer torchvision: its VGG nets with their defaults, or equal layers where it is missing or has no such size."""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Callable, Sequence

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from ...core.config import STRIDE
from ...models.architectures import layers as table_row
from .order import IMAGES, TORCHVISION, WEIGHTS, Order
from .runner import random_images

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CROP = 224


def start(order: Order) -> tuple[str, Callable[[], object]]:
    """The net's name, and what it runs; a net that predicts has written its posteriors."""
    torch.set_num_threads(order.threads)
    device = torch.device(order.device)
    name, net = peer(order)
    net.to(device)
    if order.trains:
        images = random_images(order.count, order.size, order.size).to(device)
        return name, _synchronized(_step(net, images, order.classes), device)
    _copy_weights(order, net)
    images = torch.from_numpy(np.load(order.file(IMAGES))).to(device)
    predict = _predict(net, images, order.mean, order.precision == "bf16")
    np.save(order.posteriors, predict().numpy())
    return name, predict


def peer(order: Order) -> tuple[str, nn.Module]:
    """The net with random weights, and what to call it."""
    name = TORCHVISION[order.net]
    if (order.crop, order.width) == (CROP, 1.0):
        try:
            models = importlib.import_module("torchvision.models")
        except Exception:  # missing, or built for another PyTorch, which fails in several ways
            pass
        else:
            found: nn.Module = getattr(models, name)(weights=None, num_classes=order.classes)
            return f"torchvision {name}", found
    return f"{name}, torchvision's layers", plain_net(order.net, order.classes, order.crop, order.width)


def plain_net(net: str, classes: int, crop: int = CROP, width: float = 1.0) -> nn.Module:
    """The layers torchvision's net has, in its order: convolutions, ReLU, pooling, FC layers with dropout."""
    layers: list[nn.Module] = []
    specs = table_row(net, classes, crop, width)
    for _, stage in itertools.groupby([spec for spec in specs if spec.stage <= 5], key=lambda spec: spec.stage):
        for spec in stage:
            layers += [nn.Conv2d(spec.inputs, spec.outputs, spec.kernel, padding=spec.kernel // 2), nn.ReLU(True)]
        layers.append(nn.MaxPool2d(2, 2))
    cells = crop // STRIDE
    layers += [nn.AdaptiveAvgPool2d(cells), nn.Flatten()]
    fc6, fc7, fc8 = specs[-3:]
    layers += [nn.Linear(fc6.inputs * cells**2, fc6.outputs), nn.ReLU(True), nn.Dropout()]
    layers += [nn.Linear(fc7.inputs, fc7.outputs), nn.ReLU(True), nn.Dropout(), nn.Linear(fc8.inputs, fc8.outputs)]
    return nn.Sequential(*layers)


def _copy_weights(order: Order, net: nn.Module) -> None:
    """Gives the net our weights: FC layers are convolutions there, with the same values in the same order."""
    ours = load_file(order.file(WEIGHTS))
    specs = table_row(order.net, order.classes, order.crop, order.width)
    names = [f"{spec.name}.{kind}" for spec in specs for kind in ("weight", "bias")]
    with torch.no_grad():
        for name, parameter in zip(names, net.parameters(), strict=True):
            parameter.copy_(ours[name].view(parameter.shape))


def normalised(images: Tensor, mean: Sequence[float] = MEAN, deviation: Sequence[float] = DEVIATION) -> Tensor:
    """uint8 (B,H,W,3) as torchvision normalises it: float (B,3,H,W) from 0 to 1, minus mean, over deviation."""
    scaled = images.permute(0, 3, 1, 2).contiguous().float().div(255)
    less, over = (torch.tensor(values, device=images.device)[:, None, None] for values in (mean, deviation))
    return (scaled - less) / over


def _predict(net: nn.Module, images: Tensor, mean: Sequence[float], in_bf16: bool) -> Callable[[], Tensor]:
    """Images to posteriors: eager, channels first, by autocast in bf16; our weights take pixels minus the mean."""
    net.eval()
    less, over = [value / 255 for value in mean], [1 / 255] * len(mean)

    def once() -> Tensor:
        with torch.inference_mode(), torch.autocast(images.device.type, torch.bfloat16, enabled=in_bf16):
            return torch.softmax(net(normalised(images, less, over)).float(), dim=1).cpu()

    return once


def _step(net: nn.Module, images: Tensor, classes: int) -> Callable[[], None]:
    """As torchvision's reference training does it: channels first, float32, plain SGD."""
    net.train()
    sgd = torch.optim.SGD(net.parameters(), lr=1e-2, momentum=0.9, weight_decay=5e-4)
    labels = torch.randint(0, classes, (len(images),), generator=torch.Generator().manual_seed(0)).to(images.device)

    def once() -> None:
        sgd.zero_grad()
        F.cross_entropy(net(normalised(images)), labels).backward()  # type: ignore[no-untyped-call]
        sgd.step()

    return once


def _synchronized(step: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """A step that ends when the device has done its work."""

    def once() -> None:
        step()
        if device.type != "cpu":
            torch.accelerator.synchronize()

    return once
