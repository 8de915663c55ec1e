"""Winograd's F(4x4, 3x3) by C functions compiled for this processor (`winograd.c`).

A layer is computed in pieces that fit in the processor's caches, each by one thread (`cpu_threads`). Results are equal
to the bit for every batch size and number of threads.
"""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..core.compiled import library
from .cpu_threads import for_each, shares
from .winograd_matmuls import PLACES, TILE

SOURCE = Path(__file__).with_name("winograd.c")
MOST_TILES = 48  # of a piece: their 36 positions fit in a core's cache
DEEP, MOST_DEEP_TILES = 256, 96  # channels of layers whose weights fill that cache, and are read once a piece

_POINTER, _SIZE = ctypes.c_void_p, ctypes.c_ssize_t


class _Layer(ctypes.Structure):
    """`Layer` of winograd.c."""

    _fields_ = (
        *((name, _POINTER) for name in ("maps", "weights", "bias", "out")),
        *((name, _SIZE) for name in ("height", "width", "channels", "outputs")),
        *((name, ctypes.c_int) for name in ("relu", "pooled")),
    )


@cache
def c_functions() -> Any:
    """The compiled functions; None where they are not available."""
    functions = library(SOURCE)
    if functions is not None:
        layer = ctypes.POINTER(_Layer)
        functions.transform_weights.argtypes = [_POINTER, *4 * [_SIZE], _POINTER]
        functions.convolve.argtypes = [layer, *4 * [_SIZE], _POINTER]
        functions.weight_gradient.argtypes = [layer, *4 * [_SIZE], _POINTER, _POINTER]
        functions.workspace.argtypes, functions.workspace.restype = 3 * [_SIZE], _SIZE
    return functions


def supports(weight: Tensor) -> bool:
    """Whether they are available, and the channels of weights (K,C,3,3) fill their panels."""
    functions = c_functions()
    return functions is not None and not any(size % functions.panel() for size in weight.shape[:2])


def transformed(weight: Tensor) -> Tensor:
    """``G g G'`` of weights (K,C,3,3), float32, in panels of w outputs: (36,K/w,C,w)."""
    functions, weight = c_functions(), weight.contiguous()
    outputs, channels, panel = weight.shape[0], weight.shape[1], functions.panel()
    result = weight.new_empty(PLACES, outputs // panel, channels, panel)

    def transform(panels: slice) -> None:
        where = weight.data_ptr(), outputs, channels, panels.start, panels.stop
        functions.transform_weights(*where, result.data_ptr())

    for_each(transform, shares(outputs // panel, torch.get_num_threads()))
    return result


def convolve(x: Tensor, weights: Tensor, bias: Tensor | None, relu: bool = False, pooled: bool = False) -> Tensor:
    """The convolution of maps (B,C,H,W), channels last, with `transformed` weights: (B,K,H,W).

    Args:
        relu: applies ReLU.
        pooled: applies 2x2 max-pooling as well, to maps of even height and width: (B,K,H/2,W/2).
    """
    (count, channels, height, width), step = x.shape, 2 if pooled else 1
    _, panels, _, panel = weights.shape
    result = x.new_empty(count, panels * panel, height // step, width // step)
    result = torch.empty_like(result, memory_format=torch.channels_last)
    layer, tiles, functions = _layer(x, result, relu, pooled), _pieces(x), c_functions()
    layer.weights, layer.bias = weights.data_ptr(), None if bias is None else bias.data_ptr()
    parts = shares(panels, -(-torch.get_num_threads() // len(tiles)))

    def compute(piece: tuple[slice, slice]) -> None:
        of_tiles, of_panels = piece
        work = _workspace(of_tiles.stop - of_tiles.start, channels, (of_panels.stop - of_panels.start) * panel)
        ends = of_tiles.start, of_tiles.stop, of_panels.start, of_panels.stop
        functions.convolve(layer, *ends, work.data_ptr())

    for_each(compute, [(piece, part) for piece in tiles for part in parts])
    return result


def weight_gradient(x: Tensor, gradient: Tensor) -> Tensor:
    """The gradient (36,C,K) of the transformed weights, from maps (B,C,H,W) and the output's gradient (B,K,H,W).

    Threads share the channels, so that each sum is added up by one thread, in the same order.
    """
    channels, outputs, functions = x.shape[1], gradient.shape[1], c_functions()
    layer, panel = _layer(x, gradient, relu=False, pooled=False), functions.panel()
    sums, pieces = x.new_zeros(PLACES, channels, outputs), _pieces(x, threads=1)

    def add_up(share: slice) -> None:
        first, last = share.start * panel, share.stop * panel
        work = _workspace(pieces[0].stop, last - first + panel, outputs)
        for piece in pieces:
            ends = piece.start, piece.stop, first, last
            functions.weight_gradient(layer, *ends, work.data_ptr(), sums.data_ptr())

    for_each(add_up, shares(channels // panel, torch.get_num_threads()))
    return sums


def _layer(x: Tensor, out: Tensor, relu: bool, pooled: bool) -> _Layer:
    height, width = x.shape[2:]
    return _Layer(x.data_ptr(), None, None, out.data_ptr(), height, width, x.shape[1], out.shape[1], relu, pooled)


def _workspace(tiles: int, channels: int, outputs: int) -> Tensor:
    return torch.empty(c_functions().workspace(tiles, channels, outputs))


def _pieces(x: Tensor, threads: int | None = None) -> list[slice]:
    """The tiles of maps (B,C,H,W) in pieces of nearly equal size, as many for each thread where there are enough."""
    tiles = len(x) * -(-x.shape[2] // TILE) * -(-x.shape[3] // TILE)
    most = MOST_DEEP_TILES if x.shape[1] >= DEEP else MOST_TILES
    threads = threads or torch.get_num_threads()
    pieces = -(-tiles // most)
    return shares(tiles, -(-pieces // threads) * threads if pieces >= threads else pieces)
