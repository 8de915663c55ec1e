"""The peer: torchvision's VGG nets with their defaults, or equal ones where it is missing, in a process of their own.

There none of our settings helps or hinders it. `python -m verydeep.deploy.benchmark.peer_process JSON` prints the
peer's name, and then runs once for each line that it reads, and prints a line when it is done.
"""

from __future__ import annotations

import importlib
import itertools
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...core.device import Machine
from ...core.errors import VerydeepError
from ...models.architectures import layers as table_row
from .runner import random_images

PEERS = ("torchvision",)
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TORCHVISION = {"A": "vgg11", "B": "vgg13", "D": "vgg16", "E": "vgg19"}


@dataclass(frozen=True)
class Order:
    """What a peer runs: a net's prediction of ``count`` images of a size, or a training step on them (``trains``)."""

    peer: str
    net: str
    classes: int
    count: int
    size: int
    trains: bool


@contextmanager
def at_work(order: Order, machine: Machine) -> Iterator[tuple[str, Callable[[], object]]]:
    """The peer's name, and a function that runs it once.

    Raises:
        VerydeepError: no such peer, or it has no such net, or its process ended.
    """
    check_peer(order.peer, order.net)
    job = json.dumps({"order": asdict(order), "device": str(machine.device), "threads": machine.threads})
    words = [sys.executable, "-m", __name__, job]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        requests, replies = process.stdin, process.stdout

        def reply() -> str:
            if not (line := replies.readline().strip()):
                raise VerydeepError(f"{order.peer}'s process ended; it may need more memory: lower --batch.")
            return line

        def once() -> None:
            requests.write("\n")
            requests.flush()
            reply()

        try:
            yield reply(), once
        finally:
            with suppress(OSError):  # it has ended already
                requests.close()  # then it ends


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


def normalised(images: Tensor) -> Tensor:
    """uint8 (B,H,W,3) as torchvision normalises it: float (B,3,H,W) from 0 to 1, minus mean, over deviation."""
    scaled = images.permute(0, 3, 1, 2).contiguous().float().div(255)
    mean, deviation = (torch.tensor(values, device=images.device)[:, None, None] for values in (MEAN, DEVIATION))
    return (scaled - mean) / deviation


def _predict(net: nn.Module, images: torch.Tensor) -> Callable[[], object]:
    """Images to posteriors: float32, eager, channels first."""
    net.eval()

    def once() -> object:
        with torch.inference_mode():
            return torch.softmax(net(normalised(images)), dim=1).cpu()

    return once


def _step(net: nn.Module, images: torch.Tensor, classes: int) -> Callable[[], object]:
    """As torchvision's reference training does it: channels first, float32, plain SGD."""
    net.train()
    sgd = torch.optim.SGD(net.parameters(), lr=1e-2, momentum=0.9, weight_decay=5e-4)
    labels = torch.randint(0, classes, (len(images),), generator=torch.Generator().manual_seed(0)).to(images.device)

    def once() -> None:
        sgd.zero_grad()
        F.cross_entropy(net(normalised(images)), labels).backward()  # type: ignore[no-untyped-call]
        sgd.step()

    return once


def main() -> None:
    """The process of the peer."""
    job = json.loads(sys.argv[1])
    order, device = Order(**job["order"]), torch.device(job["device"])
    torch.set_num_threads(job["threads"])
    name, net = peer(order.peer, order.net, order.classes)
    images = random_images(order.count, order.size, order.size).to(device)
    net.to(device)
    once = _step(net, images, order.classes) if order.trains else _predict(net, images)
    print(name, flush=True)
    for _ in sys.stdin:
        once()
        if device.type != "cpu":
            torch.accelerator.synchronize()
        print("done", flush=True)


if __name__ == "__main__":
    main()
