"""Sect. 2.1's 3x3 convolutions with a quarter of the multiplications (Winograd; Lavin & Gray 2016): F(4x4, 3x3).

A 4x4 tile of the output is computed from a 6x6 tile of the input d by ``A'[(G g G') * (B' d B)]A``: 36 multiplications
per pair of channels instead of 144. They are matmuls over channels, one for each of the 36 positions of a tile; the
transforms B and A are additions. The result is exact except for rounding, which is about ten times that of the direct
convolution: about 1e-5 of the largest value.

On CPUs convolutions take most of the time, and PyTorch's CPU library has no Winograd algorithm. It is faster for many
channels (NOTES.md). Tiles are processed in pieces that fit in the processor's caches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

TILE, MARGIN, PLACES = 4, 2, 36  # side of an output tile; extra rows of its input; matmuls per tile
LEAST_CHANNELS = 128
# PyTorch's matmul uses MKL, which on AMD's processors leaves half of AVX-512 unused; oneDNN does not (NOTES.md).
ONEDNN = (
    torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    and torch.backends.cpu.get_cpu_capability() == "AVX512"
    and hasattr(torch.ops.mkldnn, "_linear_pointwise")
)
PIECE_BYTES = 32 * 2**20  # of one piece's transformed tiles

_G = torch.tensor(
    [[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]], dtype=torch.float64
) / torch.tensor([[24.0]], dtype=torch.float64)


class Convolution(nn.Conv2d):
    """A convolution that uses Winograd's algorithm where it is faster, forward and backward; else PyTorch's."""

    def forward(self, input: Tensor) -> Tensor:
        """From float (B,C,H,W) to (B,K,H,W)."""
        plain = (self.padding, self.stride, self.dilation, self.groups) == ((1, 1), (1, 1), (1, 1), 1)
        if torch.compiler.is_compiling() or not plain or not pays(input, self.weight):
            return super().forward(input)
        if torch.is_grad_enabled() and (input.requires_grad or self.weight.requires_grad):
            self._clear_cache()
            return torch.as_tensor(_Learning.apply(input, self.weight, self.bias))  # type: ignore[no-untyped-call]
        return convolve(input, self._transformed(), self.bias)

    def train(self, mode: bool = True) -> Convolution:
        """Clears the cache: the steps of a fused optimiser change weights without changing their version."""
        self._clear_cache()
        return super().train(mode)

    def _clear_cache(self) -> None:
        self.__dict__.pop("_kept", None)

    def _transformed(self) -> Tensor:
        """The transformed weights (36,C,K), cached until they change."""
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


def transformed(weight: Tensor) -> Tensor:
    """``G g G'`` of weights (K,C,3,3), as float32 (36,C,K)."""
    both = torch.kron(_G, _G).float()  # (36,9)
    rows = weight.permute(2, 3, 1, 0).reshape(9, -1)
    return (both @ rows).view(PLACES, weight.shape[1], weight.shape[0])


def convolve(x: Tensor, weights: Tensor, bias: Tensor | None) -> Tensor:
    """The convolution of maps (B,C,H,W), channels last, with `transformed` weights (36,C,K): (B,K,H,W)."""
    count, height, width, channels = x.shape[0], x.shape[2], x.shape[3], x.shape[1]
    outputs = weights.shape[2]
    rows, columns = -(-height // TILE), -(-width // TILE)
    whole = torch.empty(count, outputs, rows * TILE, columns * TILE, memory_format=torch.channels_last)
    found = whole.permute(0, 2, 3, 1)
    offset = weights.new_zeros(outputs) if bias is None else bias
    for images, lines, padded in _pieces(x.permute(0, 2, 3, 1), max(channels, outputs)):
        _tiles_out(_products(_tiles_in(padded), weights), offset, found[images, lines])
    if (rows * TILE, columns * TILE) == (height, width):
        return whole
    # A copy, not a view, as ReLU changes the result in place.
    return whole[:, :, :height, :width].clone(memory_format=torch.channels_last)


def weight_gradient(x: Tensor, gradient: Tensor) -> Tensor:
    """The gradient (K,C,3,3) of a convolution's weights, from its maps (B,C,H,W) and its output's gradient (B,K,H,W).

    The output is linear in the transformed weights, so this transposes each step of `convolve`.
    """
    count, outputs, height, width = gradient.shape
    rows, columns = -(-height // TILE), -(-width // TILE)
    padded_gradient = gradient.permute(0, 2, 3, 1)
    if (rows * TILE, columns * TILE) != (height, width):
        padded_gradient = gradient.new_zeros(count, rows * TILE, columns * TILE, outputs)
        padded_gradient[:, :height, :width] = gradient.permute(0, 2, 3, 1)
    found = x.new_zeros(PLACES, x.shape[1], outputs)
    for images, lines, padded in _pieces(x.permute(0, 2, 3, 1), max(x.shape[1], outputs)):
        found.baddbmm_(_tiles_in(padded).transpose(1, 2), _tiles_back(padded_gradient[images, lines]))
    nine = torch.kron(_G, _G).float().T @ found.view(PLACES, -1)
    return nine.view(3, 3, x.shape[1], outputs).permute(3, 2, 0, 1)


def _pieces(maps: Tensor, channels: int) -> Iterator[tuple[slice, slice, Tensor]]:
    """Maps (B,H,W,C) in pieces of whole tiles: several images, or several rows of tiles of one image.

    Yields:
        The images and the rows of pixels, as slices, and those rows padded by a pixel per side, zeros at edges.
    """
    count, height, width, depth = maps.shape
    rows, columns = -(-height // TILE), -(-width // TILE)
    fit = max(1, PIECE_BYTES // (PLACES * columns * channels * 4))
    images, lines = (fit // rows, rows) if fit >= rows else (1, fit)
    for first in range(0, count, images):
        batch = maps[first : first + images]
        padded = batch.new_zeros(len(batch), rows * TILE + MARGIN, columns * TILE + MARGIN, depth)
        padded[:, 1 : height + 1, 1 : width + 1] = batch
        for line in range(0, rows, lines):
            start, end = line * TILE, min(rows, line + lines) * TILE
            yield slice(first, first + images), slice(start, end), padded[:, start : end + MARGIN]


def _tiles_in(maps: Tensor) -> Tensor:
    """``B' d B`` of the 6x6 tiles of maps (B,4h+2,4w+2,C): (36, B·h·w, C)."""
    count, high, wide, channels = maps.shape
    lines, columns = (high - MARGIN) // TILE, (wide - MARGIN) // TILE
    image, row, cell, _ = maps.stride()
    shape, strides = (6, 6, count, lines, columns, channels), (row, cell, image, TILE * row, TILE * cell, 1)
    half, found = maps.new_empty(shape), maps.new_empty(shape)
    _into(half, maps.as_strided(shape, strides, maps.storage_offset()))
    _into(found.transpose(0, 1), half.transpose(0, 1))
    return found.view(PLACES, -1, channels)


def _into(out: Tensor, d: Tensor) -> None:
    """``B'`` along the first axis."""
    torch.add(d[4], d[2], alpha=-5, out=out[0]).add_(d[0], alpha=4)
    even, odd = torch.add(d[4], d[2], alpha=-4), torch.add(d[3], d[1], alpha=-4)
    torch.add(even, odd, out=out[1]), torch.sub(even, odd, out=out[2])
    torch.sub(d[4], d[2], out=even), torch.sub(d[3], d[1], out=odd)
    torch.add(even, odd, alpha=2, out=out[3]), torch.sub(even, odd, alpha=2, out=out[4])
    torch.add(d[5], d[3], alpha=-5, out=out[5]).add_(d[1], alpha=4)


def _products(tiles: Tensor, weights: Tensor) -> Sequence[Tensor]:
    """(36,T,C) times (36,C,K), as 36 tensors (T,K)."""
    if ONEDNN:
        return [product(tile, weight) for tile, weight in zip(tiles, weights, strict=True)]
    return torch.bmm(tiles, weights).unbind()


def product(one: Tensor, other: Tensor) -> Tensor:
    """float32 (T,C) times (C,K) on a CPU, by the faster of PyTorch's libraries."""
    if ONEDNN:
        return torch.as_tensor(torch.ops.mkldnn._linear_pointwise(one, other.T, None, "none", [], ""))
    return one @ other


def _tiles_out(products: Sequence[Tensor], bias: Tensor, out: Tensor) -> None:
    """``A' m A`` of 36 products (B·h·w, K) into the maps ``out``, (B,4h,4w,K), plus the bias (K,)."""
    count, high, wide, outputs = out.shape
    tiles = [product.view(count, high // TILE, wide // TILE, outputs) for product in products]
    places = out.view(count, high // TILE, TILE, wide // TILE, TILE, outputs)
    halves = [_from(tiles[start : start + 6]) for start in range(0, PLACES, 6)]
    for column in range(TILE):
        for row, whole in enumerate(_from([half[column] for half in halves])):
            torch.add(whole, bias, out=places[:, :, row, :, column])


def _from(m: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """``A'`` of six."""
    one, two = m[1] + m[2], m[3] + m[4]
    odd, twice = m[1] - m[2], m[3] - m[4]
    return (
        (m[0] + one).add_(two),
        torch.add(odd, twice, alpha=2),
        one.add_(two, alpha=4),
        torch.add(odd, twice, alpha=8).add_(m[5]),
    )


def _tiles_back(gradient: Tensor) -> Tensor:
    """``A y A'`` of the 4x4 tiles of gradients (B,4h,4w,K): (36, B·h·w, K)."""
    count, high, wide, outputs = gradient.shape
    lines, columns = high // TILE, wide // TILE
    tiles = gradient.view(count, lines, TILE, columns, TILE, outputs).permute(2, 4, 0, 1, 3, 5)
    half = gradient.new_empty(6, TILE, count, lines, columns, outputs)
    found = gradient.new_empty(6, 6, count, lines, columns, outputs)
    _back(half, tiles)
    _back(found.transpose(0, 1), half.transpose(0, 1))
    return found.view(PLACES, -1, outputs)


def _back(out: Tensor, d: Tensor) -> None:
    """``A`` along the first axis."""
    out[0], out[5] = d[0], d[3]
    even, odd = d[0] + d[2], d[1] + d[3]
    torch.add(even, odd, out=out[1]), torch.sub(even, odd, out=out[2])
    torch.add(d[0], d[2], alpha=4, out=even), torch.add(d[1], d[3], alpha=4, out=odd)
    torch.add(even, odd, alpha=2, out=out[3]), torch.sub(even, odd, alpha=2, out=out[4])


class _Learning(torch.autograd.Function):
    """`convolve` with gradients; that of the maps is the convolution with rotated weights."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """As `convolve`, from weights (K,C,3,3)."""
        ctx.save_for_backward(x, weight)
        return convolve(x, transformed(weight), bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of the maps, the weights and the bias."""
        x, weight = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        gradient = gradients[0].contiguous(memory_format=torch.channels_last)
        of_maps = of_weight = of_bias = None
        if wanted[0]:
            of_maps = convolve(gradient, transformed(weight.flip(2, 3).transpose(0, 1)), None)
        if wanted[1]:
            of_weight = weight_gradient(x, gradient)
        if wanted[2]:
            of_bias = gradient.sum((0, 2, 3))
        return of_maps, of_weight, of_bias
