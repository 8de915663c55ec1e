"""Sect. 4, data: opening datasets by name or path, as training, dev and test sets.

- ``train``: for training, and for the mean and the colour axes;
- ``dev``: decides when the learning rate drops and which checkpoint is best;
- ``val`` or ``test``: reported; nothing is ever chosen on it.

``--data`` is a folder with a folder per class, the same under ``train/`` and ``val/`` (and ``test/``), a packed dataset
(`verydeep.data.pack_writer`), a data set of Hugging Face on disk (`verydeep.data.datasets.hugging_face`), a list file
(`verydeep.data.datasets.folder`), or a name: ``digits``, ``imagenet:DIR``, ``caltech101:DIR``, ``caltech256:DIR``,
``webdataset:DIR`` (tar files), ``hf:DIR``, ``voc2007:DIR``, ``voc2012:DIR``, ``voc2012-action:DIR``,
``voc2012-action-box:DIR``; with ``boxes`` always a folder. For a name without DIR the folder is
read from the environment variable of that name in upper case, with ``_`` for ``-``. Listings are sorted, and a split
depends on (seed, image) only.
"""

from __future__ import annotations

import fnmatch
import importlib
import os
from collections.abc import Container, Iterator
from dataclasses import replace
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

from ..core.errors import VerydeepError
from ..core.nearest import nearest
from ..core.settings import DataSettings
from . import datasets
from .class_names import nfc
from .dataset import Data, Dataset, first_names, relabel
from .datasets.annotated_folder import parted
from .datasets.folder import flat_folder, is_flat
from .datasets.hugging_face import is_saved_dataset, not_on_disk
from .datasets.packed import is_pack, open_pack
from .exclude import without_excluded
from .walk import Skipped, list_folder

__all__ = [
    "NAMES",
    "Data",
    "Dataset",
    "check_still_there",
    "lasting",
    "lasting_boxes",
    "lasting_file",
    "lasting_name",
    "moved",
    "open_data",
    "open_images",
    "relabel",
]

MODULES = {
    module.name: importlib.import_module(f"{datasets.__name__}.{module.name}")
    for module in iter_modules(datasets.__path__)
}
NAMES = {name: home for home, module in MODULES.items() for name in getattr(module, "NAMES", ())}
WITHOUT_GROUPS = ("caltech", "digits", "imagenet", "voc")  # their splits are those of the protocols
# The modules that open paths: images and lists, images with box files, and data sets of Hugging Face.
PATHS, BOXED, SAVED = "folder", "annotated_folder", "hugging_face"


def open_data(
    data: DataSettings | str | Path,
    least_classes: int = 2,
    several: bool = False,
    empty_sets: bool = False,
    absent_classes: bool = False,
) -> Data:
    """Opens all sets of a dataset.

    Args:
        data: settings, or a folder, list file or name, as ``--data``.
        least_classes: the minimum number of classes; classification needs two.
        several: whether images may have several labels, as VOC's do; training of nets does not support that.
        empty_sets: whether sets may be empty, because they are used together.
        absent_classes: whether listed classes may be missing, as when a net is evaluated on other data.

    Raises:
        VerydeepError: no such folder or name, an empty class, too few classes, no images.
        TypeError: neither settings nor a path.
    """
    settings = data_settings(data)
    name, _, path = settings.data.partition(":")
    named = name in NAMES and not settings.boxes  # a folder with the name of a dataset is written ./digits
    packed = not named and is_pack(Path(settings.data))
    home = NAMES[name] if named else BOXED if settings.boxes else _home_of_path(Path(settings.data))
    module: Any = MODULES[home]
    _check_applicable(settings, home, packed)
    opened: Data
    if packed:
        opened = open_pack(Path(settings.data), settings)
    elif settings.boxes:
        opened = module.open_boxed(settings)
    elif named:
        opened = module.open_named(settings.data if name == "digits" else name, _root(name, path), settings)
    else:
        opened = module.open_path(Path(settings.data), settings)
    if not several and any(part.marks is not None for part in opened.sets.values()):
        raise VerydeepError(
            f"{opened.name} has several labels per image, which nets are not trained on here: extract features with "
            "`verydeep features`, and train SVMs with `verydeep svm`; `verydeep probe` does both for your own images."
        )
    if settings.exclude is not None:
        opened = without_excluded(opened, settings.exclude)
    return _only_classes(opened, settings.classes, least_classes, empty_sets, absent_classes)


def _home_of_path(path: Path) -> str:
    """The module that opens a path without box files."""
    return SAVED if is_saved_dataset(path) else PATHS


def _check_applicable(settings: DataSettings, home: str, packed: bool) -> None:
    """Raises VerydeepError for a setting that has no meaning for the data."""
    if settings.group_by is not None and (packed or home in WITHOUT_GROUPS):
        raise VerydeepError(f"--group-by applies to folders, list files and tar files, unlike {settings.data}.")
    if settings.folders != "auto" and (packed or home != PATHS or not Path(settings.data).is_dir()):
        raise VerydeepError(f"--folders applies to folders of images only, unlike {settings.data}: leave it out.")


def open_images(settings: DataSettings) -> Data:
    """All images of some data, for descriptors: they may have several labels, and those of a flat folder none.

    Raises:
        VerydeepError: as `open_data`, which needs no more than one class here.
    """
    path = Path(settings.data)
    plain = not settings.boxes and not settings.classes and settings.folders == "auto" and not is_pack(path)
    if plain and settings.data.partition(":")[0] not in NAMES and is_flat(path):
        return flat_folder(path)
    return open_data(settings, least_classes=1, several=True, empty_sets=True)


def data_settings(data: DataSettings | str | Path) -> DataSettings:
    """Settings of a path or name, by default the usual ones; raises TypeError for other types."""
    if isinstance(data, DataSettings):
        return replace(data, data=str(data.data))
    if isinstance(data, str | Path):
        return DataSettings(data=str(data))
    raise TypeError(f"data must be a path, a name or DataSettings, not {type(data).__name__}.")


def lasting_name(data: str | Path) -> str:
    """The data's name with an absolute path, for checkpoints."""
    data = str(data)
    name, colon, path = data.partition(":")
    if name in NAMES:
        return f"{name}:{Path(path).absolute()}" if colon and name != "digits" else data
    return str(Path(data).absolute())


def lasting_boxes(places: tuple[str, ...]) -> tuple[str, ...]:
    """Box files with absolute paths, for checkpoints."""
    pairs = map(parted, places)
    return tuple(f"{folder}{'=' if folder else ''}{Path(file).absolute()}" for folder, file in pairs)


def lasting(settings: DataSettings) -> DataSettings:
    """Settings with absolute paths, for checkpoints."""
    exclude = None if settings.exclude is None else lasting_file(settings.exclude)
    return replace(settings, data=lasting_name(settings.data), boxes=lasting_boxes(settings.boxes), exclude=exclude)


def lasting_file(path: str) -> str:
    """A file's absolute path."""
    return str(Path(path).absolute())


def moved(settings: DataSettings, data: str | Path) -> DataSettings:
    """A run's data at another place; box files that were below the old folder and are gone are expected there too."""
    new, boxes = lasting_name(data), []
    for folder, file in map(parted, settings.boxes):
        inside = Path(file).is_relative_to(settings.data) and not Path(file).exists()
        place = Path(new) / Path(file).relative_to(settings.data) if inside else Path(file)
        boxes.append(f"{folder}{'=' if folder else ''}{place}")
    return replace(settings, data=new, boxes=tuple(boxes))


def check_still_there(settings: DataSettings) -> None:
    """Raises VerydeepError if a run's data no longer exist; the message says how to give their new place."""
    name, colon, path = settings.data.partition(":")
    place = settings.data if name not in NAMES else path if colon and name != "digits" else ""
    if place and not Path(place).exists():
        raise VerydeepError(
            f"{place}, the folder of the run's data, no longer exists: if it was moved, pass its new path as --data."
        )


def _root(name: str, path: str) -> Path | None:
    if name == "digits":
        return None
    variable = name.upper().replace("-", "_")
    folder = path or os.environ.get(variable, "")
    if not folder:
        raise VerydeepError(f"where is {name}? Use --data {name}:DIR, or set the variable {variable} to its folder.")
    if not Path(folder).is_dir():
        if NAMES[name] == SAVED:
            raise VerydeepError(not_on_disk(folder))
        raise VerydeepError(
            f"{folder}, the folder of {name}, does not exist or is not a folder: pass another as --data {name}:DIR."
        )
    list_folder(Path(folder), Skipped())  # raises if it cannot be read
    return Path(folder)


def _only_classes(data: Data, lists: tuple[str, ...], least: int, empty_sets: bool, absent: bool) -> Data:
    """The data of the listed classes, names or shell patterns; of all classes without lists."""
    sets, unsplit = data.sets, data.unsplit
    if lists:
        chosen = _listed(data, lists, absent)
        sets = {key: relabel(dataset, chosen) for key, dataset in sets.items()}
        unsplit = None if unsplit is None else relabel(unsplit, chosen)
    empty = [key for key, dataset in sets.items() if not len(dataset)]
    if empty and not empty_sets:
        raise VerydeepError(
            f"{data.name} has too few images for a {empty[0]} set: at least 3 images per class are needed."
        )
    first = next(iter(sets.values()))
    if len(first.classes) < least:
        raise VerydeepError(
            f"{data.name} has only one class ({', '.join(first.classes)}), and classification needs at least two: use "
            "a folder with a folder per class."
        )
    return replace(data, sets=sets, unsplit=unsplit)


def _listed(data: Data, lists: tuple[str, ...], absent: bool) -> tuple[str, ...]:
    """The classes that match lists of names and patterns, in the data's order.

    Raises:
        VerydeepError: a name or pattern matches no class, and ``absent`` ones are not allowed; no class matches.
    """
    known = {nfc(name.strip()): name for name in data.classes}
    chosen: set[str] = set()
    for listed in lists:
        for wanted in _split_names(nfc(listed), known):
            matches = [known[wanted]] if wanted in known else _matching(data, wanted)
            matches = matches or _matching(data, listed)  # a pattern may contain commas
            if not matches and not absent:
                raise VerydeepError(_no_class(data, wanted))
            chosen.update(matches)
    if not chosen:
        raise VerydeepError(_no_class(data, ", ".join(lists)))
    return tuple(name for name in data.classes if name in chosen)


def _matching(data: Data, pattern: str) -> list[str]:
    return [name for name in data.classes if fnmatch.fnmatchcase(nfc(name), nfc(pattern))]


def _split_names(listed: str, known: Container[str]) -> Iterator[str]:
    """Comma-separated names and patterns; names of classes that contain commas are not split, the longest first."""
    parts = listed.split(",")
    while parts:
        joined = {end: ",".join(parts[:end]).strip() for end in range(len(parts), 0, -1)}
        end = next((end for end, text in joined.items() if text in known), 1)
        if joined[end]:
            yield joined[end]
        parts = parts[end:]


def _no_class(data: Data, wanted: str) -> str:
    """The message for a name or pattern that matches no class."""
    near = nearest(wanted, data.classes, 0.5)
    hint = f"did you mean {near!r}?" if near else f"its classes are {first_names(data.classes)}."
    return f"no class of {data.name} matches {wanted!r}: {hint}"
