"""What is told before a training takes time and memory: the data, what to expect, and what fits."""

from __future__ import annotations

from ..core.config import TrainSettings
from ..core.device import Machine, free_bytes, photos_at_once, training_bytes
from ..core.progress import Reporter
from ..data.dataset import first_names
from ..data.open import Data
from ..models.architectures import net_facts

STEPS_AT_CHANCE = 1000  # what doll nets took on digit scenes (NOTES.md); nobody promises less elsewhere


def tell_data(opened: Data, settings: TrainSettings, reporter: Reporter) -> None:
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


def photos_that_fit(settings: TrainSettings, outputs: int, machine: Machine, reporter: Reporter, processes: int) -> int:
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
