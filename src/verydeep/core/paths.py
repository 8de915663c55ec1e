"""Paths as people write them: what is there as it is written wins over any other reading of its signs."""

from __future__ import annotations

import glob
import os
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit


def typed_path(word: str) -> str:
    """A word of a command line with ``~`` as a shell reads it, also after ``--flag=`` or ``NAME:``; without file://."""
    flag, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
    if value.startswith("file://"):
        return f"{flag}{equals}{unquote(urlsplit(value).path)}"
    name, home, rest = re.fullmatch(r"((?:[\w-]+:)?)(~/)?(.*)", value, re.DOTALL).groups()  # type: ignore[union-attr]
    if home and not os.path.lexists("~"):
        value = f"{name}{os.path.expanduser('~')}/{rest}"
    return f"{flag}{equals}{value}"


def listed_paths(text: str) -> list[str]:
    """Paths with commas between, each perhaps after ``FOLDER=``; one that is there may have commas in its name."""
    parts, found = text.split(","), []
    while parts:
        whole = (count for count in range(len(parts), 1, -1) if _is_there(",".join(parts[:count])))
        count = next(whole, 1)
        found.append(",".join(parts[:count]).strip())
        parts = parts[count:]
    return [path for path in found if path]


def _is_there(place: str) -> bool:
    return any(os.path.exists(path.strip()) for path in (place, place.partition("=")[2]))


def files_matching(pattern: str) -> list[str]:
    """The files of a glob, sorted; folders before its first sign that are there as written are taken so.

    Then ``photos [2024]/*.jpg`` are the JPEGs of a folder of that name. Where there are none, all signs count.
    """
    path = Path(pattern)
    there = next(folder for folder in (*path.parents, Path()) if folder.is_dir())
    below = glob.glob(str(path.relative_to(there)), root_dir=there, recursive=True)
    found = [str(there / name) for name in below] or glob.glob(pattern, recursive=True)
    return sorted(item for item in found if os.path.isfile(item))


def names_a_folder(path: str | Path) -> bool:
    """Whether a new path is a folder's: it has no ending, or a version's (``net-v1.0``), or a slash at its end."""
    written = str(path)
    return (
        written.endswith(("/", os.sep)) or Path(path).is_dir() or re.fullmatch(r"|\.\d+", Path(path).suffix) is not None
    )
