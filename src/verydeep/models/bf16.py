"""bf16 convolutions and FC layers on a CPU by oneDNN, with weights converted and ordered once.

Autocast converts all weights at every call, which took half of the time of a pass, and oneDNN then orders them for the
processor's matrix units (AMX). Here a layer keeps its weights ready, and a convolution applies ReLU to its sums before
they are rounded and written. Sums are float32; inputs, weights and outputs have bf16's 8 significant bits. The
operations are those that `torch.compile` uses.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .matmul import ONEDNN


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
