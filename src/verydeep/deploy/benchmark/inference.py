"""How fast nets answer: ours, exported files and a peer's, from uint8 photos to posteriors, side by side."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...checkpoints.checkpoint import Checkpoint, Metadata
from ...checkpoints.load import Loaded, open_classifier
from ...checkpoints.preprocessing import MEAN_RGB
from ...core.device import Machine, resolve_device
from ...core.errors import VerydeepError
from ...core.progress import Reporter
from ...core.settings import MachineSettings
from ...evaluation.inference import InferenceModel, posterior, shown_to
from ...evaluation.protocols import Protocol
from ...models.architectures import NET_NAMES
from ...models.vgg import create_net
from .peer_process import Order, at_work
from .runner import Contender, compare, random_photos

CLASSES, CROP, USUAL_SCALE = 1000, 224, 256


def infer(
    sources: list[str],
    batch: int,
    size: int | None,
    repeats: int,
    against: str | None,
    wish: MachineSettings,
    reporter: Reporter,
) -> dict[str, Any]:
    """Photos a second of nets asked about a batch in turn; a peer comes first, so that ratios are to it.

    Args:
        sources: nets by name (with random weights: speed does not depend on them), runs, checkpoints, exported files.
        size: side of the photos in pixels; by default the first net's crop.

    Raises:
        VerydeepError: no such net, a size below a net's crop, a peer that has no such net.
    """
    opened = [opened_net(source) for source in sources]
    side = size or opened[0].metadata.crop
    least = max(one.metadata.crop for one in opened)
    if side < least:
        raise VerydeepError(f"size {side} is below a net's crop: use {least} or more.")
    here = resolve_device(replace(wish, workers=0), opened[0].metadata.multiply_adds)
    photos = random_photos(batch, side, side)
    whole = Protocol("dense", (side,), mirror=False)
    contenders = []
    for source, one in zip(sources, opened, strict=True):
        net = one.net()
        contenders.append(Contender(source, _asked(net, one.metadata, photos, here), batch, _work(net, whole, photos)))
    told = {"what": "infer", "batch": batch, "size": side}
    if not against:
        return {**told, **compare(contenders, repeats, here, reporter)}
    order = Order(against, opened[0].metadata.net, len(opened[0].metadata.classes), batch, side, learns=False)
    with at_work(order, here) as (name, once):
        theirs = Contender(name, once, batch, contenders[0].multiply_adds)
        return {**told, **compare([theirs, *contenders], repeats, here, reporter)}


def dense(
    source: str, scales: tuple[int, ...], repeats: int, wish: MachineSettings, reporter: Reporter
) -> dict[str, Any]:
    """Photos a second of a net applied densely, with mirror images, to one photo of 4:3 at each scale.

    Raises:
        VerydeepError: no such net, a scale below its crop.
    """
    one = opened_net(source)
    if not scales or min(scales) < one.metadata.crop:
        raise VerydeepError(f"scales are sides of {one.metadata.crop} pixels, the net's crop, or more, not {scales}.")
    here = resolve_device(replace(wish, workers=0, compile=False), one.metadata.multiply_adds)
    net = one.net()
    if isinstance(net, nn.Module):
        here.place_model(net.eval())
    shift = -torch.tensor(one.metadata.mean)[None]
    protocol = Protocol("dense", scales, mirror=True)
    shown = [random_photos(1, scale, round(scale * 4 / 3)) for scale in scales]

    def once(photos: list[Tensor]) -> object:
        with torch.inference_mode(), here.autocast():
            return [posterior(net, shown_to(net, one, here, shift), protocol).cpu() for one in photos]

    work = [_work(net, protocol, photo) for photo in shown]
    contenders = [Contender(f"dense@{','.join(map(str, scales))}", partial(once, shown), 1, sum(work))]
    if len(scales) > 1:
        contenders += [
            Contender(f"dense@{scale}", partial(once, [photo]), 1, cost)
            for scale, photo, cost in zip(scales, shown, work, strict=True)
        ]
    return {"what": "dense", "net": source, **compare(contenders, repeats, here, reporter)}


def opened_net(source: str) -> Loaded:
    """A net by name, with random weights, or from wherever it is."""
    if source not in NET_NAMES:
        return open_classifier(source)
    metadata = Metadata(source, CROP, 1.0, tuple(map(str, range(CLASSES))), MEAN_RGB, USUAL_SCALE)
    return Checkpoint(Path(source), metadata, create_net(source).state_dict(), {}, "")


def _work(net: InferenceModel, protocol: Protocol, photos: Tensor) -> float:
    """Multiply-adds of one photo of these."""
    height, width = photos.shape[1:3]
    return float(protocol.multiply_adds(net.specs, net.crop, height, width, net.pooling))


def _asked(net: InferenceModel, metadata: Metadata, photos: Tensor, machine: Machine) -> Callable[[], object]:
    """Asks a net about the photos once, from uint8 to posteriors."""
    scores = net.mean_scores
    if isinstance(net, nn.Module):
        machine.place_model(net.eval())
        scores = torch.compile(net.mean_scores) if machine.compile else net.mean_scores
    shift = -torch.tensor(metadata.mean)[None]

    def once() -> object:
        with torch.inference_mode(), machine.autocast():
            return torch.softmax(scores(shown_to(net, photos, machine, shift)).float(), dim=1).cpu()

    return once
