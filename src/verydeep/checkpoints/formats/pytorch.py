"""PyTorch's ``.pth`` (torchvision, jcjohnson, timm, mmpretrain) and safetensors without our metadata.

Pickles are read with ``weights_only``, which runs no code; a zip archive that unpacks to more than its size is refused
first. Wrappers (``state_dict``, ``module.``, ``backbone.``) are removed; counters of batch normalisation are skipped.
"""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...core.errors import VerydeepError
from ...core.files import utf8_path
from ..checkpoint import check_weights
from ..key_maps import Parts

WRAPPERS = ("state_dict", "model", "model_state_dict")
PARALLEL = ("module.", "_orig_mod.")  # added to names by DataParallel and by torch.compile
COUNTER = "num_batches_tracked"
LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"  # a pickle of PyTorch's magic number, before zip archives


def read_torch(path: Path) -> Parts:
    """The tensors of a ``.pth`` file by layer.

    Raises:
        VerydeepError: broken, a pickle of other things than tensors, an archive that unpacks to more than its size.
    """
    _check_archive(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about unusual pickles; unreadable ones raise
            with utf8_path(path) as opened:
                content = torch.load(opened, map_location="cpu", weights_only=True)
    except Exception as fault:  # pickle, zip and PyTorch each raise their own
        reason = "it would run code" if "weights_only" in str(fault) else "it is corrupted or truncated"
        raise VerydeepError(f"{path} was not loaded: {reason}; use a file that contains only tensors.") from None
    for key in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    named = isinstance(content, Mapping) and all(isinstance(name, str) for name in content)
    if not named or not all(isinstance(value, Tensor) for value in content.values()):
        raise VerydeepError(f"{path} is not a weight file: it contains other things than named tensors.")
    return parts_of(path, dict(content))


def _check_archive(path: Path) -> None:
    """Raises VerydeepError for a compressed zip archive, which PyTorch never writes."""
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
    except Exception:  # zipfile raises several types for untrusted bytes
        raise VerydeepError(f"{path} is corrupted or truncated: not a complete PyTorch file.") from None
    if unpacked > path.stat().st_size:
        raise VerydeepError(
            f"{path} would unpack to {unpacked:,} bytes, more than the size of the file, and is not loaded: "
            "use an uncompressed file."
        )


def parts_of(path: Path, tensors: dict[str, Any]) -> Parts:
    """Tensors by layer, from their names (``features.0.weight``).

    Raises:
        VerydeepError: a name without a layer, a tensor that is not weights.
    """
    tensors = {key: value for key, value in tensors.items() if not key.endswith(COUNTER)}
    for word in PARALLEL:
        tensors = {key.replace(word, ""): value for key, value in tensors.items()}
    for prefix in ("model.", "backbone."):
        if tensors and all(key.startswith(prefix) for key in tensors):
            tensors = {key.removeprefix(prefix): value for key, value in tensors.items()}
    check_weights(path, tensors)
    if sum(value.nbytes for value in tensors.values()) > path.stat().st_size:  # views of the same values
        raise VerydeepError(f"{path} has tensors of more bytes than the file: they overlap, and it is not loaded.")
    parts: Parts = {}
    for key, value in tensors.items():
        layer, _, part = key.rpartition(".")
        if not layer:
            raise VerydeepError(f"{path} is not a weight file of these nets: {key!r} belongs to no layer.")
        parts.setdefault(layer, {})[part] = value.float()
    return parts
