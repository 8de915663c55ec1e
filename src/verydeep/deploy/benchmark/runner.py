"""How fast things are, side by side: each in turn, again and again, so that what else the machine does meets all alike.

Each is done twice a turn, of which the first is not timed: it finds the caches and the threads of the one before. A
peer works in a process of its own (`verydeep.deploy.benchmark.peer_process`). What counts is the median. The machine's
own peak is measured in the same run, by a large product of matrices.
"""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...core.device import Machine
from ...core.errors import VerydeepError
from ...core.progress import Reporter
from ...models.winograd import product

WARM_UP = 1  # turns
PRODUCT, GPU_PRODUCT = 2048, 8192  # side of the matrices
PRODUCT_REPEATS = 5


@dataclass(frozen=True)
class Contender:
    """One of the things compared: its name, what does it once, how many images that is, and its multiply-adds."""

    name: str
    once: Callable[[], object]
    images: int
    multiply_adds: float = 0.0


def compare(contenders: list[Contender], repeats: int, machine: Machine, reporter: Reporter) -> dict[str, Any]:
    """Rows of images a second: median, least, most, ratio to the first, and share of the machine's peak.

    Raises:
        VerydeepError: fewer repeats than one.
    """
    if repeats < 1:
        raise VerydeepError(f"repeats must be 1 or more, not {repeats}.")
    seconds: list[list[float]] = [[] for _ in contenders]
    peak = measured_peak(machine)
    with reporter.track("each in turn", (WARM_UP + repeats) * len(contenders)) as advance:
        for turn in range(WARM_UP + repeats):
            for contender, found in zip(contenders, seconds, strict=True):
                with machine.running(static_shapes=True):  # the next finds the memory that this one gives back
                    contender.once()
                    spent = _timed(contender.once, machine)
                if turn >= WARM_UP:
                    found.append(spent)
                advance(1, "")
    peak = max(peak, measured_peak(machine))  # what else the machine does meets this as well
    first = contenders[0].images / statistics.median(seconds[0])
    return {
        "repeats": repeats,
        "rows": [_row(one, found, first, peak) for one, found in zip(contenders, seconds, strict=True)],
        "peak_multiply_adds_per_second": round(peak),
        "peak_memory_bytes": _memory(machine),
        "machine": machine.describe(),
    }


def _row(contender: Contender, seconds: list[float], first: float, peak: float) -> dict[str, Any]:
    rates = sorted(contender.images / spent for spent in seconds)
    middle = statistics.median(rates)
    return {
        "name": contender.name,
        "images_per_second": round(middle, 3),
        "least": round(rates[0], 3),
        "most": round(rates[-1], 3),
        "ratio_to_first": round(middle / first, 3),
        "share_of_peak": round(middle * contender.multiply_adds / peak, 3) if contender.multiply_adds else None,
    }


def random_photos(count: int, height: int, width: int) -> Tensor:
    """uint8 (B,H,W,3), random and the same each time: zeros would be faster than any photo."""
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
    """Seconds of one, with what it left the device to do."""
    _settle(machine)
    began = time.perf_counter()
    once()
    _settle(machine)
    return time.perf_counter() - began


def _settle(machine: Machine) -> None:
    if machine.device.type != "cpu":
        torch.accelerator.synchronize()


def _memory(machine: Machine) -> int:
    """The most memory taken so far: on a GPU there, else by this process."""
    if machine.device.type == "cuda":
        return torch.cuda.max_memory_allocated(machine.device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
