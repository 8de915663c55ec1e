"""How long a plan will take on this machine and how much disk: a short measurement, and arithmetic."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..core.device import Machine, resolve_device
from ..core.progress import Reporter
from ..core.settings import MachineSettings
from ..data.image_io import rescaled_size
from ..data.open import Data
from ..models.architectures import NetFacts, net_facts
from .measure import USUAL_PHOTO, NetSpeed, Photos, load_per_core, look_at_photos, net_speed
from .plan import DONE, EvalStatus, Plan, RunStatus

BYTES = 4
COPIES_KEPT = 3  # the best net, the last, and its momentum
READ_SECONDS = 4e-3  # of an ILSVRC photo, where there is none to time


@dataclass(frozen=True)
class Counts:
    """Photos to learn from, to decide, and to test; classes."""

    train: int
    dev: int
    tested: int
    classes: int


ILSVRC = Counts(1_281_167 - 10_000, 10_000, 50_000, 1000)  # 10 training photos a class are the dev part


def estimated(plan: Plan, opened: Data | None, wish: MachineSettings, reporter: Reporter) -> Plan:
    """The plan with seconds and bytes for what is not done; each net that has work is measured once.

    Args:
        opened: None counts as ILSVRC-2012, of usual photos.
    """
    counts, photos = ILSVRC, Photos(READ_SECONDS, (USUAL_PHOTO,))
    settings = {work.run: work.settings for work in plan.runs}
    busy = {settings[work.run].net: settings[work.run] for work in plan.missing}
    if opened is not None:
        tested = opened.sets[opened.reported]
        train, dev = (len(opened.sets[name]) if name in opened.sets else 0 for name in ("train", "dev"))
        counts = Counts(train, dev, len(tested), len(opened.classes))
        photos = look_at_photos(tested, next(iter(settings.values())).S.smallest) if busy else photos
    if busy and (load := load_per_core()) > 1:
        reporter.warn(f"this machine is busy (load {load:.1f} a core): times are rough, and of a machine at rest")
    costs = {}
    for net, setting in busy.items():
        reporter.say(f"measuring net {net} for the estimate")
        facts = net_facts(net, counts.classes, setting.crop, setting.width)
        machine = resolve_device(wish, 3 * facts.multiply_adds)
        costs[net] = _Cost(facts, net_speed(setting, counts.classes, machine), photos, machine, counts)
    return Plan(
        tuple(work if work.state == DONE else costs[work.settings.net].of_run(work) for work in plan.runs),
        tuple(work if work.done else costs[settings[work.run].net].of_test(work) for work in plan.tests),
    )


@dataclass(frozen=True)
class _Cost:
    """What one net's work costs here."""

    facts: NetFacts
    speed: NetSpeed
    photos: Photos
    machine: Machine
    counts: Counts

    def of_run(self, work: RunStatus) -> RunStatus:
        """All epochs the run may have, each with its dev test, after one look at every photo; a begun one whole."""
        counts, settings = self.counts, work.settings
        shown = min(settings.max_epochs * counts.train, settings.max_steps * settings.batch)
        reading = self.photos.read / max(1, self.machine.loaders.count)
        # Reading goes on beside the steps, in processes of its own where there are any.
        step = max(self.speed.train, reading) if self.machine.loaders.count else self.speed.train + reading
        dev = self.speed.forward + self.photos.read / max(1, self.machine.readers.count)
        seconds = step * shown + dev * counts.dev * shown / max(1, counts.train) + reading * (counts.train + counts.dev)
        return replace(work, seconds=seconds, disk=COPIES_KEPT * BYTES * self.facts.parameters)

    def of_test(self, work: EvalStatus) -> EvalStatus:
        """A photo's multiply-adds at the speed of crops, and reading it."""
        found, crop = self.facts.layers, self.facts.crop
        (scale,) = work.protocol.scales
        sizes = [rescaled_size(height, width, scale) for height, width in self.photos.sizes]
        adds = sum(work.protocol.multiply_adds(found, crop, *size, "up") for size in sizes) / len(sizes)
        net_seconds = self.speed.forward * adds / self.facts.multiply_adds
        seconds = net_seconds + self.photos.read / max(1, self.machine.readers.count)
        disk = BYTES * self.counts.tested * self.counts.classes
        return replace(work, seconds=seconds * self.counts.tested, disk=disk)
