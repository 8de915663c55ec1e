"""What training reports before it starts: the dataset, the memory estimate, and the micro-batch size that fits."""

from __future__ import annotations

import math
from dataclasses import replace

from ..core.config import STRIDE
from ..core.device import Machine, free_bytes
from ..core.errors import VerydeepError
from ..core.progress import Reporter
from ..core.settings import TrainSettings
from ..data.copies import copies_message
from ..data.dataset import first_names
from ..data.open import Data
from ..models.architectures import NetFacts, net_facts

MEMORY_SHARE = 0.8  # of the free memory

STEPS_AT_CHANCE = 1000  # of small nets on digit scenes (NOTES.md); other data may need more


def log_dataset(opened: Data, settings: TrainSettings, reporter: Reporter) -> None:
    """Reports classes, sets, the split, and how long training from random weights may take."""
    sizes = ", ".join(f"{len(dataset)} {name}" for name, dataset in opened.sets.items())
    train_set = opened.sets["train"]
    reporter.say(f"{opened.name}: {len(train_set.classes)} classes, images: {sizes}")
    reporter.say(f"classes: {first_names(opened.classes)}")
    reporter.say(f"split: {opened.split}; {opened.reported} is reported")
    others = opened.skipped.total - sum(opened.skipped.unread.values())
    if others:
        reporter.say(f"skipped {others} files and folders that are not images (`verydeep data check` lists them)")
    for warning in [*opened.warnings, *filter(None, [copies_message(opened)])]:
        reporter.warn(warning)
    steps = -(-len(train_set) // settings.batch)
    if settings.start == "none":
        epochs = max(1, STEPS_AT_CHANCE // steps)
        reporter.say(
            f"random weights ({settings.initialise}): the error may only begin to fall after about {STEPS_AT_CHANCE} "
            f"steps, here {epochs} epoch{'s' if epochs > 1 else ''}; to fine-tune a pretrained net "
            "in a few epochs, pass it as --start"
        )


def choose_micro_batch(
    settings: TrainSettings, outputs: int, machine: Machine, reporter: Reporter, processes: int
) -> int:
    """The micro-batch size of each process, reported before memory is allocated."""
    facts = replace(net_facts(settings.net, outputs, settings.crop, settings.width), crop=_input_side(settings))
    share = -(-settings.batch // processes)
    at_once = largest_micro_batch(facts, share, machine)
    need, free = training_bytes(facts, at_once, machine.recompute) / 2**30, free_bytes(machine.device) / 2**30
    parts = "" if at_once == share else f" in micro-batches of {at_once}"
    shares = f" over {processes} processes" if processes > 1 else ""
    reporter.say(
        f"net {settings.net}: {facts.parameters:,} parameters, crop {settings.crop}, "
        f"batch {settings.batch}{shares}{parts}; about {need:.2f} GiB of {free:.1f} GiB free on {machine.device.type}"
    )
    return at_once


def _input_side(settings: TrainSettings) -> int:
    """The side of the square, a multiple of 32, that is about as large as a training input: of a 4:3 image if whole."""
    if settings.context == "crop":
        return settings.crop
    return STRIDE * math.ceil(math.sqrt(4 / 3) * settings.S.largest / STRIDE)


def training_bytes(facts: NetFacts, batch: int, recompute: bool = False) -> int:
    """Memory of a training step in bytes, estimated from the layers' shapes, float32.

    Weights, gradients and momentum; per image the maps kept for the backward pass (a convolution's output, after
    in-place ReLU, and a pooled map with its int64 indices), and twice the largest map.

    Args:
        recompute: the maps of one stage at a time are kept, and only the pooled maps of the others.
    """
    inside: dict[int, int] = {}
    pooled: dict[int, int] = {}
    largest = 0
    for layer in facts.layers:
        side = facts.crop >> (layer.stage - 1) if layer.stage <= 5 else 1
        cells = layer.outputs * side**2
        inside[layer.stage] = inside.get(layer.stage, 0) + 4 * cells
        largest = max(largest, 4 * cells)
        if layer.stage <= 5:  # the stage's last layer is the one that is pooled
            pooled[layer.stage] = layer.outputs * (facts.crop >> layer.stage) ** 2
    stages = [inside[stage] + (4 + 8) * cells for stage, cells in pooled.items()]
    kept = max(stages) + 4 * sum(pooled.values()) if recompute else sum(stages)
    kept += sum(size for stage, size in inside.items() if stage > 5)
    return 3 * 4 * facts.parameters + batch * (kept + 2 * largest)


def largest_micro_batch(facts: NetFacts, batch: int, machine: Machine) -> int:
    """The micro-batch size: the batch, or its largest halving that fits in memory.

    Raises:
        VerydeepError: not even one image fits.
    """
    if machine.device_batch:
        return min(batch, machine.device_batch)
    room = MEMORY_SHARE * free_bytes(machine.device)
    count = batch
    while count > 1 and training_bytes(facts, count, machine.recompute) > room:
        count = (count + 1) // 2
    if training_bytes(facts, count, machine.recompute) > room:
        need, have = training_bytes(facts, count, machine.recompute) / 2**30, room / MEMORY_SHARE / 2**30
        raise VerydeepError(
            f"net {facts.name} at crop {facts.crop} needs {need:.1f} GiB for one image and {have:.1f} GiB are free "
            f"on {machine.device.type}: lower --crop or --width, or free memory."
        )
    return count
