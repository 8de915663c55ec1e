"""Checkpoints: a net and its metadata on disk, saved atomically.

A checkpoint is one safetensors file, never a pickle: the layers under their names (``conv1_1.weight`` … ``fc8.bias``),
momentum buffers under ``momentum/…`` where training can resume from it, and in its header the metadata as JSON: the
net, its classes in order, preprocessing, data, settings and training state.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import save
from torch import Tensor

from ..core.config import from_json
from ..core.errors import VerydeepError
from ..core.files import check_text, file_sha256
from ..core.settings import BoxSettings, DataSettings, TrainSettings
from ..data.class_names import distinct
from ..data.transforms import OtherSide, Resampling
from ..models.architectures import NET_NAMES, layers, net_facts
from ..models.vgg import Net, Pooling
from .integrity import (
    METADATA,
    check_header,
    check_seal,
    open_safetensors,
    read_head,
    replace_entry,
    sha256_with_entry,
    write_sealed,
)

METADATA_KEY = "verydeep"
CALIBRATION = "calibration"
RISK_COVERAGE = "risk_coverage"  # of a calibration, beside its temperature
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
MOMENTUM = "momentum/"


@dataclass(frozen=True)
class Metadata:
    """Everything that is needed to use a net, except its weights.

    ``mean`` is RGB (3,), ``colour_axes`` (3,3) as in `verydeep.data.transforms.colour_statistics`. ``data``,
    ``settings``, ``state`` and ``box_settings`` are the JSON of DataSettings, TrainSettings, the training's state and
    BoxSettings; the last is empty for classifiers. ``origin`` is the weight file that the net is, or was trained from:
    format, preprocessing, SHA-256, and of a public file its name and licence. ``calibration`` holds, by protocol, the
    temperature that `verydeep calibrate` fitted, the number of images, their NLL before and after, and their
    risk-coverage curve, as `verydeep.evaluation.rejection` has it.
    """

    net: str
    crop: int
    width: float
    classes: tuple[str, ...]
    mean: tuple[float, float, float]
    test_scale: int
    pooling: Pooling = "up"
    resampling: Resampling = "bilinear"
    other_side: OtherSide = "round"
    colour_axes: list[list[float]] = field(default_factory=list)
    data: dict[str, Any] = field(default_factory=dict)
    data_fingerprint: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    state: dict[str, Any] = field(default_factory=dict)
    box_settings: dict[str, Any] = field(default_factory=dict)
    origin: dict[str, Any] = field(default_factory=dict)
    calibration: dict[str, Any] = field(default_factory=dict)

    @property
    def is_localiser(self) -> bool:
        """Whether the net predicts boxes (App. A) and not classes."""
        return bool(self.box_settings)

    @property
    def error(self) -> str:
        """The error that training logs, and that decides which epoch is the best."""
        return "gt_class_error" if self.is_localiser else "top1_error"

    @property
    def data_settings(self) -> DataSettings:
        """``data`` as the settings of a training; raises VerydeepError where there are none."""
        return from_json(DataSettings, self.data)

    @property
    def train_settings(self) -> TrainSettings:
        """``settings`` as the settings of a training."""
        return from_json(TrainSettings, self.settings)

    @property
    def localiser_settings(self) -> BoxSettings:
        """``box_settings`` of a localisation model."""
        return from_json(BoxSettings, self.box_settings)

    @property
    def outputs(self) -> int:
        """Channels of the last layer: one per class, or the box coordinates of a localisation model."""
        known = len(self.classes)
        return self.localiser_settings.outputs(known) if self.is_localiser else known

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of one crop, forward."""
        return net_facts(self.net, self.outputs, self.crop, self.width).multiply_adds

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of the net's tensors, by name."""
        specs = layers(self.net, self.outputs, self.crop, self.width)
        weights = {f"{spec.name}.weight": (spec.outputs, spec.inputs, spec.kernel, spec.kernel) for spec in specs}
        return weights | {f"{spec.name}.bias": (spec.outputs,) for spec in specs}

    def to_json(self) -> dict[str, Any]:
        """As files hold it. Without a calibration there is no such key, so earlier versions read the file too."""
        values = asdict(self)
        return values if self.calibration else {name: values[name] for name in values if name != CALIBRATION}

    def empty_net(self) -> Net:
        """A net of this architecture, its weights not set."""
        return Net(self.net, self.outputs, self.crop, self.width, self.pooling)


@dataclass(frozen=True)
class Checkpoint:
    """A loaded file: metadata, tensors by layer name, momentum buffers (empty in ``best``), its hash where wanted.

    ``sha256`` is `checkpoint_sha256`.
    """

    path: Path
    metadata: Metadata
    weights: dict[str, Tensor]
    momentum: dict[str, Tensor]
    sha256: str

    def net(self) -> Net:
        """The net, in evaluation mode on the CPU."""
        expected = self.metadata.shapes  # checked first: untrusted metadata may describe a net larger than memory
        actual = {name: tuple(value.shape) for name, value in self.weights.items()}
        if expected != actual:
            wrong = sorted(name for name in expected.keys() | actual.keys() if expected.get(name) != actual.get(name))
            raise VerydeepError(
                f"{self.path} does not contain the net {self.metadata.net} that its metadata names: {wrong[0]} differs."
            )
        net = self.metadata.empty_net()
        net.load_state_dict(self.weights)
        return net.eval()


def save_checkpoint(
    path: Path, net: Net, metadata: Metadata, momentum: dict[str, Tensor] | None = None, previous: Path | None = None
) -> None:
    """Writes a checkpoint atomically.

    Args:
        previous: where the replaced file is kept, once the new one has been read back.

    Raises:
        VerydeepError: the disk is full or not writable; the old file is intact.
    """
    tensors = {name: value.detach().cpu().contiguous() for name, value in net.state_dict().items()}
    for name, value in (momentum or {}).items():
        tensors[MOMENTUM + name] = value.detach().cpu().contiguous()
    data = save(tensors, metadata={METADATA_KEY: json.dumps(metadata.to_json())})
    write_sealed(path, data, previous)


def store_calibration(path: Path, calibration: dict[str, Any]) -> Metadata:
    """Replaces the calibration of a checkpoint; its weights and the rest of its metadata stay equal to the byte.

    Returns the new metadata; raises VerydeepError where the file is broken, or cannot be written.
    """
    values = {**_stored_values(path), CALIBRATION: calibration}
    replace_entry(path, METADATA_KEY, json.dumps(values))
    return metadata_of(values)


def checkpoint_sha256(path: Path) -> str:
    """The SHA-256 by which results name a weight file: of its bytes without the calibration.

    A calibration changes no score, so evaluations, descriptors, SVMs and boxes that were computed before it stay valid.
    It is the last key of the metadata's JSON: without it the bytes are those from before `verydeep calibrate`, and the
    digest is that which results of earlier versions hold. For files of others it is that of the file.
    """
    with contextlib.suppress(VerydeepError, KeyError, ValueError, TypeError, AttributeError, RecursionError):
        values = _stored_values(path)
        if values.pop(CALIBRATION, None) is not None:
            return sha256_with_entry(path, METADATA_KEY, json.dumps(values))
    return file_sha256(path)


def _stored_values(path: Path) -> dict[str, Any]:
    """The JSON of a checkpoint's metadata as it is stored; raises built-in errors for other files."""
    values: dict[str, Any] = json.loads((read_head(path) or {})[METADATA][METADATA_KEY])
    return values


def read_metadata(path: Path) -> Metadata:
    """Reads the metadata of a checkpoint without its weights; raises VerydeepError as `load_checkpoint` does."""
    if not path.is_file():
        raise VerydeepError(f"there is no file {path}.")
    check_header(path, METADATA_KEY)
    try:
        with open_safetensors(path) as file:
            return metadata_of(json.loads((file.metadata() or {})[METADATA_KEY]))
    except (SafetensorError, OSError, TypeError, ValueError, KeyError, AttributeError, RuntimeError, OverflowError):
        raise VerydeepError(f"{path} is corrupted, or not a checkpoint that this version can read.") from None


def load_checkpoint(path: Path, hashed: bool = True) -> Checkpoint:
    """Loads a checkpoint file.

    Args:
        hashed: computes `checkpoint_sha256` as well, which results record; it reads the file once more.

    Raises:
        VerydeepError: the file is missing, broken, or has no metadata.
    """
    header, tensors = read_safetensors(path)
    if METADATA_KEY not in header:
        raise VerydeepError(f"{path} has weights but no verydeep metadata: train from it (`verydeep train … --start`).")
    check_weights(path, tensors)
    check_finite(path, tensors)
    try:
        metadata = metadata_of(json.loads(header[METADATA_KEY]))
    except (TypeError, ValueError, KeyError, AttributeError, RecursionError, OverflowError):
        raise VerydeepError(
            f"{path} has metadata that this version cannot read: it is corrupted, or of a newer version."
        ) from None
    momentum = {key.removeprefix(MOMENTUM): value for key, value in tensors.items() if key.startswith(MOMENTUM)}
    weights = {key: value for key, value in tensors.items() if not key.startswith(MOMENTUM)}
    return Checkpoint(path, metadata, weights, momentum, checkpoint_sha256(path) if hashed else "")


def load_classifier(path: Path, hashed: bool = True) -> Checkpoint:
    """Loads a classification model; raises VerydeepError as `load_checkpoint`, or for a localisation model."""
    checkpoint = load_checkpoint(path, hashed)
    if checkpoint.metadata.box_settings:
        raise VerydeepError(f"{path} is a localisation model, not a classifier: use `verydeep localise`.")
    return checkpoint


def load_localisation_model(path: Path) -> Checkpoint:
    """Loads a localisation model; raises VerydeepError as `load_checkpoint`, or for a classifier."""
    checkpoint = load_checkpoint(path)
    if not checkpoint.metadata.box_settings:
        raise VerydeepError(
            f"{path} is a classifier, not a localisation model: `verydeep localise train` trains one from it."
        )
    return checkpoint


def metadata_of(values: dict[str, Any]) -> Metadata:
    """Metadata from its JSON; raises KeyError, TypeError, ValueError or AttributeError where it is invalid."""
    red, green, blue = (float(value) for value in values["mean"])
    classes = tuple(values["classes"])
    texts = [values["net"], values.get("data_fingerprint", ""), *classes]
    kinds = [isinstance(values[name], int) for name in ("crop", "test_scale")] + [
        isinstance(text, str) for text in texts
    ]
    if not all(kinds) or np.shape(values["colour_axes"]) not in ((3, 3), (0,)) or values["net"] not in NET_NAMES:
        raise TypeError
    check_text(*texts)
    metadata = Metadata(
        **{**values, "classes": distinct(classes), "mean": (red, green, blue), "width": float(values["width"])}
    )
    objects = [metadata.data, metadata.settings, metadata.state, metadata.box_settings, metadata.origin]
    objects += [metadata.calibration, *metadata.calibration.values()]
    known = (
        metadata.pooling in get_args(Pooling),
        metadata.resampling in get_args(Resampling),
        metadata.other_side in get_args(OtherSide),
    )
    if not all(isinstance(value, dict) for value in objects) or not all(known):
        raise TypeError
    for fitted in metadata.calibration.values():
        check_probabilities(fitted["temperature"], fitted.get(RISK_COVERAGE))
    if metadata.is_localiser and not metadata.box_settings.get("regression"):
        raise TypeError
    return metadata


def check_probabilities(temperature: float | None, curve: list[list[float]] | None) -> None:
    """Raises TypeError or ValueError unless a stored temperature and risk-coverage curve are of their forms."""
    if temperature is not None and not 1e-6 < temperature < 1e6:
        raise ValueError
    if curve is not None and not curve:
        raise ValueError
    for threshold, answered, wrong in curve or ():
        if not (-1 <= threshold <= 1 and 0 <= wrong <= answered and answered > 0):
            raise ValueError


def read_header(path: Path) -> tuple[dict[str, str], frozenset[str]]:
    """The header of a safetensors file and its tensors' names, without the tensors; raises as `read_safetensors`."""
    with _opened(path) as file:
        check_header(path, METADATA_KEY)
        return dict(file.metadata() or {}), frozenset(file.keys())


def read_safetensors(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """The header and the tensors of a safetensors file; raises VerydeepError if it is missing or broken."""
    with _opened(path) as file:
        check_seal(path, METADATA_KEY)
        return dict(file.metadata() or {}), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118


def check_weights(path: Path, tensors: dict[str, Tensor]) -> None:
    """Raises VerydeepError for tensors that are not usable weights, such as integers and float8 without a scale."""
    for name, value in tensors.items():
        if value.is_meta or value.layout != torch.strided:
            raise VerydeepError(
                f"{path} stores {name} {'without its values' if value.is_meta else 'as a sparse tensor'}."
            )
        if value.dtype not in FLOATS:
            raise unsupported_dtype(path, name, str(value.dtype).removeprefix("torch."))


def check_finite(path: Path, tensors: dict[str, Tensor]) -> None:
    """Raises VerydeepError for tensors with NaN or infinite values."""
    # A sum is four times as fast as a look at each value, which only a sum that overflows needs.
    bad = [name for name, value in tensors.items() if not (value.sum().isfinite() or value.isfinite().all())]
    if bad:
        raise VerydeepError(f"{path} has NaN or infinite values in {bad[0]}: the file is corrupted.")


def unsupported_dtype(path: Path, name: str, dtype: str) -> VerydeepError:
    """The error for weights of another dtype than `FLOATS`."""
    return VerydeepError(
        f"{path} stores {name} as {dtype}: weights must be float16, bfloat16, float32 or float64; quantised files are "
        "not supported, save the weights as floats."
    )


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    if not path.is_file():
        raise VerydeepError(f"there is no file {path}.")
    try:
        with open_safetensors(path) as file:
            yield file
    except (SafetensorError, OSError, ValueError, RuntimeError) as fault:
        raise VerydeepError(f"{path} is corrupted, or not a safetensors file ({str(fault)[:120]}).") from None
