"""Sect. 4, data: data sets of Hugging Face's `datasets` on disk: parquet files, or what `save_to_disk` writes.

A row is an image. Its encoded bytes are in a column of structs of ``bytes`` and ``path``, or of bytes; where there are
no bytes, ``path`` is a file, relative to the folder. Its class is in another column: the number of a name of the
``ClassLabel`` that the files' metadata describe, or else any number or text; -1, null and an empty text are no label.
A list of numbers or texts is any number of classes.

- Parquet: the name of a file, without the number of its shard, or else that of a folder is its set
  (``data/train-00000-of-00002.parquet``, ``train/0000.parquet``).
- `save_to_disk` (Arrow): ``dataset_dict.json`` names the sets, each a folder, and ``state.json`` the files of a set.

Ids are ``FILE/ROW``. Arrow files are read in place. Of parquet files a whole row group is read at once, and the last
ones are kept, so that reading in order is fast, and reading at random if all images fit.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...core.errors import ImageError, VerydeepError, first_line
from ...core.files import check_text, read_json, utf8_path
from ...core.settings import DataSettings
from ..class_names import distinct, numbered
from ..dataset import Data, Dataset, ImageSource, relabel
from ..image_formats import EXTENSIONS
from ..image_io import Pixels, decode, read_bytes
from ..layout import named_sets, set_of_name
from ..tables import CLASS, IMAGE, SEVERAL, Names, column_key
from ..walk import Skipped, files_below, of_extension, passed_over
from .folder import from_sets, split_whole

NAMES = ("hf",)

NO_PYARROW = "parquet and Arrow files need pyarrow: pip install 'verydeep[parquet]'."
SETS_FILE, SET_FILE, INFO_FILE, PARQUET = "dataset_dict.json", "state.json", "dataset_info.json", ".parquet"
METADATA, UNKNOWN = b"huggingface", "unknown"
SHARD = re.compile(r"-\d{5}-of-\d{5}(-\w+)?$")
LABEL: Names = (CLASS[0], tuple(name for name in CLASS[1] if name not in IMAGE[1]), SEVERAL)
MOST_KEPT, MOST_OPEN = 2**28, 64  # bytes of the row groups that a process keeps, and its open files


def is_saved_dataset(folder: Path) -> bool:
    """Whether `save_to_disk` wrote a folder, or it has parquet files and not a single image file."""
    written = {name for name in (SETS_FILE, SET_FILE, INFO_FILE) if os.path.isfile(folder / name)}
    if SETS_FILE in written or {SET_FILE, INFO_FILE} <= written:
        return True
    found = False
    for _, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not passed_over(name)]
        endings = {os.path.splitext(name)[1].lower() for name in names if not passed_over(name)}
        if not endings.isdisjoint(EXTENSIONS):
            return False
        found = found or PARQUET in endings
    return found


def not_on_disk(name: str) -> str:
    """The message for a data set that is not a folder."""
    return (
        f"there is no folder {name}: data sets are only read from disk. Download one first, with "
        f"`hf download --repo-type dataset {name} --local-dir DIR` of huggingface_hub, and use --data DIR."
    )


def open_named(_: str, root: Path | None, settings: DataSettings) -> Data:
    """As `open_path`."""
    assert root is not None
    return open_path(root, settings)


def open_path(root: Path, settings: DataSettings) -> Data:
    """The sets in a folder.

    Raises:
        VerydeepError: no pyarrow, a broken file, no column of images or several, a label out of range, sets without
            one for training.
    """
    if find_spec("pyarrow") is None:
        raise VerydeepError(NO_PYARROW)
    name, skipped = str(root), Skipped(str(root))
    splits = _splits(root, skipped)
    reader = _SetReader(root, skipped, settings.group_by)
    named, notes = _named_sets(root, list(splits))
    sets = {key: reader.read(key, splits[split]) for key, split in named.items()}
    train, *others = sets
    if not _has_labels(sets[train]):
        if others:
            raise VerydeepError(f"{root}: the images of {named[train]} have no labels, which training needs.")
        return Data(name, {"test": sets[train].take(np.arange(len(sets[train])), "test")}, split_by_us=False)
    sets[train] = _used_classes(sets[train])
    for key in [key for key in others if not _has_labels(sets[key])]:
        del sets[key]
        notes += (f"{root}: {named[key]} has no labels and is not read",)
    if len(sets) == 1:
        return replace(split_whole(replace(sets[train], set_name="all"), settings), notes=notes)
    opened = from_sets(name, sets, settings, named)
    return replace(opened, notes=(*notes, *opened.notes))


def _has_labels(dataset: Dataset) -> bool:
    return dataset.labelled or dataset.marks is not None


def _used_classes(dataset: Dataset) -> Dataset:
    """The set without the classes that no image has, as after a `filter`."""
    numbers = np.unique(dataset.labels if dataset.marks is None else np.nonzero(dataset.marks == 1)[1])
    used = tuple(dataset.classes[number] for number in numbers)
    return relabel(dataset, used) if len(used) < len(dataset.classes) else dataset


def _splits(root: Path, skipped: Skipped) -> dict[str, list[Path]]:
    """The files of each set by the name that the data set gives it."""
    if (root / SETS_FILE).is_file():
        content = read_json(root / SETS_FILE)
        return {name: _arrow_files(root / name) for name in _plain_names(root / SETS_FILE, content.get("splits"))}
    if (root / SET_FILE).is_file():
        return {"all": _arrow_files(root)}
    return _parquet_files(root, skipped)


def _plain_names(path: Path, names: Any) -> list[str]:
    """Names of files or folders beside a JSON file, which it contains; raises VerydeepError if they are not such."""
    plain = isinstance(names, list) and all(isinstance(name, str) and Path(name).name == name != ".." for name in names)
    if plain and names:
        return list(names)
    raise VerydeepError(f"{path} is corrupted: it does not name the files beside it. Write or download it again.")


def _arrow_files(folder: Path) -> list[Path]:
    files = read_json(folder / SET_FILE).get("_data_files")
    listed = files if isinstance(files, list) else []
    names = [file.get("filename") if isinstance(file, dict) else None for file in listed]
    return [folder / name for name in _plain_names(folder / SET_FILE, names)]


def _parquet_files(root: Path, skipped: Skipped) -> dict[str, list[Path]]:
    """Parquet files by set; files that no set is named for are one set if there are no others."""
    found: dict[str, dict[str, list[Path]]] = {}
    unnamed: list[Path] = []
    for path in files_below(root, skipped, of_extension(PARQUET)):
        place = _config_and_split(path.relative_to(root))
        if place is None:
            unnamed.append(path)
        else:
            found.setdefault(place[0], {}).setdefault(place[1], []).append(path)
    if len(found) > 1:
        several = ", ".join(str(root / config) for config in sorted(found))
        raise VerydeepError(f"{root} has several data sets: use one of the folders {several}.")
    if not found and not unnamed:
        raise VerydeepError(f"{root} has no parquet files, and no {SETS_FILE} or {SET_FILE} of `save_to_disk`.")
    for path in unnamed if found else ():
        skipped.note("files of no set", path)
    return next(iter(found.values()), {"all": unnamed})


def _config_and_split(path: Path) -> tuple[str, str] | None:
    """The folder that has all sets, and the name of a file's set; None if its name and folders name none."""
    stem = SHARD.sub("", path.stem)
    if set_of_name(stem):
        return str(path.parent), stem
    folders = [folder for folder in path.parents if set_of_name(folder.name)]
    return (str(folders[0].parent), folders[0].name) if folders else None


def _named_sets(root: Path, splits: list[str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """The data set's name of each set, the training set first, and notes; one set alone may have any name."""
    if len(splits) == 1:
        return {"train": splits[0]}, ()
    named = named_sets(root, splits)
    if "train" not in named:
        raise VerydeepError(f"{root} has the sets {', '.join(splits)}, and none for training: one must be `train`.")
    others = [name for name in splits if name not in named.values()]
    return named, (f"{root}: {', '.join(others)} beside the sets is not read",) if others else ()


@dataclass(frozen=True)
class _Columns:
    """The columns of a file: images, labels if there are any, and the names of these if they are numbers of names.

    ``several`` says whether a cell is a list of labels.
    """

    image: str
    label: str | None
    names: tuple[str, ...] | None
    several: bool


@dataclass(frozen=True)
class _SetReader:
    """Reads all of sets but the images; ``numbers`` are those of groups, the same in all sets."""

    root: Path
    skipped: Skipped
    group_by: str | None
    numbers: dict[str, int] = field(default_factory=dict)

    def read(self, set_name: str, paths: Sequence[Path]) -> Dataset:
        """One set."""
        ids: list[str] = []
        values: list[Any] = []
        groups: list[Any] = []
        columns = None
        for path in paths:
            with _readable(path):
                file = _open(path)
                found = _columns(path, file.schema)
                if columns not in (None, found):
                    raise VerydeepError(f"{path} has other columns or class names than {paths[0]}.")
                columns = found
                ids += [f"{path.relative_to(self.root)}/{row:06d}" for row in range(file.rows)]
                values += [None] * file.rows if found.label is None else _cells(file, found.label)
                groups += _cells(file, self.group_by or "") if self.group_by in file.schema.names else []
        if columns is None or not ids:
            raise VerydeepError(f"{paths[0] if paths else self.root} has no rows.")
        source = TableReader(self.root, columns.image)
        subjects = self._subjects(ids, groups)
        labels = np.full(len(ids), -1, dtype=np.int64)
        dataset = Dataset(str(self.root), set_name, (), tuple(ids), labels, source, self.skipped, subjects)
        if columns.several:
            return _marked(dataset, [cell or () for cell in values], columns.names)
        classes, labels = _labels(ids, values, columns.names)
        return replace(dataset, classes=classes, labels=labels)

    def _subjects(self, ids: list[str], groups: list[Any]) -> NDArray[np.int64] | None:
        if not groups:
            return None
        if len(groups) < len(ids) or any(group is None for group in groups):
            raise VerydeepError(f"{self.root}: an image has no {self.group_by}, and --group-by needs one for each.")
        return np.array([self.numbers.setdefault(str(group), len(self.numbers)) for group in groups], dtype=np.int64)


def _marked(dataset: Dataset, cells: Sequence[Sequence[Any]], names: tuple[str, ...] | None) -> Dataset:
    """The set with several labels per image; raises VerydeepError for one that is out of range."""
    owners = [image for image, cell in zip(dataset.ids, cells, strict=True) for _ in cell]
    classes, labels = _labels(owners, [label for cell in cells for label in cell], names)
    if (labels < 0).any():
        raise VerydeepError(f"{owners[int(labels.argmin())]} has a label in its list that is none: remove it.")
    marks = np.full((len(cells), len(classes)), -1, dtype=np.int8)
    marks[np.repeat(np.arange(len(cells)), [len(cell) for cell in cells]), labels] = 1
    return replace(dataset, classes=classes, marks=marks)


def _labels(
    ids: list[str], values: list[Any], names: tuple[str, ...] | None
) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """The classes, and the label of each image, all -1 without labels; VerydeepError: one is wrong or missing."""
    if names is None:
        texts = ["" if value in (None, -1) else str(value).strip() for value in values]
        classes, numbers = numbered([text for text in texts if text])
        labels = np.full(len(values), -1, dtype=np.int64)
        labels[[bool(text) for text in texts]] = numbers
    else:
        classes = distinct(names)
        wrong = next((n for n, value in enumerate(values) if not -1 <= (value or 0) < max(1, len(classes))), None)
        if wrong is not None:
            raise VerydeepError(f"{ids[wrong]} has the label {values[wrong]}; there are {len(classes)} class names.")
        labels = np.array([-1 if value is None else value for value in values], dtype=np.int64)
    if (labels < 0).any() and (labels >= 0).any():
        raise VerydeepError(f"{ids[int(labels.argmin())]} has no label, but others have: add it, or remove the row.")
    return classes or (UNKNOWN,), labels


def _columns(path: Path, schema: Any) -> _Columns:
    """The columns of a file; raises VerydeepError if one is missing or ambiguous."""
    import pyarrow

    images = [field.name for field in schema if _is_image(field.type)]
    if not images:
        raise VerydeepError(
            f"{path} has no column of images, as structs of bytes and path: its columns are {', '.join(schema.names)}."
        )
    described = json.loads((schema.metadata or {}).get(METADATA, b"{}")).get("info", {}).get("features", {})
    lists = [field.name for field in schema if pyarrow.types.is_list(field.type)]
    kinds = {field.name: field.type.value_type if field.name in lists else field.type for field in schema}
    labels = [name for name, kind in kinds.items() if _is_label(kind)]
    numbers = [name for name in labels if pyarrow.types.is_integer(kinds[name])]
    named = {name: _class_label(described.get(name, {})) for name in numbers}
    label = _only(path, [name for name in numbers if named[name]] or _called(labels, LABEL), LABEL, "class")
    names = named.get(label or "")
    check_text(*schema.names, *(names or ()))
    return _Columns(_only(path, images, IMAGE, "image") or "", label, names, label in lists)


def _class_label(feature: dict[str, Any]) -> tuple[str, ...] | None:
    """The names of a feature that is a ``ClassLabel``, or a list of them."""
    feature = feature.get("feature", feature)
    return tuple(map(str, feature["names"])) if feature.get("_type") == "ClassLabel" else None


def _is_label(kind: Any) -> bool:
    import pyarrow

    types = pyarrow.types
    kind = kind.value_type if types.is_dictionary(kind) else kind
    return bool(types.is_integer(kind) or types.is_string(kind) or types.is_large_string(kind))


def _is_image(kind: Any) -> bool:
    import pyarrow

    binary = pyarrow.types.is_struct(kind) and kind.get_field_index("bytes") >= 0
    return bool(binary or pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind))


def _called(columns: Sequence[str], names: Names) -> list[str]:
    """The columns of some names, the preferred ones if there are any."""
    found = [[column for column in columns if column_key(column) in several] for several in names]
    return next(filter(None, found), [])


def _only(path: Path, columns: list[str], names: Names, kind: str) -> str | None:
    """The only column, or else the only one of the usual names; None without columns."""
    chosen = columns if len(columns) <= 1 else _called(columns, names)
    if len(chosen) > 1 or (columns and not chosen):
        raise VerydeepError(
            f"{path}: each of the columns {', '.join(chosen or columns)} may be the {kind}: keep one "
            "(`remove_columns` of datasets)."
        )
    return chosen[0] if chosen else None


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except VerydeepError:
        raise
    except Exception as fault:  # pyarrow raises many types for untrusted bytes
        raise VerydeepError(f"cannot read {path} ({first_line(fault)}): write or download it again.") from None


class _Kept:
    """The row groups that were read last, up to `MOST_KEPT` bytes, and one at least."""

    def __init__(self) -> None:
        self._parts: OrderedDict[tuple[str, int], Any] = OrderedDict()

    def get(self, key: tuple[str, int], read: Callable[[], Any]) -> Any:
        """A row group, which is read if it is not kept."""
        if key not in self._parts:
            self._parts[key] = read()
            while len(self._parts) > 1 and sum(part.nbytes for part in self._parts.values()) > MOST_KEPT:
                self._parts.popitem(last=False)
        self._parts.move_to_end(key)
        return self._parts[key]


class _ParquetFile:
    """A parquet file."""

    def __init__(self, path: Path) -> None:
        import pyarrow.parquet

        with utf8_path(path) as place:
            self._file, self._name = pyarrow.parquet.ParquetFile(place), str(path)
        metadata = self._file.metadata
        sizes = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
        self._starts, self.schema = np.cumsum([0, *sizes]), self._file.schema_arrow
        self.rows = int(self._starts[-1])

    def column(self, name: str) -> list[Any]:
        """All cells of a column."""
        return list(self._file.read([name], use_threads=False).column(name).to_pylist())

    def cell(self, name: str, row: int, kept: _Kept) -> Any:
        """One cell."""
        group = int(np.searchsorted(self._starts, row, side="right")) - 1

        def read() -> Any:
            return self._file.read_row_group(group, [name], use_threads=False).column(name)

        return kept.get((self._name, group), read)[row - int(self._starts[group])].as_py()


class _ArrowFile:
    """A file of Arrow's stream format, mapped into memory."""

    def __init__(self, path: Path) -> None:
        import pyarrow

        with utf8_path(path) as place:
            self._table = pyarrow.ipc.open_stream(pyarrow.memory_map(str(place))).read_all()
        self._table.validate(full=True)  # offsets of a stranger's file may lead out of it
        self.schema, self.rows = self._table.schema, self._table.num_rows

    def column(self, name: str) -> list[Any]:
        """All cells of a column."""
        return list(self._table.column(name).to_pylist())

    def cell(self, name: str, row: int, kept: _Kept) -> Any:
        """One cell."""
        return self._table.column(name)[row].as_py()


def _open(path: Path) -> _ParquetFile | _ArrowFile:
    return _ParquetFile(path) if path.suffix.lower() == PARQUET else _ArrowFile(path)


def _cells(file: _ParquetFile | _ArrowFile, name: str) -> list[Any]:
    """All cells of a column; raises ValueError if they are not as many as the file declares."""
    cells = file.column(name)
    if len(cells) != file.rows:
        raise ValueError(f"column {name} has {len(cells)} of {file.rows} rows")
    return cells


class TableReader(ImageSource):
    """Reads images by their ids, ``FILE/ROW``; each process opens the files once."""

    def __init__(self, root: Path, column: str) -> None:
        self._root, self._column = root, column
        self._files: dict[str, _ParquetFile | _ArrowFile] = {}
        self._kept = _Kept()

    def __reduce__(self) -> Any:
        return TableReader, (self._root, self._column)

    def read(self, image_id: str) -> Pixels:
        """uint8 RGB (H,W,3); raises ImageError."""
        return decode(self.encoded(image_id), str(self._root / image_id))

    def encoded(self, image_id: str) -> bytes:
        """The image's bytes; raises ImageError if its file cannot be read, or has none."""
        file, _, row = image_id.rpartition("/")
        try:
            cell = self._opened(file).cell(self._column, int(row), self._kept)
            data, path = (cell.get("bytes"), cell.get("path")) if isinstance(cell, dict) else (cell, None)
        except Exception as fault:  # pyarrow raises many types for untrusted bytes
            raise ImageError(f"cannot read {self._root / image_id} ({first_line(fault)}).") from None
        if data is None and path:
            return read_bytes(self._root / path)
        if not isinstance(data, bytes):
            raise ImageError(f"{self._root / image_id} has no image: remove the row.")
        return data

    def files(self, image_id: str) -> list[Path]:
        """The file that contains the image."""
        return [self._root / image_id.rpartition("/")[0]]

    @property
    def root(self) -> Path:
        """The folder that ids are relative to."""
        return self._root

    def _opened(self, file: str) -> _ParquetFile | _ArrowFile:
        if file not in self._files:
            if len(self._files) >= MOST_OPEN:
                del self._files[next(iter(self._files))]
            self._files[file] = _open(self._root / file)
        return self._files[file]
