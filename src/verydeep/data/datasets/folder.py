"""Image files: a folder per class, the same below ``train/`` and ``val/``, or a list file.

Images are found by their extension, in any case; the content decides the format. Other files are counted
(`verydeep.data.walk`).
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ...core.errors import VerydeepError
from ...core.settings import DEV_FRACTION, DataSettings, dev_share
from ..class_names import numbered, one_spelling
from ..dataset import Data, Dataset, FolderSource, marks_of, relabel, split
from ..groups import described_split, group_notes, with_groups
from ..image_formats import EXTENSIONS, READ, kind_of_file
from ..layout import SET_OF, read_layout
from ..tables import CLASS, ENDINGS, IMAGE, SEVERAL, Columns, Row, read_table
from ..walk import Skipped, extension_of, files_below, list_folder, unread_sentences

OUTSIDE = "images outside the class folders"
LISTED = Columns(
    names={"image": IMAGE, "class": (*CLASS, SEVERAL), "set": (("set", "split"), ())},
    usual=("path", "label", "set"),
    least=2,
    is_row=bool,
    optional=("set",),
    several=("class",),
)
SETS = ("train", "val", "test")
METADATA = ("metadata.csv", "metadata.jsonl")  # lists in Hugging Face's image folders


def open_path(path: Path, settings: DataSettings) -> Data:
    """The sets of a folder or a list file; raises VerydeepError as `verydeep.data.open.open_data`."""
    if path.is_file() and path.suffix.lower() in ENDINGS:
        return _from_rows(path, settings)
    if not path.is_dir():
        what = "is not a folder, .csv, .tsv or .jsonl file" if path.exists() else "does not exist"
        raise VerydeepError(
            f"data {path} {what}: use a folder with a folder per class, a list file of path,label, "
            "or a name (digits, imagenet:DIR, caltech101:DIR, caltech256:DIR, hf:DIR)."
        )
    beside = Skipped(str(path))
    layout = read_layout(path, settings.folders, beside)
    notes = (f"{path}: {layout.note}",) if layout.note else ()
    if not layout.sets:
        return replace(split_whole(class_folders(path, path), settings), notes=notes)
    _count_outside(path, list_folder(path, beside).files, beside)
    sets = {name: class_folders(path, folder) for name, folder in layout.sets.items()}
    places = {name: f"{folder.name}/" for name, folder in layout.sets.items()}
    opened = from_sets(str(path), sets, settings, places)
    return replace(opened, notes=(*notes, *opened.notes), beside=beside)


def is_flat(path: Path) -> bool:
    """Whether a path is a folder that has images and no folders."""
    if not path.is_dir():
        return False
    listing = list_folder(path, Skipped())
    return not listing.folders and any(kind_of_file(path / name) == READ for name in listing.files)


def flat_folder(path: Path) -> Data:
    """The images of a folder without class folders, which have no label."""
    skipped = Skipped(str(path))
    ids = tuple(str(image.relative_to(path)) for image in files_below(path, skipped))
    labels = np.full(len(ids), -1, dtype=np.int64)
    return Data(str(path), {"all": Dataset(str(path), "all", (), ids, labels, FolderSource(path), skipped)}, True)


def split_whole(whole: Dataset, settings: DataSettings) -> Data:
    """Splits data that have no split of their own, by fraction and seed."""
    dev, test, seed = dev_share(settings, DEV_FRACTION), settings.test_fraction, settings.split_seed
    whole = with_groups({"all": whole}, settings.group_by)["all"]
    sets = split(whole, {"dev": dev, "test": test}, seed)
    grouped = described_split(whole, settings.group_by)
    description = f"{100 * dev:g} % dev and {100 * test:g} % test of each class{grouped}, drawn by seed {seed}"
    return Data(whole.name, sets, split_by_us=True, split=description)


def from_sets(
    name: str, sets: dict[str, Dataset], settings: DataSettings, places: dict[str, str] | None = None
) -> Data:
    """Data with a split of their own. ``val`` becomes ``dev`` if there is a ``test``; else a part of ``train`` does.

    Args:
        places: the folder of each set, for messages.
    """
    sets = with_groups(sets, settings.group_by)
    train = sets["train"]
    sets = {key: relabel(dataset, train.classes, strict=True) for key, dataset in sets.items()}
    notes = group_notes(train, {key: dataset for key, dataset in sets.items() if key != "train"}, settings.group_by)
    val_is_dev = "test" in sets and "val" in sets
    roles = {key: "dev" if key == "val" and val_is_dev else key for key in sets}
    description = ", ".join(f"{(places or {}).get(key, key)} is {role}" for key, role in roles.items())
    if val_is_dev:
        val = sets.pop("val")
        sets = {"train": sets.pop("train"), "dev": val.take(np.arange(len(val)), "dev"), **sets}
    else:
        share = dev_share(settings, DEV_FRACTION)
        sets = {**split(sets.pop("train"), {"dev": share}, settings.split_seed), **sets}
        description += f", {100 * share:g} % of train is dev{described_split(train, settings.group_by)}"
    return Data(name, sets, split_by_us=False, split=description, notes=notes)


def class_folders(top: Path, folder: Path) -> Dataset:
    """One set from a folder with a folder per class; ids are relative to ``top``.

    Raises:
        VerydeepError: no class folder, a class without images, a folder that cannot be read.
    """
    skipped = Skipped(str(folder))
    listing = list_folder(folder, skipped)
    if not listing.folders:
        lists = [name for name in METADATA if name in listing.files]
        hint = f", or use its list as data: {folder / lists[0]}" if lists else ""
        raise VerydeepError(
            f"{folder} has no class folders: put the images of each class in a folder of their own{hint}."
        )
    _count_outside(folder, listing.files, skipped)
    ids: list[str] = []
    labels: list[str] = []
    for name in listing.folders:
        in_class = Skipped(str(folder))
        images = files_below(folder / name, in_class)
        if not images:
            raise VerydeepError(_no_images(folder, name, in_class))
        skipped.add(in_class)
        ids.extend(str(image.relative_to(top)) for image in images)
        labels.extend([name] * len(images))
    classes, numbers = numbered(labels)
    return Dataset(str(top), folder.name, classes, tuple(ids), numbers, FolderSource(top), skipped)


def _count_outside(folder: Path, names: list[str], skipped: Skipped) -> None:
    """Counts the files beside class folders or sets."""
    for name in names:
        kind = kind_of_file(folder / name)
        skipped.note(OUTSIDE if kind == READ else kind or extension_of(name), folder / name)


def _no_images(folder: Path, name: str, skipped: Skipped) -> str:
    """The message for a class without images."""
    if skipped.unread:
        return f"class {name!r} in {folder} has no supported images: {' '.join(unread_sentences(skipped))}"
    return f"class {name!r} in {folder} has no images: add some ({', '.join(EXTENSIONS[:6])}, …) or remove its folder."


def _from_rows(path: Path, settings: DataSettings) -> Data:
    """A list file of images, their classes and, optionally, their sets."""
    entries, groups = _listed(path, settings.group_by)
    if not entries:
        raise VerydeepError(f"{path} lists no images: write one per line, as path,label.")
    several = any(len(entry.classes) > 1 for entry in entries.values())
    all_classes = tuple(sorted({name for entry in entries.values() for name in entry.classes}))
    sets = {}
    for set_name in sorted({entry.set_name for entry in entries.values()}):
        ids = tuple(sorted(image for image, entry in entries.items() if entry.set_name == set_name))
        names = [entries[image].classes for image in ids]
        subjects = np.array([groups[image] for image in ids], dtype=np.int64) if groups else None
        labels, source = np.full(len(ids), -1, dtype=np.int64), FolderSource(path.parent)
        dataset = Dataset(str(path), set_name, all_classes, ids, labels, source, subjects=subjects)
        if several:
            sets[set_name] = replace(dataset, marks=marks_of(names, all_classes))
        else:
            classes, labels = numbered([name for (name,) in names])  # of this set; `from_sets` relabels it
            sets[set_name] = replace(dataset, classes=classes, labels=labels)
    if set(sets) == {""}:
        return split_whole(sets[""], settings)
    if "train" not in sets or not set(sets) <= set(SETS) or len(sets) < 2:
        raise VerydeepError(f"{path}: the set of each image must be train, val or test, and train must be among them.")
    return from_sets(str(path), sets, settings)


class _Entry(NamedTuple):
    """The classes of an image, sorted, and its set."""

    classes: tuple[str, ...]
    set_name: str

    def __str__(self) -> str:
        return " in ".join(filter(None, ("|".join(self.classes), self.set_name)))


def _listed(path: Path, group_by: str | None) -> tuple[dict[str, _Entry], dict[str, int]]:
    """The images with their entries, and with their groups; empty without a column of that name.

    Without a set column, one that contains only names of sets is used.
    """
    folder = path.parent
    rows = read_table(path, replace(LISTED, is_row=lambda cells: _names_image(folder, cells[0])))
    for row in rows[:1]:
        if _names_image(folder, row.cells["class"]) and not _names_image(folder, row.cells["image"]):
            shown = f"the image {row.cells['image']!r} and the class {row.cells['class']!r}"
            raise VerydeepError(
                f"{path}, line {row.line}: {shown} may be swapped: write them as path,label, or add a "
                "header that names the columns."
            )
    sets = [_set_of(row.cells.get("set", "")) for row in rows]
    if not any("set" in row.cells for row in rows):
        names = sorted({name for row in rows for name in row.others})
        others = {name: [_set_of(row.others.get(name, "")) for row in rows] for name in names}
        likely = [name for name, words in others.items() if "train" in words and {"train"} < {*words} <= set(SETS)]
        if len(likely) > 1:
            raise VerydeepError(f"{path}: each of the columns {', '.join(likely)} may be the images' sets: keep one.")
        sets = others[likely[0]] if likely else sets
    if set(sets) == {"train"}:  # the other sets are in other lists
        sets = [""] * len(rows)
    images = [_local(folder, row.cells["image"]) for row in rows]
    classes = _classes(path, rows)
    paths = list(map(os.path.normpath, images))
    entries: dict[str, _Entry] = {}
    for image, entry in zip(paths, map(_Entry, classes, sets), strict=True):
        earlier = entries.setdefault(image, entry)
        if earlier != entry:
            raise VerydeepError(f"{path} lists {image} twice, as {str(earlier)!r} and as {str(entry)!r}: keep one.")
    return entries, _groups(path, paths, rows, group_by)


def _classes(path: Path, rows: list[Row]) -> list[tuple[str, ...]]:
    """The classes of each row: one, or any number in a list where an image has several."""
    names = [row.several.get("class", (row.cells["class"],)) for row in rows]
    if max(map(len, names), default=0) < 2 and () in names:
        raise VerydeepError(f'{path}, line {rows[names.index(())].line}: the class is "": use a name or an integer.')
    spelling = one_spelling(name for several in names for name in several)
    return [tuple(sorted(spelling[name] for name in several)) for several in names]


def _groups(path: Path, images: list[str], rows: list[Row], column: str | None) -> dict[str, int]:
    """The number of each image's group, from a column; empty if no row has it. VerydeepError: a row without a group."""
    if not any(column in row.others for row in rows):
        return {}
    numbers: dict[str, int] = {}
    groups: dict[str, int] = {}
    for image, row in zip(images, rows, strict=True):
        name = row.others.get(column or "", "").strip()
        number = numbers.setdefault(name, len(numbers))
        if not name or groups.setdefault(image, number) != number:
            what = f"{image} has another {column} before" if name else f"the {column} is empty"
            raise VerydeepError(f"{path}, line {row.line}: {what}, and --group-by needs one for each image.")
    return groups


def _set_of(text: str) -> str:
    """The set that a word means, or else the word."""
    return SET_OF.get(text.strip().casefold(), text)


def _local(folder: Path, image: str) -> str:
    """A path with slashes for backslashes, as Windows writes them, unless there is a file of that name."""
    return image if "\\" not in image or os.path.exists(folder / image) else image.replace("\\", "/")


def _names_image(folder: Path, cell: str) -> bool:
    """Whether a cell is the path of an image: it has the extension of one, or the file exists."""
    extension = cell.lower().endswith(EXTENSIONS) and not cell.startswith("#")
    return extension or os.path.isfile(folder / cell)
