"""Speed side by side: the contenders take turns, so that other load on the machine affects all alike.

Each runs twice a turn, of which the first is not timed: it finds the caches and the threads of the one before. A peer
runs in a process of its own (`verydeep.deploy.benchmark.peer_process`). Medians are reported. The machine's own peak
is measured in the same run, by a large product of matrices. Processes that keep the machine busy, where there are any,
run all the time.
"""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from ...core.device import Machine
from ...core.errors import VerydeepError
from ...core.progress import Reporter
from ...core.settings import MachineSettings
from ...core.team import Team
from ...models.matmul import product
from .busy import busy

WARM_UP = 1  # turns
PRODUCT, GPU_PRODUCT = 2048, 8192  # side of the matrices
PRODUCT_REPEATS = 5
# Of a posterior, in full and in half precision: a rival that differs by more computes something else.
TOLERANCE, HALF_TOLERANCE = 1e-3, 5e-2


@dataclass(frozen=True)
class Options:
    """How to measure: the arguments of `verydeep.benchmark`."""

    batch: int
    size: int | None
    repeats: int
    against: tuple[str, ...]
    load: int
    machine: MachineSettings
    reporter: Reporter
    team: Team


@dataclass(frozen=True)
class Contender:
    """Its name, a function that runs it once, the number of images of that, and the multiply-adds of an image.

    ``difference`` is the largest one of a rival's posteriors from ours, where they are comparable.
    """

    name: str
    once: Callable[[], object]
    images: int
    multiply_adds: float = 0.0
    is_rival: bool = False
    difference: float | None = None


@dataclass(frozen=True)
class Row:
    """Images a second of a contender: median, least, most, ratio to the first, to the best rival, share of the peak.

    ``largest_difference`` is that of a rival's posteriors from ours.
    """

    name: str
    images_per_second: float
    least: float
    most: float
    ratio_to_first: float
    ratio_to_best_rival: float | None
    share_of_peak: float | None
    is_rival: bool
    largest_difference: float | None


@dataclass(frozen=True)
class Comparison:
    """A row for each contender, and facts of the machine."""

    repeats: int
    rows: list[Row]
    peak_multiply_adds_per_second: int
    peak_memory_bytes: int
    machine: dict[str, Any]
    load: int

    def to_json(self, **facts: Any) -> dict[str, Any]:
        """The result as JSON, after facts of the benchmark."""
        return {**facts, **asdict(self)}


def compare(
    contenders: list[Contender], repeats: int, machine: Machine, reporter: Reporter, load: int = 0
) -> Comparison:
    """Measures the contenders in turns, beside ``load`` busy processes.

    Raises:
        VerydeepError: fewer repeats than one.
    """
    if repeats < 1:
        raise VerydeepError(f"repeats must be 1 or more, not {repeats}.")
    with busy(load):
        peak = measured_peak(machine)
        seconds = _seconds(contenders, repeats, machine, reporter)
        peak = max(peak, measured_peak(machine))  # other load on the machine affects this as well
    pairs = zip(contenders, seconds, strict=True)
    rates = [sorted(contender.images / spent for spent in measured) for contender, measured in pairs]
    first, best = statistics.median(rates[0]), _best_rival(contenders, rates, tolerance(machine))
    rows = [_row(one, measured, first, best, peak) for one, measured in zip(contenders, rates, strict=True)]
    return Comparison(repeats, rows, round(peak), _memory(machine), machine.describe(), load)


def _seconds(contenders: list[Contender], repeats: int, machine: Machine, reporter: Reporter) -> list[list[float]]:
    """Of each contender the seconds of each turn."""
    seconds: list[list[float]] = [[] for _ in contenders]
    with reporter.track("measuring in turns", (WARM_UP + repeats) * len(contenders)) as advance:
        for turn in range(WARM_UP + repeats):
            for contender, measured in zip(contenders, seconds, strict=True):
                with machine.running(static_shapes=True):  # the next one can use the memory that this one frees
                    contender.once()
                    spent = _timed(contender.once, machine)
                if turn >= WARM_UP:
                    measured.append(spent)
                advance(1, "")
    return seconds


def tolerance(machine: Machine) -> float:
    """The largest difference of a rival's posteriors from ours."""
    return TOLERANCE if machine.autocast_dtype is None else HALF_TOLERANCE


def _best_rival(contenders: list[Contender], rates: list[list[float]], most: float) -> float | None:
    """The rate of the fastest rival whose posteriors differ from ours by at most ``most``."""
    equal = [one.is_rival and (one.difference is None or one.difference <= most) for one in contenders]
    return max((statistics.median(each) for each, counts in zip(rates, equal, strict=True) if counts), default=None)


def _row(contender: Contender, rates: list[float], first: float, best: float | None, peak: float) -> Row:
    median = statistics.median(rates)
    share = round(median * contender.multiply_adds / peak, 3) if contender.multiply_adds else None
    rate, least, most, ratio = (round(value, 3) for value in (median, rates[0], rates[-1], median / first))
    to_best = None if best is None else round(median / best, 3)
    return Row(contender.name, rate, least, most, ratio, to_best, share, contender.is_rival, contender.difference)


def random_images(count: int, height: int, width: int) -> Tensor:
    """uint8 (B,H,W,3), random and the same each time: zeros would be faster than any real image."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, height, width, 3), dtype=torch.uint8, generator=generator)


def measured_peak(machine: Machine) -> float:
    """Multiply-adds a second of a large product of random matrices, in the machine's precision: the best of a few."""
    generator = torch.Generator().manual_seed(0)
    side = PRODUCT if machine.device.type == "cpu" else GPU_PRODUCT
    one, other = (torch.randn(side, side, generator=generator) for _ in range(2))
    one, other = (each.to(machine.device, machine.autocast_dtype or machine.dtype) for each in (one, other))
    ours = machine.device.type == "cpu" and one.dtype == torch.float32
    multiply = product if ours else torch.matmul
    with machine.running():
        multiply(one, other)
        return side**3 / min(_timed(lambda: multiply(one, other), machine) for _ in range(PRODUCT_REPEATS))


def _timed(once: Callable[[], object], machine: Machine) -> float:
    """Seconds of one call, with the work that it queued on the device."""
    _synchronize(machine)
    started = time.perf_counter()
    once()
    _synchronize(machine)
    return time.perf_counter() - started


def _synchronize(machine: Machine) -> None:
    if machine.device.type != "cpu":
        torch.accelerator.synchronize()


def _memory(machine: Machine) -> int:
    """Peak memory so far: of the GPU, or else of this process."""
    if machine.device.type == "cuda":
        return torch.cuda.max_memory_allocated(machine.device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
