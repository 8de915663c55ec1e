"""Sect. 4: photos from a pack, as `verydeep.data.pack_writer` writes them: memory-mapped, in any order.

A raw pack's photo is a piece of a file that the operating system keeps in memory; nothing is opened or decoded. What a
folder's photo is after rescaling to the pack's smallest side, the pack's photo is before, so that training at S of that
size sees identical pixels.
"""

from __future__ import annotations

import json
import os
import zlib
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
# Of each photo: where it is, its checksum, its size as packed and as it was, its class and subject.
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
    """The ids of a set's photos."""
    return folder / f"{name}.ids"


def marks_file(folder: Path, name: str) -> Path:
    """The classes of photos that have several."""
    return folder / f"{name}.marks.npy"


def boxes_file(folder: Path, name: str) -> Path:
    """The boxes of a set's photos."""
    return folder / f"{name}.boxes.jsonl"


def is_pack(folder: Path) -> bool:
    """Whether a folder is a whole pack."""
    return os.path.isfile(folder / CARD)  # False, too, where the folder cannot be read


def open_pack(folder: Path, settings: DataSettings) -> Data:
    """The sets of a pack, as they were when it was packed.

    Raises:
        VerydeepError: settings that would part or join its photos anew, a file that is missing or broken.
    """
    if settings.boxes or settings.dev_fraction is not None:
        raise VerydeepError(
            f"{folder} is a pack, which keeps its boxes and its split: give --boxes and --dev-fraction when packing."
        )
    try:
        metadata = read_json(folder / CARD)
        if metadata["format"] != FORMAT:
            raise VerydeepError(f"{folder} is a pack of another version ({metadata['format']}): pack the photos again.")
        sets = {name: _set(folder, name, metadata) for name in metadata["sets"]}
        return Data(str(metadata["name"]), sets, bool(metadata["split_by_us"]))
    except VerydeepError:
        raise
    except Exception as fault:  # whatever numpy trips over in a stranger's bytes
        told = f"{fault.filename}: {fault.strerror}" if isinstance(fault, OSError) and fault.strerror else fault
        raise VerydeepError(f"{folder} is a broken pack ({told}): pack the photos again.") from None


def _set(folder: Path, name: str, metadata: dict[str, Any]) -> Dataset:
    index = np.load(index_file(folder, name), mmap_mode="r", allow_pickle=False)
    text = ids_file(folder, name).read_bytes().decode("utf8", "surrogateescape")
    ids = tuple(text.split("\0")) if text else ()
    shards = metadata["sets"][name]["shards"]
    if index.dtype != ROW or not len(ids) == len(index) == metadata["sets"][name]["photos"]:
        raise ValueError(f"the index of {name} does not fit")
    for shard in shards:
        if (folder / shard["file"]).stat().st_size != shard["bytes"]:
            raise ValueError(f"{shard['file']} is not as long as it was")
    classes, labels = distinct(map(str, metadata["classes"])), np.array(index["label"])
    check_text(*classes, str(metadata["name"]))
    if metadata["form"] not in ("raw", "jpeg") or labels.min(initial=0) < -1 or labels.max(initial=-1) >= len(classes):
        raise ValueError(f"{name} has a class or a form that is not there")
    marks, subjects = marks_file(folder, name), np.array(index["subject"])
    return Dataset(
        name=str(metadata["name"]),
        set_name=name,
        classes=classes,
        ids=ids,
        labels=labels,
        source=PackReader(folder, name, metadata["form"], tuple(shard["file"] for shard in shards)),
        skipped=_skipped(folder, int(metadata["sets"][name]["ignored"])),
        subjects=None if (subjects == np.arange(len(subjects))).all() else subjects,
        find_boxes=PackBoxes(folder, name) if boxes_file(folder, name).is_file() else None,
        marks=np.load(marks, allow_pickle=False) if marks.is_file() else None,
    )


def _skipped(folder: Path, count: int) -> Skipped:
    """What was skipped when the photos were packed."""
    skipped = Skipped(str(folder))
    if count:
        skipped.note("not packed", folder, count)
    return skipped


class PackReader(ImageSource):
    """Reads a set's photos by their ids; files are mapped at the first photo, in each process."""

    def __init__(self, root: Path, name: str, form: str, shards: tuple[str, ...]) -> None:
        self._root, self._name, self._form, self._shards = root, name, form, shards
        self._open: _Opened | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": None}

    def read(self, image_id: str) -> Pixels:
        """uint8 RGB (H,W,3); raises ImageError where the checksum is not that of the photo."""
        row, data = self._row(image_id), self.stored(image_id)
        pixels = 3 * int(row["height"]) * int(row["width"])
        if not self._is_whole(image_id, data) or (self._form == "raw" and not 0 < pixels == len(data)):
            raise ImageError(
                f"photo {image_id} of the pack {self._root} is not as it was packed: pack the photos again."
            )
        if self._form == "jpeg":
            return decode(data.tobytes(), image_id)
        return data.reshape(int(row["height"]), int(row["width"]), 3)

    def _is_whole(self, image_id: str, data: NDArray[np.uint8]) -> bool:
        """Whether the bytes are those that were packed; looked at once in each process."""
        opened = self._opened()
        place = opened.places[image_id]
        if not opened.known[place]:
            opened.known[place] = zlib.crc32(data.data) == opened.index[place]["crc32"]
        return bool(opened.known[place])

    def stored(self, image_id: str) -> NDArray[np.uint8]:
        """The photo's bytes, as they are; a change to them changes the file's no more than a copy would.

        Raises ImageError where the index names a file that is not there.
        """
        row, shards = self._row(image_id), self._opened().shards
        start, shard = int(row["offset"]), int(row["shard"])
        if shard >= len(shards):
            raise ImageError(f"photo {image_id} of the pack {self._root} is in no file of it: pack the photos again.")
        return shards[shard][start : start + int(row["bytes"])]

    def size(self, image_id: str) -> tuple[int, int]:
        """Height and width, as packed."""
        row = self._row(image_id)
        return int(row["height"]), int(row["width"])

    def files(self, image_id: str) -> list[Path]:
        """The file that holds the photo."""
        return [self._root / self._shards[int(self._row(image_id)["shard"])]]

    @property
    def root(self) -> Path:
        """The pack's folder."""
        return self._root

    def _row(self, image_id: str) -> Any:
        opened = self._opened()
        return opened.index[opened.places[image_id]]

    def _opened(self) -> _Opened:
        if self._open is None:
            self._open = _Opened(self._root, self._name, self._shards)
        return self._open


class _Opened:
    """A set's files in this process."""

    def __init__(self, root: Path, name: str, shards: tuple[str, ...]) -> None:
        text = ids_file(root, name).read_bytes().decode("utf8", "surrogateescape")
        self.places = {photo: place for place, photo in enumerate(text.split("\0"))}
        self.index = np.load(index_file(root, name), mmap_mode="r", allow_pickle=False)
        self.known = np.zeros(len(self.index), dtype=bool)  # to be whole
        self.shards = [_mapped(root / file) for file in shards]


def _mapped(path: Path) -> NDArray[np.uint8]:
    if not path.stat().st_size:
        return np.zeros(0, dtype=np.uint8)
    return np.asarray(np.memmap(path, dtype=np.uint8, mode="c"))


class PackBoxes:
    """The boxes of a set's photos by their ids, as their files told them."""

    def __init__(self, root: Path, name: str) -> None:
        self._root, self._name = root, name
        self._found: dict[str, list[NamedBox]] | None = None

    def __call__(self, photo_id: str) -> list[NamedBox]:
        """A photo's boxes; none where no file told of it."""
        if self._found is None:
            text = ids_file(self._root, self._name).read_bytes().decode("utf8", "surrogateescape")
            lines = boxes_file(self._root, self._name).read_text(encoding="utf8").splitlines()
            told = zip(text.split("\0"), map(json.loads, lines), strict=True)
            self._found = {
                photo: [NamedBox(name, tuple(box), tuple(size)) for name, box, size in found] for photo, found in told
            }
        return self._found.get(photo_id, [])
