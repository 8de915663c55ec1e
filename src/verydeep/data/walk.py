"""What lies in a folder, for every reader of photos and annotations.

Hidden files and folders, and those that operating systems, NAS devices and notebooks leave behind, are skipped below
the folder that is named, as is a link to a folder, which may lead in a circle. Whatever is skipped is counted by kind,
images of formats that are not read among them. A folder that cannot be read is an error and never an empty one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from ..core.errors import VerydeepError
from .image_formats import READ, UNREAD, advice, kind_of_file

HIDDEN, SYSTEM, LINKS = "hidden", "system", "links to folders"
# In small letters. Hidden ones (.DS_Store, ._*, .git, .ipynb_checkpoints) need no name.
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
    """What was skipped below a folder: by kind how many, and the first of them, a path below ``folder``.

    Kinds are `HIDDEN`, `SYSTEM`, `LINKS`, keys of `UNREAD`, extensions, and what callers add.
    """

    folder: str = ""
    counts: dict[str, int] = field(default_factory=dict)
    first: dict[str, str] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """Of all kinds; a folder counts as one."""
        return sum(self.counts.values())

    @property
    def unread(self) -> dict[str, int]:
        """Images of formats that are not read, by format."""
        return {kind: count for kind, count in self.counts.items() if kind in UNREAD}

    def note(self, kind: str, path: str | Path, count: int = 1) -> None:
        """Counts more of a kind."""
        self.counts[kind] = self.counts.get(kind, 0) + count
        self.first.setdefault(kind, os.path.relpath(path, self.folder) if self.folder else str(path))

    def to_json(self) -> dict[str, dict[str, int | str]]:
        """``{kind: {count, first}}``, the most frequent first."""
        kinds = sorted(self.counts, key=lambda kind: (-self.counts[kind], kind))
        return {kind: {"count": self.counts[kind], "first": self.first[kind]} for kind in kinds}

    def add(self, other: Skipped) -> None:
        """Counts what was skipped below the same folder."""
        for kind, count in other.counts.items():
            self.note(kind, os.path.join(self.folder, other.first[kind]), count)


def joined(several: Iterable[Skipped]) -> Skipped:
    """All that was skipped, each folder counted once; the first of a kind is told with its folder."""
    whole = Skipped()
    for skipped in {found.folder: found for found in several}.values():
        for kind, count in skipped.counts.items():
            whole.note(kind, os.path.join(skipped.folder, skipped.first[kind]), count)
    return whole


def unread_sentences(skipped: Skipped) -> list[str]:
    """A sentence for each image format that is not read: how many, the first of them, what to do."""
    return [
        f"{count} {kind} image{'s are' if count > 1 else ' is'} not read "
        f"({'the first: ' if count > 1 else ''}{os.path.join(skipped.folder, skipped.first[kind])}): {advice(kind)}."
        for kind, count in sorted(skipped.unread.items())
    ]


@dataclass(frozen=True)
class Listing:
    """One folder's entries by name, sorted, without what is skipped; files of every kind."""

    folders: list[str]
    files: list[str]


def passed_over(name: str) -> str | None:
    """Why an entry of this name is skipped, `HIDDEN` or `SYSTEM`; None where it is not."""
    return HIDDEN if name.startswith(".") else SYSTEM if name.lower() in SYSTEM_NAMES else None


def is_system(path: str | Path, pattern: Path) -> bool:
    """Whether a glob's match lies in what systems leave behind, and the pattern does not spell that."""
    return any(passed_over(part) == SYSTEM and part not in pattern.parts for part in Path(path).parts)


def list_folder(folder: Path, skipped: Skipped) -> Listing:
    """The entries of one folder; links to folders are among the folders.

    Raises:
        VerydeepError: it cannot be read.
    """
    try:
        with os.scandir(folder) as entries:
            kinds = sorted((entry.name, _is_folder(entry)) for entry in entries)
    except OSError as fault:
        raise VerydeepError(_unreadable(folder, fault)) from None
    found = Listing([], [])
    for name, is_folder in kinds:
        reason = passed_over(name)
        if reason:
            skipped.note(reason, folder / name)
        else:
            (found.folders if is_folder else found.files).append(name)
    return found


def photos_in(folder: Path, skipped: Skipped) -> list[Path]:
    """The photos that lie in one folder and not deeper, sorted.

    Raises:
        VerydeepError: it cannot be read.
    """
    photos = []
    for name in list_folder(folder, skipped).files:
        kind = kind_of_file(folder / name)
        if kind == READ:
            photos.append(folder / name)
        else:
            skipped.note(kind or extension_of(name), folder / name)
    return photos


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder or a link to one; a link that leads nowhere or to itself is none."""
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
    """The files to read below a folder, sorted; photos by default.

    Args:
        kind: `READ` for a file to read, another kind or None (then its extension) to count a file under.
        problems: takes the sentences of folders that cannot be read, which are errors without it.

    Raises:
        VerydeepError: a folder cannot be read.
    """
    files: list[Path] = []

    def refuse(fault: OSError) -> None:
        sentence = _unreadable(Path(fault.filename), fault)
        if problems is None:
            raise VerydeepError(sentence) from None
        problems.append(sentence)

    for place, folders, names in os.walk(folder, onerror=refuse):
        here = Path(place)
        folders[:] = [name for name in sorted(folders) if not _skip_folder(here / name, skipped)]
        for name in sorted(names):
            found = passed_over(name) or kind(here / name)
            if found == READ:
                files.append(here / name)
            else:
                skipped.note(found or extension_of(name), here / name)
    return sorted(files)


def of_extension(*extensions: str) -> Callable[[Path], str | None]:
    """A kind for `files_below`: `READ` where a file has one of these extensions, in capitals or not."""
    return lambda path: READ if path.suffix.lower() in extensions else None


def _skip_folder(path: Path, skipped: Skipped) -> bool:
    reason = passed_over(path.name) or (LINKS if path.is_symlink() else None)
    if reason:
        skipped.note(reason, path)
    return reason is not None


def extension_of(name: str) -> str:
    """The kind that other files are counted under: their extension in small letters."""
    return os.path.splitext(name)[1].lower() or "no extension"


def _unreadable(folder: Path, fault: OSError) -> str:
    return f"cannot read the folder {folder}: {fault.strerror}; make it readable, or move it elsewhere."
