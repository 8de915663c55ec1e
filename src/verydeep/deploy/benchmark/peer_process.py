"""A peer at work in a process of its own, by its defaults: nothing we set for ourselves serves or hinders it there.

    python -m verydeep.deploy.benchmark.benchmark.apart JSON

tells the peer's name, and then does its work once for each line it reads, and answers each with a line.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass

import torch
from torch import nn
from torch.nn import functional as F

from ...core.device import Machine
from ...core.errors import VerydeepError
from .peers import as_they_do, check_peer, peer
from .runner import random_photos


@dataclass(frozen=True)
class Order:
    """What a peer is to do: ask a net about ``count`` photos of a size, or a training step on them (``learns``)."""

    peer: str
    net: str
    classes: int
    count: int
    size: int
    learns: bool


@contextmanager
def at_work(order: Order, machine: Machine) -> Iterator[tuple[str, Callable[[], object]]]:
    """The peer's name, and what does its work once and returns when it is done.

    Raises:
        VerydeepError: no such peer, or it has no such net, or its process ended.
    """
    check_peer(order.peer, order.net)
    told = json.dumps({"order": asdict(order), "device": str(machine.device), "threads": machine.threads})
    words = [sys.executable, "-m", __name__, told]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        asked, answers = process.stdin, process.stdout

        def heard() -> str:
            if not (line := answers.readline().strip()):
                raise VerydeepError(f"{order.peer}'s process ended; it may need more memory: lower --batch.")
            return line

        def once() -> None:
            asked.write("\n")
            asked.flush()
            heard()

        try:
            yield heard(), once
        finally:
            with suppress(OSError):  # it has ended already
                asked.close()  # its sign to leave


def _asked(net: nn.Module, photos: torch.Tensor) -> Callable[[], object]:
    """Photos to posteriors: float32, eager, channels first."""
    net.eval()

    def once() -> object:
        with torch.inference_mode():
            return torch.softmax(net(as_they_do(photos)), dim=1).cpu()

    return once


def _step(net: nn.Module, photos: torch.Tensor, classes: int) -> Callable[[], object]:
    """As torchvision's reference training does it: channels first, float32, plain SGD."""
    net.train()
    sgd = torch.optim.SGD(net.parameters(), lr=1e-2, momentum=0.9, weight_decay=5e-4)
    labels = torch.randint(0, classes, (len(photos),), generator=torch.Generator().manual_seed(0)).to(photos.device)

    def once() -> None:
        sgd.zero_grad()
        F.cross_entropy(net(as_they_do(photos)), labels).backward()  # type: ignore[no-untyped-call]
        sgd.step()

    return once


def main() -> None:
    """The other process."""
    told = json.loads(sys.argv[1])
    order, device = Order(**told["order"]), torch.device(told["device"])
    torch.set_num_threads(told["threads"])
    name, net = peer(order.peer, order.net, order.classes)
    photos = random_photos(order.count, order.size, order.size).to(device)
    net.to(device)
    once = _step(net, photos, order.classes) if order.learns else _asked(net, photos)
    print(name, flush=True)
    for _ in sys.stdin:
        once()
        if device.type != "cpu":
            torch.accelerator.synchronize()
        print("done", flush=True)


if __name__ == "__main__":
    main()
