"""Files that are whole or not there: atomic writes, JSON documents, hashes."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import time
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from .errors import VerydeepError

LEFT_OVER = re.compile(r"\..+\.\d+\.tmp")  # names of files that are being written
MOST_NAME_BYTES = 255  # of a file's name, in most file systems
DIGEST_LETTERS = 8
LEAVING = 2.0  # seconds in which what a killed process had begun ends too
_locking: Any = None  # locks of a folder itself: filelock needs a file in it, which then stays there
with contextlib.suppress(ImportError):  # Windows has none
    import fcntl as _locking


def write_atomically(
    path: Path,
    write: Callable[[Any], object],
    check: Callable[[Path], object] | None = None,
    previous: Path | None = None,
) -> None:
    """Writes a file beside its place, flushes it to disk and renames it there.

    Args:
        path: its folder is made where it is missing.
        write: told the open binary file.
        check: told the written file, raises VerydeepError where it is not as it should be.
        previous: a place in the same folder where what was at ``path`` is kept.

    Raises:
        VerydeepError: it could not be written; what was at ``path`` is intact, nothing half-written is left.
    """
    beside = _beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("wb") as file:
            if path.exists():  # before there is anything in it to read
                beside.chmod(path.stat().st_mode & 0o7777)
            write(file)
            file.flush()
            os.fsync(file.fileno())
        if check is not None:
            check(beside)
        if previous is not None and path.exists():
            keep_as(path, previous)
        os.replace(beside, path)
        _sync_folder(path.parent)
    except OSError as fault:
        _remove(beside)
        raise VerydeepError(cannot_write(path, fault)) from None
    except BaseException:  # Ctrl-C too
        _remove(beside)
        raise


def keep_as(path: Path, place: Path) -> None:
    """Gives a file a second name, in place of what had that name; where links are not to be had, it is moved.

    Raises:
        OSError: neither can be done.
    """
    beside = _beside(place)
    try:
        os.link(path, beside)
    except OSError:
        os.replace(path, place)
        return
    os.replace(beside, place)
    _remove(beside)  # it stays where both are names of the same file, which POSIX asks of a rename


def _beside(path: Path) -> Path:
    """Where a file is written before it is whole."""
    return path.with_name(short_name(f".{path.name}", f".{os.getpid()}.tmp"))


def short_name(stem: str, ending: str = "") -> str:
    """A file's name that is not too long: of a long stem its beginning and a digest of all of it, then the ending."""
    whole, most = os.fsencode(stem), MOST_NAME_BYTES - len(os.fsencode(ending))
    if len(whole) <= most:
        return stem + ending
    digest = hashlib.sha256(whole).hexdigest()[:DIGEST_LETTERS]
    return f"{whole[: most - DIGEST_LETTERS - 1].decode('utf8', 'ignore')}-{digest}{ending}"


class FreeNames:
    """Names for new files in a folder after the photos they show: each short enough, and none given twice.

    Names that differ only in case or in Unicode form are one name, as some file systems (macOS, Windows) take them.
    """

    def __init__(self, folder: Path, kept: Iterable[Path]) -> None:
        """``kept``: files that no new one may replace, wherever they are."""
        self._folder = folder
        self._taken = {_place(place) for path in kept for place in (path, path.resolve())}

    def after(self, photo: str, *endings: str) -> list[Path]:
        """A new file for each ending, such as ``-map.png``, called after the photo; numbered where that is taken."""
        number = 1
        while True:
            ends = [f"{'' if number == 1 else f'-{number}'}{ending}" for ending in endings]
            longest = max(ends, key=len)
            stem = short_name(Path(photo).stem, longest).removesuffix(longest)
            paths = [self._folder / f"{stem}{end}" for end in ends]
            places = {_place(path) for path in paths}
            if not places & self._taken:
                self._taken |= places
                return paths
            number += 1


def _place(path: Path) -> tuple[Path, str]:
    """What a file system that ignores case and Unicode form knows a file by."""
    name = unicodedata.normalize("NFC", unicodedata.normalize("NFC", path.name).casefold())
    return path.parent.resolve(), name


def _sweep(folder: Path) -> None:
    """Removes what processes left that were killed while they wrote a file."""
    for name in os.listdir(folder):
        if LEFT_OVER.fullmatch(name):
            _remove(folder / name)


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()


def cannot_write(path: Path, fault: OSError) -> str:
    """The sentence for a file that could not be written."""
    kept = "; the one saved before is intact" if path.is_file() else ""
    full = fault.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    advice = "free disk space, then resume with the same command" if full else "use another folder, or fix this one"
    return f"cannot write {path}: {fault.strerror or fault}{kept}; {advice}."


def check_place(folder: Path, asked: str = "--out") -> None:
    """Raises VerydeepError where a folder is not there and cannot be made, or cannot be written to.

    Args:
        asked: the flag that named it.
    """
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists() or place.is_symlink())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        what = "is not a folder" if not there.is_dir() else "cannot be written to"
        raise VerydeepError(f"{there} {what}: nothing can be stored in {folder}; give another {asked}.")


@contextlib.contextmanager
def only_one(folder: Path, patience: float = LEAVING) -> Iterator[None]:
    """Keeps other processes that ask for the same out of a folder, which is made where it is missing.

    What killed processes left of files they wrote there is removed, and so is a folder made here that stays empty.

    Args:
        patience: seconds to wait for another process to leave; what a killed one had begun takes a moment to end.

    Raises:
        VerydeepError: another process is at work there.
    """
    check_place(folder)
    new = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY) if _locking is not None else None
    except OSError as fault:
        raise VerydeepError(f"cannot make the folder {folder}: {fault.strerror}; give another --out.") from None
    try:
        if handle is not None and not _locked(handle, patience):
            raise VerydeepError(f"another process is at work in {folder}: wait for it, or give another --out.")
        _sweep(folder)
        yield
    finally:
        with contextlib.suppress(OSError):  # what holds something stays
            for place in new:
                place.rmdir()
        if handle is not None:
            os.close(handle)


def taken(folder: Path) -> bool:
    """Whether a process is at work in a folder, as `only_one` keeps it; never where the system has no such locks."""
    if _locking is None or not folder.is_dir():
        return False
    handle = os.open(folder, os.O_RDONLY)
    try:
        _locking.flock(handle, _locking.LOCK_SH | _locking.LOCK_NB)  # shared: two that look are not in each other's way
    except OSError:
        return True
    finally:
        os.close(handle)
    return False


def _locked(handle: int, patience: float) -> bool:
    """Whether the lock is ours, within ``patience`` seconds."""
    until = time.monotonic() + patience
    while True:
        try:
            _locking.flock(handle, _locking.LOCK_EX | _locking.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= until:
                return False
            time.sleep(0.2)


def _sync_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):  # some file systems cannot, and then the rename is all there is
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_json(path: Path, value: Any) -> None:
    """A JSON document, indented, for people and programs; names that are not UTF-8 keep their bytes.

    Raises:
        VerydeepError: it cannot be written.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    write_atomically(path, lambda file: file.write(text.encode("utf8", "surrogateescape")))


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; raises VerydeepError where it is missing or broken."""
    try:
        value = json.loads(path.read_bytes().decode("utf8", "surrogateescape"))
    except OSError as fault:
        raise VerydeepError(f"cannot read {path}: {fault.strerror or fault}; the run's folder is not whole.") from None
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise VerydeepError(f"{path} is broken: it does not hold a JSON object.")
    return value


@contextlib.contextmanager
def utf8_path(path: Path) -> Iterator[Path]:
    """A path of an existing file that libraries not written in Python take, which want names in UTF-8.

    A name of other bytes is replaced by that of an open descriptor. Raises OSError where there is no such file.
    """
    try:
        str(path).encode("utf8")
    except UnicodeEncodeError:
        handle = os.open(path, os.O_RDONLY)
        try:
            yield Path(f"/dev/fd/{handle}")
        finally:
            os.close(handle)
    else:
        yield path


def check_text(*texts: str) -> None:
    """Raises ValueError for half of a surrogate pair, which JSON can tell and no file's name or text can hold.

    Names that are not UTF-8 are well, as Python gives them.
    """
    "".join(texts).encode("utf8", "surrogateescape")


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, as hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
