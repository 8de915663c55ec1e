"""Caffe's ``.caffemodel``: the fields of its protocol buffer that contain layers, read and written without Caffe.

NetParameter holds ``layers`` (2, of the first version: name 4, type 5, blobs 6) or ``layer`` (100: name 1, type 2,
blobs 7); a blob holds data (5: floats) or double_data (8), and its shape as num, channels, height, width (1 to 4) or
as BlobShape (7, whose dim is 1). [caffe.proto]
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...core.errors import VerydeepError
from ...models.architectures import layers
from ..key_maps import FC, Parts
from .protobuf import checked_sides, data, field_bytes, fields, number_bytes, text, varints

LRN_OF_VERSION_1 = 15  # V1LayerParameter.LayerType
NET_FIELDS = {1, 2, 3, 4, 8, 100}  # name, layers, input, input_dim, input_shape, layer


def looks_like_caffe(start: bytes) -> bool:
    """Whether a file starts with a field of NetParameter, and not with text."""
    try:
        number, value = next(fields(memoryview(start), whole=False))
        return number in NET_FIELDS and (number != 1 or text(value).isprintable())
    except (ValueError, IndexError, StopIteration):
        return False


def read_caffe(path: Path) -> tuple[Parts, bool]:
    """The layers that have blobs, by name, and whether one of the others is a local response normalisation (LRN).

    Raises:
        VerydeepError: truncated, not a protocol buffer of a net, a blob whose size does not match its shape.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as whole:
            # A copy, as views in an error's traceback would keep the file open.
            return _read(memoryview(whole[:]))
    except (ValueError, IndexError) as fault:
        raise VerydeepError(
            f"{path} is corrupted or truncated: not a complete .caffemodel ({str(fault)[:80]})."
        ) from None


def _read(view: memoryview) -> tuple[Parts, bool]:
    parts: Parts = {}
    lrn = False
    for number, value in fields(view):
        if number not in (2, 100):
            continue
        name_field, kind_field, blob_field = (4, 5, 6) if number == 2 else (1, 2, 7)
        layer = list(fields(data(value)))
        kinds = [kind if isinstance(kind, int) else text(kind) for at, kind in layer if at == kind_field]
        lrn = lrn or kinds in ([LRN_OF_VERSION_1], ["LRN"])
        blobs = [_blob(data(blob)) for at, blob in layer if at == blob_field]
        if blobs:
            parts[next((text(name) for at, name in layer if at == name_field), "")] = _part(blobs)
    return parts, lrn


def _part(blobs: list[Tensor]) -> dict[str, Tensor]:
    """Weight and bias; leading dimensions of 1 of old blobs, which always have four, are removed."""
    weight = blobs[0]
    part = {"weight": weight[0, 0] if weight.dim() == 4 and weight.shape[:2] == (1, 1) else weight}
    if len(blobs) > 1:
        part["bias"] = blobs[1].flatten()
    return part | {f"blob{number}": blob for number, blob in enumerate(blobs[2:], start=3)}


def _blob(view: memoryview) -> Tensor:
    sides = {1: 1, 2: 1, 3: 1, 4: 1}
    shape: list[int] | None = None
    chunks = [np.zeros(0, dtype=np.float32)]
    for number, value in fields(view):
        if number in sides and isinstance(value, int):
            sides[number] = value
        elif number == 7:
            shape = [side for at, sizes in fields(data(value)) if at == 1 for side in varints(sizes)]
        elif number in (5, 8):
            kind = np.dtype("<f4" if number == 5 else "<f8")
            chunks.append(np.frombuffer(data(value), dtype=kind).astype(np.float32))
    shape = checked_sides(list(sides.values()) if shape is None else shape)
    values = np.concatenate(chunks) if len(chunks) > 2 else chunks[-1]
    if len(values) == 0 or len(values) != math.prod(shape):
        raise ValueError(f"a blob of the shape {shape} has {len(values)} numbers")
    return torch.from_numpy(values.reshape(shape))


def caffe_bytes(net: str, tensors: dict[str, Tensor]) -> Iterator[bytes]:
    """The bytes of a ``.caffemodel`` in pieces, in the later form (``layer``), which every Caffe reads.

    Args:
        tensors: weights and biases by layer, BGR; FC layers are written as matrices, fc6 channel by channel.
    """
    yield field_bytes(1, net.encode())
    for spec in layers(net):
        if f"{spec.name}.weight" not in tensors:
            continue
        weight, full = tensors[f"{spec.name}.weight"], spec.name in FC
        blobs = [_written(weight.flatten(1) if full else weight), _written(tensors[f"{spec.name}.bias"])]
        kind = b"InnerProduct" if full else b"Convolution"
        head = field_bytes(1, spec.name.encode()) + field_bytes(2, kind)
        yield field_bytes(100, head + b"".join(field_bytes(7, blob) for blob in blobs))


def _written(blob: Tensor) -> bytes:
    shape = field_bytes(1, b"".join(number_bytes(side) for side in blob.shape))
    return field_bytes(7, shape) + field_bytes(5, blob.detach().contiguous().numpy().astype("<f4").tobytes())


def prototxt(net: str, tensors: dict[str, Tensor], crop: int, use: dict[str, str]) -> str:
    """The net's description for Caffe and OpenCV, which the ``.caffemodel`` is loaded with.

    Args:
        use: how the file is used, as comments: its own last layer is the soft-max.
    """
    lines = [f"# {name}: {text}" for name, text in use.items() if name in ("pixels", "input", "resize")]
    lines += [f'name: "{net}"', 'input: "data"', f"input_dim: 1 input_dim: 3 input_dim: {crop} input_dim: {crop}"]
    bottom, specs = "data", [spec for spec in layers(net) if f"{spec.name}.weight" in tensors]
    for number, spec in enumerate(specs):
        outputs, full = tensors[f"{spec.name}.bias"].shape[0], spec.name in FC
        side = f" kernel_size: {spec.kernel} pad: {spec.kernel // 2}" if not full else ""
        kind = "InnerProduct" if full else "Convolution"
        options = f"{'inner_product' if full else 'convolution'}_param {{ num_output: {outputs}{side} }}"
        lines.append(_layer(spec.name, kind, bottom, spec.name, options))
        bottom = spec.name
        if spec.name != "fc8":
            lines.append(_layer(f"relu{spec.name.removeprefix('conv').removeprefix('fc')}", "ReLU", bottom, bottom))
        if spec.name in ("fc6", "fc7"):
            lines.append(
                _layer(f"drop{spec.name[2:]}", "Dropout", bottom, bottom, "dropout_param { dropout_ratio: 0.5 }")
            )
        if not full and [after.stage for after in specs[number + 1 :][:1]] != [spec.stage]:
            pool = "pooling_param { pool: MAX kernel_size: 2 stride: 2 }"
            lines.append(_layer(f"pool{spec.stage}", "Pooling", bottom, f"pool{spec.stage}", pool))
            bottom = f"pool{spec.stage}"
    lines += [_layer("prob", "Softmax", bottom, "prob")] if bottom == "fc8" else []
    return "\n".join(lines) + "\n"


def _layer(name: str, kind: str, bottom: str, top: str, options: str = "") -> str:
    layer = f'layer {{ name: "{name}" type: "{kind}" bottom: "{bottom}" top: "{top}" {options}'
    return layer.rstrip() + " }"
