"""MatConvNet's ``.mat``: layers as a cell of structs, new files and old ones, read by the fields' names.

New files keep ``layers{i}.weights = {filters, biases}`` and ``meta.normalization.averageImage``; old ones
``layers{i}.filters``, ``.biases`` and ``normalization.averageImage``. Filters are (H,W,Cin,Cout), fc6 too, and pixels
RGB 0-255 minus the average, which the file records. `verydeep.core.matlab` reads the format.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...core.errors import VerydeepError
from ...core.matlab import read_mat
from ..key_maps import Parts
from ..preprocessing import Preprocessing, triple


def read_matconvnet(path: Path) -> tuple[Parts, Preprocessing | None, tuple[str, ...] | None]:
    """Layers with weights by name, and the recorded preprocessing and classes, None where they are missing.

    Raises:
        VerydeepError: scipy is missing; the file is broken, not a MatConvNet net, or unpacks to too much.
    """
    content = read_mat(path)
    net = content.get("net", content)
    if not isinstance(net, dict) or "layers" not in net:
        raise VerydeepError(f"{path} is a MATLAB file without `layers`: it has no MatConvNet net.")
    layers = net["layers"]
    try:
        parts = {
            str(layer["name"]): _part(path, layer)
            for layer in ([layers] if isinstance(layers, dict) else layers)
            if any(np.size(layer.get(name, ())) for name in ("weights", "filters"))
        }
        meta = _struct(net, "meta") or net
        mean = _mean(_struct(meta, "normalization"))
        return parts, None if mean is None else Preprocessing("RGB", mean), _classes(_struct(meta, "classes"))
    except (AttributeError, KeyError, ValueError, TypeError, IndexError) as error:
        raise VerydeepError(f"{path} has layers that are not MatConvNet's ({str(error)[:80]}).") from None


def _struct(parent: dict[str, Any], name: str) -> dict[str, Any]:
    """The field of a struct as a struct; empty if there is none."""
    value = parent.get(name)
    return value if isinstance(value, dict) else {}


def _part(path: Path, layer: dict[str, Any]) -> dict[str, Tensor]:
    """A layer's weight (out,in,k,k) and bias (out,)."""
    filters, biases = layer["weights"][:2] if "weights" in layer else (layer["filters"], layer["biases"])
    for values in (filters, biases):
        if np.asarray(values).dtype.kind != "f":
            raise VerydeepError(
                f"{path} stores {layer['name']} as {np.asarray(values).dtype}: weights must be single or double."
            )
    filters = np.asarray(filters, dtype=np.float32)
    outputs = np.size(biases)
    # MATLAB's files and squeezing drop dimensions of 1: FC layers are (Cin,Cout), for 1 output (Cin,).
    sides = filters.shape if filters.ndim == 4 else (1, 1, filters.size // max(1, outputs), outputs)
    weight = np.ascontiguousarray(filters.reshape(sides).transpose(3, 2, 0, 1))
    bias = np.ascontiguousarray(np.asarray(biases, dtype=np.float32).reshape(-1))
    return {"weight": torch.from_numpy(weight), "bias": torch.from_numpy(bias)}


def _mean(normalization: dict[str, Any]) -> tuple[float, float, float] | None:
    average = np.asarray(normalization.get("averageImage", ()), dtype=np.float64)
    if average.size == 0 or average.shape[-1] != 3:
        return None
    colours = average.reshape(-1, 3)
    if np.ptp(colours, axis=0).max() > 1e-3:
        return None  # a mean image that is not one colour, which no net here subtracts: treated as not recorded
    return triple(colours[0].tolist())


def _classes(classes: dict[str, Any]) -> tuple[str, ...] | None:
    """Class names, with their descriptions if there are any: ``n01440764 tench, Tinca tinca``."""
    names = [str(name) for name in np.atleast_1d(classes.get("name", ()))]
    words = [str(name) for name in np.atleast_1d(classes.get("description", ()))]
    if not names:
        return None
    return tuple(f"{name} {word}" for name, word in zip(names, words, strict=True)) if words else tuple(names)
