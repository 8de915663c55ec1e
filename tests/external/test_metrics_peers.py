"""Metrics held to torchmetrics, scikit-learn, statsmodels, pycocotools and SciPy, on random and tied data, to 1e-12.

Where a definition differs from a peer's, the test's docstring says how, and compares what both define. The peers are
those of ``pip install verydeep[suites]``; ``make suites`` installs them and runs this, and without them it is skipped.
"""

from __future__ import annotations

import warnings
from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from verydeep.data.boxes import Merging, iou, iou_inclusive, xywh_to_xyxy
from verydeep.evaluation.metrics import (
    RELIABILITY_BINS,
    average_precision,
    best_overlap,
    boxes_wrong,
    brier_score,
    calibration_error,
    chance_error,
    class_recalls,
    confusion,
    difference_interval,
    error_interval,
    mcnemar,
    mean_log_loss,
    reliability,
    topk_error,
)

NEEDED = "needs the extra `suites`: make suites"
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of imports that are not ours
    coco_mask = pytest.importorskip("pycocotools.mask", reason=NEEDED)
    coco = pytest.importorskip("pycocotools.coco", reason=NEEDED)
    coco_eval = pytest.importorskip("pycocotools.cocoeval", reason=NEEDED)
    faster = pytest.importorskip("faster_coco_eval", reason=NEEDED)
    torchmetrics = pytest.importorskip("torchmetrics.functional.classification", reason=NEEDED)
    proportion = pytest.importorskip("statsmodels.stats.proportion", reason=NEEDED)
    contingency = pytest.importorskip("statsmodels.stats.contingency_tables", reason=NEEDED)
    sklearn = pytest.importorskip("sklearn.metrics", reason=NEEDED)
    stats = pytest.importorskip("scipy.stats", reason=NEEDED)
    hierarchy = pytest.importorskip("scipy.cluster.hierarchy", reason=NEEDED)

Form = Literal["11-point", "area"]
SEEDS = st.integers(0, 2**32 - 1)
TENTHS = np.arange(11) / 10  # the floats next to 0, .1, …, 1, as hits / total are: np.linspace gives .30000000000000004


def near(value: float) -> Any:
    return pytest.approx(value, rel=1e-12, abs=1e-12)


def posteriors_and_labels(
    seed: int, images: int, classes: int, tied: bool
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Posteriors (N,K) that sum to 1, of few values each where ``tied``, and labels (N,)."""
    rng = np.random.default_rng(seed)
    raw = rng.integers(1, 4, (images, classes)).astype(np.float64) if tied else rng.random((images, classes)) + 1e-3
    return raw / raw.sum(axis=1, keepdims=True), rng.integers(0, classes, images)


def draw_scores(seed: int, images: int, tied: bool) -> tuple[NDArray[np.float64], NDArray[np.int8]]:
    """Scores (N,) and marks (N,) of which at least one is 1."""
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 5, images).astype(np.float64) if tied else rng.permutation(images) + rng.random(images) / 2
    marks = rng.choice(np.array([-1, 0, 1], dtype=np.int8), images)
    marks[rng.integers(images)] = 1
    return scores, marks


def draw_boxes(rng: np.random.Generator, count: int, whole: bool) -> NDArray[np.float64]:
    """Boxes with an area, xywh (n,4); ``whole`` ones have few places and sizes, so many are equal."""
    if whole:
        return np.concatenate([rng.integers(0, 6, (count, 2)), rng.integers(1, 6, (count, 2))], axis=1).astype(float)
    return np.concatenate([rng.random((count, 2)) * 50, rng.random((count, 2)) * 50 + 1], axis=1)


@given(SEEDS, st.integers(1, 60), st.integers(3, 12), st.integers(1, 11), st.booleans())
def test_topk_error_is_sklearns(seed: int, images: int, classes: int, k: int, tied: bool) -> None:
    """Definition: among equal posteriors the lower class ranks first; scikit-learn's is the higher one.

    With the order of classes reversed the two rules are the same.
    """
    assume(k < classes)
    posteriors, labels = posteriors_and_labels(seed, images, classes, tied)
    right = sklearn.top_k_accuracy_score(classes - 1 - labels, posteriors[:, ::-1], k=k, labels=np.arange(classes))
    assert topk_error(posteriors, labels, k) == near(100 * (1 - right))


@given(SEEDS, st.integers(1, 60), st.integers(3, 12), st.integers(1, 11))
def test_topk_error_is_torchmetrics(seed: int, images: int, classes: int, k: int) -> None:
    """Definition: torchmetrics has no order among equal posteriors, so these are distinct; its result is float32."""
    assume(k < classes)
    posteriors, labels = posteriors_and_labels(seed, images, classes, tied=False)
    predictions, target = torch.from_numpy(posteriors), torch.from_numpy(labels)
    right = torchmetrics.multiclass_accuracy(predictions, target, classes, average="micro", top_k=k)
    assert topk_error(posteriors, labels, k) == near(100 * (1 - round(float(right) * images) / images))
    assert float(right) == pytest.approx(round(float(right) * images) / images, abs=1e-6)


@given(SEEDS, st.integers(1, 60), st.integers(2, 9), st.booleans())
def test_confusion_recalls_and_chance_are_sklearns(seed: int, images: int, classes: int, tied: bool) -> None:
    """The recall of a class without images is NaN, and not counted in the mean, as scikit-learn's balanced accuracy."""
    posteriors, labels = posteriors_and_labels(seed, images, classes, tied)
    predicted, every = posteriors.argmax(axis=1), np.arange(classes)
    assert np.array_equal(confusion(posteriors, labels), sklearn.confusion_matrix(labels, predicted, labels=every))
    recalls = class_recalls(predicted, labels, classes)
    theirs = sklearn.recall_score(labels, predicted, labels=every, average=None, zero_division=np.nan)
    np.testing.assert_allclose(recalls, 100 * theirs, rtol=1e-12, atol=1e-12)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a predicted class has no images
        balanced = sklearn.balanced_accuracy_score(labels, predicted)
    assert np.nanmean(recalls) == near(100 * balanced)
    usual = np.full(images, np.bincount(labels).argmax())
    assert chance_error(labels) == near(100 * (1 - sklearn.accuracy_score(labels, usual)))


@given(SEEDS, st.integers(1, 60), st.integers(2, 9))
def test_confusion_and_recalls_are_torchmetrics(seed: int, images: int, classes: int) -> None:
    """Definition: torchmetrics has recall 0 for a class without images that is predicted; ours is NaN. Float32."""
    posteriors, labels = posteriors_and_labels(seed, images, classes, tied=False)
    predicted, target = torch.from_numpy(posteriors.argmax(axis=1)), torch.from_numpy(labels)
    theirs = torchmetrics.multiclass_confusion_matrix(predicted, target, classes).numpy()
    assert np.array_equal(confusion(posteriors, labels), theirs)
    recalls = class_recalls(predicted.numpy(), labels, classes)
    found = torchmetrics.multiclass_recall(predicted, target, classes, average=None).numpy()
    seen = ~np.isnan(recalls)
    np.testing.assert_allclose(recalls[seen], 100 * found[seen], rtol=1e-6)
    assert (found[~seen] == 0).all()


@given(SEEDS, st.integers(1, 60), st.integers(2, 9), st.booleans())
def test_log_loss_is_sklearns(seed: int, images: int, classes: int, tied: bool) -> None:
    """Definition: posteriors below 1.2e-38 count as that; scikit-learn's limit is 2.2e-16. These are above both."""
    posteriors, labels = posteriors_and_labels(seed, images, classes, tied)
    assert mean_log_loss(posteriors, labels) == near(sklearn.log_loss(labels, posteriors, labels=np.arange(classes)))


@given(SEEDS, st.integers(1, 60), st.integers(2, 9), st.booleans())
def test_the_brier_score_is_sklearns(seed: int, images: int, classes: int, tied: bool) -> None:
    """Definition: the sum over all classes, 0 to 2; scikit-learn halves it unless told otherwise."""
    posteriors, labels = posteriors_and_labels(seed, images, classes, tied)
    every = np.arange(classes)
    theirs = sklearn.brier_score_loss(labels, posteriors[:, 1] if classes == 2 else posteriors, labels=every)
    assert brier_score(posteriors, labels) == near(theirs * (2 if classes == 2 else 1))


@given(SEEDS, st.integers(1, 60), st.integers(2, 9))
def test_calibration_error_is_torchmetrics(seed: int, images: int, classes: int) -> None:
    """Definition: a bin holds its upper edge, and torchmetrics' its lower one; posteriors here are on none. Float32."""
    posteriors, labels = posteriors_and_labels(seed, images, classes, tied=False)
    predictions, target = torch.from_numpy(posteriors), torch.from_numpy(labels)
    theirs = torchmetrics.multiclass_calibration_error(predictions, target, classes, n_bins=RELIABILITY_BINS)
    assert calibration_error(reliability(posteriors, labels)) == pytest.approx(100 * float(theirs), abs=1e-4)


@given(SEEDS, st.integers(1, 40), st.booleans(), st.sampled_from(["11-point", "area"]))
def test_average_precision_is_that_of_sklearns_curve(seed: int, images: int, tied: bool, form: Form) -> None:
    """Definition: VOC's makes precision monotone, which scikit-learn's average precision does not.

    So the curve is scikit-learn's, in which equal scores are one point too, and the interpolation is written out here;
    scikit-learn's own figure is below VOC's area, and the same where its precision is monotone already.
    """
    scores, marks = draw_scores(seed, images, tied)
    told = marks != 0
    precision, recall, _ = sklearn.precision_recall_curve(marks[told] == 1, scores[told])  # recall falls
    best = np.maximum.accumulate(precision)
    area = float((recall[:-1] - recall[1:]) @ best[:-1])
    points = float(np.mean([precision[:-1][recall[:-1] >= tenth].max(initial=0.0) for tenth in TENTHS]))
    assert average_precision(scores, marks, form) == near(100 * (area if form == "area" else points))
    plain = sklearn.average_precision_score(marks[told] == 1, scores[told])
    assert plain <= area + 1e-12
    if np.array_equal(best[:-1], precision[:-1]):
        assert plain == near(area)


@given(SEEDS, st.integers(1, 40))
def test_area_is_torchmetrics_where_precision_is_monotone(seed: int, images: int) -> None:
    """Definition: as scikit-learn's, torchmetrics' has no interpolation; right images first leave nothing to it."""
    scores, marks = draw_scores(seed, images, tied=False)
    marks[marks == 0] = -1
    scores[marks == 1] += images + 1
    scores /= scores.max() + 1  # torchmetrics takes scores outside [0, 1] as logits
    theirs = torchmetrics.binary_average_precision(torch.from_numpy(scores), torch.from_numpy(marks == 1).long())
    assert average_precision(scores, marks, "area") == pytest.approx(100 * float(theirs), rel=1e-6)


def coco_11_points(api: Any, evaluator: Any, scores: NDArray[np.float64], marks: NDArray[np.int8]) -> float:
    """COCO's mean over classes of the average precision at 11 recalls, of scores and marks (N,K).

    An image of the class is an object as large as the image; one with a score is detected so, one of -inf is not.
    """
    box = {"bbox": [0.0, 0.0, 8.0, 8.0], "area": 64.0, "iscrowd": 0}
    images, classes = scores.shape
    truth = api()
    objects = [{"image_id": int(at) + 1, "category_id": int(of) + 1, **box} for at, of in np.argwhere(marks == 1)]
    truth.dataset = {
        "info": {},
        "images": [{"id": number + 1, "height": 8, "width": 8} for number in range(images)],
        "categories": [{"id": number + 1, "name": f"class {number}"} for number in range(classes)],
        "annotations": [{"id": number + 1, **one} for number, one in enumerate(objects)],
    }
    truth.createIndex()
    ranked = np.argwhere(scores > -np.inf)
    if not len(ranked):
        return 0.0
    rows = [{"image_id": at + 1, "category_id": of + 1, **box, "score": scores[at, of]} for at, of in ranked.tolist()]
    evaluation = evaluator(truth, truth.loadRes(rows), "bbox")
    evaluation.params.iouThrs, evaluation.params.recThrs = np.array([0.5]), TENTHS
    evaluation.evaluate()
    evaluation.accumulate()
    return float(evaluation.eval["precision"][0, :, :, 0, -1].mean())


@pytest.mark.parametrize("peer", ["pycocotools", "faster_coco_eval"])
@given(seed=SEEDS, images=st.integers(1, 30), classes=st.integers(1, 4))
def test_mean_average_precision_of_11_points_is_cocos(peer: str, seed: int, images: int, classes: int) -> None:
    """Definitions: COCO counts equal scores one by one, ours together, so these are distinct; its own recalls are 101.

    COCO's recall of 3 in 10 is below its third recall, np.linspace's .30000000000000004; ours compares whole numbers,
    so the recalls are given as the nearest floats here.
    """
    drawn = [draw_scores((seed + number) % 2**32, images, tied=False) for number in range(classes)]
    scores, marks = (np.stack(columns, axis=1) for columns in zip(*drawn, strict=True))
    marks[marks == 0] = -1
    scores[np.random.default_rng(seed).random(scores.shape) < 0.2] = -np.inf
    api, evaluator = (coco.COCO, coco_eval.COCOeval) if peer == "pycocotools" else (faster.COCO, faster.COCOeval_faster)
    ours = [average_precision(scores[:, number], marks[:, number], "11-point") for number in range(classes)]
    assert float(np.mean(ours)) == near(100 * coco_11_points(api, evaluator, scores, marks))


@given(SEEDS, st.integers(1, 12), st.integers(1, 12), st.booleans())
def test_overlaps_are_cocos(seed: int, images: int, truths: int, whole: bool) -> None:
    """Of boxes with an area. Definition: the overlap of two boxes without one is 0 here, and not a number there."""
    rng = np.random.default_rng(seed)
    first, second = draw_boxes(rng, images, whole), draw_boxes(rng, truths, whole)
    theirs = coco_mask.iou(first, second, [0] * truths)
    ours = iou(xywh_to_xyxy(first)[:, None], xywh_to_xyxy(second)[None])
    np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)
    best = best_overlap(xywh_to_xyxy(first), [xywh_to_xyxy(second)] * images)
    np.testing.assert_allclose(best, theirs.max(axis=1), rtol=1e-12, atol=1e-12)


@given(SEEDS)
def test_the_devkits_overlap_is_the_jaccard_index_of_pixels(seed: int) -> None:
    """First and last pixels from 1: both boxes painted, and scikit-learn's Jaccard index of the two pictures."""
    rng = np.random.default_rng(seed)
    corners = np.sort(rng.integers(1, 13, (2, 2, 2)), axis=1)
    boxes = corners.reshape(2, 4)
    pictures = np.zeros((2, 13, 13), dtype=bool)
    for picture, (x1, y1, x2, y2) in zip(pictures, boxes, strict=True):
        picture[y1 : y2 + 1, x1 : x2 + 1] = True
    theirs = sklearn.jaccard_score(pictures[0].ravel(), pictures[1].ravel(), zero_division=0.0)
    assert float(iou_inclusive(boxes[0], boxes[1])) == near(theirs)


@given(SEEDS, st.integers(1, 8), st.integers(1, 5), st.booleans())
def test_localisation_errors_by_cocos_overlap(seed: int, images: int, guesses: int, whole: bool) -> None:
    rng = np.random.default_rng(seed)
    labels, guessed = rng.integers(0, 3, images), rng.integers(-1, 3, (images, guesses))
    boxes = [draw_boxes(rng, guesses, whole) for _ in range(images)]
    truths = [draw_boxes(rng, int(rng.integers(1, 4)), whole) for _ in range(images)]
    close = [coco_mask.iou(a, b, [0] * len(b)).max(axis=1) >= 0.5 for a, b in zip(boxes, truths, strict=True)]
    named = guessed == labels[:, None]
    wrong = boxes_wrong(guessed, xywh_to_xyxy(np.array(boxes)), labels, [xywh_to_xyxy(truth) for truth in truths])
    assert wrong[0].tolist() == (~named.any(axis=1)).tolist()
    assert wrong[1].tolist() == (~(named & np.array(close)).any(axis=1)).tolist()


@given(SEEDS, st.integers(1, 25), st.floats(0, 60), st.sampled_from(["windows", "pair"]))
def test_merging_is_scipys_hierarchical_clustering_of_points(
    seed: int, count: int, t: float, coordinates: Literal["windows", "pair"]
) -> None:
    """Boxes without a size have the literal distance of their centres: then merging is centroid or median linkage.

    No library has Sect. A.1's distances of boxes with a size; `tests/data/test_boxes.py` holds those to the text.
    """
    centres = np.random.default_rng(seed).random((count, 2)) * 100
    merged = Merging(np.tile(centres, 2), np.ones(count), "literal", coordinates).until(t)
    clusters = {number: (centre, 1) for number, centre in enumerate(centres)}
    method = {"windows": "centroid", "pair": "median"}[coordinates]
    rows = hierarchy.linkage(centres, method) if count > 1 else []
    for step, (one, other, distance, _) in enumerate(rows):
        assume(abs(distance - t) > 1e-6)
        if distance > t:
            break
        (a, m), (b, n) = clusters.pop(int(one)), clusters.pop(int(other))
        mean = (m * a + n * b) / (m + n) if coordinates == "windows" else (a + b) / 2
        clusters[count + step] = (mean, m + n)
    theirs = sorted((*centre, size) for centre, size in clusters.values())
    ours = sorted((*box[:2], size) for box, size in zip(merged.boxes, merged.windows, strict=True))
    np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-11)


@given(st.integers(1, 200_000), st.floats(0, 1))
def test_the_interval_is_statsmodels_wilson(images: int, share: float) -> None:
    wrong = np.arange(images) < round(share * images)
    theirs = proportion.proportion_confint(int(wrong.sum()), images, method="wilson")
    assert error_interval(wrong, np.arange(images)) == near_pair(100 * theirs[0], 100 * theirs[1])


def near_pair(low: float, high: float) -> Any:
    return pytest.approx((low, high), rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_bootstrap_intervals_are_scipys_within_chance(seed: int) -> None:
    """Definition: a percentile bootstrap draws at random, so only its spread can be compared."""
    rng = np.random.default_rng(seed)
    first, second = rng.random(400) < 0.2, rng.random(400) < 0.3
    difference = 100 * (first.astype(float) - second)
    theirs = stats.bootstrap((difference,), np.mean, n_resamples=20_000, method="percentile", rng=rng)
    expected = tuple(theirs.confidence_interval)
    assert difference_interval(first, second, np.arange(400)) == pytest.approx(expected, abs=0.4)


@given(st.integers(0, 30_000), st.integers(0, 30_000), st.integers(0, 50))
def test_mcnemar_is_statsmodels_exact_test(only_first: int, only_second: int, both: int) -> None:
    first, second = pair_of_errors(only_first, only_second, both)
    table = [[both, only_first], [only_second, 7]]
    theirs = contingency.mcnemar(table, exact=True).pvalue
    assert mcnemar(first, second, np.arange(len(first)))["p"] == near(theirs)


def pair_of_errors(only_first: int, only_second: int, both: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    place = np.arange(only_first + only_second + both + 7)
    first = (place < only_first) | (place >= len(place) - both)
    return first, ((place >= only_first) & (place < only_first + only_second)) | (place >= len(place) - both)


@given(SEEDS, st.integers(2, 8))
def test_flips_of_groups_are_scipys_permutation_test(seed: int, groups: int) -> None:
    """All exchanges of the two errors within groups of unequal size, listed by SciPy."""
    rng = np.random.default_rng(seed)
    numbers = np.repeat(np.arange(groups), rng.integers(2, 5, groups))
    first, second = rng.random(len(numbers)) < 0.4, rng.random(len(numbers)) < 0.4
    sums = [np.bincount(numbers, weights=wrong.astype(float)) for wrong in (first, second)]

    def statistic(a: NDArray[np.float64], b: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
        return np.asarray((a - b).sum(axis=axis))

    theirs = stats.permutation_test(sums, statistic, permutation_type="samples", n_resamples=np.inf, vectorized=True)
    assert mcnemar(first, second, numbers)["p"] == near(theirs.pvalue)
