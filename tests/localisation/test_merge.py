"""Sect. A.1: from candidate boxes to one box per label, the threshold t, and the best constant box."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from verydeep.checkpoints.checkpoint import Checkpoint, Metadata
from verydeep.core.errors import VerydeepError
from verydeep.core.progress import Advance, Silent
from verydeep.core.settings import MergeSettings
from verydeep.evaluation.metrics import best_overlap
from verydeep.evaluation.protocols import BoxProtocol
from verydeep.localisation.inference import CandidateBoxes
from verydeep.localisation.merge import (
    T_GRID,
    best_constant_box,
    load_t,
    merge_candidates,
    save_t,
    tune_threshold,
    union,
)


def windows(boxes: list[list[list[float]]], ratings: list[list[float]]) -> CandidateBoxes:
    return CandidateBoxes(np.array(boxes, dtype=np.float32), np.array(ratings, dtype=np.float32))


A, B, C = [0.0, 0, 10, 10], [1.0, 0, 11, 10], [40.0, 40, 50, 50]


def test_the_best_rated_merged_box_of_each_label() -> None:
    """Label 7: A and B merge and together outweigh C. Label 3: C alone is best."""
    photo_windows = windows([[A, A], [B, B], [C, C]], [[0.3, 0.1], [0.3, 0.1], [0.5, 0.9]])
    boxes, ratings = merge_candidates(photo_windows, np.array([7, 3]), MergeSettings(), 0.5)
    assert boxes.tolist() == [[0.5, 0, 10.5, 10], C]
    assert ratings == pytest.approx([0.6, 0.9])
    unmerged = merge_candidates(photo_windows, np.array([7, 3]), MergeSettings(), 0.0)
    assert unmerged[0].tolist() == [C, C]


def test_boxes_merge_across_labels_only_with_merge_across() -> None:
    """Two labels' windows at the same place: within a label each keeps its own rating; across they share a box."""
    photo_windows = windows([[A, B], [C, C]], [[0.9, 0.2], [0.1, 0.1]])
    within = merge_candidates(photo_windows, np.array([0, 1]), MergeSettings(), 0.5)
    across = merge_candidates(photo_windows, np.array([0, 1]), MergeSettings(merge="across"), 0.5)
    assert within[0].tolist() == [A, B]
    assert across[0].tolist() == [[0.5, 0, 10.5, 10]] * 2
    assert across[1] == pytest.approx([0.9, 0.2])


def test_equal_labels_have_one_box_and_the_order_of_candidates_does_not_matter() -> None:
    first, second = windows([[A, A]], [[0.4, 0.4]]), windows([[B, B], [C, C]], [[0.4, 0.4], [0.5, 0.5]])
    found = [
        merge_candidates(union(parts), np.array([2, 2]), MergeSettings(), 0.5)
        for parts in ((first, second), (second, first))
    ]
    assert found[0][0].tolist() == [[0.5, 0, 10.5, 10]] * 2
    assert all(np.array_equal(a, b) for a, b in zip(*found, strict=True))


def test_t_is_tuned_where_the_error_is_least() -> None:
    """Windows scatter about the truth: alone each overlaps too little, their mean is right."""
    truth = np.array([[20.0, 20, 60, 60]])
    rng = np.random.default_rng(0)
    scattered = [truth + rng.normal(0, 9, (30, 4)) for _ in range(40)]
    photos = [CandidateBoxes(boxes[:, None].astype(np.float32), np.ones((30, 1), np.float32)) for boxes in scattered]
    t, errors = tune_threshold(photos, [truth] * 40, MergeSettings(), Silent())
    assert len(errors) == len(T_GRID)
    assert errors[T_GRID.index(t)] == min(errors)
    assert errors[0] > 0
    assert min(errors) == 0
    found = np.array([merge_candidates(photo, np.array([0]), MergeSettings(), t)[0][0] for photo in photos])
    assert (best_overlap(found, [truth] * 40) >= 0.5).all()
    with pytest.raises(VerydeepError, match="pass --t, the largest distance at which"):
        tune_threshold(photos, [truth] * 40, MergeSettings(match="literal"), Silent())


def one_box(box: list[float]) -> CandidateBoxes:
    return windows([[box]], [[1.0]])


def test_the_grid_of_t() -> None:
    assert T_GRID == (0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3, 1.4, 1.5)


def test_an_overlap_of_exactly_a_half_is_right_while_t_is_tuned() -> None:
    """Boxes that are alone are the same at every t, so the smallest is taken: a half, less, and less."""
    photos = [one_box([0, 0, 10, 5]), one_box([0, 0, 10, 4.9]), one_box([0, 0, 10, 1])]
    t, errors = tune_threshold(photos, [np.array([A])] * 3, MergeSettings(), Silent())
    assert (t, errors) == (0.0, [66.6667] * 16)


def test_tuning_reports_each_image_and_needs_its_true_boxes() -> None:
    class Counted(Silent):
        images = 0

        @contextmanager
        def track(self, label: str, total: int) -> Iterator[Advance]:
            yield self.count
            assert self.images == total

        def count(self, images: int, note: str) -> None:
            self.images += images

    reporter = Counted()
    tune_threshold([one_box(A)] * 3, [np.array([A])] * 3, MergeSettings(), reporter)
    assert reporter.images == 3
    with pytest.raises(ValueError, match="longer"):
        tune_threshold([one_box(A)] * 3, [np.array([A])] * 4, MergeSettings(), Silent())


def test_among_equal_errors_the_t_of_larger_overlap_is_taken_then_the_smaller_one() -> None:
    """A candidate on either side of the truth: each is right alone, and their mean, from t = .5 on, is the truth.

    Their centres are 2 apart and their overlap is 8 of 12: 2 / 14.142 + 1 - 8 / 12 = .4748.
    """
    pair = windows([[[0, 0, 10, 10]], [[2, 0, 12, 10]]], [[1.0], [1.0]])
    t, errors = tune_threshold([pair], [np.array([[1.0, 0, 11, 10]])], MergeSettings(), Silent())
    assert (t, errors) == (0.5, [0.0] * 16)


def test_across_three_labels_each_has_the_merged_box_of_its_highest_rating() -> None:
    """A and B, of two labels, merge; C stays apart, and is the third label's box. Equal labels count once."""
    photo_windows = windows([[A, A, B, B], [C, C, C, C]], [[0.9, 0.9, 0.2, 0.1], [0.1, 0.1, 0.1, 0.7]])
    boxes, ratings = merge_candidates(photo_windows, np.array([4, 4, 2, 9]), MergeSettings(merge="across"), 0.5)
    middle = [2 / 3, 0, 32 / 3, 10]
    assert boxes == pytest.approx(np.array([middle, middle, middle, C]))
    assert ratings == pytest.approx([0.9, 0.9, 0.2, 0.7])


def test_the_best_constant_box() -> None:
    """Three photos of different sizes: two have a box in the left third, one on the right."""
    sizes = [(10, 30), (100, 300), (60, 60)]
    boxes = [np.array([[0.0, 0, 10, 10]]), np.array([[0.0, 0, 100, 100]]), np.array([[40.0, 0, 60, 60]])]
    assert best_constant_box(sizes, boxes) == pytest.approx(np.array([0, 0, 1 / 3, 1]))
    with pytest.raises(ValueError, match="longer"):
        best_constant_box(sizes[:2], boxes)


def test_the_mean_box_is_a_constant_box_too() -> None:
    """Of two boxes of 70 % of the width, at either edge, it has 55 in 85 in common with each; they have 40 in 100."""
    boxes = [np.array([[0.0, 0, 70, 100]]), np.array([[30.0, 0, 100, 100]])]
    assert best_constant_box([(100, 100)] * 2, boxes) == pytest.approx(np.array([0.15, 0, 0.85, 1]))


def test_a_stored_t_is_loaded(tmp_path: Path) -> None:
    """For the same net and settings; that of another scale rather than none; a broken file is empty."""
    here, other, usual = BoxProtocol("dense", (64,)), BoxProtocol("dense", (96,)), MergeSettings()
    metadata = Metadata("A", 32, 1 / 16, ("a", "b", "c"), (110.0, 115.0, 120.0), 40)
    net, another = (Checkpoint(tmp_path / "best.safetensors", metadata, {}, {}, digit * 64) for digit in "ab")
    assert load_t(net, here, usual) is None
    save_t(net, other, usual, 0.7)
    assert load_t(net, here, usual) == 0.7
    assert load_t(another, here, usual) is None
    assert load_t(net, here, MergeSettings(coordinates="pair")) is None
    save_t(net, here, usual, 0.4)
    assert load_t(net, here, usual) == 0.4
    assert load_t(net, other, usual) == 0.7
    # As runs of earlier versions have it: 12 digits of the file's hash, the settings, the protocol.
    stored = {"aaaaaaaaaaaa relative windows within window dense@64": 0.4}
    assert stored.items() <= json.loads((tmp_path / "t.json").read_text()).items()
    for broken in ("x", -0.1, True, float("inf"), None):
        (tmp_path / "t.json").write_text(json.dumps(dict.fromkeys(stored, broken)))
        assert load_t(net, here, usual) in (None, True)
    (tmp_path / "t.json").write_text("[1")
    assert load_t(net, here, usual) is None
    save_t(net, here, usual, 0.4)
    assert load_t(net, here, usual) == 0.4
