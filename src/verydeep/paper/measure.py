"""How fast this machine is, from a short measurement, so that long work can say how long it will take."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..core.device import Machine
from ..core.errors import ImageError
from ..core.settings import TrainSettings
from ..data.image_io import rescale
from ..data.open import Dataset
from ..models.architectures import net_facts
from ..models.vgg import create_net
from ..training.memory import largest_micro_batch
from ..training.optim import optimiser

TRIAL_WORK = {"cpu": 5e10, "cuda": 2e13, "mps": 1e12}  # multiply-adds of a trial: about a second
TRIALS = 2
PHOTOS_READ = 8
USUAL_PHOTO = (375, 500)  # height and width in pixels, where there are none to look at


@dataclass(frozen=True)
class NetSpeed:
    """Seconds of one photo of a training step (its share of the update in it), and of one crop forward."""

    train: float
    forward: float


@dataclass(frozen=True)
class Photos:
    """What a few photos of a set tell: seconds to read and rescale one, and their heights and widths."""

    read: float
    sizes: tuple[tuple[int, int], ...]


def net_speed(settings: TrainSettings, classes: int, machine: Machine) -> NetSpeed:
    """Times a part of a training step and of a forward pass, on noise."""
    facts = net_facts(settings.net, classes, settings.crop, settings.width)
    room = max(1, int(TRIAL_WORK[machine.device.type] / (3 * facts.multiply_adds)))
    count = min(settings.batch, room, largest_micro_batch(facts, settings.batch, machine))
    net = create_net(settings.net, classes, settings.crop, settings.width, settings.initialise)
    placed = machine.place_model(net)
    sgd = optimiser(net, settings)
    noise = torch.randint(0, 256, (count, 3, settings.crop, settings.crop), dtype=torch.uint8)
    images, labels = machine.to_input(noise, torch.zeros(1, 3)), torch.zeros(count, dtype=torch.int64)
    labels = labels.to(machine.device)

    def gradient() -> None:
        with machine.autocast():
            scores: Tensor = placed(images).flatten(1)
        F.cross_entropy(scores.float(), labels).backward()  # type: ignore[no-untyped-call]

    def forward() -> None:
        with torch.inference_mode(), machine.autocast():
            net.mean_scores(images)

    with machine.running():
        backward_seconds = _seconds(gradient, machine)
        update_seconds = _seconds(sgd.step, machine)
        net.eval()
        forward_seconds = _seconds(forward, machine)
    return NetSpeed(backward_seconds / count + update_seconds / settings.batch, forward_seconds / count)


def load_per_core() -> float:
    """How many processes and threads want each core of this machine, a minute's mean; 0 where it is not known."""
    return os.getloadavg()[0] / (os.cpu_count() or 1) if hasattr(os, "getloadavg") else 0.0


def _seconds(work: Callable[[], object], machine: Machine) -> float:
    """The least of a few runs, after one that warms up.

    On a CPU that other work keeps busy the time waited for it is left out: what counts is the processor's own time.
    """
    on_cpu = machine.device.type == "cpu"
    waits = on_cpu and load_per_core() > 1
    taken = []
    for _ in range(1 + TRIALS):
        began, used = time.monotonic(), time.process_time()
        work()
        if not on_cpu:
            torch.accelerator.synchronize()
        seconds = time.monotonic() - began
        taken.append(min(seconds, (time.process_time() - used) / torch.get_num_threads()) if waits else seconds)
    return min(taken[1:])


def look_at_photos(dataset: Dataset, scale: int) -> Photos:
    """Reads and rescales a few photos, evenly spread; those that cannot be read are passed over."""
    chosen = np.linspace(0, len(dataset) - 1, min(PHOTOS_READ, len(dataset))).astype(int)
    taken, sizes = [], []
    for index in chosen:
        began = time.monotonic()
        try:
            pixels = dataset.pixels(int(index))
        except ImageError:
            continue
        rescale(pixels, scale)
        taken.append(time.monotonic() - began)
        sizes.append((pixels.shape[0], pixels.shape[1]))
    # The median, as the first photo waits for its disk, and any for other work.
    return Photos(float(np.median(taken)) if taken else 0.0, tuple(sizes) or (USUAL_PHOTO,))
