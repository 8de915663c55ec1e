"""How ``--precision auto`` chooses bf16 on a CPU: by its agreement with float32 on a sample of the user's own images.

Where a processor has matrix units for bf16 (Intel's AMX), a net of full width is several times as fast in bf16, which
keeps 8 of float32's 24 significant bits. Before long work, images spread evenly over the set are computed in both
precisions, for at most a twentieth of the time that float32 would take. bf16 is used where the results are close, and
the result records how close they were. Short work, other processors and ``--precision float32`` are float32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.device import Machine
from ..core.progress import Reporter
from ..core.team import Team

LEAST_WORK = 5e12  # multiply-adds: about 20 seconds in float32
LEAST_SAMPLE, LARGEST_SAMPLE, SHARE = 16, 64, 20
Rows = NDArray[np.floating]


@dataclass(frozen=True)
class Measure:
    """A distance of results (n,) in two precisions, from (n,D) and (n,D); the largest mean for bf16; its name."""

    name: str
    distance: Callable[[Rows, Rows], Rows]
    most: float


@dataclass(frozen=True)
class Agreement:
    """What was chosen: the precision, and the mean distance of both precisions on ``images`` of the set."""

    precision: str
    images: int
    measure: str
    distance: float
    most: float

    def to_json(self) -> dict[str, Any]:
        """The fields."""
        return asdict(self)

    def __str__(self) -> str:
        exact = "; --precision float32 is exact" if self.precision == "bf16" else ""
        return (
            f"precision {self.precision}: on {self.images} of the images, {self.measure} of bf16 and float32 is "
            f"{self.distance:.2g} (at most {self.most:g} for bf16){exact}"
        )


def total_variation(one: Rows, other: Rows) -> Rows:
    """Half the sum of absolute differences of posteriors (n,K), 0 to 1."""
    return np.asarray(np.abs(one - other).sum(axis=1) / 2)


def angle(one: Rows, other: Rows) -> Rows:
    """1 minus the cosine of descriptors (n,D); 0 for two that are 0."""
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    products = np.einsum("nd,nd->n", one, other, dtype=np.float64)
    return np.where(lengths > 0, 1 - products / np.where(lengths > 0, lengths, 1), 0.0)


POSTERIORS = Measure("the mean total variation of posteriors", total_variation, 0.02)
DESCRIPTORS = Measure("the mean of 1 - cosine of descriptors", angle, 0.001)


def tries_bf16(machine: Machine, count: int, multiply_adds: float) -> bool:
    """Whether bf16 is tried for ``count`` images of so many multiply-adds in all."""
    return machine.may_lower and count // SHARE >= LEAST_SAMPLE and multiply_adds >= LEAST_WORK


def agreed_machine(
    machine: Machine,
    count: int,
    multiply_adds: float,
    compute: Callable[[Machine, Sequence[int]], Rows],
    measure: Measure,
    reporter: Reporter,
    team: Team | None = None,
) -> tuple[Machine, Agreement | None]:
    """The machine with the precision of long work, and what it was chosen by; None where there was no choice.

    Args:
        machine: of the settings, float32 where bf16 is to be tried.
        count: images of the set.
        multiply_adds: of all of them.
        compute: the results (n,D) of the images at some indices; unreadable ones are left out or 0, alike both times.
        team: the processes that share the work, which have to choose alike.
    """
    team = team or Team()
    if not all(team.all_gather(tries_bf16(machine, count, multiply_adds))):
        return machine, None
    sample = min(LARGEST_SAMPLE, count // SHARE)
    indices = np.linspace(0, count - 1, sample).astype(int).tolist()
    lowered = machine.in_bf16()
    exact, rounded = compute(machine, indices), compute(lowered, indices)
    distance = float(measure.distance(exact, rounded).mean()) if len(exact) else 0.0
    agree = all(team.all_gather(distance <= measure.most))  # not where it is NaN
    agreement = Agreement("bf16" if agree else "float32", len(exact), measure.name, distance, measure.most)
    reporter.say(str(agreement))
    return (lowered if agree else machine), agreement
