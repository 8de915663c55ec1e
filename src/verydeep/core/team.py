"""Sect. 3.3: what work asks of the processes that do it together; one process is a team of its own.

Several processes each take a share of a batch or a set and add up what they found, so that together they compute
what one alone would. How they talk is in `verydeep.core.distributed`; here is what they say, without PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


def share_of(count: int, rank: int, size: int) -> range:
    """Which of ``count`` things are a process's: the shares of all ranks part them, in order, almost equally."""
    return range(count * rank // size, count * (rank + 1) // size)


class Team(Protocol):
    """The processes of one job, each with its ``rank``, 0 to ``size`` - 1.

    ``restarted`` tells that the job was begun again after one of its processes had died.
    """

    rank: int
    size: int
    restarted: bool

    @property
    def is_main(self) -> bool:
        """Whether this process is the one that writes files and speaks."""

    def shard(self, count: int) -> range:
        """Which of ``count`` things are this process's: every one is somebody's, and nobody else's."""

    def mark(self, name: str) -> None:
        """Remembers a name, also for when the job is begun again."""

    def marked(self, name: str) -> bool:
        """Whether this job has remembered it."""

    def all_reduce(self, *values: float) -> list[float]:
        """Each value summed over all processes, in float64."""

    def all_gather(self, mine: T) -> list[T]:
        """What each process has, by rank, in every process."""

    def wrap_ddp(self, net: Callable[..., Any], bf16: bool) -> Callable[..., Any]:
        """The net, with gradients that are averaged over all processes while they are computed.

        Args:
            bf16: gradients travel as bf16: half the bytes, and sums that are not one process's to the last digits.
        """

    def no_sync(self, net: Callable[..., Any], last: bool) -> AbstractContextManager[None]:
        """Around one of several parts of a batch; gradients are averaged in the ``last`` alone."""


class SingleProcess:
    """The team of one process."""

    rank, size, is_main = 0, 1, True

    def __init__(self, restarted: bool = False) -> None:
        self.restarted = restarted

    def shard(self, count: int) -> range:
        """All."""
        return range(count)

    def mark(self, name: str) -> None:
        """Nobody asks."""

    def marked(self, name: str) -> bool:
        """One process has nobody to remember for it: what is there counts as its own."""
        return True

    def all_reduce(self, *values: float) -> list[float]:
        """The values."""
        return list(values)

    def all_gather(self, mine: T) -> list[T]:
        """What this process has."""
        return [mine]

    def wrap_ddp(self, net: Callable[..., Any], bf16: bool) -> Callable[..., Any]:
        """The net itself."""
        return net

    def no_sync(self, net: Callable[..., Any], last: bool) -> AbstractContextManager[None]:
        """Nothing to hold back."""
        return nullcontext()
