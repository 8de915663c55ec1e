"""The risk-coverage curve, and the threshold that a percentage of errors gets from it."""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from verydeep.checkpoints.checkpoint import check_probabilities
from verydeep.cli.parser import percentage
from verydeep.core.errors import VerydeepError
from verydeep.evaluation.predict import Prediction, with_unknown
from verydeep.evaluation.rejection import (
    POINTS,
    choose_threshold,
    rejection_results,
    risk_coverage,
    usual_rejections,
)


@given(st.lists(st.tuples(st.floats(0, 1, width=32), st.booleans()), min_size=1, max_size=300))
def test_a_curve_counts_the_images_of_its_thresholds(images: list[tuple[float, bool]]) -> None:
    confidence, right = (np.array(column) for column in zip(*images, strict=True))
    curve = risk_coverage(confidence, right)
    thresholds = [threshold for threshold, _, _ in curve]
    assert len(curve) <= POINTS
    assert thresholds == sorted(set(thresholds), reverse=True)
    for threshold, answered, wrong in curve:
        assert answered == sum(value >= threshold for value in confidence)
        assert wrong == sum(value >= threshold and not correct for value, correct in images)
    assert curve[-1][1] == len(images)
    check_probabilities(1.0, curve)


@given(st.integers(0, 2**32 - 1), st.floats(0.1, 99), st.floats(0.1, 99))
def test_more_errors_answer_more_images(seed: int, one: float, other: float) -> None:
    rng = np.random.default_rng(seed)
    confidence = rng.random(400)
    curve = risk_coverage(confidence, rng.random(400) < confidence)
    chosen = {}
    for percent in (one, other):
        try:
            chosen[percent] = choose_threshold(curve, percent)
        except VerydeepError:
            continue
        assert 100 * chosen[percent].wrong / chosen[percent].answered <= percent
    if len(chosen) == 2:
        low, high = sorted(chosen)
        assert chosen[low].answered <= chosen[high].answered
        assert chosen[low].threshold >= chosen[high].threshold
    elif chosen:
        assert max(one, other) in chosen


CURVE = [[0.9, 10, 0], [0.7, 19, 0], [0.6, 39, 1], [0.5, 50, 6], [0.4, 60, 6]]


@pytest.mark.parametrize(
    ("percent", "threshold"),
    [
        (4.9, None),  # 1 of 20, the error that 19 images without a wrong one cannot exclude, is 5 %
        (5, 0.6),  # 2 of 40
        (11, 0.6),  # 7 of 51 are 13.7 %, 7 of 61 are 11.5 %
        (12, 0.4),  # the last threshold that holds, though one before it does not
    ],
)
def test_one_wrong_image_more_counts(percent: float, threshold: float | None) -> None:
    if threshold is None:
        with pytest.raises(
            VerydeepError, match=r"60 images cannot show an error of at most 4\.9 %: the least is 5\.0 %"
        ):
            choose_threshold(CURVE, percent)
    else:
        assert choose_threshold(CURVE, percent).threshold == threshold


def test_the_usual_thresholds_are_those_that_exist() -> None:
    assert [chosen.percent for chosen in usual_rejections(CURVE)] == [10, 5]
    assert "below 0.600 are unknown; of the 60 images that chose this, 39 are answered, 1 of them wrongly" in str(
        choose_threshold(CURVE, 5)
    )


@pytest.mark.parametrize("percent", [0, 100, -1, float("nan")])
def test_percentages_are_between_0_and_100(percent: float) -> None:
    with pytest.raises(VerydeepError, match="above 0 and below 100"):
        choose_threshold(CURVE, percent)


def test_percentages_may_have_their_sign() -> None:
    assert percentage("5%") == percentage("5") == 5
    for text in ("", "five", "0", "100", "nan", "5 points"):
        with pytest.raises(argparse.ArgumentTypeError, match="not a percentage above 0"):
            percentage(text)


def test_results_are_counted_on_other_images() -> None:
    """Of 40 images the ten of the lowest score are wrong; of three others one scores too low, and one is wrong."""
    curve = risk_coverage(np.array([0.8] * 30 + [0.6] * 10), np.arange(40) < 30)
    rows = rejection_results(curve, np.array([0.9, 0.85, 0.7]), np.array([True, False, True]))
    (row,) = (row for row in rows if row["reject_at"] == 5)
    assert row == {"reject_at": 5, "threshold": 0.8, "images": 3, "answered": 2, "wrong": 1}


def test_predictions_below_the_threshold_are_unknown() -> None:
    """The second of four images could not be read."""
    predictions = [Prediction(name, (("cat", 0.9),)) for name in "acd"]
    found = with_unknown(predictions, np.array([0.6, 0.0, 0.59, 0.61]), choose_threshold(CURVE, 5), {1})
    assert [one.unknown for one in found] == [False, True, False]
    assert found[1].to_json()["unknown"] is True
    assert "unknown" not in predictions[0].to_json()


@pytest.mark.parametrize("curve", [[], [[0.5, 1]], [[2, 1, 0]], [[0.5, 1, 2]], [[0.5, 0, 0]], [0.5], 3, {"a": 1}])
def test_stored_curves_of_other_forms_are_refused(curve: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        check_probabilities(1.0, curve)
