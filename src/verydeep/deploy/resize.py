"""Sect. 3.1: the isotropic resize to Q and the central crop, in operators that every ONNX runtime has.

Few runtimes have the antialiasing of ONNX's Resize. Here the resize of an axis is a matrix product, with the weights
that Pillow computes: pixel i of m, whose centre is at (i + 1/2) n/m on the input's axis, is the mean of the n input
pixels, weighted by the filter at their distances from there in units of max(1, n/m), which is the antialiasing.

Pillow rounds weights to multiples of 2^-22, sums them times the pixels, and rounds the sum to a grey level, along rows
and then along columns. Float32 cannot hold such a sum, so a weight has two digits of 11 bits, whose sums are exact.
Distances are integers over 2 max(n, m), exact in float32 while 2nm < 2^24; only the cubic filter needs float64.
"""

from __future__ import annotations

import numpy as np

from ..checkpoints.checkpoint import Metadata
from ..checkpoints.exported import INPUTS, PHOTO
from .graph import Graph, Value

RESIZED = "resized"  # name of the result in the graph
BASE = 2048  # of the two digits of a weight
ROWS, COLUMNS = 0, 1


def add_resize(graph: Graph, metadata: Metadata) -> str:
    """Adds what makes a photo, uint8 (H,W,3), the central crop at Q, float32 (3,crop,crop) of whole grey levels."""
    photo = Value(graph, INPUTS[PHOTO], np.uint8)
    shape = photo.apply("Shape", start=0, end=2)
    sides = shape.cast(np.float32 if metadata.resampling == "bilinear" else np.float64)
    scaled = sides * metadata.test_scale / sides.apply("ReduceMin", keepdims=1)
    resized = (scaled + 0.5 if metadata.other_side == "round" else scaled).floor()
    first = ((resized - metadata.crop) * 0.5).floor()
    x = photo.cast(np.float32).apply("Transpose", perm=[2, 1, 0])  # (3,W,H)
    for axis in (COLUMNS, ROWS):
        n, m, start, count = (row.apply("Gather", np.array(axis)) for row in (sides, resized, first, shape))
        distances, unit = _distances(n, m, start, count, metadata.crop), n.apply("Max", m) * 2
        weights = (_linear if metadata.resampling == "bilinear" else _cubic)(distances, unit)
        x = _weighted(weights, x)
        if axis == COLUMNS:
            x = x.apply("Transpose", perm=[0, 2, 1])  # (3,H,crop)
    return graph.add("Identity", [x.name], RESIZED)


def _distances(n: Value, m: Value, start: Value, count: Value, crop: int) -> Value:
    """2m times the distances (crop,n) of n pixels from the centres of ``crop`` pixels of m, the first at ``start``.

    Args:
        count: n as an integer.
    """
    zero = Value(n.graph, n.graph.store(f"zero_of_{count.name}", np.array(0)), np.int64)
    pixels = zero.apply("Range", count, np.array(1)).cast(n.dtype)
    centres = start * 2 + np.arange(1, 2 * crop, 2, dtype=n.dtype)[:, None]
    return (centres * n - (pixels * 2 + 1) * m).apply("Abs")


def _linear(distances: Value, unit: Value) -> Value:
    """The filter 1 - x of distances x up to 1, times the unit, which makes it an integer."""
    return (unit - distances).apply("Relu")


def _cubic(distances: Value, unit: Value) -> Value:
    """The cubic filter with a = -1/2: (1.5x - 2.5)x² + 1 for x up to 1, then 2 - ((x - 5)x + 8)x/2 up to 2.

    Both parts are constant outside of their intervals here: the first is 0 at 1, the second at 1 and at 2.
    """
    x = distances / unit
    near, far = x.apply("Min", 1), x.apply("Clip", 1, 2)
    return (near * 1.5 - 2.5) * near * near + 1 + ((far - 5) * far + 8) * far * -0.5 + 2


def _weighted(weights: Value, x: Value) -> Value:
    """The weighted means (3,crop,L) of n rows (3,n,L), rounded to grey levels; weights (crop,n) of any sum."""
    total = weights.apply("ReduceSum", np.array([1]), keepdims=1)
    high = (weights * BASE / total).floor()
    low = ((weights * BASE - high * total) * BASE / total + 0.5).floor()
    sums = [digit.cast(np.float32).apply("MatMul", x) for digit in (high, low)]
    carried = sums[0] + (sums[1] * (1 / BASE)).floor()
    return ((carried + BASE / 2) * (1 / BASE)).floor().apply("Clip", 0, 255)
