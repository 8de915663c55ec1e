"""Processes of a job that hang time out; those that have finished, or were suspended together, do not."""

from __future__ import annotations

import threading
import time

import pytest

from verydeep.core.heartbeat import LEFT, Heartbeat

LIMIT = 0.5


class Store:
    """The store that processes of a job share, in one process; it can be unreachable."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self.away = False
        self.blocks = 0.0  # seconds

    def _reached(self) -> None:
        if self.away:
            time.sleep(self.blocks)
            raise RuntimeError("Connection reset by peer")

    def set(self, key: str, value: str) -> None:
        self._reached()
        self.values[key] = value.encode()

    def check(self, keys: list[str]) -> bool:
        self._reached()
        return all(key in self.values for key in keys)

    def get(self, key: str) -> bytes:
        self._reached()
        return self.values[key]


class Messages:
    """Collects the messages of timeouts."""

    def __init__(self) -> None:
        self.received: list[str] = []
        self.first = threading.Event()

    def __call__(self, message: str) -> None:
        self.received.append(message)
        self.first.set()


@pytest.fixture
def store() -> Store:
    return Store()


def started(store: Store, rank: int, size: int, messages: Messages) -> Heartbeat:
    heartbeat = Heartbeat(store, rank, size, LIMIT, messages)
    heartbeat.start()
    return heartbeat


def test_running_and_finished_processes_never_time_out(store: Store) -> None:
    messages = Messages()
    heartbeats = [started(store, rank, 3, messages) for rank in range(3)]
    time.sleep(2 * LIMIT)
    heartbeats[0].leave()
    time.sleep(2 * LIMIT)
    assert store.values["pulse/0"].decode() == LEFT
    for heartbeat in heartbeats[1:]:
        assert heartbeat.is_alive()
        heartbeat.leave()
    assert messages.received == []


def test_an_unresponsive_process_is_named_with_its_machine(store: Store) -> None:
    messages = Messages()
    store.set("pulse/1", "17 process 4711 on node-b")
    start = time.monotonic()
    heartbeat = started(store, 0, 2, messages)
    assert messages.first.wait(10 * LIMIT)
    assert time.monotonic() - start > LIMIT
    heartbeat.leave()
    assert messages.received[0].startswith("rank 1 of 2 (process 4711 on node-b) has been unresponsive for 0.5 s")
    assert "--peer-timeout" in messages.received[0]


def test_a_process_that_never_connected_times_out(store: Store) -> None:
    messages = Messages()
    heartbeat = started(store, 0, 2, messages)
    assert messages.first.wait(10 * LIMIT)
    heartbeat.leave()
    assert "(never connected)" in messages.received[0]


def test_an_unreachable_store_times_out_and_a_short_interruption_does_not(store: Store) -> None:
    messages = Messages()
    store.set("pulse/1", LEFT)
    heartbeat = started(store, 0, 2, messages)
    store.away = True
    time.sleep(LIMIT / 2)
    store.away = False
    time.sleep(LIMIT)
    assert messages.received == []
    store.away = True
    assert messages.first.wait(10 * LIMIT)
    heartbeat.leave()
    assert messages.received[0] == "torchrun on the first machine has not responded for 0.5 s; this process exits."


def test_a_store_behind_a_cut_link_times_out_with_its_first_call(store: Store) -> None:
    """No error comes then but that of the call's own timeout, which looks like a suspension of this process."""
    messages = Messages()
    store.away, store.blocks = True, LIMIT
    start = time.monotonic()
    heartbeat = started(store, 1, 2, messages)
    assert messages.first.wait(10 * LIMIT)
    assert time.monotonic() - start < 5 * LIMIT
    heartbeat.leave()
    assert messages.received[0].startswith("torchrun on the first machine has not responded")
