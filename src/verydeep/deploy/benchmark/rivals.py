"""Rivals in inference: the same net, with the same weights, in torchvision and in other runtimes, each in a process.

Before anything is timed each predicts the same images as ours does. A rival whose posteriors are others is reported,
and is never the best one.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from ...core.device import Machine
from ...core.errors import VerydeepError
from ...core.progress import Reporter
from ...models.vgg import Net
from ..onnx import build_static
from .order import IMAGES, IN_BF16, ONNX, RUNTIMES, WEIGHTS, Order, check_peer
from .peer_process import at_work
from .runner import Contender


def installed(names: Sequence[str], net: str, machine: Machine, reporter: Reporter) -> list[str]:
    """Those of the rivals that are installed; the others are named in a warning each.

    Raises:
        VerydeepError: no such rival, none is installed, or it does not run with this device or precision.
    """
    for name in names:
        check_peer(name, net)
        _check_precision(name, machine)
    there = []
    for name in names:
        missing = [module for module in RUNTIMES.get(name, ()) if find_spec(module) is None]
        if missing:
            reporter.warn(f"{name} is not compared: Python module {missing[0]} is not installed.")
        else:
            there.append(name)
    if not there:
        raise VerydeepError(f"none to compare with is installed ({', '.join(names)}): pip install 'verydeep[rivals]'.")
    return there


def _check_precision(name: str, machine: Machine) -> None:
    """Raises VerydeepError where a rival does not run with this device or precision."""
    if name in IN_BF16 and machine.device.type == "cpu" and machine.precision == "bf16":
        return
    if name in RUNTIMES and (machine.device.type != "cpu" or machine.precision != "float32"):
        in_bf16 = f" ({' and '.join(IN_BF16)} in bf16 too)"
        raise VerydeepError(
            f"{name} is compared in float32 on a CPU alone{in_bf16}: add --device cpu --precision float32."
        )


@contextmanager
def rivals_of(
    names: Sequence[str], net: Net, images: Tensor, mean: tuple[float, ...], ours: Tensor, machine: Machine
) -> Iterator[list[Contender]]:
    """The rivals as contenders, each with the largest difference of its posteriors from ours.

    Args:
        images: uint8 (B,H,W,3).
        mean: what is subtracted from them, RGB.
        ours: the posteriors (B,K) of the net.

    Raises:
        VerydeepError: a rival fails.
    """
    count, size = images.shape[:2]
    order = Order("", net.name, net.classes, count, size, False, str(machine.device), machine.threads)
    precision = "bf16" if machine.precision == "bf16" else "float32"
    with tempfile.TemporaryDirectory() as folder, ExitStack() as processes:
        order = replace(order, crop=net.crop, width=net.width, mean=mean, folder=folder, precision=precision)
        np.save(order.file(IMAGES), images.numpy())
        if "torchvision" in names:
            weights = {name: value.float().cpu().contiguous() for name, value in net.state_dict().items()}
            save_file(weights, order.file(WEIGHTS))
        if set(names) & set(RUNTIMES):
            order.file(ONNX).write_bytes(build_static(net, count, size).SerializeToString())
        yield [_contender(processes, replace(order, peer=name), ours) for name in names]


def _contender(processes: ExitStack, order: Order, ours: Tensor) -> Contender:
    title, once = processes.enter_context(at_work(order))
    theirs = torch.from_numpy(np.load(order.posteriors))
    if theirs.shape != ours.shape:
        raise VerydeepError(
            f"{order.peer} predicts posteriors of shape {tuple(theirs.shape)}, not {tuple(ours.shape)}."
        )
    difference = float((theirs - ours).abs().nan_to_num(1.0).max())
    return Contender(title, once, order.count, is_rival=True, difference=difference)
