"""What is told before a training takes time and memory: the data, what to expect, and what fits."""

from __future__ import annotations

from ..core.device import Machine, free_bytes
from ..core.errors import VerydeepError
from ..core.progress import Reporter
from ..core.settings import TrainSettings
from ..data.dataset import first_names
from ..data.open import Data
from ..models.architectures import NetFacts, net_facts

MEMORY_SHARE = 0.8  # of what is free, for what we plan

STEPS_AT_CHANCE = 1000  # what doll nets took on digit scenes (NOTES.md); nobody promises less elsewhere


def log_dataset(opened: Data, settings: TrainSettings, reporter: Reporter) -> None:
    """Classes, sets and their photos, and what random weights will take."""
    sizes = ", ".join(f"{len(found)} {name}" for name, found in opened.sets.items())
    train_set = opened.sets["train"]
    reporter.say(f"{opened.name}: {len(train_set.classes)} classes, photos: {sizes} ({opened.reported} is reported)")
    reporter.say(f"classes: {first_names(opened.classes)}")
    reporter.say(f"split: {opened.split}; {opened.reported} is reported")
    others = opened.skipped.total - sum(opened.skipped.unread.values())
    if others:
        reporter.say(f"skipped {others} files and folders that are no photos (`verydeep data check` lists them)")
    for sentence in opened.warnings:
        reporter.warn(sentence)
    steps = -(-len(train_set) // settings.batch)
    if settings.start == "none":
        reporter.say(
            f"random weights ({settings.initialise}): expect about {STEPS_AT_CHANCE} steps, "
            f"{max(1, STEPS_AT_CHANCE // steps)} epochs here, or more before anything is learned; "
            "--start FILE|RUN learns from the first epoch"
        )


def choose_micro_batch(
    settings: TrainSettings, outputs: int, machine: Machine, reporter: Reporter, processes: int
) -> int:
    """How many photos go through the net at once in each process; told before any memory is taken."""
    facts = net_facts(settings.net, outputs, settings.crop, settings.width)
    share = -(-settings.batch // processes)
    at_once = photos_at_once(facts, share, machine)
    need, free = training_bytes(facts, at_once, machine.recompute) / 2**30, free_bytes(machine.device) / 2**30
    parts = "" if at_once == share else f" in parts of {at_once}, their gradients added up"
    shares = f" over {processes} processes" if processes > 1 else ""
    reporter.say(
        f"net {settings.net}: {facts.parameters:,} parameters, crop {settings.crop}, "
        f"batch {settings.batch}{shares}{parts}; about {need:.2f} GiB of {free:.1f} GiB free on {machine.device.type}"
    )
    return at_once


def training_bytes(facts: NetFacts, batch: int, recompute: bool = False) -> int:
    """Memory of a training step in bytes: an estimate from the layers' shapes, float32.

    Weights, gradients and momentum; per photo the maps kept for the backward pass (a convolution's
    output, after ReLU in place, and a pooled map with its int64 indices), and twice the largest map.

    Args:
        recompute: of the stages one at a time is kept whole, and of the others the pooled map.
    """
    inside: dict[int, int] = {}
    pooled: dict[int, int] = {}
    largest = 0
    for layer in facts.layers:
        side = facts.crop >> (layer.stage - 1) if layer.stage <= 5 else 1
        cells = layer.outputs * side**2
        inside[layer.stage] = inside.get(layer.stage, 0) + 4 * cells
        largest = max(largest, 4 * cells)
        if layer.stage <= 5:  # the stage's last layer is that which is pooled
            pooled[layer.stage] = layer.outputs * (facts.crop >> layer.stage) ** 2
    stages = [inside[stage] + (4 + 8) * cells for stage, cells in pooled.items()]
    kept = max(stages) + 4 * sum(pooled.values()) if recompute else sum(stages)
    kept += sum(size for stage, size in inside.items() if stage > 5)
    return 3 * 4 * facts.parameters + batch * (kept + 2 * largest)


def photos_at_once(facts: NetFacts, batch: int, machine: Machine) -> int:
    """How many photos of a batch go through the net at once: all, or the largest halving that fits.

    Raises:
        VerydeepError: not even one photo fits.
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
            f"net {facts.name} at crop {facts.crop} needs {need:.1f} GiB for one photo and {have:.1f} GiB are free "
            f"on {machine.device.type}: lower --crop or --width, or free memory."
        )
    return count
