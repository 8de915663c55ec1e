"""Sect. 3.1: `pack_data`: photos rescaled once, in a few large files that are read without opening or decoding any.

A pack is a folder. ``SET-00000.bin`` … hold the pixels, or JPEGs, of photos one behind the other, in the set's order;
``SET.index.npy`` tells where each is, its size, class, and checksum (CRC-32); ``SET.ids`` the ids, with zero bytes
between; ``pack.json`` the rest, and it comes last: a folder without it is no pack yet, and packing goes on in it.
Photos keep their ids and sets, so that a net trained from a pack knows the folder's photos again.
"""

from __future__ import annotations

import hashlib
import io
import json
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..core.device import ONE_BY_ONE, LoaderSettings
from ..core.errors import ImageError, VerydeepError
from ..core.files import check_place, file_sha256, only_one, read_json, write_atomically, write_json
from ..core.progress import Advance, Reporter, Silent
from ..core.settings import DataSettings
from .dataloader import each_photo
from .datasets.packed import CARD, FORMAT, ROW, boxes_file, ids_file, index_file, marks_file
from .image_io import Pixels
from .open import Data, Dataset, lasting_boxes, lasting_name, open_data
from .transforms import OtherSide, Resampling, rescale
from .workers import Fault

SHARD_BYTES = 256 * 2**20
LOWEST_QUALITY = 90
COLUMNS = ("shard", "offset", "bytes", "crc32", "height", "width", "whole_height", "whole_width")  # as `_Part.rows`
Form = Literal["raw", "jpeg"]


@dataclass(frozen=True)
class Packing:
    """How photos are packed: their smallest side in pixels, raw or as JPEGs, and how they are rescaled."""

    size: int = 256
    form: Form = "raw"
    quality: int = 95
    resampling: Resampling = "bilinear"
    other_side: OtherSide = "round"
    shard_bytes: int = field(default=SHARD_BYTES, repr=False)  # a file is closed once it holds so many

    def __post_init__(self) -> None:
        if self.size < 1 or self.form not in ("raw", "jpeg") or not LOWEST_QUALITY <= self.quality <= 100:
            raise VerydeepError(
                f"a pack has photos of a size in pixels, as raw or jpeg of quality {LOWEST_QUALITY} to 100, "
                f"not {self.size}, {self.form}, {self.quality}."
            )

    def __call__(self, pixels: Pixels) -> tuple[bytes, tuple[int, int], tuple[int, int]]:
        """A photo as it is packed, its height and width there, and those it had."""
        small = rescale(pixels, self.size, self.resampling, self.other_side)
        sizes = (small.shape[0], small.shape[1]), (pixels.shape[0], pixels.shape[1])
        if self.form == "raw":
            return small.tobytes(), *sizes
        file = io.BytesIO()
        Image.fromarray(small).save(file, "JPEG", quality=self.quality, subsampling=0)
        return file.getvalue(), *sizes


def pack_data(
    data: DataSettings,
    out: str | Path,
    packing: Packing | None = None,
    readers: LoaderSettings = ONE_BY_ONE,
    bad_images: str = "stop",
    shard_bytes: int = SHARD_BYTES,
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """Packs all sets of some data into a folder; where it was interrupted, the same call goes on.

    Args:
        out: a new folder, or one that an interrupted packing of the same photos left.
        bad_images: ``stop`` or ``skip`` photos that cannot be read.
        shard_bytes: a file is closed once it holds so many.

    Returns:
        What ``pack.json`` tells: sets, photos, bytes, hashes of files, photos left out.

    Raises:
        VerydeepError: no such data, an unreadable photo, a folder of something else, a full disk.
    """
    opened = open_data(data, least_classes=1, several=True, empty_sets=True)
    for sentence in opened.warnings:
        (reporter or Silent()).warn(sentence)
    packing = replace(packing or Packing(), shard_bytes=shard_bytes)
    return pack_sets(opened, data, Path(out), packing, readers, bad_images, reporter)


def pack_sets(
    opened: Data,
    data: DataSettings,
    folder: Path,
    packing: Packing,
    readers: LoaderSettings = ONE_BY_ONE,
    bad_images: str = "stop",
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """Packs sets that are opened, all of ``data`` or a part; else as `pack_data`."""
    reporter = reporter or Silent()
    _check(folder, bad_images)
    with only_one(folder):
        skip = bad_images == "skip"
        packers = {name: _Packer(folder, name, found, packing, skip) for name, found in opened.sets.items()}
        done = {name: packer.run(readers, reporter) for name, packer in packers.items()}
        left_out = {photo: sentence for _, skipped in done.values() for photo, sentence in skipped.items()}
        metadata = {
            **{"format": FORMAT, "name": opened.name, "form": packing.form, "size": packing.size},
            **{"quality": packing.quality if packing.form == "jpeg" else None, "resampling": packing.resampling},
            **{"other_side": packing.other_side, "of": _origin(data), "split_by_us": opened.split_by_us},
            **{"classes": list(opened.classes), "sets": {name: found for name, (found, _) in done.items()}},
            "skipped": left_out,
        }
        write_json(folder / CARD, metadata)
        for packer in packers.values():
            packer.forget()
    for sentence in left_out.values():
        reporter.warn(f"skipped: {sentence}")
    return {**metadata, "folder": str(folder)}


def _check(folder: Path, bad_images: str) -> None:
    """Makes the folder; raises VerydeepError where nothing can be packed into it."""
    if bad_images not in ("stop", "skip"):
        raise VerydeepError(f"bad_images is stop or skip, not {bad_images!r}.")
    check_place(folder)
    if (folder / CARD).exists():
        raise VerydeepError(f"{folder} is a pack already: give another folder.")


def _origin(data: DataSettings) -> dict[str, Any]:
    """What was packed."""
    return {"data": lasting_name(data.data), "boxes": list(lasting_boxes(data.boxes)), "classes": list(data.classes)}


@dataclass(frozen=True)
class _Part:
    """What one shard holds: rows of the index, their photos' places in the set, and photos left out, by id.

    ``end`` is the place of the first photo that is not in it, or in one before.
    """

    end: int
    places: list[int]
    rows: list[list[int]]
    skipped: dict[str, str]


class _Packer:
    """One set on its way into shards."""

    def __init__(self, folder: Path, name: str, dataset: Dataset, packing: Packing, skip: bool) -> None:
        self._folder, self._name, self._dataset, self._packing, self._skip = folder, name, dataset, packing, skip
        shown = [dataset.fingerprint(sizes=True), dataset.stamps(), repr(packing), packing.shard_bytes]
        self._key = hashlib.sha256(json.dumps(shown).encode()).hexdigest()

    def run(self, readers: LoaderSettings, reporter: Reporter) -> tuple[dict[str, Any], dict[str, str]]:
        """Fills what shards are missing, writes the set's index; what the card tells of it, and photos left out."""
        parts, photos = self._there(), len(self._dataset)
        with reporter.track(f"packing the {self._name} photos", photos) as advance:
            first = parts[-1].end if parts else 0
            advance(first, "")
            found = each_photo(self._dataset.take(np.arange(first, photos)), self._packing, readers)
            numbered = ((first + place, told) for place, told in found)
            while (parts[-1].end if parts else 0) < photos:
                parts.append(self._shard(len(parts), numbered, advance))
        skipped = {photo: sentence for part in parts for photo, sentence in part.skipped.items()}
        self._index(parts)
        shards = [self._path(number, "bin") for number in range(len(parts))]
        told = [{"file": path.name, "bytes": path.stat().st_size, "sha256": file_sha256(path)} for path in shards]
        kept = sum(len(part.places) for part in parts)
        return {"photos": kept, "ignored": self._dataset.skipped.total, "shards": told}, skipped

    def forget(self) -> None:
        """Removes what only an interrupted packing needs."""
        for path in self._folder.glob(f"{self._name}-*.part"):
            path.unlink()

    def _path(self, number: int, ending: str) -> Path:
        return self._folder / f"{self._name}-{number:05d}.{ending}"

    def _there(self) -> list[_Part]:
        """The shards that an interrupted packing of the same photos finished."""
        parts: list[_Part] = []
        while self._path(len(parts), "part").is_file():
            told = read_json(self._path(len(parts), "part"))
            if told.pop("key") != self._key:
                raise VerydeepError(
                    f"{self._folder} holds the beginning of a pack of other photos or settings: remove it, or give "
                    "another folder."
                )
            parts.append(_Part(**told))
        return parts

    def _shard(self, number: int, photos: Iterator[tuple[int, Any]], advance: Advance) -> _Part:
        """The next photos, until a shard is full or there are no more; remembered once it is on disk."""
        part = _Part(0, [], [], {})
        end = 0

        def fill(file: Any) -> None:
            nonlocal end
            offset = 0
            for place, found in photos:
                end = place + 1
                advance(1, "")
                if isinstance(found, Fault):
                    self._leave_out(place, found, part)
                    continue
                data, (height, width), whole = found
                file.write(data)
                part.places.append(place)
                part.rows.append([number, offset, len(data), zlib.crc32(data), height, width, *whole])
                offset += len(data)
                if offset >= self._packing.shard_bytes:
                    return

        write_atomically(self._path(number, "bin"), fill)
        part = replace(part, end=end)
        write_json(self._path(number, "part"), {**asdict(part), "key": self._key})
        return part

    def _leave_out(self, place: int, fault: Fault, part: _Part) -> None:
        if not self._skip:
            raise ImageError(
                f"{fault.message} Fix or remove it, or leave it out with --bad-images skip; full shards are kept."
            )
        part.skipped[self._dataset.ids[place]] = fault.message

    def _index(self, parts: list[_Part]) -> None:
        """The set's index, ids, and what else is told of its photos."""
        places = np.array([place for part in parts for place in part.places], dtype=np.int64)
        dataset = self._dataset.take(places)
        rows = [tuple(row) for part in parts for row in part.rows]
        index = np.zeros(len(dataset), dtype=ROW)
        for column, values in zip(COLUMNS, zip(*rows, strict=True), strict=bool(rows)):
            index[column] = values
        index["label"], index["subject"] = dataset.labels, dataset.groups
        write_atomically(index_file(self._folder, self._name), lambda file: np.save(file, index))
        ids = "\0".join(dataset.ids).encode("utf8", "surrogateescape")
        write_atomically(ids_file(self._folder, self._name), lambda file: file.write(ids))
        if dataset.marks is not None:
            marks = dataset.marks
            write_atomically(marks_file(self._folder, self._name), lambda file: np.save(file, marks))
        if dataset.find_boxes is not None:
            boxes = _boxes(dataset, index)
            write_atomically(boxes_file(self._folder, self._name), lambda file: file.write(boxes))


def _boxes(dataset: Dataset, index: NDArray[Any]) -> bytes:
    """A line of JSON a photo: its boxes, with the size of the photo they are of."""
    assert dataset.find_boxes is not None
    lines = []
    for photo, row in zip(dataset.ids, index, strict=True):
        size = (int(row["whole_height"]), int(row["whole_width"]))
        found = [(box.name, box.xyxy, box.size or size) for box in dataset.find_boxes(photo)]
        lines.append(json.dumps(found) + "\n")
    return "".join(lines).encode()
