"""Names of classes: read, compared, numbered. A class is its place among a net's outputs; its name only finds it.

Names are compared in Unicode's form NFC, where a letter and its accent are the same however they were typed. Of
ILSVRC's names the WNID alone counts, as their words are spelt in several ways or left out. Where two classes of a net
share a name, as ILSVRC's cranes do, their places are part of their names: ``crane (134)``, counted from 0.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..core.text_files import read_text

WNID = re.compile(r"n\d{8}\b")


def nfc(name: str) -> str:
    """A name with its letters and accents put together."""
    return unicodedata.normalize("NFC", name)


def class_key(name: str) -> str:
    """What a class is known by: two names with equal keys are names of one class."""
    wnid = WNID.match(name)
    return wnid[0] if wnid else nfc(name)


def read_names(path: Path) -> tuple[str, ...]:
    """The names in a file of one a line, without blank lines at its end.

    Raises:
        VerydeepError: it cannot be read, or is not UTF-8.
    """
    return names_in(read_text(path))


def names_in(text: str) -> tuple[str, ...]:
    r"""The lines of a text, parted by ``\n`` or ``\r\n`` alone: names may have all other separators in them."""
    text = text.replace("\r\n", "\n")
    ending = "\n" if "\n" in text else "\r"  # of files of old Macs
    return tuple(line.strip(" \t\r") for line in text.rstrip(" \t\r\n").split(ending)) if text.strip() else ()


def distinct(names: Iterable[str]) -> tuple[str, ...]:
    """The names of a net's outputs, with their place behind those that several share."""
    names = tuple(names)
    counts = Counter(map(nfc, names))
    if max(counts.values(), default=1) == 1:
        return names
    return distinct(f"{name} ({place})" if counts[nfc(name)] > 1 else name for place, name in enumerate(names))


def one_spelling(names: Iterable[str]) -> dict[str, str]:
    """What to call each name: as it is spelt, or in NFC where it is spelt in several forms."""
    names = dict.fromkeys(names)
    forms = Counter(map(nfc, names))
    return {name: nfc(name) if forms[nfc(name)] > 1 else name for name in names}


def numbered(names: Sequence[str]) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """The classes that N names stand for, sorted, and the number of each name's class, (N,)."""
    called = one_spelling(names)
    classes = tuple(sorted(set(called.values())))
    place = {name: number for number, name in enumerate(classes)}
    return classes, np.array([place[called[name]] for name in names], dtype=np.int64)


def places_in(classes: Sequence[str], names: Sequence[str]) -> NDArray[np.int64]:
    """The place of each name among some classes; -1 where none, or more than one, is called so."""
    if same_classes(names, classes):
        return np.arange(len(classes), dtype=np.int64)
    keys = list(map(class_key, classes))
    counts = Counter(keys)
    place = {key: number for number, key in enumerate(keys) if counts[key] == 1}
    return np.array([place.get(class_key(name), -1) for name in names], dtype=np.int64)


def same_classes(names: Sequence[str] | None, others: Sequence[str] | None) -> bool:
    """Whether two lists are of the same classes in the same order; None is not known."""
    return names is not None and others is not None and list(map(class_key, names)) == list(map(class_key, others))


def place_of_class(name: str, classes: Sequence[str]) -> int | None:
    """A class's place by its name as it is, or else by its key; None where none, or more than one, is called so."""
    if name in classes:
        return list(classes).index(name)
    place = int(places_in(classes, [name])[0]) if classes else -1
    return None if place < 0 else place
