"""Descriptors that other programs computed (timm, DINO, CLIP, …), by image id.

A file has descriptors (N,D) and ids (N,), and may have labels (N,): names of classes, or their numbers with the names
as ``classes`` (K,); a negative number is no label. Several usual names of these are known (`NAMES`).

- ``.npz``: arrays; ``.parquet``: a row per image, the descriptor as a list of numbers.
- ``.npy``: descriptors; ``.safetensors``: tensors of descriptors and, as numbers, labels. Texts are beside them, in a
  file of the same name that ends in ``.txt`` (an id per line) or ``.csv`` (columns ``id`` and, if known, ``class``).
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..checkpoints.integrity import open_safetensors
from ..core.arrays import opened_arrays
from ..core.errors import VerydeepError
from ..core.files import check_place, check_text, read_text, write_atomically
from ..data.class_names import distinct
from ..data.datasets.hugging_face import NO_PYARROW
from ..data.tables import CLASS, IMAGE, Columns, read_table

Arrays = dict[str, NDArray[Any]]
NAMES = {
    "descriptors": ("descriptors", "descriptor", "features", "feature", "embeddings", "embedding"),
    "ids": ("ids", "id", "paths", "path", "filenames", "filename", "images", "image", "names", "name"),
    "labels": ("labels", "label", "targets", "target", "class"),
    "classes": ("classes", "class_names"),
}
NEEDED = "descriptors (N,D), ids (N,) and, if known, labels (N,)"
LISTED = Columns(
    names={"id": IMAGE, "class": CLASS},
    usual=("id", "class"),
    least=1,
    is_row=lambda cells: cells[0].casefold() not in {name for names in IMAGE for name in names},
    optional=("class",),
)
MOST_CLASSES = 1_000_000  # larger class numbers are no class numbers


@dataclass(frozen=True)
class DescriptorTable:
    """Descriptors float32 (N,D) with ids; labels int64 (N,), -1 for none, of ``classes``, which may have no names."""

    ids: tuple[str, ...]
    rows: NDArray[np.float32]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    named: bool


def read_descriptors(path: Path) -> DescriptorTable:
    """Reads a file of one of the formats in `READERS`.

    Raises:
        VerydeepError: corrupted, without descriptors or ids, of other shapes, with NaN, or with an image twice.
    """
    try:
        arrays = READERS[path.suffix.lower()](path)
    except OSError as fault:
        raise VerydeepError(f"cannot read {path}: {fault.strerror or 'it is corrupted'}.") from None
    except VerydeepError:
        raise
    except Exception:  # readers raise many types for untrusted bytes
        raise VerydeepError(f"{path} is corrupted, or does not hold plain arrays of numbers and texts.") from None
    return _checked(path, arrays)


def write_descriptors(path: Path, table: DescriptorTable) -> None:
    """Writes ``.npz`` or ``.parquet`` atomically, as `read_descriptors` takes them.

    Raises:
        VerydeepError: another ending, no pyarrow, or it cannot be written.
    """
    check_writable(path)
    data = WRITERS[path.suffix.lower()](table)
    write_atomically(path, lambda file: file.write(data))


def check_writable(path: Path) -> None:
    """Raises VerydeepError for another ending than those of `WRITERS`, without pyarrow, or no place for the file."""
    suffix = path.suffix.lower()
    if suffix not in WRITERS:
        raise VerydeepError(f"{path} must end in {' or '.join(WRITERS)}.")
    if suffix == ".parquet" and find_spec("pyarrow") is None:
        raise VerydeepError(NO_PYARROW)
    if path.is_dir():
        raise VerydeepError(f"{path} is a folder: pass a file that ends in {suffix}.")
    check_place(path.parent)


def _checked(path: Path, arrays: Arrays) -> DescriptorTable:
    for name in ("descriptors", "ids"):
        if name not in arrays:
            raise VerydeepError(f"{path} has no {name}: it needs {NEEDED}{_beside(path) if name == 'ids' else ''}.")
    rows, ids = arrays["descriptors"], _texts(path, arrays["ids"])
    if rows.ndim != 2 or rows.dtype.kind not in "fiu" or not rows.size:
        shape = "x".join(map(str, rows.shape))
        raise VerydeepError(f"{path}: descriptors are {rows.dtype} of shape {shape}, not numbers of shape (N,D).")
    if arrays["ids"].ndim != 1 or len(ids) != len(rows):
        raise VerydeepError(f"{path} has {len(rows)} descriptors and {len(ids)} ids.")
    if len(set(ids)) < len(ids):
        raise VerydeepError(f"{path} has the image {_first_twice(ids)} twice.")
    with np.errstate(over="ignore"):
        rows = np.ascontiguousarray(rows, dtype=np.float32)
    bad = ~np.isfinite(rows).all(axis=1)
    if bad.any():
        raise VerydeepError(f"{path} has a NaN or infinite descriptor, first of image {ids[int(bad.argmax())]}.")
    return DescriptorTable(ids, rows, *_labels(path, arrays, len(ids)))


def _labels(path: Path, arrays: Arrays, count: int) -> tuple[NDArray[np.int64], tuple[str, ...], bool]:
    """Labels, classes, and whether these have names."""
    if "labels" not in arrays:
        return np.full(count, -1, dtype=np.int64), (), False
    labels = arrays["labels"]
    if labels.shape != (count,) or labels.dtype.kind not in "UOSiu":
        shape = "x".join(map(str, labels.shape))
        raise VerydeepError(f"{path}: labels are {labels.dtype} of shape {shape}, not one name or number per image.")
    if labels.dtype.kind in "UOS":
        texts = _texts(path, labels)
        classes = tuple(sorted({text for text in texts if text}))
        place = {name: number for number, name in enumerate(classes)} | {"": -1}
        return np.array([place[text] for text in texts], dtype=np.int64), classes, True
    labels = np.maximum(labels.astype(np.int64), -1)
    names = _texts(path, arrays["classes"]) if "classes" in arrays else ()
    most = len(names) or MOST_CLASSES
    if labels.max() >= most:
        raise VerydeepError(f"{path}: label {labels.max()} is out of range: there are {most:,} classes at most.")
    return labels, distinct(names or map(str, range(int(labels.max()) + 1))), bool(names)


def _texts(path: Path, values: NDArray[Any]) -> tuple[str, ...]:
    """An array of texts or whole numbers as texts; None is empty."""
    try:
        if values.dtype.kind not in "UOSiu":
            raise ValueError
        texts = tuple(_text(value) for value in values.ravel())
        check_text(*texts)
    except ValueError:
        raise VerydeepError(f"{path}: ids and class names must be texts or whole numbers.") from None
    return texts


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf8", "surrogateescape")
    if value is None:
        return ""
    if not isinstance(value, str | int | np.integer):
        raise ValueError
    return str(value)


def _first_twice(ids: Sequence[str]) -> str:
    counts = dict.fromkeys(ids, 0)
    for name in ids:
        counts[name] += 1
    return next(name for name in ids if counts[name] > 1)


def _chosen(arrays: dict[str, Any]) -> Arrays:
    """The arrays of a file by our names."""
    found = {}
    for ours, names in NAMES.items():
        present = [name for name in names if name in arrays]
        if present:
            found[ours] = np.asarray(arrays[present[0]])
    return found


def _npz(path: Path) -> Arrays:
    with opened_arrays(path) as stored:
        wanted = {name for names in NAMES.values() for name in names}
        return _chosen({name: stored[name] for name in stored.files if name in wanted})


def _npy(path: Path) -> Arrays:
    with path.open("rb") as file:
        return {"descriptors": np.asarray(np.load(file, allow_pickle=False)), **_listed_beside(path)}


def _safetensors(path: Path) -> Arrays:
    with open_safetensors(path, framework="pt") as file:
        wanted = {name for names in NAMES.values() for name in names}
        tensors = {name: file.get_tensor(name) for name in file.keys() if name in wanted}  # noqa: SIM118
    floats = {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}
    return {**_chosen({name: value.numpy() for name, value in floats.items()}), **_listed_beside(path)}


def _beside(path: Path) -> str:
    if path.suffix.lower() not in (".npy", ".safetensors"):
        return ""
    return f"; the ids can be in {path.with_suffix('.txt')}, one per line, or in {path.with_suffix('.csv')}"


def _listed_beside(path: Path) -> Arrays:
    """Ids, and labels if there are any, of the file with the same name that ends in .txt or .csv."""
    lines, table = path.with_suffix(".txt"), path.with_suffix(".csv")
    if lines.is_file():
        return {"ids": np.array(read_text(lines).splitlines(), dtype=object)}
    if not table.is_file():
        return {}
    rows = read_table(table, LISTED)
    found: Arrays = {"ids": np.array([row.cells["id"] for row in rows], dtype=object)}
    if rows and all("class" in row.cells for row in rows):
        found["labels"] = np.array([row.cells["class"] for row in rows], dtype=object)
    return found


def _parquet(path: Path) -> Arrays:
    if find_spec("pyarrow") is None:
        raise VerydeepError(NO_PYARROW)
    import pyarrow.compute
    import pyarrow.parquet

    with path.open("rb") as file:
        table = pyarrow.parquet.read_table(file)
    wanted = {name for names in NAMES.values() for name in names}
    columns = {name: table.column(name).combine_chunks() for name in table.column_names if name in wanted}
    arrays = {}
    for name, values in columns.items():
        if pyarrow.types.is_list(values.type) or pyarrow.types.is_fixed_size_list(values.type):
            lengths = set(pyarrow.compute.list_value_length(values).to_pylist())
            if len(lengths) > 1 or values.null_count:
                raise VerydeepError(f"{path}: the descriptors in column {name} are missing or of different lengths.")
            arrays[name] = values.flatten().to_numpy(zero_copy_only=False).reshape(len(values), -1)
        else:
            arrays[name] = values.to_numpy(zero_copy_only=False)
    return _chosen(arrays)


def _npz_bytes(table: DescriptorTable) -> bytes:
    file, arrays = io.BytesIO(), dict[str, Any](ids=np.array(table.ids, dtype=np.str_), descriptors=table.rows)
    if table.classes:
        arrays |= {"labels": table.labels, "classes": np.array(table.classes, dtype=np.str_)}
    np.savez(file, **arrays)
    return file.getvalue()


def _parquet_bytes(table: DescriptorTable) -> bytes:
    import pyarrow.parquet

    columns = {
        "id": pyarrow.array(table.ids, pyarrow.string()),
        "descriptor": pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(table.rows.ravel()), table.rows.shape[1]),
    }
    if table.classes:
        names = [None if label < 0 else table.classes[label] for label in table.labels]
        columns["label"] = pyarrow.array(names, pyarrow.string())
    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), file)
    return file.getvalue()


READERS: dict[str, Callable[[Path], Arrays]] = {
    **{".npz": _npz, ".npy": _npy},
    **{".safetensors": _safetensors, ".parquet": _parquet},
}
WRITERS: dict[str, Callable[[DescriptorTable], bytes]] = {".npz": _npz_bytes, ".parquet": _parquet_bytes}
