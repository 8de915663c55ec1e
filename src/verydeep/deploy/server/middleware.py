"""ASGI middleware before all routes: host check, security headers, request counts, and unexpected exceptions.

In a browser a page of another site can send requests to this machine's own addresses. So a server that listens there
responds only to names of this machine (against DNS rebinding), and refuses images from pages of other sites.
Starlette's TrustedHostMiddleware has no address ranges such as 127.0.0.0/8 and responds in plain text.
"""

from __future__ import annotations

import ipaddress
import math
import re
import time
from collections.abc import Set as AbstractSet
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ...core.progress import Reporter
from .metrics import Metrics

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "x-frame-options": "DENY",
}
PHOTOS = "/photos/"
HOST = re.compile(r"(\[[\da-f:.]+\]|[^][:/@?#\s]+)(:\d*)?", re.IGNORECASE)  # a name or address, and a port
TARGET = re.compile(r"https?://([^/]*)(/.*)?", re.IGNORECASE | re.DOTALL)  # a request's, as for a proxy
CLIENT_LEFT = 499  # counted, as by nginx, and never sent


def refusal(status: int, sentence: str, wait: float | None = None) -> Response:
    """An error as JSON; ``wait`` is the seconds of Retry-After."""
    headers = {} if wait is None else {"retry-after": str(math.ceil(wait))}
    return JSONResponse({"error": {"status": status, "message": sentence}}, status, headers)


def is_loopback(host: str) -> bool:
    """Whether a host name or address is a loopback one, which no other machine reaches."""
    name = host.strip("[]").lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


class Guard:
    """The ASGI application around the routes."""

    def __init__(self, app: ASGIApp, host: str, routes: AbstractSet[str], metrics: Metrics, reporter: Reporter) -> None:
        """``routes`` are the paths that are counted under their own names."""
        self._app, self._local, self._routes = app, is_loopback(host), routes
        self._metrics, self._reporter = metrics, reporter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        host = _origin_form(scope)
        started, status = time.monotonic(), 0

        async def send_safely(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = secured(message["headers"])
            await send(message)

        try:
            refused = self._refused(scope, host)
            await (refused or self._app)(scope, receive, send_safely)
        except ClientDisconnect:
            status = CLIENT_LEFT
        except Exception as fault:  # logged for whoever runs the server; the client gets no details
            self._reporter.warn(f"a request to {self._route(scope)} failed: {type(fault).__name__}: {fault}")
        finally:
            self._metrics.request(self._route(scope), status or CLIENT_LEFT, time.monotonic() - started)

    def _route(self, scope: Scope) -> str:
        path = scope["path"]
        return path if path in self._routes else PHOTOS if path.startswith(PHOTOS) else "other"

    def _refused(self, scope: Scope, host: str) -> Response | None:
        if not scope["http_version"].startswith("1."):
            return _last_refusal(505, f"this server has HTTP/1.1, not HTTP/{scope['http_version']}.")
        if {b"content-length", b"transfer-encoding"} <= {name for name, _ in scope["headers"]}:
            return _last_refusal(400, "the request has both Content-Length and Transfer-Encoding: send one of them.")
        if self._local and not is_loopback(_without_port(host)):
            return refusal(421, f"this server is for this machine only, not for the host {host[:80]!r}.")
        if scope["method"] == "POST" and _from_another_site(scope, host):
            return refusal(403, "pages of other sites may not use this server.")
        return None


def _values(scope: Scope, name: bytes) -> list[str]:
    return [value.decode("latin1").strip().lower() for key, value in scope["headers"] if key == name]


def _origin_form(scope: Scope) -> str:
    """The host of a request; a target that contains it, ``http://HOST/PATH``, becomes ``/PATH`` (RFC 9112, 3.2.2)."""
    if target := TARGET.fullmatch(scope["path"]):
        scope["path"] = target[2] or "/"
        return target[1].lower()
    return next(iter(_values(scope, b"host")), "")


def _from_another_site(scope: Scope, host: str) -> bool:
    """Whether a browser says that the page of another site sent a request.

    Sec-Fetch-Site comes with HTTPS and from this machine; else, and from old browsers, the origin is compared.
    """
    if sites := _values(scope, b"sec-fetch-site"):
        return not {"none", "same-origin"}.issuperset(sites)
    return any(origin.partition("://")[2] != host for origin in _values(scope, b"origin"))


def _last_refusal(status: int, sentence: str) -> Response:
    """An error after which the connection is closed, as it is unclear where the next request would begin."""
    response = refusal(status, sentence)
    response.headers["connection"] = "close"
    return response


def _without_port(host: str) -> str:
    """The name or address in a Host header; empty where it is malformed."""
    parts = HOST.fullmatch(host)
    return parts[1] if parts else ""


def secured(raw: Any) -> list[tuple[bytes, bytes]]:
    """The headers of a response with those that every response has."""
    headers = [(name.lower(), value) for name, value in raw]
    names = {name for name, _ in headers}
    more = HEADERS if b"cache-control" in names else {**HEADERS, "cache-control": "no-store"}
    return [*headers, *((name.encode(), value.encode()) for name, value in more.items())]
