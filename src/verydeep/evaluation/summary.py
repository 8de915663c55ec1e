"""Sect. 4: from scores to numbers: errors with intervals, by class and by confused pair."""

from __future__ import annotations

from typing import Any

import numpy as np

from .metrics import confusion, error_interval, label_ranks, wrong_at
from .scores import Scores


def summarise(scores: Scores) -> dict[str, Any]:
    """Errors in percent with 95 % intervals, by class and by confused pair; None where classes are not known."""
    summary: dict[str, Any] = {
        "run": scores.run,
        "protocol": scores.protocol,
        "set": scores.set_name,
        "data": scores.data,
        "images": len(scores.ids),
    }
    for name, k in (("top1_error", 1), ("top5_error", 5)):
        summary |= error_with_interval(scores, name, k)
    rows = class_errors(scores) if scores.labelled else []
    mean = round(float(np.mean([row["top1_error"] for row in rows])), 4) if rows else None
    confused = confused_pairs(scores) if scores.labelled else []
    return {**summary, "mean_class_error": mean, "classes": rows, "confused": confused}


def error_with_interval(scores: Scores, name: str, k: int) -> dict[str, Any]:
    """The top-k error under ``name`` and its interval under ``name_interval``, both None where there is none."""
    wrong = wrong_at(scores.posteriors, scores.labels, k) if scores.labelled else None
    if wrong is None:
        return {name: None, f"{name}_interval": None}
    ends = error_interval(wrong, scores.subjects)
    return {name: round(100 * float(wrong.mean()), 4), f"{name}_interval": [round(end, 4) for end in ends]}


def headline(summary: dict[str, Any]) -> str:
    """The top-1 error of a summary as a line of text."""
    told = f"{summary['protocol']} on {summary['images']} photos ({summary['set']})"
    if summary["top1_error"] is None:
        return f"{told}: their classes are not known"
    low, high = summary["top1_error_interval"]
    return f"{told}: top-1 error {summary['top1_error']:.2f} % (95 % interval {low:.2f} to {high:.2f})"


def class_errors(scores: Scores) -> list[dict[str, Any]]:
    """Photos and top-1 error of each class that has photos, in class order."""
    wrong = label_ranks(scores.posteriors, scores.labels) >= 1
    rows = []
    for number, name in enumerate(scores.classes):
        mine = scores.labels == number
        if mine.any():
            error = round(100 * float(wrong[mine].mean()), 4)
            rows.append({"class": name, "images": int(mine.sum()), "top1_error": error})
    return rows


def confused_pairs(scores: Scores, most: int = 10) -> list[dict[str, Any]]:
    """The commonest mistakes: a class, the class it was taken for, and how often."""
    counts = confusion(scores.posteriors, scores.labels)
    np.fill_diagonal(counts, 0)
    pairs = [(int(counts[row, column]), int(row), int(column)) for row, column in np.argwhere(counts)]
    worst = sorted(pairs, key=lambda pair: (-pair[0], pair[1], pair[2]))[:most]
    names = scores.classes
    return [{"class": names[row], "taken_for": names[column], "images": count} for count, row, column in worst]


def worst_mistakes(scores: Scores, most: int) -> list[int]:
    """Indices of wrong photos, the one whose right class got the least posterior first."""
    wrong = np.flatnonzero(label_ranks(scores.posteriors, scores.labels) >= 1)
    right = scores.posteriors[wrong, scores.labels[wrong]]
    return [int(index) for index in wrong[np.argsort(right, kind="stable")][:most]]
