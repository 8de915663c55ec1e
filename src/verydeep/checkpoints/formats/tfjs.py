"""TensorFlow.js's layers models: ``model.json`` with a manifest of the weights, and binary files (shards) beside it.

The shards of a group of the manifest are one sequence of bytes, the group's weights in order, little-endian. Quantised
weights are value · scale + min for uint8 and uint16, or float16. Kernels and the order of fc1's inputs are Keras's.
[tensorflow/tfjs: tfjs-core/src/io/types.ts, io_utils.ts; tfjs-converter: read_weights.py, keras_h5_conversion.py]
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ...core.errors import VerydeepError, first_line
from ..checkpoint import unsupported_dtype
from ..key_maps import Parts
from .keras import count_channels_first, kernel_of, layer_order, names_by_order

LARGEST_JSON = 2**26  # bytes; that of a VGG net has 20,000
MOST_SIDES, LARGEST_SIDE = 5, 2**40  # of a shape
DTYPES = {"float32": "<f4", "float16": "<f2"}
CODES = {"uint8": "|u1", "uint16": "<u2"}
SIZES = {"float32": 4, "int32": 4, "bool": 1, "complex64": 8}  # of weights that are not quantised
MODEL, OPTIMIZER = "layers-model", "optimizer"
PARTS = {"kernel": "weight", "bias": "bias", "0": "weight", "1": "bias"}  # Keras 3 numbers them
KERAS_LAYER = re.compile(r"block\d_conv\d")


def read_tfjs(path: Path) -> Parts:
    """The layers of a TensorFlow.js layers model that have weights, by name.

    Args:
        path: the JSON file.

    Raises:
        VerydeepError: not a layers model; broken; a shard is missing, of another size or outside the folder; integer
            weights.
    """
    groups = _manifest(path)
    files = [_shard(path, name) for group in groups for name in group["paths"]]
    if len(set(files)) < len(files):  # a small file could name one shard many times
        raise VerydeepError(f"{path} is corrupted: it names a file of weights twice.")
    remaining = iter(files)
    arrays: dict[str, dict[str, Any]] = {}
    for group in groups:
        shards = list(islice(remaining, len(group["paths"])))
        weights = [_Weight(path, entry) for entry in group["weights"]]
        for weight, values in _read(path, shards, weights):
            scope, _, last = weight.name.rpartition("/")
            layer, part = scope.rpartition("/")[2], PARTS.get(last, last)
            if part in arrays.setdefault(layer, {}):
                raise VerydeepError(f"{path} has the weight {weight.name} twice.")
            arrays[layer][part] = values
    return _parts(path, arrays)


def _manifest(path: Path) -> list[dict[str, list[Any]]]:
    """The groups of the manifest."""
    try:
        if path.stat().st_size > LARGEST_JSON:
            raise ValueError(f"it has more than {LARGEST_JSON:,} bytes")
        content = json.loads(path.read_bytes().decode("utf8"))
        if content.get("format", MODEL) != MODEL or "node" in content.get("modelTopology", {}):
            raise VerydeepError(
                f"{path} is a graph model of TensorFlow.js, which is not supported: convert the Keras file it was made "
                "from, or save it as a layers model."
            )
        groups = [{key: list(group[key]) for key in ("paths", "weights")} for group in content["weightsManifest"]]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as fault:
        raise VerydeepError(
            f"{path} is corrupted, or is JSON of another kind than a TensorFlow.js layers model ({first_line(fault)})."
        ) from None
    return groups


class _Weight:
    """An entry of the manifest, checked: its name, shape, type and quantisation."""

    def __init__(self, path: Path, entry: Any) -> None:
        try:
            self.name, self.shape = str(entry["name"]), [_side(side) for side in entry["shape"]]
            quantised = entry.get("quantization") or {}
            self.dtype = str(quantised.get("dtype", entry["dtype"]))
            self.wanted = entry.get("group") != OPTIMIZER
            self.scale, self.minimum = 1.0, 0.0
            if self.dtype in CODES:
                self.scale, self.minimum = float(quantised["scale"]), float(quantised["min"])
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as fault:
            shown = json.dumps(entry)[:80]
            raise VerydeepError(f"{path} has an invalid weight {shown} ({first_line(fault)}).") from None
        if len(self.shape) > MOST_SIDES or not self._size or (self.wanted and not self._is_float):
            raise unsupported_dtype(path, self.name, f"{self.dtype} of the shape {self.shape}")

    @property
    def _size(self) -> int:
        """Bytes of a value; 0 for an unknown type and for texts, whose length is not in the manifest."""
        if self.dtype in DTYPES or self.dtype in CODES:
            return np.dtype(DTYPES.get(self.dtype) or CODES[self.dtype]).itemsize
        return SIZES.get(self.dtype, 0)

    @property
    def _is_float(self) -> bool:
        return self.dtype in DTYPES or self.dtype in CODES

    @property
    def bytes(self) -> int:
        """Of all its values."""
        return self._size * math.prod(self.shape)

    def values(self, content: memoryview) -> NDArray[np.float32]:
        """The weights, float32."""
        if self.dtype in DTYPES:
            floats = np.frombuffer(content, dtype=DTYPES[self.dtype])
            return floats.astype(np.float32, copy=False).reshape(self.shape)
        codes = np.frombuffer(content, dtype=CODES[self.dtype])
        with np.errstate(over="ignore", invalid="ignore"):  # values that are not finite are reported by their layer
            of_code = np.arange(2 ** (8 * self._size)) * self.scale + self.minimum  # in doubles, as TensorFlow.js
            return np.asarray(of_code.astype(np.float32)[codes].reshape(self.shape))


def _side(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= LARGEST_SIDE:
        raise ValueError(f"{value!r} is not a side of a shape")
    return value


def _shard(path: Path, name: Any) -> Path:
    """The file of a shard, which a downloaded JSON file must not choose outside its own folder."""
    inside = PurePosixPath(name) if isinstance(name, str) else PurePosixPath("..")
    file = path.parent / inside
    if inside.is_absolute() or ".." in inside.parts or "\\" in str(inside) or "\0" in str(inside):
        raise VerydeepError(f"{path} names weights outside its folder, {str(name)[:80]!r}, and is not loaded.")
    if not os.path.isfile(file):  # also for a name longer than any may be
        raise VerydeepError(f"{path} is incomplete: its weights {file} are missing.")
    return file


def _read(path: Path, shards: list[Path], weights: list[_Weight]) -> Iterator[tuple[_Weight, NDArray[np.float32]]]:
    """The weights of a group, without the optimizer's; sizes are compared before anything is read."""
    stored, expected = sum(file.stat().st_size for file in shards), sum(weight.bytes for weight in weights)
    if stored != expected:
        raise VerydeepError(
            f"{path} is corrupted or incomplete: the weights {', '.join(file.name for file in shards)[:120]} have "
            f"{stored:,} bytes, and {expected:,} in the manifest."
        )
    content, start = memoryview(bytearray(stored)), 0
    for file in shards:
        size = file.stat().st_size
        with file.open("rb") as opened:
            opened.readinto(content[start : start + size])
        start += size
    start = 0
    for weight in weights:
        if weight.wanted:
            yield weight, weight.values(content[start : start + weight.bytes])
        start += weight.bytes


def _parts(path: Path, arrays: dict[str, dict[str, Any]]) -> Parts:
    """Kernels and biases by layer; layers without Keras's names, which are only numbered, are named by their order."""
    in_order = sorted(arrays, key=layer_order)
    kernels = {layer: [arrays[layer]["weight"]] for layer in in_order if "weight" in arrays[layer]}
    names = {} if any(map(KERAS_LAYER.fullmatch, in_order)) else names_by_order(kernels)
    parts: Parts = {}
    for layer in in_order:
        tensors = {part: torch.from_numpy(value) for part, value in arrays[layer].items()}
        if layer in kernels:
            tensors["weight"] = kernel_of(path, *kernels[layer])
        parts[names.get(layer, layer)] = tensors
    count_channels_first(parts)
    return parts
