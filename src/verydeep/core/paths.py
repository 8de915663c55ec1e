"""Paths as users write them: a path that exists exactly as written is never read as a pattern or a list."""

from __future__ import annotations

import glob
import os
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit


def typed_path(word: str) -> str:
    """An argument with ``~`` expanded, also after ``--flag=`` or ``NAME:``, and without ``file://``."""
    flag, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
    if value.startswith("file://"):
        return f"{flag}{equals}{unquote(urlsplit(value).path)}"
    name, home, rest = re.fullmatch(r"((?:[\w-]+:)?)(~/)?(.*)", value, re.DOTALL).groups()  # type: ignore[union-attr]
    if home and not os.path.lexists("~"):
        value = f"{name}{os.path.expanduser('~')}/{rest}"
    return f"{flag}{equals}{value}"


def listed_paths(text: str) -> list[str]:
    """Comma-separated paths, each optionally after ``FOLDER=``; an existing path may contain commas."""
    parts, paths = text.split(","), []
    while parts:
        counts = (count for count in range(len(parts), 1, -1) if _exists(",".join(parts[:count])))
        count = next(counts, 1)
        paths.append(",".join(parts[:count]).strip())
        parts = parts[count:]
    return [path for path in paths if path]


def _exists(place: str) -> bool:
    return any(os.path.exists(path.strip()) for path in (place, place.partition("=")[2]))


def files_matching(pattern: str) -> list[str]:
    """The files that match a glob pattern, sorted; leading folders that exist as written are taken literally.

    So ``photos [2024]/*.jpg`` matches the JPEGs of a folder of that name. If it matches none, the whole is a pattern.
    """
    path = Path(pattern)
    folder = next(parent for parent in (*path.parents, Path()) if parent.is_dir())
    below = glob.glob(str(path.relative_to(folder)), root_dir=folder, recursive=True)
    matches = [str(folder / name) for name in below] or glob.glob(pattern, recursive=True)
    return sorted(match for match in matches if os.path.isfile(match))


def names_a_folder(path: str | Path) -> bool:
    """Whether a new path names a folder: it has no extension, or a version's (``net-v1.0``), or a trailing slash."""
    written = str(path)
    return (
        written.endswith(("/", os.sep)) or Path(path).is_dir() or re.fullmatch(r"|\.\d+", Path(path).suffix) is not None
    )
