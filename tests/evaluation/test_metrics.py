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
    average_precision,
    best_overlap,
    boxes_wrong,
    brier_score,
    calibration_error,
    chance_error,
    class_recalls,
    confused_pairs,
    confusion,
    difference_interval,
    error_interval,
    headline,
    label_ranks,
    mcnemar,
    mean_log_loss,
    probability_metrics,
    reliability,
    summarise,
    topk_error,
    worst_mistakes,
    wrong_images,
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
    many = np.arange(10_000)
    interval = difference_interval(many < 2500, many < 0, many)
    assert interval == pytest.approx((25 - 0.849, 25 + 0.849), abs=0.04)  # 1.96 · sqrt(.25·.75/10,000)


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
    assert chance_error(np.array([0, 0, 1, 2, 2, 2, 2, 3])) == 50.0


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


# Scores and marks of images, average precision in percent by 11 points and by area, and why.
INF = float("inf")
PRECISIONS = [
    (
        [5, 4, 3, 2, 1],
        [1, -1, 1, -1, 1],
        (4 + 3 * 2 / 3 + 4 * 0.6) / 11,
        (1 + 2 / 3 + 0.6) / 3,
        "1/1, 2/3, 3/5 at thirds",
    ),
    ([1, 2, 3], [1, 1, -1], 2 / 3, 2 / 3, "a better precision at a higher recall counts for the lower ones"),
    ([3, 3, 1], [1, -1, -1], 0.5, 0.5, "of equal scores neither is before the other"),
    ([3, 2, 1], [0, 1, -1], 1.0, 1.0, "an ignored image is not there"),
    ([3, 2, 1, *[-INF] * 7], [1] * 10, 4 / 11, 0.3, "a recall of 3 in 10 reaches .3, and 7 images are not ranked"),
    ([-INF, -INF], [1, -1], 0.0, 0.0, "nothing is ranked"),
]


@pytest.mark.parametrize(("scores", "marks", "points", "area", "reason"), PRECISIONS)
def test_average_precision_by_hand(
    scores: list[float], marks: list[int], points: float, area: float, reason: str
) -> None:
    values, classes = np.array(scores, dtype=np.float64), np.array(marks, dtype=np.int8)
    assert average_precision(values, classes, "11-point") == pytest.approx(100 * points), reason
    assert average_precision(values, classes, "area") == pytest.approx(100 * area), reason


def test_average_precision_needs_an_image_of_the_class_and_numbers() -> None:
    with pytest.raises(VerydeepError, match="no image has the class"):
        average_precision(np.array([1.0, 2.0]), np.array([-1, 0], dtype=np.int8), "area")
    with pytest.raises(VerydeepError, match="the score of image number 1 is NaN"):
        average_precision(np.array([1.0, np.nan]), np.array([1, 1], dtype=np.int8), "area")


def test_recalls_by_hand() -> None:
    """A class without images has none, whatever is predicted."""
    recalls = class_recalls(np.array([0, 1, 1, 2]), np.array([0, 0, 1, 1]), 4)
    np.testing.assert_array_equal(recalls, [50.0, 50.0, np.nan, np.nan])


def six_classes() -> Scores:
    """Four images: one right, two b taken for a, and a c taken for b whose class is the last of six."""
    rows = [[0.9, 0.1, 0, 0, 0, 0], [0.6, 0.4, 0, 0, 0, 0], [0.7, 0.3, 0, 0, 0, 0], [0.3, 0.4, 0, 0.1, 0.1, 0.1]]
    return replace(scores_for(rows, [0, 1, 1, 2]), classes=tuple("abcdef"))


def test_a_summary_by_hand() -> None:
    summary = summarise(six_classes())
    assert (summary["top1_error"], summary["top5_error"]) == (75.0, 25.0)
    assert summary["top1_error_interval"] == [30.0642, 95.4413]  # Wilson's of 3 in 4
    assert summary["top5_error_interval"] == [4.5587, 69.9358]
    assert (summary["mean_class_error"], summary["mean_class_recall"]) == (66.6667, 33.3333)  # of a, b and c
    assert summary["classes"] == [
        {"class": "a", "images": 1, "top1_error": 0.0},
        {"class": "b", "images": 2, "top1_error": 100.0},
        {"class": "c", "images": 1, "top1_error": 100.0},
    ]
    pairs = [{"class": "b", "taken_for": "a", "images": 2}, {"class": "c", "taken_for": "b", "images": 1}]
    assert summary["confused"] == pairs
    assert confused_pairs(six_classes(), most=1) == pairs[:1]
    assert worst_mistakes(six_classes(), 2) == [3, 2]  # 0 for the right class, then .3
    assert (summary["images"], summary["run"], summary["protocol"], summary["set"], summary["data"]) == (
        *(4, "A", "dense@36", "test", "photos"),
    )
    text = "dense@36 on 4 images (test): top-1 error 75.00 % (95 % interval 30.06 to 95.44)"
    assert headline(summary) == text


def test_confusions_as_frequent_as_others_are_in_the_order_of_classes() -> None:
    scores = scores_for([[0.1, 0.2, 0.7], [0.8, 0.1, 0.1]], [0, 1])
    first, second, third = scores.classes
    found = [(pair["class"], pair["taken_for"]) for pair in confused_pairs(scores)]
    assert found == [(first, third), (second, first)]


def test_errors_are_rounded_to_four_digits_and_probabilities_to_six() -> None:
    scores = scores_for([[0.8, 0.2], [0.7, 0.3], [0.6, 0.4]], [0, 0, 1])
    summary, exact = summarise(scores), (scores.posteriors, scores.labels)
    assert summary["top1_error"] == 33.3333
    assert summary["ece"] == round(calibration_error(reliability(*exact)), 4)
    for name, figure in (("nll", mean_log_loss(*exact)), ("brier", brier_score(*exact))):
        assert summary[name] == round(figure, 6) != round(figure, 7)


def test_a_summary_without_labels() -> None:
    unlabelled = replace(six_classes(), labels=np.array([0, 1, -1, 2]))
    summary = summarise(unlabelled)
    assert (summary["classes"], summary["confused"]) == ([], [])
    unknown = ("top1_error", "top1_error_interval", "top5_error", "mean_class_error", "mean_class_recall", "ece", "nll")
    assert {name: summary[name] for name in unknown} == dict.fromkeys(unknown)
    assert headline(summary) == "dense@36 on 4 images (test): no labels"


def test_classes_that_truncated_posteriors_leave_out_are_in_no_top_k() -> None:
    """By the rule of ties alone, class 1 would be the second of three, and class 2 the third."""
    scores = scores_for([[0.6, 0.0, 0.0], [0.6, 0.3, 0.0]], [1, 1])
    truncated = replace(scores, truncated=True)
    for found, expected in ((scores, [False, False]), (truncated, [True, False])):
        wrong = wrong_images(found, 2)
        assert wrong is not None
        assert wrong.tolist() == expected


def test_flipping_very_many_groups_is_nearly_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """The normal distribution of the sum replaces the sums themselves."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(400), rng.integers(1, 5, 400))
    for share in (0.3, 0.34, 0.36):
        first, second = rng.random(len(groups)) < 0.3, rng.random(len(groups)) < share
        exact = mcnemar(first, second, groups)["p"]
        with monkeypatch.context() as patch:
            patch.setattr("verydeep.evaluation.metrics.MOST_SUMS", 1000)
            assert mcnemar(first, second, groups)["p"] == pytest.approx(exact, abs=0.03)


def test_the_best_overlap_is_with_the_nearest_box() -> None:
    truths = [np.array([[0.0, 0, 10, 10], [0, 0, 10, 5]]), np.array([[50.0, 50, 60, 60]])]
    boxes = np.array([[0.0, 0, 10, 5], [0, 0, 10, 10]])
    assert best_overlap(boxes, truths).tolist() == [1.0, 0.0]
    with pytest.raises(ValueError, match="longer"):  # each image has its true boxes
        best_overlap(boxes[:1], truths)


def test_localisation_errors_of_several_images_at_once() -> None:
    """The same as each alone; each has its true boxes."""
    labels, boxes, classes, truths = ([row[place] for row in ERRORS if len(row[0]) == 1] for place in range(4))
    truth = [np.array(rows) for rows in truths]
    found = boxes_wrong(np.array(labels), np.array(boxes), np.array(classes), truth)
    expected = [[row[place] for row in ERRORS if len(row[0]) == 1] for place in (4, 5)]
    assert [wrong.tolist() for wrong in found] == expected
    with pytest.raises(ValueError, match="longer"):
        boxes_wrong(np.array(labels), np.array(boxes), np.array(classes), [*truth, np.array([G])])


def scores_for(posteriors: list[list[float]], labels: list[int]) -> Scores:
    """Scores of images that each are their own subject."""
    numbers = np.arange(len(labels))
    names = (tuple(map(str, numbers)), tuple(map(str, range(len(posteriors[0])))))
    values = np.array(posteriors, dtype=np.float32)
    return Scores(names[0], np.array(labels), numbers, names[1], values, "test", "photos", "A", "dense@36", "")


G = [0.0, 0, 10, 10]
ERRORS: list[tuple[list[int], list[list[float]], int, list[list[float]], bool, bool, str]] = [
    ([1], [G], 1, [G], False, False, "the right label and box"),
    ([1], [[0, 0, 10, 5]], 1, [G], False, False, "exactly .50 counts"),
    ([1], [[0, 0, 10, 4.99]], 1, [G], False, True, "less does not"),
    ([0], [G], 1, [G], True, True, "a perfect box of a wrong label"),
    ([0, 1], [[0, 0, 1, 1], G], 1, [G], False, False, "the second guess"),
    ([0, 1], [G, [50, 50, 60, 60]], 1, [G], False, True, "the box belongs to the wrong guess"),
    ([1], [G], 1, [[50, 50, 60, 60], [1, 0, 10, 10]], False, False, "any of several boxes of the class"),
    ([1, -1, -1, -1, -1], [G] * 5, 1, [G], False, False, "fewer than five guesses"),
    ([-1, -1], [G] * 2, 1, [G], True, True, "no guess at all"),
]


@pytest.mark.parametrize(("labels", "boxes", "label", "truth", "unnamed", "unplaced", "reason"), ERRORS)
def test_the_devkits_error_by_hand(
    labels: list[int],
    boxes: list[list[float]],
    label: int,
    truth: list[list[float]],
    unnamed: bool,
    unplaced: bool,
    reason: str,
) -> None:
    found = boxes_wrong(np.array([labels]), np.array([boxes]), np.array([label]), [np.array(truth)])
    assert (bool(found[0][0]), bool(found[1][0])) == (unnamed, unplaced), reason
