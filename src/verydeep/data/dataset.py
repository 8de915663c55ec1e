"""Sets of photos: what a set is, and how sets are parted, joined and counted in other classes."""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..core.errors import ImageError, VerydeepError
from .class_names import places_in
from .image_io import Pixels, image_size, read_bytes, read_image
from .walk import Skipped, joined, unread_sentences

MOST_HASHED = 2**30  # bytes of a set that are read to know it again


class ImageSource(Protocol):
    """Images by their ids; a source is pickled for worker processes. By default its images are computed."""

    def read(self, image_id: str) -> Pixels:
        """uint8 RGB (H,W,3); raises ImageError."""

    def size(self, image_id: str) -> tuple[int, int]:
        """Height and width; raises ImageError."""
        height, width = self.read(image_id).shape[:2]
        return height, width

    def encoded(self, image_id: str) -> bytes | None:
        """The encoded image, None where the source has none; raises ImageError."""
        return None

    def files(self, image_id: str) -> list[Path]:
        """The files that the pixels are read from."""
        return []

    @property
    def root(self) -> Path | None:
        """The folder that ids are paths below."""
        return None

    @property
    def shows(self) -> str:
        """What of an image is shown: ``photos``, all of it, or ``boxes``."""
        return "photos"


@dataclass(frozen=True)
class FolderSource(ImageSource):
    """Image files below a folder; ids are their paths there."""

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
    """A box as a file has it: its class's name there, and its corners as ``xyxy`` (see `verydeep.data.boxes`).

    ``size`` is the height and width that the corners are of, where the file has them: not always the photo's.
    ``written`` are the corners in the file's own way to count pixels, where that is not ``xyxy``.
    """

    name: str
    xyxy: tuple[float, float, float, float]
    size: tuple[int, int] | None = None
    written: tuple[float, float, float, float] | None = field(default=None, compare=False, repr=False)

    @property
    def swapped(self) -> bool:
        """Whether its right edge is left of its left one, or its bottom above its top."""
        return self.xyxy[0] > self.xyxy[2] or self.xyxy[1] > self.xyxy[3]


@dataclass(frozen=True)
class Dataset:
    """One set: N photos, each with an id, a class and a way to read its pixels.

    ``labels`` is int64 (N,), an index into ``classes``; all -1 where nobody tells them (`labelled`).
    ``skipped`` counts what lies in the folders and is not read. ``subjects`` (N,) is equal for photos of one subject,
    which are no independent draws; None where each photo has its own. ``find_boxes`` tells the boxes a photo's
    annotation has, as they are; ``boxes`` are those of its class, checked, ``xyxy`` (n,4) a photo, n at least 1,
    where `verydeep.data.box_targets` has looked at them. ``marks`` is int8 (N,K) for photos of several classes: 1 has,
    -1 has not, 0 counts as neither; such photos have no ``labels``.
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
        """Whether the photos' classes are known."""
        return not (self.labels < 0).any()

    @property
    def groups(self) -> NDArray[np.int64]:
        """The subject of each photo, (N,); without subjects every photo is a group of its own."""
        return np.arange(len(self.ids)) if self.subjects is None else self.subjects

    def __len__(self) -> int:
        return len(self.ids)

    def pixels(self, index: int) -> Pixels:
        """The photo's pixels, uint8 RGB (H,W,3); raises ImageError."""
        return self.source.read(self.ids[index])

    def size(self, index: int) -> tuple[int, int]:
        """The photo's height and width; raises ImageError."""
        return self.source.size(self.ids[index])

    def where(self, index: int) -> str:
        """What to call a photo in a message: its path where it has one."""
        root = self.source.root
        return self.ids[index] if root is None else str(root / self.ids[index])

    def take(self, indices: NDArray[np.int64], set_name: str | None = None) -> Dataset:
        """The same set with only the photos at ``indices``, in their order."""
        return replace(
            self,
            set_name=set_name or self.set_name,
            ids=tuple(self.ids[i] for i in indices),
            labels=self.labels[indices],
            subjects=None if self.subjects is None else self.subjects[indices],
            boxes=None if self.boxes is None else tuple(self.boxes[i] for i in indices),
            marks=None if self.marks is None else self.marks[indices],
        )

    def fingerprint(self, sizes: bool = False) -> str:
        """SHA-256 of ids, class names and boxes, and with ``sizes`` of the files' sizes in bytes.

        Two sets with the same photos and labels have the same; that a photo was replaced only sizes can tell.
        """
        told = [
            "".join(f"\t{_file_size(path)}" for path in self.source.files(photo)) if sizes else "" for photo in self.ids
        ]
        if self.boxes is not None:
            told = [f"{more}\t{boxes.tolist()}" for more, boxes in zip(told, self.boxes, strict=True)]
        if self.marks is not None:
            told = [f"{more}\t{marks.tolist()}" for more, marks in zip(told, self.marks, strict=True)]
        rows = sorted(
            f"{photo}\t{self.classes[label]}{more}\n"
            for photo, label, more in zip(self.ids, self.labels, told, strict=True)
        )
        return hashlib.sha256("".join(rows).encode("utf8", "surrogateescape")).hexdigest()

    def stamps(self) -> str:
        """A digest of when the photos' files were last written, which tells a replaced one; empty without files."""
        written = [str(_written(path)) for photo in self.ids for path in self.source.files(photo)]
        return hashlib.sha256(" ".join(written).encode()).hexdigest() if written else ""

    def contents(self) -> str:
        """SHA-256 of the photos' files, wherever they lie: sizes of all, and bytes of all up to `MOST_HASHED`.

        Of a larger set the bytes are those of photos spread evenly over it; of painted photos there are none.
        """
        sizes = {path: _file_size(path) for photo in self.ids for path in self.source.files(photo)}
        digest = hashlib.sha256(repr(list(sizes.values())).encode())
        every = max(1, math.ceil(sum(sizes.values()) / MOST_HASHED))
        for photo in self.ids[::every]:
            with contextlib.suppress(ImageError):  # it has no size either
                if (encoded := self.source.encoded(photo)) is not None:
                    digest.update(hashlib.sha256(encoded).digest())
        return digest.hexdigest()


def _written(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return -1


def _file_size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


@dataclass(frozen=True)
class Data:
    """A data set's sets by name; ``split_by_us`` where the data did not come split.

    ``unsplit`` are all photos where a protocol draws its sets from them by chance, and perhaps not all. ``split`` says
    in words where the sets come from, ``notes`` how what could be read in two ways was read; ``beside`` is what lies
    beside the sets' folders.
    """

    name: str
    sets: dict[str, Dataset]
    split_by_us: bool
    unsplit: Dataset | None = None
    split: str = "as the data set defines it"
    notes: tuple[str, ...] = ()
    beside: Skipped = field(default_factory=Skipped)

    def fingerprint(self) -> str:
        """That of the two sets training reads, `train` and `dev`; empty where there are none."""
        return "".join(self.sets[name].fingerprint() for name in ("train", "dev") if name in self.sets)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, which all sets share."""
        return next(iter(self.sets.values())).classes

    @property
    def skipped(self) -> Skipped:
        """What lies in the folders of all sets and is not read."""
        return joined([self.beside, *(found.skipped for found in self.sets.values())])

    @property
    def warnings(self) -> list[str]:
        """What whoever uses the data has to know: how it was read, and images of formats that are not."""
        return [*self.notes, *unread_sentences(self.skipped)]

    @property
    def reported(self) -> str:
        """The set that `evaluate` reports: ``test`` where there is one with known classes, else ``val``."""
        return "test" if "test" in self.sets and self.sets["test"].labelled else "val"

    def set(self, set_name: str) -> Dataset:
        """One set by name, or ``all`` photos of data that did not come split."""
        if set_name == "all" and self.split_by_us:
            return join(list(self.sets.values()), "all")
        if set_name not in self.sets:
            names = [*self.sets, *(["all"] if self.split_by_us else [])]
            raise VerydeepError(f"{self.name} has no set {set_name!r}: its sets are {', '.join(names)}.")
        return self.sets[set_name]

    def everything(self) -> tuple[Dataset, tuple[str, ...]]:
        """Every photo once, sorted by id, and the set of each, (N,): empty texts where the split is by chance."""
        if self.split_by_us or self.unsplit is not None:
            whole = join([self.unsplit] if self.unsplit is not None else list(self.sets.values()), "all")
            return whole, ("",) * len(whole)
        whole = join(list(self.sets.values()), "all")
        names = {photo: name for name, found in self.sets.items() for photo in found.ids}
        return whole, tuple(names[photo] for photo in whole.ids)


def first_names(classes: Sequence[str]) -> str:
    """The first ten class names, and how many there are if there are more."""
    more = f", … ({len(classes)} in all)" if len(classes) > 10 else ""
    return ", ".join(classes[:10]) + more


def relabel(dataset: Dataset, classes: tuple[str, ...], strict: bool = False) -> Dataset:
    """The set with labels counted in ``classes``; photos of other classes leave it, unlabelled ones stay.

    Raises:
        VerydeepError: with ``strict``, when the set has photos of a class that is not in ``classes``.
    """
    if dataset.marks is not None:
        columns = places_in(dataset.classes, classes)
        return replace(dataset, classes=classes, marks=dataset.marks[:, columns])
    if not dataset.labelled:
        return replace(dataset, classes=classes)
    new = places_in(classes, dataset.classes)[dataset.labels]
    if strict and (new < 0).any():
        unknown = dataset.classes[int(dataset.labels[int(np.argmin(new))])]
        several = [name for name in classes if name.startswith(f"{unknown} (")]
        known = f"its {len(classes)} classes are {', '.join(classes[:8])}{', …' if len(classes) > 8 else ''}"
        if len(several) > 1:
            known = f"several of its classes are called so: write {' or '.join(several)} for the one that is meant"
        raise VerydeepError(f"{dataset.name} has photos of class {unknown!r}, which the net does not know: {known}.")
    kept = np.flatnonzero(new >= 0)
    return replace(dataset.take(kept), classes=classes, labels=new[kept])


def join(sets: list[Dataset], set_name: str) -> Dataset:
    """Sets of one data set as one, sorted by id."""
    ids = [photo for found in sets for photo in found.ids]
    labels = np.concatenate([found.labels for found in sets])
    order = np.array(sorted(range(len(ids)), key=ids.__getitem__), dtype=np.int64)
    marks = (
        None if sets[0].marks is None else np.concatenate([found.marks for found in sets if found.marks is not None])
    )
    joined = replace(
        sets[0],
        set_name=set_name,
        ids=tuple(ids),
        labels=labels,
        subjects=_joined_subjects(sets),
        boxes=None,
        marks=marks,
    )
    return joined.take(order)


def _joined_subjects(sets: list[Dataset]) -> NDArray[np.int64] | None:
    """Subjects of sets that share none; None where no set tells its photos'."""
    if all(found.subjects is None for found in sets):
        return None
    numbered = [np.unique(found.groups, return_inverse=True)[1] for found in sets]
    starts = np.cumsum([0, *(len(np.unique(groups)) for groups in numbered[:-1])])
    return np.concatenate([groups + start for groups, start in zip(numbered, starts, strict=True)])


def split(dataset: Dataset, shares: dict[str, float | int], seed: int, leave: int = 1) -> dict[str, Dataset]:
    """Parts of a set, class by class: the rest stays ``train``.

    Args:
        shares: by part, the fraction of each class's photos, or a whole number of photos a class.
            A class of three or more photos gives at least one to each part.
        seed: photos are ordered by a hash of (seed, id), so adding files hardly moves others.
        leave: photos of each class that no part may take.
    """
    rank = [_rank(seed, photo) for photo in dataset.ids]
    by_class: list[list[int]] = [[] for _ in dataset.classes]
    labels = dataset.labels.tolist()
    for index in sorted(range(len(dataset)), key=rank.__getitem__):
        if labels[index] >= 0:
            by_class[labels[index]].append(index)
    parts: dict[str, list[int]] = {name: [] for name in ("train", *shares)}
    for mine in by_class:
        start = 0
        for name, share in shares.items():
            count = share if isinstance(share, int) else round(share * len(mine))
            count = min(max(1, count), len(mine) - start - leave) if len(mine) > len(shares) else 0
            parts[name].extend(mine[start : start + count])
            start += count
        parts["train"].extend(mine[start:])
    return {name: dataset.take(np.array(sorted(part), dtype=np.int64), name) for name, part in parts.items()}


def _rank(seed: int, photo: str) -> str:
    return hashlib.sha256(f"{seed}\t{photo}".encode("utf8", "surrogateescape")).hexdigest()
