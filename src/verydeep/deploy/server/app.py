"""The server's routes: what is asked over HTTP, answered as JSON; mistakes as ``{"error": {status, message}}``."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from importlib.resources import files
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from ...core.errors import ImageError, VerydeepError
from ...core.nearest import nearest
from ...core.progress import Reporter
from ...core.settings import ServeSettings
from .batching import Batcher, Full, Stopped
from .metrics import Metrics
from .middleware import Guard, refusal
from .models import Query, QueryImage, ServedModels
from .openapi import WAYS, document
from .uploads import Refused, Uploads

PAGE = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
MOST_TOP, MOST_WAIT = 1000, 60
PNG = "image/png"


class Site:
    """What the routes do."""

    def __init__(self, served: ServedModels, settings: ServeSettings, metrics: Metrics) -> None:
        """Begins the threads that decode and that ask."""
        self._served, self._settings, self._metrics = served, settings, metrics
        self.uploads = Uploads(settings)
        self.batcher = Batcher(served.answer, settings.batch, settings.queue, metrics.batch, served.at_work)

    def routes(self) -> list[Route]:
        """All of them."""
        found = [Route(path, self._file(*what)) for path, what in PAGE.items()]
        found += [Route(f"/{way}", self._asks(way), methods=["POST"]) for way in WAYS]
        found += [Route("/openapi.json", self.openapi), Route("/info", self.info), Route("/health", self.health)]
        return [*found, Route("/metrics", self.metrics), Route("/photos/{place:int}", self.photo)]

    def _file(self, name: str, kind: str) -> Callable[[Request], Any]:
        """The answer of a page's file, read once."""
        data = files(__package__).joinpath("page", name).read_bytes()

        async def answer(_: Request) -> Response:
            return Response(data, media_type=kind, headers={"cache-control": "no-cache"})

        return answer

    def _asks(self, way: str) -> Callable[[Request], Any]:
        async def answer(request: Request) -> Response:
            if way not in self._served.ways:
                raise Refused(404, f"/{way} is not served here: {WAYS[way].missing}.")
            return await self._answer(request, *_question(way, request.query_params))

        return answer

    async def _answer(self, request: Request, question: Query, top: int) -> Response:
        """Reads a photo, waits for its turn, and answers."""
        with await self.uploads.read(request) as body, self.batcher.place(), await self.uploads.decode(body) as photo:
            height, width = photo.value.shape[:2]
            future = self.batcher.submit(question, QueryImage(photo.value, top))
            found = await _unless_gone(request, future)
        if question.picture:
            return Response(found, media_type=PNG)
        return JSONResponse({"width": width, "height": height, **found})

    async def openapi(self, request: Request) -> Response:
        """The API's description."""
        return JSONResponse(document(self._settings))

    async def info(self, request: Request) -> Response:
        """What is served, and within which limits."""
        served, limits = self._served, self._settings
        told = {
            "name": served.name,
            "kind": served.kind,
            "classes": list(served.asked.classes),
            "ways": list(served.ways),
            "limits": {"bytes": limits.max_bytes, "pixels": limits.max_pixels, "queue": limits.queue},
        }
        return JSONResponse(told)

    async def health(self, request: Request) -> Response:
        """Whether it takes requests, and how many are at work or waiting; 503 while it ends."""
        stopping = self.batcher.stopped
        told = {"status": "stopping" if stopping else "ok", "queue": self.batcher.taken}
        return JSONResponse(told, 503 if stopping else 200)

    async def metrics(self, request: Request) -> Response:
        """What was counted."""
        text = self._metrics.text(self.batcher.taken, self.batcher.places)
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4")

    async def photo(self, request: Request) -> Response:
        """A small picture of a photo of the features file."""
        pictures = self._served.thumbnails
        if pictures is None:
            raise Refused(404, "the photos that were described are not here.")
        try:
            found = await self.uploads.in_thread(pictures.picture, request.path_params["place"])
        except ImageError as fault:
            raise Refused(404, str(fault)) from None
        if found is None:
            raise Refused(404, "there is no photo of this number.")
        return Response(found, media_type="image/jpeg", headers={"cache-control": "max-age=3600"})

    async def on_fault(self, request: Request, fault: Exception) -> Response:
        """The answer to everything that ends a request but an answer."""
        if isinstance(fault, Refused):
            return refusal(fault.status, fault.message, fault.wait)
        if isinstance(fault, Full):
            wait = min(MOST_WAIT, max(1.0, self.batcher.wait))
            return refusal(503, f"{self.batcher.places} requests are waiting, which is all: come back later.", wait)
        if isinstance(fault, Stopped):
            return refusal(503, "the server is ending: ask another, or come back later.", MOST_WAIT)
        if isinstance(fault, ImageError):
            return refusal(400, str(fault))
        if isinstance(fault, HTTPException):
            return _no_route(request, fault)
        if isinstance(fault, VerydeepError):
            return refusal(422, str(fault))
        return refusal(500, "the server failed; whoever runs it is told why.")  # by the guard, to whom it goes on


def build(served: ServedModels, settings: ServeSettings, metrics: Metrics, reporter: Reporter) -> tuple[Guard, Site]:
    """The application, and what is to be closed after it."""
    site = Site(served, settings, metrics)
    kinds = (Refused, Full, Stopped, HTTPException, VerydeepError, Exception)
    handlers: Any = dict.fromkeys(kinds, site.on_fault)
    inner = Starlette(routes=site.routes(), exception_handlers=handlers)
    inner.router.redirect_slashes = False
    own = {*PAGE, *(f"/{way}" for way in WAYS), "/openapi.json", "/info", "/health", "/metrics"}
    return Guard(inner, settings.host, own, metrics, reporter), site


def _question(way: str, given: Mapping[str, str]) -> tuple[Query, int]:
    """What a route and its parameters ask, and how many answers are wanted.

    Raises:
        Refused: a parameter that does not exist, or a value that does not fit.
    """
    known = WAYS[way].parameters
    for name in given:
        if name not in known:
            near = nearest(name[:60], known, 0.5)
            hint = f"did you mean {near!r}?" if near else f"it knows {', '.join(known) or 'none'}."
            raise Refused(422, f"there is no parameter {name[:60]!r} of /{way}: {hint}")
    top = given.get("top")
    if top is not None and not (top.isascii() and top.isdigit() and len(top) < 5 and 1 <= int(top) <= MOST_TOP):
        raise Refused(422, f"top is a number from 1 to {MOST_TOP:,}, not {top[:60]!r}.")
    count = None if top is None else int(top)
    choices: dict[str, str] = {}
    for name in ("kind", "form"):
        words = known.get(name, ("",))
        choices[name] = given.get(name, words[0])
        if choices[name] not in words:
            raise Refused(422, f"{name} is {' or '.join(words)}, not {choices[name][:60]!r}.")
    if way in ("predict", "similar", "describe"):
        return Query(way), count or (10 if way == "similar" else 5)  # type: ignore[arg-type]
    kind: Any = choices["kind"] or "map"
    return Query(way, count, given.get("class"), kind, choices["form"] == "png"), 1  # type: ignore[arg-type]


async def _unless_gone(request: Request, future: Future[Any]) -> Any:
    """A future's result, while the client is there; it is cancelled where the client leaves."""
    answer = asyncio.wrap_future(future)
    gone = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            raise ClientDisconnect
        if answer.cancelled():
            raise Stopped
        return answer.result()
    finally:
        gone.cancel()
        answer.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _no_route(request: Request, fault: HTTPException) -> Response:
    path = request.url.path[:80]
    if fault.status_code == 405:
        allowed = (fault.headers or {}).get("Allow", "")
        answer = refusal(405, f"{path} takes {allowed.replace(', ', ' or ')}, not {request.method[:20]}.")
        answer.headers["allow"] = allowed
        return answer
    return refusal(fault.status_code, f"there is no {path} here: GET /openapi.json tells what there is.")
