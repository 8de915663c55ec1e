"""App. B: descriptors on disk by image id, so that SVMs, retrieval and tables need no net.

One safetensors file: ``Q256`` … float32 (N,D) for each scale, ``labels`` int64 (N,) (-1 for none), for images of
several classes ``marks`` int8 (N,K) (1 has, -1 has not, 0 is ignored), and in its header JSON metadata: ids, class
names, the set of each image if the data come split, the net's file and hash, layer and protocol. During extraction,
``FILE.KEY.parts/`` holds finished descriptors in shards, which become the file. Descriptors that the file already has
are not computed again.

Files of other programs (`descriptor_tables`) are read as one scale, called `EXTERNAL_SCALE`. The labels and sets of
their images are those of some data, in which their ids are looked up, or else the file's own.
"""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import save

from ..checkpoints.integrity import check_seal, open_safetensors, write_sealed
from ..core.errors import VerydeepError
from ..core.files import cannot_write, check_text, file_sha256
from ..core.settings import DataSettings
from ..data.class_names import class_key, distinct
from ..data.open import lasting_name, open_images
from .descriptor_tables import READERS, DescriptorTable, check_writable, read_descriptors, write_descriptors

METADATA_KEY = "verydeep-features"
FLUSH_SECONDS = 30.0
EXTERNAL_SCALE = 1  # of descriptors of other programs, whose Q is not known
# Errors of broken files, and of incomplete metadata.
_BROKEN = (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, VerydeepError)


@dataclass(frozen=True)
class ImageList:
    """Images with labels, as in `Features`; ``source`` opens them again."""

    ids: tuple[str, ...]
    labels: NDArray[np.int64]
    marks: NDArray[np.int8] | None
    classes: tuple[str, ...]
    sets: tuple[str, ...]
    data: str
    source: str


@dataclass(frozen=True)
class Features:
    """Descriptors of N images by scale, not normalised, with the images' labels.

    ``scales`` float32 (N,D) by Q; ``labels`` int64 (N,); ``marks`` int8 (N,K) or None; ``sets`` the set of each image,
    empty strings for unsplit data; ``key`` a digest of net, layer, protocol and images; ``recipe`` is what computes the
    same descriptor of another image.
    """

    ids: tuple[str, ...]
    labels: NDArray[np.int64]
    marks: NDArray[np.int8] | None
    classes: tuple[str, ...]
    sets: tuple[str, ...]
    scales: dict[int, NDArray[np.float32]]
    data: str
    key: str
    recipe: dict[str, Any]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def metadata(self) -> dict[str, Any]:
        """What the file's header records."""
        return {name: getattr(self, name) for name in ("ids", "classes", "sets", "data", "key", "recipe")}

    @property
    def title(self) -> str:
        """Net, layer and scales, as the name of the features in lists."""
        return f"{self.recipe['net']['net']} {self.recipe['layer']}@{','.join(map(str, self.scales))}"

    @property
    def images(self) -> ImageList:
        """The images without their descriptors."""
        own = (self.ids, self.labels, self.marks, self.classes, self.sets, self.data)
        return ImageList(*own, self.recipe["data"])


def save_features(path: Path, features: Features) -> None:
    """Writes a features file atomically; raises VerydeepError if it cannot be written."""
    arrays: dict[str, NDArray[Any]] = {f"Q{scale}": rows for scale, rows in sorted(features.scales.items())}
    arrays["labels"] = features.labels
    if features.marks is not None:
        arrays["marks"] = features.marks
    write_sealed(path, save(arrays, metadata={METADATA_KEY: json.dumps(features.metadata)}))


def images_of(data: str) -> ImageList:
    """The images of some data, as `verydeep.open_data` or `extract_features` take them."""
    images, sets = open_images(DataSettings(data=data)).everything()
    return ImageList(images.ids, images.labels, images.marks, images.classes, sets, images.name, lasting_name(data))


def is_external(path: Path) -> bool:
    """Whether another program wrote a file of descriptors."""
    if path.suffix.lower() not in READERS or not path.is_file():
        return False
    if path.suffix.lower() != ".safetensors":
        return True
    try:
        with open_safetensors(path, "numpy") as file:
            return not any(name.startswith("verydeep") for name in file.metadata() or {})
    except _BROKEN:
        return False


def export_features(features: Features, path: str | Path) -> None:
    """Writes descriptors for other programs, as ``.npz`` or ``.parquet``: ids, descriptors, and labels with classes.

    Several scales are side by side, in their order, not normalised.

    Raises:
        VerydeepError: another ending, no pyarrow, or it cannot be written.
    """
    rows = np.concatenate(list(features.scales.values()), axis=1)
    labelled = features.marks is None and bool((features.labels >= 0).any())
    classes = features.classes if labelled else ()
    write_descriptors(Path(path), DescriptorTable(features.ids, rows, features.labels, classes, True))


def check_export(path: str | Path, features_file: str | Path) -> None:
    """Raises VerydeepError where `export_features` could not write, before hours of extraction."""
    path = Path(path)
    check_writable(path)
    if path.absolute() == Path(features_file).absolute():
        raise VerydeepError(f"{path} is the features file itself: pass another file as --also.")


def load_features(path: str | Path, images: ImageList | None = None) -> Features:
    """Loads a features file, or descriptors that another program stored (`verydeep.transfer.descriptor_tables`).

    Args:
        images: to whose labels and sets the ids of another program's file refer; without, the file's own labels count.

    Raises:
        VerydeepError: missing, broken, arrays of inconsistent shapes, duplicate images, or NaN; ids that are not those
            of ``images``.
    """
    path = Path(path)
    if not path.is_file():
        raise VerydeepError(f"there is no features file {path}: `verydeep features` writes them.")
    if is_external(path):
        return _external(path, read_descriptors(path), images)
    return _load_own(path)


def _external(path: Path, table: DescriptorTable, images: ImageList | None) -> Features:
    """Descriptors of another program as features of some images, or else of its own."""
    if images is None:
        sets = ("",) * len(table.ids)
        images = ImageList(table.ids, table.labels, None, table.classes, sets, path.name, str(path.absolute()))
    place = {name: number for number, name in enumerate(table.ids)}
    missing = [name for name in images.ids if name not in place]
    if missing:
        raise VerydeepError(
            f"{path} lacks {len(missing)} of the {len(images.ids)} images of {images.data}, first {missing[0]}; its "
            f"own ids are such as {table.ids[0]}: they must be those of the data."
        )
    if len(place) > len(images.ids):
        more = sorted(set(place) - set(images.ids))
        raise VerydeepError(f"{path} has {len(more)} images that {images.data} lacks, first {more[0]}.")
    order = np.array([place[name] for name in images.ids], dtype=np.int64)
    _check_labels(path, table, images, order)
    digest = file_sha256(path)
    net = {"net": path.stem, "file": str(path.absolute()), "sha256": digest, "preprocessing": "recorded"}
    recipe = {"net": net, "layer": "descriptors", "pool": "mean", "mirror": False, "precision": "float32"}
    recipe |= {"data": images.source, "classes": [], "splits": None, "described": {}, "external": True}
    rows = {EXTERNAL_SCALE: table.rows[order]}
    own = (images.ids, images.labels, images.marks, images.classes, images.sets)
    return Features(*own, rows, images.data, digest, recipe)


def _check_labels(path: Path, table: DescriptorTable, images: ImageList, order: NDArray[np.int64]) -> None:
    """Raises VerydeepError where the file names another class of an image than the data."""
    if not table.named or images.marks is not None:
        return
    for name, label, place in zip(images.ids, images.labels, order, strict=True):
        theirs = int(table.labels[place])
        if theirs >= 0 and label >= 0 and class_key(table.classes[theirs]) != class_key(images.classes[label]):
            raise VerydeepError(
                f"{path} says that {name} is of class {table.classes[theirs]!r}, and {images.data} of class "
                f"{images.classes[label]!r}."
            )


def _load_own(path: Path) -> Features:
    """A file that `save_features` wrote; raises VerydeepError as `load_features`."""
    try:
        arrays, header = _read(path)
        metadata = json.loads(header[METADATA_KEY])
        scales = {int(name[1:]): rows for name, rows in arrays.items() if name.startswith("Q")}
        ids, classes, sets = (tuple(map(str, metadata[name])) for name in ("ids", "classes", "sets"))
        classes = distinct(classes)
        check_text(*ids, *classes, *sets, str(metadata["data"]))
        texts = (str(metadata["data"]), str(metadata["key"]), dict(metadata["recipe"]))
        features = Features(
            ids, arrays["labels"], arrays.get("marks"), classes, sets, dict(sorted(scales.items())), *texts
        )
        fits = _fits(features) and recipe_fits(features.recipe)
    except _BROKEN:
        raise VerydeepError(f"{path} is not a features file, or corrupted: run `verydeep features` again.") from None
    if not fits:
        raise VerydeepError(f"{path} has arrays of inconsistent shapes: run `verydeep features` again.")
    for scale, rows in features.scales.items():
        bad = ~np.isfinite(rows).all(axis=1)
        if bad.any():
            raise VerydeepError(
                f"{path} has NaN or infinite descriptors at Q = {scale}, first of image {ids[int(bad.argmax())]}: "
                "run `verydeep features` again."
            )
    return features


def recipe_fits(recipe: dict[str, Any]) -> bool:
    """Whether a recipe has all that another image's descriptor needs."""
    net, classes, splits = recipe["net"], recipe["classes"], recipe["splits"]
    texts = [*(net[name] for name in ("file", "sha256", "net", "preprocessing")), recipe["layer"], recipe["data"]]
    return (
        all(isinstance(text, str) and text for text in (*texts, *classes, recipe["precision"]))
        and recipe["pool"] in ("mean", "max")
        and isinstance(recipe["mirror"], bool)
        and all(isinstance(made.get("commit"), str | None) for made in recipe["described"].values())
        and (splits is None or (isinstance(splits, int) and splits > 0))
    )


def _read(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    with open_safetensors(path, "numpy") as file:
        check_seal(path, METADATA_KEY)
        return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118


def _fits(features: Features) -> bool:
    images, classes = len(features.ids), len(features.classes)
    rows = list(features.scales.values())
    return (
        0 < images == len(set(features.ids)) == len(features.sets)
        and features.labels.shape == (images,)
        and features.labels.dtype == np.int64
        and -1 <= features.labels.min() <= features.labels.max() < classes
        and len(rows) > 0
        and min(features.scales) >= 1
        and rows[0].ndim == 2
        and rows[0].shape[1] > 0
        and all(row.shape == (images, rows[0].shape[1]) and row.dtype == np.float32 for row in rows)
        and (features.marks is None or (features.marks.shape == (images, classes) and features.marks.dtype == np.int8))
    )


class Shards:
    """Finished descriptors of a file by scale and image, written to disk every `FLUSH_SECONDS`."""

    def __init__(self, folder: Path, key: str, rank: int = 0, processes: int = 1) -> None:
        """Loads the shards of ``key`` in a directory; others, and broken ones, are ignored.

        Processes that write at the same time number their shards apart.
        """
        self.folder, self._key, self._step = folder, key, processes
        self.rows: dict[int, dict[int, NDArray[np.float32]]] = {}
        self._new: dict[int, list[tuple[list[int], NDArray[np.float32]]]] = {}
        self._written = time.monotonic()
        self._number = rank
        for path in sorted(folder.glob("*.safetensors")):
            while path.stem.isdigit() and self._number <= int(path.stem):
                self._number += processes
            self._load_shard(path)

    def _load_shard(self, path: Path) -> None:
        try:
            arrays, header = _read(path)
        except _BROKEN:
            return
        for name in (name for name in arrays if f"{name}/photos" in arrays):
            images, rows = arrays[f"{name}/photos"], arrays[name]
            complete = images.shape == rows.shape[:1] and rows.ndim == 2 and rows.dtype == np.float32
            if header.get("key") == self._key and complete and name[1:].isdecimal():
                self._keep(int(name[1:]), images.tolist(), rows)

    def _keep(self, scale: int, images: list[int], rows: NDArray[np.float32]) -> None:
        self.rows.setdefault(scale, {}).update(zip(images, rows, strict=True))

    @property
    def count(self) -> int:
        """The number of descriptors."""
        return sum(map(len, self.rows.values()))

    def has(self, scale: int, image: int) -> bool:
        """Whether the descriptor of an image at a scale is finished."""
        return image in self.rows.get(scale, {})

    def add(self, scale: int, images: list[int], rows: NDArray[np.float32]) -> None:
        """Adds descriptors (B,D) of a scale; writes all pending ones from time to time."""
        self._keep(scale, images, rows)
        self._new.setdefault(scale, []).append((images, rows))
        if time.monotonic() - self._written > FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Writes the pending descriptors as a shard."""
        if self._new:
            arrays: dict[str, NDArray[Any]] = {}
            for scale, several in self._new.items():
                arrays[f"Q{scale}"] = np.concatenate([rows for _, rows in several])
                arrays[f"Q{scale}/photos"] = np.array([image for images, _ in several for image in images])
            data = save(arrays, metadata={"key": self._key})
            write_sealed(self.folder / f"{self._number:05d}.safetensors", data)
            self._number += self._step
            self._new = {}
        self._written = time.monotonic()

    def whole(self, scale: int, images: list[int]) -> NDArray[np.float32]:
        """The descriptors of images at a scale, (N,D), in their order."""
        return np.stack([self.rows[scale][image] for image in images])

    def remove(self) -> None:
        """Removes the shards once the file is written."""
        try:
            shutil.rmtree(self.folder, ignore_errors=not self.folder.exists())
        except OSError as fault:
            raise VerydeepError(cannot_write(self.folder, fault)) from None
