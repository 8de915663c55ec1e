"""App. A: box formats, overlaps in both forms, and greedy merging."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import ArrayLike, NDArray

from conftest import SHARED
from verydeep.data.boxes import (
    Merging,
    area,
    clip,
    cxcywh_to_xyxy,
    inclusive_to_xyxy,
    iou,
    iou_inclusive,
    xywh_to_xyxy,
    xyxy_to_cxcywh,
    xyxy_to_inclusive,
)

Array = NDArray[np.float64]


def greedy_merge(boxes: ArrayLike, ratings: ArrayLike, t: float, *options: Any, **named: Any) -> tuple[Array, ...]:
    """The boxes that are left, their ratings, and how many each came from."""
    merged = Merging(boxes, ratings, *options, **named).until(t)
    return merged.boxes, merged.ratings, merged.windows


@st.composite
def box_lists(draw: st.DrawFn) -> Array:
    """1 to 8 boxes of whole pixels, some alike."""
    side = st.integers(0, 12)
    rows = draw(st.lists(st.tuples(side, side, st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=8))
    return xywh_to_xyxy(np.array(rows, dtype=np.float64))


@given(box_lists())
def test_formats_round_trip(boxes: Array) -> None:
    assert np.array_equal(cxcywh_to_xyxy(xyxy_to_cxcywh(boxes)), boxes)
    assert np.array_equal(inclusive_to_xyxy(xyxy_to_inclusive(boxes)), boxes)


def test_formats_by_hand() -> None:
    """A box over pixels 3, 4, 5 and rows 1, 2 of an image counted from 1."""
    inclusive, edges = [3, 1, 5, 2], [2.0, 0.0, 5.0, 2.0]
    assert inclusive_to_xyxy(inclusive).tolist() == edges
    assert xyxy_to_inclusive(edges).tolist() == inclusive
    assert xyxy_to_cxcywh(edges).tolist() == [3.5, 1.0, 3.0, 2.0]
    assert xywh_to_xyxy([2, 0, 3, 2]).tolist() == edges
    assert area(edges) == 6
    assert area([(0, 0, 4, 0.5), (0, 0, 4, -1), (3, 0, 1, 5)]).tolist() == [
        2,
        0,
        0,
    ]  # of less than a pixel, and of none
    assert xyxy_to_inclusive([2.4, 0.4, 2.45, 0.45]).tolist() == [3, 1, 3, 1]  # at least one pixel
    assert xyxy_to_inclusive([7.6, 3.6, 7.7, 3.7]).tolist() == [8, 4, 8, 4]  # that of the box's centre
    assert xyxy_to_inclusive([2.4, 0.6, 5.6, 2.4]).tolist() == [3, 2, 6, 2]  # edges are rounded
    assert cxcywh_to_xyxy([5, 5, -2, 4]).tolist() == [5, 3, 5, 7]  # a negative size counts as none
    assert clip([-3, 2, 50, 70], 60, 40).tolist() == [0, 2, 40, 60]


def test_formats_and_overlaps_of_public_cases() -> None:
    path = SHARED / "external" / "metrics_cases.json"
    if not path.exists():
        pytest.skip(f"{path} is not there")
    cases = json.loads(path.read_text())["box_ops"]
    assert xyxy_to_cxcywh(cases["xyxy_to_cxcywh"]["xyxy"]).tolist() == cases["xyxy_to_cxcywh"]["cxcywh"]
    for case in cases["iou_xyxy"]:
        boxes = np.array(case["boxes"], dtype=np.float64)
        assert iou(boxes[:, None], boxes[None]) == pytest.approx(np.array(case["expected"]), abs=case["tol"])


# two inclusive boxes, the devkit's overlap, the plain one of the same four numbers, why
OVERLAPS = [
    ((1, 1, 10, 10), (1, 1, 10, 10), 1.0, 1.0, "the same"),
    ((1, 1, 10, 10), (6, 1, 15, 10), 50 / 150, 36 / 126, "ten by ten, half in common: + 1 counts"),
    ((1, 1, 10, 10), (10, 10, 20, 20), 1 / 220, 0.0, "one pixel in common, which the plain form does not see"),
    ((1, 1, 10, 10), (1, 1, 10, 20), 0.5, 81 / 171, "exactly a half, in the devkit's form only"),
    ((1, 1, 1, 1), (1, 1, 1, 1), 1.0, 0.0, "one pixel has no area in the plain form"),
    ((1, 1, 4, 4), (6, 6, 9, 9), 0.0, 0.0, "apart"),
]


@pytest.mark.parametrize(("one", "other", "devkit", "plain", "reason"), OVERLAPS)
def test_overlaps_by_hand(one: list[int], other: list[int], devkit: float, plain: float, reason: str) -> None:
    assert float(iou_inclusive(one, other)) == pytest.approx(devkit, abs=1e-12), reason
    assert float(iou(one, other)) == pytest.approx(plain, abs=1e-12), reason
    assert float(iou(inclusive_to_xyxy(one), inclusive_to_xyxy(other))) == float(iou_inclusive(one, other))


def test_a_half_is_exactly_a_half() -> None:
    """No rounding may decide whether .50 counts."""
    for side in (1, 3, 7, 10, 113):
        assert float(iou([0, 0, side, side], [0, 0, side, 2 * side])) == 0.5


@given(box_lists())
def test_overlap_is_symmetric_and_one_with_itself(boxes: Array) -> None:
    found = iou(boxes[:, None], boxes[None])
    assert np.array_equal(found, found.T)
    assert np.array_equal(np.diag(found), np.ones(len(boxes)))
    assert (found >= 0).all()
    assert (found <= 1).all()


def reference(boxes: Array, ratings: Array, t: float, literal: bool, pair: bool) -> list[tuple[float, ...]]:
    """Greedy merging as the text says it, all pairs anew each time; rows of coordinates, rating, windows."""
    rows = [(*box, rating, 1.0) for box, rating in sorted(zip(boxes.tolist(), ratings.tolist(), strict=True))]
    while len(rows) > 1:
        matches = {}
        for i in range(len(rows)):
            for j in range(i + 1, len(rows)):
                a, b = np.array(rows[i][:4]), np.array(rows[j][:4])
                (ax, ay, aw, ah), (bx, by, bw, bh) = xyxy_to_cxcywh(a), xyxy_to_cxcywh(b)
                distance = float(np.hypot(ax - bx, ay - by))
                if literal:
                    inter = max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
                    matches[i, j] = round(distance + inter, 9)
                else:
                    diagonal = (np.hypot(aw, ah) + np.hypot(bw, bh)) / 2
                    matches[i, j] = round(distance / diagonal + 1 - float(iou(a, b)), 9)
        i, j = min(matches, key=lambda pair_of: (matches[pair_of], pair_of))
        if matches[i, j] > t:
            break
        wi, wj = (1.0, 1.0) if pair else (rows[i][5], rows[j][5])
        merged = tuple((wi * x + wj * y) / (wi + wj) for x, y in zip(rows[i][:4], rows[j][:4], strict=True))
        rows[i] = (*merged, rows[i][4] + rows[j][4], rows[i][5] + rows[j][5])
        del rows[j]
    return rows


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 12), st.sampled_from([0.0, 0.4, 0.9, 5.0]), st.booleans(), st.booleans())
def test_merging_equals_a_literal_implementation(seed: int, count: int, t: float, literal: bool, pair: bool) -> None:
    rng = np.random.default_rng(seed)
    corner, size = rng.uniform(0, 60, (count, 2)), rng.uniform(5, 40, (count, 2))
    boxes, ratings = np.concatenate([corner, corner + size], axis=1), rng.random(count)
    t = 60 * t if literal else t
    found = greedy_merge(boxes, ratings, t, "literal" if literal else "relative", "pair" if pair else "windows")
    expected = np.array(reference(boxes, ratings, t, literal, pair))
    assert np.concatenate([found[0], found[1][:, None], found[2][:, None]], axis=1) == pytest.approx(expected, abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(box_lists(), st.sampled_from([2.0, 5.0, 12.0, 30.0]))
def test_ties_are_broken_as_in_a_literal_implementation(boxes: Array, t: float) -> None:
    """Halves of whole pixels and their distances are exact, so equal distances are equal to the bit."""
    ratings = (np.arange(len(boxes)) % 3).astype(np.float64)
    found = greedy_merge(boxes, ratings, t, "literal", "pair")
    expected: Array = np.array(reference(boxes, ratings, t, literal=True, pair=True))
    assert np.array_equal(np.concatenate([found[0], found[1][:, None], found[2][:, None]], axis=1), expected)


@settings(max_examples=60, deadline=None)
@given(box_lists(), st.randoms(use_true_random=False), st.sampled_from([0.0, 0.3, 0.8, 2.0]))
def test_merging_does_not_depend_on_the_order_of_boxes(boxes: Array, random: object, t: float) -> None:
    """Boxes of whole pixels have many ties."""
    ratings = np.random.default_rng(len(boxes)).random(len(boxes))
    order = list(range(len(boxes)))
    random.shuffle(order)  # type: ignore[attr-defined]
    first, other = greedy_merge(boxes, ratings, t), greedy_merge(boxes[order], ratings[order], t)
    assert all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


@settings(max_examples=40, deadline=None)
@given(box_lists(), st.sampled_from(["relative", "literal"]))
def test_continuing_to_a_larger_t_equals_merging_at_it(boxes: Array, match: str) -> None:
    ratings = np.ones(len(boxes))
    steps = Merging(boxes, ratings, match)  # type: ignore[arg-type]
    for t in (0.1, 0.5, 1.0, 3.0):
        steps.until(t)
        boxes_at_once, ratings_at_once, windows = greedy_merge(boxes, ratings, t, match)
        assert np.array_equal(steps.boxes, boxes_at_once)
        assert np.array_equal(steps.ratings, ratings_at_once)
        assert steps.windows.sum() == windows.sum() == len(boxes)


@pytest.mark.parametrize("at_once", [1, 7, 2**16])
def test_clusters_of_many_boxes_become_their_means(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five clusters far apart, of 12 boxes each: many merged boxes are removed from the arrays on the way."""
    monkeypatch.setattr("verydeep.data.boxes.PAIRS_AT_ONCE", at_once)
    rng = np.random.default_rng(0)
    offsets = np.repeat(1000.0 * np.arange(5), 12)[:, None]
    boxes = offsets + np.array([0.0, 0, 40, 40]) + rng.uniform(0, 9, (60, 4))
    ratings = rng.random(60)
    order = rng.permutation(60)
    merged, summed, counts = greedy_merge(boxes[order], ratings[order], 0.9)
    assert merged == pytest.approx(boxes.reshape(5, 12, 4).mean(axis=1))
    assert summed == pytest.approx(ratings.reshape(5, 12).sum(axis=1))
    assert counts.tolist() == [12] * 5


def test_five_boxes_by_hand() -> None:
    """Two on the left, two on the right and one far away, t = .5.

    Step 1: the nearest pair is c and d: centres 1 apart, diagonals sqrt(200) = 14.142, overlap 90 / 110:
        1 / 14.142 + 1 - 90 / 110 = .2525. They become (40.5, 0, 50.5, 10) of rating .7, two windows.
    Step 2: now a and b: centres 2 apart, overlap 80 / 120: 2 / 14.142 + 1 - 2 / 3 = .4748. They become
        (1, 0, 11, 10) of rating .5, two windows.
    Step 3: the nearest of what is left are the two merged boxes, 39.5 apart and without overlap:
        39.5 / 14.142 + 1 = 3.79 > .5. Merging ends with three boxes.
    """
    a, b = [0, 0, 10, 10], [2, 0, 12, 10]
    c, d = [40, 0, 50, 10], [41, 0, 51, 10]
    e = [200, 200, 210, 210]
    ratings = np.array([0.2, 0.3, 0.3, 0.4, 0.9])
    first = Merging([a, b, c, d, e], ratings).until(0.26)
    assert first.boxes.tolist() == [a, b, [40.5, 0, 50.5, 10], e]
    boxes, summed, windows = greedy_merge([a, b, c, d, e], ratings, 0.5)
    assert boxes.tolist() == [[1, 0, 11, 10], [40.5, 0, 50.5, 10], e]
    assert summed == pytest.approx([0.5, 0.7, 0.9])
    assert windows.tolist() == [2, 2, 1]
    assert len(greedy_merge([a, b, c, d, e], ratings, 0.47)[0]) == 4  # .4748 is above
    assert len(greedy_merge([a, b, c, d, e], ratings, 3.8)[0]) == 2  # and 3.79 at most that


def test_a_third_box_counts_a_third_or_a_half() -> None:
    """The mean over windows, and OverFeat's mean of the pair, by which the last box moves it half-way."""
    boxes = [[0, 0, 30, 30], [0, 0, 30, 30], [3, 0, 33, 30]]
    assert greedy_merge(boxes, np.ones(3), 5.0)[0].tolist() == [[1, 0, 31, 30]]
    assert greedy_merge(boxes, np.ones(3), 5.0, coordinates="pair")[0].tolist() == [[1.5, 0, 31.5, 30]]


def test_read_literally_a_larger_overlap_is_a_worse_match() -> None:
    near, far = [[0, 0, 10, 10], [1, 0, 11, 10]], [[0, 0, 10, 10], [12, 0, 22, 10]]
    assert len(greedy_merge(near, np.ones(2), 50.0, "literal")[0]) == 2  # 1 + 90 square pixels in common
    assert len(greedy_merge(far, np.ones(2), 50.0, "literal")[0]) == 1  # 12 + 0


def test_boxes_of_no_size_and_no_boxes() -> None:
    point = [5.0, 5.0, 5.0, 5.0]
    # At one point they are 1 apart (no overlap), anywhere else infinitely far.
    assert greedy_merge([point, point], np.ones(2), 1.0)[0].tolist() == [point]
    assert len(greedy_merge([point, [6.0, 5, 6, 5]], np.ones(2), 1e9)[0]) == 2
    boxes, ratings, windows = greedy_merge(np.zeros((0, 4)), np.zeros(0), 1.0)
    assert (len(boxes), len(ratings), len(windows)) == (0, 0, 0)


def test_ratings_of_several_classes_are_summed_apart() -> None:
    boxes = [[0, 0, 10, 10], [0, 0, 10, 10], [50, 50, 60, 60]]
    ratings = np.array([[0.2, 0.0], [0.0, 0.5], [0.1, 0.0]])
    assert greedy_merge(boxes, ratings, 0.5)[1].tolist() == [[0.2, 0.5], [0.1, 0.0]]


def comparisons(boxes: Array) -> int:
    """Pairs of boxes compared in merging them to the end."""
    merging = Merging(boxes, np.ones(len(boxes)))
    pairs, compare = [len(boxes) ** 2], merging._distances

    def counted(rows: NDArray[np.int64]) -> Array:
        pairs.append(len(rows) * len(merging.boxes))
        return compare(rows)

    merging._distances = counted  # type: ignore[method-assign]
    assert len(merging.until(np.inf).boxes) == 1
    return sum(pairs)


def scattered(count: int) -> Array:
    rng = np.random.default_rng(0)
    corner, size = rng.uniform(0, 400, (count, 2)), rng.uniform(40, 200, (count, 2))
    return np.concatenate([corner, corner + size], axis=1)


@pytest.mark.parametrize("kind", ["scattered", "cut at the edges of a photo", "all alike"])
def test_merging_is_quadratic_in_the_number_of_boxes(kind: str) -> None:
    """Counted, not timed: four times as many boxes take about 16 times as many comparisons, and not 64."""
    found = []
    for count in (100, 400):
        boxes = scattered(count)
        if kind == "all alike":
            boxes = np.tile(boxes[:1], (count, 1))
        elif kind != "scattered":
            boxes = clip(boxes * 1.5 - 150, 300, 300)
        found.append(comparisons(boxes))
    assert found[0] < 8 * 100**2
    assert 8 < found[1] / found[0] < 24
