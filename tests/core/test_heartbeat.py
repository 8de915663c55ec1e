"""Processes of a job that hang are found by the others; those that are done, or stopped with them, are not."""

from __future__ import annotations

import threading
import time

import pytest

from verydeep.core.heartbeat import LEFT, Pulse

LIMIT = 0.5


class Store:
    """What processes of a job share, in one process; it can be out of reach."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self.away = False

    def _reached(self) -> None:
        if self.away:
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


class Told:
    """The sentences of a silence, as they come."""

    def __init__(self) -> None:
        self.sentences: list[str] = []
        self.one = threading.Event()

    def __call__(self, sentence: str) -> None:
        self.sentences.append(sentence)
        self.one.set()


@pytest.fixture
def store() -> Store:
    return Store()


def begun(store: Store, rank: int, size: int, told: Told) -> Pulse:
    pulse = Pulse(store, rank, size, LIMIT, told)
    pulse.start()
    return pulse


def test_those_who_live_and_those_who_are_done_are_never_silent(store: Store) -> None:
    told = Told()
    pulses = [begun(store, rank, 3, told) for rank in range(3)]
    time.sleep(2 * LIMIT)
    pulses[0].leave()
    time.sleep(2 * LIMIT)
    assert store.values["pulse/0"].decode() == LEFT
    for pulse in pulses[1:]:
        assert pulse.is_alive()
        pulse.leave()
    assert told.sentences == []


def test_a_silent_process_is_named_with_its_machine(store: Store) -> None:
    told = Told()
    store.set("pulse/1", "17 process 4711 on node-b")
    began = time.monotonic()
    pulse = begun(store, 0, 2, told)
    assert told.one.wait(10 * LIMIT)
    assert time.monotonic() - began > LIMIT
    pulse.leave()
    assert told.sentences[0].startswith("rank 1 of 2 (process 4711 on node-b) has been unresponsive for 0.5 s")
    assert "--peer-timeout" in told.sentences[0]


def test_one_that_was_never_heard_of_is_silent_too(store: Store) -> None:
    told = Told()
    pulse = begun(store, 0, 2, told)
    assert told.one.wait(10 * LIMIT)
    pulse.leave()
    assert "(never connected)" in told.sentences[0]


def test_a_store_out_of_reach_is_told_as_that_and_a_short_absence_is_not(store: Store) -> None:
    told = Told()
    store.set("pulse/1", LEFT)
    pulse = begun(store, 0, 2, told)
    store.away = True
    time.sleep(LIMIT / 2)
    store.away = False
    time.sleep(LIMIT)
    assert told.sentences == []
    store.away = True
    assert told.one.wait(10 * LIMIT)
    pulse.leave()
    assert told.sentences[0] == "torchrun on the first machine has not responded for 0.5 s, and so this process ends."
