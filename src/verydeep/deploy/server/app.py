"""The server's routes: images in, JSON out; errors are ``{"error": {"status": …, "message": …}}``."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from concurrent.futures import Future
from hashlib import sha256
from importlib.metadata import version
from importlib.resources import files
from typing import Annotated, Any

import fastapi
from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Route

from ...core.errors import ImageError, VerydeepError
from ...core.memory import retain_freed_memory
from ...core.nearest import nearest
from ...core.progress import Reporter
from ...core.settings import ServeSettings
from .batching import Batcher, Full, Stopped
from .metrics import Metrics
from .middleware import Guard, refusal
from .models import Query, QueryImage, RouteName, ServedModels
from .schemas import (
    ANYWHERE,
    MAX_TOP,
    Boxes,
    BoxParameters,
    Descriptor,
    Health,
    Info,
    Map,
    MapParameters,
    Neighbours,
    Parameters,
    Predictions,
    TopParameters,
    errors,
    image_body,
)
from .uploads import Refused, Uploads

PAGE = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
MISSING: dict[RouteName, str] = {
    "explain": "score maps are of a net itself, not of an exported file or of SVMs",
    "localise": "start the server with --boxes DIR",
    "describe": "start the server with --features FILE",
    "similar": "start the server with --features FILE",
}
PNG, JPEG = "image/png", "image/jpeg"
MAX_WAIT = 60  # seconds of Retry-After
NUMBER = re.compile(r"[0-9]{1,15}")  # Python reads only so many digits, and no file has so many images
PLACE = {"name": "place", "in": "path", "required": True, "schema": {"type": "integer", "minimum": 0}}


class Site:
    """The routes' handlers, with the queue and the uploads that they share."""

    def __init__(self, served: ServedModels, settings: ServeSettings, metrics: Metrics) -> None:
        """Starts the threads that decode and the one that runs the models."""
        self._served, self._settings, self._metrics = served, settings, metrics
        self.uploads = Uploads(settings)
        self.batcher = Batcher(served.run, settings.batch, settings.queue, metrics.batch, retain_freed_memory)

    async def predict(self, request: Request, query: Annotated[TopParameters, fastapi.Query()]) -> Any:
        """The most likely classes, the most likely first."""
        return await self._run(request, Query("predict"), query.top or 5)

    async def explain(self, request: Request, query: Annotated[MapParameters, fastapi.Query()]) -> Any:
        """Where a class is seen: its dense score map, or Grad-CAM, as numbers or laid over the image."""
        return await self._run(request, Query("explain", None, query.class_, query.kind, query.form == "png"))

    async def localise(self, request: Request, query: Annotated[BoxParameters, fastapi.Query()]) -> Any:
        """Boxes of the most likely classes, [xmin, ymin, xmax, ymax] in pixels of the image."""
        return await self._run(request, Query("localise", query.top, query.class_))

    async def describe(self, request: Request, query: Annotated[Parameters, fastapi.Query()]) -> Any:
        """The image's descriptor, computed as those of the features file."""
        return await self._run(request, Query("describe"))

    async def similar(self, request: Request, query: Annotated[TopParameters, fastapi.Query()]) -> Any:
        """The nearest images of the features file; `photo` is the number of a thumbnail at /photos/{place}, or null."""
        return await self._run(request, Query("similar"), query.top or 10)

    async def _run(self, request: Request, query: Query, top: int = 1) -> Any:
        """Reads an image, queues it, and returns the result of the models."""
        with await self.uploads.read(request) as body, self.batcher.place(), await self.uploads.decode(body) as image:
            height, width = image.value.shape[:2]
            future = self.batcher.submit(query, QueryImage(image.value, top))
            result = await _unless_gone(request, future)
        return Response(result, media_type=PNG) if query.picture else {"width": width, "height": height, **result}

    async def info(self) -> dict[str, Any]:
        """What is served: classes, routes that take an image, limits, calibration."""
        served, settings = self._served, self._settings
        limits = {"bytes": settings.max_bytes, "pixels": settings.max_pixels, "queue": settings.queue}
        classes, ways = list(served.classifier.classes), list(served.routes)
        named = {"name": served.name, "kind": served.kind, "temperature": served.temperature}
        threshold = None if served.rejection is None else served.rejection.threshold
        return {**named, "threshold": threshold, "classes": classes, "ways": ways, "limits": limits}

    async def health(self) -> Response:
        """Whether the server accepts requests, and how many are in progress or waiting."""
        stopping = self.batcher.stopped
        content = {"status": "stopping" if stopping else "ok", "queue": self.batcher.taken}
        return JSONResponse(content, 503 if stopping else 200)

    async def metrics(self) -> Response:
        """Counts and times in Prometheus' text format."""
        text = self._metrics.text(self.batcher.taken, self.batcher.places)
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4")

    async def thumbnail(self, request: Request) -> Response:
        """A thumbnail of an image of the features file."""
        thumbnails = self._served.thumbnails
        if thumbnails is None:
            raise Refused(404, "the images of the features file are not available.")
        place = request.path_params["place"]
        try:
            number = int(place) if NUMBER.fullmatch(place) else -1
            jpeg = await self.uploads.in_thread(thumbnails.picture, number)
        except ImageError as fault:
            raise Refused(404, str(fault)) from None
        if jpeg is None:
            raise Refused(404, "there is no image with this number.")
        return Response(jpeg, media_type=JPEG, headers={"cache-control": "private, max-age=3600"})

    def add_routes(self, app: FastAPI) -> None:
        """Adds all routes."""
        anywhere = errors(*ANYWHERE)
        for path, (name, media_type) in PAGE.items():
            shown: dict[str, Any] = {"summary": "The page", "include_in_schema": path == "/", "responses": anywhere}
            app.get(path, response_class=HTMLResponse, **shown)(_page_file(name, media_type))
        handlers: dict[Callable[..., Any], type] = {
            **{self.predict: Predictions, self.explain: Map, self.localise: Boxes},
            **{self.describe: Descriptor, self.similar: Neighbours},
        }
        for handler, response in handlers.items():
            route: Any = handler.__name__
            images: dict[int | str, Any] = {200: {"content": {PNG: {}}}} if route == "explain" else {}
            app.post(
                f"/{route}",
                response_model=response,
                response_model_exclude_unset=True,
                responses={**images, **errors()},
                dependencies=[Depends(self._check_served(route))],
                openapi_extra=image_body(self._settings),
                **_documented(handler),
            )(handler)
        stopping: dict[int | str, Any] = {
            **anywhere,
            503: {"model": Health, "description": "the server is shutting down"},
        }
        app.get("/info", response_model=Info, responses=anywhere, **_documented(self.info))(self.info)
        app.get("/health", response_model=Health, responses=stopping, **_documented(self.health))(self.health)
        text: Any = {"response_class": PlainTextResponse, "responses": anywhere}
        app.get("/metrics", **text, **_documented(self.metrics))(self.metrics)
        photos: dict[str, Any] = {"responses": {200: {"content": {JPEG: {}}}, **errors(404, *ANYWHERE)}}
        photos |= {"response_class": Response, "openapi_extra": {"parameters": [PLACE]}}
        app.get("/photos/{place}", **photos, **_documented(self.thumbnail))(self.thumbnail)

        @app.get("/openapi.json", response_model=dict[str, Any], responses=anywhere, summary="This document")
        async def openapi() -> JSONResponse:
            return JSONResponse(app.openapi())

    def _check_served(self, route: RouteName) -> Callable[[], Any]:
        async def check() -> None:
            if route not in self._served.routes:
                raise Refused(404, f"/{route} is not served here: {MISSING[route]}.")

        return check

    async def on_fault(self, request: Request, fault: Exception) -> Response:
        """The response to every exception."""
        if isinstance(fault, Refused):
            return refusal(fault.status, fault.message, fault.wait)
        if isinstance(fault, Full):
            wait = min(MAX_WAIT, max(1.0, self.batcher.wait))
            return refusal(503, f"the queue of {self.batcher.places} requests is full: try again later.", wait)
        if isinstance(fault, Stopped):
            return refusal(503, "the server is shutting down: use another, or try again later.", MAX_WAIT)
        if isinstance(fault, ImageError):
            return refusal(400, str(fault))
        if isinstance(fault, RequestValidationError):
            return refusal(422, _parameter_sentence(request, fault.errors()[0]))
        if isinstance(fault, HTTPException):
            return _no_route(request, fault)
        if isinstance(fault, VerydeepError):
            return refusal(422, str(fault))
        return refusal(500, "the server failed; its log has the reason.")  # the guard logs what was raised


def build(served: ServedModels, settings: ServeSettings, metrics: Metrics, reporter: Reporter) -> tuple[Guard, Site]:
    """The application, and the site to close after it."""
    site = Site(served, settings, metrics)
    kinds = (Refused, Full, Stopped, RequestValidationError, HTTPException, VerydeepError, Exception)
    app = FastAPI(
        title="verydeep serve",
        version=version("verydeep"),
        openapi_url=None,  # FastAPI's own route is not part of the document
        docs_url=None,  # these pages load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
        exception_handlers=dict.fromkeys(kinds, site.on_fault),
    )
    site.add_routes(app)
    _list_classes(app.openapi(), served)  # FastAPI keeps the document, so it has no HEAD
    routes = [route for route in app.routes if isinstance(route, Route)]
    for route in routes:
        if route.methods and "GET" in route.methods:
            route.methods.add("HEAD")
    return Guard(app, settings.host, {route.path for route in routes}, metrics, reporter), site


def _list_classes(document: dict[str, Any], served: ServedModels) -> None:
    """Puts the served classes into the OpenAPI document, as the values of each parameter that names one."""
    classes = {"explain": served.classifier.classes, "localise": served.localiser and served.localiser.classes}
    for route, names in classes.items():
        for parameter in document["paths"][f"/{route}"]["post"]["parameters"]:
            if names and parameter["name"] == "class":
                parameter["schema"] = {"type": "string", "enum": list(names)}


def _page_file(name: str, media_type: str) -> Callable[..., Any]:
    """A handler for a file of the page, read once; browsers that have it already get 304."""
    data = files(__package__).joinpath("page", name).read_bytes()
    headers = {"cache-control": "no-cache", "etag": f'"{sha256(data).hexdigest()[:16]}"'}

    async def page_file(request: Request) -> Response:
        if headers["etag"] in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(data, media_type=media_type, headers=headers)

    return page_file


def _documented(handler: Callable[..., Any]) -> dict[str, Any]:
    """What OpenAPI takes from a handler: its name and its docstring."""
    summary = (handler.__doc__ or "").rstrip(".")
    return {"operation_id": handler.__name__, "summary": summary, "response_description": summary}


def _parameter_sentence(request: Request, error: dict[str, Any]) -> str:
    """The error message for an invalid query parameter."""
    name, path, value = str(error["loc"][-1])[:60], request.url.path, str(error["input"])[:60]
    if error["type"] == "extra_forbidden":
        known = [parameter["name"] for parameter in _parameters(request, path)]
        near = nearest(name, known, 0.5)
        hint = f"did you mean {near!r}?" if near else f"it takes {', '.join(known) or 'none'}."
        return f"there is no parameter {name!r} of {path}: {hint}"
    if name == "top":
        return f"top must be a number from 1 to {MAX_TOP:,}, not {value!r}."
    return f"{name} is {error['ctx']['expected'].replace(chr(39), '')}, not {value!r}."


def _parameters(request: Request, path: str) -> list[dict[str, Any]]:
    """The parameters of a route, from the OpenAPI document."""
    parameters: list[dict[str, Any]] = request.app.openapi()["paths"][path]["post"].get("parameters", [])
    return parameters


async def _unless_gone(request: Request, future: Future[Any]) -> Any:
    """A future's result while the client is connected; it is cancelled where the client leaves."""
    result = asyncio.wrap_future(future)
    gone = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({result, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not result.done():
            raise ClientDisconnect
        if result.cancelled():
            raise Stopped
        return result.result()
    finally:
        gone.cancel()
        result.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _no_route(request: Request, fault: HTTPException) -> Response:
    path = request.url.path[:80]
    if fault.status_code == 405:
        allowed = (fault.headers or {}).get("Allow", "")
        response = refusal(405, f"{path} takes {allowed.replace(', ', ' or ')}, not {request.method[:20]}.")
        response.headers["allow"] = allowed
        return response
    return refusal(fault.status_code, f"there is no {path} here: GET /openapi.json describes what there is.")
