"""Writers of public weight files for tests, each from its format's description and with nothing of ours."""

from __future__ import annotations

import json
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Layers = dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]]  # name: OIHW weight, bias
STAGES = {"A": (1, 1, 2, 2, 2), "B": (2, 2, 2, 2, 2), "D": (2, 2, 3, 3, 3), "E": (2, 2, 4, 4, 4)}
MEAN = (123.68, 116.779, 103.939)


def conv_names(net: str) -> list[tuple[int, int]]:
    return [(stage, number) for stage, count in enumerate(STAGES[net], 1) for number in range(1, count + 1)]


def bgr(layers: Layers) -> Layers:
    """The same net for BGR pixels."""
    weight, bias = layers["conv1_1"]
    return {**layers, "conv1_1": (np.ascontiguousarray(weight[:, ::-1]), bias)}


# Protocol buffers, byte by byte.
def varint(value: int) -> bytes:
    out = b""
    while value >= 0x80:
        out += bytes([value % 128 + 128])
        value //= 128
    return out + bytes([value])


def tag(number: int, wire: int) -> bytes:
    return varint(number * 8 + wire)


def chunk(number: int, content: bytes) -> bytes:
    return tag(number, 2) + varint(len(content)) + content


def floats(values: NDArray[np.float32]) -> bytes:
    return struct.pack(f"<{values.size}f", *values.ravel().tolist())


def old_blob(values: NDArray[np.float32], sides: tuple[int, ...]) -> bytes:
    head = b"".join(tag(number, 0) + varint(side) for number, side in enumerate(sides, 1))
    return head + chunk(5, floats(values))


def new_blob(values: NDArray[np.float32]) -> bytes:
    half = values.size // 2  # in two pieces, as the format allows
    dims = chunk(7, chunk(1, b"".join(varint(side) for side in values.shape)))
    flat = values.ravel()
    return chunk(5, floats(flat[:half])) + dims + chunk(5, floats(flat[half:]))


def caffe_v1(path: Path, layers: Layers, lrn: bool = False) -> None:
    out = chunk(1, b"VGG_ILSVRC")
    out += chunk(2, chunk(4, b"data") + tag(5, 0) + varint(5))
    if lrn:
        out += chunk(2, chunk(4, b"norm1") + tag(5, 0) + varint(15))
    for name, (weight, bias) in bgr(layers).items():
        full = name.startswith("fc")
        sides = (1, 1, weight.shape[0], weight[0].size) if full else weight.shape
        body = chunk(2, b"below") + chunk(3, name.encode()) + chunk(4, name.encode())
        body += tag(5, 0) + varint(14 if full else 4)
        body += chunk(6, old_blob(weight, sides)) + chunk(6, old_blob(bias, (1, 1, 1, bias.size)))
        out += chunk(2, body) + chunk(2, chunk(4, b"relu") + tag(5, 0) + varint(18))
    path.write_bytes(out)


def caffe_v2(path: Path, layers: Layers, lrn: bool = False) -> None:
    out = chunk(1, b"net") + chunk(3, b"data")
    if lrn:
        out += chunk(100, chunk(1, b"norm1") + chunk(2, b"LRN"))
    for name, (weight, bias) in bgr(layers).items():
        kind = b"InnerProduct" if name.startswith("fc") else b"Convolution"
        matrix = weight.reshape(len(weight), -1) if name.startswith("fc") else weight
        out += chunk(
            100, chunk(1, name.encode()) + chunk(2, kind) + chunk(7, new_blob(matrix)) + chunk(7, new_blob(bias))
        )
    path.write_bytes(out)


def cell(items: list[Any]) -> NDArray[np.object_]:
    found = np.empty((1, len(items)), dtype=object)
    found[0] = items
    return found


def matconvnet(path: Path, layers: Layers, old: bool = False, wnids: list[str] | None = None) -> None:
    """Filters (H,W,Cin,Cout); the old form with its fields in another order; ``wnids`` in the outputs' order."""
    from scipy.io import savemat

    cells: list[Any] = []
    for name, (weight, bias) in layers.items():
        filters = weight.transpose(2, 3, 1, 0)
        if old:
            cells.append({"filters": filters, "biases": bias[None], "stride": 1.0, "type": "conv", "name": name})
        else:
            cells.append({"name": name, "type": "conv", "weights": cell([filters, bias[:, None]]), "pad": 1.0})
        cells.append({"type": "relu", "name": f"relu_{name}"})
    image = np.tile(np.array(MEAN, dtype=np.float32), (4, 4, 1)) if old else np.array(MEAN).reshape(1, 1, 3)
    normalization = {"averageImage": image, "imageSize": [224.0, 224.0, 3.0]}
    names = wnids or [f"n{number:08d}" for number in range(len(layers["fc8"][1]))]
    classes = {"name": cell(names), "description": cell([f"thing {name}" for name in names])}
    meta = {"normalization": normalization, "classes": classes}
    savemat(path, {"layers": cell(cells), **(meta if old else {"meta": meta})}, do_compression=not old)


def keras_arrays(layers: Layers) -> dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Kernels (H,W,Cin,Cout), matrices (in,out) whose rows go by row, column, channel."""
    names = {"fc6": "fc1", "fc7": "fc2", "fc8": "predictions"}
    found = {}
    for name, (weight, bias) in bgr(layers).items():
        kernel = weight.transpose(2, 3, 1, 0)
        full = name in names
        theirs = names.get(name) or f"block{name[4]}_conv{name[6]}"
        found[theirs] = (np.ascontiguousarray(kernel.reshape(-1, kernel.shape[3]) if full else kernel), bias)
    return found


def keras_old(path: Path, layers: Layers, backend: bytes | None = None, theano: bool = False) -> None:
    """As Keras 1 wrote Oxford's nets: names of layers and weights in attributes, as bytes."""
    import h5py

    with h5py.File(path, "w") as file:
        arrays = keras_arrays(layers)
        file.attrs["layer_names"] = [b"input_1", *(name.encode() for name in arrays), b"flatten"]
        if backend:
            file.attrs["backend"] = backend
        for empty in ("input_1", "flatten"):
            file.create_group(empty).attrs["weight_names"] = []
        for name, (kernel, bias) in arrays.items():
            group = file.create_group(name)
            names = [f"{name}_W_1:0", f"{name}_b_1:0"]
            group.attrs["weight_names"] = [one.encode() for one in names]
            turned = kernel.transpose(3, 2, 0, 1) if theano and kernel.ndim == 4 else kernel
            group[names[0]], group[names[1]] = turned, bias


def keras_new(path: Path, layers: Layers, named: bool = True) -> None:
    """As Keras 3: groups by class and number, ten before two; ``named`` as its later versions."""
    import h5py

    with h5py.File(path, "w") as file:
        counts = {"conv2d": 0, "dense": 0}
        for name, (kernel, bias) in keras_arrays(layers).items():
            kind = "conv2d" if kernel.ndim == 4 else "dense"
            number = f"_{counts[kind]}" if counts[kind] else ""
            counts[kind] += 1
            group = file.create_group(f"layers/{kind}{number}/vars")
            group["0"], group["1"] = kernel, bias
            if named:
                group.attrs["name"] = name
        file.create_group("layers/flatten/vars")


def keras_archive(path: Path, layers: Layers) -> None:
    inside = path.with_suffix(".h5")
    keras_new(inside, layers)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", "{}")
        archive.write(inside, "model.weights.h5")
    inside.unlink()


def tfjs(
    path: Path, layers: Layers, store: str = "float32", group: int = 3, shard: int = 10_000, named: bool = True
) -> None:
    """A layers model of TensorFlow.js: groups of ``group`` layers, in shards that end anywhere; an optimizer's state.

    ``store`` is float32, float16, uint8 or uint16; ``named`` as from Keras, in a model in a model, else numbered.
    """
    entries: list[tuple[dict[str, Any], bytes]] = []
    counts = {"conv2d": 0, "dense": 0}
    for name, (kernel, bias) in keras_arrays(layers).items():
        kind = "conv2d" if kernel.ndim == 4 else "dense"
        number = f"_{counts[kind]}" if counts[kind] else ""
        counts[kind] += 1
        for part, values in (("kernel", kernel), ("bias", bias)):
            entry: dict[str, Any] = {"shape": list(values.shape), "dtype": "float32"}
            entry["name"] = f"vgg16/{name}/{part}" if named else f"{kind}{number}/{part}"
            data = values
            if store == "float16":
                entry["quantization"], data = {"dtype": store, "original_dtype": "float32"}, values.astype("<f2")
            elif store != "float32":
                low, steps = float(values.min()), np.iinfo(store).max
                scale = (float(values.max()) - low) / steps or 1.0
                entry["quantization"] = {"dtype": store, "min": low, "scale": scale}
                data = np.round((values - low) / scale).astype(store)
            entries.append((entry, np.ascontiguousarray(data).tobytes()))
    entries.append(({"name": "iterations", "shape": [], "dtype": "int32", "group": "optimizer"}, bytes(4)))
    manifest = []
    for at, start in enumerate(range(0, len(entries), group), start=1):
        content = b"".join(data for _, data in entries[start : start + group])
        starts = range(0, len(content), shard)
        names = [f"{path.name}-group{at}-shard{place}of{len(starts)}.bin" for place in range(1, len(starts) + 1)]
        for name, first in zip(names, starts, strict=True):
            (path.parent / name).write_bytes(content[first : first + shard])
        manifest.append({"paths": names, "weights": [entry for entry, _ in entries[start : start + group]]})
    topology = {"model_config": {"class_name": "Functional"}, "keras_version": "2.15.0", "backend": "tensorflow"}
    model = {"format": "layers-model", "generatedBy": "keras v2.15.0", "modelTopology": topology}
    path.write_text(json.dumps({**model, "weightsManifest": manifest}))


def block(rows: list[tuple[bytes, bytes]]) -> bytes:
    """A table's block, each key written with what it shares with the one before."""
    out, before = b"", b""
    for key, value in rows:
        shared = 0
        while shared < min(len(key), len(before)) and key[shared] == before[shared]:
            shared += 1
        out += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        before = key
    return out + struct.pack("<II", 0, 1)


def table(path: Path, rows: list[tuple[bytes, bytes]], packed: int = 0) -> None:
    """Blocks of three rows, an index, a footer; checksums are left 0."""
    out, handles = b"", []
    for start in range(0, len(rows), 3):
        content = block(rows[start : start + 3])
        handles.append((rows[start][0], varint(len(out)) + varint(len(content))))
        out += content + bytes([packed]) + b"\0" * 4
    index = block(handles)
    places = varint(0) + varint(0) + varint(len(out)) + varint(len(index))
    out += index + b"\0" * 5 + places.ljust(40, b"\0") + bytes.fromhex("57fb808b247547db")
    path.write_bytes(out)


def slim_names(layers: Layers) -> dict[str, NDArray[np.float32]]:
    found = {}
    for name, (weight, bias) in layers.items():
        scope = f"vgg_16/{name}" if name.startswith("fc") else f"vgg_16/{name.split('_')[0]}/{name}"
        found[f"{scope}/weights"], found[f"{scope}/biases"] = weight.transpose(2, 3, 1, 0), bias
    found["vgg_16/mean_rgb"] = np.array(MEAN, dtype=np.float32)
    return dict(sorted(found.items()))


def shape_proto(shape: tuple[int, ...]) -> bytes:
    return b"".join(chunk(2, tag(1, 0) + varint(side)) for side in shape)


def slim_first(path: Path, layers: Layers, packed: int = 0) -> None:
    arrays = slim_names(layers)
    meta = b"".join(
        chunk(1, chunk(1, name.encode()) + chunk(2, shape_proto(value.shape)) + tag(3, 0) + varint(1))
        for name, value in arrays.items()
    )
    rows = [(b"", chunk(1, meta))]
    for name, value in arrays.items():
        tensor = chunk(5, floats(np.ascontiguousarray(value)))
        rows.append((b"\0" + name.encode() + b"\0\1", chunk(2, chunk(1, name.encode()) + chunk(3, tensor))))
    table(path, rows, packed)


def slim_second(path: Path, layers: Layers) -> None:
    """``path`` names what the two files share."""
    rows, content = [(b"", tag(1, 0) + varint(1))], b""
    for name, value in slim_names(layers).items():
        raw = floats(np.ascontiguousarray(value))
        entry = tag(1, 0) + varint(1) + chunk(2, shape_proto(value.shape))
        entry += tag(4, 0) + varint(len(content)) + tag(5, 0) + varint(len(raw))
        rows.append((name.encode(), entry))
        content += raw
    table(path.with_name(path.name + ".index"), rows)
    path.with_name(path.name + ".data-00000-of-00001").write_bytes(content)


def state_dict(
    net: str,
    layers: Layers,
    fc: tuple[str, str, str] = ("classifier.0", "classifier.3", "classifier.6"),
    spread: tuple[int, int] = (2, 1),
    norm: Callable[[str], str] | None = None,
    conv: str = "features.{}",
    fc_as_conv: bool = False,
) -> dict[str, torch.Tensor]:
    """A PyTorch state dict; ``spread`` is how far the counter goes for a convolution and for a pooling.

    With ``norm`` each convolution is followed by a batch normalisation that together with it is the layer of old.
    """
    found: dict[str, torch.Tensor] = {}
    counter = 0
    rng = np.random.default_rng(5)
    before = 1
    for stage, number in conv_names(net):
        counter += spread[1] if stage != before else 0
        before = stage
        name = conv.format(counter)
        weight, bias = layers[f"conv{stage}_{number}"]
        if norm:
            gamma, var = rng.uniform(0.5, 2, bias.shape), rng.uniform(0.2, 3, bias.shape)
            mean, beta = rng.normal(size=bias.shape), rng.normal(size=bias.shape)
            factor = gamma / np.sqrt(var + 1e-5)
            place = norm(name)
            for part, value in {"weight": gamma, "bias": beta, "running_mean": mean, "running_var": var}.items():
                found[f"{place}.{part}"] = torch.tensor(value, dtype=torch.float32)
            found[f"{place}.num_batches_tracked"] = torch.tensor(3)
            weight = (weight / factor[:, None, None, None]).astype(np.float32)
            bias = ((bias - beta) / factor + mean).astype(np.float32)
        found[f"{name}.weight"], found[f"{name}.bias"] = torch.tensor(weight), torch.tensor(bias)
        counter += spread[0]
    for ours, theirs in zip(("fc6", "fc7", "fc8"), fc, strict=True):
        if ours in layers:
            weight, bias = layers[ours]
            matrix = weight if fc_as_conv and ours != "fc8" else weight.reshape(len(weight), -1)
            found[f"{theirs}.weight"], found[f"{theirs}.bias"] = torch.tensor(matrix), torch.tensor(bias)
    return found
