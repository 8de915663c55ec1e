"""Files that are whole or not there: atomic writes, JSON documents, hashes."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from .errors import VerydeepError

_locking: Any = None
with contextlib.suppress(ImportError):  # Windows has none
    import fcntl as _locking


def write_atomically(path: Path, write: Callable[[Any], object]) -> None:
    """Writes a file beside its place, flushes it to disk and renames it there.

    Args:
        path: its folder is made where it is missing.
        write: told the open binary file.

    Raises:
        VerydeepError: it could not be written; what was at ``path`` is intact, nothing half-written is left.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            beside.chmod(path.stat().st_mode & 0o7777)
        os.replace(beside, path)
        _sync_folder(path.parent)
    except OSError as fault:
        _remove(beside)
        raise VerydeepError(cannot_write(path, fault)) from None
    except BaseException:  # Ctrl-C too
        _remove(beside)
        raise


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()


def cannot_write(path: Path, fault: OSError) -> str:
    """The sentence for a file that could not be written."""
    kept = "; the one saved before is intact" if path.is_file() else ""
    full = fault.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    advice = "make room there and begin again where it stopped" if full else "use another place, or mend this one"
    return f"cannot write {path}: {fault.strerror or fault}{kept}; {advice}."


def check_place(folder: Path) -> None:
    """Raises VerydeepError where a folder is not there and cannot be made, or cannot be written to."""
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists() or place.is_symlink())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        what = "is not a folder" if not there.is_dir() else "cannot be written to"
        raise VerydeepError(f"{there} {what}: nothing can be stored in {folder}; give another --out.")


@contextlib.contextmanager
def only_one(folder: Path, patience: float = 0.0) -> Iterator[None]:
    """Keeps other processes that ask for the same out of a folder, which is made where it is missing.

    Args:
        patience: seconds to wait for another process to leave.

    Raises:
        VerydeepError: another process is at work there.
    """
    check_place(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if _locking is None:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        if not _locked(handle, patience):
            raise VerydeepError(f"another process is at work in {folder}: wait for it, or give another --out.")
        yield
    finally:
        os.close(handle)


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


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, as hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
