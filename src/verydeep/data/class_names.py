"""Class names: reading, comparing, numbering.

Names are compared in Unicode's normal form NFC, which does not depend on how accents were typed. Of ILSVRC's names only
the WNID counts, as their words are spelt in several ways or left out. If two classes of a net share a name, as ILSVRC's
cranes do, the number of the output, from 0, is added: ``crane (134)``.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..core.files import read_text

WNID = re.compile(r"n\d{8}\b")


def nfc(name: str) -> str:
    """A name in Unicode's normal form NFC."""
    return unicodedata.normalize("NFC", name)


def class_key(name: str) -> str:
    """The key that names of one class share."""
    wnid = WNID.match(name)
    return wnid[0] if wnid else nfc(name)


def display_name(name: str) -> str:
    """A class name as people read it: of ILSVRC's the first of its words, then the WNID; others as they are."""
    short = caption(name)
    return name if short == name else f"{short} ({class_key(name)})"


def caption(name: str) -> str:
    """The same in a picture, without the WNID."""
    wnid, _, words = name.partition(" ")
    return words.split(",")[0] if words and WNID.fullmatch(wnid) else name


def read_names(path: Path) -> tuple[str, ...]:
    """The lines of a file, without blank lines at its end; raises VerydeepError if it is unreadable or not UTF-8."""
    return names_in(read_text(path))


def names_in(text: str) -> tuple[str, ...]:
    r"""The lines of a text, split at ``\n`` or ``\r\n`` only: names may contain Unicode's other line separators."""
    text = text.replace("\r\n", "\n")
    ending = "\n" if "\n" in text else "\r"  # files from old Macs
    return tuple(line.strip(" \t\r") for line in text.rstrip(" \t\r\n").split(ending)) if text.strip() else ()


def distinct(names: Iterable[str]) -> tuple[str, ...]:
    """Unique names of a net's outputs: the number of the output is added to repeated names."""
    names = tuple(names)
    counts = Counter(map(nfc, names))
    if max(counts.values(), default=1) == 1:
        return names
    return distinct(f"{name} ({place})" if counts[nfc(name)] > 1 else name for place, name in enumerate(names))


def one_spelling(names: Iterable[str]) -> dict[str, str]:
    """One spelling for each name: its own, or NFC if it occurs in several normal forms."""
    names = dict.fromkeys(names)
    forms = Counter(map(nfc, names))
    return {name: nfc(name) if forms[nfc(name)] > 1 else name for name in names}


def numbered(names: Sequence[str]) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """The distinct classes of N names, sorted, and the number of each name's class, (N,)."""
    spelling = one_spelling(names)
    classes = tuple(sorted(set(spelling.values())))
    place = {name: number for number, name in enumerate(classes)}
    return classes, np.array([place[spelling[name]] for name in names], dtype=np.int64)


def places_in(classes: Sequence[str], names: Sequence[str]) -> NDArray[np.int64]:
    """The index of each name's class; -1 if no class, or more than one, has the name."""
    if same_classes(names, classes):
        return np.arange(len(classes), dtype=np.int64)
    keys = list(map(class_key, classes))
    counts = Counter(keys)
    place = {key: number for number, key in enumerate(keys) if counts[key] == 1}
    return np.array([place.get(class_key(name), -1) for name in names], dtype=np.int64)


def same_classes(names: Sequence[str] | None, others: Sequence[str] | None) -> bool:
    """Whether two lists name the same classes in the same order; False if either is None, unknown."""
    return names is not None and others is not None and list(map(class_key, names)) == list(map(class_key, others))


def place_of_class(name: str, classes: Sequence[str]) -> int | None:
    """The index of a class by its exact name, or else by its key; None if no class, or more than one, has it."""
    if name in classes:
        return list(classes).index(name)
    place = int(places_in(classes, [name])[0]) if classes else -1
    return None if place < 0 else place
