"""What folders' names mean: sets (``train/``, ``val/``, ``test/``), or classes.

A name is a set's where one word of it is, in capitals or not, and the others say nothing (``Training``,
``train_images``, ``ValidationSet``) or are the same for all sets (``train2017``, ``val2017``). Folders are sets where
there is one for training, one for something else, and folders of classes in them; else they are classes.
"""

from __future__ import annotations

import re
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
    """The folder of each set, none where folders are classes; ``note`` says what was chosen where both would do."""

    sets: dict[str, Path]
    note: str = ""


def set_of_name(name: str) -> tuple[str, tuple[str, ...]] | None:
    """The set that a name means (train, val or test), and what else the name holds; None where it means none."""
    parted = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).casefold()
    words = [_COMPOUND.sub(r"\1", word) for word in re.findall(r"[^\W\d_]+|\d+", parted)]
    sets = [SET_OF[word] for word in words if word in SET_OF]
    rest = tuple(word for word in words if word not in SET_OF and not re.fullmatch(_FILLERS, word))
    return (sets[0], rest) if len(sets) == 1 else None


def read_layout(top: Path, wish: str, skipped: Skipped) -> Layout:
    """What the folders in ``top`` are.

    Args:
        wish: ``auto``, or ``splits`` or ``classes`` for what they have to be.
        skipped: takes what lies beside sets.

    Raises:
        VerydeepError: a folder that cannot be read; sets without one for training, or with nothing else; no sets where
            they are wished for.
    """
    here = list_folder(top, Skipped())
    if wish == "classes":
        return Layout({})
    named = named_sets(top, here.folders)
    if "train" in named and len(named) > 1:
        found = _as_sets(top, named, here.folders, wish, skipped)
    elif wish == "splits":
        raise VerydeepError(f"{top} holds no folders for training and for testing: call them train, val and test.")
    else:
        found = _as_classes(top, named, here.folders)
    return found


def named_sets(top: Path, folders: list[str]) -> dict[str, str]:
    """The folder of each set by its name; of several the shortest name, small letters first."""
    groups: dict[tuple[str, ...], dict[str, list[str]]] = {}
    for name in folders:
        meant = set_of_name(name)
        if meant:
            groups.setdefault(meant[1], {}).setdefault(meant[0], []).append(name)
    whole = {rest: sets for rest, sets in groups.items() if "train" in sets and len(sets) > 1}
    if len(whole) > 1 and () not in whole:
        several = ", ".join(sorted(f"{name}/" for sets in whole.values() for name in sets["train"]))
        raise VerydeepError(f"{top} holds several folders for training ({several}): keep the sets of one.")
    chosen = next(iter(whole.values())) if len(whole) == 1 else groups.get((), {})
    return {name: min(chosen[name], key=lambda one: _order(name, one)) for name in WORDS if name in chosen}


def _order(set_name: str, folder: str) -> tuple[int, str]:
    words = WORDS[set_name]
    return (words.index(folder) if folder in words else len(words), folder.swapcase())


def _as_sets(top: Path, named: dict[str, str], folders: list[str], wish: str, skipped: Skipped) -> Layout:
    """Sets, unless the one for training holds photos and no folders, as the classes beside it do."""
    others = [name for name in folders if name not in named.values()]
    if not others and not _inside(top / named["train"]):
        raise VerydeepError(
            f"{top / named['train']} holds no class folders: put the photos of each class in a folder of its own; "
            "--folders classes reads all folders as classes."
        )
    if wish == "auto" and others and not _inside(top / named["train"]):
        return _classes_with_note(named)
    empty = [folder for name, folder in named.items() if name != "train" and not _inside(top / folder)]
    if len(empty) == len(named) - 1:
        empty = []  # then reading them tells what is missing
    sets = {name: top / folder for name, folder in named.items() if folder not in empty}
    notes = [f"{folder}/ holds no class folders and is not read" for folder in empty]
    if others:
        for name in others:
            skipped.note("folders beside the sets", top / name)
        shown = ", ".join(f"{name}/" for name in others[:5]) + (", …" if len(others) > 5 else "")
        read = " and ".join(f"{folder.name}/" for folder in sets.values())
        notes.append(
            f"{read} are read as sets, and {shown} beside them not at all (--folders classes reads all folders)"
        )
    return Layout(sets, "; ".join(notes))


def _as_classes(top: Path, named: dict[str, str], folders: list[str]) -> Layout:
    """Classes, unless what is called like a set holds classes itself."""
    if not named:
        return Layout({})
    inside = {folder: _inside(top / folder) for folder in named.values()}
    others = [name for name in folders if name not in inside]
    same = [folder for folder, names in inside.items() if set(names) & set(others)]
    deep = "train" in named and inside[named["train"]] and not any(_has_photos(top / name) for name in others)
    if same or deep or (not others and all(inside.values())):
        told = ", ".join(f"{folder}/" for folder in inside)
        missing = "no val/ or test/ beside it" if "train" in named else "no train/ beside it"
        alone = f"give {top / named['train']}, or add one" if "train" in named else "put the photos for training there"
        raise VerydeepError(f"{top} has {told} but {missing}: {alone}; --folders classes reads all folders as classes.")
    return _classes_with_note(named)


def _classes_with_note(named: dict[str, str]) -> Layout:
    told = ", ".join(f"{folder}/" for folder in named.values())
    verb = "is read as a class" if len(named) == 1 else "are read as classes"
    return Layout({}, f"{told} {verb}, as the folders beside (--folders splits reads them as sets)")


def _inside(folder: Path) -> list[str]:
    """The folders in a folder."""
    return list_folder(folder, Skipped()).folders


def _has_photos(folder: Path) -> bool:
    return bool(photos_in(folder, Skipped()))
