"""Connections: where the server listens, the limits on slow clients, and the shutdown.

uvicorn handles HTTP but has no time limits for clients that never complete the request's head, go on sending after the
response, or do not read the response; these are closed here.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from ...core.errors import VerydeepError
from .middleware import refusal, secured

HEAD_SECONDS, LINGER_SECONDS, READ_SECONDS, RETRY_SECONDS = 10.0, 2.0, 30.0, 1.0
BACKLOG, MOST_CONNECTIONS, SPARE_FILES = 2048, 4000, 100


def open_socket(host: str, port: int) -> socket.socket:
    """A socket bound to an address, which does not listen yet.

    Raises:
        VerydeepError: the port is taken or not allowed, or the host is not this machine's.
    """
    try:
        (family, kind, proto, _, address), *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise VerydeepError(f"unknown host {host!r}: use an address of this machine, such as 127.0.0.1.") from None
    bound = socket.socket(family, kind, proto)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as fault:
        bound.close()
        advice = "use another --port, 0 for any that is free, or another --host"
        raise VerydeepError(f"cannot listen at {host} port {port}: {fault.strerror or fault}; {advice}.") from None
    return bound


def address_of(listening: socket.socket) -> str:
    """A socket's URL."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


class Connection(H11Protocol):
    """One client's connection."""

    def __init__(self, *words: Any, most: int = MOST_CONNECTIONS, **named: Any) -> None:
        super().__init__(*words, **named)
        self._most = most
        self._head: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has connected."""
        super().connection_made(transport)
        self._expect_head()
        if len(self.connections) > self._most:
            self._respond_raw(503, "too many connections: try again later.", RETRY_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has left."""
        self._head_complete()
        self._stop_unread()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """The client has sent something."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._head_complete()
        elif self._head is None and self.conn.trailing_data[0]:  # the beginning of another head
            self._expect_head()

    def on_response_complete(self) -> None:
        """The response is sent; what the client still sends of its request is dropped, for a while."""
        super().on_response_complete()
        if self.conn.their_state is h11.SEND_BODY:
            self.loop.call_later(LINGER_SECONDS, self._end_unread)

    def send_400_response(self, msg: str) -> None:
        """The client does not speak HTTP."""
        self._respond_raw(400, "this is not an HTTP request.")

    def pause_writing(self) -> None:
        """The client reads its responses more slowly than they are sent, or not at all."""
        super().pause_writing()
        self._stop_unread()
        self._unread = self.loop.call_later(READ_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """The client has read most of what was sent."""
        super().resume_writing()
        self._stop_unread()

    def timeout_keep_alive_handler(self) -> None:
        """The client was idle for too long."""
        super().timeout_keep_alive_handler()
        self._abort_later()

    def shutdown(self) -> None:
        """The server shuts down."""
        super().shutdown()
        if self.transport.is_closing():
            self._abort_later()

    def _respond_raw(self, status: int, sentence: str, wait: float | None = None) -> None:
        response = refusal(status, sentence, wait)
        headers = [*self.server_state.default_headers, *secured(response.raw_headers), (b"connection", b"close")]
        with contextlib.suppress(h11.LocalProtocolError):  # none can be sent in the middle of another response
            self.transport.write(self.conn.send(h11.Response(status_code=status, headers=headers)) or b"")
            self.transport.write(self.conn.send(h11.Data(data=bytes(response.body))) or b"")
            self.transport.write(self.conn.send(h11.EndOfMessage()) or b"")
        self.transport.close()
        self._abort_later()

    def _expect_head(self) -> None:
        self._head = self.loop.call_later(HEAD_SECONDS, self._no_head)

    def _head_complete(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None

    def _stop_unread(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _no_head(self) -> None:
        self._respond_raw(408, f"the request's head did not arrive within {HEAD_SECONDS:g} seconds.")

    def _end_unread(self) -> None:
        if self.cycle.response_complete and self.conn.their_state is h11.SEND_BODY:
            self.transport.close()
            self._abort_later()

    def _abort_later(self) -> None:
        """Aborts a closed connection whose client does not read the response in time."""
        self.loop.call_later(READ_SECONDS, self.transport.abort)


class Server(uvicorn.Server):
    """uvicorn's server; the first SIGTERM or Ctrl-C completes pending requests, the second stops at once."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None], stopping: Callable[[], None]) -> None:
        """``ready`` is called once it listens, ``stopping`` when the shutdown begins."""
        super().__init__(config)
        self._ready, self._stopping = ready, stopping
        self.forced = 0  # the number of the second signal

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts to listen."""
        await super().startup(sockets)
        self._ready()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """A context in which signals stop the server, not the process."""
        before = {number: signal.signal(number, self._on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, _frame: object) -> None:
        if self.should_exit:
            self.forced, self.force_exit = number, True
            return
        self.should_exit = True
        self._stopping()


def most_connections() -> int:
    """The maximum number of connections, after raising the limit of open files as far as allowed."""
    try:
        import resource
    except ImportError:  # Windows has none, and no such limit
        return MOST_CONNECTIONS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_CONNECTIONS + SPARE_FILES
    if soft < wanted and (hard == resource.RLIM_INFINITY or hard > soft):
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return max(1, min(MOST_CONNECTIONS, soft - SPARE_FILES))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """A context without the logs of libraries, which report every misbehaving client; the middleware logs failures."""
    loggers = [logging.getLogger(name) for name in ("uvicorn.error", "uvicorn.access", "asyncio")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def listen(app: Any, at: socket.socket, ready: Callable[[], None], stopping: Callable[[], None]) -> int:
    """Serves until a signal; returns 0, or the number of a second signal that stopped it at once."""
    config = uvicorn.Config(
        app,
        http=partial(Connection, most=most_connections()),  # type: ignore[arg-type]
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=BACKLOG,
    )
    with _quiet():
        server = Server(config, ready, stopping)
        server.run([at])
    return server.forced
