"""Sect. 4.4: predictions that other programs stored, as scores, so that their nets are fused and compared too.

A prediction file is ``.npz`` or a table (``.csv``, ``.tsv``, ``.jsonl``). The arrays of an ``.npz``:

- ``probabilities`` (N,L) with ``classes`` (N,L), the classes' numbers: L of the K classes of each image, in any order.
  Without ``classes``, L = K: all classes in their order.
- ``ids`` (N,), optional: the images' names.

A table has a row per image and class, with columns ``id``, ``class`` (a name of ``--class-names``, or else a number)
and ``probability``, in any order. Labels are an ``.npz`` of ``labels`` (N,) and optional ``ids`` (N,), or a table of
``id`` and ``class``. Classes are numbered from 0.

Images are matched by their ids where both files have them, and are in the order of the labels; else by their order.
Probabilities that are not listed are 0, and the scores are then marked as truncated: a row may sum to less than 1, and
a class of probability 0 is never in the top k (`metrics.wrong_images`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..checkpoints.registry import named_classes
from ..core.arrays import opened_arrays
from ..core.errors import VerydeepError
from ..core.files import check_place, check_text, file_sha256
from ..data.class_names import distinct, places_in
from ..data.tables import CLASS, ENDINGS, IMAGE, Columns, Row, read_table
from .scores import SUM_TOLERANCE, TEXTS, Scores, save_scores

PROBABILITY = (("probability", "prob", "posterior", "confidence", "score"), ("p",))
PREDICTED = Columns(
    names={"id": IMAGE, "class": CLASS, "probability": PROBABILITY},
    usual=("id", "class", "probability"),
    least=3,
    is_row=lambda cells: len(cells) > 2 and _as_number(cells[2]) is not None,
    optional=("probability",),
)
HEADS = {name for names in (*IMAGE, *CLASS) for name in names}
LABELLED = Columns(
    names={"id": IMAGE, "class": CLASS},
    usual=("id", "class"),
    least=2,
    is_row=lambda cells: sum(re.sub(r"[\W_]", "", cell.casefold()) in HEADS for cell in cells) < 2,
)
KEYS = "probabilities (N,L), with classes (N,L) where only some classes are listed, and optional ids (N,)"
LABEL_KEYS = "labels (N,) and optional ids (N,)"
MOST_UNNAMED = 100_000  # classes, where only their numbers tell how many there are


@dataclass(frozen=True)
class _Labels:
    """The class of each image, int64 (N,), and the images' ids, if they have any."""

    ids: tuple[str, ...] | None
    classes: NDArray[np.int64]


@dataclass(frozen=True)
class _Listed:
    """Probabilities as a file lists them: (N,K) without ``classes``, else one per image and class, (M,) each."""

    ids: tuple[str, ...] | None
    images: int
    probabilities: NDArray[np.floating]
    classes: NDArray[np.int64] | None = None
    rows: NDArray[np.int64] | None = None  # the image of each


def import_scores(
    file: str | Path, labels: str | Path, out: str | Path, class_names: str | None = None, set_name: str = "val"
) -> Scores:
    """Writes a scores file of the predictions that another program stored, and returns the scores.

    Args:
        file: ``.npz`` or table of probabilities.
        labels: ``.npz`` or table of the images' classes.
        out: the scores file.
        class_names: ``ilsvrc`` or a file with one name per line; by default classes are called by their numbers.
        set_name: the set that the images are called; only scores of one set are fused.

    Raises:
        VerydeepError: a file is missing, corrupted or without a column; the images of the two differ; a class is out of
            range or twice for an image; a probability is NaN or negative, or an image's sum to more than 1.
    """
    file, labels, out = Path(file), Path(labels), Path(out)
    _check_out(out, (file, labels))
    names = named_classes(class_names)
    truth = _read_labels(labels, names)
    listed = _read_predictions(file, names)
    places = _places(file, labels, listed, truth)
    ids = truth.ids or listed.ids or tuple(map(str, range(listed.images)))
    classes = distinct(names or map(str, range(_count(listed, truth))))
    _check_classes(labels, truth.classes, len(classes), ids.__getitem__)
    posteriors = _posteriors(file, listed, places, ids, len(classes))
    scores = Scores(
        ids=ids,
        labels=truth.classes,
        subjects=np.arange(len(ids)),
        classes=classes,
        posteriors=posteriors,
        set_name=set_name,
        data=str(labels),
        run=file.stem,
        protocol="imported",
        checkpoint=file_sha256(file),
        truncated=not posteriors.all(),
    )
    _check_sums(file, scores)
    save_scores(out, scores)
    return scores


def _check_out(out: Path, inputs: Sequence[Path]) -> None:
    """Raises VerydeepError where the scores file would overwrite something else."""
    check_place(out.parent)
    if out.is_dir() or out.resolve() in [path.resolve() for path in inputs]:
        what = "a folder" if out.is_dir() else "an input"
        raise VerydeepError(f"{out} is {what}: --out is the scores file to write, such as scores.npz.")
    with suppress(Exception), np.load(out, allow_pickle=False) as stored:  # of files that are not numpy's
        if set(TEXTS) <= set(stored.files):
            return
    if out.exists():
        raise VerydeepError(f"{out} exists and is not a scores file: use another --out.")


def _arrays(path: Path, needed: str, keys: Sequence[str], described: str) -> dict[str, NDArray[Any]]:
    """The arrays of an ``.npz`` called ``keys``; raises VerydeepError where it is corrupted or lacks ``needed``."""
    try:
        with opened_arrays(path) as stored:
            arrays = {key: np.asarray(stored[key]) for key in keys if key in stored.files}
            there = ", ".join(stored.files)
    except OSError as fault:
        raise VerydeepError(f"cannot read {path}: {fault.strerror or 'it is corrupted'}.") from None
    except VerydeepError:
        raise
    except Exception:  # numpy and zipfile raise many types for untrusted bytes
        raise VerydeepError(f"{path} is not an .npz file of plain arrays, or corrupted.") from None
    if needed not in arrays:
        raise VerydeepError(f"{path} has no array {needed!r} but {there or 'none'}: it needs {described}.")
    return arrays


def _read_labels(path: Path, names: tuple[str, ...]) -> _Labels:
    ids: tuple[str, ...] | None
    if path.suffix.lower() in ENDINGS:
        rows = read_table(path, LABELLED)
        ids = tuple(row.cells["id"] for row in rows)
        classes = _class_numbers(path, rows, names)
    else:
        arrays = _arrays(path, "labels", ("labels", "ids"), LABEL_KEYS)
        if arrays["labels"].ndim != 1 or arrays["labels"].dtype.kind not in "iu":
            raise VerydeepError(f"{path}: labels must be whole numbers, one per image.")
        classes = arrays["labels"].astype(np.int64)
        ids = _ids(path, arrays, len(classes))
    if not len(classes):
        raise VerydeepError(f"{path} has no labels.")
    if ids is not None and len(set(ids)) < len(ids):
        raise VerydeepError(f"{path} has the image {_first_twice(ids)} twice.")
    return _Labels(ids, classes)


def _read_predictions(path: Path, names: tuple[str, ...]) -> _Listed:
    if path.suffix.lower() in ENDINGS:
        return _listed_in_table(path, names)
    arrays = _arrays(path, "probabilities", ("probabilities", "classes", "ids"), KEYS)
    probabilities, classes = arrays["probabilities"], arrays.get("classes")
    if probabilities.ndim != 2 or probabilities.dtype.kind != "f" or not probabilities.size:
        shape = "x".join(map(str, probabilities.shape))
        raise VerydeepError(f"{path}: probabilities are {probabilities.dtype} of shape {shape}; it needs {KEYS}.")
    images, listed = probabilities.shape
    ids = _ids(path, arrays, images)
    if ids is not None and len(set(ids)) < images:
        raise VerydeepError(f"{path} has the image {_first_twice(ids)} twice.")
    if classes is None:
        return _Listed(ids, images, probabilities)
    if classes.shape != probabilities.shape or classes.dtype.kind not in "iu":
        raise VerydeepError(f"{path}: classes must be whole numbers, one per probability.")
    rows = np.repeat(np.arange(images), listed)
    return _Listed(ids, images, probabilities.ravel(), classes.astype(np.int64).ravel(), rows)


def _listed_in_table(path: Path, names: tuple[str, ...]) -> _Listed:
    table = read_table(path, PREDICTED)
    if not table:
        raise VerydeepError(f"{path} has no predictions: it needs rows of {PREDICTED.advice()}.")
    images = {name: number for number, name in enumerate(dict.fromkeys(row.cells["id"] for row in table))}
    rows = np.array([images[row.cells["id"]] for row in table])
    probabilities = np.array([_probability(path, row) for row in table])
    return _Listed(tuple(images), len(images), probabilities, _class_numbers(path, table, names), rows)


def _probability(path: Path, row: Row) -> float:
    text = row.cells.get("probability", "")
    number = _as_number(text)
    if number is None:
        raise VerydeepError(
            f"{path}, line {row.line}: the probability is {text[:80]!r}: it must be a number from 0 to 1."
        )
    return number


def _as_number(text: str) -> float | None:
    with suppress(ValueError):
        return float(text)
    return None


def _class_numbers(path: Path, rows: Sequence[Row], names: tuple[str, ...]) -> NDArray[np.int64]:
    """The class of each row: of the name in its cell, or else of that number."""
    texts = list(dict.fromkeys(row.cells["class"] for row in rows))
    exact = {name: number for number, name in enumerate(names)}
    by_key = dict(zip(texts, map(int, places_in(names, texts)), strict=True))
    numbers = {}
    for text in texts:
        number = exact.get(text, by_key[text])
        numbers[text] = int(text) if number < 0 and re.fullmatch(r"\d{1,9}", text, re.ASCII) else number
    for row in rows:
        if numbers[row.cells["class"]] < 0:
            known = f"none of the {len(names)} class names" if names else "not a class number, and there are no names"
            raise VerydeepError(
                f"{path}, line {row.line}: the class {row.cells['class'][:80]!r} is {known}: check --class-names."
            )
    return np.array([numbers[row.cells["class"]] for row in rows], dtype=np.int64)


def _ids(path: Path, arrays: dict[str, NDArray[Any]], count: int) -> tuple[str, ...] | None:
    if "ids" not in arrays:
        return None
    if arrays["ids"].shape != (count,) or arrays["ids"].dtype.kind not in "Uiu":
        raise VerydeepError(f"{path}: ids must be texts or whole numbers, one per image ({count}).")
    ids = tuple(map(str, arrays["ids"]))
    with suppress(ValueError):
        check_text(*ids)
        return ids
    raise VerydeepError(f"{path}: an id is not valid text.")


def _first_twice(ids: Sequence[str]) -> str:
    seen: set[str] = set()
    return next(name for name in ids if name in seen or seen.add(name))  # type: ignore[func-returns-value]


def _places(file: Path, labels: Path, listed: _Listed, truth: _Labels) -> NDArray[np.int64] | None:
    """The place among the labels of each image of the predictions, (N,); None where the two are in one order."""
    if listed.ids is not None and truth.ids is not None:
        only = sorted(set(listed.ids) ^ set(truth.ids))
        if only:
            where = file if only[0] in set(listed.ids) else labels
            raise VerydeepError(
                f"{file} and {labels} are of different images: {only[0]} and {len(only) - 1} more are in one of them "
                f"only, the first in {where}."
            )
        place = {name: number for number, name in enumerate(truth.ids)}
        return None if listed.ids == truth.ids else np.array([place[name] for name in listed.ids])
    if listed.images != len(truth.classes):
        raise VerydeepError(f"{file} has {listed.images} images, and {labels} has {len(truth.classes)} labels.")
    return None


def _count(listed: _Listed, truth: _Labels) -> int:
    """The number of classes where they have no names."""
    if listed.classes is None:
        return int(listed.probabilities.shape[1])
    largest = int(max(listed.classes.max(), truth.classes.max(), 0))
    if largest >= MOST_UNNAMED:
        raise VerydeepError(
            f"the largest class number is {largest}: pass the names of that many classes as --class-names."
        )
    return largest + 1


def _check_classes(path: Path, classes: NDArray[np.int64], count: int, image: Callable[[int], str]) -> None:
    """Raises VerydeepError for a class that is none of ``count``; ``image`` returns the id of the image at a place."""
    wrong = (classes < 0) | (classes >= count)
    if wrong.any():
        first = int(wrong.argmax())
        raise VerydeepError(
            f"{path}: class {classes[first]} of image {image(first)} is out of range: the {count} classes are "
            f"numbered from 0 to {count - 1}."
        )


def _posteriors(
    file: Path, listed: _Listed, places: NDArray[np.int64] | None, ids: Sequence[str], count: int
) -> NDArray[np.float32]:
    """The probabilities as float32 (N,K), images in the order of ``ids``; not copied where they are that already."""
    if listed.classes is None or listed.rows is None:
        if listed.probabilities.shape[1] != count:
            raise VerydeepError(f"{file} has probabilities of {listed.probabilities.shape[1]} classes, not {count}.")
        with np.errstate(over="ignore"):  # infinite ones are refused with the sums
            dense = listed.probabilities.astype(np.float32, copy=False)
        return dense if places is None else dense[np.argsort(places)]
    rows = listed.rows if places is None else places[listed.rows]
    _check_classes(file, listed.classes, count, lambda place: ids[rows[place]])
    cells = np.sort(rows * count + listed.classes)
    twice = cells[1:][cells[1:] == cells[:-1]]
    if len(twice):
        image, number = divmod(int(twice[0]), count)
        raise VerydeepError(f"{file} lists class {number} of image {ids[image]} twice.")
    posteriors = np.zeros((len(ids), count), dtype=np.float32)
    with np.errstate(over="ignore"):  # infinite ones are refused with the sums
        posteriors[rows, listed.classes] = listed.probabilities
    return posteriors


def _check_sums(file: Path, scores: Scores) -> None:
    """Raises VerydeepError for the first image whose probabilities are none."""
    with np.errstate(invalid="ignore"):
        least, sums = scores.posteriors.min(axis=1), scores.posteriors.sum(axis=1, dtype=np.float64)
    faults = (
        (~(least >= 0), "has a NaN or negative probability"),
        (sums > 1 + SUM_TOLERANCE, "has probabilities that sum to {:.4g}, more than 1: are they percent, or logits?"),
        (sums == 0, "has no probability above 0"),
        ((sums < 1 - SUM_TOLERANCE) & (not scores.truncated), "has probabilities of all classes that sum to {:.4g}"),
    )
    for wrong, fault in faults:
        if wrong.any():
            first = int(wrong.argmax())
            raise VerydeepError(f"{file}: image {scores.ids[first]} {fault.format(sums[first])}.")
