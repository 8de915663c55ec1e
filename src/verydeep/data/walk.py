"""Listing folders of images and annotations.

Skipped are hidden files and folders, those that operating systems, NAS devices and notebooks create, and links to
folders, which may form a circle. Skipped files are counted by kind, including images in unsupported formats. A folder
that cannot be read is an error.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from ..core.errors import VerydeepError
from .image_formats import READ, UNREAD, advice, kind_of_file

HIDDEN, SYSTEM, LINKS = "hidden", "system", "links to folders"
# In lower case; without hidden ones (.DS_Store, ._*, .git, .ipynb_checkpoints).
SYSTEM_NAMES = frozenset(
    {
        *("@eadir", "@recycle", "@recently-snapshot", "#recycle", "#snapshot"),  # NAS devices
        *("thumbs.db", "thumbs.db:encryptable", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini"),
        *("$recycle.bin", "system volume information", "lost+found", "__macosx", "__pycache__"),
        *("network trash folder", "temporary items", "icon\r"),
    }
)


@dataclass
class Skipped:
    """The files and folders skipped below a folder: by kind their number and the first, relative to ``folder``.

    Kinds are `HIDDEN`, `SYSTEM`, `LINKS`, keys of `UNREAD`, extensions, and those that callers add.
    """

    folder: str = ""
    counts: dict[str, int] = field(default_factory=dict)
    first: dict[str, str] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """The number of all; a folder counts as one."""
        return sum(self.counts.values())

    @property
    def unread(self) -> dict[str, int]:
        """The number of images in unsupported formats, by format."""
        return {kind: count for kind, count in self.counts.items() if kind in UNREAD}

    def note(self, kind: str, path: str | Path, count: int = 1) -> None:
        """Adds to the count of a kind."""
        self.counts[kind] = self.counts.get(kind, 0) + count
        self.first.setdefault(kind, os.path.relpath(path, self.folder) if self.folder else str(path))

    def to_json(self) -> dict[str, dict[str, int | str]]:
        """``{kind: {count, first}}``, the most frequent first."""
        kinds = sorted(self.counts, key=lambda kind: (-self.counts[kind], kind))
        return {kind: {"count": self.counts[kind], "first": self.first[kind]} for kind in kinds}

    def add(self, other: Skipped) -> None:
        """Adds the counts of another."""
        for kind, count in other.counts.items():
            self.note(kind, os.path.join(other.folder, other.first[kind]), count)


def joined(several: Iterable[Skipped]) -> Skipped:
    """The sum of all, each folder counted once."""
    total = Skipped()
    for skipped in {part.folder: part for part in several}.values():
        total.add(skipped)
    return total


def unread_sentences(skipped: Skipped) -> list[str]:
    """A message for each unsupported image format: the number of images, the first, and what to do."""
    return [
        f"{count} {kind} image{'s are' if count > 1 else ' is'} not supported "
        f"({'the first: ' if count > 1 else ''}{os.path.join(skipped.folder, skipped.first[kind])}): {advice(kind)}."
        for kind, count in sorted(skipped.unread.items())
    ]


@dataclass(frozen=True)
class Listing:
    """The entries of a folder by name, sorted, without skipped ones; files of every kind."""

    folders: list[str]
    files: list[str]


def passed_over(name: str) -> str | None:
    """Why a file or folder of this name is skipped, `HIDDEN` or `SYSTEM`; None if it is not."""
    return HIDDEN if name.startswith(".") else SYSTEM if name.lower() in SYSTEM_NAMES else None


def is_system(path: str | Path, pattern: Path) -> bool:
    """Whether a match of a glob pattern is in a `SYSTEM` folder that the pattern does not name."""
    return any(passed_over(part) == SYSTEM and part not in pattern.parts for part in Path(path).parts)


def list_folder(folder: Path, skipped: Skipped) -> Listing:
    """The entries of a folder, links to folders included; raises VerydeepError if it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            kinds = sorted((entry.name, _is_folder(entry)) for entry in entries)
    except OSError as fault:
        raise VerydeepError(_unreadable(folder, fault)) from None
    listing = Listing([], [])
    for name, is_folder in kinds:
        reason = passed_over(name)
        if reason:
            skipped.note(reason, folder / name)
        else:
            (listing.folders if is_folder else listing.files).append(name)
    return listing


def photos_in(folder: Path, skipped: Skipped) -> list[Path]:
    """The images directly in a folder, sorted; raises VerydeepError if it cannot be read."""
    photos = []
    for name in list_folder(folder, skipped).files:
        kind = kind_of_file(folder / name)
        if kind == READ:
            photos.append(folder / name)
        else:
            skipped.note(kind or extension_of(name), folder / name)
    return photos


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder or a link to one; a broken link or a link to itself is not."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def files_below(
    folder: Path,
    skipped: Skipped,
    kind: Callable[[Path], str | None] = kind_of_file,
    problems: list[str] | None = None,
) -> list[Path]:
    """The files below a folder, sorted; images by default.

    Args:
        kind: returns `READ` for a file to list; another kind, or None for its extension, by which a file is counted.
        problems: takes messages on folders that cannot be read; without it they are raised.

    Raises:
        VerydeepError: a folder cannot be read.
    """
    files: list[Path] = []

    def on_error(fault: OSError) -> None:
        message = _unreadable(Path(fault.filename), fault)
        if problems is None:
            raise VerydeepError(message) from None
        problems.append(message)

    for place, folders, names in os.walk(folder, onerror=on_error):
        parent = Path(place)
        folders[:] = [name for name in sorted(folders) if not _skip_folder(parent / name, skipped)]
        for name in sorted(names):
            file_kind = passed_over(name) or kind(parent / name)
            if file_kind == READ:
                files.append(parent / name)
            else:
                skipped.note(file_kind or extension_of(name), parent / name)
    return sorted(files)


def of_extension(*extensions: str) -> Callable[[Path], str | None]:
    """A ``kind`` for `files_below`: files with one of these extensions, in any case."""
    return lambda path: READ if path.suffix.lower() in extensions else None


def _skip_folder(path: Path, skipped: Skipped) -> bool:
    reason = passed_over(path.name) or (LINKS if path.is_symlink() else None)
    if reason:
        skipped.note(reason, path)
    return reason is not None


def extension_of(name: str) -> str:
    """The kind of other files: their extension in lower case."""
    return os.path.splitext(name)[1].lower() or "no extension"


def _unreadable(folder: Path, fault: OSError) -> str:
    return f"cannot read the folder {folder}: {fault.strerror}; make it readable, or move it elsewhere."
