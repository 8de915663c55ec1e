"""Photos on disk: a folder per class, the same below ``train/`` and ``val/``, or a list file.

Photos are found by their extension, in capitals or not; their content decides the format when they are read. What is
not read is counted (`verydeep.data.walk`).
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np

from ...core.errors import VerydeepError
from ...core.settings import DEV_FRACTION, DataSettings, dev_share
from ..class_names import numbered, one_spelling
from ..dataset import Data, Dataset, FolderSource, relabel, split
from ..image_formats import EXTENSIONS, READ, kind_of_file
from ..layout import SET_OF, read_layout
from ..tables import CLASS, ENDINGS, IMAGE, Columns, read_table
from ..walk import Skipped, extension_of, files_below, list_folder, unread_sentences

OUTSIDE = "photos outside the class folders"
LISTED = Columns(
    names={"image": IMAGE, "class": CLASS, "set": (("set", "split"), ())},
    usual=("path", "label", "set"),
    least=2,
    is_row=bool,
    optional=("set",),
)
SETS = ("train", "val", "test")


def open_path(path: Path, settings: DataSettings) -> Data:
    """A folder or a list file as sets.

    Raises:
        VerydeepError: as `verydeep.data.open.open_data`.
    """
    if path.is_file() and path.suffix.lower() in ENDINGS:
        return _from_rows(path, settings)
    if not path.is_dir():
        what = "is not a folder, .csv, .tsv or .jsonl file" if path.exists() else "does not exist"
        raise VerydeepError(
            f"data {path} {what}: give a folder with a folder per class, a list file of path,label, "
            "or a name (digits, imagenet:DIR, caltech101:DIR, caltech256:DIR)."
        )
    beside = Skipped(str(path))
    layout = read_layout(path, settings.folders, beside)
    notes = (f"{path}: {layout.note}",) if layout.note else ()
    if not layout.sets:
        return replace(split_whole(class_folders(path, path), settings), notes=notes)
    _note_files(path, list_folder(path, beside).files, beside)
    sets = {name: class_folders(path, folder) for name, folder in layout.sets.items()}
    places = {name: f"{folder.name}/" for name, folder in layout.sets.items()}
    return replace(from_sets(str(path), sets, settings, places), notes=notes, beside=beside)


def split_whole(whole: Dataset, settings: DataSettings) -> Data:
    """Data that did not come split: dev and test parts drawn by fraction and seed."""
    dev, test, seed = dev_share(settings, DEV_FRACTION), settings.test_fraction, settings.split_seed
    sets = split(whole, {"dev": dev, "test": test}, seed)
    told = f"{100 * dev:g} % dev and {100 * test:g} % test of each class, drawn by seed {seed}"
    return Data(whole.name, sets, split_by_us=True, split=told)


def from_sets(
    name: str, sets: dict[str, Dataset], settings: DataSettings, places: dict[str, str] | None = None
) -> Data:
    """Data that came split. ``val`` decides where there is a ``test``; else a part of ``train`` does.

    Args:
        places: what each set is called where it lies.
    """
    classes = sets["train"].classes
    sets = {key: relabel(found, classes, strict=True) for key, found in sets.items()}
    decides = "test" in sets and "val" in sets
    told = ", ".join(f"{(places or {}).get(key, key)} is {'dev' if key == 'val' and decides else key}" for key in sets)
    if decides:
        sets = {"train": sets["train"], "dev": sets["val"].take(np.arange(len(sets["val"])), "dev"), **sets}
        del sets["val"]
    else:
        share = dev_share(settings, DEV_FRACTION)
        sets = {**split(sets["train"], {"dev": share}, settings.split_seed), **sets_but_train(sets)}
        told += f", {100 * share:g} % of train is dev"
    return Data(name, sets, split_by_us=False, split=told)


def sets_but_train(sets: dict[str, Dataset]) -> dict[str, Dataset]:
    """The sets that are not ``train``."""
    return {key: found for key, found in sets.items() if key != "train"}


def class_folders(top: Path, folder: Path) -> Dataset:
    """One set from a folder that holds a folder per class; ids are paths below ``top``.

    Raises:
        VerydeepError: no class folder, a class without photos, a folder that cannot be read.
    """
    skipped = Skipped(str(folder))
    here = list_folder(folder, skipped)
    _note_files(folder, here.files, skipped)
    ids: list[str] = []
    labels: list[str] = []
    for name in here.folders:
        inside = Skipped(str(folder))
        photos = files_below(folder / name, inside)
        if not photos:
            raise VerydeepError(_no_photos(folder, name, inside))
        skipped.add(inside)
        ids.extend(str(photo.relative_to(top)) for photo in photos)
        labels.extend([name] * len(photos))
    if not here.folders:
        raise VerydeepError(f"{folder} holds no class folders: put the photos of each class in a folder of its own.")
    classes, numbers = numbered(labels)
    return Dataset(str(top), folder.name, classes, tuple(ids), numbers, FolderSource(top), skipped)


def _note_files(folder: Path, names: list[str], skipped: Skipped) -> None:
    """Counts files that lie beside class folders or sets."""
    for name in names:
        kind = kind_of_file(folder / name)
        skipped.note(OUTSIDE if kind == READ else kind or extension_of(name), folder / name)


def _no_photos(folder: Path, name: str, inside: Skipped) -> str:
    """The sentence for a class without a photo that is read."""
    if inside.unread:
        return f"class {name!r} in {folder} has no photos that are read: {' '.join(unread_sentences(inside))}"
    return f"class {name!r} in {folder} has no photos: add some ({', '.join(EXTENSIONS[:6])}, …) or remove its folder."


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
        sets[set_name] = Dataset(str(path), set_name, classes, ids, labels, FolderSource(path.parent))
    if set(sets) == {""}:
        return split_whole(sets[""], settings)
    if "train" not in sets or not set(sets) <= set(SETS) or len(sets) < 2:
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
        told = [name for name, words in others.items() if "train" in words and {"train"} < {*words} <= set(SETS)]
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
    return SET_OF.get(text.strip().casefold(), text)


def _local(folder: Path, photo: str) -> str:
    """A path as this system writes it: one with backslashes is Windows's, unless there is such a file."""
    return photo if "\\" not in photo or os.path.exists(folder / photo) else photo.replace("\\", "/")


def _names_photo(folder: Path, cell: str) -> bool:
    """Whether a cell is the path of a photo: it ends as photos do, or there is such a file."""
    ending = cell.lower().endswith(EXTENSIONS) and not cell.startswith("#")
    return ending or os.path.isfile(folder / cell)
