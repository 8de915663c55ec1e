"""ILSVRC-2012 as downloaded: synset folders, the validation images with their ground truth, names.

Classes are ordered by WNID, as in all released weights, and named as in ``synset_words.txt``, WNID first. The devkit's
ILSVRC2012_ID is another order, only used to read the ground truth. Sets: ``train`` and ``dev`` (10 training images per
class unless a fraction is given), ``val``, which is reported, and ``test`` if its folder exists, whose labels only the
server has. Evaluation needs ``val`` only; synset folders that are not in a set's folder are ``val``. Subsets of the
images or classes are possible.
"""

from __future__ import annotations

import contextlib
import csv
import re
from dataclasses import replace
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
# The archives of boxes as they unpack, and the later layout of ILSVRC.
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
    """ILSVRC-2012 in a folder.

    Raises:
        VerydeepError: a folder or the ground truth is missing, or their lengths differ.
    """
    assert root is not None
    train = _train(root)
    is_val = train is None and _synsets(root) and not any((root / place).is_dir() for place in VAL_FOLDERS)
    val_folder = root if is_val else _find(root, VAL_FOLDERS)
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
    """The training images; None if there are none, which is enough for evaluation."""
    if not any((root / place).is_dir() for place in TRAIN_FOLDERS):
        return None
    folder = _find(root, TRAIN_FOLDERS)
    dataset = class_folders(root, folder)
    wrong = [name for name in dataset.classes if not _WNID.fullmatch(name)]
    if wrong:
        raise VerydeepError(f"{folder} has a folder {wrong[0]!r}: ILSVRC's are named by WNIDs such as n01440764.")
    return dataset


def holds_synsets(root: Path) -> bool:
    """Whether a folder, or the folder of a set in it, has folders that are named by WNIDs."""
    return any(_synsets(root / place) for place in (".", *TRAIN_FOLDERS, *VAL_FOLDERS))


def _synsets(folder: Path) -> list[str]:
    """The synset folders in a folder, sorted; empty if it is not a folder."""
    if not folder.is_dir():
        return []
    return sorted(entry.name for entry in folder.iterdir() if _WNID.fullmatch(entry.name) and entry.is_dir())


def _synset_folders(root: Path) -> Dataset:
    """The images of a folder's synset folders; other folders, such as the devkit, are ignored."""
    wnids = _synsets(root)
    skipped = Skipped(str(root))
    images = [[str(image.relative_to(root)) for image in files_below(root / wnid, skipped)] for wnid in wnids]
    if not all(images):
        raise VerydeepError(f"{root / wnids[images.index([])]} has no images: add some, or remove the folder.")
    labels = np.repeat(np.arange(len(wnids), dtype=np.int64), [len(of_class) for of_class in images])
    ids = tuple(image for of_class in images for image in of_class)
    return Dataset(str(root), "val", tuple(wnids), ids, labels, FolderSource(root), skipped)


def _find(root: Path, places: tuple[str, ...]) -> Path:
    for place in places:
        if (root / place).is_dir():
            return root / place
    raise VerydeepError(f"{root} has none of the folders {', '.join(places)}: unpack ILSVRC-2012 there.")


def _titled(root: Path, dataset: Dataset, name: str, set_name: str, titles: tuple[str, ...]) -> Dataset:
    places = tuple(place for place in BOX_FOLDERS[set_name] if _has_boxes(root / place))
    boxes = XmlBoxes(root, places) if places else None
    return replace(dataset, name=name, set_name=set_name, classes=titles, find_boxes=boxes)


def _has_boxes(folder: Path) -> bool:
    """Whether a folder, or the first folder in it, contains XML files."""
    if not folder.is_dir():
        return False
    listing = list_folder(folder, Skipped())
    inside = list_folder(folder / listing.folders[0], Skipped()).files if listing.folders else []
    return any(name.endswith(".xml") for name in (*listing.files, *inside))


def blacklisted(root: Path) -> frozenset[int] | None:
    """The numbers, from 1 by file name, of validation images that do not count for the localisation error.

    None without the devkit's list; raises VerydeepError if it is broken.
    """
    path = _first(root, BLACKLIST)
    return frozenset(_integers(path, "the number of a validation image")) if path else None


def _integers(path: Path, what: str) -> list[int]:
    try:
        return [int(line) for line in path.read_text(encoding="utf-8-sig").split()]
    except ValueError:  # includes those of decoding
        raise VerydeepError(f"{path} is corrupted: each line must be {what}.") from None


def _test_photos(root: Path, skipped: Skipped) -> list[Path]:
    """The test images, in the first of their folders that has any, or in the folders inside it."""
    for folder in (root / place for place in TEST_FOLDERS if (root / place).is_dir()):
        inside = [folder / name for name in list_folder(folder, Skipped()).folders]
        images = photos_in(folder, skipped) or sorted(image for place in inside for image in photos_in(place, skipped))
        if images:
            return images
    return []


def _flat_val(root: Path, folder: Path, wnids: tuple[str, ...] | None) -> Dataset:
    """The validation images in one folder; their classes are those of the training images, or their own."""
    skipped = Skipped(str(folder))
    images = photos_in(folder, skipped)
    truth = _ground_truth(root, images)
    wnids = tuple(sorted(set(truth))) if wnids is None else wnids
    unknown = sorted(set(truth) - set(wnids))
    if unknown:
        raise VerydeepError(f"the ground truth of {folder} has {unknown[0]}, which has no folder among the classes.")
    place = {wnid: number for number, wnid in enumerate(wnids)}
    labels = np.array([place[wnid] for wnid in truth], dtype=np.int64)
    ids = tuple(str(path.relative_to(root)) for path in images)
    return Dataset(str(root), "val", wnids, ids, labels, FolderSource(root), skipped)


def _ground_truth(root: Path, images: list[Path]) -> list[str]:
    """The WNID of each validation image."""
    solution = _first(root, "LOC_val_solution.csv")
    if solution:
        try:
            with solution.open(newline="", encoding="utf-8-sig") as file:
                rows = {row[0]: row[1].split()[0] for row in csv.reader(file) if row[0] != "ImageId"}
        except (ValueError, IndexError, csv.Error):
            raise VerydeepError(f"{solution} is corrupted: each line must be an image, a WNID and boxes.") from None
        missing = [image for image in images if image.stem not in rows]
        if missing:
            raise VerydeepError(f"{solution} has no line for {missing[0].name}.")
        return [rows[image.stem] for image in images]
    path = _first(root, "ILSVRC2012_validation_ground_truth.txt")
    if not path:
        raise VerydeepError(
            f"{root} has no ground truth for the validation images: unpack the devkit there "
            "(ILSVRC2012_validation_ground_truth.txt and meta.mat), or sort the images into synset folders."
        )
    numbers = _integers(path, "an ILSVRC2012_ID")
    if len(numbers) != len(images):
        raise VerydeepError(f"{path} has {len(numbers)} lines, but there are {len(images)} validation images.")
    wnids = devkit_order(root)
    unknown = [number for number in numbers if number not in wnids]
    if unknown:
        raise VerydeepError(f"{path} has ILSVRC2012_ID {unknown[0]}, which the devkit does not list.")
    return [wnids[number] for number in numbers]


def devkit_order(root: Path) -> dict[int, str]:
    """WNID by ILSVRC2012_ID, from the devkit's ``map_clsloc.txt`` or ``meta.mat``."""
    path = _first(root, "map_clsloc.txt")
    if path:
        try:
            return {int(number): wnid for wnid, number, *_ in (line.split() for line in read_names(path))}
        except ValueError:
            raise VerydeepError(f"{path} is corrupted: each line must be a WNID, a number and words.") from None
    meta = _first(root, "meta.mat")
    if not meta:
        raise VerydeepError(
            f"{root} has neither meta.mat nor map_clsloc.txt, which define the classes of ILSVRC2012_IDs: unpack the "
            "devkit there."
        )
    return {number: wnid for number, wnid, _ in _meta_rows(meta)}


def synset_words(root: Path) -> dict[str, str]:
    """The words of each WNID, from ``synset_words.txt``, ``LOC_synset_mapping.txt`` or the devkit's ``meta.mat``.

    They are optional: empty without these files, or without scipy to read the last.
    """
    path = _first(root, "synset_words.txt") or _first(root, "LOC_synset_mapping.txt")
    if path:
        lines = (line.partition(" ") for line in read_names(path))
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
        raise VerydeepError(f"{meta} is not from the devkit, or corrupted: unpack the devkit again.") from None


def _first(root: Path, name: str) -> Path | None:
    devkits = ("ILSVRC2012_devkit_t12", "ILSVRC2014_devkit", "devkit", ".")
    places = (root, *(root / name / "data" for name in devkits))
    return next((place / name for place in places if (place / name).is_file()), None)
