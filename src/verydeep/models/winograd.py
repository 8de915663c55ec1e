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
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

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


class Convolution(nn.Conv2d):
    """A convolution that uses Winograd's algorithm where it is faster, forward and backward; else PyTorch's."""

    def forward(self, input: Tensor) -> Tensor:
        """From float (B,C,H,W) to (B,K,H,W)."""
        if not self._pays(input):
            return super().forward(input)
        if torch.is_grad_enabled() and (input.requires_grad or self.weight.requires_grad):
            self._clear_cache()
            return torch.as_tensor(_Learning.apply(input, self.weight, self.bias))  # type: ignore[no-untyped-call]
        return algorithm(self.weight).convolve(input, self._transformed(), self.bias)

    def rectified(self, input: Tensor, pooled: bool = False) -> Tensor:
        """The convolution and ReLU, (B,K,H,W); ``pooled``: and 2x2 max-pooling of even maps, (B,K,H/2,W/2)."""
        if torch.is_grad_enabled() or not self._pays(input):
            x = F.relu(self(input), inplace=True)
            return F.max_pool2d(x, 2) if pooled else x
        return algorithm(self.weight).convolve(input, self._transformed(), self.bias, relu=True, pooled=pooled)

    def train(self, mode: bool = True) -> Convolution:
        """Clears the cache: the steps of a fused optimiser change weights without changing their version."""
        self._clear_cache()
        return super().train(mode)

    def _pays(self, x: Tensor) -> bool:
        plain = (self.padding, self.stride, self.dilation, self.groups) == ((1, 1), (1, 1), (1, 1), 1)
        tracing = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
        traced = torch.compiler.is_compiling() or tracing or type(x) is not Tensor
        return plain and not traced and pays(x, self.weight)

    def _clear_cache(self) -> None:
        self.__dict__.pop("_kept", None)

    def _transformed(self) -> Tensor:
        """The transformed weights, cached until they change."""
        transformed = algorithm(self.weight).transformed
        if self.weight.is_inference():  # inference tensors have no version
            return transformed(self.weight)
        stamp = (self.weight.data_ptr(), self.weight._version)
        kept = self.__dict__.get("_kept")
        if kept is None or kept[0] != stamp:
            kept = (stamp, transformed(self.weight.detach()))
            self.__dict__["_kept"] = kept
        return torch.as_tensor(kept[1])

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_kept"}


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
