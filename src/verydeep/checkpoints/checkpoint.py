"""Sect. 3.1: a net on disk; atomic save and load, and starting one net from another.

A checkpoint is one safetensors file, never a pickle: the layers under their names (``conv1_1.weight``
… ``fc8.bias``), momentum buffers under ``momentum/…`` where training can go on from it, and in its
header a JSON card: the net, its classes in order, its pre-processing, data, settings and state.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ..core.config import from_json
from ..core.errors import VerydeepError
from ..core.files import check_text, file_sha256, utf8_path
from ..core.settings import BoxSettings, DataSettings, TrainSettings
from ..data.class_names import distinct
from ..data.transforms import OtherSide, Resampling
from ..models.architectures import NET_NAMES, layers, net_facts
from ..models.vgg import Net, Pooling
from .integrity import check_header, check_seal, write_sealed

METADATA_KEY = "verydeep"
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
MOMENTUM = "momentum/"
# Sect. 3.1: "the first four convolutional layers and the last three fully-connected layers" of net A,
# which are these; by counting from the input only conv1_1 would fit the deeper nets.
PRE_INITIALISED = ("conv1_1", "conv2_1", "conv3_1", "conv3_2", "fc6", "fc7", "fc8")


@dataclass(frozen=True)
class Metadata:
    """What a net must remember to be used: all but its weights.

    ``mean`` is RGB (3,), ``colour_axes`` (3,3) as in `verydeep.data.transforms.colour_statistics`. ``data``,
    ``settings``, ``state`` and ``box_settings`` are the JSON of DataSettings, TrainSettings, the training's state,
    and BoxSettings, which is empty for a net that tells classes. ``origin`` tells of a weight file from outside what
    the net is, or began as: format, pixels, SHA-256, and of a public file its name and licence.
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
        """Of one crop, forward."""
        return net_facts(self.net, self.outputs, self.crop, self.width).multiply_adds

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of the net's tensors, by name."""
        specs = layers(self.net, self.outputs, self.crop, self.width)
        weights = {f"{spec.name}.weight": (spec.outputs, spec.inputs, spec.kernel, spec.kernel) for spec in specs}
        return weights | {f"{spec.name}.bias": (spec.outputs,) for spec in specs}

    def empty_net(self) -> Net:
        """A net of this card's shape, its weights not set."""
        return Net(self.net, self.outputs, self.crop, self.width, self.pooling)


@dataclass(frozen=True)
class Checkpoint:
    """A loaded file: card, tensors by layer name, momentum buffers (empty in ``best``), SHA-256."""

    path: Path
    metadata: Metadata
    weights: dict[str, Tensor]
    momentum: dict[str, Tensor]
    sha256: str

    def net(self) -> Net:
        """The net, in evaluation mode on the CPU."""
        expected = self.metadata.shapes  # compared first: a stranger's card may tell a net that no memory holds
        found = {name: tuple(value.shape) for name, value in self.weights.items()}
        if expected != found:
            wrong = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
            raise VerydeepError(f"{self.path} does not hold the net {self.metadata.net} it names: {wrong[0]} differs.")
        net = self.metadata.empty_net()
        net.load_state_dict(self.weights)
        return net.eval()


def save_checkpoint(
    path: Path, net: Net, metadata: Metadata, momentum: dict[str, Tensor] | None = None, previous: Path | None = None
) -> None:
    """Writes a checkpoint; the file that was there survives until the new one is whole.

    Args:
        previous: where the file that was there is kept, once the new one has been read back.

    Raises:
        VerydeepError: the disk is full or cannot be written; the old file is intact.
    """
    tensors = {name: value.detach().cpu().contiguous() for name, value in net.state_dict().items()}
    for name, value in (momentum or {}).items():
        tensors[MOMENTUM + name] = value.detach().cpu().contiguous()
    data = save(tensors, metadata={METADATA_KEY: json.dumps(asdict(metadata))})
    write_sealed(path, data, previous)


def read_metadata(path: Path) -> Metadata:
    """The card of a checkpoint file, without its weights; raises VerydeepError as `load_checkpoint` does."""
    if not path.is_file():
        raise VerydeepError(f"there is no file {path}.")
    check_header(path, METADATA_KEY)
    try:
        with utf8_path(path) as opened, safe_open(opened, framework="pt") as file:
            return metadata_of(json.loads((file.metadata() or {})[METADATA_KEY]))
    except (SafetensorError, OSError, TypeError, ValueError, KeyError, AttributeError, RuntimeError, OverflowError):
        raise VerydeepError(f"{path} is broken, or no checkpoint this version can read.") from None


def load_checkpoint(path: Path) -> Checkpoint:
    """A checkpoint file.

    Raises:
        VerydeepError: no such file, broken, or without a card.
    """
    header, tensors = read_safetensors(path)
    if METADATA_KEY not in header:
        raise VerydeepError(f"{path} holds weights but no verydeep card: train from it (`verydeep train … --start`).")
    check_weights(path, tensors)
    bad = [name for name, value in tensors.items() if not torch.isfinite(value).all()]
    if bad:
        raise VerydeepError(f"{path} has NaN or infinite values in {bad[0]}: the file is broken.")
    try:
        metadata = metadata_of(json.loads(header[METADATA_KEY]))
    except (TypeError, ValueError, KeyError, AttributeError, RecursionError, OverflowError):
        raise VerydeepError(f"{path} has a card this version cannot read: is it broken, or of another one?") from None
    momentum = {key.removeprefix(MOMENTUM): value for key, value in tensors.items() if key.startswith(MOMENTUM)}
    weights = {key: value for key, value in tensors.items() if not key.startswith(MOMENTUM)}
    return Checkpoint(path, metadata, weights, momentum, file_sha256(path))


def load_classifier(path: Path) -> Checkpoint:
    """A checkpoint of a net that tells classes; raises VerydeepError as `load_checkpoint`, or for a box net."""
    checkpoint = load_checkpoint(path)
    if checkpoint.metadata.box_settings:
        raise VerydeepError(f"{path} is a box net, which tells no classes: use `verydeep localise`.")
    return checkpoint


def load_box_net(path: Path) -> Checkpoint:
    """A checkpoint of a box net; raises VerydeepError as `load_checkpoint`, or for a net that tells classes."""
    checkpoint = load_checkpoint(path)
    if not checkpoint.metadata.box_settings:
        raise VerydeepError(f"{path} tells classes and no boxes: `verydeep localise train` makes a box net from it.")
    return checkpoint


def metadata_of(values: dict[str, Any]) -> Metadata:
    """A card from its JSON; raises one of Python's own errors where it does not fit."""
    red, green, blue = (float(value) for value in values["mean"])
    classes = tuple(values["classes"])
    texts = [values["net"], values.get("data_fingerprint", ""), *classes]
    kinds = [isinstance(values[name], int) for name in ("crop", "test_scale")] + [isinstance(one, str) for one in texts]
    if not all(kinds) or np.shape(values["colour_axes"]) not in ((3, 3), (0,)) or values["net"] not in NET_NAMES:
        raise TypeError
    check_text(*texts)
    metadata = Metadata(
        **{**values, "classes": distinct(classes), "mean": (red, green, blue), "width": float(values["width"])}
    )
    told_of = (metadata.data, metadata.settings, metadata.state, metadata.box_settings, metadata.origin)
    if not all(isinstance(found, dict) for found in told_of):
        raise TypeError
    told = (metadata.pooling in get_args(Pooling), metadata.resampling in get_args(Resampling))
    if not all((*told, metadata.other_side in get_args(OtherSide))) or (
        metadata.box_settings and not metadata.box_settings.get("regression")
    ):
        raise TypeError
    return metadata


def read_header(path: Path) -> tuple[dict[str, str], frozenset[str]]:
    """Metadata of a safetensors file and its tensors' names, without the tensors; raises as `read_safetensors`."""
    with _opened(path) as file:
        check_header(path, METADATA_KEY)
        return dict(file.metadata() or {}), frozenset(file.keys())


def read_safetensors(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Header header and tensors of a safetensors file.

    Raises:
        VerydeepError: no such file, truncated or otherwise broken.
    """
    with _opened(path) as file:
        check_seal(path, METADATA_KEY)
        return dict(file.metadata() or {}), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118


def check_weights(path: Path, tensors: dict[str, Tensor]) -> None:
    """Raises VerydeepError for a tensor that is no weight as it stands: whole numbers and float8 need their scale."""
    for name, value in tensors.items():
        if value.is_meta or value.layout != torch.strided:
            raise VerydeepError(
                f"{path} holds {name} {'without its values' if value.is_meta else 'as a sparse tensor'}."
            )
        if value.dtype not in FLOATS:
            raise no_weight(path, name, str(value.dtype).removeprefix("torch."))


def no_weight(path: Path, name: str, kind: str) -> VerydeepError:
    """The error of numbers of a kind that weights do not have."""
    return VerydeepError(
        f"{path} stores {name} as {kind}: weights are float16, bfloat16, float32 or float64, and of a quantised file "
        "the scales are not read; save it in floats."
    )


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    if not path.is_file():
        raise VerydeepError(f"there is no file {path}.")
    try:
        with utf8_path(path) as opened, safe_open(opened, framework="pt") as file:
            yield file
    except (SafetensorError, OSError, ValueError, RuntimeError) as fault:
        raise VerydeepError(f"{path} is broken or not a safetensors file ({str(fault)[:120]}).") from None


@dataclass(frozen=True)
class Copied:
    """What starting a net from another did: layers copied, and layers left random with the reason."""

    copied: tuple[str, ...]
    random: dict[str, str]

    def lines(self) -> list[str]:
        """For the user, one line for each of the two lists."""
        reasons: dict[str, list[str]] = {}
        for layer, reason in self.random.items():
            reasons.setdefault(reason, []).append(layer)
        left = [f"{', '.join(names)} ({reason})" for reason, names in reasons.items()]
        return [
            f"copied {len(self.copied)} layers: {', '.join(self.copied) or 'none'}",
            f"random {len(self.random)} layers: {'; '.join(left) or 'none'}",
        ]


def start_from(net: Net, weights: dict[str, Tensor], source: str, classes_equal: bool) -> Copied:
    """Copies into ``net`` what Sect. 3.1 copies: all layers of the same net, or net A's seven.

    Args:
        net: with random weights, which layers that are not copied keep.
        weights: tensors by layer name, RGB.
        source: the net they are of; a different one than ``net`` gives `PRE_INITIALISED` only.
        classes_equal: whether fc8's outputs mean the same classes in the same order.

    Raises:
        VerydeepError: nothing can be copied.
    """
    copied, random = [], {}
    for spec in net.specs:
        layer = net.layer(spec.name)
        weight, bias = weights.get(f"{spec.name}.weight"), weights.get(f"{spec.name}.bias")
        if source != net.name and spec.name not in PRE_INITIALISED:
            random[spec.name] = f"not taken from net {source}"
        elif weight is None or bias is None:
            random[spec.name] = "not in the file"
        elif weight.shape != layer.weight.shape:
            random[spec.name] = "its shape differs: other classes, crop or width"
        elif spec.name == "fc8" and not classes_equal:
            random[spec.name] = "its classes differ"
        else:
            with torch.no_grad():
                layer.weight.copy_(weight)
                assert layer.bias is not None
                layer.bias.copy_(bias)
            copied.append(spec.name)
    if not copied:
        raise VerydeepError(
            f"no layer of net {net.name} (width {net.width:g}) fits the start's net {source}: "
            "start from a run of the same width."
        )
    return Copied(tuple(copied), random)
