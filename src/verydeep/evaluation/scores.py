"""Sect. 4.4: posteriors on disk by image id, so that fusion and tables need no net.

A scores file is one ``.npz`` of plain arrays: ``ids`` (N,), ``labels`` int64 (N,) (-1 for unlabelled images),
``subjects`` int64 (N,) (equal for images of one subject), ``classes`` (K,), ``posteriors`` float32 (N,K), and the texts
``set``, ``data``, ``run``, ``protocol``, ``checkpoint`` (SHA-256 of the checkpoint; of a fusion, those of its parts; of
imported predictions, that of their file). ``truncated`` (bool) is there where only some classes of each image are
known, as in files of the five best: the others are 0, and rows may sum to less than 1.

Fusion is the mean of soft-max posteriors. It is defined for files of the same images and classes in the same order, and
refused for others.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.arrays import opened_arrays
from ..core.errors import VerydeepError
from ..core.files import check_text, write_atomically
from ..data.class_names import class_key, distinct, same_classes

TEXTS = ("set", "data", "run", "protocol", "checkpoint")
FILE_NAME = "scores.npz"
SUM_TOLERANCE = 1e-2  # of an image's posteriors, which bf16 rounds


@dataclass(frozen=True)
class Scores:
    """The posteriors of one net, protocol and set, or of a fusion of several."""

    ids: tuple[str, ...]
    labels: NDArray[np.int64]
    subjects: NDArray[np.int64]
    classes: tuple[str, ...]
    posteriors: NDArray[np.float32]
    set_name: str
    data: str
    run: str
    protocol: str
    checkpoint: str
    truncated: bool = False

    @property
    def labelled(self) -> bool:
        """Whether all images are labelled."""
        return not (self.labels < 0).any()

    @property
    def title(self) -> str:
        """Run and protocol, as the name of the scores in lists."""
        return f"{self.run} {self.protocol}".strip()


def save_scores(path: Path, scores: Scores) -> None:
    """Writes a scores file atomically; raises VerydeepError where it cannot be written."""
    arrays = {
        "ids": np.array(scores.ids),
        "labels": scores.labels,
        "subjects": scores.subjects,
        "classes": np.array(scores.classes),
        "posteriors": scores.posteriors,
        "set": np.array(scores.set_name),
        **{name: np.array(getattr(scores, name)) for name in TEXTS[1:]},
        **({"truncated": np.array(True)} if scores.truncated else {}),
    }
    write_atomically(path, lambda file: np.savez_compressed(file, **arrays))  # type: ignore[arg-type]


def load_scores(path: str | Path) -> Scores:
    """Loads a scores file, or that of a directory that `evaluate` wrote.

    Raises:
        VerydeepError: missing, broken, arrays of inconsistent shapes, or posteriors that are not finite.
    """
    path = Path(path) / FILE_NAME if Path(path).is_dir() else Path(path)
    try:
        with opened_arrays(path) as stored:
            text = {name: str(stored[name]) for name in TEXTS}
            posteriors = np.asarray(stored["posteriors"])
            scores = Scores(
                ids=_names(stored["ids"], posteriors.shape[0]),
                labels=np.asarray(stored["labels"]),
                subjects=np.asarray(stored["subjects"]),
                classes=distinct(_names(stored["classes"], posteriors.shape[1])),
                posteriors=posteriors,
                set_name=text.pop("set"),
                **text,
                truncated="truncated" in stored and bool(stored["truncated"]),
            )
        check_text(*scores.ids, *scores.classes, *text.values())
    except FileNotFoundError:
        raise VerydeepError(f"there is no scores file {path}: `verydeep evaluate` writes them.") from None
    except VerydeepError:
        raise
    except Exception:  # numpy and zipfile raise many types for untrusted bytes
        raise VerydeepError(
            f"{path} is not a scores file, or corrupted: `verydeep evaluate` writes them again."
        ) from None
    _check(path, scores)
    return scores


def _names(stored: NDArray[Any], count: int) -> tuple[str, ...]:
    """An array's strings; raises ValueError unless there are ``count``, as empty strings take no bytes."""
    if stored.shape != (count,):
        raise ValueError("one name for each row or column of the posteriors")
    return tuple(map(str, stored))


def _check(path: Path, scores: Scores) -> None:
    images, classes = len(scores.ids), len(scores.classes)
    rows = [scores.labels, scores.subjects]
    fits = scores.posteriors.shape == (images, classes) and scores.posteriors.dtype == np.float32
    if not (fits and all(row.shape == (images,) and row.dtype.kind == "i" for row in rows)):
        raise VerydeepError(f"{path} has arrays of inconsistent shapes: it is corrupted; evaluate again.")
    if (
        not images
        or not classes
        or scores.labels.max() >= classes
        or scores.labels.min() < -1
        or len(set(scores.ids)) < images
    ):
        raise VerydeepError(
            f"{path} has no images or classes, an image twice, or labels outside its classes: evaluate again."
        )
    sums = scores.posteriors.sum(axis=1)
    bad = ~np.isfinite(scores.posteriors).all(axis=1)
    if bad.any():
        raise VerydeepError(
            f"{path} has NaN or infinite posteriors, first of image {scores.ids[int(bad.argmax())]}: evaluate again."
        )
    least = 0 if scores.truncated else 1
    if scores.posteriors.min() < 0 or sums.min() < least - SUM_TOLERANCE or sums.max() > 1 + SUM_TOLERANCE:
        raise VerydeepError(
            f"{path} has values that are not posteriors: each must be 0 or more, and each row sum to 1."
        )


def mean_scores(parts: Sequence[Scores], names: Sequence[str], weights: Iterable[float] | None = None) -> Scores:
    """The fusion of scores: the weighted mean of their posteriors (Sect. 4.4), equal weights by default.

    Args:
        names: of the scores, for messages.
        weights: 0 or more, not all 0; only their ratios matter.

    Raises:
        VerydeepError: nothing to fuse; different images, sets or classes; invalid weights.
    """
    if not parts:
        raise VerydeepError("there is nothing to fuse: pass at least one scores file.")
    shares = fusion_shares(len(parts), weights)
    first = parts[0]
    for other, name in zip(parts[1:], names[1:], strict=True):
        difference = _difference(first, other)
        if difference:
            raise VerydeepError(f"{name} cannot be fused with {names[0]}: {difference}.")
    total = np.zeros(first.posteriors.shape, dtype=np.float64)
    for share, scores in zip(shares, parts, strict=True):
        total += share * scores.posteriors
    run, protocol, checkpoint = (
        " + ".join(dict.fromkeys(getattr(scores, name) for scores in parts))
        for name in ("run", "protocol", "checkpoint")
    )
    truncated = any(scores.truncated for scores in parts)
    posteriors = total.astype(np.float32)
    return replace(first, posteriors=posteriors, run=run, protocol=protocol, checkpoint=checkpoint, truncated=truncated)


def fusion_shares(files: int, weights: Iterable[float] | None) -> list[float]:
    """The weight of each file of a fusion, normalised to a sum of 1; equal without weights.

    Raises:
        VerydeepError: the number of weights is not that of the files, or one is invalid.
    """
    if weights is None:
        return [1 / files] * files
    try:
        values = [float(weight) for weight in weights]
    except (TypeError, ValueError, OverflowError):
        raise VerydeepError(f"weights must be numbers, one per scores file, not {weights!r}.") from None
    if len(values) != files:
        raise VerydeepError(f"expected one weight per scores file ({files}), got {len(values)}.")
    if not all(0 <= weight < math.inf for weight in values) or not any(values):
        shown = ", ".join(f"{weight:g}" for weight in values)
        raise VerydeepError(f"weights must be finite, 0 or more and not all 0, not {shown}.")
    scaled = [weight / max(values) for weight in values]
    return [weight / sum(scaled) for weight in scaled]


def _difference(first: Scores, other: Scores) -> str:
    """The reason why two scores cannot be fused; empty if they can."""
    if not same_classes(other.classes, first.classes):
        same = set(map(class_key, other.classes)) == set(map(class_key, first.classes))
        return "its classes are in another order" if same else "its classes differ"
    if other.set_name != first.set_name:
        return f"it is of the set {other.set_name}, not {first.set_name}"
    if other.ids != first.ids:
        missing = sorted(set(first.ids) ^ set(other.ids))
        more = f"{len(missing)} are in only one, first {missing[0]}" if missing else "in another order"
        return f"its {len(other.ids)} images are not the {len(first.ids)} of the other ({more})"
    return "" if (other.labels == first.labels).all() else "its labels differ"
