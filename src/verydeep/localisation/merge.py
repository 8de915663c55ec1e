"""Sect. A.1: from candidate boxes to one box per label, by greedy merging; needs no net and no image.

The candidates of all scales and models are pooled; those of a label are merged (`verydeep.data.boxes.Merging`), the
rating of a merged box is the sum over its candidates, and the box of the highest rating is the label's. The threshold
``t`` of merging is tuned on dev images.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..checkpoints.checkpoint import Checkpoint
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
USUAL_T = 0.5  # if there are no images to tune it on


def union(parts: Sequence[CandidateBoxes]) -> CandidateBoxes:
    """Pools one image's candidates of several scales or models."""
    return CandidateBoxes(
        np.concatenate([part.boxes for part in parts]), np.concatenate([part.ratings for part in parts])
    )


def merge_candidates(
    windows: CandidateBoxes, labels: NDArray[np.int64], settings: MergeSettings, t: float
) -> tuple[Array, NDArray[np.float64]]:
    """A box for each of an image's labels, xyxy (L,4), and its rating (L,).

    Args:
        windows: boxes (n,L,4) and ratings (n,L), of the labels in their order.
        labels: (L,); equal labels get the same box.
        settings: ``merge`` is within a label, or across: then boxes of all labels are merged together, and a label's
            box is the merged one with the highest rating for it.
    """
    first = {int(label): column for column, label in reversed(list(enumerate(labels)))}
    columns = sorted(first.values())
    if settings.merge == "across":
        boxes = np.concatenate([windows.boxes[:, column] for column in columns])
        shares = np.zeros((len(boxes), len(columns)))
        for number, column in enumerate(columns):
            rows = slice(number * len(windows.boxes), (number + 1) * len(windows.boxes))
            shares[rows, number] = windows.ratings[:, column]
        merged = Merging(boxes, shares, settings.match, settings.coordinates).until(t)
        best = {column: _best(merged, merged.ratings[:, number]) for number, column in enumerate(columns)}
    else:
        best = {}
        for column in columns:
            rated = windows.boxes[:, column], windows.ratings[:, column]
            merged = Merging(*rated, settings.match, settings.coordinates).until(t)
            best[column] = _best(merged, merged.ratings)
    chosen = [best[first[int(label)]] for label in labels]
    return np.array([box for box, _ in chosen]), np.array([rating for _, rating in chosen])


def _best(merged: Merging, ratings: NDArray[np.float64]) -> tuple[Array, float]:
    """The box of the highest rating; among equals the first in order of coordinates."""
    best = int(ratings.argmax())
    return merged.boxes[best].copy(), float(ratings[best])


def tune_threshold(
    windows: Sequence[CandidateBoxes], truths: Sequence[Array], settings: MergeSettings, reporter: Reporter
) -> tuple[float, list[float]]:
    """The t of `T_GRID` with the lowest GT-class error; among equals the one of larger overlap, then the smaller t.

    Args:
        windows: of dev images, for their true class alone: boxes (n,1,4).
        truths: their annotated boxes.

    Returns:
        The t, and the error in percent at each t of the grid.

    Raises:
        VerydeepError: ``literal`` matches are in pixels, for which there is no grid.
    """
    check_tunable(settings)
    boxes = np.zeros((len(T_GRID), len(windows), 4))
    with reporter.track("tuning t", len(windows)) as advance:
        for number, image in enumerate(windows):
            merged = Merging(image.boxes[:, 0], image.ratings[:, 0], settings.match, settings.coordinates)
            for step, t in enumerate(T_GRID):  # a larger t continues from the smaller one
                merged.until(t)
                boxes[step, number] = _best(merged, merged.ratings)[0]
            advance(1, "")
    overlaps = np.array([best_overlap(predicted, truths) for predicted in boxes])
    errors = 100 * (overlaps < BOX_IOU).mean(axis=1)
    keys = [(error, -overlap, t) for error, overlap, t in zip(errors, overlaps.mean(axis=1), T_GRID, strict=True)]
    return min(keys)[2], [round(float(error), 4) for error in errors]


def check_tunable(settings: MergeSettings) -> None:
    """Raises VerydeepError where t cannot be tuned."""
    if settings.match == "literal":
        raise VerydeepError(
            "the literal distance is in pixels, for which no --t is tuned: pass --t, the largest distance "
            "at which boxes are merged."
        )


def save_t(checkpoint: Checkpoint, protocol: BoxProtocol, settings: MergeSettings, t: float) -> None:
    """Stores the tuned t of a model in its run, for images without boxes to tune it on."""
    path = checkpoint.path.with_name(T_FILE)
    write_json(path, {**_stored(path), f"{_key(checkpoint, settings)} {protocol}": t})


def load_t(checkpoint: Checkpoint, protocol: BoxProtocol, settings: MergeSettings) -> float | None:
    """The t stored for a model, settings and protocol, else for another protocol; None without any."""
    key, stored = _key(checkpoint, settings), _stored(checkpoint.path.with_name(T_FILE))
    by_protocol = {name.removeprefix(key).strip(): t for name, t in stored.items() if name.startswith(key)}
    return by_protocol.get(str(protocol), next(iter(by_protocol.values()), None))


def _stored(path: Path) -> dict[str, float]:
    """The content of a file of thresholds; empty if it is missing or broken."""
    try:
        stored = read_json(path) if path.exists() else {}
    except VerydeepError:
        return {}
    return {name: t for name, t in stored.items() if isinstance(t, int | float) and 0 <= t < float("inf")}


def _key(checkpoint: Checkpoint, settings: MergeSettings) -> str:
    return f"{checkpoint.sha256[:12]} {settings.match} {settings.coordinates} {settings.merge} {settings.rate}"


def best_constant_box(sizes: Sequence[tuple[int, int]], boxes: Sequence[Array]) -> Array:
    """The constant box, xyxy (4,) relative to an image's width and height, that is right on the most images.

    It is one of their own boxes, or the mean of all: a baseline that ignores the image.

    Args:
        sizes: heights and widths.
        boxes: (n,4) of each image.
    """
    relative = [
        of_image / np.array([width, height] * 2) for (height, width), of_image in zip(sizes, boxes, strict=True)
    ]
    known = np.concatenate(relative)
    candidates = np.concatenate([known.mean(axis=0)[None], known])
    right = sum((iou(candidates[:, None], boxes[None]).max(axis=1) >= BOX_IOU).astype(int) for boxes in relative)
    return np.asarray(candidates[int(np.argmax(right))])
