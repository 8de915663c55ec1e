"""Sect. 4: metrics and the summary of an evaluation. Errors are percentages; N images, K classes, G boxes an image.

Ties: among equal posteriors the class of lower index ranks first, so a constant prediction is right on class 0 alone.

Intervals are of 95 %. Images that come in groups (scenes of one handwritten digit) are not independent: whole groups
are resampled, and tests count groups.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..core.errors import VerydeepError
from ..data.boxes import iou
from .scores import Scores

FloatArray = NDArray[np.floating]
TOPS = (("top1_error", 1), ("top5_error", 5))
BOX_IOU = 0.5  # of a right box: "at least", as in the devkit, where the paper says "above"
BOOTSTRAP_DRAWS, BOOTSTRAP_SEED = 5000, 0
RELIABILITY_BINS = 15  # of Guo et al. 2017, whose ECE later papers report
MOST_SUMS = 50_000_000


@dataclass(frozen=True)
class ReliabilityBin:
    """Images of similar confidence: their number, and in percent their mean confidence and their top-1 accuracy."""

    images: int
    confidence: float
    accuracy: float


def label_ranks(posteriors: FloatArray, labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """The number of classes that rank before the right one, (N,): 0 where the top-1 prediction is right.

    Args:
        posteriors: (N,K), any real scores.
        labels: (N,), 0 to K-1.

    Raises:
        VerydeepError: a posterior is NaN.
    """
    if np.isnan(posteriors).any():
        row = int(np.isnan(posteriors).any(axis=1).argmax())
        raise VerydeepError(f"the posteriors of image {row} are NaN: the weights or the scores are corrupted.")
    right = posteriors[np.arange(len(labels)), labels][:, None]
    before = np.arange(posteriors.shape[1])[None, :] < labels[:, None]
    ranks: NDArray[np.int64] = ((posteriors > right) | ((posteriors == right) & before)).sum(axis=1, dtype=np.int64)
    return ranks


def wrong_at(posteriors: FloatArray, labels: NDArray[np.int64], k: int) -> NDArray[np.bool_] | None:
    """Which images' class is not in the top k, bool (N,); None for K <= k."""
    if posteriors.shape[1] <= k:
        return None
    return label_ranks(posteriors, labels) >= k


def wrong_images(scores: Scores, k: int) -> NDArray[np.bool_] | None:
    """Which images' class is not in the top k, bool (N,); None for K <= k and unlabelled images.

    Classes of probability 0 in truncated posteriors are tied because nothing is known of them: none is in the top k,
    where the rule of ties would count those of lowest index as predicted.
    """
    wrong = wrong_at(scores.posteriors, scores.labels, k) if scores.labelled else None
    if wrong is not None and scores.truncated:
        wrong |= scores.posteriors[np.arange(len(wrong)), scores.labels] == 0
    return wrong


def topk_error(posteriors: FloatArray, labels: NDArray[np.int64], k: int) -> float | None:
    """The top-k error in percent; None for K <= k."""
    wrong = wrong_at(posteriors, labels, k)
    return None if wrong is None else 100.0 * float(wrong.mean())


def error_interval(wrong: NDArray[np.bool_], groups: NDArray[np.int64]) -> tuple[float, float]:
    """The error's interval in percent: Wilson's where no images share a group, else by bootstrap over groups.

    Args:
        wrong: (N,).
        groups: (N,), equal for images that belong together.
    """
    subjects = len(np.unique(groups))
    mixed = 0 < wrong.sum() < len(wrong)
    if subjects < len(groups) and mixed:
        return _bootstrap(wrong.astype(np.float64), groups)
    # Resampling images that are all right or all wrong has no spread; Wilson's interval counts each subject once.
    z, p = 1.959963984540054, float(wrong.mean())
    centre = (p + z * z / (2 * subjects)) / (1 + z * z / subjects)
    half = z / (1 + z * z / subjects) * math.sqrt(p * (1 - p) / subjects + z * z / (4 * subjects**2))
    return max(0.0, 100 * (centre - half)), min(100.0, 100 * (centre + half))


def difference_interval(
    first: NDArray[np.bool_], second: NDArray[np.bool_], groups: NDArray[np.int64]
) -> tuple[float, float]:
    """The interval of the first error minus the second on the same images, in points, by paired bootstrap."""
    return _bootstrap(first.astype(np.float64) - second, groups)


def _bootstrap(values: NDArray[np.float64], groups: NDArray[np.int64]) -> tuple[float, float]:
    """2.5 and 97.5 percentiles of 100 times the mean, groups drawn with replacement.

    Groups of equal sum and size are drawn together, by a multinomial over kinds of groups: the same, and much cheaper.
    """
    numbers = np.unique(groups, return_inverse=True)[1]
    sums = np.bincount(numbers, weights=values)
    sizes = np.bincount(numbers)
    kinds, counts = np.unique(np.stack([sums, sizes]), axis=1, return_counts=True)
    rng = np.random.default_rng(BOOTSTRAP_SEED)
    drawn = rng.multinomial(counts.sum(), counts / counts.sum(), size=BOOTSTRAP_DRAWS)
    means = 100 * (drawn @ kinds[0]) / (drawn @ kinds[1])
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def mcnemar(first: NDArray[np.bool_], second: NDArray[np.bool_], groups: NDArray[np.int64]) -> dict[str, float]:
    """McNemar's paired test of two errors on the same images (McNemar 1947).

    Returns:
        ``only_first_wrong`` and ``only_second_wrong``, counts of images that only one of the two got wrong, and the
        two-sided ``p`` value. The test flips the sign of each group's difference: it is the exact binomial test where
        no images share a group.
    """
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    if len(np.unique(groups)) == len(groups):
        p = _binomial_p(min(only_first, only_second), only_first + only_second)
    else:
        numbers = np.unique(groups, return_inverse=True)[1]
        p = _sign_flip_p(np.bincount(numbers, weights=first.astype(np.float64) - second).astype(np.int64))
    return {"only_first_wrong": only_first, "only_second_wrong": only_second, "p": p}


def _binomial_p(least: int, total: int) -> float:
    """Twice the probability of ``least`` or fewer heads in ``total`` tosses, at most 1.

    The largest term is a quotient of whole numbers, and the others its multiples: the logarithm of a factorial would
    lose the digits before its point.
    """
    last: float = math.comb(total, least) / 2**total
    heads = np.arange(least, 0, -1)
    return min(1.0, 2 * last * float(1 + np.cumprod(heads / (total - heads + 1)).sum()))


def _sign_flip_p(differences: NDArray[np.int64]) -> float:
    """The probability that random signs give a sum as far from 0; approximated where there are too many sums."""
    sizes, total = np.abs(differences[differences != 0]), int(abs(differences.sum()))
    reach = int(sizes.sum())
    if len(sizes) * reach > MOST_SUMS:
        return math.erfc(total / math.sqrt(2 * float((sizes**2).sum())))
    chances = np.zeros(2 * reach + 1)  # of each sum from -reach to reach
    chances[reach] = 1.0
    for size in sizes:
        chances = (np.roll(chances, size) + np.roll(chances, -size)) / 2
    return min(1.0, float(chances[np.abs(np.arange(-reach, reach + 1)) >= total].sum()))


def mean_log_loss(posteriors: FloatArray, labels: NDArray[np.int64]) -> float:
    """Mean of -log of the right class's posterior; posteriors of 0 count as float32's smallest normal number."""
    right = posteriors[np.arange(len(labels)), labels].astype(np.float64)
    return float(-np.log(np.maximum(right, np.finfo(np.float32).tiny)).mean())


def brier_score(posteriors: FloatArray, labels: NDArray[np.int64]) -> float:
    """Mean over images of the squared distance between posteriors and the one-hot class: 0 to 2 (Brier 1950)."""
    right = posteriors[np.arange(len(labels)), labels].astype(np.float64)
    squares = np.einsum("nk,nk->n", posteriors, posteriors, dtype=np.float64)
    return float((squares - 2 * right + 1).mean())


def reliability(posteriors: FloatArray, labels: NDArray[np.int64]) -> list[ReliabilityBin]:
    """The images in bins of equal width by the posterior of their top-1 prediction; bins without images are left out.

    A bin holds its upper edge: bin m of M is ((m-1)/M, m/M] (Guo et al. 2017, Sect. 2).
    """
    confidence = posteriors.max(axis=1).astype(np.float64)
    right = posteriors.argmax(axis=1) == labels
    places = np.clip(np.ceil(confidence * RELIABILITY_BINS), 1, RELIABILITY_BINS).astype(np.int64) - 1
    return [
        ReliabilityBin(int(inside.sum()), 100 * float(confidence[inside].mean()), 100 * float(right[inside].mean()))
        for inside in (places == number for number in range(RELIABILITY_BINS))
        if inside.any()
    ]


def calibration_error(bins: Sequence[ReliabilityBin]) -> float:
    """ECE in percent: the mean over images of the distance between their bin's confidence and accuracy."""
    images = sum(row.images for row in bins)
    return sum(row.images * abs(row.accuracy - row.confidence) for row in bins) / images


def confusion(posteriors: FloatArray, labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """The confusion matrix, counts (K,K): row the class, column the prediction."""
    classes = posteriors.shape[1]
    pairs = labels * classes + posteriors.argmax(axis=1)
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def chance_error(labels: NDArray[np.int64]) -> float:
    """Top-1 error in percent of always predicting the most frequent class."""
    return 100.0 * (1 - float(np.bincount(labels).max()) / len(labels))


def class_recalls(predicted: NDArray[np.int64], labels: NDArray[np.int64], classes: int) -> NDArray[np.float64]:
    """The recall of each class in percent, (K,); NaN for classes without images.

    Args:
        predicted: class of each image, (N,).
        labels: true class of each image, (N,).
    """
    counts = np.bincount(labels, minlength=classes)
    right = np.bincount(labels[predicted == labels], minlength=classes)
    return np.where(counts > 0, 100.0 * right / np.maximum(counts, 1), np.nan)


def average_precision(scores: FloatArray, marks: NDArray[np.int8], form: Literal["11-point", "area"]) -> float:
    """VOC's average precision of one class, in percent (Everingham et al. 2015).

    Images are ranked by falling score, equal scores together. ``11-point`` (VOC-2007) is the mean over recalls of 0,
    .1, …, 1 of the best precision at that recall or more; ``area`` (VOC-2010 and later) the area below precision over
    recall, precision made monotone from the right. Images of score -inf are not ranked.

    Args:
        scores: (N,).
        marks: 1 for images of the class, -1 for others, 0 for images that are ignored, (N,).

    Raises:
        VerydeepError: no image has the class, or a score is NaN.
    """
    if np.isnan(scores).any():
        raise VerydeepError(f"the score of image number {int(np.isnan(scores).argmax())} is NaN.")
    total = int((marks == 1).sum())
    if not total:
        raise VerydeepError("no image has the class: it has no average precision.")
    entering = (marks != 0) & (scores > -np.inf)
    order = np.argsort(-scores[entering], kind="stable")
    falling, hits = scores[entering][order], np.cumsum(marks[entering][order] == 1)
    last = np.append(np.flatnonzero(np.diff(falling)), len(falling) - 1)[: len(falling)]  # of each run of equal scores
    hits = hits[last]
    best = np.maximum.accumulate((hits / (last + 1))[::-1])[::-1]
    if form == "area":
        return float(100 * (np.diff(hits, prepend=0) * best).sum() / total)
    reached = [best[10 * hits >= tenth * total] for tenth in range(11)]
    return float(100 * np.mean([precision.max(initial=0.0) for precision in reached]))


def f1_score(has: NDArray[np.bool_], marks: NDArray[np.int8]) -> float:
    """F1, 0 to 1, of all decisions together (micro average): 2 TP / (2 TP + FP + FN); NaN if there is nothing to find.

    Args:
        has: whether each image is said to have each class, (N,K).
        marks: 1 where it has, -1 where not, 0 where that is ignored, (N,K).
    """
    hits, said, true = (int(np.sum(part)) for part in (has & (marks == 1), has & (marks != 0), marks == 1))
    return 2 * hits / (said + true) if true else float("nan")


def best_threshold(scores: FloatArray, marks: NDArray[np.int8]) -> float:
    """The threshold of scores (N,K) above which an image has a class: that of the largest `f1_score`.

    Of equals it is the highest; it is half-way between two scores, or below all. At least one image has a class.
    """
    counted = marks != 0
    order = np.argsort(-scores[counted], kind="stable")
    falling, hits = scores[counted][order], np.cumsum(marks[counted][order] == 1)
    last = np.append(np.flatnonzero(np.diff(falling)), len(falling) - 1)  # of each run of equal scores
    f1 = 2 * hits[last] / (last + 1 + hits[-1])
    end = int(last[int(f1.argmax())])
    if end == len(falling) - 1:
        return float(np.nextafter(falling[end], -np.inf))
    return float(falling[end] + falling[end + 1]) / 2


def best_overlap(guesses: FloatArray, truths: Sequence[FloatArray]) -> NDArray[np.float64]:
    """The IoU of each image's predicted box, xyxy (N,4), with the nearest of its true boxes (n,4) each, (N,)."""
    return np.array([float(iou(guess, boxes).max()) for guess, boxes in zip(guesses, truths, strict=True)])


def boxes_wrong(
    guessed_labels: NDArray[np.int64],
    guessed_boxes: FloatArray,
    labels: NDArray[np.int64],
    truths: Sequence[FloatArray],
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """ILSVRC's localisation error: one of an image's predictions must have the right label and a right box.

    A box is right if its overlap with any true box of the class is at least `BOX_IOU`.

    Args:
        guessed_labels: (N,G), -1 for none.
        guessed_boxes: xyxy (N,G,4).
        labels: the images' classes, (N,).
        truths: the boxes of that class, xyxy (n,4) each.

    Returns:
        Which images have no prediction of the right label, and which have no right prediction, bool (N,) each.
    """
    named = guessed_labels == labels[:, None]
    pairs = zip(guessed_boxes, truths, strict=True)
    placed = np.array([(iou(guesses[:, None], boxes) >= BOX_IOU).any(axis=1) for guesses, boxes in pairs])
    return ~named.any(axis=1), ~(named & placed.reshape(named.shape)).any(axis=1)


def summarise(scores: Scores) -> dict[str, Any]:
    """Errors in percent with 95 % intervals, how far posteriors are probabilities, errors by class, confused pairs.

    What needs labels is None for unlabelled images; what needs all posteriors, for truncated ones too.
    """
    summary: dict[str, Any] = {
        "run": scores.run,
        "protocol": scores.protocol,
        "set": scores.set_name,
        "data": scores.data,
        "images": len(scores.ids),
    }
    summary |= top_errors(scores) | probability_metrics(scores)
    rows = class_errors(scores) if scores.labelled else []
    mean = round(float(np.mean([row["top1_error"] for row in rows])), 4) if rows else None
    confused = confused_pairs(scores) if scores.labelled else []
    recall = None if mean is None else round(100 - mean, 4)
    return {**summary, "mean_class_error": mean, "mean_class_recall": recall, "classes": rows, "confused": confused}


def top_errors(scores: Scores, suffix: str = "_error") -> dict[str, Any]:
    """Top-1 and top-5 error with their intervals."""
    errors: dict[str, Any] = {}
    for name, k in TOPS:
        wrong = wrong_images(scores, k)
        errors |= error_with_interval(name.replace("_error", suffix), wrong, scores.subjects)
    return errors


def probability_metrics(scores: Scores) -> dict[str, float | None]:
    """``ece`` in percent, ``nll`` and ``brier``; None for unlabelled images and truncated posteriors."""
    if not scores.labelled or scores.truncated:
        return {"ece": None, "nll": None, "brier": None}
    posteriors, labels = scores.posteriors, scores.labels
    return {
        "ece": round(calibration_error(reliability(posteriors, labels)), 4),
        "nll": round(mean_log_loss(posteriors, labels), 6),
        "brier": round(brier_score(posteriors, labels), 6),
    }


def error_with_interval(name: str, wrong: NDArray[np.bool_] | None, groups: NDArray[np.int64]) -> dict[str, Any]:
    """An error in percent as ``name`` and its interval as ``name_interval``, both None where it is undefined."""
    if wrong is None:
        return {name: None, f"{name}_interval": None}
    ends = [round(end, 4) for end in error_interval(wrong, groups)]
    return {name: round(100 * float(wrong.mean()), 4), f"{name}_interval": ends}


def headline(summary: dict[str, Any]) -> str:
    """The top-1 error of a summary as a line of text."""
    subject = f"{summary['protocol']} on {summary['images']} images ({summary['set']})"
    if summary["top1_error"] is None:
        return f"{subject}: no labels"
    low, high = summary["top1_error_interval"]
    return f"{subject}: top-1 error {summary['top1_error']:.2f} % (95 % interval {low:.2f} to {high:.2f})"


def class_errors(scores: Scores) -> list[dict[str, Any]]:
    """The number of images and the top-1 error of each class that has images, in class order."""
    wrong = label_ranks(scores.posteriors, scores.labels) >= 1
    rows = []
    for number, name in enumerate(scores.classes):
        of_class = scores.labels == number
        if of_class.any():
            error = round(100 * float(wrong[of_class].mean()), 4)
            rows.append({"class": name, "images": int(of_class.sum()), "top1_error": error})
    return rows


def confused_pairs(scores: Scores, most: int = 10) -> list[dict[str, Any]]:
    """The most frequent confusions: a class, the predicted class, and the number of images."""
    counts = confusion(scores.posteriors, scores.labels)
    np.fill_diagonal(counts, 0)
    pairs = [(int(counts[row, column]), int(row), int(column)) for row, column in np.argwhere(counts)]
    worst = sorted(pairs, key=lambda pair: (-pair[0], pair[1], pair[2]))[:most]
    names = scores.classes
    return [{"class": names[row], "taken_for": names[column], "images": count} for count, row, column in worst]


def worst_mistakes(scores: Scores, most: int) -> list[int]:
    """Indices of misclassified images, by rising posterior of the right class."""
    wrong = np.flatnonzero(label_ranks(scores.posteriors, scores.labels) >= 1)
    right = scores.posteriors[wrong, scores.labels[wrong]]
    return [int(index) for index in wrong[np.argsort(right, kind="stable")][:most]]
