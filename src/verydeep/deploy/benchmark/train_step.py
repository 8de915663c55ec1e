"""Training speed: our step, and a peer's with its defaults, from uint8 crops to updated weights."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch.nn import functional as F

from ...checkpoints.preprocessing import MEAN_RGB
from ...core.config import Scale
from ...core.device import Machine, resolve_device
from ...core.errors import VerydeepError
from ...core.settings import TrainSettings
from ...core.team import Team
from ...models.architectures import net_facts
from ...models.vgg import create_net
from ...training.optim import optimiser
from .inference import CLASSES, CROP
from .order import Order
from .peer_process import at_work
from .runner import Contender, Options, compare, random_images

STEP = 3  # the work of a training step, in forward passes


def train_steps(nets: list[str], options: Options) -> dict[str, Any]:
    """Images a second of steps on random crops with dropout, cross-entropy, momentum and weight decay.

    Args:
        nets: names of Table 1, each with 1000 classes.
        options: ``batch`` is the global batch, ``size`` the crop.

    Raises:
        VerydeepError: no such net, or the peer has none.
    """
    batch, team, crop = options.batch, options.team, options.size or CROP
    facts = [net_facts(net, CLASSES, crop) for net in nets]
    machine = resolve_device(replace(options.machine, workers=0), STEP * facts[0].multiply_adds)
    share = len(team.shard(batch))
    if options.against not in ((), ("torchvision",)):
        raise VerydeepError(f"training is compared with torchvision alone, not {','.join(options.against)!r}.")
    contenders = []
    for net, known in zip(nets, facts, strict=True):
        once = _our_step(net, crop, share, machine, team)
        contenders.append(Contender(net, once, batch, STEP * known.multiply_adds / team.size))
    order = Order("torchvision", nets[0], CLASSES, share, crop, True, str(machine.device), machine.threads)
    with at_work(order) if options.against else nullcontext() as peer:
        if peer:
            contenders.insert(0, Contender(*peer, batch, is_rival=True))
        measured = compare(contenders, options.repeats, machine, options.reporter, options.load)
    return measured.to_json(what="train", batch=batch, size=crop, processes=team.size)


def _our_step(name: str, crop: int, count: int, machine: Machine, team: Team) -> Callable[[], object]:
    settings = TrainSettings(net=name, S=Scale(max(256, crop), max(256, crop)), crop=crop)
    net = create_net(name, CLASSES, crop).train()
    net.recompute = machine.recompute
    model = team.wrap_ddp(machine.place_model(net), machine.bf16_gradients)
    sgd = optimiser(net, settings)
    images = random_images(count, crop, crop).permute(0, 3, 1, 2)
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, CLASSES, (count,), generator=generator).to(machine.device)
    mask = (torch.rand(count, sum(net.dropout_units), generator=generator) < 0.5).to(machine.device)
    shift = torch.tensor(MEAN_RGB).neg().expand(count, 3)
    scaler = torch.amp.GradScaler(machine.device.type, enabled=machine.autocast_dtype == torch.float16)

    def once() -> None:
        sgd.zero_grad(set_to_none=True)
        pixels = machine.to_input(images, shift)
        with machine.autocast():
            outputs = model(pixels, mask).flatten(1)
        loss = F.cross_entropy(outputs.to(torch.promote_types(outputs.dtype, torch.float32)), labels)
        scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        scaler.step(sgd)
        scaler.update()

    return once
