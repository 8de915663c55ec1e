"""Photos on disk: a folder per class, the same below ``train/`` and ``val/``, or a list file.

Candidates are found by their extension, in capitals or not; their content decides the format when
they are read. Other files, and all that is hidden (``.ipynb_checkpoints``), are ignored and counted.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import numpy as np

from ..class_names import numbered, one_spelling
from ..config import DEV_FRACTION, DataSettings, dev_share
from ..errors import VerydeepError
from .sets import Data, Dataset, PhotoReader, relabel, split
from .tables import CLASS, ENDINGS, IMAGE, Columns, read_table

EXTENSIONS = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".bmp", ".gif"),
    *(".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm"),
)
LISTED = Columns(
    names={"image": IMAGE, "class": CLASS, "set": (("set", "split"), ())},
    usual=("path", "label", "set"),
    least=2,
    is_row=bool,
    optional=("set",),
)
SET_FOLDERS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}
SET_WORDS = {word: name for name, words in SET_FOLDERS.items() for word in words}


def open_path(path: Path, settings: DataSettings) -> Data:
    """A folder or a list file as sets.

    Raises:
        VerydeepError: as `verydeep.data.open_data`.
    """
    if path.is_file() and path.suffix.lower() in ENDINGS:
        return _from_rows(path, settings)
    if not path.is_dir():
        what = "is not a folder, .csv, .tsv or .jsonl file" if path.exists() else "does not exist"
        raise VerydeepError(
            f"data {path} {what}: give a folder with a folder per class, a list file of path,label, "
            "or a name (digits, imagenet:DIR, caltech101:DIR, caltech256:DIR)."
        )
    found = {name: _first_folder(path, aliases) for name, aliases in SET_FOLDERS.items()}
    given = {name: folder for name, folder in found.items() if folder is not None}
    if "train" in given and len(given) > 1:
        return from_sets(str(path), {name: class_folders(path, folder) for name, folder in given.items()}, settings)
    if "train" in given:
        raise VerydeepError(f"{path} has train/ but no val/ or test/ beside it: give {path / 'train'}, or add one.")
    return split_whole(class_folders(path, path), settings)


def _first_folder(path: Path, aliases: tuple[str, ...]) -> Path | None:
    return next((path / name for name in aliases if (path / name).is_dir()), None)


def split_whole(whole: Dataset, settings: DataSettings) -> Data:
    """Data that did not come split: dev and test parts drawn by fraction and seed."""
    shares: dict[str, float | int] = {"dev": dev_share(settings, DEV_FRACTION), "test": settings.test_fraction}
    return Data(whole.name, split(whole, shares, settings.split_seed), split_by_us=True)


def from_sets(name: str, sets: dict[str, Dataset], settings: DataSettings) -> Data:
    """Data that came split. ``val`` decides where there is a ``test``; else a part of ``train`` does."""
    classes = sets["train"].classes
    sets = {key: relabel(found, classes, strict=True) for key, found in sets.items()}
    if "test" in sets and "val" in sets:
        sets = {"train": sets["train"], "dev": sets["val"].take(np.arange(len(sets["val"])), "dev"), **sets}
        del sets["val"]
    else:
        sets = {
            **split(sets["train"], {"dev": dev_share(settings, DEV_FRACTION)}, settings.split_seed),
            **sets_but_train(sets),
        }
    return Data(name, sets, split_by_us=False)


def sets_but_train(sets: dict[str, Dataset]) -> dict[str, Dataset]:
    """The sets that are not ``train``."""
    return {key: found for key, found in sets.items() if key != "train"}


def class_folders(top: Path, folder: Path) -> Dataset:
    """One set from a folder that holds a folder per class; ids are paths below ``top``.

    Raises:
        VerydeepError: no class folder, a class without photos.
    """
    entries = sorted(os.listdir(folder))
    names = [name for name in entries if (folder / name).is_dir() and not name.startswith(".")]
    ignored = len(entries) - len(names)
    ids: list[str] = []
    labels: list[str] = []
    for name in names:
        photos, others = photos_below(folder / name)
        ignored += others
        if not photos:
            raise VerydeepError(
                f"class {name!r} in {folder} has no photos: add some ({', '.join(EXTENSIONS[:6])}, …) "
                "or remove its folder."
            )
        ids.extend(str(photo.relative_to(top)) for photo in photos)
        labels.extend([name] * len(photos))
    if not names:
        raise VerydeepError(f"{folder} holds no class folders: put the photos of each class in a folder of its own.")
    classes, numbers = numbered(labels)
    return Dataset(str(top), folder.name, classes, tuple(ids), numbers, PhotoReader(top), ignored)


def photos_below(folder: Path) -> tuple[list[Path], int]:
    """Files with a photo's extension below a folder, sorted, and how many others there are.

    What is hidden counts as one other, and so does a link to a folder, which is not followed: it may lead in a circle.

    Raises:
        VerydeepError: a folder cannot be read.
    """
    photos, others = [], 0
    for place, folders, names in os.walk(folder, onerror=_cannot_read):
        inside = sorted(name for name in folders if not name.startswith(".") and not (Path(place) / name).is_symlink())
        others += len(folders) - len(inside)
        folders[:] = inside
        for name in names:
            if is_candidate(name):
                photos.append(Path(place) / name)
            else:
                others += 1
    return sorted(photos), others


def _cannot_read(fault: OSError) -> NoReturn:
    raise VerydeepError(
        f"cannot read the folder {fault.filename}: {fault.strerror}; make it readable, or move it elsewhere."
    ) from None


def is_candidate(name: str) -> bool:
    """Whether a file's name is that of a photo: a known extension, and not hidden."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in EXTENSIONS


def _from_rows(path: Path, settings: DataSettings) -> Data:
    """A list file of photos and their classes and, if wanted, each photo's set."""
    rows = _listed(path)
    if not rows:
        raise VerydeepError(f"{path} lists no photos: give one path,label a line.")
    by_path: dict[str, tuple[str, str]] = {}
    for photo, *meant in rows:
        before = by_path.setdefault(photo, (meant[0], meant[1]))
        if before != tuple(meant):
            one, other = (" in ".join(filter(None, pair)) for pair in (before, meant))
            raise VerydeepError(f"{path} names {photo} twice, as {one!r} and as {other!r}: keep one.")
    sets = {}
    for set_name in sorted({given for _, _, given in rows}):
        mine = sorted({(photo, label) for photo, label, given in rows if given == set_name})
        classes, labels = numbered([label for _, label in mine])  # of this set: `from_sets` counts in those of train
        ids = tuple(photo for photo, _ in mine)
        sets[set_name] = Dataset(str(path), set_name, classes, ids, labels, PhotoReader(path.parent))
    if set(sets) == {""}:
        return split_whole(sets[""], settings)
    if "train" not in sets or not set(sets) <= set(SET_FOLDERS) or len(sets) < 2:
        raise VerydeepError(f"{path}: the set of each photo is train, val or test, train included.")
    return from_sets(str(path), sets, settings)


def _listed(path: Path) -> list[tuple[str, str, str]]:
    """The path, class and set of each row; where no column is called so, one of nothing but sets' names is the set."""
    folder = path.parent
    rows = read_table(path, replace(LISTED, is_row=lambda cells: _names_photo(folder, cells[0])))
    for row in rows[:1]:
        if _names_photo(folder, row.cells["class"]) and not _names_photo(folder, row.cells["image"]):
            shown = f"the image {row.cells['image']!r} and the class {row.cells['class']!r}"
            raise VerydeepError(f"{path}, line {row.line}: {shown} may be swapped: give path,label, or a header.")
    given = [_set_of(row.cells.get("set", "")) for row in rows]
    if not any("set" in row.cells for row in rows):
        names = sorted({name for row in rows for name in row.others})
        others = {name: [_set_of(row.others.get(name, "")) for row in rows] for name in names}
        told = [name for name, words in others.items() if "train" in words and {"train"} < {*words} <= set(SET_FOLDERS)]
        if len(told) > 1:
            raise VerydeepError(f"{path}: each of the columns {', '.join(told)} may be the photos' sets: keep one.")
        given = others[told[0]] if told else given
    if set(given) == {"train"}:  # the others' photos are in another list
        given = [""] * len(rows)
    photos = [_local(folder, row.cells["image"]) for row in rows]
    called = one_spelling(row.cells["class"] for row in rows)
    classes = [called[row.cells["class"]] for row in rows]
    return list(zip(map(os.path.normpath, photos), classes, given, strict=True))


def _set_of(text: str) -> str:
    """The set that a word stands for; the word where it stands for none."""
    return SET_WORDS.get(text.strip().casefold(), text)


def _local(folder: Path, photo: str) -> str:
    """A path as this system writes it: one with backslashes is Windows's, unless there is such a file."""
    return photo if "\\" not in photo or os.path.exists(folder / photo) else photo.replace("\\", "/")


def _names_photo(folder: Path, cell: str) -> bool:
    """Whether a cell is the path of a photo: it ends as photos do, or there is such a file."""
    ending = cell.lower().endswith(EXTENSIONS) and not cell.startswith("#")
    return ending or os.path.isfile(folder / cell)
