"""MatConvNet's ``.mat``: layers as a cell of structs, new files and old ones, read by the fields' names.

New files keep ``layers{i}.weights = {filters, biases}`` and ``meta.normalization.averageImage``; old ones
``layers{i}.filters``, ``.biases`` and ``normalization.averageImage``. Filters are (H,W,Cin,Cout), fc6 too, and pixels
RGB 0-255 minus the average, which the file records. `verydeep.core.matlab` reads the format.
"""

from __future__ import annotations

from pathlib import Path

import torch

from ...core.matlab import read_mat
from ..key_maps import Parts
from ..preprocessing import Preprocessing, triple


def read_matconvnet(path: Path) -> tuple[Parts, Preprocessing | None, tuple[str, ...] | None]:
    """Layers with weights by name, the recorded pixels and classes (None where it records none).

    Raises:
        VerydeepError: scipy is missing, broken, no MatConvNet net, an archive that unpacks to too much.
    """
    arrays, told = read_mat(path, "net")
    parts: Parts = {}
    for name, values in arrays.items():
        layer, _, kind = name.rpartition("/")
        parts.setdefault(layer, {})[kind] = torch.from_numpy(values)
    pixels = None if told["mean"] is None else Preprocessing("RGB", triple(told["mean"]))
    return parts, pixels, None if told["classes"] is None else tuple(told["classes"])
