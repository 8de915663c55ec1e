"""Sets of images: their contents, splitting, joining, and relabelling."""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections import Counter
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..core.errors import ImageError, VerydeepError
from .class_names import places_in
from .image_io import Pixels, image_size, read_bytes, read_image
from .walk import Skipped, joined, unread_sentences

MOST_HASHED = 2**30  # bytes of a set that are read to identify it


class ImageSource(Protocol):
    """Images by their ids; a source is pickled for worker processes. The defaults are those of computed images."""

    def read(self, image_id: str) -> Pixels:
        """uint8 RGB (H,W,3); raises ImageError."""

    def size(self, image_id: str) -> tuple[int, int]:
        """Height and width; raises ImageError."""
        height, width = self.read(image_id).shape[:2]
        return height, width

    def encoded(self, image_id: str) -> bytes | None:
        """The encoded image, None if the source has none; raises ImageError."""
        return None

    def files(self, image_id: str) -> list[Path]:
        """The files that the pixels are read from."""
        return []

    @property
    def root(self) -> Path | None:
        """The folder that ids are relative to."""
        return None

    @property
    def shows(self) -> str:
        """The part of an image that is read: ``photos``, all of it, or ``boxes``."""
        return "photos"


@dataclass(frozen=True)
class FolderSource(ImageSource):
    """Image files below a folder; ids are their relative paths."""

    folder: Path

    def read(self, image_id: str) -> Pixels:
        """uint8 RGB (H,W,3); raises ImageError."""
        return read_image(self.folder / image_id)

    def size(self, image_id: str) -> tuple[int, int]:
        """Height and width, from the file's header; raises ImageError."""
        return image_size(self.folder / image_id)

    def encoded(self, image_id: str) -> bytes:
        """The file's bytes; raises ImageError."""
        return read_bytes(self.folder / image_id)

    def files(self, image_id: str) -> list[Path]:
        """The image file."""
        return [self.folder / image_id]

    @property
    def root(self) -> Path:
        """The folder."""
        return self.folder


@dataclass(frozen=True)
class NamedBox:
    """A box of an annotation file: the class's name there, and its corners as ``xyxy`` (see `verydeep.data.boxes`).

    ``size`` is the height and width of the annotated image, if recorded; it may differ from the image file's.
    ``written`` are the corners as the file counts pixels, if that is not ``xyxy``. The corners of a ``relative`` box
    are fractions of the image's sides, until the image is known (`verydeep.data.datasets.annotated_folder`).
    """

    name: str
    xyxy: tuple[float, float, float, float]
    size: tuple[int, int] | None = None
    written: tuple[float, float, float, float] | None = field(default=None, compare=False, repr=False)
    relative: bool = False

    @property
    def swapped(self) -> bool:
        """Whether its right edge is left of its left edge, or its bottom above its top."""
        return self.xyxy[0] > self.xyxy[2] or self.xyxy[1] > self.xyxy[3]


@dataclass(frozen=True)
class Dataset:
    """A set of N images, each with an id, a label and a way to read its pixels.

    ``labels`` is int64 (N,), an index into ``classes``; all -1 if they are unknown (`labelled`). ``skipped`` counts the
    files that are not read. ``subjects`` (N,) is equal for images of one subject, which are not independent; None if
    each image has its own. ``find_boxes`` returns an image's annotated boxes, unchecked; ``boxes`` are those of its
    class, checked by `verydeep.data.box_targets`, ``xyxy`` (n,4) per image, n at least 1. ``marks`` is int8 (N,K) for
    images with several labels: 1 positive, -1 negative, 0 neither; such images have no ``labels``.
    """

    name: str
    set_name: str
    classes: tuple[str, ...]
    ids: tuple[str, ...]
    labels: NDArray[np.int64]
    source: ImageSource
    skipped: Skipped = field(default_factory=Skipped)
    subjects: NDArray[np.int64] | None = None
    find_boxes: Callable[[str], list[NamedBox]] | None = None
    boxes: tuple[NDArray[np.float64], ...] | None = None
    marks: NDArray[np.int8] | None = None

    @property
    def labelled(self) -> bool:
        """Whether the labels are known."""
        return not (self.labels < 0).any()

    @property
    def groups(self) -> NDArray[np.int64]:
        """The subject of each image, (N,); without subjects each image is a group of its own."""
        return np.arange(len(self.ids)) if self.subjects is None else self.subjects

    def __len__(self) -> int:
        return len(self.ids)

    def pixels(self, index: int) -> Pixels:
        """The image's pixels, uint8 RGB (H,W,3); raises ImageError."""
        return self.source.read(self.ids[index])

    def size(self, index: int) -> tuple[int, int]:
        """The image's height and width; raises ImageError."""
        return self.source.size(self.ids[index])

    def where(self, index: int) -> str:
        """The image's name in messages: its path if it has one."""
        root = self.source.root
        return self.ids[index] if root is None else str(root / self.ids[index])

    def take(self, indices: NDArray[np.int64], set_name: str | None = None) -> Dataset:
        """The images at ``indices``, in that order."""
        return replace(
            self,
            set_name=set_name or self.set_name,
            ids=tuple(self.ids[i] for i in indices),
            labels=self.labels[indices],
            subjects=None if self.subjects is None else self.subjects[indices],
            boxes=None if self.boxes is None else tuple(self.boxes[i] for i in indices),
            marks=None if self.marks is None else self.marks[indices],
        )

    def without(self, images: Container[str]) -> Dataset:
        """The set without the images of some ids."""
        kept = [index for index, image in enumerate(self.ids) if image not in images]
        return self.take(np.array(kept, dtype=np.int64))

    def evenly(self, most: int) -> Dataset:
        """At most ``most`` images, evenly spaced in the set."""
        return self.take(evenly_spaced(len(self), most))

    def fingerprint(self, sizes: bool = False) -> str:
        """SHA-256 of ids, class names and boxes, and with ``sizes`` of the files' sizes in bytes.

        Sets of the same images and labels have equal fingerprints; sizes also detect most replaced files.
        """
        classes = self.classes or ("",)  # of a flat folder
        rows = [f"{image_id}\t{classes[label]}" for image_id, label in zip(self.ids, self.labels, strict=True)]
        if sizes:
            paths = map(self.source.files, self.ids)
            rows = [
                row + "".join(f"\t{_size_and_time(p)[0]}" for p in own) for row, own in zip(rows, paths, strict=True)
            ]
        for column in (self.boxes, self.marks):
            if column is not None:
                rows = [f"{row}\t{values.tolist()}" for row, values in zip(rows, column, strict=True)]
        text = "".join(sorted(f"{row}\n" for row in rows))
        return hashlib.sha256(text.encode("utf8", "surrogateescape")).hexdigest()

    def stamps(self) -> str:
        """A digest of the files' modification times, which detects replaced files; empty without files."""
        times = [str(_size_and_time(path)[1]) for image_id in self.ids for path in self.source.files(image_id)]
        return hashlib.sha256(" ".join(times).encode()).hexdigest() if times else ""

    def contents(self) -> str:
        """SHA-256 of the contents of the image files: sizes of all, and bytes of all up to `MOST_HASHED`.

        Of a larger set the bytes are those of images evenly spread over it; computed images have none.
        """
        sizes = {path: _size_and_time(path)[0] for image_id in self.ids for path in self.source.files(image_id)}
        digest = hashlib.sha256(repr(list(sizes.values())).encode())
        every = max(1, math.ceil(sum(sizes.values()) / MOST_HASHED))
        for image_id in self.ids[::every]:
            with contextlib.suppress(ImageError):  # it has no size either
                if (encoded := self.source.encoded(image_id)) is not None:
                    digest.update(hashlib.sha256(encoded).digest())
        return digest.hexdigest()


def _size_and_time(path: Path) -> tuple[int, int]:
    """A file's size in bytes and its modification time; -1 if it is missing."""
    try:
        status = path.stat()
    except OSError:
        return -1, -1
    return status.st_size, status.st_mtime_ns


@dataclass(frozen=True)
class Data:
    """A dataset's sets by name; ``split_by_us`` if the data have no split of their own.

    ``unsplit`` are all images, if a protocol draws its sets from them at random, and perhaps not all. ``split`` says
    where the sets come from, ``notes`` how ambiguous folders were interpreted; ``beside`` are the skipped files beside
    the sets' folders.
    """

    name: str
    sets: dict[str, Dataset]
    split_by_us: bool
    unsplit: Dataset | None = None
    split: str = "as the data set defines it"
    notes: tuple[str, ...] = ()
    beside: Skipped = field(default_factory=Skipped)

    def fingerprint(self) -> str:
        """The fingerprint of the two sets that training reads, ``train`` and ``dev``; empty without them."""
        return "".join(self.sets[name].fingerprint() for name in ("train", "dev") if name in self.sets)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, which all sets share."""
        return next(iter(self.sets.values())).classes

    @property
    def skipped(self) -> Skipped:
        """The skipped files of all sets."""
        return joined([self.beside, *(part.skipped for part in self.sets.values())])

    @property
    def warnings(self) -> list[str]:
        """How the data were interpreted, and images in unsupported formats."""
        return [*self.notes, *unread_sentences(self.skipped)]

    @property
    def reported(self) -> str:
        """The set that `evaluate` reports: ``test`` if it exists and has labels, else ``val``."""
        return "test" if "test" in self.sets and self.sets["test"].labelled else "val"

    def set(self, set_name: str) -> Dataset:
        """A set by name, or ``all`` images of data without a split of their own."""
        if set_name == "all" and self.split_by_us:
            return join(list(self.sets.values()), "all")
        if set_name not in self.sets:
            names = [*self.sets, *(["all"] if self.split_by_us else [])]
            raise VerydeepError(f"{self.name} has no set {set_name!r}: its sets are {', '.join(names)}.")
        return self.sets[set_name]

    def everything(self) -> tuple[Dataset, tuple[str, ...]]:
        """All images, sorted by id, and the set of each, (N,): empty if the split is random."""
        dataset = join([self.unsplit] if self.unsplit is not None else list(self.sets.values()), "all")
        if self.split_by_us or self.unsplit is not None:
            return dataset, ("",) * len(dataset)
        set_of = {image_id: name for name, part in self.sets.items() for image_id in part.ids}
        return dataset, tuple(set_of[image_id] for image_id in dataset.ids)


def first_names(classes: Sequence[str]) -> str:
    """The first ten class names, and the number of all if there are more."""
    more = f", … ({len(classes)} in all)" if len(classes) > 10 else ""
    return ", ".join(classes[:10]) + more


def relabel(dataset: Dataset, classes: tuple[str, ...], strict: bool = False) -> Dataset:
    """The set with labels as indices into ``classes``; images of other classes are removed, unlabelled ones stay.

    Raises:
        VerydeepError: with ``strict``, if the set has images of a class that is not in ``classes``.
    """
    if dataset.marks is not None:
        columns = places_in(dataset.classes, classes)
        marks = np.where(columns >= 0, dataset.marks[:, columns], np.int8(-1))
        lost = (places_in(classes, dataset.classes) < 0) & (dataset.marks == 1).any(axis=0)
        if strict and lost.any():
            raise _unknown_class(dataset, int(lost.argmax()), classes)
        return replace(dataset, classes=classes, marks=marks)
    if not dataset.labelled:
        return replace(dataset, classes=classes)
    new = places_in(classes, dataset.classes)[dataset.labels]
    if strict and (new < 0).any():
        raise _unknown_class(dataset, int(dataset.labels[int(np.argmin(new))]), classes)
    kept = np.flatnonzero(new >= 0)
    return replace(dataset.take(kept), classes=classes, labels=new[kept])


def _unknown_class(dataset: Dataset, number: int, classes: tuple[str, ...]) -> VerydeepError:
    """The error for images of a class that is not among ``classes``."""
    unknown = dataset.classes[number]
    several = [name for name in classes if name.startswith(f"{unknown} (")]
    known = f"its {len(classes)} classes are {', '.join(classes[:8])}{', …' if len(classes) > 8 else ''}"
    if len(several) > 1:
        known = f"several of its classes have that name: use {' or '.join(several)}"
    return VerydeepError(f"{dataset.name} has images of class {unknown!r}, which the net does not know: {known}.")


def marks_of(names: Sequence[Sequence[str]], classes: tuple[str, ...]) -> NDArray[np.int8]:
    """The marks (N,K) of images that have the classes of these names, and no others."""
    place = {name: number for number, name in enumerate(classes)}
    marks = np.full((len(names), len(classes)), -1, dtype=np.int8)
    for row, several in zip(marks, names, strict=True):
        row[[place[name] for name in several]] = 1
    return marks


def join(sets: list[Dataset], set_name: str) -> Dataset:
    """Sets of one dataset as one, sorted by id."""
    ids = [image_id for part in sets for image_id in part.ids]
    order = np.array(sorted(range(len(ids)), key=ids.__getitem__), dtype=np.int64)
    marks = [part.marks for part in sets if part.marks is not None]
    joined = replace(
        sets[0],
        set_name=set_name,
        ids=tuple(ids),
        labels=np.concatenate([part.labels for part in sets]),
        subjects=_joined_subjects(sets),
        boxes=None,
        marks=np.concatenate(marks) if marks else None,
    )
    return joined.take(order)


def _joined_subjects(sets: list[Dataset]) -> NDArray[np.int64] | None:
    """Subjects of sets that share none; None if no set has subjects."""
    if all(part.subjects is None for part in sets):
        return None
    numbers = [np.unique(part.groups, return_inverse=True)[1] for part in sets]
    starts = np.cumsum([0, *(len(np.unique(groups)) for groups in numbers[:-1])])
    return np.concatenate([groups + start for groups, start in zip(numbers, starts, strict=True)])


def split(dataset: Dataset, shares: dict[str, float | int], seed: int, leave: int = 1) -> dict[str, Dataset]:
    """Splits a set class by class; the rest is ``train``. Images of one subject stay together.

    An image of several classes counts for the rarest of them, and images of none are a class.

    Args:
        shares: by part, the fraction of each class's images, or their number as an int.
            A class of three or more images gives at least one to each part.
        seed: images are ordered by a hash of (seed, id), so adding files hardly moves others.
        leave: the number of images of each class that must stay in ``train``.
    """
    rank = [hashlib.sha256(f"{seed}\t{name}".encode("utf8", "surrogateescape")).digest() for name in dataset.ids]
    by_class: list[list[int]] = [[] for _ in range(len(dataset.classes) + 1)]
    labels = (dataset.labels if dataset.marks is None else _rarest_class(dataset.marks)).tolist()
    for index in sorted(range(len(dataset)), key=rank.__getitem__):
        if labels[index] >= 0:
            by_class[labels[index]].append(index)
    parts: dict[str, list[int]] = {name: [] for name in ("train", *shares)}
    if dataset.subjects is not None:
        part_of = _parts_of_groups(by_class, dataset.subjects.tolist(), shares)
        for index, group in enumerate(dataset.subjects.tolist()):
            parts[part_of.get(group, "train")].append(index)
        by_class = []
    for members in by_class:
        start = 0
        for name, share in shares.items():
            count = share if isinstance(share, int) else round(share * len(members))
            count = min(max(1, count), len(members) - start - leave) if len(members) > len(shares) else 0
            parts[name].extend(members[start : start + count])
            start += count
        parts["train"].extend(members[start:])
    return {name: dataset.take(np.array(sorted(part), dtype=np.int64), name) for name, part in parts.items()}


def _rarest_class(marks: NDArray[np.int8]) -> NDArray[np.int64]:
    """The class with the fewest images among those of each image of marks (N,K), (N,); K for none."""
    counts = np.append((marks == 1).sum(axis=0), len(marks))
    has = np.hstack([marks == 1, np.ones((len(marks), 1), dtype=bool)])
    rarest: NDArray[np.int64] = np.where(has, counts, len(marks) + 1).argmin(axis=1)
    return rarest


def evenly_spaced(count: int, most: int) -> NDArray[np.int64]:
    """At most ``most`` places of a sequence of length ``count``, with its first and its last."""
    return np.unique(np.linspace(0, count - 1, min(most, count)).astype(np.int64))


def _parts_of_groups(by_class: list[list[int]], groups: list[int], shares: dict[str, float | int]) -> dict[int, str]:
    """The part of each group that is not in ``train``.

    Each class, those of the fewest groups first, gives a part the groups, in the order of their first images, that
    bring the number of its images there closer to its share; if that is none, its smallest. A class of as many groups
    as parts or fewer gives none. With one image a group, this is the split by images.
    """
    part_of: dict[int, str] = {}
    for members in sorted(by_class, key=lambda members: len({groups[index] for index in members})):
        sizes = Counter(groups[index] for index in members)
        if len(sizes) <= len(shares):
            continue
        for kept, (name, share) in zip(range(len(shares), 0, -1), shares.items(), strict=True):
            free = [group for group in sizes if group not in part_of]
            target = share if isinstance(share, int) else max(1, round(share * len(members)))
            count = sum(size for group, size in sizes.items() if part_of.get(group) == name)
            spare = len(free) - kept  # the other parts and train get at least one each
            for group in free:
                if spare > 0 and abs(count + sizes[group] - target) < abs(count - target):
                    part_of[group], count, spare = name, count + sizes[group], spare - 1
            if count == 0 and spare > 0:
                part_of[min(free, key=sizes.__getitem__)] = name
    return part_of
