"""Sect. 3.1: initial weights: random, copied from another net, or downloaded released weights."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..checkpoints.checkpoint import Metadata
from ..checkpoints.download import first_of, on_this_machine
from ..checkpoints.pretrained import Weights
from ..core.errors import VerydeepError
from ..core.progress import Reporter
from ..core.settings import TrainSettings
from ..data.class_names import same_classes
from ..models.vgg import Net, create_net
from .optim import learning_layers
from .recipes import RELEASED

# Sect. 3.1: "the first four convolutional layers and the last three fully-connected layers" of net A are these;
# counted from the input, only conv1_1 would fit the deeper nets.
PRE_INITIALISED = ("conv1_1", "conv2_1", "conv3_1", "conv3_2", "fc6", "fc7", "fc8")


def chosen_start(settings: TrainSettings) -> TrainSettings:
    """The settings with ``--start released`` replaced by the name of downloaded weights of the net.

    Raises:
        VerydeepError: no weights of that net are on this machine.
    """
    if settings.start != RELEASED:
        return settings
    downloaded, first = on_this_machine(settings.net), first_of(settings.net)
    if downloaded is None:
        fetch = f"`verydeep weights fetch {first.name}` downloads them once" if first else "none have been published"
        raise VerydeepError(
            f"no released weights of net {settings.net} are on this machine: {fetch}; "
            "or pass --start FILE, or --start none to start from random weights."
        )
    return replace(settings, start=downloaded.name)


def origin_of(weights: Weights | None) -> dict[str, Any]:
    """The public weight file that a net starts from, directly or through other runs, as metadata."""
    origin = weights.origin if weights else {}
    first = origin.get("started_from", origin)
    return {"started_from": first} if first else {}


def first_net(
    settings: TrainSettings, weights: Weights | None, metadata: Metadata, reporter: Reporter
) -> tuple[Net, tuple[str, ...]]:
    """The net with its initial weights, and the names of the layers that are random."""
    initialise = settings.initialise
    size = (metadata.outputs, settings.crop, settings.width)
    net = create_net(settings.net, *size, initialise, settings.seed, settings.pooling)
    if weights is None:
        return net, tuple(spec.name for spec in net.specs)
    # The last layer of a localisation model is always new, whatever its shape.
    same_outputs = not metadata.is_localiser and same_classes(weights.classes, metadata.classes)
    copied = start_from(net, weights.tensors, weights.net, same_outputs)
    reporter.say(f"starting from {weights.source} (net {weights.net})")
    for line in copied.lines():
        reporter.say(line)
    frozen = set(copied.random) - set(learning_layers(net, settings, [], head=False))
    if frozen and not settings.head_epochs:
        reporter.warn(f"{', '.join(sorted(frozen))} are random and frozen: pass --learn all or --head-epochs.")
    return net, tuple(copied.random)


@dataclass(frozen=True)
class Copied:
    """The layers that were copied from another net, and those left random with the reason."""

    copied: tuple[str, ...]
    random: dict[str, str]

    def lines(self) -> list[str]:
        """Two lines for the user: the copied and the random layers."""
        reasons: dict[str, list[str]] = {}
        for layer, reason in self.random.items():
            reasons.setdefault(reason, []).append(layer)
        random = [f"{', '.join(names)} ({reason})" for reason, names in reasons.items()]
        return [
            f"copied {len(self.copied)} layers: {', '.join(self.copied) or 'none'}",
            f"random {len(self.random)} layers: {'; '.join(random) or 'none'}",
        ]


def start_from(net: Net, weights: dict[str, Tensor], source: str, classes_equal: bool) -> Copied:
    """Copies layers into ``net``, in place, as in Sect. 3.1: all of the same net, or the seven of net A.

    Args:
        net: with random weights, which the other layers keep.
        weights: tensors by layer name, RGB.
        source: the net of the weights; only `PRE_INITIALISED` are copied from a different one.
        classes_equal: whether fc8's outputs are the same classes in the same order.

    Raises:
        VerydeepError: no layer can be copied.
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
            f"no layer of net {net.name} (width {net.width:g}) fits the initial weights, of net {source}: "
            "start from a run of the same width."
        )
    return Copied(tuple(copied), random)
