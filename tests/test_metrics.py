"""Sect. 4: errors, ties and intervals."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import SHARED
from verydeep.errors import VerydeepError
from verydeep.metrics import chance_error, confusion, error_interval, label_ranks, mean_log_loss, topk_error

# posterior rows, label, how many classes rank before it, why
RANKS = [
    ([0.5, 0.3, 0.2], 0, 0, "the best guess"),
    ([0.5, 0.3, 0.2], 2, 2, "two are better"),
    ([0.4, 0.4, 0.2], 0, 0, "a tie: the lower class first"),
    ([0.4, 0.4, 0.2], 1, 1, "a tie: the higher class second"),
    ([0.2, 0.2, 0.2], 2, 2, "a constant answer is right on class 0 alone"),
]


@pytest.mark.parametrize(("row", "label", "rank", "reason"), RANKS)
def test_ranks_by_hand(row: list[float], label: int, rank: int, reason: str) -> None:
    assert label_ranks(np.array([row]), np.array([label]))[0] == rank, reason


def test_five_classes_leave_no_top5_question() -> None:
    posteriors, labels = np.eye(5), np.arange(5)
    assert topk_error(posteriors, labels, 5) is None
    assert topk_error(np.eye(6), np.arange(6), 5) == 0.0


def test_nan_is_refused() -> None:
    with pytest.raises(VerydeepError, match="photo number 1 is NaN"):
        label_ranks(np.array([[0.5, 0.5], [np.nan, 1.0]]), np.array([0, 0]))


def published() -> list[dict[str, Any]]:
    path = SHARED / "external" / "metrics_cases.json"
    return json.loads(path.read_text())["topk_accuracy"]["cases"] if path.exists() else []


@pytest.mark.skipif(not published(), reason="the published metric cases are not on this machine")
def test_published_topk_cases() -> None:
    for case in published():
        error = topk_error(np.array(case["y_score"]), np.array(case["y_true"]), case["k"])
        assert error == pytest.approx(100 * (1 - case["expected"]))


@given(st.integers(1, 5000), st.data())
def test_wilsons_interval_holds_its_error_and_stays_in_range(photos: int, data: st.DataObject) -> None:
    wrong = data.draw(st.integers(0, photos))
    low, high = error_interval(100 * wrong / photos, photos)
    assert 0 <= low <= 100 * wrong / photos + 1e-9
    assert 100 * wrong / photos - 1e-9 <= high <= 100


def test_wilsons_interval_by_hand() -> None:
    """10 of 100: the textbook's 5.52 to 17.44 %."""
    assert error_interval(10.0, 100) == pytest.approx((5.52, 17.44), abs=0.01)


def test_confusion_counts_rows_as_classes() -> None:
    posteriors = np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3]])
    np.testing.assert_array_equal(confusion(posteriors, np.array([0, 0, 1])), [[1, 1], [1, 0]])


def test_log_loss_by_hand() -> None:
    assert mean_log_loss(np.array([[0.5, 0.5], [0.25, 0.75]]), np.array([0, 0])) == pytest.approx(1.5 * np.log(2))
    assert np.isfinite(mean_log_loss(np.array([[0.0, 1.0]]), np.array([0])))


def test_chance() -> None:
    assert chance_error(np.array([0, 0, 0, 1])) == 25.0
