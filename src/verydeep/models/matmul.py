"""float32 matmuls on a CPU by the faster of PyTorch's two libraries, MKL and oneDNN (NOTES.md).

`torch.matmul` uses MKL, which on AMD's processors leaves half of AVX-512 unused, and which copies the weights of an FC
layer for a few images. oneDNN is called by the operation that `torch.compile` uses, where it is there.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

ONEDNN = torch.backends.mkldnn.is_available() and hasattr(  # type: ignore[no-untyped-call]
    torch.ops.mkldnn, "_linear_pointwise"
)
ONEDNN_PRODUCTS = ONEDNN and torch.backends.cpu.get_cpu_capability() == "AVX512"


def product(one: Tensor, other: Tensor) -> Tensor:
    """float32 (T,C) times (C,K) on a CPU."""
    return _onednn(one, other.T, None) if ONEDNN_PRODUCTS else one @ other


def linear(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """An FC layer: rows (…,D) to (…,K) with weights (K,D), on any device; oneDNN's are without gradients."""
    plain = (
        ONEDNN
        and rows.device.type == "cpu"
        and rows.dtype == weight.dtype == torch.float32
        and not (torch.is_grad_enabled() or torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling())
    )
    return _onednn(rows, weight, bias) if plain else F.linear(rows, weight, bias)


def _onednn(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.as_tensor(torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], ""))
