"""TF-Slim's checkpoints, of version 1 (one file) and version 2 (``….index`` and ``….data-…``).

Both are LevelDB tables: a footer points to the index block, the index to the blocks, and a block contains keys, each
without the prefix it shares with the one before, and their values. In version 1 values are SavedTensorSlices (meta 1,
data 2), in version 2 BundleEntryProto, which has the position of a tensor in the data file.
[tensorflow: saved_tensor_slice.proto, tensor_bundle.proto; leveldb: table_format.md]
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...core.errors import VerydeepError
from ..key_maps import Parts
from .protobuf import checked_sides, data, fields, text, varint

MAGIC = bytes.fromhex("57fb808b247547db")
FOOTER, FLOAT = 48, 1
LONGEST_KEY = 4096  # bytes
NO_LAYERS = ("global_step", "mean_rgb", "Momentum", "ExponentialMovingAverage", "RMSProp", "Adam", "Adam_1")


def read_tensorflow(path: Path) -> Parts:
    """The layers of a checkpoint of TF-Slim's nets, by name without the scope (``conv1/conv1_1``).

    Args:
        path: the file of version 1, or the ``.index`` of version 2.

    Raises:
        VerydeepError: broken; compressed, partitioned or integer tensors.
    """
    try:
        rows = list(_rows(memoryview(path.read_bytes())))
        if not rows or rows[0][0] != b"":
            raise ValueError("it has no header")
        first = next(fields(rows[0][1]))[0]
        tensors = _second(path, rows[1:]) if path.name.endswith(".index") else _first(rows, first)
    except (ValueError, IndexError, KeyError, TypeError, StopIteration, OSError) as fault:
        raise VerydeepError(f"{path} is corrupted, or not a supported checkpoint ({str(fault)[:80]}).") from None
    return _parts(tensors)


def _rows(view: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """A table's keys and values."""
    footer = view[-FOOTER:]
    at = 0
    for _ in range(2):
        _, at = varint(footer, at)
    start, at = varint(footer, at)
    size, at = varint(footer, at)
    left = len(view)
    for _, handle in _block(view, start, size):
        at, after = varint(handle, 0)
        size, _ = varint(handle, after)
        left -= size
        if left < 0:  # a small file could name one block many times
            raise ValueError("its blocks overlap")
        yield from _block(view, at, size)


def _block(view: memoryview, start: int, size: int) -> Iterator[tuple[bytes, memoryview]]:
    if start + size + 5 > len(view):
        raise ValueError("it is truncated")
    if view[start + size] != 0:
        raise ValueError("its blocks are compressed")
    block = view[start : start + size]
    end = size - 4 - 4 * int.from_bytes(block[-4:], "little")
    at, key = 0, b""
    while at < end:
        shared, at = varint(block, at)
        own, at = varint(block, at)
        length, at = varint(block, at)
        key = key[:shared] + bytes(block[at : at + own])
        if len(key) > LONGEST_KEY:  # what keys share is not repeated in the file
            raise ValueError(f"a name of more than {LONGEST_KEY:,} bytes")
        at += own
        yield key, block[at : at + length]
        at += length


def _shape(view: memoryview) -> list[int]:
    return checked_sides([dict(fields(data(side))).get(1, 0) for at, side in fields(view) if at == 2])


def _first(rows: list[tuple[bytes, memoryview]], kind: int) -> dict[str, Any]:
    """The float tensors of version 1."""
    if kind != 1:
        raise ValueError("its first record is not a list of tensors")
    shapes: dict[str, list[int]] = {}
    for at, value in fields(data(next(fields(rows[0][1]))[1])):
        if at == 1:
            entry = dict(fields(data(value)))
            if entry.get(3) == FLOAT:
                shapes[text(entry[1])] = _shape(entry[2])
    tensors = {}
    for _, row in rows[1:]:
        saved = dict(fields(data(dict(fields(row))[2])))
        name = text(saved[1])
        if name in shapes:
            content = [data(value) for at, value in fields(data(saved[3])) if at in (4, 5)]
            tensors[name] = _array(name, b"".join(content), shapes[name])
    return tensors


def _second(path: Path, rows: list[tuple[bytes, memoryview]]) -> dict[str, Any]:
    """The float tensors of version 2, from the data file beside the index."""
    file = path.with_name(path.name.removesuffix(".index") + ".data-00000-of-00001")
    if not file.is_file():
        raise ValueError(f"{file.name} is missing beside it")
    content = np.memmap(file, dtype=np.uint8, mode="r")
    left = len(content)
    tensors = {}
    for key, row in rows:
        entry = dict(fields(row))
        if entry.get(1) == FLOAT and 7 not in entry:
            start, size = entry.get(4, 0), entry.get(5, 0)
            left -= size
            if left < 0:
                raise ValueError("its tensors overlap")
            tensors[key.decode("utf8")] = _array(
                key.decode("utf8"), content[start : start + size].tobytes(), _shape(entry[2])
            )
    return tensors


def _array(name: str, content: bytes, shape: list[int]) -> Any:
    if 4 * math.prod(shape) != len(content):
        raise ValueError(f"{name} has {len(content)} bytes for the shape {shape}: is it partitioned?")
    return np.frombuffer(content, dtype="<f4").reshape(shape)


def _parts(tensors: dict[str, Any]) -> Parts:
    parts: Parts = {}
    for name, value in tensors.items():
        layer, _, part = name.rpartition("/")
        if part in NO_LAYERS:
            continue
        layer = layer.partition("/")[2] if layer.startswith("vgg_") else layer
        tensor = torch.from_numpy(value.astype(np.float32))
        if part == "weights" and tensor.dim() == 4:
            parts.setdefault(layer, {})["weight"] = tensor.permute(3, 2, 0, 1).contiguous()
        else:
            parts.setdefault(layer, {})["bias" if part == "biases" else part] = tensor
    return parts
