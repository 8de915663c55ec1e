"""Threads share the pieces of a layer: each piece once; errors reach the caller; inference mode holds in all."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Iterator

import pytest
import torch

from verydeep.models.cpu_threads import for_each


@pytest.fixture(params=[1, 2, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """A number of PyTorch's threads."""
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(1)


@pytest.mark.parametrize("count", [0, 1, 2, 7, 100])
def test_each_piece_once(threads: int, count: int) -> None:
    computed: Counter[int] = Counter()
    for_each(lambda piece: computed.update([piece]), range(count))
    assert computed == Counter(range(count))
    assert torch.get_num_threads() == threads


def test_all_threads_work(threads: int) -> None:
    """A piece ends only when each thread has one, as they wait for each other; each has one OpenMP thread."""
    everyone, used = threading.Barrier(threads, timeout=60), set()

    def work(_: int) -> None:
        everyone.wait()
        used.add((threading.get_ident(), torch.get_num_threads()))

    for_each(work, range(threads))
    assert len(used) == threads
    assert {number for _, number in used} == {1}


def test_an_error_reaches_the_caller(threads: int) -> None:
    def work(piece: int) -> None:
        if piece == 5:
            raise ValueError(f"piece {piece}")

    with pytest.raises(ValueError, match="piece 5"):
        for_each(work, range(6))
    assert torch.get_num_threads() == threads


@pytest.mark.usefixtures("threads")
def test_inference_mode_holds_in_each_thread() -> None:
    """Tensors made in inference mode may not be written to outside of it."""
    with torch.inference_mode():
        result = torch.zeros(8)
        for_each(lambda piece: result[piece : piece + 1].fill_(piece), range(8))
    assert result.tolist() == list(range(8))


def test_a_forked_process_has_threads_of_its_own() -> None:
    """The child has only the thread that forked; it must not wait for those of its parent."""
    torch.set_num_threads(2)
    try:
        for_each(lambda piece: None, range(4))
        process = os.fork()
        if not process:
            done: list[int] = []
            for_each(done.append, range(4))
            os._exit(0 if sorted(done) == [0, 1, 2, 3] else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0
    finally:
        torch.set_num_threads(1)
