"""Freed memory stays with the process while it computes, and goes back afterwards."""

import platform
import resource
from collections.abc import Callable

import pytest
import torch

from verydeep import memory

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told what to keep")
FLOATS = 64 * 2**20 // 4  # twice what glibc keeps by default


def faults(work: Callable[[], object]) -> int:
    """Pages that the system handed out."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    work()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def blocks() -> None:
    for _ in range(4):
        torch.zeros(FLOATS)


def test_blocks_are_used_again_while_kept_and_not_before_and_after() -> None:
    """64 MiB are 16384 pages; where the system has larger ones there are fewer faults, and never none."""
    with memory.kept():
        blocks()
        assert faults(blocks) < 100
        with memory.usual():
            torch.zeros(2 * FLOATS)  # larger than what was kept
            asked_anew = faults(lambda: torch.zeros(2 * FLOATS))
        blocks()
        assert faults(blocks) < 100
        with memory.kept():
            pass
        assert faults(blocks) < 100  # the outer context still holds
    torch.zeros(2 * FLOATS)
    given_back = faults(lambda: torch.zeros(2 * FLOATS))
    assert min(asked_anew, given_back) > 30
