"""Sect. 3.1: `pack_data`: images rescaled once and stored in a few large files, which are fast to read.

A packed dataset is a folder. ``SET-00000.bin`` … contain the pixels, or JPEGs, of the images in the set's order;
``SET.index.npy`` their places, sizes, labels and checksums (CRC-32); ``SET.ids`` their ids, separated by zero bytes;
``pack.json`` the rest. It is written last: a folder without it is incomplete, and packing resumes there. Images keep
their ids and sets, so that a net trained on a packed dataset recognises the original images.
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
from ..core.progress import Advance, Reporter
from ..core.settings import DataSettings
from ..core.terminal import default_reporter
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
    """How images are packed: their smallest side in pixels, raw or as JPEGs, and how they are rescaled."""

    size: int = 256
    form: Form = "raw"
    quality: int = 95
    resampling: Resampling = "bilinear"
    other_side: OtherSide = "round"
    shard_bytes: int = field(default=SHARD_BYTES, repr=False)  # size at which a new file is started

    def __post_init__(self) -> None:
        if self.size < 1 or self.form not in ("raw", "jpeg") or not LOWEST_QUALITY <= self.quality <= 100:
            raise VerydeepError(
                f"size must be 1 or more pixels, form raw or jpeg, and quality {LOWEST_QUALITY} to 100, "
                f"not {self.size}, {self.form}, {self.quality}."
            )

    def __call__(self, pixels: Pixels) -> tuple[bytes, tuple[int, int], tuple[int, int]]:
        """The packed bytes of an image, its height and width after and before rescaling."""
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
    """Packs all sets of a dataset into a folder; the same call resumes after an interruption.

    Args:
        out: a new folder, or that of an interrupted call for the same images.
        bad_images: ``stop``, or ``skip`` images that cannot be read.
        shard_bytes: the size at which a new file is started.

    Returns:
        The content of ``pack.json``: sets, number of images, bytes, hashes of files, skipped images.

    Raises:
        VerydeepError: no such data, an unreadable image, a folder with other content, a full disk.
    """
    opened = open_data(data, least_classes=1, several=True, empty_sets=True)
    for sentence in opened.warnings:
        (reporter or default_reporter()).warn(sentence)
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
    """Packs opened sets, all of ``data`` or a part; otherwise as `pack_data`."""
    reporter = reporter or default_reporter()
    if bad_images not in ("stop", "skip"):
        raise VerydeepError(f"bad_images must be stop or skip, not {bad_images!r}.")
    check_place(folder)
    if (folder / CARD).exists():
        raise VerydeepError(f"{folder} is already a packed dataset: use another folder.")
    with only_one(folder):
        skip = bad_images == "skip"
        packers = {name: _Packer(folder, name, dataset, packing, skip) for name, dataset in opened.sets.items()}
        done = {name: packer.run(readers, reporter) for name, packer in packers.items()}
        skipped = {image_id: message for _, images in done.values() for image_id, message in images.items()}
        origin = {"data": lasting_name(data.data), "boxes": list(lasting_boxes(data.boxes))}
        metadata = {
            **{"format": FORMAT, "name": opened.name, "form": packing.form, "size": packing.size},
            **{"quality": packing.quality if packing.form == "jpeg" else None, "resampling": packing.resampling},
            **{"other_side": packing.other_side, "of": {**origin, "classes": list(data.classes)}},
            **{"split_by_us": opened.split_by_us, "classes": list(opened.classes)},
            **{"sets": {name: entry for name, (entry, _) in done.items()}, "skipped": skipped},
        }
        write_json(folder / CARD, metadata)
        for path in folder.glob("*.part"):
            path.unlink()
    for message in skipped.values():
        reporter.warn(f"skipped: {message}")
    return {**metadata, "folder": str(folder)}


@dataclass(frozen=True)
class _Part:
    """The contents of one shard: rows of the index, their images' places in the set, and skipped images by id.

    ``end`` is the place of the next image after this shard.
    """

    end: int
    places: list[int]
    rows: list[list[int]]
    skipped: dict[str, str]


class _Packer:
    """Packs one set."""

    def __init__(self, folder: Path, name: str, dataset: Dataset, packing: Packing, skip: bool) -> None:
        self._folder, self._name, self._dataset, self._packing, self._skip = folder, name, dataset, packing, skip
        contents = [dataset.fingerprint(sizes=True), dataset.stamps(), repr(packing), packing.shard_bytes]
        self._key = hashlib.sha256(json.dumps(contents).encode()).hexdigest()

    def run(self, readers: LoaderSettings, reporter: Reporter) -> tuple[dict[str, Any], dict[str, str]]:
        """Writes missing shards and the index; returns the set's entry of ``pack.json``, and skipped images."""
        parts, count = self._finished(), len(self._dataset)
        with reporter.track(f"packing the {self._name} images", count) as advance:
            first = parts[-1].end if parts else 0
            advance(first, "")
            packed = each_photo(self._dataset.take(np.arange(first, count)), self._packing, readers)
            numbered = ((first + place, item) for place, item in packed)
            while (parts[-1].end if parts else 0) < count:
                parts.append(self._shard(len(parts), numbered, advance))
        skipped = {image_id: message for part in parts for image_id, message in part.skipped.items()}
        self._write_index(parts)
        paths = [self._path(number, "bin") for number in range(len(parts))]
        shards = [{"file": path.name, "bytes": path.stat().st_size, "sha256": file_sha256(path)} for path in paths]
        kept = sum(len(part.places) for part in parts)
        return {"photos": kept, "ignored": self._dataset.skipped.total, "shards": shards}, skipped

    def _path(self, number: int, ending: str) -> Path:
        return self._folder / f"{self._name}-{number:05d}.{ending}"

    def _finished(self) -> list[_Part]:
        """The shards that an interrupted call for the same images has written."""
        parts: list[_Part] = []
        while self._path(len(parts), "part").is_file():
            content = read_json(self._path(len(parts), "part"))
            if content.pop("key") != self._key:
                raise VerydeepError(
                    f"{self._folder} contains an incomplete pack of other images or settings: remove it, or use "
                    "another folder."
                )
            parts.append(_Part(**content))
        return parts

    def _shard(self, number: int, images: Iterator[tuple[int, Any]], advance: Advance) -> _Part:
        """Writes the next images, until a shard is full or there are no more, and then a record of it."""
        part = _Part(0, [], [], {})
        end = 0

        def fill(file: Any) -> None:
            nonlocal end
            offset = 0
            for place, item in images:
                end = place + 1
                advance(1, "")
                if isinstance(item, Fault):
                    self._skip_image(place, item, part)
                    continue
                data, (height, width), original_size = item
                file.write(data)
                part.places.append(place)
                part.rows.append([number, offset, len(data), zlib.crc32(data), height, width, *original_size])
                offset += len(data)
                if offset >= self._packing.shard_bytes:
                    return

        write_atomically(self._path(number, "bin"), fill)
        part = replace(part, end=end)
        write_json(self._path(number, "part"), {**asdict(part), "key": self._key})
        return part

    def _skip_image(self, place: int, fault: Fault, part: _Part) -> None:
        if not self._skip:
            raise ImageError(
                f"{fault.message} Fix or remove it, or skip it with --bad-images skip; finished shards are kept."
            )
        part.skipped[self._dataset.ids[place]] = fault.message

    def _write_index(self, parts: list[_Part]) -> None:
        """Writes the set's index, ids, labels and boxes."""
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
    """One line of JSON per image: its boxes, with the size of the annotated image."""
    assert dataset.find_boxes is not None
    lines = []
    for image_id, row in zip(dataset.ids, index, strict=True):
        size = (int(row["whole_height"]), int(row["whole_width"]))
        boxes = [(box.name, box.xyxy, box.size or size) for box in dataset.find_boxes(image_id)]
        lines.append(json.dumps(boxes) + "\n")
    return "".join(lines).encode()
