"""How long a plan takes on this machine, from a short measurement, and how much disk space it needs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from ..core.device import Machine, resolve_device
from ..core.progress import Reporter
from ..core.settings import MachineSettings, TrainSettings
from ..data.open import Data
from ..evaluation.cost import USUAL_IMAGE, ImageSample, fastest_seconds, sample_images
from ..evaluation.rates import timing
from ..models.architectures import NetFacts, net_facts
from ..models.vgg import create_net
from ..training.memory import largest_micro_batch
from ..training.optim import optimiser
from .plan import DONE, EvalStatus, Plan, RunStatus

BYTES = 4
COPIES_KEPT = 3  # the best net, the last, and its momentum
READ_SECONDS = 4e-3  # per ILSVRC image, where none can be timed
TRIAL_WORK = {"cpu": 5e10, "cuda": 2e13, "mps": 1e12}  # multiply-adds of a trial: about a second


@dataclass(frozen=True)
class Counts:
    """Numbers of training, dev and test images, and of classes."""

    train: int
    dev: int
    tested: int
    classes: int


ILSVRC = Counts(1_281_167 - 10_000, 10_000, 50_000, 1000)  # 10 training images per class are the dev part


def estimated(plan: Plan, opened: Data | None, machine_settings: MachineSettings, reporter: Reporter) -> Plan:
    """The plan with seconds and bytes of what is not done, by kept times of each net with work left, or measured ones.

    Args:
        opened: None stands for ILSVRC-2012, with images of a typical size.
    """
    counts, images = ILSVRC, ImageSample(READ_SECONDS, (USUAL_IMAGE,))
    settings = {work.run: work.settings for work in plan.runs}
    left = [work.run for work in plan.to_train] + [work.run for work in plan.to_test]
    busy = {settings[run].net: settings[run] for run in left}
    if opened is not None:
        tested = opened.sets[opened.reported]
        train, dev = (len(opened.sets[name]) if name in opened.sets else 0 for name in ("train", "dev"))
        counts = Counts(train, dev, len(tested), len(opened.classes))
        images = sample_images(tested, next(iter(settings.values())).S.smallest) if busy else images
    costs, rates = {}, []
    for net, setting in busy.items():
        facts = net_facts(net, counts.classes, setting.crop, setting.width)
        machine = resolve_device(machine_settings, 3 * facts.multiply_adds)
        trains = any(work.settings.net == net for work in plan.to_train)
        measure = partial(net_seconds, setting, counts.classes, machine, trains)
        details = {"classes": counts.classes, "crop": setting.crop, "width": setting.width, "batch": setting.batch}
        rates.append(timing(f"net {net}", {**details, "trains": trains}, machine, measure, reporter))
        step, forward = rates[-1].seconds
        costs[net] = _Cost(facts, step, forward, images, machine, counts)
    return Plan(
        tuple(work if work.state == DONE else costs[work.settings.net].of_run(work) for work in plan.runs),
        tuple(work if work.done else costs[settings[work.run].net].of_test(work) for work in plan.tests),
        plan.descriptors,
        tuple(rates),
    )


@dataclass(frozen=True)
class _Cost:
    """Times and sizes of one net's work on this machine."""

    facts: NetFacts
    train: float  # seconds per image of a training step, with its share of the update
    forward: float  # seconds per crop of a forward pass
    images: ImageSample
    machine: Machine
    counts: Counts

    def of_run(self, work: RunStatus) -> RunStatus:
        """A run of as many epochs as allowed, each with validation, after one scan of the images."""
        counts, settings = self.counts, work.settings
        shown = min(settings.max_epochs * counts.train, settings.max_steps * settings.batch)
        reading = self.images.read / max(1, self.machine.loaders.count)
        # With worker processes, reading runs in parallel to the steps.
        step = max(self.train, reading) if self.machine.loaders.count else self.train + reading
        dev = self.forward + self.images.read / max(1, self.machine.readers.count)
        seconds = step * shown + dev * counts.dev * shown / max(1, counts.train) + reading * (counts.train + counts.dev)
        return replace(work, seconds=seconds, disk=COPIES_KEPT * BYTES * self.facts.parameters)

    def of_test(self, work: EvalStatus) -> EvalStatus:
        """An evaluation: an image's multiply-adds at the speed measured on crops, and reading it."""
        adds = self.images.multiply_adds(work.protocol, self.facts.layers, self.facts.crop, "up")
        seconds = self.forward * adds / self.facts.multiply_adds + self.images.read / max(1, self.machine.readers.count)
        disk = BYTES * self.counts.tested * self.counts.classes
        return replace(work, seconds=seconds * self.counts.tested, disk=disk)


def net_seconds(settings: TrainSettings, classes: int, machine: Machine, trains: bool) -> tuple[float, float]:
    """Seconds per image of a training step, 0 unless it ``trains``, and per crop of a forward pass, on noise."""
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
        step = 0.0
        if trains:
            step = fastest_seconds(gradient, machine) / count + fastest_seconds(sgd.step, machine) / settings.batch
        net.eval()
        return step, fastest_seconds(forward, machine) / count
