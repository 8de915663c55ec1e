"""An exported ``.onnx`` file, run by OpenVINO or ONNX Runtime behind the interface of the net that it was made from.

The file contains the net's metadata, so it is enough alone: classes, preprocessing, and the input that it takes.
"""

from __future__ import annotations

import json
import mmap
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from ..core.errors import VerydeepError
from ..core.files import file_sha256
from ..models.architectures import layers
from .checkpoint import METADATA_KEY, Metadata, metadata_of
from .formats.protobuf import data, fields, text
from .onnx_runtimes import Run, open_onnx

ENDINGS = (".onnx", ".pt2")
TAKES_KEY = "takes"
UINT8, PHOTO, FLOAT = "uint8", "photo", "float"
INPUTS = {UINT8: "photos", PHOTO: "photo", FLOAT: "pixels"}  # names in the graph
OUTPUTS = {UINT8: "posterior", PHOTO: "posterior", FLOAT: "scores"}
METADATA_PROPS = 14  # of ONNX's ModelProto: key 1, value 2
NO_PT2 = "version 0.2.0 dropped .pt2 files; export the run to ONNX instead: `verydeep export RUN --to onnx`."


def is_exported(path: Path) -> bool:
    """Whether a file is named like an exported one; ``.pt2`` too, so that opening one says why it is refused."""
    return path.suffix.lower() in ENDINGS


@dataclass(frozen=True)
class ExportedFile:
    """An exported file: its metadata, what it takes (``uint8`` images or ``float`` pixels), its SHA-256."""

    path: Path
    metadata: Metadata
    takes: str
    sha256: str

    def net(self) -> ExportedNet:
        """The file as an inference model."""
        return ExportedNet(self)


def open_exported(path: Path) -> ExportedFile:
    """Opens an ONNX file that `verydeep export` wrote.

    Raises:
        VerydeepError: no such file, a ``.pt2`` file, a broken one, one of another program or for whole photos.
    """
    if not path.is_file():
        raise VerydeepError(f"there is no file {path}.")
    if path.suffix.lower() == ".pt2":
        raise VerydeepError(f"cannot open {path}: {NO_PT2}")
    entries = _metadata_entries(path)
    try:
        opened = ExportedFile(
            path, metadata_of(json.loads(entries[METADATA_KEY])), entries[TAKES_KEY], file_sha256(path)
        )
        if opened.takes not in INPUTS:
            raise ValueError
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError, OverflowError):
        raise VerydeepError(
            f"{path} is corrupted, or was not written by `verydeep export`: it has no metadata."
        ) from None
    if opened.takes == PHOTO:
        raise VerydeepError(
            f"{path} takes whole photos for other programs, and classifies their centre only: use the run that it was "
            "exported from, or a file with uint8 input."
        )
    return opened


def _metadata_entries(path: Path) -> dict[str, str]:
    """The metadata entries of an ONNX file, read without its weights."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            view = memoryview(mapped)
            entries = [bytes(data(value)) for number, value in fields(view) if number == METADATA_PROPS]
            view.release()
        pairs = [dict(fields(memoryview(entry))) for entry in entries]
        return {text(pair[1]): text(pair[2]) for pair in pairs}
    except (ValueError, IndexError, KeyError, BufferError):
        raise VerydeepError(f"{path} is corrupted or truncated: not a complete ONNX file.") from None


class ExportedNet(nn.Module):
    """Stands for a `Net` in evaluation: ``crop``, ``classes``, ``specs``, ``pooling``, `mean_scores`.

    A runtime opens the file at the first batch, with the number of threads that PyTorch then has (`open_onnx`).
    """

    def __init__(self, file: ExportedFile) -> None:
        super().__init__()
        metadata = file.metadata
        self.name, self.crop, self.pooling = metadata.net, metadata.crop, metadata.pooling
        self.classes = metadata.outputs
        self.specs = layers(metadata.net, metadata.outputs, metadata.crop, metadata.width)
        self._path, self.takes = file.path, file.takes

    @cached_property
    def _run(self) -> Run:
        return open_onnx(self._path)

    def mean_scores(self, images: Tensor) -> Tensor:
        """Mean scores (B,K) of images (B,3,H,W) as it takes them, up to a constant a row, which softmax drops.

        Raises:
            VerydeepError: the file cannot be run, or its output has another shape than its metadata says.
        """
        if self.takes == UINT8:
            posteriors = torch.from_numpy(self._run(images.permute(0, 2, 3, 1).contiguous().numpy()))
            scores = posteriors.clamp_min(torch.finfo(torch.float32).tiny).log()
        else:
            scores = torch.from_numpy(self._run(images.cpu().contiguous().numpy()))
        if scores.shape != (len(images), self.classes):
            shape = tuple(scores.shape)
            raise VerydeepError(
                f"{self._path} is corrupted: its output is {shape}, but its metadata says {self.classes} classes."
            )
        return scores.to(images.device)

    def forward(self, images: Tensor) -> Tensor:
        """Raises VerydeepError: an exported file has no score maps."""
        raise VerydeepError(
            f"{self._path} returns only the mean of the scores: to evaluate with softmax-first, use the run "
            "that it was exported from."
        )
