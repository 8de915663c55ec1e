"""A MATLAB file read by scipy, in a process that may crash: for `verydeep.core.matlab`, which begins it.

    python -m verydeep.mat_child net|synsets FILE BYTES

writes a safetensors file to stdout, or the sentence of a mistake. Of a net: weights (out,in,k,k) and biases as
``LAYER/weight`` and ``LAYER/bias``, and as JSON the ``mean`` it subtracts (RGB, or null) and its ``classes``; of the
devkit's synsets as JSON ``rows`` of ILSVRC2012_ID, WNID and words.
"""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save
from scipy.io import loadmat

from .errors import VerydeepError
from .matlab import MISTAKE, TOLD

Found = tuple[dict[str, NDArray[Any]], dict[str, Any]]


def read_net(path: Path) -> Found:
    """Layers with weights, the recorded mean and classes (None where it records none).

    Raises:
        VerydeepError: broken, or no MatConvNet net.
    """
    # By the class that MATLAB gave them: it stores whole doubles, such as biases of 0, in fewer bytes.
    content = _content(path, struct_as_record=False, mat_dtype=True)
    net = content.get("net", None)
    holder = net if net is not None else _Holder(content)
    if not hasattr(holder, "layers"):
        raise VerydeepError(f"{path} is a MATLAB file without `layers`: it holds no MatConvNet net.")
    arrays: dict[str, NDArray[Any]] = {}
    try:
        for layer in np.atleast_1d(holder.layers):
            if _weighted(layer):
                weight, bias = _part(path, layer)
                arrays[f"{layer.name!s}/weight"], arrays[f"{layer.name!s}/bias"] = weight, bias
        return arrays, {"mean": _mean(holder), "classes": _classes(holder)}
    except (AttributeError, ValueError, TypeError, IndexError) as fault:
        raise VerydeepError(f"{path} has layers that are not MatConvNet's ({str(fault)[:80]}).") from None


def read_synsets(path: Path) -> Found:
    """ILSVRC2012_ID, WNID and words of each synset, as texts.

    Raises:
        VerydeepError: broken, or not the devkit's.
    """
    names = ("ILSVRC2012_ID", "WNID", "words")
    try:
        synsets = np.atleast_1d(_content(path)["synsets"])
        rows = [
            [str(int(number)), str(wnid), str(words)]
            for number, wnid, words in zip(*map(synsets.__getitem__, names), strict=True)
        ]
    except (VerydeepError, KeyError, ValueError, TypeError, IndexError, OverflowError):
        raise VerydeepError(f"{path} is not the devkit's, or broken: unpack the devkit again.") from None
    return {}, {"rows": rows}


def _content(path: Path, **how: Any) -> dict[str, Any]:
    try:
        found: dict[str, Any] = loadmat(path, squeeze_me=True, **how)
        return found
    except Exception as fault:  # whatever scipy trips over in a stranger's bytes
        raise VerydeepError(f"{path} is broken or truncated: no whole MATLAB file ({_line(fault)}).") from None


def _line(fault: Exception) -> str:
    return " ".join(str(fault)[:80].split())


class _Holder:
    """Top-level variables of a file as attributes."""

    def __init__(self, content: dict[str, Any]) -> None:
        self.__dict__.update(content)


def _weighted(layer: Any) -> bool:
    return any(np.size(getattr(layer, name, ())) for name in ("weights", "filters"))


def _part(path: Path, layer: Any) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """A layer's weight (out,in,k,k) and bias (out,)."""
    filters, biases = layer.weights[:2] if hasattr(layer, "weights") else (layer.filters, layer.biases)
    for values in (filters, biases):
        if np.asarray(values).dtype.kind != "f":
            raise VerydeepError(
                f"{path} stores {layer.name} as {np.asarray(values).dtype}: weights are single or double."
            )
    filters = np.asarray(filters, dtype=np.float32)
    outputs = np.size(biases)
    # Sides of 1 are lost in MATLAB's files or by squeezing: FC layers are (Cin,Cout), at 1 output (Cin,).
    sides = filters.shape if filters.ndim == 4 else (1, 1, filters.size // max(1, outputs), outputs)
    weight = np.ascontiguousarray(filters.reshape(sides).transpose(3, 2, 0, 1))
    return weight, np.ascontiguousarray(np.asarray(biases, dtype=np.float32).reshape(-1))


def _mean(net: Any) -> list[float] | None:
    found = getattr(getattr(net, "meta", net), "normalization", None)
    average = np.asarray(getattr(found, "averageImage", ()), dtype=np.float64)
    if average.size == 0 or average.shape[-1] != 3:
        return None
    colours = average.reshape(-1, 3)
    if np.ptp(colours, axis=0).max() > 1e-3:
        return None  # an image that is no plain colour, which no net here subtracts: as if none were recorded
    return [float(value) for value in colours[0]]


def _classes(net: Any) -> list[str] | None:
    """Class names, with their descriptions where there are some: ``n01440764 tench, Tinca tinca``."""
    found = getattr(getattr(net, "meta", net), "classes", None)
    names = [str(name) for name in np.atleast_1d(getattr(found, "name", ()))]
    words = [str(name) for name in np.atleast_1d(getattr(found, "description", ()))]
    if not names:
        return None
    return [f"{name} {word}" for name, word in zip(names, words, strict=True)] if words else names


def main() -> int:
    """The process."""
    what, path, most = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    with contextlib.suppress(ImportError, ValueError, OSError):  # Windows has none
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (most, resource.RLIM_INFINITY))
    try:
        arrays, told = read_net(path) if what == "net" else read_synsets(path)
    except VerydeepError as mistake:
        sys.stdout.buffer.write(str(mistake).encode("utf8", "surrogateescape"))
        return MISTAKE
    arrays[TOLD] = np.frombuffer(json.dumps(told).encode(), dtype=np.uint8)
    sys.stdout.buffer.write(save(arrays))
    return 0


if __name__ == "__main__":
    sys.exit(main())
