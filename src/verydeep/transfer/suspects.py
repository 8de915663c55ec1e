"""App. B's descriptors for checking data: near duplicates within and across sets, and labels that are probably wrong.

Near duplicates. The distance of two images is 1 minus the cosine of their descriptors. The scale of an image is its
distance to the `NEIGHBOURS`th nearest image, and at least `FLOOR` times the median distance, so that many copies of one
image do not make it 0. Two images are near duplicates if their distance is at most ``near`` times the geometric mean of
their scales (local scaling, Zelnik-Manor & Perona 2004). One cosine for all images would not do: photos of different
cars from the side reach that of a drawing and its re-encoded copy, and it would differ from net to net. Connected near
duplicates are a group.

Wrong labels. The score of an image for a class is that of a linear least-squares SVM (one class against the rest,
targets 1 and -1; Suykens & Vandewalle 1999) that is trained on all images but those of its group: otherwise a wrongly
labelled pair of copies would support itself. Leaving a group out has a closed form. With f the scores of all training
images, r = y - f, and H the matrix that maps targets to scores, the residual of group g when it is left out is
(1 - H_gg)^-1 r_g. The margin is half the difference of the highest score of another class and the label's own. A label
is doubtful if the margin is above ``clear``, and that class is more frequent than the label among the `NEIGHBOURS`
nearest images outside the group; where near duplicates have different labels, a margin above 0 suffices, as one of them
is wrong. Classes of fewer than `FEWEST` groups are not judged: nothing could support their labels.

One image of each group is kept: one whose label is not doubtful, then of the set that is reported, so that copies of
test images leave the training images.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from ..core.errors import ImageError, VerydeepError
from ..core.files import write_atomically
from ..core.settings import DataSettings, DescriptorSettings, SuspectSettings
from ..data.open import Data, Dataset, open_images
from .descriptors import Array, combine
from .features_file import Features

NEIGHBOURS = 5
FLOOR = 0.05
FEWEST = 5  # groups of a class
C = 1.0  # as good as 0.3 and 10 where it was measured (docs/data.md)
BLOCK = 1024  # rows of a matrix of cosines at once
KEPT_FIRST = ("test", "val", "dev", "train")
Reason = Literal["leak", "label", "duplicate"]
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Images:
    """N images with their descriptors: ``rows`` float32 (N,D) of L2 norm 1, ``labels`` int64 (N,), -1 for none."""

    ids: tuple[str, ...]
    sets: tuple[str, ...]
    labels: Indices
    classes: tuple[str, ...]
    rows: Array


@dataclass(frozen=True)
class Suspect:
    """An image to look at: its place, label, and why.

    ``reason`` is ``leak`` (a near duplicate of an image of another set), ``label``, or ``duplicate`` (of an image of
    its own set). ``suggested`` is the class that descriptors suggest where the label is doubtful, else empty. ``score``
    is the cosine to the nearest duplicate, or the margin of a doubtful label, at most 1. ``duplicate_of`` is the image
    that is kept in its place.
    """

    image: str
    set: str
    label: str
    suggested: str
    score: float
    reason: Reason
    duplicate_of: str


@dataclass(frozen=True)
class Group:
    """Near duplicates: ``images`` as indices, the kept one first; its least and largest cosines of near duplicates."""

    images: tuple[int, ...]
    leak: bool
    labels_differ: bool
    cosines: tuple[float, float]


@dataclass(frozen=True)
class Suspects:
    """The result of `suspects_among`: groups with leaks first, suspects with leaks first and the clearest first.

    ``judged`` is the number of images whose label was compared; ``small`` are the classes that were not.
    """

    images: Images
    groups: tuple[Group, ...]
    suspects: tuple[Suspect, ...]
    judged: int
    small: tuple[str, ...]

    @property
    def counts(self) -> dict[str, int]:
        """The number of suspects by reason."""
        found = Counter(suspect.reason for suspect in self.suspects)
        return {reason: found[reason] for reason in ("leak", "label", "duplicate")}

    def to_json(self) -> dict[str, Any]:
        """``{images, judged, not_judged, counts, groups, suspects}``."""
        of = self.images
        groups = [
            {
                "images": [{"image": of.ids[i], "set": of.sets[i], "label": name_of(of, i)} for i in group.images],
                "leak": group.leak,
                "labels_differ": group.labels_differ,
                "cosines": [round(cosine, 4) for cosine in group.cosines],
            }
            for group in self.groups
        ]
        return {
            "images": len(of.ids),
            "judged": self.judged,
            "not_judged": list(self.small),
            "counts": self.counts,
            "groups": groups,
            "suspects": [{**vars(suspect), "score": round(suspect.score, 4)} for suspect in self.suspects],
        }


def suspects_among(images: Images, settings: SuspectSettings) -> Suspects:
    """Finds near duplicates and doubtful labels."""
    group_of, cosines = near_duplicates(images.rows, settings.near)
    judged, small = _judged(images, group_of)
    doubts = _doubts(images, group_of, judged, settings)
    groups = _groups(images, group_of, cosines, doubts)
    suspects = [suspect for group in groups for suspect in _copies(images, group, cosines, doubts)]
    listed = {suspect.image for suspect in suspects}
    suspects += [
        Suspect(
            images.ids[i], images.sets[i], name_of(images, i), images.classes[doubt.label], doubt.score, "label", ""
        )
        for i, doubt in doubts.items()
        if images.ids[i] not in listed
    ]
    order: dict[Reason, int] = {"leak": 0, "label": 1, "duplicate": 2}
    suspects.sort(key=lambda suspect: (order[suspect.reason], -suspect.score, suspect.image))
    return Suspects(images, tuple(groups), tuple(suspects), int(judged.sum()), small)


def name_of(images: Images, index: int) -> str:
    """The class of an image; empty where it has none."""
    return images.classes[images.labels[index]] if images.labels[index] >= 0 else ""


# --- near duplicates


def near_duplicates(rows: Array, near: float) -> tuple[Indices, dict[int, float]]:
    """The group of each image, (N,), numbered by its first image; and the largest cosine to a near duplicate, by image.

    Args:
        rows: descriptors (N,D) of L2 norm 1.
        near: as in `SuspectSettings`.
    """
    scales = np.concatenate([_scales(block) for _, block in _cosines(rows)])
    parents = list(range(len(rows)))
    cosines: dict[int, float] = {}
    for start, block in _cosines(rows):
        reach = near * np.sqrt(scales[start : start + len(block), None] * scales)
        for row, other in np.argwhere(1 - block <= reach).tolist():
            one = start + row
            if one < other:
                _join(parents, one, other)
                for image in (one, other):
                    cosines[image] = max(cosines.get(image, -1.0), min(1.0, float(block[row, other])))
    return np.array([_root(parents, index) for index in range(len(rows))], dtype=np.int64), cosines


def _cosines(rows: Array) -> Iterator[tuple[int, Array]]:
    """The first of some images, and their cosines with all, (n,N), -1 with themselves."""
    for start in range(0, len(rows), BLOCK):
        block = rows[start : start + BLOCK] @ rows.T
        block[np.arange(len(block)), start + np.arange(len(block))] = -1
        yield start, block


def _scales(block: Array) -> Array:
    """The scale of each image, (n,), from its cosines with all, (n,N), -1 with itself."""
    last = block.shape[1] - 2  # the place of the farthest image, after which comes the image itself
    places = sorted({min(NEIGHBOURS - 1, last), last // 2})
    ordered = np.partition(1 - block, places, axis=1)
    nearest = ordered[:, NEIGHBOURS - 1] if last >= NEIGHBOURS else np.zeros(len(block), dtype=block.dtype)
    return np.asarray(np.maximum(nearest, FLOOR * ordered[:, last // 2]).clip(min=0))


def _root(parents: list[int], index: int) -> int:
    while parents[index] != index:
        parents[index] = index = parents[parents[index]]
    return index


def _join(parents: list[int], one: int, other: int) -> None:
    """Makes two trees of a union-find forest one; its root is the smaller index."""
    low, high = sorted((_root(parents, one), _root(parents, other)))
    parents[high] = low


# --- labels


@dataclass(frozen=True)
class _Doubt:
    label: int
    score: float


def _judged(images: Images, group_of: Indices) -> tuple[NDArray[np.bool_], tuple[str, ...]]:
    """The images whose labels can be judged, bool (N,), and the classes that are too small."""
    pairs = np.unique(np.stack([images.labels, group_of]), axis=1)
    counts = np.bincount(pairs[0][pairs[0] >= 0], minlength=len(images.classes))
    enough = counts >= FEWEST
    small = tuple(name for name, count in zip(images.classes, counts.tolist(), strict=True) if 0 < count < FEWEST)
    judged = (images.labels >= 0) & np.append(enough, False)[images.labels]  # the last for images without a label
    return judged if enough.sum() > 1 else np.zeros_like(judged), small


def _doubts(
    images: Images, group_of: Indices, judged: NDArray[np.bool_], settings: SuspectSettings
) -> dict[int, _Doubt]:
    """The doubtful labels by image."""
    chosen = np.flatnonzero(judged)
    if not len(chosen):
        return {}
    rows, labels, groups = images.rows[chosen], images.labels[chosen], group_of[chosen]
    scores = left_out_scores(rows, labels, groups, len(images.classes))
    scores[:, np.bincount(labels, minlength=len(images.classes)) == 0] = -np.inf
    votes = neighbour_votes(rows, labels, groups, len(images.classes))
    own = np.arange(len(labels))
    others = scores.copy()
    others[own, labels] = -np.inf
    suggested = others.argmax(1)
    margins = (scores[own, suggested] - scores[own, labels]) / 2
    clear = (margins > settings.clear) & (votes[own, suggested] > votes[own, labels])
    doubtful = np.flatnonzero(clear | ((margins > 0) & _conflicting(labels, groups)))
    return {int(chosen[i]): _Doubt(int(suggested[i]), min(1.0, float(margins[i]))) for i in doubtful}


def _conflicting(labels: Indices, groups: Indices) -> NDArray[np.bool_]:
    """Whether the images of a group have different labels, (N,)."""
    conflicting = np.zeros(len(labels), dtype=np.bool_)
    for members in _members(groups):
        conflicting[members] = len(np.unique(labels[members])) > 1
    return conflicting


def left_out_scores(rows: Array, labels: Indices, groups: Indices, classes: int) -> NDArray[np.float64]:
    """The scores (N,K) of each image by least-squares SVMs that are trained without the images of its group.

    Args:
        rows: descriptors (N,D).
        labels, groups: (N,).
        classes: K.
    """
    x = torch.from_numpy(rows).double()
    x = torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], dim=1)
    targets = torch.full((len(x), classes), -1.0, dtype=x.dtype)
    targets[torch.arange(len(x)), torch.from_numpy(labels)] = 1
    dual = len(x) <= x.shape[1]
    kernel = x @ x.T if dual else x.T @ x
    inverse = torch.linalg.inv(kernel + torch.eye(len(kernel), dtype=x.dtype) / (2 * C))
    mapped = None if dual else x @ inverse
    residuals = inverse @ targets / (2 * C) if mapped is None else targets - mapped @ (x.T @ targets)
    scores = torch.empty_like(targets)
    for images in _members(groups):
        if mapped is None:
            left = inverse[images][:, images] / (2 * C)
        else:
            left = torch.eye(len(images), dtype=x.dtype) - mapped[images] @ x[images].T
        scores[images] = targets[images] - torch.linalg.solve(left, residuals[images])
    return scores.numpy()


def _members(groups: Indices) -> list[Indices]:
    """The indices of each group's images."""
    order = np.argsort(groups, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(groups[order])) + 1)


def neighbour_votes(rows: Array, labels: Indices, groups: Indices, classes: int) -> NDArray[np.float64]:
    """The share of each class among the `NEIGHBOURS` nearest images outside an image's group, (N,K)."""
    votes = np.zeros((len(rows), classes))
    for start, block in _cosines(rows):
        block[groups[start : start + len(block), None] == groups] = -np.inf
        nearest = np.argsort(-block, axis=1, kind="stable")[:, :NEIGHBOURS]
        places = start + np.arange(len(block))[:, None]
        np.add.at(votes, (places, labels[nearest]), np.isfinite(np.take_along_axis(block, nearest, 1)))
    return votes / NEIGHBOURS


# --- results


def _groups(images: Images, group_of: Indices, cosines: dict[int, float], doubts: dict[int, _Doubt]) -> list[Group]:
    """The groups of several images, leaks first, then those of different labels, then the largest."""
    groups = []
    for members in _members(group_of):
        if len(members) > 1:
            kept_first = sorted(members.tolist(), key=lambda i: (i in doubts, _rank(images.sets[i]), images.ids[i]))
            labels = {int(images.labels[i]) for i in kept_first if images.labels[i] >= 0}
            within = [cosines[i] for i in kept_first]
            leak = len({images.sets[i] for i in kept_first}) > 1
            groups.append(Group(tuple(kept_first), leak, len(labels) > 1, (min(within), max(within))))
    return sorted(groups, key=lambda group: (not group.leak, not group.labels_differ, -len(group.images)))


def _rank(set_name: str) -> int:
    return KEPT_FIRST.index(set_name) if set_name in KEPT_FIRST else len(KEPT_FIRST)


def _copies(images: Images, group: Group, cosines: dict[int, float], doubts: dict[int, _Doubt]) -> Iterator[Suspect]:
    """The images of a group but the kept one."""
    kept = group.images[0]
    for i in group.images[1:]:
        suggested = images.classes[doubts[i].label] if i in doubts else ""
        reason: Reason = "duplicate" if images.sets[i] == images.sets[kept] else "leak"
        yield Suspect(
            *(images.ids[i], images.sets[i], name_of(images, i), suggested, cosines[i], reason, images.ids[kept])
        )


# --- files


def described_images(opened: Data, features: Features, name: str, settings: DataSettings) -> Images:
    """The images of all sets with their descriptors; labels are those of the data.

    Args:
        name: of the features file, for messages.
        settings: those by which the data were opened.

    Raises:
        VerydeepError: the features are not those of the data's images.
    """
    parts = [(part, index) for part in opened.sets.values() for index in range(len(part))]
    ids = [part.ids[index] for part, index in parts]
    everything = open_images(replace(settings, classes=(), exclude=None)).everything()[0]
    foreign = sorted({*features.ids} - {*everything.ids} - {*ids})
    if foreign:
        raise VerydeepError(
            f"{name} is of other images than {opened.name}: {len(foreign)} of its {len(features)} are not there, first "
            f"{foreign[0]}: run `verydeep features` again, or pass --weights."
        )
    place = {image: index for index, image in enumerate(features.ids)}
    found = [(part, index) for part, index in parts if part.ids[index] in place]
    lacking = [(part, index) for part, index in parts if part.ids[index] not in place]
    first = next((part.ids[index] for part, index in lacking if _readable(part, index)), None)
    if first is not None:
        raise VerydeepError(
            f"{name} has no descriptors of {len(lacking)} of the {len(ids)} images of {opened.name}, first {first}: "
            "run `verydeep features` again, or pass --weights."
        )
    rows = combine([features.scales], DescriptorSettings())
    chosen = [place[part.ids[index]] for part, index in found]
    return Images(
        ids=tuple(part.ids[index] for part, index in found),
        sets=tuple(part.set_name for part, _ in found),
        labels=np.array(
            [-1 if part.marks is not None else part.labels[index] for part, index in found], dtype=np.int64
        ),
        classes=opened.classes,
        rows=rows[chosen],
    )


def _readable(dataset: Dataset, index: int) -> bool:
    """Whether an image can be read: `verydeep features` skips those that cannot."""
    try:
        dataset.pixels(index)
    except ImageError:
        return False
    return True


def write_suspects(path: Path, found: Suspects) -> None:
    """Writes the table of suspects, which ``--exclude`` takes; raises VerydeepError if it cannot be written."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([item.name for item in fields(Suspect)])
    for suspect in found.suspects:
        writer.writerow({**vars(suspect), "score": f"{suspect.score:.4f}"}.values())
    data = text.getvalue().encode("utf8", "surrogateescape")
    write_atomically(path, lambda file: file.write(data))
