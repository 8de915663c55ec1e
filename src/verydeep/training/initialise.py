"""Sect. 3.1: the weights a net begins with: drawn, those of another net, or released ones of this machine."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..checkpoints.checkpoint import Copied, Metadata, start_from
from ..checkpoints.download import first_of, on_this_machine
from ..checkpoints.pretrained import Weights
from ..core.errors import VerydeepError
from ..core.progress import Reporter
from ..core.settings import TrainSettings
from ..data.class_names import same_classes
from ..models.vgg import Net, create_net
from .recipes import RELEASED


def chosen_start(settings: TrainSettings) -> TrainSettings:
    """The settings with a name of released weights in place of the wish for some.

    Raises:
        VerydeepError: none of that net are on this machine.
    """
    if settings.start != RELEASED:
        return settings
    there, first = on_this_machine(settings.net), first_of(settings.net)
    if there is None:
        fetch = f"`verydeep weights fetch {first.name}` downloads them once" if first else "nobody has published any"
        raise VerydeepError(
            f"no released weights of net {settings.net} are on this machine: {fetch}; "
            "or say --start FILE, or --start none to begin from random weights."
        )
    return replace(settings, start=there.name)


def origin_of(weights: Weights | None) -> dict[str, Any]:
    """The weight file from outside that a net began as, be it over other runs."""
    told = weights.origin if weights else {}
    first = told.get("started_from", told)
    return {"started_from": first} if first else {}


def first_net(
    settings: TrainSettings, weights: Weights | None, metadata: Metadata, reporter: Reporter
) -> tuple[Net, tuple[str, ...]]:
    """The net with its first weights, and the names of the layers that are random."""
    initialise = settings.initialise
    size = (metadata.outputs, settings.crop, settings.width)
    net = create_net(settings.net, *size, initialise, settings.seed, settings.pooling)
    if weights is None:
        return net, tuple(spec.name for spec in net.specs)
    # A box net's last layer is always new, whatever its shape.
    same_outputs = not metadata.is_localiser and same_classes(weights.classes, metadata.classes)
    copied: Copied = start_from(net, weights.tensors, weights.net, same_outputs)
    reporter.say(f"starting from {weights.source} (net {weights.net})")
    for line in copied.lines():
        reporter.say(line)
    frozen = set(copied.random) - set(
        {"all": copied.random, "fc": ["fc6", "fc7", "fc8"], "last": ["fc8"]}[settings.learn]
    )
    if frozen and not settings.head_epochs:
        reporter.warn(
            f"{', '.join(sorted(frozen))} started random and will not learn: use --learn all or --head-epochs."
        )
    return net, tuple(copied.random)
