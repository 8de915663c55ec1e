"""Sect. 3.3: what work needs of the processes that share it; this module does not import PyTorch.

Several processes each compute a share of a batch or a set and sum the results, so that together they compute what one
process would. `verydeep.core.distributed` connects them.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

T = TypeVar("T")


def share_of(count: int, rank: int, size: int) -> range:
    """The items of ``count`` that belong to a process: all ranks' shares partition them, in order, almost equally."""
    return range(count * rank // size, count * (rank + 1) // size)


class Team:
    """The processes of one job, each with its ``rank``, 0 to ``size`` - 1: here a job of one process.

    ``restarted``: whether torchrun has restarted the job after one of its processes died.
    """

    rank: int = 0
    size: int = 1

    def __init__(self, restarted: bool = False) -> None:
        self.restarted = restarted

    @property
    def is_main(self) -> bool:
        """Whether this process is the one that writes files and prints."""
        return self.rank == 0

    def shard(self, count: int) -> range:
        """The items of ``count`` that are this process's share."""
        return share_of(count, self.rank, self.size)

    def mark(self, name: str) -> None:
        """Marks a name for this job; marks outlive a restart."""

    def marked(self, name: str) -> bool:
        """Whether this job has marked a name; one process alone takes what exists as its own."""
        return True

    def all_reduce(self, *values: float) -> list[float]:
        """Each value summed over all processes, in float64."""
        return list(values)

    def all_gather(self, value: T) -> list[T]:
        """The values of all processes, by rank."""
        return [value]

    def wrap_ddp(self, net: Callable[..., Any], bf16: bool) -> Callable[..., Any]:
        """The net, with gradients that are averaged over all processes during the backward pass.

        Args:
            bf16: send gradients as bf16: half the bytes, and sums that differ from one process's in the last digits.
        """
        return net

    def no_sync(self, net: Callable[..., Any], last: bool) -> AbstractContextManager[None]:
        """A context for one of several parts of a batch; gradients are averaged only in the ``last``."""
        return nullcontext()
