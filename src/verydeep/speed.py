"""How fast nets answer, side by side in one run: PyTorch, exported files, 8 bits.

Each is asked about the same random photos in turn, again and again, so that what else the machine does meets all
alike, and each time twice, of which the first is not timed: it finds the caches and the threads of the one before.
What counts is the median. Photos are uint8 and posteriors come out, so that all do the same work.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from .config import MachineSettings
from .errors import VerydeepError
from .machine import Machine, this_machine
from .opening import open_classifier
from .posteriors import Testable, shown_to
from .progress import Reporter, Silent

WARM_UP = 1  # turns


def benchmark(
    sources: list[str],
    batch: int = 8,
    size: int | None = None,
    repeats: int = 7,
    machine: MachineSettings | None = None,
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """Photos a second of nets, each asked about a batch in turn.

    Args:
        sources: runs, checkpoints, exported files, released weights.
        batch: photos at once.
        size: their side in pixels; by default the first net's crop.
        repeats: how often each is asked, after warming up.

    Returns:
        Rows of photos a second: the median, the least and the most, and as a ratio to the first.

    Raises:
        VerydeepError: no such net, a size below a net's crop.
    """
    if batch < 1 or repeats < 1:
        raise VerydeepError(f"batch and repeats must be 1 or more, not {batch} and {repeats}.")
    reporter = reporter or Silent()
    opened = [open_classifier(source) for source in sources]
    side = size or opened[0].card.crop
    least = max(one.card.crop for one in opened)
    if side < least:
        raise VerydeepError(f"size {side} is below a net's crop: use {least} or more.")
    here = this_machine(replace(machine or MachineSettings(workers=0), compile=False), opened[0].card.multiply_adds)
    generator = torch.Generator().manual_seed(0)
    photos = torch.randint(0, 256, (batch, side, side, 3), dtype=torch.uint8, generator=generator)
    with here.at_work():
        asked = [_asked(one.net(), one.card.mean, photos, here) for one in opened]
        seconds = _seconds(asked, repeats, reporter)
    told = {"batch": batch, "size": side, "repeats": repeats}
    return {**told, "rows": _rows(sources, batch, seconds), "machine": here.describe()}


def _rows(sources: list[str], batch: int, seconds: list[list[float]]) -> list[dict[str, Any]]:
    """A row of figures for each net."""
    rates = [sorted(batch / one for one in found) for found in seconds]
    first = statistics.median(rates[0])
    return [
        {
            "net": source,
            "photos_per_second": round(statistics.median(found), 3),
            "least": round(found[0], 3),
            "most": round(found[-1], 3),
            "ratio_to_first": round(statistics.median(found) / first, 3),
        }
        for source, found in zip(sources, rates, strict=True)
    ]


def _asked(net: Testable, mean: tuple[float, float, float], photos: Tensor, machine: Machine) -> Callable[[], object]:
    """Asks a net about the photos once, from uint8 to posteriors."""
    if isinstance(net, torch.nn.Module):
        machine.place(net.eval())
    shift = -torch.tensor(mean)[None]

    def once() -> object:
        with torch.inference_mode(), machine.products():
            return torch.softmax(net.mean_scores(shown_to(net, photos, machine, shift)).float(), dim=1).cpu()

    return once


def _seconds(asked: list[Callable[[], object]], repeats: int, reporter: Reporter) -> list[list[float]]:
    """Of each, the seconds of each turn."""
    found: list[list[float]] = [[] for _ in asked]
    with reporter.track("asking in turn", (WARM_UP + repeats) * len(asked)) as advance:
        for turn in range(WARM_UP + repeats):
            for once, seconds in zip(asked, found, strict=True):
                once()
                began = time.perf_counter()
                once()
                if turn >= WARM_UP:
                    seconds.append(time.perf_counter() - began)
                advance(1, "")
    return found
