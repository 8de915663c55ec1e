"""Sect. 4, data: tar files of photos, as WebDataset lays them out, for sets that no one unpacks.

A sample is the files of one name before its first dot: ``000123.jpg`` (or ``.jpeg``, ``.png``, ``.webp``) and, where
its class is known, ``000123.cls``, a whole number. ``DIR/*.tar`` is one set, ``DIR/train/*.tar`` and ``DIR/val/*.tar``
(or ``test``) are sets of their own; ``DIR/classes.txt`` may name the classes, one a line. Tar files are looked through
once, for where each photo is; then photos are read in place. `evaluate` and `features` read them from the first to the
last, and of several processes each its own stretch; training reads at random, which wants a disk and not a stream.
"""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ...core.errors import ImageError, VerydeepError
from ...core.settings import DataSettings
from ..class_names import distinct, read_names
from ..dataset import Data, Dataset, ImageSource
from ..image_formats import UNREAD, kind_by_name
from ..image_io import Pixels, decode
from ..layout import named_sets
from ..walk import Skipped, extension_of, list_folder, passed_over
from .folder import from_sets, split_whole

NAMES = ("webdataset",)

PHOTO_ENDINGS, CLASS_ENDING, NAMES_FILE = ("jpg", "jpeg", "png", "webp"), "cls", "classes.txt"
NOBODY_TELLS, MOST_CLASSES, MOST_OPEN = "unknown", 1_000_000, 64
LONGEST_HEADER = 2**20  # bytes: a name or what PAX tells of a file, both of which tarfile reads at once


@dataclass(frozen=True)
class Place:
    """Where a photo's bytes are: the tar file's number, offset and length."""

    shard: int
    offset: int
    size: int


def open_named(name: str, root: Path | None, settings: DataSettings) -> Data:
    """The sets below a folder.

    Raises:
        VerydeepError: no tar file, a broken one, one without photos, a name twice, a class that is no number.
    """
    assert root is not None
    given = named_sets(root, list_folder(root, Skipped()).folders)
    if "train" in given and len(given) > 1:
        found = {part: _samples(root / folder, root) for part, folder in given.items()}
        count = max(int(labels.max(initial=-1)) + 1 for _, _, labels, _ in found.values())
        classes = _classes(root, count)
        sets = {
            part: Dataset(name, part, classes, ids, labels, reader, skipped)
            for part, (reader, ids, labels, skipped) in found.items()
        }
        return from_sets(name, sets, settings, {part: f"{folder}/" for part, folder in given.items()})
    reader, ids, labels, skipped = _samples(root, root)
    classes = _classes(root, int(labels.max()) + 1)
    whole = Dataset(name, "all", classes, ids, labels, reader, skipped)
    if whole.labelled:
        return split_whole(whole, settings)
    return Data(name, {"test": whole}, split_by_us=False)


def _classes(root: Path, count: int) -> tuple[str, ...]:
    """Names of the classes, or their numbers."""
    if not count:
        return (NOBODY_TELLS,)
    path = root / NAMES_FILE
    if not path.is_file():
        return tuple(f"{number:0{len(str(count - 1))}d}" for number in range(count))
    names = read_names(path)
    if len(names) < count or not all(names):
        raise VerydeepError(f"{path} names {len(names)} classes, and the photos have {count}: give each a line.")
    return distinct(names)


def _samples(folder: Path, root: Path) -> tuple[TarReader, tuple[str, ...], Any, Skipped]:
    """A set's photos in the order of the files, their classes, -1 where nobody tells, and what is not read."""
    skipped = Skipped(str(folder))
    paths = [folder / name for name in list_folder(folder, skipped).files if name.endswith(".tar")]
    if not paths:
        raise VerydeepError(f"{folder} holds no .tar files: give the folder that does, or that holds train/ and val/.")
    places: dict[str, Place] = {}
    labels: list[int] = []
    for number, path in enumerate(paths):
        shard = str(path.relative_to(root))
        for key, place, label in _photos(path, number, skipped):
            photo = f"{shard}/{key}"
            places[photo] = place
            labels.append(label)
    if not places:
        raise VerydeepError(f"the tar files in {folder} hold no photos ({', '.join(PHOTO_ENDINGS)}).")
    told = np.array(labels, dtype=np.int64)
    if (told < 0).any() and (told >= 0).any():
        photo = next(name for name, label in zip(places, labels, strict=True) if label < 0)
        raise VerydeepError(f"{photo} has no .{CLASS_ENDING} file, and others have: add it, or take them all out.")
    shards = tuple(str(path.relative_to(root)) for path in paths)
    return TarReader(root, shards, places), tuple(places), told, skipped


def _photos(path: Path, number: int, skipped: Skipped) -> Iterator[tuple[str, Place, int]]:
    """Photos of one tar file: name, place and class; other files are counted."""
    photos: dict[str, tuple[str, Place]] = {}
    classes: dict[str, int] = {}
    try:
        with _Sparing(path, "rb") as raw, tarfile.open(fileobj=raw, mode="r:") as file:
            for member in file:
                folder, _, base = member.name.rpartition("/")
                key, _, ending = base.partition(".")
                key = f"{folder}/{key}"
                if member.size < 0:  # tarfile would go back, and round again
                    raise tarfile.ReadError(f"{member.name} has a length below 0")
                reason = next(filter(None, map(passed_over, PurePosixPath(member.name).parts)), None)
                if not member.isfile():
                    continue
                if reason is None and ending.lower() in PHOTO_ENDINGS:
                    if key in photos:
                        raise VerydeepError(f"{path}: {member.name} and {photos[key][0]} are one sample: keep one.")
                    photos[key] = (member.name.removeprefix("./"), Place(number, member.offset_data, member.size))
                elif ending == CLASS_ENDING:
                    told = file.extractfile(member)
                    text = b"" if told is None else told.read(64).strip()
                    if not text.isdigit() or int(text) > MOST_CLASSES:
                        raise VerydeepError(f"{path}: {member.name} holds no class: a whole number from 0 up.")
                    classes[key] = int(text)
                else:
                    kind = kind_by_name(base)
                    skipped.note(reason or (kind if kind in UNREAD else extension_of(base)), path / member.name)
    except (tarfile.TarError, OSError, EOFError) as fault:
        raise VerydeepError(f"{path} is no whole tar file ({str(fault)[:120]}): create or download it again.") from None
    for key, (name, place) in photos.items():
        yield name, place, classes.get(key, -1)


class _Sparing(io.FileIO):
    """A tar file that gives no more at once than an honest header asks for: tarfile believes any length."""

    def read(self, size: int | None = -1, /) -> Any:
        """So many bytes; raises OSError for too many."""
        if size is None or not 0 <= size <= LONGEST_HEADER:
            raise OSError("a header has an absurd length")
        return super().read(size)


class TarReader(ImageSource):
    """Reads photos by their ids, ``SHARD.tar/NAME``, in place; tar files are opened once in each process."""

    def __init__(self, root: Path, shards: tuple[str, ...], places: dict[str, Place]) -> None:
        self._root, self._shards, self._places = root, shards, places
        self._open: dict[int, int] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}}

    def read(self, image_id: str) -> Pixels:
        """uint8 RGB (H,W,3); raises ImageError."""
        return decode(self.encoded(image_id), image_id)

    def encoded(self, image_id: str) -> bytes:
        """The photo's bytes; raises ImageError where its tar file cannot be read, or has become shorter."""
        place = self._places[image_id]
        try:
            data = os.pread(self._handle(place.shard), place.size, place.offset)
        except OSError as fault:
            raise ImageError(f"cannot read {self._root / image_id}: {fault.strerror}.") from None
        if len(data) != place.size:
            raise ImageError(f"{self._root / image_id}: its tar file has become shorter: create or download it again.")
        return data

    def files(self, image_id: str) -> list[Path]:
        """The tar file that holds the photo."""
        return [self._root / self._shards[self._places[image_id].shard]]

    @property
    def root(self) -> Path:
        """The folder that tar files are named below."""
        return self._root

    def _handle(self, shard: int) -> int:
        if shard not in self._open:
            if len(self._open) >= MOST_OPEN:
                os.close(self._open.pop(next(iter(self._open))))
            self._open[shard] = os.open(self._root / self._shards[shard], os.O_RDONLY)
        return self._open[shard]
