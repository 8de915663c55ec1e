"""What a trained net says of photos, on a page: classes, score maps, Grad-CAM (Sect. 3.2), similar photos (App. B)."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.errors import ImageError, VerydeepError
from ..core.files import check_place
from ..core.progress import Reporter
from ..core.terminal import default_reporter
from ..data.class_names import caption
from ..data.dataset import evenly_spaced
from ..data.image_io import Pixels, read_image
from ..evaluation.predict import Prediction, find_photos
from ..evaluation.saliency import grad_cam, map_scale, overlay, score_map
from ..reports.html import check_page_place, tiles, write_page
from ..transfer.load import load
from ..transfer.model import Model
from .demo import new_folder

SHOWN, COMPARED, SIMILAR, CLASSES = 6, 60, 4, 3


def tour(
    weights: str | Path, photos: str | Path, out: str | Path | None = None, reporter: Reporter | None = None
) -> dict[str, Any]:
    """Predicts and explains a few photos, finds those most similar to them, and writes ``index.html``.

    Of a large folder, photos spread over the sorted names are taken: `SHOWN` are explained, `COMPARED` are compared.

    Args:
        weights: a run, or whatever else `verydeep.load` takes, that is a net with all layers.
        photos: a folder of photos, with or without class folders, or a file name or pattern.
        out: a directory; ``runs/tour``, ``runs/tour-2``, … by default.

    Returns:
        ``folder``, ``page``, ``seconds``, ``images``, their number, and ``predictions`` as JSON values.

    Raises:
        VerydeepError: an SVM or exported file, no readable photo, or an unwritable directory.
    """
    reporter, began = reporter or default_reporter(), time.monotonic()
    found, model = find_photos(photos, reporter=reporter), load(weights)
    if not isinstance(model, Model):
        raise VerydeepError(f"{weights} is an exported file or an SVM, which has no maps: use the run of its net.")
    folder = Path(out) if out else new_folder("tour")
    page = folder / "index.html"
    check_place(folder, "--out")
    check_page_place(page)
    paths, rows = _described(model, [found[place] for place in evenly_spaced(len(found), COMPARED)], reporter)
    places = evenly_spaced(len(paths), SHOWN).tolist()
    predictions = model.predict([paths[place] for place in places], CLASSES, reporter=reporter)
    sections, named = [], partial(_name, Path(photos))
    with reporter.track("explaining", len(places)) as advance:
        for place, prediction in zip(places, predictions, strict=True):
            similar = _similar(paths, rows @ rows[place], place, named)
            sections.append((named(prediction.image), tiles(_views(model, prediction)), tiles(similar)))
            advance(1, "")
    seconds = round(time.monotonic() - began, 1)
    context = {"title": f"Predictions of net {model.metadata.net} on photos", "weights": Path(weights).name}
    more = {"photos": sections, "metadata": model.metadata, "scale": map_scale(model.metadata)}
    write_page(page, "tour.html", {**context, **more, "images": len(paths), "seconds": seconds})
    predicted = [prediction.to_json() for prediction in predictions]
    result = {"folder": str(folder), "page": str(page), "seconds": seconds, "images": len(paths)}
    return {**result, "predictions": predicted}


def _described(model: Model, paths: list[str], reporter: Reporter) -> tuple[list[str], NDArray[np.float32]]:
    """The photos that can be read, and their descriptors of length 1, (N,D); raises ImageError where there are none."""
    faults: dict[int, str] = {}
    rows = model.features(paths, faults=faults, reporter=reporter)
    for message in faults.values():
        reporter.warn(message)
    readable = [index for index in range(len(paths)) if index not in faults]
    if not readable:
        raise ImageError("none of the photos can be read.")
    return [paths[index] for index in readable], rows[readable]


def _views(model: Model, prediction: Prediction) -> list[tuple[Pixels, str]]:
    """A photo with its classes, and the maps of the first class over it."""
    pixels, name = read_image(prediction.image), prediction.classes[0][0]
    label = model.classes.index(name)
    classes = "\n".join(f"{caption(name)} {100 * share:.1f} %" for name, share in prediction.classes)
    maps = [(score_map, "score map"), (grad_cam, "Grad-CAM")]
    explained = [(overlay(pixels, way(model, pixels, label)), f"{what} of {caption(name)}") for way, what in maps]
    return [(pixels, classes), *explained]


def _name(folder: Path, photo: str) -> str:
    """A photo's name in its folder."""
    return Path(photo).relative_to(folder).as_posix() if folder in Path(photo).parents else photo


def _similar(
    paths: list[str], cosines: NDArray[np.float32], place: int, named: Callable[[str], str]
) -> list[tuple[Pixels, str]]:
    """The photos nearest to one of them, with the cosine."""
    near = [other for other in np.argsort(-cosines, kind="stable").tolist() if other != place][:SIMILAR]
    return [(read_image(paths[other]), f"{named(paths[other])}\ncosine {cosines[other]:.3f}") for other in near]
