"""Requests as bytes, to a connection of the server and to its routes, in this process and without a network."""

from __future__ import annotations

import asyncio
import atexit
import functools
import tempfile
from pathlib import Path

import h11
import uvicorn
from servers import make_served
from uvicorn.server import ServerState

import verydeep
from verydeep.core.errors import VerydeepError
from verydeep.core.progress import Collected
from verydeep.core.settings import MachineSettings, ServeSettings
from verydeep.deploy.server.app import build
from verydeep.deploy.server.metrics import Metrics
from verydeep.deploy.server.models import open_served
from verydeep.deploy.server.uvicorn_server import Connection

PIECE = 65_536  # bytes that a connection is given at once
LAST = 60.0  # seconds in which the work on a request ends after its client has left
ALLOWED = (501, 503, 505)  # of the statuses that a server's own faults have


class _Client(asyncio.Transport):
    """A client that has sent its bytes, and keeps what it gets."""

    def __init__(self) -> None:
        super().__init__()
        self.got: list[bytes] = []
        self._closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Keeps a response's bytes: its head, or a part of its body."""
        self.got.append(bytes(data))

    def close(self) -> None:
        """The server has closed the connection."""
        self._closed = True

    def abort(self) -> None:
        """The same."""
        self._closed = True

    def is_closing(self) -> bool:
        """Whether it has."""
        return self._closed

    def pause_reading(self) -> None:
        """The bytes are here already."""

    def resume_reading(self) -> None:
        """The same."""


class _Handler:
    """A server of small models, and the connections to it."""

    def __init__(self, place: Path) -> None:
        make_served(place)
        machine = MachineSettings(workers=0, threads=1)
        classifier = verydeep.load(place / "run", machine=machine)
        others = (str(place / "net"), str(place / "f.safetensors"), None)
        self._reporter, self._loop = Collected(), asyncio.new_event_loop()
        atexit.register(self._loop.close)
        served = open_served("run", classifier, *others, machine, self._reporter)
        app, self._site = build(served, ServeSettings(), Metrics(), self._reporter)
        self._config = uvicorn.Config(app, ws="none", lifespan="off", log_config=None, access_log=False)
        self._config.load()
        self._reporter.warnings.clear()

    def handle(self, data: bytes) -> list[int]:
        """The statuses of the responses to a client's bytes.

        Raises:
            VerydeepError: the last response refuses its request.
            AssertionError: the server failed.
        """
        got = self._loop.run_until_complete(self._exchange(data))
        statuses = [int(part[9:12]) for part in got if part.startswith(b"HTTP/1.1 ")]
        failed = [status for status in statuses if status >= 500 and status not in ALLOWED]
        if failed or self._reporter.warnings:
            raise AssertionError(f"{failed} {[self._reporter.warnings.pop() for _ in self._reporter.warnings[:]]}")
        if statuses and statuses[-1] >= 400:
            raise VerydeepError(f"status {statuses[-1]}")
        return statuses

    async def _exchange(self, data: bytes) -> list[bytes]:
        client, state = _Client(), ServerState()
        connection = Connection(self._config, state, {}, self._loop)
        connection.connection_made(client)
        for start in range(0, len(data), PIECE):
            if not client.is_closing():
                connection.data_received(data[start : start + PIECE])
                await asyncio.sleep(0)
        while not client.is_closing() and connection.cycle is not None and _at_work(connection):
            await asyncio.sleep(0.0005)
        connection.connection_lost(None)
        if state.tasks:
            _, still = await asyncio.wait(state.tasks, timeout=LAST)
            assert not still, "the work on a request did not end after its client had left"
        return client.got


def _at_work(connection: Connection) -> bool:
    """Whether a request is complete, and its response is not."""
    return not connection.cycle.response_complete and connection.conn.their_state is not h11.SEND_BODY


@functools.cache
def _handler() -> _Handler:
    return _Handler(Path(tempfile.mkdtemp(prefix="fuzz-http-")))


def handle(data: bytes) -> list[int]:
    """As `_Handler.handle`, by one that is made for the first bytes."""
    return _handler().handle(data)
