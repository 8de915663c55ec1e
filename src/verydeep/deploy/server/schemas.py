"""Parameters and responses of the routes as pydantic models, which FastAPI checks and generates OpenAPI from."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ...core.settings import ServeSettings

MAX_TOP = 1000
Top = Annotated[int | None, Field(ge=1, le=MAX_TOP, description=f"how many, 1 to {MAX_TOP}")]
ClassName = Annotated[str | None, Field(alias="class", description="the class, by name; by default the most likely")]


class Parameters(BaseModel):
    """Query parameters; unknown ones are refused."""

    model_config = ConfigDict(extra="forbid")


class TopParameters(Parameters):
    """Of `/predict` and `/similar`."""

    top: Top = None


class BoxParameters(TopParameters):
    """Of `/localise`."""

    class_: ClassName = None


class MapParameters(Parameters):
    """Of `/explain`."""

    class_: ClassName = None
    kind: Annotated[Literal["map", "gradcam"], Field(description="the dense score map or Grad-CAM")] = "map"
    form: Annotated[Literal["json", "png"], Field(description="numbers, or an image")] = "json"


class OfImage(BaseModel):
    """What every response about an image contains: its size in pixels."""

    width: int
    height: int


class Prediction(BaseModel):
    """A class with its probability, or the score of an SVM, positive where it predicts the class; an SVM has both
    where its probabilities are calibrated.
    """

    class_: str = Field(alias="class")
    probability: float | None = None
    score: float | None = None


class Predictions(OfImage):
    """The most likely classes, the most likely first; with ``--reject-at`` whether the image is unknown; ``labels`` are
    all classes of an image, where the SVMs are of images of several classes.
    """

    predictions: list[Prediction]
    labels: list[str] | None = None
    unknown: bool | None = None


class Map(OfImage):
    """A map of a class, rows of cells, with the centres of the cells in pixels of the image."""

    class_: str = Field(alias="class")
    kind: str
    values: list[list[float]]
    rows: list[float]
    columns: list[float]


class Box(BaseModel):
    """A box of a class: xmin, ymin, xmax, ymax in pixels of the image."""

    class_: str = Field(alias="class")
    score: float
    box: list[float]


class Boxes(OfImage):
    """A box for each class."""

    boxes: list[Box]


class Descriptor(OfImage):
    """The image's descriptor, computed as those of the features file."""

    descriptor: list[float]


class Neighbour(BaseModel):
    """An image of the features file; ``photo`` is the number of its thumbnail at /photos/{place}, or null."""

    image: str
    class_: str = Field(alias="class")
    cosine: float
    photo: int | None


class Neighbours(OfImage):
    """The nearest images of the features file, the nearest first."""

    neighbours: list[Neighbour]


class Limits(BaseModel):
    """Of an image's bytes and pixels, and of requests in the queue."""

    bytes: int
    pixels: int
    queue: int


class Info(BaseModel):
    """What is served: classes, routes that take an image, limits, calibration."""

    name: str
    kind: str
    classes: list[str]
    ways: list[str]
    limits: Limits
    temperature: float | None = Field(description="that of calibrated probabilities")
    threshold: float | None = Field(
        description="images of a lower probability (SVMs: similarity to the nearest class mean) are unknown"
    )


class Health(BaseModel):
    """Whether the server accepts requests, and how many are in progress or waiting."""

    status: Literal["ok", "stopping"]
    queue: int


class ErrorDetail(BaseModel):
    """The HTTP status and one sentence."""

    status: int
    message: str


class Error(BaseModel):
    """The body of every error."""

    error: ErrorDetail


ERRORS: dict[int | str, str] = {
    400: "the body is empty, the image is corrupted, or the request is not HTTP",
    403: "a page of another site sent the request",
    404: "this server was started without what the route needs",
    408: "the request did not arrive in time",
    413: "too many bytes or pixels",
    415: "not an image in a known format",
    421: "the host name is not this machine's",
    422: "an unknown parameter, or an invalid value",
    500: "the server failed",
    503: "a limit is reached, or the server is shutting down; Retry-After says when to try again",
    505: "HTTP of another version than 1.0 or 1.1",
}
ANYWHERE = (400, 408, 421, 503, 505)  # of requests that reach no route


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Error responses for OpenAPI; by default all that a route which takes an image can have."""
    return {status: {"model": Error, "description": ERRORS[status]} for status in statuses or ERRORS}


def image_body(settings: ServeSettings) -> dict[str, Any]:
    """The request body for OpenAPI."""
    limits = f"at most {settings.max_bytes:,} bytes and {settings.max_pixels:,} pixels"
    body = {"required": True, "description": f"an image file as it is: {limits}", "content": {"image/*": {}}}
    return {"requestBody": body}
