"""App. A: boxes: their formats, their overlap, and the greedy merging of many predictions into few.

Boxes are the last axis of an array, (…,4), float64, in one of these formats, by default ``xyxy``:

- ``xyxy``: xmin, ymin, xmax, ymax in continuous pixels from 0, area (xmax-xmin)·(ymax-ymin).
- ``inclusive``: first and last pixel covered, counted from 1, as in the files and devkits of VOC and ILSVRC: a box of
  one pixel is 1, 1, 1, 1, and widths have a ``+ 1``.
- ``xywh``: corner and size, as in COCO's files.
- ``cxcywh``: centre and size, which localisation models predict.

The devkits' overlap of inclusive boxes is the IoU of the same boxes as ``xyxy``.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Match = Literal["relative", "literal"]
Coordinates = Literal["windows", "pair"]
PAIRS_AT_ONCE = 2**16  # of boxes compared: they fit into a CPU's cache
_CX, _LEAST = 4, 1e-30  # a row of `_measures`; a size that prevents dividing 0 by 0


def cxcywh_to_xyxy(boxes: ArrayLike) -> Array:
    """Centre and size to corners, (…,4); a negative size counts as 0."""
    cx, cy, w, h = _columns(boxes)
    w, h = np.maximum(w, 0) / 2, np.maximum(h, 0) / 2
    return np.stack([cx - w, cy - h, cx + w, cy + h], axis=-1)


def xyxy_to_cxcywh(boxes: ArrayLike) -> Array:
    """Corners to centre and size, (…,4)."""
    x1, y1, x2, y2 = _columns(boxes)
    return np.stack([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1], axis=-1)


def xywh_to_xyxy(boxes: ArrayLike) -> Array:
    """Corner and size to corners, (…,4)."""
    x, y, w, h = _columns(boxes)
    return np.stack([x, y, x + w, y + h], axis=-1)


def inclusive_to_xyxy(boxes: ArrayLike) -> Array:
    """First and last pixels, counted from 1, to edges, (…,4)."""
    return np.subtract(np.asarray(boxes, dtype=np.float64), [1.0, 1.0, 0.0, 0.0], dtype=np.float64)


def xyxy_to_inclusive(boxes: ArrayLike) -> NDArray[np.int64]:
    """Edges to first and last pixels, rounded, int64 (…,4); each box has at least one pixel."""
    array = np.asarray(boxes, dtype=np.float64)
    edges = np.floor(array + 0.5).astype(np.int64)
    middle = np.floor((array[..., :2] + array[..., 2:]) / 2).astype(np.int64) + 1
    thin = edges[..., :2] >= edges[..., 2:]  # no pixel's centre is inside: take the pixel of the box's centre
    first, last = np.where(thin, middle, edges[..., :2] + 1), np.where(thin, middle, edges[..., 2:])
    return np.concatenate([first, last], axis=-1)


def whole_pixels(boxes: ArrayLike) -> Array:
    """The boxes as a file of inclusive pixels has them, (…,4)."""
    return inclusive_to_xyxy(xyxy_to_inclusive(boxes))


def clip(boxes: ArrayLike, height: float, width: float) -> Array:
    """Boxes clipped to an image, (…,4)."""
    return np.clip(np.asarray(boxes, dtype=np.float64), 0.0, np.array([width, height, width, height]))


def area(boxes: ArrayLike) -> Array:
    """Areas in square pixels, (…,)."""
    x1, y1, x2, y2 = _columns(boxes)
    return np.asarray(np.maximum(x2 - x1, 0) * np.maximum(y2 - y1, 0))


def iou(first: ArrayLike, second: ArrayLike) -> Array:
    """Intersection over union of boxes paired by broadcasting, (…,); 0 if neither has an area."""
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    corners = np.concatenate([np.maximum(a[..., :2], b[..., :2]), np.minimum(a[..., 2:], b[..., 2:])], axis=-1)
    common = area(corners)
    union = area(a) + area(b) - common
    return np.asarray(np.divide(common, union, out=np.zeros_like(common), where=union > 0))


def iou_inclusive(first: ArrayLike, second: ArrayLike) -> Array:
    """The devkits' overlap of inclusive boxes: widths and heights have a ``+ 1``, (…,)."""
    return iou(inclusive_to_xyxy(first), inclusive_to_xyxy(second))


def _columns(boxes: ArrayLike) -> tuple[Array, Array, Array, Array]:
    array = np.asarray(boxes, dtype=np.float64)
    return array[..., 0], array[..., 1], array[..., 2], array[..., 3]


class Merging:
    """The greedy merging of Sect. A.1 (Sermanet et al. 2014): the closest pair becomes one box, repeatedly.

    ``match`` is the distance of two boxes. ``relative``, the default, is the distance of their centres over their mean
    diagonal, plus 1 - IoU. ``literal`` is OverFeat's text: the distance of the centres plus the area of the
    intersection, in pixels, by which a larger overlap is a worse match. ``coordinates`` are those of the new box: the
    mean of all windows that it came from (``windows``), or of the pair (``pair``: OverFeat's text, by which one outlier
    moves a cluster half-way). Its rating is the sum of theirs.

    Ties are broken by coordinates, so the order of the input does not matter. Only the nearest other box of each box is
    stored, so merging n boxes takes about n² comparisons and memory of n.

    Attributes:
        boxes: the remaining boxes, (m,4).
        ratings: their ratings, (m,…).
        windows: the number of input boxes that each came from, (m,).
    """

    def __init__(
        self, boxes: ArrayLike, ratings: ArrayLike, match: Match = "relative", coordinates: Coordinates = "windows"
    ) -> None:
        array, rated = np.asarray(boxes, dtype=np.float64).reshape(-1, 4), np.asarray(ratings, dtype=np.float64)
        keys = [*rated.reshape(len(array), rated.size // max(1, len(array))).T[::-1], *array.T[::-1]]
        order = np.lexsort(keys)
        self._match, self._coordinates = match, coordinates
        self.boxes, self.ratings, self.windows = array[order], rated[order], np.ones(len(array))
        self._measures = _measures(self.boxes)
        self._distance = np.full(len(array), np.inf)  # to the nearest other box …
        self._nearest = np.zeros(len(array), dtype=np.int64)  # … which is this one
        self._gone: list[int] = []  # merged boxes that are still in the arrays, at infinite distance
        self._find_nearest(np.arange(len(array)))

    def until(self, t: float) -> Merging:
        """Merges while the closest pair's match is at most ``t``; can be called again with a larger t."""
        while len(self._distance):
            closest = int(self._distance.argmin())
            if not self._distance[closest] <= t or self._distance[closest] == np.inf:
                break
            self._merge(*sorted((closest, int(self._nearest[closest]))))
            if len(self._gone) > max(16, len(self._distance) // 4):
                self._remove_gone()
        self._remove_gone()
        return self

    def _merge(self, kept: int, gone: int) -> None:
        """Replaces a pair by one box, at the place of the first."""
        one, other = (self.windows[kept], self.windows[gone]) if self._coordinates == "windows" else (1.0, 1.0)
        # In this form equal boxes stay the same to the bit.
        self.boxes[kept] += other / (one + other) * (self.boxes[gone] - self.boxes[kept])
        self.ratings[kept] += self.ratings[gone]
        self.windows[kept] += self.windows[gone]
        self._measures[:, kept] = _measures(self.boxes[kept : kept + 1])[:, 0]
        self._measures[_CX, gone] = self._distance[gone] = np.inf
        self._gone.append(gone)
        near = (self._nearest == kept) | (self._nearest == gone)
        distances = self._distances(np.array([kept]))[0]
        # Boxes whose nearest was one of the two have the new box as nearest, unless its distance has grown.
        lost = near & (distances > self._distance)
        closer = (distances < self._distance) | ((distances == self._distance) & (near | (kept < self._nearest)))
        lost[kept], lost[gone], closer[gone] = True, False, False
        self._distance[closer], self._nearest[closer] = distances[closer], kept
        self._find_nearest(np.flatnonzero(lost))

    def _remove_gone(self) -> None:
        """Removes merged boxes from the arrays; the order of the others stays."""
        if self._gone:
            left = np.ones(len(self._distance), dtype=bool)
            left[self._gone] = False
            self._nearest = (np.cumsum(left) - 1)[self._nearest][left]
            self._distance, self._measures = self._distance[left], np.ascontiguousarray(self._measures[:, left])
            self.boxes, self.ratings, self.windows = self.boxes[left], self.ratings[left], self.windows[left]
            self._gone = []

    def _find_nearest(self, rows: NDArray[np.int64]) -> None:
        """Finds the nearest other box of each row, the first in order among equals."""
        step = max(1, PAIRS_AT_ONCE // max(1, len(self.boxes)))
        for start in range(0, len(rows), step):
            chosen = rows[start : start + step]
            distances = self._distances(chosen)
            self._nearest[chosen] = nearest = distances.argmin(axis=1)
            self._distance[chosen] = distances[np.arange(len(chosen)), nearest]

    def _distances(self, rows: NDArray[np.int64]) -> Array:
        """Matches of rows with all boxes, (r,n); infinite with itself and with merged boxes."""
        distances = _matches(self._measures[:, rows, None], self._measures[:, None, :], self._match)
        distances[np.arange(len(rows)), rows] = np.inf
        return distances


def _measures(boxes: Array) -> Array:
    """Corners, centre, half the diagonal and area of boxes (n,4) as rows, (8,n); sizes are above 0."""
    x1, y1, x2, y2 = boxes.T
    w, h = x2 - x1, y2 - y1
    half = np.sqrt(w * w + h * h) / 2
    return np.stack([x1, y1, x2, y2, (x1 + x2) / 2, (y1 + y2) / 2, half + _LEAST, np.maximum(w * h, _LEAST)])


def _matches(one: Array, other: Array, match: Match) -> Array:
    """The distances of boxes from their measures; symmetric."""
    across = np.minimum(one[2], other[2]) - np.maximum(one[0], other[0])
    down = np.minimum(one[3], other[3]) - np.maximum(one[1], other[1])
    common = np.maximum(across, 0) * np.maximum(down, 0)
    dx, dy = one[4] - other[4], one[5] - other[5]
    centres = np.sqrt(dx * dx + dy * dy)
    if match == "literal":
        return np.asarray(centres + common)
    return np.asarray(centres / (one[6] + other[6]) + (1 - common / (one[7] + other[7] - common)))
