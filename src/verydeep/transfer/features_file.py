"""App. B: descriptors on disk by image id, so that a classifier, a search or a table never loads a net.

One safetensors file: ``Q256`` … float32 (N,D) for each scale, ``labels`` int64 (N,) (-1 where nobody tells them),
for photos of several classes ``marks`` int8 (N,K) (1 has, -1 has not, 0 counts as neither), and in its header a JSON
card: ids, class names, the set of each photo where the data came split, the net's file and hash, layer and protocol.
While it is computed, ``FILE.KEY.parts/`` holds what is finished in shards; they become the file. What is in the file
already is not computed again.
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
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from ..checkpoints.integrity import check_seal, write_sealed
from ..core.errors import VerydeepError
from ..core.files import cannot_write, check_text, utf8_path
from ..data.class_names import distinct

CARD = "verydeep-features"
FLUSH_SECONDS = 30.0
# What broken files raise, and cards that lack something.
_BROKEN = (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, VerydeepError)


@dataclass(frozen=True)
class Features:
    """Descriptors of N photos at some scales, not normalised, and of what they are.

    ``scales`` float32 (N,D) by Q; ``labels`` int64 (N,); ``marks`` int8 (N,K) or None; ``sets`` the set of each photo,
    empty texts where the data came unsplit; ``key`` a digest of net, layer, protocol and photos; ``recipe`` what is
    needed to describe another photo alike.
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
    def title(self) -> str:
        """What to call it in a list: net, layer and scales."""
        return f"{self.recipe['net']['net']} {self.recipe['layer']}@{','.join(map(str, self.scales))}"


def save_features(path: Path, features: Features) -> None:
    """Writes a features file atomically; raises VerydeepError where it cannot be written."""
    arrays: dict[str, NDArray[Any]] = {f"Q{scale}": rows for scale, rows in sorted(features.scales.items())}
    arrays["labels"] = features.labels
    if features.marks is not None:
        arrays["marks"] = features.marks
    metadata = {name: getattr(features, name) for name in ("ids", "classes", "sets", "data", "key", "recipe")}
    write_sealed(path, save(arrays, metadata={CARD: json.dumps(metadata)}))


def load_features(path: str | Path) -> Features:
    """A features file.

    Raises:
        VerydeepError: missing, broken, of arrays that do not fit together, a photo twice, or NaN in it.
    """
    path = Path(path)
    if not path.is_file():
        raise VerydeepError(f"there is no features file {path}: `verydeep features` writes them.")
    try:
        arrays, header = _read(path)
        metadata = json.loads(header[CARD])
        scales = {int(name[1:]): rows for name, rows in arrays.items() if name.startswith("Q")}
        ids, classes, sets = (tuple(map(str, metadata[name])) for name in ("ids", "classes", "sets"))
        classes = distinct(classes)
        check_text(*ids, *classes, *sets, str(metadata["data"]))
        told = (str(metadata["data"]), str(metadata["key"]), dict(metadata["recipe"]))
        found = Features(ids, arrays["labels"], arrays.get("marks"), classes, sets, dict(sorted(scales.items())), *told)
        fits = _fits(found) and recipe_fits(found.recipe)
    except _BROKEN:
        raise VerydeepError(f"{path} is no features file, or broken: `verydeep features` writes them anew.") from None
    if not fits:
        raise VerydeepError(f"{path} holds arrays that do not fit together: make it anew with `verydeep features`.")
    for scale, rows in found.scales.items():
        bad = ~np.isfinite(rows).all(axis=1)
        if bad.any():
            raise VerydeepError(
                f"{path} has NaN or infinite descriptors at Q = {scale}, first of photo {ids[int(bad.argmax())]}: "
                "make it anew with `verydeep features`."
            )
    return found


def recipe_fits(recipe: dict[str, Any]) -> bool:
    """Whether a card tells all that another photo's descriptor needs."""
    net, classes, splits = recipe["net"], recipe["classes"], recipe["splits"]
    texts = [*(net[name] for name in ("file", "sha256", "net", "preprocessing")), recipe["layer"], recipe["data"]]
    return (
        all(isinstance(text, str) and text for text in (*texts, *classes, recipe["precision"]))
        and recipe["pool"] in ("mean", "max")
        and isinstance(recipe["mirror"], bool)
        and all(isinstance(place.get("commit"), str | None) for place in recipe["described"].values())
        and (splits is None or (isinstance(splits, int) and splits > 0))
    )


def _read(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    with utf8_path(path) as opened, safe_open(opened, framework="numpy") as file:
        check_seal(path, CARD)
        return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118


def _fits(found: Features) -> bool:
    photos, classes = len(found.ids), len(found.classes)
    rows = list(found.scales.values())
    return (
        0 < photos == len(set(found.ids)) == len(found.sets)
        and found.labels.shape == (photos,)
        and found.labels.dtype == np.int64
        and -1 <= found.labels.min() <= found.labels.max() < classes
        and len(rows) > 0
        and min(found.scales) >= 1
        and rows[0].ndim == 2
        and rows[0].shape[1] > 0
        and all(row.shape == (photos, rows[0].shape[1]) and row.dtype == np.float32 for row in rows)
        and (found.marks is None or (found.marks.shape == (photos, classes) and found.marks.dtype == np.int8))
    )


class Shards:
    """What is finished of a file: rows by scale and photo, on disk after `FLUSH_SECONDS` at the latest."""

    def __init__(self, folder: Path, key: str, rank: int = 0, processes: int = 1) -> None:
        """Opens the shards of ``key`` that a folder holds; others, and torn ones, are void.

        Of several processes that write at once, each takes numbers of its own.
        """
        self.folder, self._key, self._step = folder, key, processes
        self.rows: dict[int, dict[int, NDArray[np.float32]]] = {}
        self._new: dict[int, list[tuple[list[int], NDArray[np.float32]]]] = {}
        self._written = time.monotonic()
        self._number = rank
        for path in sorted(folder.glob("*.safetensors")):
            while path.stem.isdigit() and self._number <= int(path.stem):
                self._number += processes
            self._load(path)

    def _load(self, path: Path) -> None:
        try:
            arrays, header = _read(path)
        except _BROKEN:
            return
        for name in (name for name in arrays if f"{name}/photos" in arrays):
            photos, rows = arrays[f"{name}/photos"], arrays[name]
            whole = photos.shape == rows.shape[:1] and rows.ndim == 2 and rows.dtype == np.float32
            if header.get("key") == self._key and whole and name[1:].isdecimal():
                self._keep(int(name[1:]), photos.tolist(), rows)

    def _keep(self, scale: int, photos: list[int], rows: NDArray[np.float32]) -> None:
        self.rows.setdefault(scale, {}).update(zip(photos, rows, strict=True))

    @property
    def count(self) -> int:
        """How many descriptors are there."""
        return sum(map(len, self.rows.values()))

    def has(self, scale: int, photo: int) -> bool:
        """Whether a photo's descriptor at a scale is there."""
        return photo in self.rows.get(scale, {})

    def add(self, scale: int, photos: list[int], rows: NDArray[np.float32]) -> None:
        """Takes descriptors (B,D) of a scale; writes them, and others that wait, now and then."""
        self._keep(scale, photos, rows)
        self._new.setdefault(scale, []).append((photos, rows))
        if time.monotonic() - self._written > FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Writes what waits as a shard."""
        if self._new:
            arrays: dict[str, NDArray[Any]] = {}
            for scale, several in self._new.items():
                arrays[f"Q{scale}"] = np.concatenate([rows for _, rows in several])
                arrays[f"Q{scale}/photos"] = np.array([photo for photos, _ in several for photo in photos])
            data = save(arrays, metadata={"key": self._key})
            write_sealed(self.folder / f"{self._number:05d}.safetensors", data)
            self._number += self._step
            self._new = {}
        self._written = time.monotonic()

    def whole(self, scale: int, photos: list[int]) -> NDArray[np.float32]:
        """The descriptors of photos at a scale, (N,D), in their order."""
        return np.stack([self.rows[scale][photo] for photo in photos])

    def remove(self) -> None:
        """Removes the shards, which the whole file has made void."""
        try:
            shutil.rmtree(self.folder, ignore_errors=not self.folder.exists())
        except OSError as fault:
            raise VerydeepError(cannot_write(self.folder, fault)) from None
