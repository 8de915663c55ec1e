"""The API as an OpenAPI 3.1 document, written as data; the routes read from it which parameters they know."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

from ...core.settings import ServeSettings

NUMBER, TEXT, WHOLE = {"type": "number"}, {"type": "string"}, {"type": "integer"}
MISTAKES = {
    "400": "the body is empty, or the photo broken",
    "403": "a page of another site asks",
    "404": "this server has no such net: it was started without it",
    "408": "the photo did not arrive in time",
    "413": "too many bytes or pixels",
    "415": "no photo in a known format",
    "421": "the host's name is not this machine's",
    "422": "a parameter that does not exist, or a value that does not fit",
    "500": "the server failed",
    "503": "all places are taken, or the server ends; Retry-After says when to come back",
}


def _rows(item: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": item}


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _photo(**properties: Any) -> dict[str, Any]:
    return _object(width=WHOLE, height=WHOLE, **properties)


@dataclass(frozen=True)
class Way:
    """A route that takes a photo: in words, its answer's schema, its parameters with the words that they may be.

    ``missing`` says what a server that does not have it lacks. ``parameters`` that take any value list none.
    """

    summary: str
    answer: dict[str, Any]
    missing: str
    parameters: dict[str, tuple[str, ...]] = field(default_factory=dict)


PREDICTION = {
    "type": "object",
    "properties": {"class": TEXT, "probability": NUMBER, "score": NUMBER},
    "required": ["class"],
    "description": "probability of a net, or score of an SVM, above 0 where it says yes",
}
PLACED = {"description": "centres of the cells in pixels of the photo", **_rows(NUMBER)}
WAYS = {
    "predict": Way(
        "The likeliest classes, the likeliest first", _photo(predictions=_rows(PREDICTION)), "", {"top": ()}
    ),
    "explain": Way(
        "Where a class is seen: its dense score map, or Grad-CAM, as numbers or laid over the photo",
        _photo(**{"class": TEXT, "kind": TEXT, "values": _rows(_rows(NUMBER)), "rows": PLACED, "columns": PLACED}),
        "score maps are of a net itself, not of an exported file or of SVMs",
        {"class": (), "kind": ("map", "gradcam"), "form": ("json", "png")},
    ),
    "localise": Way(
        "Boxes of the likeliest classes, [xmin, ymin, xmax, ymax] in pixels of the photo",
        _photo(boxes=_rows(_object(**{"class": TEXT, "score": NUMBER, "box": _rows(NUMBER)}))),
        "start it with --boxes DIR",
        {"top": (), "class": ()},
    ),
    "describe": Way(
        "The photo's descriptor, as those of the features file are",
        _photo(descriptor=_rows(NUMBER)),
        "start it with --features FILE",
    ),
    "similar": Way(
        "The nearest photos of the features file; `photo` is the number of its picture at /photos/{place}, or null",
        _photo(
            neighbours=_rows(
                _object(**{"image": TEXT, "class": TEXT, "cosine": NUMBER, "photo": {"type": ["integer", "null"]}})
            )
        ),
        "start it with --features FILE",
        {"top": ()},
    ),
}
ABOUT = {
    "top": "how many, 1 to 1000",
    "class": "the class, by its name; by default the likeliest",
    "kind": "the dense score map or Grad-CAM",
    "form": "numbers, or a picture",
}


def document(settings: ServeSettings) -> dict[str, Any]:
    """The OpenAPI document of a server with these limits."""
    paths: dict[str, Any] = {f"/{name}": {"post": _post(name, way, settings)} for name, way in WAYS.items()}
    limits = _object(bytes=WHOLE, pixels=WHOLE, queue=WHOLE)
    info = _object(name=TEXT, kind=TEXT, classes=_rows(TEXT), ways=_rows(TEXT), limits=limits)
    health = _object(status={"enum": ["ok", "stopping"]}, queue=WHOLE)
    paths["/info"] = _get("What is served: classes, what can be asked, limits", _json(info))
    paths["/health"] = _get("Whether it takes requests", _json(health))
    paths["/health"]["get"]["responses"]["503"] = {"description": "it is ending", "content": _json(health)}
    paths["/metrics"] = _get("Counts and times, as Prometheus reads them", {"text/plain": {"schema": TEXT}})
    paths["/openapi.json"] = _get("This document", _json({"type": "object"}))
    paths["/photos/{place}"] = _get("A small picture of a photo of the features file", {"image/jpeg": {}})
    place = {"name": "place", "in": "path", "required": True, "schema": {**WHOLE, "minimum": 0}}
    paths["/photos/{place}"]["get"]["parameters"] = [place]
    paths["/photos/{place}"]["get"]["responses"]["404"] = _mistake("no such photo, or its file is gone")
    paths["/"] = _get("The page", {"text/html": {"schema": TEXT}})
    error = _object(error=_object(status=WHOLE, message=TEXT))
    title = {"title": "verydeep serve", "version": version("verydeep")}
    return {"openapi": "3.1.0", "info": title, "paths": paths, "components": {"schemas": {"Error": error}}}


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _mistake(text: str) -> dict[str, Any]:
    return {"description": text, "content": _json({"$ref": "#/components/schemas/Error"})}


def _get(summary: str, content: dict[str, Any]) -> dict[str, Any]:
    return {"get": {"summary": summary, "responses": {"200": {"description": summary, "content": content}}}}


def _post(name: str, way: Way, settings: ServeSettings) -> dict[str, Any]:
    answers = _json(way.answer)
    if "png" in way.parameters.get("form", ()):
        answers["image/png"] = {}
    limits = f"at most {settings.max_bytes:,} bytes and {settings.max_pixels:,} pixels"
    body = {"required": True, "description": f"a photo's bytes as they are: {limits}", "content": {"image/*": {}}}
    return {
        "summary": way.summary,
        "operationId": name,
        "parameters": [_parameter(parameter, words) for parameter, words in way.parameters.items()],
        "requestBody": body,
        "responses": {
            "200": {"description": way.summary, "content": answers},
            **{status: _mistake(text) for status, text in MISTAKES.items()},
        },
    }


def _parameter(name: str, words: tuple[str, ...]) -> dict[str, Any]:
    schema: dict[str, Any] = {"enum": list(words), "default": words[0]} if words else dict(TEXT)
    if name == "top":
        schema = {**WHOLE, "minimum": 1, "maximum": 1000}
    return {"name": name, "in": "query", "required": False, "description": ABOUT[name], "schema": schema}
