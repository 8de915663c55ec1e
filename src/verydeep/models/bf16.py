"""bf16 convolutions and FC layers on a CPU by oneDNN, with weights converted and ordered once.

Autocast converts all weights at every call, which took half of the time of a pass, and oneDNN then orders them for the
processor's matrix units (AMX). Here a layer keeps its weights ready, and a convolution applies ReLU to its sums before
they are rounded and written. Sums are float32; inputs, weights and outputs have bf16's 8 significant bits. The
operations are those that `torch.compile` uses.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .cpu_threads import for_each, shares
from .matmul import ONEDNN

IMAGES = 2  # that a thread computes at a time; one or four are no faster (NOTES.md)


def runs(x: Tensor) -> bool:
    """Whether maps (B,C,H,W) go through these operations: without gradients, under bf16 autocast on a CPU."""
    return (
        ONEDNN
        and x.device.type == "cpu"
        and torch.is_autocast_enabled("cpu")
        and torch.get_autocast_dtype("cpu") == torch.bfloat16
        and not (torch.is_grad_enabled() or torch.compiler.is_compiling())
        and len(x) > 0
    )


def in_parts(maps_of: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """``maps_of`` images (B,3,H,W), of a few at a time by one thread: no thread waits for another within a net."""
    threads = torch.get_num_threads()
    if len(x) < threads:
        return maps_of(x)
    maps: dict[int, Tensor] = {}

    def compute(part: slice) -> None:
        with torch.autocast("cpu", torch.bfloat16):
            maps[part.start] = maps_of(x[part])

    parts = shares(len(x), threads * -(-len(x) // (threads * IMAGES)))
    for_each(compute, parts)
    return torch.cat([maps[part.start] for part in parts])


def convolution_weight(weight: Tensor) -> Tensor:
    """Weights (K,C,k,k) of a convolution that keeps the size of maps, as `convolve` needs them."""
    padding = [side // 2 for side in weight.shape[2:]]
    return torch.as_tensor(torch.ops.mkldnn._reorder_convolution_weight(weight.bfloat16(), padding))


def convolve(x: Tensor, prepared: Tensor, bias: Tensor | None, padding: tuple[int, ...], relu: bool) -> Tensor:
    """From maps (B,C,H,W) to bf16 (B,K,H,W), after ReLU if ``relu``."""
    after = "relu" if relu else "none"
    maps = torch.ops.mkldnn._convolution_pointwise(
        *(x.bfloat16(), prepared, _lowered(bias), padding, (1, 1), (1, 1), 1, after, [], "")
    )
    return torch.as_tensor(maps)


def pool(x: Tensor) -> Tensor:
    """2x2 max-pooling of bf16 maps (B,C,H,W) after ReLU, of even height and width: (B,C,H/2,W/2).

    As integers, bits of numbers that are not negative are in the same order, and integers' maxima take an eighth of the
    time of PyTorch's pooling.
    """
    bits = x.permute(0, 2, 3, 1).view(torch.int16)
    rows = torch.maximum(bits[:, 0::2], bits[:, 1::2])
    return torch.maximum(rows[:, :, 0::2], rows[:, :, 1::2]).view(torch.bfloat16).permute(0, 3, 1, 2)


def linear_weight(weight: Tensor) -> Tensor:
    """Weights (K,D,k,k) of an FC layer, as `linear` needs them for windows in channels-last order."""
    rows = weight.bfloat16().permute(0, 2, 3, 1).flatten(1)
    return torch.as_tensor(torch.ops.mkldnn._reorder_linear_weight(rows))


def linear(rows: Tensor, prepared: Tensor, bias: Tensor | None) -> Tensor:
    """From rows (…,D) to bf16 (…,K)."""
    return torch.as_tensor(
        torch.ops.mkldnn._linear_pointwise(rows.bfloat16(), prepared, _lowered(bias), "none", [], "")
    )


def _lowered(bias: Tensor | None) -> Tensor | None:
    return None if bias is None else bias.bfloat16()
