"""Sect. 4: errors, ties and intervals."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from conftest import SHARED
from verydeep.core.errors import VerydeepError
from verydeep.evaluation.metrics import (
    brier_score,
    calibration_error,
    chance_error,
    confusion,
    difference_interval,
    error_interval,
    label_ranks,
    mcnemar,
    mean_log_loss,
    probability_metrics,
    reliability,
    topk_error,
)
from verydeep.evaluation.scores import Scores

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


def test_top5_error_is_undefined_for_five_classes() -> None:
    posteriors, labels = np.eye(5), np.arange(5)
    assert topk_error(posteriors, labels, 5) is None
    assert topk_error(np.eye(6), np.arange(6), 5) == 0.0


def test_nan_is_refused() -> None:
    with pytest.raises(VerydeepError, match="the posteriors of image 1 are NaN"):
        label_ranks(np.array([[0.5, 0.5], [np.nan, 1.0]]), np.array([0, 0]))


def published() -> list[dict[str, Any]]:
    path = SHARED / "external" / "metrics_cases.json"
    return json.loads(path.read_text())["topk_accuracy"]["cases"] if path.exists() else []


@pytest.mark.skipif(not published(), reason="the published metric cases are not on this machine")
def test_published_topk_cases() -> None:
    for case in published():
        error = topk_error(np.array(case["y_score"]), np.array(case["y_true"]), case["k"])
        assert error == pytest.approx(100 * (1 - case["expected"]))


def mistakes(wrong: int, photos: int) -> NDArray[np.bool_]:
    return np.arange(photos) < wrong


@given(st.integers(1, 5000), st.data())
def test_wilsons_interval_holds_its_error_and_stays_in_range(photos: int, data: st.DataObject) -> None:
    wrong = data.draw(st.integers(0, photos))
    low, high = error_interval(mistakes(wrong, photos), np.arange(photos))
    assert 0 <= low <= 100 * wrong / photos + 1e-9
    assert 100 * wrong / photos - 1e-9 <= high <= 100


def test_wilsons_interval_by_hand() -> None:
    """10 of 100: the textbook's 5.52 to 17.44 %."""
    assert error_interval(mistakes(10, 100), np.arange(100)) == pytest.approx((5.52, 17.44), abs=0.01)


def test_photos_of_one_subject_widen_the_interval() -> None:
    """Five copies of each image add no information: the interval is that of 100 images, not of 500."""
    wrong, groups = np.repeat(mistakes(10, 100), 5), np.repeat(np.arange(100), 5)
    low, high = error_interval(wrong, groups)
    assert (low, high) == pytest.approx((4.5, 16), abs=1)  # 10 ± 1.96 · sqrt(.1·.9/100)
    apart = error_interval(wrong, np.arange(500))
    assert high - low > 1.8 * (apart[1] - apart[0])


def test_the_bootstrap_is_that_of_whole_groups() -> None:
    """Against the plain way, drawing group numbers: groups of unequal size and error."""
    rng = np.random.default_rng(1)
    groups = np.repeat(np.arange(60), rng.integers(1, 9, 60))
    wrong = rng.random(len(groups)) < rng.random(60)[groups]
    sums, sizes = (np.bincount(groups, weights=values) for values in (wrong, np.ones(len(groups))))
    drawn = rng.integers(0, 60, (20000, 60))
    plain = np.percentile(100 * sums[drawn].sum(1) / sizes[drawn].sum(1), [2.5, 97.5])
    assert error_interval(wrong, groups) == pytest.approx(tuple(plain), abs=0.8)


def test_differences_are_paired() -> None:
    """Two nets wrong on nearly the same photos: their difference is known far better than either error."""
    first, second = mistakes(100, 400), mistakes(90, 400)
    low, high = difference_interval(first, second, np.arange(400))
    assert (low, high) == pytest.approx((1.0, 4.1), abs=0.4)  # 2.5 ± 1.96 · sqrt(.025·.975/400)
    assert difference_interval(first, first, np.arange(400)) == (0, 0)


@pytest.mark.parametrize(
    ("only_first", "only_second", "p"),
    [
        (0, 0, 1.0),  # no photo tells the two apart
        (1, 0, 1.0),  # one toss: twice a half
        (5, 0, 0.0625),  # five tosses all alike: 2 / 2^5
        (1, 7, 0.0703125),  # (1 + 8) · 2 / 2^8
        (3, 3, 1.0),
        (10, 25, 0.01667385),  # 2 · (C(35,0) + … + C(35,10)) / 2^35
    ],
)
def test_mcnemar_by_hand(only_first: int, only_second: int, p: float) -> None:
    photos = 60
    place = np.arange(photos)
    first = (place < only_first) | (place >= 55)  # five that both get wrong
    second = ((place >= only_first) & (place < only_first + only_second)) | (place >= 55)
    found = mcnemar(first, second, place)
    assert (found["only_first_wrong"], found["only_second_wrong"]) == (only_first, only_second)
    assert found["p"] == pytest.approx(p, abs=1e-6)
    assert mcnemar(second, first, place)["p"] == pytest.approx(found["p"])


def test_mcnemar_of_many_photos_does_not_overflow() -> None:
    first, second = mistakes(30_000, 100_000), ~mistakes(69_000, 100_000)
    assert 0 < mcnemar(first, second, np.arange(100_000))["p"] < 1e-4


@pytest.mark.parametrize(("only_first", "only_second"), [(2900, 3100), (9900, 10_100), (2000, 18_000)])
def test_mcnemar_of_many_photos_is_exact(only_first: int, only_second: int) -> None:
    """Against whole numbers: the sum of binomial coefficients."""
    total = term = 1
    for heads in range(only_first):
        term = term * (only_first + only_second - heads) // (heads + 1)
        total += term
    place = np.arange(only_first + only_second)
    found = mcnemar(place < only_first, place >= only_first, place)["p"]
    assert found == pytest.approx(2 * total / 2 ** len(place), rel=1e-13, abs=0)


def test_mcnemar_counts_groups_where_photos_share_subjects() -> None:
    """(10, 0) on ten photos is rare by chance; two subjects of five photos fall so in two cases of four."""
    place = np.arange(40)
    first, second = place < 10, place < 0
    assert mcnemar(first, second, place)["p"] == pytest.approx(2 / 2**10)
    assert mcnemar(first, second, place // 5)["p"] == pytest.approx(0.5)
    assert mcnemar(first, first, place // 5)["p"] == 1.0


def test_flipping_groups_is_the_binomial_test_where_each_differs_by_one() -> None:
    """One pair of photos that share a subject, both right, changes the method and not the answer."""
    place = np.arange(60)
    first, second = place < 4, (place >= 10) & (place < 21)
    groups = np.where(place == 59, 58, place)
    assert mcnemar(first, second, groups)["p"] == pytest.approx(mcnemar(first, second, place)["p"])


def test_flipping_groups_by_listing_all_signs() -> None:
    rng = np.random.default_rng(3)
    groups = rng.integers(0, 9, 60)
    first, second = rng.random(60) < 0.5, rng.random(60) < 0.3
    differences = np.array([(first[groups == group].sum() - second[groups == group].sum()) for group in range(9)])
    signs = np.array(list(itertools.product([-1, 1], repeat=9)))
    p = np.mean(np.abs(signs @ differences) >= abs(differences.sum()))
    assert mcnemar(first, second, groups)["p"] == pytest.approx(p)


def test_interval_without_errors_counts_subjects() -> None:
    """2,000 scenes of 400 digits without an error are worth as much as 400 images."""
    groups = np.arange(2000) % 400
    assert error_interval(mistakes(0, 2000), groups) == error_interval(mistakes(0, 400), np.arange(400))
    assert error_interval(mistakes(2000, 2000), groups)[0] < 99.5


def test_confusion_counts_rows_as_classes() -> None:
    posteriors = np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3]])
    np.testing.assert_array_equal(confusion(posteriors, np.array([0, 0, 1])), [[1, 1], [1, 0]])


def test_log_loss_by_hand() -> None:
    assert mean_log_loss(np.array([[0.5, 0.5], [0.25, 0.75]]), np.array([0, 0])) == pytest.approx(1.5 * np.log(2))
    assert np.isfinite(mean_log_loss(np.array([[0.0, 1.0]]), np.array([0])))


def test_chance() -> None:
    assert chance_error(np.array([0, 0, 0, 1])) == 25.0


def test_calibration_error_by_hand() -> None:
    """Two images at 0.9 with one right, one at 0.6 that is right: (2 |50 - 90| + |100 - 60|) / 3 = 40 %."""
    posteriors = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6]])
    bins = reliability(posteriors, np.array([0, 1, 1]))
    assert [(row.images, row.accuracy) for row in bins] == [(1, 100.0), (2, 50.0)]
    assert calibration_error(bins) == pytest.approx(40)


@pytest.mark.parametrize(("confidence", "number"), [(0.2, 2), (0.2001, 3), (1.0, 14), (1.003, 14), (1e-9, 0)])
def test_a_bin_holds_its_upper_edge(confidence: float, number: int) -> None:
    """0.2 is the edge between bins 2 and 3 of 15; a row that bf16 rounded may reach above 1."""
    (alone,) = reliability(np.array([[confidence], [(number + 0.99) / 15]]), np.array([0, 0]))
    assert alone.images == 2


@pytest.mark.parametrize(("seed", "photos", "classes"), [(0, 1, 2), (1, 60, 3), (2, 40, 12)])
def test_probabilities_agree_with_scikit_learn(seed: int, photos: int, classes: int) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(seed)
    posteriors = rng.dirichlet(np.full(classes, 0.5), photos)
    labels = rng.integers(0, classes, photos)
    loss = metrics.log_loss(labels, posteriors, labels=range(classes))
    assert mean_log_loss(posteriors, labels) == pytest.approx(loss, rel=1e-6)
    each = ((posteriors - np.eye(classes)[labels]) ** 2).sum(axis=1)
    assert brier_score(posteriors, labels) == pytest.approx(each.mean())
    bins = reliability(posteriors, labels)
    assert sum(row.images for row in bins) == photos
    assert 0 <= calibration_error(bins) <= 100


def test_probabilities_need_labels_and_all_classes() -> None:
    scores = scores_for([[0.8, 0.2]], [0])
    assert probability_metrics(scores) == {"ece": 20.0, "nll": 0.223144, "brier": 0.08}
    unlabelled, truncated = scores_for([[0.8, 0.2]], [-1]), replace(scores, truncated=True)
    for unknown in (unlabelled, truncated):
        assert set(probability_metrics(unknown).values()) == {None}


def scores_for(posteriors: list[list[float]], labels: list[int]) -> Scores:
    """Scores of images that each are their own subject."""
    numbers = np.arange(len(labels))
    names = (tuple(map(str, numbers)), tuple(map(str, range(len(posteriors[0])))))
    values = np.array(posteriors, dtype=np.float32)
    return Scores(names[0], np.array(labels), numbers, names[1], values, "test", "photos", "A", "dense@36", "")
