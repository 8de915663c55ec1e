"""Sect. 2.1's 3x3 convolutions with a quarter of the multiplications (Winograd; Lavin & Gray 2016): F(4x4, 3x3).

A 4x4 tile of the output is computed from a 6x6 tile of the input d by ``A'[(G g G') * (B' d B)]A``: 36 multiplications
per pair of channels instead of 144. They are matmuls over channels, one for each of the 36 positions of a tile; the
transforms B and A are matmuls over the positions. The result is exact except for rounding, which is about ten times
that of the direct convolution: about 1e-5 of the largest value.

On CPUs convolutions take most of the time, and PyTorch's CPU library has no Winograd algorithm. A layer is computed in
pieces that fit in the processor's caches, each by one thread (`verydeep.models.cpu_threads`); ReLU and pooling are
applied to a piece while it is there (NOTES.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from . import matmul
from .cpu_threads import for_each

TILE, MARGIN, SIDE, PLACES = 4, 2, 6, 36  # of an output tile; more of its input; its side; its positions
BIAS_PLACE = 7  # the product at position (1, 1) is added to all 16 outputs of a tile, by A's column of ones
LEAST_CHANNELS = 64
PIECE_BYTES = 8 * 2**20  # of one piece's transformed tiles

_G = torch.tensor(
    [[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]], dtype=torch.float64
) / torch.tensor([[24.0]], dtype=torch.float64)
_B = torch.tensor(  # B', (6,6)
    [
        [4.0, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ]
)
_A = torch.tensor(  # A', (4,6)
    [[1.0, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]
)


class Convolution(nn.Conv2d):
    """A convolution that uses Winograd's algorithm where it is faster, forward and backward; else PyTorch's."""

    def forward(self, input: Tensor) -> Tensor:
        """From float (B,C,H,W) to (B,K,H,W)."""
        if not self._pays(input):
            return super().forward(input)
        if torch.is_grad_enabled() and (input.requires_grad or self.weight.requires_grad):
            self._clear_cache()
            return torch.as_tensor(_Learning.apply(input, self.weight, self.bias))  # type: ignore[no-untyped-call]
        return convolve(input, self._transformed(), self.bias)

    def rectified(self, input: Tensor, pooled: bool = False) -> Tensor:
        """The convolution and ReLU, (B,K,H,W); ``pooled``: and 2x2 max-pooling of even maps, (B,K,H/2,W/2)."""
        if torch.is_grad_enabled() or not self._pays(input):
            x = F.relu(self(input), inplace=True)
            return F.max_pool2d(x, 2) if pooled else x
        return convolve(input, self._transformed(), self.bias, relu=True, pooled=pooled)

    def train(self, mode: bool = True) -> Convolution:
        """Clears the cache: the steps of a fused optimiser change weights without changing their version."""
        self._clear_cache()
        return super().train(mode)

    def _pays(self, x: Tensor) -> bool:
        plain = (self.padding, self.stride, self.dilation, self.groups) == ((1, 1), (1, 1), (1, 1), 1)
        return plain and not torch.compiler.is_compiling() and pays(x, self.weight)

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


@dataclass(frozen=True)
class _Piece:
    """Part of a layer: rows of tiles ``first`` to ``last`` of some images, and some output channels."""

    images: slice
    first: int
    last: int
    channels: slice


def convolve(x: Tensor, weights: Tensor, bias: Tensor | None, relu: bool = False, pooled: bool = False) -> Tensor:
    """The convolution of maps (B,C,H,W), channels last, with `transformed` weights (36,C,K): (B,K,H,W).

    Args:
        relu: applies ReLU.
        pooled: applies 2x2 max-pooling as well, to maps of even height and width: (B,K,H/2,W/2).
    """
    height, width, step = x.shape[2], x.shape[3], 2 if pooled else 1
    result = x.new_empty(len(x), weights.shape[2], height // step, width // step)
    result = torch.empty_like(result, memory_format=torch.channels_last)
    maps, out = x.permute(0, 2, 3, 1), result.permute(0, 2, 3, 1)

    def compute(piece: _Piece) -> None:
        products = _products(_tiles_in(maps, piece), weights[:, :, piece.channels])
        if bias is not None:
            products[BIAS_PLACE] += bias[piece.channels]
        shape = (TILE, TILE, len(maps[piece.images]), piece.last - piece.first, -1, products.shape[2])
        pixels = _both(_A, products).view(shape)
        _write(_largest_of_four(pixels) if pooled else pixels, out[..., piece.channels], piece, relu)

    for_each(compute, _pieces(maps, weights.shape[2], torch.get_num_threads()))
    return result


def _pieces(maps: Tensor, outputs: int, threads: int) -> list[_Piece]:
    """Maps (B,H,W,C) in pieces: rows of tiles of an image, or several small images, or some of their outputs."""
    count, rows, columns = len(maps), -(-maps.shape[1] // TILE), -(-maps.shape[2] // TILE)
    fit = max(1, PIECE_BYTES // (PLACES * 4 * columns * max(maps.shape[3], outputs)))  # rows of tiles
    if fit < rows:
        lines = -(-rows // -(-rows // fit))
        return [
            _Piece(slice(image, image + 1), first, min(rows, first + lines), slice(0, outputs))
            for image in range(count)
            for first in range(0, rows, lines)
        ]
    images = min(max(1, fit // rows), -(-count // threads))
    groups = [slice(first, first + images) for first in range(0, count, images)]
    shares = _shares(outputs, -(-threads // len(groups)))
    return [_Piece(group, 0, rows, share) for group in groups for share in shares]


def _tiles_in(maps: Tensor, piece: _Piece) -> Tensor:
    """``B' d B`` of a piece's 6x6 tiles of maps (B,H,W,C): (36, T, C)."""
    batch, columns = maps[piece.images], -(-maps.shape[2] // TILE)
    (count, height, width, channels), lines = batch.shape, piece.last - piece.first
    top = piece.first * TILE - 1  # a pixel of padding
    band = batch.new_zeros(count, lines * TILE + MARGIN, columns * TILE + MARGIN, channels)
    start, end = max(0, top), min(height, piece.last * TILE + 1)
    band[:, start - top : end - top, 1 : width + 1] = batch[:, start:end]
    image, row, cell, _ = band.stride()
    tiles = band.as_strided(
        (SIDE, SIDE, count, lines, columns, channels), (row, cell, image, TILE * row, TILE * cell, 1)
    )
    return _both(_B, tiles.reshape(PLACES, -1, channels))


def _both(matrix: Tensor, tiles: Tensor) -> Tensor:
    """``M t M'`` of tiles (s·s, T, C) with a matrix (r,s): (r·r, T, C)."""
    rows, side = matrix.shape
    once = matrix @ tiles.reshape(side, -1)
    return torch.matmul(matrix, once.view(rows, side, -1)).view(rows * rows, *tiles.shape[1:])


def _products(tiles: Tensor, weights: Tensor) -> Tensor:
    """(36,T,C) times (36,C,K), (36,T,K)."""
    if matmul.ONEDNN_PRODUCTS:
        return torch.stack([matmul.product(tile, weight) for tile, weight in zip(tiles, weights, strict=True)])
    return torch.bmm(tiles, weights)


def _largest_of_four(pixels: Tensor) -> Tensor:
    """The maxima of the 2x2 squares of tiles' pixels (4,4,…): (2,2,…)."""
    rows = torch.maximum(pixels[0::2], pixels[1::2])
    return torch.maximum(rows[:, 0::2], rows[:, 1::2])


def _write(pixels: Tensor, out: Tensor, piece: _Piece, relu: bool) -> None:
    """Writes tiles' pixels (s,s,B,l,c,K) into a piece of maps (B,H,W,K), without those beyond the maps' borders."""
    side = len(pixels)
    for row in range(side):
        for column in range(side):
            places = out[piece.images, piece.first * side + row : piece.last * side : side, column::side]
            values = pixels[row, column, :, : places.shape[1], : places.shape[2]]
            if relu:
                torch.clamp(values, min=0, out=places)
            else:
                places.copy_(values)


def weight_gradient(x: Tensor, gradient: Tensor) -> Tensor:
    """The gradient (K,C,3,3) of a convolution's weights, from its maps (B,C,H,W) and its output's gradient (B,K,H,W).

    The output is linear in the transformed weights, so this transposes each step of `convolve`. Threads share the
    channels, so that each sum is added up by one thread, in the same order.
    """
    maps, gradients = x.permute(0, 2, 3, 1), gradient.permute(0, 2, 3, 1)
    channels, threads = maps.shape[3], torch.get_num_threads()
    sums = x.new_zeros(PLACES, channels, gradients.shape[3])
    pieces = _pieces(maps, gradients.shape[3], threads=1)

    def add_up(share: slice) -> None:
        for piece in pieces:
            inputs = _tiles_in(maps[..., share], piece)
            sums[:, share].baddbmm_(inputs.transpose(1, 2), _tiles_back(gradients, piece))

    for_each(add_up, _shares(channels, threads))
    nine = torch.kron(_G, _G).float().T @ sums.view(PLACES, -1)
    return nine.view(3, 3, channels, gradients.shape[3]).permute(3, 2, 0, 1)


def _shares(channels: int, parts: int) -> list[slice]:
    """Channels in at most so many slices of nearly equal size."""
    size = -(-channels // parts)
    return [slice(first, first + size) for first in range(0, channels, size)]


def _tiles_back(gradients: Tensor, piece: _Piece) -> Tensor:
    """``A y A'`` of a piece's 4x4 tiles of gradients (B,H,W,K), zero beyond the borders: (36, T, K)."""
    batch = gradients[piece.images, piece.first * TILE : piece.last * TILE]
    (count, height, width, outputs), lines, columns = (
        batch.shape,
        piece.last - piece.first,
        -(-gradients.shape[2] // TILE),
    )
    if (height, width) != (lines * TILE, columns * TILE):
        batch = F.pad(batch, (0, 0, 0, columns * TILE - width, 0, lines * TILE - height))
    tiles = batch.reshape(count, lines, TILE, columns, TILE, outputs).permute(2, 4, 0, 1, 3, 5)
    return _both(_A.T, tiles.reshape(TILE * TILE, -1, outputs))


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
