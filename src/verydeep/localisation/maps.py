"""Weakly supervised localisation: boxes of a classification net, from its saliency maps, and their errors.

Choe et al., "Evaluating weakly supervised object localization methods right", CVPR 2020:

- The map of an image's true class is scaled to 0 to 1. At a threshold its boxes are those around each connected region
  that is above it. The image is correct if a box and a true box have an IoU of at least δ.
- MaxBoxAcc V1 takes the box of the region of largest area, and δ = 0.5; it is the percentage of correct images at the
  threshold that is best for all images. V2 takes the best of all boxes, and is the mean over δ = 0.3, 0.5 and 0.7, each
  at its own best threshold.
- The GT-known error is V1's at a threshold that is not chosen on the images, by default 0.2 (Zhou et al., CVPR 2016).
  In top-1 localisation an image is also wrong if the net's most probable class is.

The map is interpolated linearly between the centres of its cells, and constant beyond the outermost. The published code
has 8-bit maps of 224 x 224 pixels and boxes of whole pixels instead. Boxes of the image's shape at its centre, of the
best of all sizes, are the constant prediction to compare with.
"""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from contourpy import FillType, contour_generator
from numpy.typing import NDArray

from ..checkpoints.checkpoint import Checkpoint
from ..checkpoints.load import load_model
from ..checkpoints.run_dir import MAPS_RESULT, check_results_place, environment
from ..core.errors import VerydeepError
from ..core.files import short_name, write_atomically, write_json
from ..core.progress import Reporter
from ..core.settings import MachineSettings
from ..core.terminal import default_reporter
from ..data.boxes import Array, iou, xyxy_to_inclusive
from ..data.dataset import Dataset
from ..evaluation.evaluate import evaluation_folder
from ..evaluation.metrics import error_with_interval
from ..evaluation.predict import Classifier, place_classifier
from ..evaluation.saliency import PlacedMap, check_explainable, grad_cam, map_scale, score_map
from .datasets import open_box_sets

Kind = Literal["map", "gradcam"]
MAPS: dict[str, Callable[..., PlacedMap]] = {"map": score_map, "gradcam": grad_cam}
THRESHOLDS = np.arange(1000) / 1000
OVERLAPS = (0.3, 0.5, 0.7)  # δ of V2
OVERLAP = 0.5  # of V1
USUAL_THRESHOLD = 0.2
ABOVE = 1e-6  # regions are above a threshold, not at it but for rounding: a map has large regions of 0
BOXES = "boxes.csv"
COLUMNS = ("image", "xmin", "ymin", "xmax", "ymax", "class")  # as `--boxes` reads them


@dataclass(frozen=True)
class MapEvaluation:
    """The result of `verydeep.evaluate_maps`: summary, the overlaps of each image, the directory of its files.

    ``largest`` and ``best`` are the IoU of the largest region's box and of the best box with a true box, float32
    (N,T), at each of T `THRESHOLDS`; ``boxes`` are those of the true classes at the threshold, xyxy (4,) or None.
    """

    summary: dict[str, Any]
    dataset: Dataset
    boxes: list[Array | None]
    largest: NDArray[np.float32]
    best: NDArray[np.float32]
    folder: Path


def region_boxes(found: PlacedMap, thresholds: Array = THRESHOLDS) -> tuple[NDArray[np.int64], Array, Array]:
    """The regions of a map above each threshold: the index of the threshold (M,), box xyxy (M,4) and area (M,).

    The area is that within the outer border. A constant map has no regions.
    """
    low, high = float(found.values.min()), float(found.values.max())
    if not high > low:
        return np.zeros(0, dtype=np.int64), np.zeros((0, 4)), np.zeros(0)
    values = np.pad((found.values.astype(np.float64) - low) / (high - low), 1, mode="edge")
    rows, columns = (
        np.concatenate([[0.0], places, [float(side)]])
        for places, side in zip((found.rows, found.columns), found.size, strict=True)
    )
    contours: Any = contour_generator(columns, rows, values, fill_type=FillType.OuterOffset)
    levels, boxes, areas = [], [], []
    for level, threshold in enumerate(thresholds):
        polygons, offsets = contours.filled(threshold + ABOVE, 2.0)
        for points, ends in zip(polygons, offsets, strict=True):
            x, y = points[: ends[1]].T  # without the borders of holes
            levels.append(level)
            boxes.append((x.min(), y.min(), x.max(), y.max()))
            areas.append(abs(np.dot(x[:-1], y[1:]) - np.dot(x[1:], y[:-1])) / 2)
    return np.array(levels, dtype=np.int64), np.array(boxes).reshape(-1, 4), np.array(areas)


def largest_box(found: PlacedMap, threshold: float) -> Array | None:
    """The box (4,) of the region of largest area above a threshold; None of a constant map."""
    _, boxes, areas = region_boxes(found, np.array([threshold]))
    return boxes[int(areas.argmax())] if len(boxes) else None


def overlaps_of(found: PlacedMap, true: Array, thresholds: Array = THRESHOLDS) -> tuple[Array, Array]:
    """The IoU with a true box (n,4) of the largest region's box and of the best, (T,) each; 0 without a region."""
    levels, boxes, areas = region_boxes(found, thresholds)
    overlaps = iou(boxes[:, None], true[None]).max(axis=1) if len(boxes) else np.zeros(0)
    largest, best = np.zeros(len(thresholds)), np.zeros(len(thresholds))
    np.maximum.at(best, levels, overlaps)
    order = np.lexsort((areas, levels))
    last = np.append(np.diff(levels[order]) > 0, True)[: len(order)]  # of each threshold, the largest
    largest[levels[order][last]] = overlaps[order][last]
    return largest, best


def centre_overlaps(size: tuple[int, int], true: Array) -> Array:
    """The IoU with a true box of boxes of the image's shape at its centre, (T,), from the whole image downwards."""
    height, width = size
    shrunk = (1 - THRESHOLDS) / 2
    boxes = np.array([width, height, width, height]) * np.stack(
        [0.5 - shrunk, 0.5 - shrunk, 0.5 + shrunk, 0.5 + shrunk], axis=1
    )
    return np.asarray(iou(boxes[:, None], true[None]).max(axis=1))


def box_accuracies(largest: NDArray[Any], best: NDArray[Any]) -> dict[str, Any]:
    """MaxBoxAcc V1 and V2 in percent from overlaps (N,T), and V1's best threshold."""
    accuracy = 100 * (largest >= OVERLAP).mean(axis=0)
    by_overlap = {f"{overlap:g}": round(float(100 * (best >= overlap).mean(axis=0).max()), 4) for overlap in OVERLAPS}
    return {
        "max_box_acc": round(float(accuracy.max()), 4),
        "best_threshold": float(THRESHOLDS[int(accuracy.argmax())]),
        "max_box_acc_v2": round(float(np.mean(list(by_overlap.values()))), 4),
        "max_box_acc_v2_by_overlap": by_overlap,
    }


def evaluate_maps(
    run: str | Path,
    kind: Kind = "gradcam",
    protocol: str | None = None,
    data: str | None = None,
    boxes: tuple[str, ...] = (),
    set_name: str | None = None,
    out: str | Path | None = None,
    threshold: float = USUAL_THRESHOLD,
    strict: bool = False,
    machine: MachineSettings | None = None,
    reporter: Reporter | None = None,
) -> MapEvaluation:
    """Evaluates the boxes of a classification net, from its score maps or Grad-CAM; writes errors and boxes.

    Args:
        run: a run, a checkpoint or a weight file of a classification net.
        kind: ``map`` or ``gradcam``, as `verydeep.score_map` and `verydeep.grad_cam`.
        protocol: its largest Q is that of the maps; by default as in `verydeep.score_map`.
        data, boxes, set_name: other images or boxes than the reported set of the run's own data.
        out: directory of the results; by default in the run's ``evaluations``.
        threshold: of the GT-known and top-1 errors, as a fraction of the map's range.
        strict: faulty boxes are errors, as in `verydeep.evaluate_boxes`.

    Raises:
        VerydeepError: no such run or data, no boxes, a net without maps, a threshold outside 0 to 1.
        ImageError: an image cannot be read.
    """
    reporter = reporter or default_reporter()
    if kind not in MAPS or not 0 <= threshold < 1:
        raise VerydeepError(f"maps are {' or '.join(MAPS)}, at a threshold from 0 to below 1, not {kind} {threshold}.")
    checkpoint = load_model(run)
    classifier = check_explainable(place_classifier(checkpoint, machine or MachineSettings()))
    assert isinstance(checkpoint, Checkpoint)  # exported files have no maps
    dataset, apart = _labelled_boxes(checkpoint, data, boxes, set_name, strict, reporter)
    scale = map_scale(checkpoint.metadata, protocol)
    usual = evaluation_folder(checkpoint, apart, dataset.set_name) / short_name(f"boxes-from-{kind}@{scale}")
    folder = Path(out) if out else usual
    check_results_place(folder)
    evaluation = _MapTest(classifier, dataset, kind, scale, threshold).run(reporter, folder)
    identity = {"run": str(checkpoint.path), "checkpoint_sha256": checkpoint.sha256, "folder": str(folder)}
    summary = {**evaluation.summary, **identity}
    write_json(folder / MAPS_RESULT, {**summary, "environment": environment(classifier.machine.describe())})
    _write_boxes(folder / BOXES, evaluation)
    return replace(evaluation, summary=summary)


def _labelled_boxes(
    checkpoint: Checkpoint,
    data: str | None,
    boxes: tuple[str, ...],
    set_name: str | None,
    strict: bool,
    reporter: Reporter,
) -> tuple[Dataset, str]:
    """The images with boxes of their classes, and the directory name of other data than the run's."""
    if not checkpoint.metadata.data and data is None:
        raise VerydeepError("the checkpoint does not record a dataset: pass --data and --boxes.")
    sets = open_box_sets(checkpoint, data, reporter, boxes, set_name, strict)
    if sets.tested.boxes is None:
        raise VerydeepError(f"{sets.tested.name} has no labels, so no boxes of the true class: use labelled data.")
    return sets.tested, sets.apart


def _write_boxes(path: Path, evaluation: MapEvaluation) -> None:
    """Writes the boxes as first and last pixels, counted from 1."""
    dataset, file = evaluation.dataset, io.StringIO()
    writer = csv.writer(file)
    writer.writerow(COLUMNS)
    for image, label, box in zip(dataset.ids, dataset.labels.tolist(), evaluation.boxes, strict=True):
        if box is not None:
            writer.writerow([image, *xyxy_to_inclusive(box).tolist(), dataset.classes[label]])
    text = file.getvalue().encode("utf8", "surrogateescape")
    write_atomically(path, lambda opened: opened.write(text))


@dataclass(frozen=True)
class _MapTest:
    """A classifier, the images with boxes, and the maps to evaluate."""

    classifier: Classifier
    dataset: Dataset
    kind: str
    scale: int
    threshold: float

    def run(self, reporter: Reporter, folder: Path) -> MapEvaluation:
        """Computes the maps, their boxes and the errors."""
        dataset, started, count = self.dataset, time.monotonic(), len(self.dataset)
        assert dataset.boxes is not None
        largest, best, centre = (np.zeros((count, len(THRESHOLDS)), dtype=np.float32) for _ in range(3))
        top, boxes = np.zeros(count, dtype=np.int64), list[Array | None]()
        with reporter.track(f"boxes from {self.kind}@{self.scale}", count) as advance:
            for index, true in enumerate(dataset.boxes):
                label = int(dataset.labels[index])
                found = MAPS[self.kind](self.classifier, dataset.pixels(index), label, self.scale)
                largest[index], best[index] = overlaps_of(found, true)
                centre[index], top[index] = centre_overlaps(found.size, true), found.top
                boxes.append(largest_box(found, self.threshold))
                advance(1, "")
        overlaps = [
            0.0 if box is None else iou(box, true).max() for box, true in zip(boxes, dataset.boxes, strict=True)
        ]
        summary = {
            "maps": self.kind,
            "scale": self.scale,
            "threshold": self.threshold,
            "data": dataset.name,
            "set": dataset.set_name,
            "images": count,
            **_errors(dataset, np.array(overlaps) < OVERLAP, top != dataset.labels),
            **box_accuracies(largest, best),
            "centre_box": box_accuracies(centre, centre),
            "seconds": round(time.monotonic() - started, 2),
        }
        return MapEvaluation(summary, dataset, boxes, largest, best, folder)


def _errors(dataset: Dataset, wrong: NDArray[np.bool_], misclassified: NDArray[np.bool_]) -> dict[str, Any]:
    """The errors in percent with intervals, by whether the box and the most probable class are wrong, (N,)."""
    errors = {"gt_known_error": wrong, "top1_localisation_error": wrong | misclassified, "top1_error": misclassified}
    rows = [error_with_interval(name, which, dataset.groups) for name, which in errors.items()]
    return {name: value for row in rows for name, value in row.items()}
