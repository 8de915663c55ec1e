"""Keras's HDF5 files, old ones (``layer_names``) and those of Keras 3 (``layers/…/vars``), and ``.keras`` archives.

Kernels are (H,W,Cin,Cout) and fc1 is a matrix whose inputs are counted row, column, channel; pixels are BGR. Files in
Theano's order are refused: their kernels are also rotated by 180 degrees, which the files do not record.
"""

from __future__ import annotations

import io
import math
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...core.errors import VerydeepError
from ...models.architectures import NET_NAMES, layers
from ..checkpoint import unsupported_dtype
from ..key_maps import FC, KERAS, Parts

PACKED = 4  # largest compression ratio of a tensor: weights hardly compress, a decompression bomb does
INSIDE = "model.weights.h5"
_Arrays = dict[str, list[Any]]


def read_keras(path: Path) -> Parts:
    """The layers of a Keras file that have weights, by name.

    Raises:
        VerydeepError: h5py is missing; the file is broken, in Theano's order, or unpacks to too much.
    """
    with _opened(path) as file:
        tensors = _Tensors(path)
        root = tensors.member(file, "model_weights") if "model_weights" in file else file
        arrays = _older(path, root, tensors) if "layer_names" in root.attrs else _newer(path, file, tensors)
    parts: Parts = {}
    for name, values in arrays.items():
        parts[name] = {"weight": kernel_of(path, values[0])}
        parts[name] |= {
            part: torch.from_numpy(value) for part, value in zip(("bias", "third"), values[1:3], strict=False)
        }
    count_channels_first(parts)
    return parts


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        import h5py
    except ImportError:
        raise VerydeepError(f"reading {path} needs h5py: pip install 'verydeep[keras]'.") from None
    try:
        source: Any = path
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if archive.getinfo(INSIDE).compress_type != zipfile.ZIP_STORED:
                    raise VerydeepError(
                        f"{path} compresses its weights, which Keras does not do, and is not loaded: save "
                        "it without compression."
                    )
                source = io.BytesIO(archive.read(INSIDE))
        with h5py.File(source, "r") as file:
            yield file
    except VerydeepError:
        raise
    except Exception as fault:  # HDF5 raises many types for untrusted bytes
        raise VerydeepError(
            f"{path} is corrupted or truncated: not a complete Keras file ({str(fault)[:80]})."
        ) from None


class _Tensors:
    """Reads the tensors of a file from that file alone: HDF5 can refer to other files of this machine."""

    def __init__(self, path: Path) -> None:
        self._path, self._left = path, PACKED * path.stat().st_size

    def member(self, group: Any, name: Any) -> Any:
        """What a path below a group names.

        Raises:
            KeyError: nothing.
            VerydeepError: a link to another place, which Keras does not write.
        """
        import h5py

        for part in filter(None, _word(name).split("/")):
            link = group.get(part, getlink=True)
            if link is not None and not isinstance(link, h5py.HardLink):
                raise self._elsewhere(part)
            group = group[part]
        return group

    def read(self, values: Any) -> Any:
        """A tensor, float32; raises VerydeepError for integers, and if it is elsewhere or unpacks to too much."""
        if values.external or values.is_virtual:
            raise self._elsewhere(values.name)
        self._left -= values.nbytes  # of all tensors: a small file could name one many times
        if values.nbytes > PACKED * values.id.get_storage_size() or self._left < 0:
            raise VerydeepError(
                f"{self._path} would unpack {values.name} to {values.nbytes:,} bytes, and is not loaded."
            )
        if values.dtype.kind != "f":
            raise unsupported_dtype(self._path, values.name, str(values.dtype))
        return np.asarray(values, dtype=np.float32)

    def _elsewhere(self, name: str) -> VerydeepError:
        return VerydeepError(
            f"{self._path} refers to another place for {name[:80]}, which Keras does not do, and is not loaded."
        )


def _older(path: Path, root: Any, tensors: _Tensors) -> _Arrays:
    """Of files that list their layers' names."""
    if _word(root.attrs.get("backend", "")) == "theano":
        raise VerydeepError(_theano(path))
    arrays = {}
    for layer in map(_word, root.attrs["layer_names"]):
        group = tensors.member(root, layer)
        names = group.attrs["weight_names"]
        if len(names):
            arrays[layer] = [tensors.read(tensors.member(group, name)) for name in names]
    return arrays


def _newer(path: Path, file: Any, tensors: _Tensors) -> _Arrays:
    """Layers of Keras 3, whose groups are named by class and number, with the layer's name as an optional attribute."""
    place = next((name for name in ("layers", "_layer_checkpoint_dependencies") if name in file), None)
    if place is None:
        raise VerydeepError(f"{path} is an HDF5 file, but not a Keras one: it lists no layers.")
    root = tensors.member(file, place)
    layers = {name: tensors.member(root, name) for name in sorted(root, key=layer_order)}
    groups = [(name, tensors.member(layer, "vars")) for name, layer in layers.items() if "vars" in layer]
    named = {
        name: [tensors.read(tensors.member(values, str(at))) for at in range(len(values))]
        for name, values in groups
        if len(values)
    }
    names = {name: _word(values.attrs["name"]) for name, values in groups if name in named and "name" in values.attrs}
    if len(names) < len(named):
        names = names_by_order(named)
    return {names.get(name, name): values for name, values in named.items()}


def names_by_order(named: _Arrays) -> dict[str, str]:
    """Names by the order of layers, for groups that are only numbered: those of the net with as many convolutions."""
    convs = [name for name, values in named.items() if values[0].ndim == 4]
    dense = [name for name, values in named.items() if values[0].ndim == 2]
    for net in NET_NAMES:
        ours = [spec.name for spec in layers(net) if spec.name not in FC]
        if len(ours) == len(convs):
            names = KERAS.names(net)
            return dict(zip(convs, (names[name] for name in ours), strict=True)) | dict(
                zip(dense, KERAS.fc, strict=False)
            )
    return {}


def layer_order(name: str) -> tuple[str, int]:
    """``conv2d_10`` after ``conv2d_9``."""
    match = re.fullmatch(r"(.*?)(?:_(\d{1,9}))?", name)
    return (match[1], int(match[2] or 0)) if match else (name, 0)


def _word(value: Any) -> str:
    return value.decode("utf8") if isinstance(value, bytes) else str(value)


def kernel_of(path: Path, values: Any) -> Tensor:
    """(out,in,k,k) from (k,k,in,out), or (out,in) from (in,out)."""
    if values.ndim != 4:
        return torch.from_numpy(values).t() if values.ndim == 2 else torch.from_numpy(values)
    if values.shape[2] == values.shape[3] < 8 and values.shape[0] != values.shape[1]:
        raise VerydeepError(_theano(path))
    return torch.from_numpy(values.transpose(3, 2, 0, 1).copy())


def _theano(path: Path) -> str:
    return (
        f"{path} has its kernels in Theano's order, which is not supported: use the file of the same net whose name "
        "has tf_dim_ordering, or save it again with a later Keras."
    )


def count_channels_first(parts: Parts) -> None:
    """Reorders fc1's inputs from row, column, channel to channel, row, column, in place."""
    weights = {name: part["weight"] for name, part in parts.items() if "weight" in part}
    convs = [weight for weight in weights.values() if weight.dim() == 4]
    if "fc1" not in weights or not convs or weights["fc1"].dim() != 2:
        return
    weight, channels = weights["fc1"], convs[-1].shape[0]
    side = math.isqrt(weight.shape[1] // channels)
    if side**2 * channels == weight.shape[1]:
        whole = weight.reshape(weight.shape[0], side, side, channels).permute(0, 3, 1, 2)
        parts["fc1"]["weight"] = whole.contiguous()


def keras_bytes(net: str, tensors: dict[str, Tensor]) -> Any:
    """The bytes of an HDF5 file with layer names, which every Keras loads into its own VGG16 or VGG19.

    Args:
        tensors: weights and biases by our layers, BGR.

    Raises:
        VerydeepError: h5py is missing.
    """
    try:
        import h5py
    except ImportError:
        raise VerydeepError("writing Keras files needs h5py: pip install 'verydeep[keras]'.") from None
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        names = KERAS.names(net)
        file.attrs["layer_names"] = [name.encode() for name in names.values()]
        file.attrs["backend"], file.attrs["keras_version"] = b"tensorflow", b"2.15.0"
        for ours, name in names.items():
            kernel = tensors[f"{ours}.weight"].permute(2, 3, 1, 0)
            group = file.create_group(name)
            group.attrs["weight_names"] = [f"{name}/kernel:0".encode(), f"{name}/bias:0".encode()]
            flat = kernel.reshape(-1, kernel.shape[3]) if ours in FC else kernel
            group[f"{name}/kernel:0"] = flat.contiguous().numpy()
            group[f"{name}/bias:0"] = tensors[f"{ours}.bias"].numpy()
    return content.getbuffer()
