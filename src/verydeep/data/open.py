"""Sect. 4, data: sets of photos with a class each, by name or by path, split three ways.

Sets are called by what they are for:

- ``train``: the weights learn from it, and mean and colour axes are computed on it;
- ``dev``: decides when the learning rate drops and which checkpoint is best;
- ``val`` or ``test``: what is reported; nothing is ever chosen on it.

``--data`` takes a folder with a folder per class, the same under ``train/`` and ``val/`` (and ``test/``), a pack of
`verydeep.data.pack_writer`, a list file (`verydeep.data.datasets.folder`), or a name: ``digits``, ``imagenet:DIR``,
``caltech101:DIR``, ``caltech256:DIR``, ``webdataset:DIR`` (tar files), ``voc2007:DIR``, ``voc2012:DIR``,
``voc2012-action:DIR``, ``voc2012-action-box:DIR``; with ``boxes`` always a folder. A name alone looks for its folder
in the environment variable of the same name in capitals, with ``_`` for ``-``. Every listing is sorted, and a split
depends on (seed, photo) alone.
"""

from __future__ import annotations

import difflib
import fnmatch
import importlib
import os
from collections.abc import Container, Iterator
from dataclasses import replace
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

from ..core.errors import VerydeepError
from ..core.settings import DataSettings
from . import datasets
from .class_names import nfc
from .dataset import Data, Dataset, first_names, relabel
from .datasets.packed import is_pack, open_pack
from .walk import Skipped, list_folder

__all__ = [
    "NAMES",
    "Data",
    "Dataset",
    "check_still_there",
    "lasting_boxes",
    "lasting_name",
    "moved",
    "open_data",
    "relabel",
]

MODULES = {
    found.name: importlib.import_module(f"{datasets.__name__}.{found.name}")
    for found in iter_modules(datasets.__path__)
}
NAMES = {name: home for home, module in MODULES.items() for name in getattr(module, "NAMES", ())}
PATHS, BOXED = "folder", "annotated_folder"  # the modules for what is a path and no name, without and with box files


def open_data(
    data: DataSettings | str | Path,
    least_classes: int = 2,
    several: bool = False,
    empty_sets: bool = False,
    absent_classes: bool = False,
) -> Data:
    """All sets of some data.

    Args:
        data: settings, or what ``--data`` takes: a folder, a list file, a name.
        least_classes: a net that tells classes apart needs two.
        several: whether photos may have several classes, as VOC's have; a net's may not.
        empty_sets: whether too few photos for some set are enough, as where all photos are wanted together.
        absent_classes: whether some of the listed classes may be missing, as where a net is tested on other data.

    Raises:
        VerydeepError: no such folder or name, an empty class, one class only, no photo at all.
        TypeError: neither settings nor a path.
    """
    settings = data_settings(data)
    name, _, path = settings.data.partition(":")
    named = name in NAMES and not settings.boxes  # a folder of such a name is ./digits
    packed = not named and is_pack(Path(settings.data))
    home = NAMES[name] if named else BOXED if settings.boxes else PATHS
    module: Any = MODULES[home]
    if settings.folders != "auto" and (named or packed or settings.boxes or not Path(settings.data).is_dir()):
        raise VerydeepError(f"--folders is of folders of photos, and {settings.data} is none: leave it out.")
    opened: Data
    if packed:
        opened = open_pack(Path(settings.data), settings)
    elif settings.boxes:
        opened = module.open_boxed(settings)
    elif named:
        opened = module.open_named(settings.data if name == "digits" else name, _root(name, path), settings)
    else:
        opened = module.open_path(Path(settings.data), settings)
    if not several and any(found.marks is not None for found in opened.sets.values()):
        raise VerydeepError(
            f"{opened.name} has several classes a photo, and nets learn and tell one: describe its photos with "
            "`verydeep features` and learn with `verydeep svm`."
        )
    return _only_classes(opened, settings.classes, least_classes, empty_sets, absent_classes)


def data_settings(data: DataSettings | str | Path) -> DataSettings:
    """Settings, of a path or a name the usual ones; raises TypeError for anything else."""
    if isinstance(data, DataSettings):
        return replace(data, data=str(data.data))
    if isinstance(data, str | Path):
        return DataSettings(data=str(data))
    raise TypeError(f"data are a path, a name or DataSettings, not {type(data).__name__}.")


def lasting_name(data: str | Path) -> str:
    """The data's name with an absolute path, so that a checkpoint finds them from anywhere."""
    data = str(data)
    name, colon, path = data.partition(":")
    if name in NAMES:
        return f"{name}:{Path(path).absolute()}" if colon and name != "digits" else data
    return str(Path(data).absolute())


def lasting_boxes(places: tuple[str, ...]) -> tuple[str, ...]:
    """Box files with absolute paths, for the same reason."""
    from .datasets.annotated_folder import parted

    found = [parted(place) for place in places]
    return tuple(f"{folder}{'=' if folder else ''}{Path(file).absolute()}" for folder, file in found)


def moved(settings: DataSettings, data: str | Path) -> DataSettings:
    """A run's data at another place: box files that lay among the photos, and are gone there, are moved with them."""
    from .datasets.annotated_folder import parted

    new, boxes = lasting_name(data), []
    for folder, file in map(parted, settings.boxes):
        inside = Path(file).is_relative_to(settings.data) and not Path(file).exists()
        place = Path(new) / Path(file).relative_to(settings.data) if inside else Path(file)
        boxes.append(f"{folder}{'=' if folder else ''}{place}")
    return replace(settings, data=new, boxes=tuple(boxes))


def check_still_there(settings: DataSettings) -> None:
    """Raises VerydeepError where a run's own data are gone; the sentence says how to name their new place."""
    name, colon, path = settings.data.partition(":")
    place = settings.data if name not in NAMES else path if colon and name != "digits" else ""
    if place and not Path(place).exists():
        raise VerydeepError(
            f"{place} does not exist any more, where the run's photos were: where they were moved, name their new "
            "place with --data."
        )


def _root(name: str, path: str) -> Path | None:
    if name == "digits":
        return None
    variable = name.upper().replace("-", "_")
    found = path or os.environ.get(variable, "")
    if not found:
        raise VerydeepError(f"where is {name}? Say --data {name}:DIR, or set the variable {variable} to its folder.")
    if not Path(found).is_dir():
        raise VerydeepError(f"{found}, given as the folder of {name}, is not a folder.")
    list_folder(Path(found), Skipped())  # which tells one that cannot be read
    return Path(found)


def _only_classes(data: Data, lists: tuple[str, ...], least: int, empty_sets: bool, absent: bool) -> Data:
    """The classes that are listed, by name or shell pattern; all where there is no list."""
    sets, unsplit = data.sets, data.unsplit
    if lists:
        chosen = _listed(data, lists, absent)
        sets = {key: relabel(found, chosen) for key, found in sets.items()}
        unsplit = None if unsplit is None else relabel(unsplit, chosen)
    empty = [key for key, found in sets.items() if not len(found)]
    if empty and not empty_sets:
        raise VerydeepError(f"{data.name} has too few photos for a {empty[0]} part: give at least 3 photos a class.")
    first = next(iter(sets.values()))
    if len(first.classes) < least:
        raise VerydeepError(
            f"{data.name} has only one class ({', '.join(first.classes)}): a net needs at least two to tell apart; "
            "give a folder that holds one folder per class."
        )
    return replace(data, sets=sets, unsplit=unsplit)


def _listed(data: Data, lists: tuple[str, ...], absent: bool) -> tuple[str, ...]:
    """The classes that lists name, in the data's order.

    Raises:
        VerydeepError: a name or pattern matches no class, and is not to be ``absent``; none matches any.
    """
    known = {nfc(name.strip()): name for name in data.classes}
    chosen: set[str] = set()
    for listed in lists:
        for wanted in _parts(nfc(listed), known):
            found = [known[wanted]] if wanted in known else _matching(data, wanted)
            found = found or _matching(data, listed)  # a pattern may have a comma itself
            if not found and not absent:
                raise VerydeepError(_no_class(data, wanted))
            chosen.update(found)
    if not chosen:
        raise VerydeepError(_no_class(data, ", ".join(lists)))
    return tuple(name for name in data.classes if name in chosen)


def _matching(data: Data, pattern: str) -> list[str]:
    return [name for name in data.classes if fnmatch.fnmatchcase(nfc(name), nfc(pattern))]


def _parts(listed: str, known: Container[str]) -> Iterator[str]:
    """The names and patterns between commas; what is a class's name as it stands is never parted, the longest first."""
    parts = listed.split(",")
    while parts:
        joined = {end: ",".join(parts[:end]).strip() for end in range(len(parts), 0, -1)}
        end = next((end for end, text in joined.items() if text in known), 1)
        if joined[end]:
            yield joined[end]
        parts = parts[end:]


def _no_class(data: Data, wanted: str) -> str:
    """The sentence for a name or pattern that matches nothing."""
    folded = {name.casefold(): name for name in data.classes}
    near = difflib.get_close_matches(wanted.casefold(), list(folded), n=1, cutoff=0.5)
    hint = f"did you mean {folded[near[0]]!r}?" if near else f"its classes are {first_names(data.classes)}."
    return f"no class of {data.name} matches {wanted!r}: {hint}"
