"""Sect. 4, data: tar files of images in the layout of WebDataset.

A sample is the files that share a name up to the first dot: ``000123.jpg`` (or ``.jpeg``, ``.png``, ``.webp``) and, if
its class is known, ``000123.cls``, an integer. ``DIR/*.tar`` is one set, ``DIR/train/*.tar`` and ``DIR/val/*.tar`` (or
``test``) are separate sets; ``DIR/classes.txt`` may name the classes, one per line. Tar files are indexed once, then
images are read in place. `evaluate` and `features` read them in order, each of several processes a part; training reads
them in random order, for which they must be on a disk.
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
UNKNOWN, MOST_CLASSES, MOST_OPEN = "unknown", 1_000_000, 64
LONGEST_HEADER = 2**20  # bytes of a name or PAX header, which tarfile reads at once


@dataclass(frozen=True)
class Place:
    """The place of an image's bytes: the number of the tar file, offset and length."""

    shard: int
    offset: int
    size: int


def open_named(name: str, root: Path | None, settings: DataSettings) -> Data:
    """The sets in a folder.

    Raises:
        VerydeepError: no tar file, a broken one, one without images, a name twice, a class that is not an integer.
    """
    assert root is not None
    folders = named_sets(root, list_folder(root, Skipped()).folders)
    is_split = "train" in folders and len(folders) > 1
    folders = folders if is_split else {"all": "."}
    samples = {part: _samples(root / folder, root) for part, folder in folders.items()}
    classes = _classes(root, max(int(labels.max(initial=-1)) + 1 for _, _, labels, _ in samples.values()))
    sets = {
        part: Dataset(name, part, classes, ids, labels, reader, skipped)
        for part, (reader, ids, labels, skipped) in samples.items()
    }
    if is_split:
        return from_sets(name, sets, settings, {part: f"{folder}/" for part, folder in folders.items()})
    if sets["all"].labelled:
        return split_whole(sets["all"], settings)
    return Data(name, {"test": sets["all"]}, split_by_us=False)


def _classes(root: Path, count: int) -> tuple[str, ...]:
    """The names of the classes, or their numbers."""
    if not count:
        return (UNKNOWN,)
    path = root / NAMES_FILE
    if not path.is_file():
        return tuple(f"{number:0{len(str(count - 1))}d}" for number in range(count))
    names = read_names(path)
    if len(names) < count or not all(names):
        raise VerydeepError(
            f"{path} has {len(names)} class names, but there are {count} classes: write one name per line."
        )
    return distinct(names)


def _samples(folder: Path, root: Path) -> tuple[TarReader, tuple[str, ...], Any, Skipped]:
    """A set's images in the order of the files, their labels, -1 if unknown, and the skipped files."""
    skipped = Skipped(str(folder))
    paths = [folder / name for name in list_folder(folder, skipped).files if name.endswith(".tar")]
    if not paths:
        raise VerydeepError(f"{folder} has no .tar files: use a folder that has some, or that has train/ and val/.")
    shards = tuple(str(path.relative_to(root)) for path in paths)
    places: dict[str, Place] = {}
    labels: list[int] = []
    for number, path in enumerate(paths):
        for key, place, label in _images(path, number, skipped):
            places[f"{shards[number]}/{key}"] = place
            labels.append(label)
    if not places:
        raise VerydeepError(f"the tar files in {folder} contain no images ({', '.join(PHOTO_ENDINGS)}).")
    if -1 in labels and max(labels) >= 0:
        image = list(places)[labels.index(-1)]
        raise VerydeepError(f"{image} has no .{CLASS_ENDING} file, but others have: add it, or remove all of them.")
    return TarReader(root, shards, places), tuple(places), np.array(labels, dtype=np.int64), skipped


def _images(path: Path, number: int, skipped: Skipped) -> Iterator[tuple[str, Place, int]]:
    """The images of a tar file: name, place and label; other files are counted."""
    images: dict[str, tuple[str, Place]] = {}
    classes: dict[str, int] = {}
    try:
        with _LimitedFile(path, "rb") as raw, tarfile.open(fileobj=raw, mode="r:") as file:
            for member in file:
                folder, _, base = member.name.rpartition("/")
                key, _, ending = base.partition(".")
                key = f"{folder}/{key}"
                if member.size < 0:  # tarfile would go back and loop forever
                    raise tarfile.ReadError(f"{member.name} has a negative length")
                reason = next(filter(None, map(passed_over, PurePosixPath(member.name).parts)), None)
                if not member.isfile():
                    continue
                if reason is None and ending.lower() in PHOTO_ENDINGS:
                    if key in images:
                        raise VerydeepError(f"{path}: {member.name} and {images[key][0]} are one sample: keep one.")
                    images[key] = (member.name.removeprefix("./"), Place(number, member.offset_data, member.size))
                elif ending == CLASS_ENDING:
                    content = file.extractfile(member)
                    text = b"" if content is None else content.read(64).strip()
                    if not text.isdigit() or int(text) > MOST_CLASSES:
                        raise VerydeepError(f"{path}: {member.name} must contain a class, an integer from 0.")
                    classes[key] = int(text)
                else:
                    kind = kind_by_name(base)
                    skipped.note(reason or (kind if kind in UNREAD else extension_of(base)), path / member.name)
    except (tarfile.TarError, OSError, EOFError) as fault:
        raise VerydeepError(
            f"{path} is a corrupted tar file ({str(fault)[:120]}): create or download it again."
        ) from None
    for key, (name, place) in images.items():
        yield name, place, classes.get(key, -1)


class _LimitedFile(io.FileIO):
    """A tar file that limits the length of headers: tarfile would read any length that a broken file declares."""

    def read(self, size: int | None = -1, /) -> Any:
        """Reads bytes; raises OSError for too many."""
        if size is None or not 0 <= size <= LONGEST_HEADER:
            raise OSError("a header has an invalid length")
        return super().read(size)


class TarReader(ImageSource):
    """Reads images by their ids, ``SHARD.tar/NAME``, in place; each process opens the tar files once."""

    def __init__(self, root: Path, shards: tuple[str, ...], places: dict[str, Place]) -> None:
        self._root, self._shards, self._places = root, shards, places
        self._open: dict[int, int] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}}

    def read(self, image_id: str) -> Pixels:
        """uint8 RGB (H,W,3); raises ImageError."""
        return decode(self.encoded(image_id), image_id)

    def encoded(self, image_id: str) -> bytes:
        """The image's bytes; raises ImageError if its tar file cannot be read or has become shorter."""
        place = self._places[image_id]
        try:
            data = os.pread(self._handle(place.shard), place.size, place.offset)
        except OSError as fault:
            raise ImageError(f"cannot read {self._root / image_id}: {fault.strerror}.") from None
        if len(data) != place.size:
            raise ImageError(f"{self._root / image_id}: its tar file has become shorter: create or download it again.")
        return data

    def files(self, image_id: str) -> list[Path]:
        """The tar file that contains the image."""
        return [self._root / self._shards[self._places[image_id].shard]]

    @property
    def root(self) -> Path:
        """The folder that ids are relative to."""
        return self._root

    def _handle(self, shard: int) -> int:
        if shard not in self._open:
            if len(self._open) >= MOST_OPEN:
                os.close(self._open.pop(next(iter(self._open))))
            self._open[shard] = os.open(self._root / self._shards[shard], os.O_RDONLY)
        return self._open[shard]
