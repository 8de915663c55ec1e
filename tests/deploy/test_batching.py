"""The queue before a net: order, batches, bounds, faults and its end; what is counted."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from verydeep.deploy.server.batching import Batcher, Full, MemoryBudget, Stopped
from verydeep.deploy.server.metrics import Metrics


class Asked:
    """Doubles numbers, once it is let go; keeps what it was asked."""

    def __init__(self) -> None:
        self.batches: list[tuple[Any, list[int]]] = []
        self.begun, self.go = threading.Event(), threading.Event()

    def __call__(self, question: Any, items: Sequence[int]) -> list[int]:
        self.begun.set()
        assert self.go.wait(10)
        self.batches.append((question, list(items)))
        if 13 in items:
            raise ValueError("13 is no number to double")
        return [2 * item for item in items]


@contextmanager
def busy(most: int = 4, places: int = 100) -> Iterator[tuple[Batcher, Asked]]:
    """A batcher that is at work on 0, for as long as ``go`` is not set."""
    asked = Asked()
    batcher = Batcher(asked, most, places)
    batcher.submit("a", 0)
    assert asked.begun.wait(10)
    yield batcher, asked
    asked.go.set()
    batcher.close()


def test_what_waits_is_asked_together_in_the_order_in_which_it_came() -> None:
    with busy() as (batcher, asked):
        futures = [batcher.submit(question, item) for item, question in enumerate("aabaabbaa", start=1)]
        asked.go.set()
        assert [future.result(10) for future in futures] == [2 * item for item in range(1, 10)]
    assert asked.batches == [("a", [0]), ("a", [1, 2, 4, 5]), ("b", [3, 6, 7]), ("a", [8, 9])]


def test_one_that_fails_spoils_no_other() -> None:
    with busy() as (batcher, asked):
        futures = {item: batcher.submit("a", item) for item in (12, 13, 14)}
        asked.go.set()
        assert futures[12].result(10) == 24
        assert futures[14].result(10) == 28
        with pytest.raises(ValueError, match="13 is no number"):
            futures[13].result(10)


def test_who_leaves_before_his_turn_costs_nothing() -> None:
    with busy() as (batcher, asked):
        stays, leaves = batcher.submit("a", 1), batcher.submit("a", 2)
        assert leaves.cancel()
        asked.go.set()
        assert stays.result(10) == 2
    assert asked.batches == [("a", [0]), ("a", [1])]


def test_places_are_bounded_and_given_back() -> None:
    with busy(places=2) as (batcher, _):
        with batcher.place(), batcher.place():
            assert batcher.taken == 2
            with pytest.raises(Full), batcher.place():
                pass
        assert batcher.taken == 0
        with batcher.place():
            batcher.refuse()
            with pytest.raises(Stopped), batcher.place():
                pass


@pytest.mark.parametrize("drop", [False, True])
def test_its_end(drop: bool) -> None:
    asked = Asked()
    batcher = Batcher(asked, 4, 10)
    futures = [batcher.submit("a", 0)]
    assert asked.begun.wait(10)
    futures += [batcher.submit("a", item) for item in (1, 2)]
    ending = threading.Thread(target=batcher.close, args=(drop,))
    ending.start()
    while not batcher.stopped:
        time.sleep(0.001)
    asked.go.set()
    ending.join(10)
    assert futures[0].result(10) == 0
    assert [future.cancelled() for future in futures[1:]] == [drop, drop]
    assert asked.batches == ([("a", [0])] if drop else [("a", [0]), ("a", [1, 2])])


def test_a_room_is_shared_and_waited_for() -> None:
    room = MemoryBudget(10)
    room.take(7)
    with pytest.raises(Full):
        room.take(4)
    waiting = threading.Thread(target=room.take, args=(4, None))
    waiting.start()
    room.give(2)
    waiting.join(10)
    assert not waiting.is_alive()
    with pytest.raises(Full):
        room.take(2, 0.01)
    room.take(1)


def test_metrics_are_counts_that_prometheus_reads() -> None:
    metrics = Metrics()
    for seconds in (0.02, 0.3, 99.0):
        metrics.request("/predict", 200, seconds)
    metrics.request("other", 404, 0.001)
    metrics.batch(3, 0.2)
    told = metrics.text(taken=5, places=9).splitlines()
    values = dict(line.rsplit(" ", 1) for line in told if not line.startswith("#"))
    assert values['verydeep_requests_total{route="/predict",status="200"}'] == "3"
    assert values['verydeep_requests_total{route="other",status="404"}'] == "1"
    buckets = [int(values[f'verydeep_request_seconds_bucket{{route="/predict",le="{le}"}}']) for le in (0.01, 0.025)]
    assert buckets == [0, 1]
    assert values['verydeep_request_seconds_bucket{route="/predict",le="60.0"}'] == "2"
    assert values['verydeep_request_seconds_bucket{route="/predict",le="+Inf"}'] == "3"
    assert values['verydeep_request_seconds_count{route="/predict"}'] == "3"
    assert values['verydeep_batch_photos_bucket{le="2"}'] == "0"
    assert values['verydeep_batch_photos_bucket{le="4"}'] == "1"
    assert (values["verydeep_queue_length"], values["verydeep_queue_places"]) == ("5", "9")
    typed = {line.split()[2] for line in told if line.startswith("# TYPE")}
    assert all(
        name.split("{")[0].removesuffix("_bucket").removesuffix("_sum").removesuffix("_count") in typed
        for name in values
    )
