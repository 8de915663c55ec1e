"""Sect. A.1: from candidate boxes to one box per label: union, greedy merging, rating; needs no net and no image.

The candidates of all scales and models are joined; those of a label merge (`verydeep.data.boxes.Merging`), a merged box
is rated by the sum over its candidates, and the best rated one is the label's box. The threshold ``t`` of merging is
tuned on dev images.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..core.errors import VerydeepError
from ..core.files import read_json, write_json
from ..core.progress import Reporter
from ..core.settings import MergeSettings
from ..data.boxes import Array, Merging, iou
from ..evaluation.metrics import BOX_IOU, best_overlap
from ..evaluation.protocols import BoxProtocol
from .inference import CandidateBoxes

T_GRID = tuple(round(0.1 * step, 1) for step in range(16))
T_FILE = "t.json"
USUAL_T = 0.5  # where there is nothing to tune on


def union(parts: Sequence[CandidateBoxes]) -> CandidateBoxes:
    """Joins one image's candidates of several scales or nets."""
    return CandidateBoxes(
        np.concatenate([part.boxes for part in parts]), np.concatenate([part.ratings for part in parts])
    )


def merge_candidates(
    windows: CandidateBoxes, labels: NDArray[np.int64], settings: MergeSettings, t: float
) -> tuple[Array, NDArray[np.float64]]:
    """A box for each of an image's labels, xyxy (L,4), and its rating (L,).

    Args:
        windows: boxes (n,L,4) and ratings (n,L), of the labels in their order.
        labels: (L,); one that is there twice has one box.
        settings: ``merge`` within a label, or across all of them: then boxes of all labels merge together, and a
            label's box is the merged one with most rating of it.
    """
    first = {int(label): column for column, label in reversed(list(enumerate(labels)))}
    columns = sorted(first.values())
    if settings.merge == "across":
        boxes = np.concatenate([windows.boxes[:, column] for column in columns])
        shares = np.zeros((len(boxes), len(columns)))
        for place, column in enumerate(columns):
            rows = slice(place * len(windows.boxes), (place + 1) * len(windows.boxes))
            shares[rows, place] = windows.ratings[:, column]
        merged = Merging(boxes, shares, settings.match, settings.coordinates).until(t)
        best = {column: _best(merged, merged.ratings[:, place]) for place, column in enumerate(columns)}
    else:
        best = {}
        for column in columns:
            rated = windows.boxes[:, column], windows.ratings[:, column]
            merged = Merging(*rated, settings.match, settings.coordinates).until(t)
            best[column] = _best(merged, merged.ratings)
    chosen = [best[first[int(label)]] for label in labels]
    return np.array([box for box, _ in chosen]), np.array([rating for _, rating in chosen])


def _best(merged: Merging, ratings: NDArray[np.float64]) -> tuple[Array, float]:
    """The box of the highest rating, the first in order of coordinates among equals."""
    place = int(ratings.argmax())
    return merged.boxes[place].copy(), float(ratings[place])


def tune_threshold(
    windows: Sequence[CandidateBoxes], truths: Sequence[Array], settings: MergeSettings, reporter: Reporter
) -> tuple[float, list[float]]:
    """The t of `T_GRID` with the least GT-class error; among equals the larger overlap, then the smaller t.

    Args:
        windows: of dev images, of their true class alone: boxes (n,1,4).
        truths: their boxes of that class.

    Returns:
        The t, and the error in percent at each t of the grid.

    Raises:
        VerydeepError: ``literal`` matches are in pixels, for which there is no grid.
    """
    if settings.match == "literal":
        raise VerydeepError("a literal match is in pixels of each photo: give --t, the match at which merging ends.")
    boxes = np.zeros((len(T_GRID), len(windows), 4))
    with reporter.track("tuning t", len(windows)) as advance:
        for number, image in enumerate(windows):
            merged = Merging(image.boxes[:, 0], image.ratings[:, 0], settings.match, settings.coordinates)
            for place, t in enumerate(T_GRID):  # a larger t continues from the smaller one
                merged.until(t)
                boxes[place, number] = _best(merged, merged.ratings)[0]
            advance(1, "")
    overlaps = np.array([best_overlap(predicted, truths) for predicted in boxes])
    errors = 100 * (overlaps < BOX_IOU).mean(axis=1)
    keys = [(error, -overlap, t) for error, overlap, t in zip(errors, overlaps.mean(axis=1), T_GRID, strict=True)]
    return min(keys)[2], [round(float(error), 4) for error in errors]


def keep_t(run: Path, of: str, protocol: BoxProtocol, settings: MergeSettings, t: float) -> None:
    """Stores a tuned t in a run's folder, for images that come without boxes to tune it on.

    Args:
        of: SHA-256 of the localisation model's checkpoint.
    """
    path = run / T_FILE
    kept = _kept(path)
    write_json(path, {**kept, f"{_of(of, settings)} {protocol}": t})


def kept_t(run: Path, of: str, protocol: BoxProtocol, settings: MergeSettings) -> float | None:
    """The t stored for a model, settings and protocol, or else for another protocol; None where there is none."""
    start = _of(of, settings)
    by_protocol = {
        name.removeprefix(start).strip(): t for name, t in _kept(run / T_FILE).items() if name.startswith(start)
    }
    return by_protocol.get(str(protocol), next(iter(by_protocol.values()), None))


def _kept(path: Path) -> dict[str, float]:
    """The content of a folder's file; empty where it is broken."""
    try:
        found = read_json(path) if path.exists() else {}
    except VerydeepError:
        return {}
    return {name: t for name, t in found.items() if isinstance(t, int | float) and 0 <= t < float("inf")}


def _of(checkpoint: str, settings: MergeSettings) -> str:
    return f"{checkpoint[:12]} {settings.match} {settings.coordinates} {settings.merge} {settings.rate}"


def best_constant_box(sizes: Sequence[tuple[int, int]], boxes: Sequence[Array]) -> Array:
    """The one box, xyxy (4,) in shares of an image's width and height, that is right on most of the images.

    It is one of their own boxes, or the mean of all: a baseline that does not look at the image.

    Args:
        sizes: heights and widths.
        boxes: (n,4) of each image.
    """
    shares = [found / np.array([width, height] * 2) for (height, width), found in zip(sizes, boxes, strict=True)]
    known = np.concatenate(shares)
    candidates = np.concatenate([known.mean(axis=0)[None], known])
    right = sum((iou(candidates[:, None], own[None]).max(axis=1) >= BOX_IOU).astype(int) for own in shares)
    return np.asarray(candidates[int(np.argmax(right))])
