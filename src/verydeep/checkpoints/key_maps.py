"""Sect. 1, "we have released our two best-performing models": the names of Table 1's layers in public files.

A `Layout` gives each layer's name in files of one kind. A file's net and layout are recognised by its layers' names and
shapes; errors name layers that are missing, unexpected or of another shape. Batch normalisation, which the paper
does not have and several public files do, is folded into the convolution before it: the same net at test time.

Shapes: convolutions (out,in,k,k); FC layers the same, or (out,in) with ``in`` counted channel by channel.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..core.config import LARGEST_SIDE, STRIDE
from ..core.errors import VerydeepError
from ..models.architectures import NET_NAMES, Layer, layers

FC = ("fc6", "fc7", "fc8")
EPSILON = 1e-5  # of batch normalisation in PyTorch, in which all such files were trained
Parts = dict[str, dict[str, Tensor]]  # of a file: layer name, then weight, bias, running_mean, running_var


@dataclass(frozen=True)
class Layout:
    """The layer names of files of one kind.

    ``numbered`` files number convolutions, the ``after`` modules behind each (ReLU, batch normalisation) and poolings;
    others name a stage and a number in it. ``normalised`` files have a batch normalisation after each convolution.
    """

    kind: str
    fc: tuple[str, str, str] = FC
    pattern: str = "conv{stage}_{number}"
    numbered: bool = False
    after: int = 0
    normalised: bool = False

    def names(self, net: str) -> dict[str, str]:
        """Our name of each layer of a net, and the file's."""
        names, number = {}, 0
        for stage, specs in itertools.groupby(_convolutions(net), key=lambda spec: spec.stage):
            for place, spec in enumerate(specs, start=1):
                names[spec.name] = self.pattern.format(stage=stage, number=number if self.numbered else place)
                number += 1 + self.after
            number += 1  # the pooling
        return names | dict(zip(FC, self.fc, strict=True))

    def norm(self, conv: str) -> str:
        """The name of the batch normalisation after a convolution."""
        if conv.endswith(".conv"):
            return conv.removesuffix("conv") + "bn"
        head, _, number = conv.rpartition(".")
        return f"{head}.{int(number) + 1}"

    def expected(self, net: str) -> set[str]:
        """The names of all layers in a file of a net."""
        names = self.names(net)
        convs = [name for ours, name in names.items() if ours not in FC]
        return {*names.values(), *(self.norm(conv) for conv in convs if self.normalised)}


OURS = Layout("ours")
CAFFE, MATCONVNET = Layout("Caffe"), Layout("MatConvNet")
KERAS = Layout("Keras", ("fc1", "fc2", "predictions"), "block{stage}_conv{number}")
TFJS = Layout("TensorFlow.js", KERAS.fc, KERAS.pattern)
SLIM = Layout("TF-Slim", FC, "conv{stage}/conv{stage}_{number}")
TORCHVISION = Layout("torchvision", ("classifier.0", "classifier.3", "classifier.6"), "features.{number}", True, 1)
OLDER = ("classifier.1", "classifier.4", "classifier.6")
TIMM = ("pre_logits.fc1", "pre_logits.fc2", "head.fc")
TORCH = (
    OURS,
    *(Layout("torchvision", fc, "features.{number}", True, 1) for fc in (TORCHVISION.fc, OLDER)),
    *(Layout("torchvision, normalised", fc, "features.{number}", True, 2, True) for fc in (TORCHVISION.fc, OLDER)),
    Layout("timm", TIMM, "features.{number}", True, 1),
    Layout("timm, normalised", TIMM, "features.{number}", True, 2, True),
    Layout("mmpretrain", TORCHVISION.fc, "features.{number}.conv", True, 0),
    Layout("mmpretrain, normalised", TORCHVISION.fc, "features.{number}.conv", True, 0, True),
)


def _convolutions(net: str) -> list[Layer]:
    return [spec for spec in layers(net) if spec.stage <= 5]


@dataclass(frozen=True)
class Recognised:
    """Layers under our names: weights (out,in,k,k) and biases (out,), with the net and the kind of file."""

    net: str
    kind: str
    tensors: dict[str, Tensor]


def recognise(path: Path, parts: Parts, layouts: tuple[Layout, ...], lrn: bool = False) -> Recognised:
    """A file's layers under our names.

    Args:
        path: for error messages.
        parts: the content of the file.
        layouts: those that the file may have.
        lrn: whether the file's net has local response normalisation (A-LRN), which its weights do not show.

    Raises:
        VerydeepError: not a net of Table 1; a layer is missing, unexpected or of a wrong shape.
    """
    names = set(parts)
    nets = [net for net in NET_NAMES if net != ("A" if lrn else "A-LRN")]
    layout, net = max(itertools.product(layouts, nets), key=lambda pair: _likeness(parts, *pair))
    theirs = layout.names(net)
    if not names & layout.expected(net):
        held = ", ".join(sorted(names)[:3]) or "nothing"
        raise VerydeepError(f"{path} has no layers of these nets: it has {held}.")
    _check_names(path, names, layout, net)
    tensors: dict[str, Tensor] = {}
    for ours, name in theirs.items():
        if name in parts:
            weight, bias = _folded(path, parts, layout, ours, name)
            tensors |= {f"{ours}.weight": weight, f"{ours}.bias": bias}
    _shape_fc(tensors)
    _check_shapes(path, tensors, net, theirs)
    return Recognised(net, layout.kind, tensors)


def _likeness(parts: Parts, layout: Layout, net: str) -> tuple[float, int]:
    """The share of common names, then the number of matching kernels, as C's and D's names are the same."""
    names, expected = set(parts), layout.expected(net)
    theirs = layout.names(net)
    weights = [(spec.kernel, parts.get(theirs[spec.name], {}).get("weight")) for spec in _convolutions(net)]
    kernels = sum(weight is not None and weight.shape[-1:] == (kernel,) for kernel, weight in weights)
    return len(names & expected) / len(names | expected), kernels


def _check_names(path: Path, names: set[str], layout: Layout, net: str) -> None:
    theirs, expected = layout.names(net), layout.expected(net)
    there = [ours for ours in FC if theirs[ours] in names]
    wanted = {theirs[ours] for ours in FC[: len(there)]}
    wanted |= expected - {theirs[ours] for ours in FC}
    missing, extra = sorted(wanted - names), sorted(names - expected)
    if missing:
        known_as = next((f" ({ours})" for ours, name in theirs.items() if name == missing[0] != ours), "")
        raise VerydeepError(f"{path} has layers of net {net}, but {missing[0]}{known_as} is missing.")
    if extra:
        raise VerydeepError(f"{path} has the layer {extra[0]}, which net {net} of Table 1 does not: is it another net?")


def _folded(path: Path, parts: Parts, layout: Layout, ours: str, name: str) -> tuple[Tensor, Tensor]:
    """A layer's weight and bias, float32, with its batch normalisation folded in."""
    part = _whole(path, parts, name, ("weight", "bias"))
    weight, bias = part["weight"], part["bias"]
    if not layout.normalised or ours in FC:
        return weight, bias
    norm = _whole(path, parts, layout.norm(name), ("weight", "bias", "running_mean", "running_var"))
    fits = weight.dim() == 4 and weight.shape[:1] == bias.shape
    if not fits or {tuple(value.shape) for value in norm.values()} != {tuple(bias.shape)}:
        raise VerydeepError(f"{path} has a normalisation {layout.norm(name)} that does not fit {name}.")
    factor = norm["weight"].double() / torch.sqrt(norm["running_var"].double() + EPSILON)
    weight = (weight.double() * factor[:, None, None, None]).float()
    return weight, ((bias.double() - norm["running_mean"]) * factor + norm["bias"]).float()


def _whole(path: Path, parts: Parts, name: str, wanted: tuple[str, ...]) -> dict[str, Tensor]:
    part = parts[name]
    lacking = [key for key in wanted if key not in part]
    if lacking:
        raise VerydeepError(f"{path} is missing the {lacking[0]} of the layer {name}.")
    left = sorted(set(part) - set(wanted))
    if left:
        raise VerydeepError(f"{path} has {name}.{left[0]}, which no layer of these nets has.")
    if any(value.dim() == 0 for value in part.values()):
        raise VerydeepError(f"{path} has a scalar in place of the layer {name}.")
    return part


def _shape_fc(tensors: dict[str, Tensor]) -> None:
    """Reshapes FC matrices to convolutions, in place; fc6's inputs are counted channel by channel."""
    last = [value for name, value in tensors.items() if name.startswith("conv") and name.endswith(".weight")][-1]
    for name in FC:
        weight = tensors.get(f"{name}.weight")
        if weight is None or weight.dim() != 2:
            continue
        channels = last.shape[0] if name == "fc6" else weight.shape[1]
        side = math.isqrt(weight.shape[1] // max(1, channels))
        if channels * side**2 == weight.shape[1]:
            tensors[f"{name}.weight"] = weight.reshape(weight.shape[0], channels, side, side)


def _check_shapes(path: Path, tensors: dict[str, Tensor], net: str, theirs: dict[str, str]) -> None:
    """Raises VerydeepError where a shape is not that of Table 1, at the file's own width and crop."""
    first = tensors["conv1_1.weight"].shape
    if len(first) != 4 or first[1] != 3 or not 1 <= first[0] <= 64 * 16:
        raise VerydeepError(f"{path} has {theirs['conv1_1']} of the shape {tuple(first)}: it does not take RGB images.")
    crop = STRIDE * tensors["fc6.weight"].shape[-1] if "fc6.weight" in tensors else 224
    if not STRIDE <= crop <= LARGEST_SIDE:
        raise VerydeepError(f"{path} has {theirs['fc6']} of the shape {tuple(tensors['fc6.weight'].shape)}.")
    classes = tensors["fc8.weight"].shape[0] if "fc8.weight" in tensors else 1
    for spec in layers(net, max(1, classes), crop, first[0] / 64):
        for part, shape in (
            ("weight", (spec.outputs, spec.inputs, spec.kernel, spec.kernel)),
            ("bias", (spec.outputs,)),
        ):
            tensor = tensors.get(f"{spec.name}.{part}")
            if tensor is not None and tuple(tensor.shape) != shape:
                raise VerydeepError(
                    f"{path} has {theirs[spec.name]}'s {part} of the shape {tuple(tensor.shape)}, "
                    f"where net {net} has {shape}."
                )
