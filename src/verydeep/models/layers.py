"""The layers of a net: convolutions and FC layers, each by the fastest algorithm for its input.

On a CPU these are Winograd's algorithm in float32 (`winograd`) and oneDNN's operations in bf16 (`bf16`), both with
weights that are prepared once and kept; elsewhere, and with bf16 gradients, PyTorch's.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from . import bf16, winograd
from .matmul import linear

WINDOWS = 256  # of an FC layer in one matmul: 100 kB each for fc6


class _Prepared(nn.Conv2d):
    """A convolution that keeps its weights as an algorithm needs them, until they change."""

    def train(self, mode: bool = True) -> _Prepared:
        """Forgets the prepared weights, as the steps of a fused optimiser change weights but not their version."""
        self._forget()
        return super().train(mode)

    def _forget(self) -> None:
        self.__dict__.pop("_kept", None)

    def _prepared(self, prepare: Callable[[Tensor], Tensor]) -> Tensor:
        """``prepare(weight)``, computed again only for another weight or another ``prepare``."""
        if self.weight.is_inference():  # inference tensors have no version
            return prepare(self.weight)
        stamp = (prepare, self.weight.data_ptr(), self.weight._version)
        kept = self.__dict__.get("_kept")
        if kept is None or kept[0] != stamp:
            kept = (stamp, prepare(self.weight.detach()))
            self.__dict__["_kept"] = kept
        return torch.as_tensor(kept[1])

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_kept"}


class Convolution(_Prepared):
    """A convolution of a net's stages, forward and backward."""

    def forward(self, input: Tensor) -> Tensor:
        """From float (B,C,H,W) to (B,K,H,W)."""
        if not self._is_plain(input):
            return super().forward(input)
        if bf16.runs(input):
            return self._in_bf16(input, relu=False)
        if not winograd.pays(input, self.weight):
            return super().forward(input)
        if torch.is_grad_enabled() and (input.requires_grad or self.weight.requires_grad):
            self._forget()
            return winograd.learn(input, self.weight, self.bias)
        return self._by_winograd(input)

    def rectified(self, input: Tensor, pooled: bool = False) -> Tensor:
        """The convolution and ReLU, (B,K,H,W); ``pooled``: and 2x2 max-pooling of even maps, (B,K,H/2,W/2)."""
        if not torch.is_grad_enabled() and self._is_plain(input) and winograd.pays(input, self.weight):
            return self._by_winograd(input, relu=True, pooled=pooled)
        if self._is_plain(input) and bf16.runs(input):
            x = self._in_bf16(input, relu=True)
            return bf16.pool(x) if pooled else x
        x = F.relu(self(input), inplace=True)
        return F.max_pool2d(x, 2) if pooled else x

    def _is_plain(self, x: Tensor) -> bool:
        """Whether the maps keep their size, and are values rather than a trace."""
        side = tuple(length // 2 for length in self.kernel_size)
        plain = (self.padding, self.stride, self.dilation, self.groups) == (side, (1, 1), (1, 1), 1)
        tracing = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
        return plain and not (torch.compiler.is_compiling() or tracing) and type(x) is Tensor

    def _by_winograd(self, x: Tensor, relu: bool = False, pooled: bool = False) -> Tensor:
        algorithm = winograd.algorithm(self.weight)
        return algorithm.convolve(x, self._prepared(algorithm.transformed), self.bias, relu=relu, pooled=pooled)

    def _in_bf16(self, x: Tensor, relu: bool) -> Tensor:
        padding = tuple(side // 2 for side in self.kernel_size)
        return bf16.convolve(x, self._prepared(bf16.convolution_weight), self.bias, padding, relu)


class FullyConnected(_Prepared):
    """An FC layer as a convolution without padding: a matmul over the windows of its kernel's size (Sect. 3.2)."""

    def forward(self, input: Tensor) -> Tensor:
        """From float (B,D,h,w) to (B,K,h',w'); the weights are not copied."""
        side = self.kernel_size[0]
        whole = tuple(input.shape[2:]) == self.kernel_size
        windows = input[:, :, None, None] if whole else input.unfold(2, side, 1).unfold(3, side, 1)  # (B,D,h,w,k,k)
        channels_last = windows.permute(0, 2, 3, 4, 5, 1)
        if bf16.runs(input):
            windows, multiply = channels_last, partial(bf16.linear, prepared=self._prepared(bf16.linear_weight))
        elif self.weight.is_contiguous():
            windows, multiply = windows.permute(0, 2, 3, 1, 4, 5), partial(linear, weight=self.weight.flatten(1))
        else:
            windows, multiply = channels_last, partial(linear, weight=self.weight.permute(0, 2, 3, 1).flatten(1))
        lines = max(1, WINDOWS // max(1, windows.shape[0] * windows.shape[2]))
        maps = [multiply(part.flatten(3), bias=self.bias) for part in torch.split(windows, lines, dim=1)]
        return torch.cat(maps, dim=1).permute(0, 3, 1, 2)
