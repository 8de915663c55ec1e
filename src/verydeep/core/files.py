"""Files: atomic writes, folder locks, names of new files, JSON documents, text of any encoding, hashes."""

from __future__ import annotations

import codecs
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

LEFT_OVER = re.compile(r"\..+\.\d+\.tmp")  # names of unfinished files
MOST_NAME_BYTES = 255  # of a file's name, in most file systems
DIGEST_LETTERS = 8
LEAVING = 2.0  # seconds after which the children of a killed process have ended too
BYTE_ORDER_MARKS = {  # those of UTF-32 first, as UTF-32LE's begins with UTF-16LE's
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
WIDE = ("UTF-32LE", "UTF-32BE", "UTF-16LE", "UTF-16BE")
NO_LETTERS = ("Cc", "Cn", "Co", "Cs")  # categories: control, unassigned, private use, surrogate
SINGLE_BYTE = ("latin1", "CP1252")  # CP1252 has letters where Latin-1 has control characters
_locking: Any = None  # locks the folder itself: filelock would leave a file in it
with contextlib.suppress(ImportError):  # not on Windows
    import fcntl as _locking


def write_atomically(
    path: Path,
    write: Callable[[Any], object],
    check: Callable[[Path], object] | None = None,
    previous: Path | None = None,
) -> None:
    """Writes a temporary file in the same folder, flushes it to disk and renames it.

    Args:
        path: its folder is created if it does not exist.
        write: is passed the open binary file.
        check: is passed the path of the written file; raises VerydeepError if the file is wrong.
        previous: another name in the same folder, which a replaced file gets.

    Raises:
        VerydeepError: it could not be written; the old file is intact, and no temporary file is left.
    """
    temporary = _temporary(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            if path.exists():  # while the new file is still empty
                temporary.chmod(path.stat().st_mode & 0o7777)
            write(file)
            file.flush()
            os.fsync(file.fileno())
        if check is not None:
            check(temporary)
        if previous is not None and path.exists():
            keep_as(path, previous)
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as fault:
        _remove(temporary)
        raise VerydeepError(cannot_write(path, fault)) from None
    except BaseException:  # Ctrl-C too
        _remove(temporary)
        raise


def cache_folder() -> Path:
    """``VERYDEEP_CACHE``, or ``verydeep`` in the user's cache directory."""
    chosen = os.environ.get("VERYDEEP_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "verydeep"


def keep_as(path: Path, place: Path) -> None:
    """Links a file to a second name, replacing what had that name; moves it if links are not supported.

    Raises:
        OSError: neither is possible.
    """
    temporary = _temporary(place)
    try:
        os.link(path, temporary)
    except OSError:
        os.replace(path, place)
        return
    os.replace(temporary, place)
    _remove(temporary)  # POSIX: renaming does nothing if both are links to one file


def _temporary(path: Path) -> Path:
    """The name of a file while it is written."""
    return path.with_name(short_name(f".{path.name}", f".{os.getpid()}.tmp"))


def short_name(stem: str, ending: str = "") -> str:
    """A file name of allowed length: a long stem is shortened to its beginning and a digest of all of it."""
    encoded, most = os.fsencode(stem), MOST_NAME_BYTES - len(os.fsencode(ending))
    if len(encoded) <= most:
        return stem + ending
    digest = hashlib.sha256(encoded).hexdigest()[:DIGEST_LETTERS]
    return f"{encoded[: most - DIGEST_LETTERS - 1].decode('utf8', 'ignore')}-{digest}{ending}"


class FreeNames:
    """Names for new files in a folder after the images that they show, each short enough and unique.

    Names that differ only in case or Unicode form count as equal, as in some file systems (macOS, Windows).
    """

    def __init__(self, folder: Path, kept: Iterable[Path]) -> None:
        """``kept``: files, in any folder, that must not be replaced."""
        self._folder = folder
        self._taken = {_normalised(place) for path in kept for place in (path, path.resolve())}

    def after(self, photo: str, *endings: str) -> list[Path]:
        """A new file for each ending, such as ``-map.png``, named after the image and numbered if that is taken."""
        number = 1
        while True:
            ends = [f"{'' if number == 1 else f'-{number}'}{ending}" for ending in endings]
            longest = max(ends, key=len)
            stem = short_name(Path(photo).stem, longest).removesuffix(longest)
            paths = [self._folder / f"{stem}{end}" for end in ends]
            places = {_normalised(path) for path in paths}
            if not places & self._taken:
                self._taken |= places
                return paths
            number += 1


def _normalised(path: Path) -> tuple[Path, str]:
    """The folder, and the name without case and Unicode form."""
    name = unicodedata.normalize("NFC", unicodedata.normalize("NFC", path.name).casefold())
    return path.parent.resolve(), name


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()


def cannot_write(path: Path, fault: OSError) -> str:
    """The message for a file that could not be written."""
    kept = "; the one saved before is intact" if path.is_file() else ""
    full = fault.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    advice = "free disk space, then resume with the same command" if full else "use another folder, or fix this one"
    return f"cannot write {path}: {fault.strerror or fault}{kept}; {advice}."


def check_place(folder: Path, flag: str = "--out") -> None:
    """Raises VerydeepError unless a folder is writable, or can be created.

    Args:
        flag: the flag that named it, for the message.
    """
    existing = next(place for place in (folder, *folder.absolute().parents) if place.exists() or place.is_symlink())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        what = "is not a folder" if not existing.is_dir() else "is not writable"
        raise VerydeepError(f"cannot write to {folder}: {existing} {what}; use another {flag}.")


@contextlib.contextmanager
def only_one(folder: Path, patience: float = LEAVING) -> Iterator[None]:
    """A context in which a folder is locked for this process; it is created if it does not exist.

    Temporary files of killed processes are removed from it. A folder that was created here and stays empty is removed.

    Args:
        patience: seconds to wait for another process; those that a killed one started take a moment to end.

    Raises:
        VerydeepError: another process uses the folder.
    """
    check_place(folder)
    new = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY) if _locking is not None else None
    except OSError as fault:
        raise VerydeepError(f"cannot create the folder {folder}: {fault.strerror}; use another --out.") from None
    try:
        if handle is not None and not _locked(handle, patience):
            raise VerydeepError(f"another process is using {folder}: wait for it, or use another --out.")
        for name in filter(LEFT_OVER.fullmatch, os.listdir(folder)):
            _remove(folder / name)
        yield
    finally:
        with contextlib.suppress(OSError):  # folders that are not empty stay
            for place in new:
                place.rmdir()
        if handle is not None:
            os.close(handle)


def taken(folder: Path) -> bool:
    """Whether a process has locked a folder with `only_one`; always False on Windows."""
    if _locking is None or not folder.is_dir():
        return False
    handle = os.open(folder, os.O_RDONLY)
    try:
        _locking.flock(handle, _locking.LOCK_SH | _locking.LOCK_NB)  # shared: two that check do not block each other
    except OSError:
        return True
    finally:
        os.close(handle)
    return False


def _locked(handle: int, patience: float) -> bool:
    """Locks an open folder; False if another process holds the lock for ``patience`` seconds."""
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
    with contextlib.suppress(OSError):  # some file systems do not support it
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_json(path: Path, value: Any) -> None:
    """Writes indented JSON, in which names that are not UTF-8 keep their bytes; raises VerydeepError if that fails."""
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    write_atomically(path, lambda file: file.write(text.encode("utf8", "surrogateescape")))


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object; raises VerydeepError if it is missing or broken."""
    try:
        value = json.loads(path.read_bytes().decode("utf8", "surrogateescape"))
    except OSError as fault:
        raise VerydeepError(f"cannot read {path}: {fault.strerror or fault}; the folder is incomplete.") from None
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise VerydeepError(f"{path} is corrupted: it does not contain a JSON object.")
    return value


def read_text(path: Path) -> str:
    """Reads a user's text file: UTF-8, with or without a byte order mark.

    Raises:
        VerydeepError: it cannot be read, or has another encoding; the message names it and the way to convert it.
    """
    try:
        data = path.read_bytes()
    except OSError as fault:
        raise VerydeepError(f"cannot read {path}: {fault.strerror or fault}.") from None
    try:
        text = data.decode("utf8").lstrip("\ufeff")
        place = data.find(b"\0")
    except UnicodeDecodeError as fault:
        text, place = "", fault.start
    if place < 0:
        return text
    line = data.count(b"\n", 0, place) + 1
    # A file with valid UTF-8 beyond ASCII is damaged, and not in another encoding.
    encoding = _likely_encoding(data) if data[:place].isascii() else ""
    if not encoding:
        raise VerydeepError(f"{path}, line {line}: byte {data[place]:#04x} is not UTF-8 text; is the file corrupted?")
    convert = f"iconv -f {encoding} -t UTF-8 {path.name} > {path.stem}-utf8{path.suffix}"
    raise VerydeepError(f"{path} is not UTF-8 but looks like {encoding} (line {line}): convert it with `{convert}`.")


def _likely_encoding(data: bytes) -> str:
    """The encoding, by iconv's name, of bytes that are not UTF-8; empty if they are not text in any."""
    for mark, name in BYTE_ORDER_MARKS.items():
        if data.startswith(mark):
            return name
    for name in WIDE if b"\0" in data else SINGLE_BYTE:
        with contextlib.suppress(UnicodeDecodeError):
            letters = set(data.decode(name)) - set("\r\n\t")
            # Bytes in the wrong order are letters too, but hardly any of them ASCII.
            if min(letters, default="") < "\x7f" and not any(
                unicodedata.category(letter) in NO_LETTERS for letter in letters
            ):
                return name
    return ""


@contextlib.contextmanager
def utf8_path(path: Path) -> Iterator[Path]:
    """The path of an existing file, for libraries that only take UTF-8.

    Another name is replaced by that of an open file descriptor. Raises OSError if there is no such file.
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
    """Raises ValueError for half of a surrogate pair, which JSON can contain and files cannot.

    Python's form of names that are not UTF-8 is allowed.
    """
    "".join(texts).encode("utf8", "surrogateescape")


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
