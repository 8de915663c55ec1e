"""Inference speed: our nets, exported files and a peer's, from uint8 images to posteriors, side by side."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...checkpoints.checkpoint import Checkpoint, Metadata
from ...checkpoints.load import Loaded, load_model
from ...checkpoints.preprocessing import MEAN_RGB
from ...core.device import Machine, resolve_device
from ...core.errors import VerydeepError
from ...core.progress import Reporter
from ...evaluation.inference import InferenceModel, model_input, posterior
from ...evaluation.protocols import Protocol
from ...models.architectures import NET_NAMES
from ...models.vgg import Net, create_net
from .rivals import installed, rivals_of
from .runner import Contender, Options, compare, random_images, tolerance

CLASSES, CROP, USUAL_SCALE = 1000, 224, 256
SPREAD = 3.0  # standard deviation of the scores of a net with random weights that is compared


def infer(sources: list[str], options: Options) -> dict[str, Any]:
    """Images a second of nets that predict a batch in turn; rivals come first, so that ratios are to the first of them.

    Args:
        sources: nets by name (with random weights: speed does not depend on them), runs, checkpoints, exported files.
        options: ``size`` is the side of the images in pixels; by default the first net's crop.

    Raises:
        VerydeepError: no such net, a size below a net's crop, a rival that has no such net or fails.
    """
    opened = [open_net(source) for source in sources]
    first, batch = opened[0].metadata, options.batch
    side, least = options.size or first.crop, max(one.metadata.crop for one in opened)
    if side < least:
        raise VerydeepError(f"size {side} is below a net's crop: use {least} or more.")
    machine = resolve_device(replace(options.machine, workers=0), first.multiply_adds)
    against = installed(options.against, first.net, machine, options.reporter) if options.against else []
    images = random_images(batch, side, side)
    protocol = Protocol("dense", (side,), mirror=False)
    nets = [one.net() for one in opened]
    contenders = []
    for source, one, net in zip(sources, opened, nets, strict=True):
        once = _predict(net, one.metadata, images, machine)
        contenders.append(Contender(source, once, batch, _multiply_adds(net, protocol, images)))
    with ExitStack() as processes:
        rivals: list[Contender] = []
        if against:
            random = sources[0] in NET_NAMES
            net, posteriors = _reference(nets[0], random, first, images, machine)
            rivals = processes.enter_context(rivals_of(against, net, images, first.mean, posteriors, machine))
            _report(rivals, tolerance(machine), options.reporter)
        contenders = [*rivals, *contenders]
        measured = compare(contenders, options.repeats, machine, options.reporter, options.load)
    not_compared = [name for name in options.against if name not in against]
    return measured.to_json(what="infer", batch=batch, size=side, not_compared=not_compared)


def _reference(
    model: InferenceModel, random: bool, metadata: Metadata, images: Tensor, machine: Machine
) -> tuple[Net, Tensor]:
    """The net whose weights the rivals have, and its posteriors (B,K): in place of an exported file one of random ones.

    Of a net with random weights fc8 is scaled so that posteriors are far apart: where all are 1/K, none is wrong.
    """
    net = model if isinstance(model, Net) else None
    if net is None:
        random, net = True, create_net(metadata.net, metadata.outputs, metadata.crop, metadata.width)
    once = _predict(net, metadata, images, machine)
    with torch.no_grad(), machine.running():
        posteriors = once()
        if random:
            net.layer("fc8").weight.mul_(SPREAD / posteriors.log().std(dim=1).mean())
            posteriors = once()
    return net, posteriors


def _report(rivals: list[Contender], most: float, reporter: Reporter) -> None:
    """Warns of each rival whose posteriors differ from ours by more than ``most``."""
    for rival in rivals:
        if rival.difference is not None and rival.difference > most:
            reporter.warn(
                f"the posteriors of {rival.name} differ from those of verydeep by up to {rival.difference:.1g}."
            )


def dense(source: str, scales: tuple[int, ...], options: Options) -> dict[str, Any]:
    """Images a second of dense evaluation, with mirror images, of one 4:3 image at each scale.

    Raises:
        VerydeepError: no such net, a scale below its crop.
    """
    loaded = open_net(source)
    metadata = loaded.metadata
    if not scales or min(scales) < metadata.crop:
        raise VerydeepError(f"scales are sides of {metadata.crop} pixels, the net's crop, or more, not {scales}.")
    machine = resolve_device(replace(options.machine, workers=0, compile=False), metadata.multiply_adds)
    net = loaded.net()
    if isinstance(net, nn.Module):
        machine.place_model(net.eval())
    shift = -torch.tensor(metadata.mean)[None]
    protocol = Protocol("dense", scales, mirror=True)
    images = [random_images(1, scale, round(scale * 4 / 3)) for scale in scales]

    def once(rescaled: list[Tensor]) -> object:
        with torch.inference_mode(), machine.autocast():
            return [posterior(net, model_input(net, image, machine, shift), protocol).cpu() for image in rescaled]

    work = [_multiply_adds(net, protocol, image) for image in images]
    contenders = [Contender(f"dense@{','.join(map(str, scales))}", partial(once, images), 1, sum(work))]
    if len(scales) > 1:
        contenders += [
            Contender(f"dense@{scale}", partial(once, [image]), 1, cost)
            for scale, image, cost in zip(scales, images, work, strict=True)
        ]
    measured = compare(contenders, options.repeats, machine, options.reporter, options.load)
    return measured.to_json(what="dense", net=source)


def open_net(source: str) -> Loaded:
    """Opens a net by name, with random weights, or from a file."""
    if source not in NET_NAMES:
        return load_model(source)
    metadata = Metadata(source, CROP, 1.0, tuple(map(str, range(CLASSES))), MEAN_RGB, USUAL_SCALE)
    return Checkpoint(Path(source), metadata, create_net(source).state_dict(), {}, "")


def _multiply_adds(net: InferenceModel, protocol: Protocol, images: Tensor) -> float:
    """Multiply-adds of one of the images."""
    height, width = images.shape[1:3]
    return float(protocol.multiply_adds(net.specs, net.crop, height, width, net.pooling))


def _predict(net: InferenceModel, metadata: Metadata, images: Tensor, machine: Machine) -> Callable[[], Tensor]:
    """Predicts the images once, from uint8 to posteriors."""
    scores = net.mean_scores
    if isinstance(net, nn.Module):
        machine.place_model(net.eval())
        scores = torch.compile(net.mean_scores) if machine.compile else net.mean_scores
    shift = -torch.tensor(metadata.mean)[None]

    def once() -> Tensor:
        with torch.inference_mode(), machine.autocast():
            return torch.softmax(scores(model_input(net, images, machine, shift)).float(), dim=1).cpu()

    return once
