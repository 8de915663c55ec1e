"""The queue before the models: order, batches, bounds, exceptions, shutdown; metrics."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from verydeep.deploy.server.batching import Batcher, Full, MemoryBudget, Stopped
from verydeep.deploy.server.metrics import Metrics


class Doubler:
    """Doubles numbers, once it is released; records its batches."""

    def __init__(self) -> None:
        self.batches: list[tuple[Any, list[int]]] = []
        self.started, self.released = threading.Event(), threading.Event()

    def __call__(self, query: Any, items: Sequence[int]) -> list[int]:
        self.started.set()
        assert self.released.wait(10)
        self.batches.append((query, list(items)))
        if 13 in items:
            raise ValueError("13 is no number to double")
        return [2 * item for item in items]


@contextmanager
def busy(max_batch: int = 4, places: int = 100) -> Iterator[tuple[Batcher, Doubler]]:
    """A batcher that is busy with 0 until its doubler is released."""
    doubler = Doubler()
    batcher = Batcher(doubler, max_batch, places)
    batcher.submit("a", 0)
    assert doubler.started.wait(10)
    yield batcher, doubler
    doubler.released.set()
    batcher.close()


def test_equal_queries_are_batched_in_order() -> None:
    with busy() as (batcher, doubler):
        futures = [batcher.submit(query, item) for item, query in enumerate("aabaabbaa", start=1)]
        doubler.released.set()
        assert [future.result(10) for future in futures] == [2 * item for item in range(1, 10)]
    assert doubler.batches == [("a", [0]), ("a", [1, 2, 4, 5]), ("b", [3, 6, 7]), ("a", [8, 9])]


def test_an_item_that_fails_affects_no_other() -> None:
    with busy() as (batcher, doubler):
        futures = {item: batcher.submit("a", item) for item in (12, 13, 14)}
        doubler.released.set()
        assert futures[12].result(10) == 24
        assert futures[14].result(10) == 28
        with pytest.raises(ValueError, match="13 is no number"):
            futures[13].result(10)


def test_a_cancelled_item_is_not_run() -> None:
    with busy() as (batcher, doubler):
        stays, leaves = batcher.submit("a", 1), batcher.submit("a", 2)
        assert leaves.cancel()
        doubler.released.set()
        assert stays.result(10) == 2
    assert doubler.batches == [("a", [0]), ("a", [1])]


def test_places_are_bounded_and_returned() -> None:
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
def test_close(drop: bool) -> None:
    doubler = Doubler()
    batcher = Batcher(doubler, 4, 10)
    futures = [batcher.submit("a", 0)]
    assert doubler.started.wait(10)
    futures += [batcher.submit("a", item) for item in (1, 2)]
    closing = threading.Thread(target=batcher.close, args=(drop,))
    closing.start()
    while not batcher.stopped:
        time.sleep(0.001)
    doubler.released.set()
    closing.join(10)
    assert futures[0].result(10) == 0
    assert [future.cancelled() for future in futures[1:]] == [drop, drop]
    assert doubler.batches == ([("a", [0])] if drop else [("a", [0]), ("a", [1, 2])])


def test_a_memory_budget_is_shared_and_waited_for() -> None:
    budget = MemoryBudget(10)
    budget.take(7)
    with pytest.raises(Full):
        budget.take(4)
    waiting = threading.Thread(target=budget.take, args=(4, None))
    waiting.start()
    budget.give(2)
    waiting.join(10)
    assert not waiting.is_alive()
    with pytest.raises(Full):
        budget.take(2, 0.01)
    budget.take(1)


def test_metrics_are_read_by_prometheus_client() -> None:
    metrics = Metrics()
    for seconds in (0.02, 0.3, 99.0):
        metrics.request("/predict", 200, seconds)
    metrics.request("other", 404, 0.001)
    metrics.batch(3, 0.2)
    families = text_string_to_metric_families(metrics.text(taken=5, places=9).decode())
    samples = [sample for family in families for sample in family.samples]

    def value(name: str, **labels: str) -> float:
        (only,) = [sample.value for sample in samples if (sample.name, sample.labels) == (f"verydeep_{name}", labels)]
        return float(only)

    assert value("requests_total", route="/predict", status="200") == 3
    assert value("requests_total", route="other", status="404") == 1
    bounds = {"0.01": 0, "0.025": 1, "60.0": 2, "+Inf": 3}
    assert bounds == {le: value("request_seconds_bucket", route="/predict", le=le) for le in bounds}
    assert value("request_seconds_count", route="/predict") == 3
    assert [value("batch_photos_bucket", le=le) for le in ("2.0", "4.0")] == [0, 1]
    assert value("batch_photos_sum") == 3
    assert (value("queue_length"), value("queue_places")) == (5, 9)
    assert Metrics().text(0, 0) != metrics.text(0, 0)  # each has a registry of its own
