"""MatConvNet's ``.mat``: layers as a cell of structs, new files and old ones, read by the fields' names.

New files keep ``layers{i}.weights = {filters, biases}`` and ``meta.normalization.averageImage``; old ones
``layers{i}.filters``, ``.biases`` and ``normalization.averageImage``. Filters are (H,W,Cin,Cout), fc6 too, and pixels
RGB 0-255 minus the average, which the file records.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import VerydeepError
from .layouts import Parts
from .pixels import Preprocessing, triple

MOST_BYTES = 3 * 2**30  # that a file may unpack to: net E has .6 GB
COMPRESSED = 15  # an element's type, by MATLAB's description of its format
HEADER = 128


def read_matconvnet(path: Path) -> tuple[Parts, Preprocessing | None, tuple[str, ...] | None]:
    """Layers with weights by name, the recorded pixels and classes (None where it records none).

    Raises:
        VerydeepError: scipy is missing, broken, no MatConvNet net, an archive that unpacks to too much.
    """
    try:
        from scipy.io import loadmat
    except ImportError:
        raise VerydeepError(f"reading {path} needs scipy: pip install 'verydeep[mat]'.") from None
    _check_size(path)
    try:
        content = loadmat(path, struct_as_record=False, squeeze_me=True)
    except Exception as fault:  # whatever scipy trips over in a stranger's bytes
        raise VerydeepError(f"{path} is broken or truncated: no whole MATLAB file ({str(fault)[:80]}).") from None
    net = content.get("net", None)
    holder = net if net is not None else _Holder(content)
    if not hasattr(holder, "layers"):
        raise VerydeepError(f"{path} is a MATLAB file without `layers`: it holds no MatConvNet net.")
    try:
        parts = {str(layer.name): _part(layer) for layer in np.atleast_1d(holder.layers) if _weighted(layer)}
        return parts, _pixels(path, holder), _classes(holder)
    except (AttributeError, ValueError, TypeError, IndexError) as fault:
        raise VerydeepError(f"{path} has layers that are not MatConvNet's ({str(fault)[:80]}).") from None


class _Holder:
    """Top-level variables of a file as attributes."""

    def __init__(self, content: dict[str, Any]) -> None:
        self.__dict__.update(content)


def _check_size(path: Path) -> None:
    """Unpacks a file's compressed elements, a piece at a time, until they are too many bytes."""
    total = 0
    with path.open("rb") as file:
        file.seek(HEADER)
        while len(tag := file.read(8)) == 8:
            kind, size = (int(value) for value in np.frombuffer(tag, dtype="<u4"))
            end = file.tell() + size
            if kind == COMPRESSED:
                unpack = zlib.decompressobj()
                try:
                    while not unpack.eof and (piece := unpack.unconsumed_tail or file.read(min(2**16, size))):
                        total += len(unpack.decompress(piece, 2**22))
                        if total > MOST_BYTES:
                            raise VerydeepError(f"{path} unpacks to more than {MOST_BYTES:,} bytes, which is refused.")
                except zlib.error:
                    return  # scipy will say so
            file.seek(end)


def _weighted(layer: Any) -> bool:
    return any(np.size(getattr(layer, name, ())) for name in ("weights", "filters"))


def _part(layer: Any) -> dict[str, torch.Tensor]:
    filters, biases = layer.weights[:2] if hasattr(layer, "weights") else (layer.filters, layer.biases)
    filters = np.asarray(filters, dtype=np.float32)
    outputs = np.size(biases)
    # Sides of 1 are lost in MATLAB's files or by squeezing: FC layers are (Cin,Cout), at 1 output (Cin,).
    sides = filters.shape if filters.ndim == 4 else (1, 1, filters.size // max(1, outputs), outputs)
    weight = torch.from_numpy(filters.reshape(sides).transpose(3, 2, 0, 1).copy())
    return {"weight": weight, "bias": torch.from_numpy(np.asarray(biases, dtype=np.float32).reshape(-1).copy())}


def _pixels(path: Path, net: Any) -> Preprocessing | None:
    found = getattr(getattr(net, "meta", net), "normalization", None)
    average = np.asarray(getattr(found, "averageImage", ()), dtype=np.float64)
    if average.size == 0 or average.shape[-1] != 3:
        return None
    colours = average.reshape(-1, 3)
    if np.ptp(colours, axis=0).max() > 1e-3:
        raise VerydeepError(f"{path} subtracts an image that is no plain colour: say --preprocessing rgb-mean.")
    return Preprocessing("RGB", triple(colours[0]))


def _classes(net: Any) -> tuple[str, ...] | None:
    """Class names, with their descriptions where there are some: ``n01440764 tench, Tinca tinca``."""
    found = getattr(getattr(net, "meta", net), "classes", None)
    names = [str(name) for name in np.atleast_1d(getattr(found, "name", ()))]
    words = [str(name) for name in np.atleast_1d(getattr(found, "description", ()))]
    if not names:
        return None
    return tuple(f"{name} {word}" for name, word in zip(names, words, strict=True)) if words else tuple(names)
