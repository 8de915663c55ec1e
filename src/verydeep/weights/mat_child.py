"""A MatConvNet file read by scipy, in a process that may crash: for `verydeep.weights.matconvnet`, which begins it.

    python -m verydeep.weights.mat_child FILE BYTES

writes a safetensors file to stdout: weights and biases as ``LAYER/weight`` and ``LAYER/bias``, and JSON as bytes.
"""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from scipy.io import loadmat

from ..errors import VerydeepError
from .layouts import Parts
from .matconvnet import MISTAKE, TOLD
from .pixels import Preprocessing, triple


def read(path: Path) -> tuple[Parts, Preprocessing | None, tuple[str, ...] | None]:
    """Layers with weights by name, the recorded pixels and classes (None where it records none).

    Raises:
        VerydeepError: broken, or no MatConvNet net.
    """
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


def main() -> int:
    """The process."""
    path = Path(sys.argv[1])
    with contextlib.suppress(ImportError, ValueError, OSError):  # Windows has none
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[2]), resource.RLIM_INFINITY))
    try:
        parts, pixels, classes = read(path)
    except VerydeepError as mistake:
        sys.stderr.write(f"{mistake}\n")
        return MISTAKE
    told = {"pixels": None if pixels is None else pixels.to_json(), "classes": classes}
    tensors = {f"{layer}/{kind}": tensor for layer, part in parts.items() for kind, tensor in part.items()}
    tensors[TOLD] = torch.frombuffer(bytearray(json.dumps(told).encode()), dtype=torch.uint8)
    sys.stdout.buffer.write(save(tensors))
    return 0


if __name__ == "__main__":
    sys.exit(main())
