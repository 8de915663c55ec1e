"""Sect. 4: packed datasets, which `verydeep.data.pack_writer` writes: images in memory-mapped files.

Reading an image of a raw pack opens and decodes nothing. Images were rescaled to the smallest side before packing,
so training at S of that size uses identical pixels.
"""

from __future__ import annotations

import json
import os
import zlib
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...core.errors import ImageError, VerydeepError
from ...core.files import check_text, read_json
from ...core.settings import DataSettings
from ..class_names import distinct
from ..dataset import Data, Dataset, ImageSource, NamedBox
from ..image_io import Pixels, decode
from ..walk import Skipped

CARD, FORMAT = "pack.json", "verydeep-pack-1"
# Of each image: its place, checksum, packed and original size, label and subject.
ROW = np.dtype(
    [
        *(("shard", "<u4"), ("offset", "<u8"), ("bytes", "<u4"), ("crc32", "<u4"), ("height", "<u4"), ("width", "<u4")),
        *(("whole_height", "<u4"), ("whole_width", "<u4"), ("label", "<i8"), ("subject", "<i8")),
    ]
)


def index_file(folder: Path, name: str) -> Path:
    """The index of a set."""
    return folder / f"{name}.index.npy"


def ids_file(folder: Path, name: str) -> Path:
    """The ids of a set's images."""
    return folder / f"{name}.ids"


def marks_file(folder: Path, name: str) -> Path:
    """The labels of images that have several."""
    return folder / f"{name}.marks.npy"


def boxes_file(folder: Path, name: str) -> Path:
    """The boxes of a set's images."""
    return folder / f"{name}.boxes.jsonl"


def is_pack(folder: Path) -> bool:
    """Whether a folder is a complete pack; False if it cannot be read."""
    return os.path.isfile(folder / CARD)


def open_pack(folder: Path, settings: DataSettings) -> Data:
    """The sets of a pack, as they were packed.

    Raises:
        VerydeepError: settings that would change its sets or boxes; a file that is missing or broken.
    """
    if settings.boxes or settings.dev_fraction is not None:
        raise VerydeepError(
            f"{folder} is a packed dataset with boxes and a split of its own: pass --boxes and --dev-fraction when "
            "packing."
        )
    try:
        metadata = read_json(folder / CARD)
        if metadata["format"] != FORMAT:
            raise VerydeepError(
                f"{folder} is a packed dataset of another version ({metadata['format']}): pack the images again."
            )
        sets = {name: _set(folder, name, metadata) for name in metadata["sets"]}
        return Data(str(metadata["name"]), sets, bool(metadata["split_by_us"]))
    except VerydeepError:
        raise
    except Exception as fault:  # NumPy raises many types for untrusted bytes
        reason = f"{fault.filename}: {fault.strerror}" if isinstance(fault, OSError) and fault.strerror else fault
        raise VerydeepError(f"{folder} is a corrupted packed dataset ({reason}): pack the images again.") from None


def _ids(folder: Path, name: str) -> tuple[str, ...]:
    text = ids_file(folder, name).read_bytes().decode("utf8", "surrogateescape")
    return tuple(text.split("\0")) if text else ()


def _set(folder: Path, name: str, metadata: dict[str, Any]) -> Dataset:
    index = np.load(index_file(folder, name), mmap_mode="r", allow_pickle=False)
    ids, entry = _ids(folder, name), metadata["sets"][name]
    if index.dtype != ROW or not len(ids) == len(index) == entry["photos"]:
        raise ValueError(f"the index of {name} does not match")
    for shard in entry["shards"]:
        if Path(shard["file"]).name != shard["file"]:  # a stranger's pack reads nothing outside its folder
            raise ValueError(f"{shard['file'][:80]!r} is not in its folder")
        if (folder / shard["file"]).stat().st_size != shard["bytes"]:
            raise ValueError(f"{shard['file']} has another size")
    classes, labels = distinct(map(str, metadata["classes"])), np.array(index["label"])
    check_text(*classes, str(metadata["name"]))
    if metadata["form"] not in ("raw", "jpeg") or labels.min(initial=0) < -1 or labels.max(initial=-1) >= len(classes):
        raise ValueError(f"{name} has an unknown class or form")
    marks, subjects = marks_file(folder, name), np.array(index["subject"])
    skipped = Skipped(str(folder))
    if entry["ignored"]:
        skipped.note("not packed", folder, int(entry["ignored"]))
    return Dataset(
        name=str(metadata["name"]),
        set_name=name,
        classes=classes,
        ids=ids,
        labels=labels,
        source=PackReader(folder, name, metadata["form"], tuple(shard["file"] for shard in entry["shards"])),
        skipped=skipped,
        subjects=None if (subjects == np.arange(len(subjects))).all() else subjects,
        find_boxes=PackBoxes(folder, name) if boxes_file(folder, name).is_file() else None,
        marks=np.load(marks, allow_pickle=False) if marks.is_file() else None,
    )


class PackReader(ImageSource):
    """Reads a set's images by their ids; each process maps the files when it reads the first image."""

    def __init__(self, root: Path, name: str, form: str, shards: tuple[str, ...]) -> None:
        self._root, self._name, self._form, self._shards = root, name, form, shards

    def __reduce__(self) -> Any:
        return PackReader, (self._root, self._name, self._form, self._shards)

    def read(self, image_id: str) -> Pixels:
        """uint8 RGB (H,W,3); raises ImageError if the checksum is wrong."""
        row, data = self._row(image_id), self.stored(image_id)
        pixels = 3 * int(row["height"]) * int(row["width"])
        if not self._is_intact(image_id, data) or (self._form == "raw" and not 0 < pixels == len(data)):
            raise ImageError(
                f"image {image_id} of the packed dataset {self._root} is corrupted: pack the images again."
            )
        if self._form == "jpeg":
            return decode(data.tobytes(), image_id)
        return data.reshape(int(row["height"]), int(row["width"]), 3)

    def _is_intact(self, image_id: str, data: NDArray[np.uint8]) -> bool:
        """Whether the checksum is right; computed once in each process."""
        opened = self._opened
        place = opened.places[image_id]
        if not opened.intact[place]:
            opened.intact[place] = zlib.crc32(data.data) == opened.index[place]["crc32"]
        return bool(opened.intact[place])

    def stored(self, image_id: str) -> NDArray[np.uint8]:
        """The stored bytes of an image; changing the array does not change the file.

        Raises ImageError if the index refers to a missing file.
        """
        row, shards = self._row(image_id), self._opened.shards
        start, shard = int(row["offset"]), int(row["shard"])
        if shard >= len(shards):
            raise ImageError(
                f"image {image_id} of the packed dataset {self._root} is in none of its files: pack it again."
            )
        return shards[shard][start : start + int(row["bytes"])]

    def size(self, image_id: str) -> tuple[int, int]:
        """Height and width, as packed."""
        row = self._row(image_id)
        return int(row["height"]), int(row["width"])

    def files(self, image_id: str) -> list[Path]:
        """The file that contains the image."""
        return [self._root / self._shards[int(self._row(image_id)["shard"])]]

    @property
    def root(self) -> Path:
        """The pack's folder."""
        return self._root

    def _row(self, image_id: str) -> Any:
        return self._opened.index[self._opened.places[image_id]]

    @cached_property
    def _opened(self) -> _Opened:
        return _Opened(self._root, self._name, self._shards)


class _Opened:
    """A set's files in this process."""

    def __init__(self, root: Path, name: str, shards: tuple[str, ...]) -> None:
        self.places = {image_id: place for place, image_id in enumerate(_ids(root, name))}
        self.index = np.load(index_file(root, name), mmap_mode="r", allow_pickle=False)
        self.intact = np.zeros(len(self.index), dtype=bool)  # images whose checksum is right
        self.shards = [_mapped(root / file) for file in shards]


def _mapped(path: Path) -> NDArray[np.uint8]:
    if not path.stat().st_size:
        return np.zeros(0, dtype=np.uint8)
    return np.asarray(np.memmap(path, dtype=np.uint8, mode="c"))


class PackBoxes:
    """The annotated boxes of a set's images by their ids, unchecked."""

    def __init__(self, root: Path, name: str) -> None:
        self._root, self._name = root, name

    def __call__(self, photo_id: str) -> list[NamedBox]:
        """The image's boxes; empty if it has none."""
        return self._boxes.get(photo_id, [])

    @cached_property
    def _boxes(self) -> dict[str, list[NamedBox]]:
        lines = boxes_file(self._root, self._name).read_text(encoding="utf8").splitlines()
        rows = zip(_ids(self._root, self._name), map(json.loads, lines), strict=True)
        return {image: [NamedBox(name, tuple(box), tuple(size)) for name, box, size in row] for image, row in rows}
