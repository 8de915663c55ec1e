"""App. B: "we remove the last fully-connected layer": a net cut after the layer whose output is the descriptor.

The net is that of a run, a checkpoint or a weight file. One without FC layers, such as a file of the convolutions
alone, can compute descriptors of pool5 or an earlier layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ..checkpoints.checkpoint import Metadata, checkpoint_sha256, load_checkpoint
from ..checkpoints.pretrained import has_metadata, locate_weights, read_weights
from ..core.errors import VerydeepError
from ..evaluation.inference import ResizeToScales
from ..evaluation.protocols import Protocol
from ..models.architectures import net_facts
from ..models.vgg import BEFORE_RELU, Net

USUAL_SCALE = 256  # Q for weight files, which do not record one; App. B's smallest
FULL = "fc7"


@dataclass(frozen=True)
class FeatureNet:
    """A net cut after a layer, in evaluation mode, with its metadata; ``source`` records file, hash and net."""

    net: Net
    layer: str
    metadata: Metadata
    source: dict[str, Any]

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of one crop, forward, all layers."""
        return net_facts(self.net.name, 1, self.net.crop, self.net.width).multiply_adds

    @property
    def dimensions(self) -> int:
        """D of a descriptor of one scale."""
        return self.net.specs[-1].outputs

    def resize(self, scales: tuple[int, ...]) -> ResizeToScales:
        """The transform of an image to the net's input at each scale."""
        return ResizeToScales.for_net(self.metadata, Protocol("dense", scales, mirror=False))

    def check_scales(self, scales: tuple[int, ...]) -> None:
        """Raises VerydeepError where a scale is too small for an FC layer."""
        if self.layer.startswith("fc") and min(scales) < self.net.crop:
            raise VerydeepError(
                f"Q = {min(scales)} is below the net's crop of {self.net.crop} pixels, which {self.layer} needs: "
                f"use --scales from {self.net.crop} up, or --layer pool5."
            )


def open_feature_net(source: str | Path, layer: str = FULL, preprocessing: str = "recorded") -> FeatureNet:
    """The net of a run, a checkpoint or a weight file, cut after a layer.

    Args:
        layer: a name of `verydeep.models.vgg.Net.map_names`.
        preprocessing: a key of `verydeep.checkpoints.preprocessing.KNOWN` for files that do not record theirs.

    Raises:
        VerydeepError: no such file or layer, missing weights, unknown preprocessing.
    """
    path = locate_weights(str(source))
    if has_metadata(path):
        checkpoint = load_checkpoint(path)
        metadata, tensors, net = checkpoint.metadata, checkpoint.weights, checkpoint.metadata.empty_net()
    else:
        weights = read_weights(str(path), preprocessing)
        tensors = weights.tensors
        metadata = Metadata(weights.net, weights.crop, weights.width, (), weights.mean, USUAL_SCALE)
        fc8 = tensors.get("fc8.weight")
        net = Net(metadata.net, 1 if fc8 is None else fc8.shape[0], metadata.crop, metadata.width)
    _cut(net, layer, tensors, path)
    file = {
        "file": str(path.absolute()),
        "sha256": checkpoint_sha256(path),
        "net": metadata.net,
        "width": metadata.width,
    }
    file |= {"crop": metadata.crop, "pooling": metadata.pooling, "preprocessing": preprocessing}
    return FeatureNet(net, layer, metadata, file)


def usual_layer(source: str | Path, preprocessing: str = "recorded") -> str:
    """fc7, or pool5 for a net without FC layers; raises VerydeepError as `open_feature_net`."""
    return FULL if f"{FULL}.weight" in read_weights(str(source), preprocessing).tensors else "pool5"


def check_layer(net: Net, layer: str) -> None:
    """Raises VerydeepError where a net has no map of that name."""
    names = net.map_names()
    if layer not in names:
        shown = ", ".join(name for name in names if not name.endswith(BEFORE_RELU))
        raise VerydeepError(f"net {net.name} has no layer {layer!r}: its layers are {shown}, with {BEFORE_RELU} too.")


def _cut(net: Net, layer: str, tensors: dict[str, Tensor], path: Path) -> None:
    """Cuts a net after a layer and loads the file's weights; raises VerydeepError where they do not fit."""
    check_layer(net, layer)
    net.cut_after(layer)
    wanted = {name: tuple(value.shape) for name, value in net.state_dict().items()}
    missing = [spec.name for spec in net.specs if f"{spec.name}.weight" not in tensors]
    if missing:
        stage = next(spec.stage for spec in net.specs if spec.name == missing[0])
        raise VerydeepError(
            f"{path} has no {missing[0]}, which {layer} needs: use --layer pool{stage - 1} or an earlier one."
        )
    wrong = [name for name, shape in wanted.items() if name not in tensors or tuple(tensors[name].shape) != shape]
    if wrong:
        raise VerydeepError(f"{path} does not contain the net {net.name} that its metadata names: {wrong[0]} differs.")
    net.load_state_dict({name: tensors[name] for name in wanted})
    net.eval()
