"""Winograd's F(4x4, 3x3) by PyTorch's operations, where its compiled form is not available (`winograd`).

The transforms B and A are matmuls over the positions of a tile, the products are matmuls over channels. A layer is
computed in pieces that fit in the processor's caches, each by one thread (`cpu_threads`); ReLU and pooling are applied
to a piece while it is there (NOTES.md).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from . import matmul
from .cpu_threads import for_each, shares

TILE, MARGIN, SIDE, PLACES = 4, 2, 6, 36  # of an output tile; more of its input; its side; its positions
BIAS_PLACE = 7  # the product at position (1, 1) is added to all 16 outputs of a tile, by A's column of ones
PIECE_BYTES = 8 * 2**20  # of one piece's transformed tiles

_G = torch.tensor(
    [[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]], dtype=torch.float64
) / torch.tensor([[24.0]], dtype=torch.float64)
G_TWICE = torch.kron(_G, _G).float()  # (36,9): of weights' 9 positions, those of a tile
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


def transformed(weight: Tensor) -> Tensor:
    """``G g G'`` of weights (K,C,3,3), as float32 (36,C,K)."""
    rows = weight.permute(2, 3, 1, 0).reshape(9, -1)
    return (G_TWICE @ rows).view(PLACES, weight.shape[1], weight.shape[0])


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
    parts = shares(outputs, -(-threads // len(groups)))
    return [_Piece(group, 0, rows, share) for group in groups for share in parts]


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
    """The gradient (36,C,K) of the transformed weights, from maps (B,C,H,W) and the output's gradient (B,K,H,W).

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

    for_each(add_up, shares(channels, threads))
    return sums


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
