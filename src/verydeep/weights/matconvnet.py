"""MatConvNet's ``.mat``: layers as a cell of structs, new files and old ones, read by the fields' names.

New files keep ``layers{i}.weights = {filters, biases}`` and ``meta.normalization.averageImage``; old ones
``layers{i}.filters``, ``.biases`` and ``normalization.averageImage``. Filters are (H,W,Cin,Cout), fc6 too, and pixels
RGB 0-255 minus the average, which the file records.

scipy reads the format, in a process of its own with bounded memory (`verydeep.weights.mat_child`): a few changed bytes
can make it ask for terabytes, or end its process (NOTES.md).
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
from safetensors.torch import load

from ..errors import VerydeepError
from .layouts import Parts
from .pixels import Preprocessing

MOST_BYTES = 3 * 2**30  # that a file may unpack to: net E has .6 GB
COMPRESSED = 15  # an element's type, by MATLAB's description of its format
HEADER = 128
TOLD = "told"  # the name under which the child's JSON is among the tensors
MISTAKE = 2  # the child's status where it tells a sentence


def read_matconvnet(path: Path) -> tuple[Parts, Preprocessing | None, tuple[str, ...] | None]:
    """Layers with weights by name, the recorded pixels and classes (None where it records none).

    Raises:
        VerydeepError: scipy is missing, broken, no MatConvNet net, an archive that unpacks to too much.
    """
    if importlib.util.find_spec("scipy") is None:
        raise VerydeepError(f"reading {path} needs scipy: pip install 'verydeep[mat]'.")
    _check_size(path)
    words = [sys.executable, "-m", "verydeep.weights.mat_child", str(path), str(2 * MOST_BYTES)]
    child = subprocess.run(words, capture_output=True, check=False)
    if child.returncode == MISTAKE:
        raise VerydeepError(child.stderr.decode("utf8", "replace").strip().splitlines()[-1])
    if child.returncode:
        raise VerydeepError(f"{path} is broken: reading it as a MATLAB file crashed, or took too much memory.")
    tensors = load(child.stdout)
    told = json.loads(bytes(tensors.pop(TOLD).tolist()))
    parts: Parts = {}
    for name, tensor in tensors.items():
        layer, _, kind = name.rpartition("/")
        parts.setdefault(layer, {})[kind] = tensor
    pixels = None if told["pixels"] is None else Preprocessing.from_json(told["pixels"])
    return parts, pixels, None if told["classes"] is None else tuple(told["classes"])


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
