"""ILSVRC-2012 as downloaded: synset folders, the validation photos with their ground truth, names.

Classes are in the order of sorted WNIDs, the order of all released weights; a class is called as in
``synset_words.txt``, WNID first. The devkit's ILSVRC2012_ID is another order and is only read to
translate the ground truth. Sets: ``train`` and ``dev`` (10 training photos a class unless a fraction
is given), ``val``, which is reported, and ``test`` where its folder is there, whose classes only the
server knows. Without the training photos there are no ``train`` and ``dev``, and testing works; photos in synset
folders without a folder of their set around them are ``val``. A part of the photos, or of the classes, is enough.
"""

from __future__ import annotations

import contextlib
import csv
import re
from pathlib import Path

import numpy as np

from ...core.errors import VerydeepError
from ...core.matlab import read_mat
from ...core.settings import DataSettings
from ..annotations import XmlBoxes
from ..class_names import read_names
from ..dataset import Data, Dataset, FolderSource, relabel, split
from ..walk import Skipped, files_below, list_folder, photos_in
from .folder import class_folders

NAMES = ("imagenet",)

TRAIN_FOLDERS = ("train", "ILSVRC2012_img_train", "ILSVRC/Data/CLS-LOC/train", "Data/CLS-LOC/train")
VAL_FOLDERS = ("val", "ILSVRC2012_img_val", "ILSVRC/Data/CLS-LOC/val", "Data/CLS-LOC/val")
TEST_FOLDERS = ("test", "ILSVRC2012_img_test", "ILSVRC/Data/CLS-LOC/test", "Data/CLS-LOC/test")
# The boxes' archives as they unpack, and the later layout of all of ILSVRC.
BOX_FOLDERS = {
    "train": (
        *("ILSVRC2012_bbox_train_v2", "bbox_train"),
        *("ILSVRC/Annotations/CLS-LOC/train", "Annotations/CLS-LOC/train"),
    ),
    "val": (
        *("ILSVRC2012_bbox_val_v3/val", "ILSVRC2012_bbox_val_v3", "bbox_val/val", "bbox_val"),
        *("ILSVRC/Annotations/CLS-LOC/val", "Annotations/CLS-LOC/val", "val"),
    ),
}
BLACKLIST = "ILSVRC2014_clsloc_validation_blacklist.txt"
DEV_PHOTOS_A_CLASS = 10
_WNID = re.compile(r"n\d{8}")


def open_named(name: str, root: Path | None, settings: DataSettings) -> Data:
    """ILSVRC-2012 below a folder.

    Raises:
        VerydeepError: a folder or the ground truth is missing, or its length is not that of the photos.
    """
    assert root is not None
    train = _train(root)
    val_folder = root if train is None and _synsets(root) and not _has_val(root) else _find(root, VAL_FOLDERS)
    if list_folder(val_folder, Skipped()).folders:
        val = _synset_folders(root) if val_folder == root else class_folders(root, val_folder)
        wnids = train.classes if train else val.classes
        val = relabel(val, wnids, strict=True)
    else:
        val = _flat_val(root, val_folder, train.classes if train else None)
        wnids = val.classes
    words = synset_words(root)
    titles = tuple(f"{wnid} {words[wnid]}" if wnid in words else wnid for wnid in wnids)
    sets = {}
    if train:
        share = DEV_PHOTOS_A_CLASS if settings.dev_fraction is None else settings.dev_fraction
        sets = split(_titled(root, train, name, "train", titles), {"dev": share}, settings.split_seed)
    sets["val"] = _titled(root, val, name, "val", titles)
    skipped = Skipped(str(root / "test"))
    test = _test_photos(root, skipped)
    if test:
        ids = tuple(str(path.relative_to(root)) for path in test)
        unknown = np.full(len(ids), -1, dtype=np.int64)
        sets["test"] = Dataset(name, "test", titles, ids, unknown, FolderSource(root), skipped)
    return Data(name, sets, False)


def _train(root: Path) -> Dataset | None:
    """The training photos; None where there are none, which is enough to test."""
    if not any((root / place).is_dir() for place in TRAIN_FOLDERS):
        return None
    folder = _find(root, TRAIN_FOLDERS)
    found = class_folders(root, folder)
    wrong = [name for name in found.classes if not _WNID.fullmatch(name)]
    if wrong:
        raise VerydeepError(f"{folder} holds {wrong[0]!r}: ILSVRC's class folders are WNIDs such as n01440764.")
    return found


def holds_synsets(root: Path) -> bool:
    """Whether a folder, or the folder of a set in it, has folders that are called by WNIDs."""
    return any(_synsets(root / place) for place in (".", *TRAIN_FOLDERS, *VAL_FOLDERS))


def _synsets(folder: Path) -> list[str]:
    """The synset folders in a folder, sorted; none where it is no folder."""
    if not folder.is_dir():
        return []
    return sorted(entry.name for entry in folder.iterdir() if _WNID.fullmatch(entry.name) and entry.is_dir())


def _synset_folders(root: Path) -> Dataset:
    """The photos of a folder's synset folders; what else is there, such as the devkit, is none of them."""
    wnids = _synsets(root)
    skipped = Skipped(str(root))
    found = [[str(photo.relative_to(root)) for photo in files_below(root / wnid, skipped)] for wnid in wnids]
    empty = [wnid for wnid, photos in zip(wnids, found, strict=True) if not photos]
    if empty:
        raise VerydeepError(f"{root / empty[0]} has no photos: add some, or remove the folder.")
    labels = np.repeat(np.arange(len(wnids), dtype=np.int64), [len(photos) for photos in found])
    ids = tuple(photo for photos in found for photo in photos)
    return Dataset(str(root), "val", tuple(wnids), ids, labels, FolderSource(root), skipped)


def _has_val(root: Path) -> bool:
    return any((root / place).is_dir() for place in VAL_FOLDERS)


def _find(root: Path, places: tuple[str, ...]) -> Path:
    for place in places:
        if (root / place).is_dir():
            return root / place
    raise VerydeepError(f"{root} has none of the folders {', '.join(places)}: unpack ILSVRC-2012 there.")


def _titled(root: Path, found: Dataset, name: str, set_name: str, titles: tuple[str, ...]) -> Dataset:
    places = tuple(place for place in BOX_FOLDERS[set_name] if _has_boxes(root / place))
    boxes = XmlBoxes(root, places) if places else None
    return Dataset(name, set_name, titles, found.ids, found.labels, found.source, found.skipped, find_boxes=boxes)


def _has_boxes(folder: Path) -> bool:
    """Whether a folder, or the first of the folders in it, holds XML files."""
    if not folder.is_dir():
        return False
    here = list_folder(folder, Skipped())
    inside = list_folder(folder / here.folders[0], Skipped()).files if here.folders else []
    return any(name.endswith(".xml") for name in (*here.files, *inside))


def blacklisted(root: Path) -> frozenset[int] | None:
    """Numbers, from 1 by file name, of validation photos that the devkit leaves out of the localisation error.

    None where there is no such list. Raises VerydeepError where it is broken.
    """
    listed = _first(root, BLACKLIST)
    try:
        return frozenset(int(line) for line in listed.read_text(encoding="utf-8-sig").split()) if listed else None
    except ValueError:
        raise VerydeepError(f"{listed} is broken: each of its lines is the number of a validation photo.") from None


def _test_photos(root: Path, skipped: Skipped) -> list[Path]:
    """The test photos, which lie in the first of their folders that has any, or in one folder inside it."""
    for place in TEST_FOLDERS:
        if not (root / place).is_dir():
            continue
        inside = [root / place / name for name in list_folder(root / place, Skipped()).folders]
        found = photos_in(root / place, skipped) or sorted(
            photo for folder in inside for photo in photos_in(folder, skipped)
        )
        if found:
            return found
    return []


def _flat_val(root: Path, folder: Path, wnids: tuple[str, ...] | None) -> Dataset:
    """The validation photos in one folder; their classes are those of the training photos, or of their own."""
    skipped = Skipped(str(folder))
    photos = photos_in(folder, skipped)
    truth = _ground_truth(root, photos)
    wnids = tuple(sorted(set(truth))) if wnids is None else wnids
    unknown = sorted(set(truth) - set(wnids))
    if unknown:
        raise VerydeepError(f"the ground truth of {folder} names {unknown[0]}, which has no folder among the classes.")
    place = {wnid: number for number, wnid in enumerate(wnids)}
    labels = np.array([place[wnid] for wnid in truth], dtype=np.int64)
    ids = tuple(str(path.relative_to(root)) for path in photos)
    return Dataset(str(root), "val", wnids, ids, labels, FolderSource(root), skipped)


def _ground_truth(root: Path, photos: list[Path]) -> list[str]:
    """The WNID of each validation photo, in the photos' order."""
    solution = _first(root, "LOC_val_solution.csv")
    if solution:
        try:
            with solution.open(newline="", encoding="utf-8-sig") as file:
                rows = {row[0]: row[1].split()[0] for row in csv.reader(file) if row[0] != "ImageId"}
        except (ValueError, IndexError, csv.Error):
            raise VerydeepError(f"{solution} is broken: each line is a photo's name, a WNID and boxes.") from None
        missing = [photo for photo in photos if photo.stem not in rows]
        if missing:
            raise VerydeepError(f"{solution} has no line for {missing[0].name}.")
        return [rows[photo.stem] for photo in photos]
    listed = _first(root, "ILSVRC2012_validation_ground_truth.txt")
    if not listed:
        raise VerydeepError(
            f"{root} has no ground truth for the validation photos: unpack the devkit there "
            "(ILSVRC2012_validation_ground_truth.txt and meta.mat), or sort the photos into synset folders."
        )
    try:
        numbers = [int(line) for line in listed.read_text(encoding="utf-8-sig").split()]
    except ValueError:  # of a decoder too
        raise VerydeepError(f"{listed} is broken: each of its lines is an ILSVRC2012_ID.") from None
    if len(numbers) != len(photos):
        raise VerydeepError(f"{listed} has {len(numbers)} lines for {len(photos)} validation photos: one a photo.")
    wnids = devkit_order(root)
    outside = [number for number in numbers if number not in wnids]
    if outside:
        raise VerydeepError(f"{listed} has ILSVRC2012_ID {outside[0]}, which the devkit does not list.")
    return [wnids[number] for number in numbers]


def devkit_order(root: Path) -> dict[int, str]:
    """WNID by ILSVRC2012_ID, from the devkit's ``map_clsloc.txt`` or ``meta.mat``."""
    text = _first(root, "map_clsloc.txt")
    if text:
        try:
            return {int(number): wnid for wnid, number, *_ in (line.split() for line in read_names(text))}
        except ValueError:
            raise VerydeepError(f"{text} is broken: each of its lines is a WNID, a number and words.") from None
    meta = _first(root, "meta.mat")
    if not meta:
        raise VerydeepError(
            f"{root} has neither meta.mat nor map_clsloc.txt, which tell which class an ILSVRC2012_ID is: "
            "unpack the devkit there."
        )
    return {number: wnid for number, wnid, _ in _meta_rows(meta)}


def synset_words(root: Path) -> dict[str, str]:
    """The words of each WNID, from ``synset_words.txt``, ``LOC_synset_mapping.txt`` or the devkit's ``meta.mat``.

    Names are not worth an error: without any of them, or without scipy to read the last, there are none.
    """
    found = _first(root, "synset_words.txt") or _first(root, "LOC_synset_mapping.txt")
    if found:
        lines = (line.partition(" ") for line in read_names(found))
        return {wnid: words.strip() for wnid, _, words in lines}
    meta = _first(root, "meta.mat")
    with contextlib.suppress(VerydeepError):
        return {wnid: words for _, wnid, words in (_meta_rows(meta) if meta else [])}
    return {}


def _meta_rows(meta: Path) -> list[tuple[int, str, str]]:
    """ILSVRC2012_ID, WNID and words of each synset in the devkit's ``meta.mat``."""
    try:
        synsets = read_mat(meta)["synsets"]
        rows = [synsets] if isinstance(synsets, dict) else synsets
        return [(int(row["ILSVRC2012_ID"]), str(row["WNID"]), str(row["words"])) for row in rows]
    except (KeyError, ValueError, TypeError, IndexError, OverflowError):
        raise VerydeepError(f"{meta} is not the devkit's, or broken: unpack the devkit again.") from None


def _first(root: Path, name: str) -> Path | None:
    devkits = ("ILSVRC2012_devkit_t12", "ILSVRC2014_devkit", "devkit", ".")
    places = (root, *(root / name / "data" for name in devkits))
    return next((place / name for place in places if (place / name).is_file()), None)
