"""Sect. 1, "we have released our two best-performing models": pretrained weights from public files.

A file is recognised by its content, never by its name: Caffe, MatConvNet, Keras, TensorFlow.js, TF-Slim, PyTorch
(torchvision, jcjohnson, timm, mmpretrain), safetensors. Its preprocessing and classes are read from the file or its
sidecar, or known of a public file by its hash, and never guessed.
"""

from __future__ import annotations

import shlex
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..core.config import STRIDE
from ..core.errors import VerydeepError
from .checkpoint import METADATA_KEY, Metadata, check_finite, load_checkpoint, read_header, read_safetensors
from .download import cached
from .formats.caffe import looks_like_caffe, read_caffe
from .formats.keras import INSIDE, read_keras
from .formats.matconvnet import read_matconvnet
from .formats.pytorch import LEGACY, parts_of, read_torch
from .formats.tf_slim import MAGIC, read_tensorflow
from .formats.tfjs import read_tfjs
from .key_maps import CAFFE, FC, KERAS, MATCONVNET, SLIM, TFJS, TORCH, Recognised, recognise
from .preprocessing import CHOICES, KNOWN, Preprocessing, Triple, pixels_named, to_our_pixels, triple
from .registry import NAMES_FILE, Digests, Released, all_released, ilsvrc_classes, known_file, nearest_released
from .run_dir import checkpoint_of
from .sidecar import Sidecar, read_sidecar

LONGEST_HEADER = 100_000_000  # of a safetensors file, by its own rule


class PixelsUnknown(VerydeepError):
    """A weight file of unknown preprocessing; ``outputs`` of fc8 (0 without it), ``named`` if it has class names."""

    def __init__(self, path: Path, outputs: int, named: bool) -> None:
        self.path, self.outputs, self.named = path, outputs, named
        super().__init__(f"{self._fault}: pass --preprocessing {CHOICES}.")

    @property
    def _fault(self) -> str:
        return (
            f"{self.path} does not record its preprocessing (channel order, mean, scale), and its hash is not that of "
            "a known public file"
        )

    def converted_first(self) -> VerydeepError:
        """The same for commands without --preprocessing: converting the file to a run records it, and the classes."""
        names = "" if self.named or not self.outputs else f" {names_flag(self.outputs)}"
        return VerydeepError(
            f"{self._fault}: `verydeep convert {shlex.quote(str(self.path))} runs/NAME --preprocessing caffe{names}` "
            f"makes a run that does; preprocessing is {CHOICES}" + (f"; {NAMES_FILE}." if names else ".")
        )


def names_flag(outputs: int) -> str:
    """The flag of `verydeep convert` that names the classes of a file without class names."""
    return "--class-names ilsvrc" if outputs == len(ilsvrc_classes()) else "--class-names FILE"


@dataclass(frozen=True)
class Weights:
    """Layers by name for RGB 0-255 minus ``mean``; ``classes`` is None where they are not recorded.

    ``origin`` is the source: format, preprocessing, SHA-256, and of a public file its name and licence; ``metadata``
    is that of a checkpoint, or of the sidecar beside a file.
    """

    net: str
    tensors: dict[str, Tensor]
    mean: Triple
    classes: tuple[str, ...] | None
    source: str
    origin: dict[str, Any] = field(default_factory=dict)
    metadata: Metadata | None = None

    @property
    def width(self) -> float:
        """The factor on Table 1's channels."""
        return self.tensors["conv1_1.weight"].shape[0] / 64

    @property
    def crop(self) -> int:
        """The crop that fc6 is made for; the paper's without fc6."""
        fc6 = self.tensors.get("fc6.weight")
        return 224 if fc6 is None else STRIDE * int(fc6.shape[-1])


def locate_weights(source: str) -> Path:
    """The file of a run directory (its best checkpoint), of fetched released weights (``oxford-D``), or of a path.

    Raises:
        VerydeepError: there is none.
    """
    path = Path(source)
    if path.is_dir():
        return checkpoint_of(path, last=False)
    if path.exists():
        return path
    if path.with_name(path.name + ".index").is_file():  # a TensorFlow checkpoint of several files, named by prefix
        return path.with_name(path.name + ".index")
    released = next((entry for entry in all_released() if entry.name == source), None)
    if released is None:
        near = nearest_released(source)
        hint = f"did you mean {near}? Or use" if near else "use"
        raise VerydeepError(
            f"there is no run or weight file {source}: {hint} the folder that `verydeep train` wrote, a file, or "
            "a name of `verydeep weights list`."
        )
    if not cached(released).is_file():
        raise VerydeepError(f"{source} is not on this machine: `verydeep weights fetch {source}` downloads it.")
    return cached(released)


def has_metadata(path: Path) -> bool:
    """Whether a file is a checkpoint of verydeep; raises VerydeepError for a file of no known format."""
    return _kind(path) == "safetensors" and METADATA_KEY in read_header(path)[0]


def read_weights(source: str, preprocessing: str = "recorded") -> Weights:
    """Reads weights from a run directory (its best checkpoint), a checkpoint, released weights, or a public file.

    Args:
        source: the path or name.
        preprocessing: a key of `KNOWN` for files that do not record theirs.

    Raises:
        PixelsUnknown: the preprocessing is not recorded.
        VerydeepError: no such file, broken, or not weights of a known net.
    """
    path = locate_weights(source)
    kind = _kind(path)
    header: dict[str, str] = {}
    if kind == "safetensors":
        header, tensors = read_safetensors(path)
        if METADATA_KEY in header:
            return _of_checkpoint(path)
        found, recorded, classes = recognise(path, parts_of(path, tensors), TORCH), None, None
    else:
        found, recorded, classes = _foreign(path, kind)
    digests = Digests(path)
    known, sidecar = known_file(digests), read_sidecar(digests)
    pixels = _pixels(preprocessing, known, sidecar, recorded or _in_header(header))
    if pixels is None:
        outputs = found.tensors["fc8.weight"].shape[0] if "fc8.weight" in found.tensors else 0
        raise PixelsUnknown(path, outputs, classes is not None)
    found = _without_missing(found, pixels)
    check_finite(path, found.tensors)
    first, mean = to_our_pixels(found.tensors["conv1_1.weight"], pixels)
    origin = {"file": path.name, "format": found.kind, "sha256": digests.of("sha256"), "pixels": pixels.to_json()}
    if known:
        origin |= {"name": known.name, "licence": known.licence, "address": known.address}
        classes = ilsvrc_classes() if known.full else None
    metadata = sidecar.metadata if sidecar else None
    if metadata:
        classes, mean = metadata.classes, metadata.mean
    net = header.get("net") or (metadata.net if metadata else found.net)
    return Weights(net, {**found.tensors, "conv1_1.weight": first}, mean, classes, str(path), origin, metadata)


def _of_checkpoint(path: Path) -> Weights:
    loaded = load_checkpoint(path)
    metadata = loaded.metadata
    classes = None if metadata.is_localiser else metadata.classes
    return Weights(metadata.net, loaded.weights, metadata.mean, classes, str(path), metadata.origin, metadata)


def _kind(path: Path) -> str:
    """The format of a file by its first and last bytes; raises VerydeepError for an unknown one."""
    with path.open("rb") as file:
        start = file.read(2**12)
        size = file.seek(0, 2)
        file.seek(max(0, size - len(MAGIC)))
        end = file.read()
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < LONGEST_HEADER:
        return "safetensors"
    if start.startswith(b"\x89HDF\r\n\x1a\n"):
        return "Keras"
    if start.startswith(b"MATLAB 7.3"):
        raise VerydeepError(f"{path} is a MATLAB 7.3 file, which is not supported: save it again with -v7.")
    if start.startswith(b"MATLAB 5.0"):
        return "MatConvNet"
    if start.startswith(b"PK\x03\x04"):
        return _kind_of_archive(path)
    if start.startswith((LEGACY, b"\x80")):
        return "PyTorch"
    if start.lstrip().startswith(b"{"):
        return "TensorFlow.js"
    if end == MAGIC:
        return "TF-Slim"
    if looks_like_caffe(start):
        return "Caffe"
    raise VerydeepError(
        f"{path} is corrupted, or not of a supported format: .caffemodel, MatConvNet's .mat, Keras's .h5, "
        "TensorFlow.js's model.json, TF-Slim's checkpoints, PyTorch's .pth, safetensors."
    )


def _kind_of_archive(path: Path) -> str:
    """The format of a zip archive; raises VerydeepError for NumPy's."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except Exception:  # zipfile raises several kinds for untrusted bytes; PyTorch's reader says what is wrong
        return "PyTorch"
    if names and all(name.endswith(".npy") for name in names):
        raise VerydeepError(f"{path} is a NumPy .npz file, which is not supported: save its arrays as safetensors.")
    return "Keras" if INSIDE in names else "PyTorch"


def read_layers(path: Path) -> Recognised:
    """The layers of a foreign weight file as they are stored, for the pixels that the file expects.

    Raises:
        VerydeepError: broken, or not weights of a known net.
    """
    return _foreign(path, _kind(path))[0]


def _foreign(path: Path, kind: str) -> tuple[Recognised, Preprocessing | None, tuple[str, ...] | None]:
    """A file's layers, and the preprocessing and classes that it records itself."""
    if kind == "Caffe":
        parts, lrn = read_caffe(path)
        return recognise(path, parts, (CAFFE,), lrn), None, None
    if kind == "MatConvNet":
        parts, pixels, classes = read_matconvnet(path)
        return recognise(path, parts, (MATCONVNET,)), pixels, classes
    if kind == "Keras":
        return recognise(path, read_keras(path), (KERAS,)), None, None
    if kind == "TensorFlow.js":
        return recognise(path, read_tfjs(path), (TFJS,)), None, None
    if kind == "TF-Slim":
        return recognise(path, read_tensorflow(path), (SLIM,)), None, None
    return recognise(path, read_torch(path), TORCH), None, None


def _in_header(header: dict[str, str]) -> Preprocessing | None:
    """The preprocessing that a safetensors file's header records."""
    order = header.get("channel_order", "")
    recorded = header.get(f"mean_{order.lower()}", "").split(",")
    if order not in ("RGB", "BGR") or len(recorded) != 3 or header.get("input_range") != "0-255":
        return None
    try:
        return Preprocessing(order, triple(recorded))
    except ValueError:
        return None


def _pixels(
    named: str, known: Released | None, sidecar: Sidecar | None, recorded: Preprocessing | None
) -> Preprocessing | None:
    """As named, else as in the sidecar, known by the file's hash, or recorded in it; None where it is unknown."""
    if named != "recorded":
        return pixels_named(named)
    if sidecar:
        return sidecar.pixels
    return pixels_named(known.pixels) if known else recorded


def _without_missing(found: Recognised, pixels: Preprocessing) -> Recognised:
    """Without the FC layers of torchvision's IMAGENET1K_FEATURES, which the file fills with NaN."""
    if pixels != KNOWN["torchvision-features"] or not all(
        torch.isnan(found.tensors[f"{name}.weight"]).all() for name in FC if f"{name}.weight" in found.tensors
    ):
        return found
    tensors = {name: value for name, value in found.tensors.items() if not name.startswith(FC)}
    return Recognised(found.net, found.kind, tensors)
