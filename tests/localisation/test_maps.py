"""Boxes from saliency maps: hand-worked maps, the numbers of the published code, and the command."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from conftest import own_photos, run_command
from verydeep.data.annotations import read_boxes
from verydeep.data.boxes import iou
from verydeep.evaluation.saliency import PlacedMap
from verydeep.localisation.maps import (
    THRESHOLDS,
    box_accuracies,
    centre_overlaps,
    largest_box,
    overlaps_of,
    region_boxes,
)

FINE = 16  # cells to a pixel, so that interpolation between them matters little


def placed(values: NDArray[Any], size: tuple[int, int]) -> PlacedMap:
    """A map of cells that divide an image of ``size`` evenly."""
    rows, columns = ((np.arange(n) + 0.5) * side / n for n, side in zip(values.shape, size, strict=True))
    return PlacedMap(values.astype(np.float32), rows, columns, size)


def ramp() -> PlacedMap:
    """A row of the values 0, 1, 0.5, 0, whose centres are at 5, 15, 25 and 35, in an image of 10 x 40."""
    return placed(np.array([[0, 1, 0.5, 0]]), (10, 40))


# The threshold and the box above it, worked out by hand: the height is the image's.
RAMP = [
    (0.0, (5, 0, 35, 10), "all that is above 0"),
    (0.5, (10, 0, 25, 10), "half-way between 0 and 1, and up to the centre of 0.5"),
    (0.75, (12.5, 0, 20, 10), "three quarters of the way, and half-way down to 0.5"),
    (0.25, (7.5, 0, 30, 10), "a quarter of the way, and half-way from 0.5 to 0"),
]


@pytest.mark.parametrize(("threshold", "box", "reason"), RAMP)
def test_the_box_above_a_threshold(threshold: float, box: tuple[float, ...], reason: str) -> None:
    found = largest_box(ramp(), threshold)
    assert found is not None
    assert found.tolist() == pytest.approx(box, abs=1e-4), reason


def test_values_are_constant_beyond_the_outermost_centres() -> None:
    found = largest_box(placed(np.array([[1, 0]]), (10, 20)), 0.5)
    assert found is not None
    assert found.tolist() == pytest.approx([0, 0, 10, 10], abs=1e-4)


def test_a_constant_map_has_no_region() -> None:
    flat = placed(np.full((3, 3), 0.7), (30, 30))
    assert largest_box(flat, 0.2) is None
    largest, best = overlaps_of(flat, np.array([[0, 0, 30, 30.0]]))
    assert largest.max() == best.max() == 0


def test_the_largest_region_counts_for_v1_and_the_best_for_v2() -> None:
    """Three cells of 0.9 on the left, one of 1 on the right, of which the true box is that of the right one."""
    found = placed(np.array([[0.9, 0.9, 0.9, 0, 0, 1, 0]]), (10, 70))
    true = np.array([[50, 0, 60, 10.0]])  # at 0.5 the region of the cell of 1 is from 50 to 60
    largest, best = overlaps_of(found, true)
    at = int(np.flatnonzero(THRESHOLDS == 0.5)[0])
    assert (largest[at], best[at]) == (0, pytest.approx(1, abs=1e-4))
    assert largest[950] == best[950] > 0  # above 0.9 only the right one is left


def test_any_of_several_true_boxes_counts() -> None:
    first, second = [5, 0, 35, 10.0], [0, 0, 1, 1.0]
    alone, both = (overlaps_of(ramp(), np.array(boxes))[0] for boxes in ([first], [second, first]))
    assert both.tolist() == alone.tolist()
    assert alone[0] == pytest.approx(1, abs=1e-4)


def test_accuracies_of_overlaps_worked_out_by_hand() -> None:
    """Two images and thresholds 0 to 0.999; overlaps are constant but at two thresholds."""
    largest = np.full((2, len(THRESHOLDS)), 0.1)
    largest[0, 100], largest[1, 100] = 0.5, 0.6  # both correct at 0.1, as an IoU of 0.5 is enough
    largest[0, 300] = 0.9
    best = largest.copy()
    best[0, 500] = best[1, 500] = 0.7  # both correct at δ = 0.7, and at the others
    found = box_accuracies(largest, best)
    assert (found["max_box_acc"], found["best_threshold"]) == (100, 0.1)
    assert found["max_box_acc_v2_by_overlap"] == {"0.3": 100, "0.5": 100, "0.7": 100}
    found = box_accuracies(largest, largest)
    assert found["max_box_acc_v2_by_overlap"] == {"0.3": 100, "0.5": 100, "0.7": 50}
    assert found["max_box_acc_v2"] == pytest.approx(250 / 3, abs=1e-3)


def test_a_centre_box_of_each_size() -> None:
    overlaps = centre_overlaps((20, 40), np.array([[10, 5, 30, 15.0]]))  # of half the sides
    assert overlaps[500] == pytest.approx(1)
    assert overlaps[0] == pytest.approx(0.25)


# The map and boxes of a published test (clovaai/wsolevaluation, evaluation_test.py), in whose boxes the last row and
# column are missing. Its other map has regions one pixel thin, whose area is 0 in OpenCV, so that another region is the
# largest; it is left out.
UNIMODAL = [[0, 0, 0, 0, 0], [0, 0.4, 0.4, 0.4, 0.6], [0, 0.4, 1, 0.8, 0.6], [0, 0.4, 0.4, 0.4, 0.6]]
PUBLISHED = [(0.0, [1, 1, 4, 3]), (0.2, [1, 1, 4, 3]), (0.4, [2, 1, 4, 3]), (0.6, [2, 2, 4, 3]), (0.8, [2, 2, 3, 3])]


@pytest.mark.parametrize(("threshold", "box"), PUBLISHED)
def test_the_boxes_of_the_published_tests(threshold: float, box: list[int]) -> None:
    pixels = np.kron(np.array(UNIMODAL), np.ones((FINE, FINE)))
    found = largest_box(placed(pixels, (4, 5)), threshold)
    assert found is not None
    assert np.minimum(np.rint(found), [4, 3, 4, 3]).tolist() == box


# MaxBoxAcc V1, and of V2 at 0.3, 0.5 and 0.7, that the functions of clovaai/wsolevaluation (evaluation.py, with OpenCV
# 5.0) have for these maps, drawn at 224 x 224, with thresholds 0.001 apart, as (noise, figures).
FIGURES = [
    pytest.param(0.5, (93.3333, 100, 93.3333, 63.3333), marks=pytest.mark.slow),
    (1.2, (60, 96.6667, 60, 13.3333)),
]


@pytest.mark.parametrize(("noise", "figures"), FIGURES)
def test_the_accuracies_are_those_of_the_published_code(noise: float, figures: tuple[float, ...]) -> None:
    rng = np.random.default_rng(0)
    centres = (np.arange(8, dtype=np.float64) + 0.5) * 28
    largest, best = np.zeros((30, len(THRESHOLDS))), np.zeros((30, len(THRESHOLDS)))
    for index in range(30):
        x, y = rng.integers(0, 90, 2)
        w, h = rng.integers(50, 134, 2)
        bump = ((centres[None] - x - w / 2) / (w / 2)) ** 2 + ((centres[:, None] - y - h / 2) / (h / 2)) ** 2
        values = (np.exp(-bump) + noise * rng.random((8, 8))).astype(np.float32)
        true = np.array([[x, y, x + w + 1.0, y + h + 1.0]])  # boxes there include their last pixel
        largest[index], best[index] = overlaps_of(PlacedMap(values, centres, centres, (224, 224)), true)
    found = box_accuracies(largest, best)
    assert (found["max_box_acc"], *found["max_box_acc_v2_by_overlap"].values()) == pytest.approx(figures, abs=1e-3)


def test_regions_of_all_thresholds_are_those_of_each() -> None:
    found = placed(np.random.default_rng(3).random((5, 6)), (50, 60))
    levels, boxes, areas = region_boxes(found)
    for level in (0, 400, 999):
        alone = region_boxes(found, THRESHOLDS[level : level + 1])
        assert boxes[levels == level].tolist() == alone[1].tolist()
        assert areas[levels == level].tolist() == alone[2].tolist()


def test_the_command_writes_errors_and_boxes_that_boxes_reads(trained: Path, tmp_path: Path) -> None:
    place = own_photos(tmp_path)
    typed = ("localise", "evaluate", trained, "--from", "gradcam", "--data", place / "photos")
    given = (*typed, "--boxes", place / "boxes.csv", "--out", tmp_path / "found")
    done = run_command(*given, "--json", "--threads", 1)
    assert done.status == 0, done.stderr
    summary = json.loads(done.stdout)
    stored = json.loads((tmp_path / "found" / "localisation.json").read_text())
    assert {name: stored[name] for name in summary} == summary
    assert (summary["images"], summary["set"], summary["maps"]) == (24, "all", "gradcam")
    assert summary["top1_localisation_error"] >= max(summary["gt_known_error"], summary["top1_error"])
    assert 100 - summary["gt_known_error"] <= summary["max_box_acc"] + 1e-3
    assert summary["max_box_acc_v2_by_overlap"]["0.5"] >= summary["max_box_acc"]
    boxes, true = read_boxes(tmp_path / "found" / "boxes.csv")[0], read_boxes(place / "boxes.csv")[0]
    wrong = [image not in boxes or float(iou(boxes[image][0].xyxy, true[image][0].xyxy)) < 0.5 for image in true]
    assert 100 * np.mean(wrong) == pytest.approx(summary["gt_known_error"], abs=100 / 24)  # boxes are whole pixels here
    run = shutil.copytree(trained, tmp_path / "run")
    typed = ("localise", "evaluate", run, "--from", "gradcam", "--data", place / "photos")
    shown = run_command(*typed, "--boxes", place / "boxes.csv", "--threshold", 0.5, "--threads", 1).stdout
    assert "MaxBoxAcc V2" in shown
    assert "GT-known localisation, threshold 0.5" in shown
    report = (run / "report.html").read_text()
    assert "Boxes from maps" in report
    assert f'<td class="figure">{summary["max_box_acc"]:.2f} %</td>' in report


REFUSED = [
    (("--from", "map"), "has no boxes: name their files with --boxes"),
    (("--from", "map", "--scores", "x.npz"), "with --from, --scores does not apply"),
    (("--from", "map", "--threshold", "1.5", "--data", "photos"), "at a threshold from 0 to below 1, not map 1.5"),
    (("--threshold", "0.5"), "--threshold applies to boxes from maps: add --from map or --from gradcam"),
    (("dense@8", "--from", "map", "--data", "photos", "--boxes", "boxes.csv"), "below the net's crop|raise Q|crop"),
]


@pytest.mark.parametrize(("words", "sentence"), REFUSED)
def test_mistakes_are_one_sentence(words: tuple[str, ...], sentence: str, trained: Path, tmp_path: Path) -> None:
    place = own_photos(tmp_path)
    refused = run_command("localise", "evaluate", trained, *words, cwd=place)
    assert re.search(sentence, refused.mistake())
