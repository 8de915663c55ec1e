"""Whether folders are splits (``train/``, ``val/``, ``test/``) or classes, by their names.

A name means a set if one word of it does, in any case, and the other words are generic (``Training``, ``train_images``,
``ValidationSet``) or the same for all sets (``train2017``, ``val2017``). Folders are sets if one is for training,
another for something else, and both contain class folders; else they are classes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..core.errors import VerydeepError
from .walk import Skipped, list_folder, photos_in

WORDS = {"train": ("train", "training"), "val": ("val", "valid", "validation", "dev"), "test": ("test", "testing")}
SET_OF = {word: name for name, words in WORDS.items() for word in words}
_FILLERS = "images?|imgs?|photos?|pictures?|pics?|data|datasets?|sets?|splits?|folders?|dirs?|samples?"
_COMPOUND = re.compile(f"({'|'.join(sorted(SET_OF, key=len, reverse=True))})(?:{_FILLERS})")


@dataclass(frozen=True)
class Layout:
    """The folder of each set, empty if folders are classes; ``note`` explains the choice if both are possible."""

    sets: dict[str, Path]
    note: str = ""


def set_of_name(name: str) -> tuple[str, tuple[str, ...]] | None:
    """The set that a name means (train, val or test), and the rest of the name; None if it means none."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).casefold()
    words = [_COMPOUND.sub(r"\1", word) for word in re.findall(r"[^\W\d_]+|\d+", spaced)]
    sets = [SET_OF[word] for word in words if word in SET_OF]
    rest = tuple(word for word in words if word not in SET_OF and not re.fullmatch(_FILLERS, word))
    return (sets[0], rest) if len(sets) == 1 else None


def read_layout(top: Path, mode: str, skipped: Skipped) -> Layout:
    """The meaning of the folders in ``top``.

    Args:
        mode: ``auto``, ``splits`` or ``classes``, as `--folders`.
        skipped: takes the folders beside sets.

    Raises:
        VerydeepError: an unreadable folder; sets without a training set, or with nothing else; no sets with ``splits``.
    """
    folders = list_folder(top, Skipped()).folders
    if mode == "classes":
        return Layout({})
    named = named_sets(top, folders)
    if "train" in named and len(named) > 1:
        return _as_sets(top, named, folders, mode, skipped)
    if mode == "splits":
        raise VerydeepError(f"{top} has no folders for training and testing: name them train, val and test.")
    return _as_classes(top, named, folders)


def named_sets(top: Path, folders: list[str]) -> dict[str, str]:
    """The folder of each set by its name; of several the most usual name, lower case first."""
    groups: dict[tuple[str, ...], dict[str, list[str]]] = {}
    for name in folders:
        if meaning := set_of_name(name):
            groups.setdefault(meaning[1], {}).setdefault(meaning[0], []).append(name)
    complete = {rest: sets for rest, sets in groups.items() if "train" in sets and len(sets) > 1}
    if len(complete) > 1 and () not in complete:
        several = ", ".join(sorted(f"{name}/" for sets in complete.values() for name in sets["train"]))
        raise VerydeepError(f"{top} has several folders for training ({several}): keep one, with its other sets.")
    chosen = next(iter(complete.values())) if len(complete) == 1 else groups.get((), {})
    return {name: min(chosen[name], key=lambda folder: _order(name, folder)) for name in WORDS if name in chosen}


def _order(set_name: str, folder: str) -> tuple[int, str]:
    words = WORDS[set_name]
    return (words.index(folder) if folder in words else len(words), folder.swapcase())


def _as_sets(top: Path, named: dict[str, str], folders: list[str], mode: str, skipped: Skipped) -> Layout:
    """Sets, unless the training folder has images and no folders, like the classes beside it."""
    others = [name for name in folders if name not in named.values()]
    if not _folders_in(top / named["train"]):
        if not others:
            raise VerydeepError(
                f"{top / named['train']} has no class folders: put the images of each class in a folder of their own; "
                "--folders classes reads all folders as classes."
            )
        if mode == "auto":
            return _classes_with_note(named)
    empty = [folder for name, folder in named.items() if name != "train" and not _folders_in(top / folder)]
    if len(empty) == len(named) - 1:
        empty = []  # reading them raises an error that says what is missing
    sets = {name: top / folder for name, folder in named.items() if folder not in empty}
    notes = [f"{folder}/ has no class folders and is not read" for folder in empty]
    if others:
        for name in others:
            skipped.note("folders beside the sets", top / name)
        shown = ", ".join(f"{name}/" for name in others[:5]) + (", …" if len(others) > 5 else "")
        read = " and ".join(f"{folder.name}/" for folder in sets.values())
        notes.append(f"{read} are read as sets, {shown} beside them not at all (--folders classes reads all folders)")
    return Layout(sets, "; ".join(notes))


def _as_classes(top: Path, named: dict[str, str], folders: list[str]) -> Layout:
    """Classes, unless a folder with the name of a set contains class folders."""
    if not named:
        return Layout({})
    inside = {folder: _folders_in(top / folder) for folder in named.values()}
    others = [name for name in folders if name not in inside]
    same = [folder for folder, names in inside.items() if set(names) & set(others)]
    train = named.get("train", "")
    deep = bool(train and inside[train]) and not any(photos_in(top / name, Skipped()) for name in others)
    if same or deep or (not others and all(inside.values())):
        missing = "no val/ or test/ beside it" if train else "no train/ beside it"
        advice = f"use {top / train}, or add one" if train else "put the training images there"
        raise VerydeepError(
            f"{top} has {_shown(inside)} but {missing}: {advice}; --folders classes reads all folders as classes."
        )
    return _classes_with_note(named)


def _classes_with_note(named: dict[str, str]) -> Layout:
    verb = "is read as a class" if len(named) == 1 else "are read as classes"
    note = f"{_shown(named.values())} {verb}, like the folders beside (--folders splits reads them as sets)"
    return Layout({}, note)


def _shown(folders: Iterable[str]) -> str:
    return ", ".join(f"{folder}/" for folder in folders)


def _folders_in(folder: Path) -> list[str]:
    return list_folder(folder, Skipped()).folders
