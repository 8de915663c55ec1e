"""Sect. 2.1's 3x3 convolutions with a quarter of the multiplications (Winograd; Lavin & Gray 2016): F(4x4, 3x3).

A 4x4 tile of the output is computed from a 6x6 tile of the input d by ``A'[(G g G') * (B' d B)]A``: 36 multiplications
per pair of channels instead of 144. They are matmuls over channels, one for each of the 36 positions of a tile. The
result is exact except for rounding, which is about ten times that of the direct convolution: about 1e-5 of the largest
value.

On CPUs convolutions take most of the time, and PyTorch's CPU library has no Winograd algorithm. Where the system has a
C compiler, `winograd_compiled` runs it; otherwise `winograd_matmuls` does, by PyTorch's operations. The two differ by
rounding (NOTES.md).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from . import winograd_compiled, winograd_matmuls
from .winograd_matmuls import G_TWICE, PLACES, TILE

LEAST_CHANNELS = 64


class Algorithm(NamedTuple):
    """A form of Winograd's algorithm; both have the same three functions."""

    transformed: Callable[[Tensor], Tensor]
    convolve: Callable[..., Tensor]
    weight_gradient: Callable[[Tensor, Tensor], Tensor]


COMPILED, MATMULS = (
    Algorithm(form.transformed, form.convolve, form.weight_gradient) for form in (winograd_compiled, winograd_matmuls)
)


def algorithm(weight: Tensor) -> Algorithm:
    """The compiled form where it is available for weights (K,C,3,3)."""
    return COMPILED if winograd_compiled.supports(weight) else MATMULS


def learn(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The convolution of maps (B,C,H,W) with weights (K,C,3,3), (B,K,H,W), with gradients."""
    return torch.as_tensor(_Learning.apply(x, weight, bias))  # type: ignore[no-untyped-call]


def pays(x: Tensor, weight: Tensor) -> bool:
    """Whether Winograd's algorithm supports maps (B,C,H,W) and weights (K,C,3,3), and is faster.

    It needs float32 on a CPU in channels-last order, many channels, and maps that fill their tiles.
    """
    height, width = x.shape[2:]
    tiles = -(-height // TILE) * -(-width // TILE)
    return (
        x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and tuple(weight.shape[2:]) == (3, 3)
        and min(weight.shape[:2]) >= LEAST_CHANNELS
        and x.is_contiguous(memory_format=torch.channels_last)
        and 0 < 2 * PLACES * tiles <= 9 * height * width
        and len(x) > 0
    )


class _Learning(torch.autograd.Function):
    """The convolution with gradients; that of the maps is the convolution with rotated weights."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """From maps (B,C,H,W) and weights (K,C,3,3) to (B,K,H,W)."""
        ctx.save_for_backward(x, weight)
        form = algorithm(weight)
        return form.convolve(x, form.transformed(weight), bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of the maps, the weights and the bias."""
        x, weight = ctx.saved_tensors
        wanted, form = ctx.needs_input_grad, algorithm(weight)
        gradient = gradients[0].contiguous(memory_format=torch.channels_last)
        of_maps = of_weight = of_bias = None
        if wanted[0]:
            of_maps = form.convolve(gradient, form.transformed(weight.flip(2, 3).transpose(0, 1)), None)
        if wanted[1]:
            of_weight = from_transformed(form.weight_gradient(x, gradient))
        if wanted[2]:
            of_bias = gradient.sum((0, 2, 3))
        return of_maps, of_weight, of_bias


def from_transformed(gradient: Tensor) -> Tensor:
    """The gradient (K,C,3,3) of weights, from that of the transformed weights (36,C,K)."""
    nine = G_TWICE.T @ gradient.view(PLACES, -1)
    return nine.view(3, 3, *gradient.shape[1:]).permute(3, 2, 0, 1)
