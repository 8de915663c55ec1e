"""An exported file asked like the net it was made from: ``.onnx`` through ONNX Runtime, ``.pt2`` through PyTorch.

The file carries the net's card, so that it is enough alone: classes, pixels, and what it takes.
"""

from __future__ import annotations

import json
import mmap
import zipfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..core.errors import VerydeepError
from ..core.files import file_sha256, utf8_path
from ..models.architectures import layers
from .checkpoint import METADATA_KEY, Metadata, metadata_of
from .formats.protobuf import data, fields, text

ENDINGS = (".onnx", ".pt2")
TAKES_KEY = "takes"
UINT8, FLOAT = "uint8", "float"
METADATA_PROPS = 14  # of ONNX's ModelProto: key 1, value 2


def is_exported(path: Path) -> bool:
    """Whether a file is called like an exported one."""
    return path.suffix.lower() in ENDINGS


@dataclass(frozen=True)
class ExportedFile:
    """An exported file: its card, what it takes (``uint8`` photos or ``float`` pixels), its SHA-256."""

    path: Path
    metadata: Metadata
    takes: str
    sha256: str

    def net(self) -> ExportedNet:
        """What stands for the net."""
        return ExportedNet(self)


def open_exported(path: Path) -> ExportedFile:
    """An exported file that `verydeep export` wrote.

    Raises:
        VerydeepError: no such file, broken, or not of ours.
    """
    if not path.is_file():
        raise VerydeepError(f"there is no file {path}.")
    told = _told_by_onnx(path) if path.suffix.lower() == ".onnx" else _told_by_pt2(path)
    try:
        found = ExportedFile(path, metadata_of(json.loads(told[METADATA_KEY])), told[TAKES_KEY], file_sha256(path))
        if found.takes not in (UINT8, FLOAT):
            raise ValueError
        return found
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError, OverflowError):
        raise VerydeepError(f"{path} is broken, or not a file that `verydeep export` wrote: it has no card.") from None


def _told_by_onnx(path: Path) -> dict[str, str]:
    """The metadata of an ONNX file, without its weights."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as whole:
            view = memoryview(whole)
            entries = [bytes(data(value)) for number, value in fields(view) if number == METADATA_PROPS]
            view.release()
        pairs = [dict(fields(memoryview(entry))) for entry in entries]
        return {text(pair[1]): text(pair[2]) for pair in pairs}
    except (ValueError, IndexError, KeyError, BufferError):
        raise VerydeepError(f"{path} is broken or truncated: no whole ONNX file.") from None


def _program(path: Path, told: dict[str, Any] | None = None) -> torch.export.ExportedProgram:
    try:
        with zipfile.ZipFile(path) as archive:  # PyTorch would log a traceback
            if archive.testzip() is not None:
                raise zipfile.BadZipFile("a checksum is wrong")
        with utf8_path(path) as opened:
            return torch.export.load(opened, extra_files=told)
    except Exception as fault:  # whatever PyTorch trips over in a stranger's bytes
        raise VerydeepError(f"{path} is broken, or no exported program ({str(fault)[:80]}).") from None


def _told_by_pt2(path: Path) -> dict[str, str]:
    told: dict[str, Any] = {METADATA_KEY: "", TAKES_KEY: ""}
    _program(path, told)
    return {key: value.decode("utf8") if isinstance(value, bytes) else value for key, value in told.items()}


class ExportedNet(nn.Module):
    """Stands for a `Net` where photos are tested: ``crop``, ``classes``, ``specs``, ``pooling``, `mean_scores`.

    The program is loaded when it is first asked, with the threads that PyTorch then has.
    """

    def __init__(self, file: ExportedFile) -> None:
        super().__init__()
        metadata = file.metadata
        self.name, self.crop, self.classes, self.pooling = (
            metadata.net,
            metadata.crop,
            metadata.outputs,
            metadata.pooling,
        )
        self.specs = layers(metadata.net, metadata.outputs, metadata.crop, metadata.width)
        self._file, self.takes = file, file.takes
        self._run: Any = None

    def mean_scores(self, images: Tensor) -> Tensor:
        """Mean scores (B,K) of images (B,3,H,W) as it takes them, up to a number a row, which soft-max drops.

        Raises:
            VerydeepError: the file cannot be run, or answers other things than its card tells.
        """
        self._run, path = self._run or self._loaded(), self._file.path
        if self.takes == UINT8:
            found = self._run(images.permute(0, 2, 3, 1).contiguous())
            found = found.clamp_min(torch.finfo(torch.float32).tiny).log()
        else:
            found = self._run(images.cpu().contiguous())
        if found.shape != (len(images), self.classes):
            shape = tuple(found.shape)
            raise VerydeepError(f"{path} is broken: it answers {shape} where its card tells {self.classes} classes.")
        answered: Tensor = found.to(images.device)
        return answered

    def forward(self, images: Tensor) -> Tensor:
        """Raises VerydeepError: an exported file has no score maps."""
        raise VerydeepError(f"{self._file.path} answers with mean scores only: test soft-max first on the run itself.")

    def _loaded(self) -> Any:
        if self._file.path.suffix.lower() == ".pt2":
            return _program(self._file.path).module()
        return partial(_asked, onnx_session(self._file.path), self._file.path)


def _asked(session: Any, path: Path, shown: Tensor) -> Tensor:
    """The first output of an ONNX Runtime session that takes one input."""
    try:
        name = session.get_inputs()[0].name
        return torch.from_numpy(np.asarray(session.run(None, {name: shown.numpy()})[0], dtype=np.float32))
    except Exception as fault:  # ONNX Runtime's own, of many names
        raise VerydeepError(f"{path} is broken: ONNX Runtime cannot run it ({str(fault)[:120]}).") from None


def onnx_session(path: Path) -> Any:
    """ONNX Runtime on the CPU, with as many threads as PyTorch has now.

    Raises:
        VerydeepError: it is not installed, or refuses the file.
    """
    try:
        import onnxruntime
    except ImportError:
        raise VerydeepError(f"running {path} needs onnxruntime: pip install 'verydeep[onnx]'.") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    try:
        with utf8_path(path) as opened:
            return onnxruntime.InferenceSession(str(opened), options, providers=["CPUExecutionProvider"])
    except Exception as fault:  # ONNX Runtime's own, of many names
        raise VerydeepError(f"{path} is broken, or refused by ONNX Runtime ({str(fault)[:120]}).") from None
