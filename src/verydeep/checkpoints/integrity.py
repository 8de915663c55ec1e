"""Corruption checks: safetensors files whose header contains SHA-256 digests of the tensors and of the header.

There are two digests, so that metadata can be verified without reading the tensors: one of the tensors' bytes, and one
of the header, the first digest included. Any reader of safetensors reads these files; a file of verydeep without
digests, or with wrong ones, is refused.

Files of strangers are opened by `open_safetensors`, which first checks what the format requires and the library does
not: that the header begins with ``{`` and has no key twice, and that reading it takes little memory.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Literal

from safetensors import safe_open

from ..core.errors import VerydeepError
from ..core.files import utf8_path, write_atomically

OF_TENSORS, OF_HEADER = "tensors_sha256", "header_sha256"
METADATA = "__metadata__"
LENGTH = 8  # bytes of a safetensors file before its header, the length of the header
LONGEST_HEADER = 100_000_000  # by the format's own rule
MOST_TEXTS, MOST_SIGNS = 100_000, 2**22  # of a header: strings, and bytes outside of them; nets have a few hundred
PIECE = 2**22


@contextmanager
def open_safetensors(path: Path, framework: Literal["pt", "numpy"] = "pt") -> Iterator[Any]:
    """A safetensors file as `safetensors.safe_open` opens it.

    Raises:
        ValueError, OSError, SafetensorError: it is missing or broken.
    """
    with path.open("rb") as file:
        _read_header(file)
    with utf8_path(path) as name, safe_open(name, framework=framework) as opened:
        yield opened


def write_sealed(path: Path, data: bytes, previous: Path | None = None) -> None:
    """Writes the bytes of a safetensors file, with digests, atomically.

    Args:
        previous: where the replaced file is kept, once the new one has been read back and verified.

    Raises:
        VerydeepError: the disk is full, not writable, or returns other bytes than were written; the old file is intact.
    """
    body = memoryview(data)[LENGTH + int.from_bytes(data[:LENGTH], "little") :]
    header = json.loads(data[LENGTH : len(data) - len(body)])
    header.setdefault(METADATA, {})[OF_TENSORS] = hashlib.sha256(body).hexdigest()
    _write(path, (_head(header), body), previous is not None, previous)


def replace_entry(path: Path, key: str, text: str) -> None:
    """Replaces an entry of a sealed file's metadata, atomically; all else stays equal to the byte.

    Raises:
        VerydeepError: as `write_sealed`, or the file is broken.
    """
    header = read_head(path)
    if header is None:
        raise VerydeepError(f"{path} has no digests: it is not a file of verydeep.")
    header[METADATA][key] = text
    with path.open("rb") as file:
        file.seek(_body_start(file))
        _write(path, (_head(header), file.read()), verified=True)


def sha256_with_entry(path: Path, key: str, text: str) -> str:
    """The SHA-256 that a sealed file would have with another entry in its metadata."""
    header = read_head(path)
    assert header is not None
    header[METADATA][key] = text
    digest = hashlib.sha256(_head(header))
    with path.open("rb") as file:
        file.seek(_body_start(file))
        while piece := file.read(PIECE):
            digest.update(piece)
    return digest.hexdigest()


def read_head(path: Path) -> dict[str, Any] | None:
    """The verified header of a sealed file without its own digest; None where it has no digests."""
    with path.open("rb") as file:
        header = _header(path, file, None)
    if header is not None:
        del header[METADATA][OF_HEADER]
    return header


def _body_start(file: Any) -> int:
    file.seek(0)
    return LENGTH + int.from_bytes(file.read(LENGTH), "little")


def _head(header: dict[str, Any]) -> bytes:
    """The bytes of a file before its tensors: the header, with its digest."""
    sealed = {**header, METADATA: {**header[METADATA], OF_HEADER: _digest(header)}}
    text = json.dumps(sealed).encode()
    text += b" " * (-len(text) % LENGTH)
    return len(text).to_bytes(LENGTH, "little") + text


def _write(path: Path, pieces: Sequence[bytes | memoryview], verified: bool, previous: Path | None = None) -> None:
    """Writes a sealed file atomically; where it is to be ``verified`` it is read back before it replaces another."""

    def read_back(beside: Path) -> None:
        try:
            check_seal(beside)
        except VerydeepError:
            raise VerydeepError(
                f"{path} could not be saved: its disk returns other bytes than were written; the one saved before "
                "is intact. Use another disk."
            ) from None

    write_atomically(path, lambda file: file.writelines(pieces), read_back if verified else None, previous)


def check_seal(path: Path, key: str | None = None) -> None:
    """Raises VerydeepError where a file's bytes do not match its digests.

    Args:
        key: the metadata key of verydeep's files; a file that has it and no digests is refused.
    """
    with path.open("rb") as file:
        header = _header(path, file, key)
        if header is None:
            return
        digest = hashlib.file_digest(file, "sha256")  # from where the header ends
    if digest.hexdigest() != header[METADATA][OF_TENSORS]:
        raise VerydeepError(f"{path} is corrupted: its bytes are not those that were written (SHA-256).")


def check_header(path: Path, key: str | None = None) -> None:
    """As `check_seal`, for the header only."""
    with path.open("rb") as file:
        _header(path, file, key)


def _read_header(file: IO[bytes]) -> dict[str, Any]:
    """The header at the start of an open file; raises ValueError where it is not one."""
    length = int.from_bytes(file.read(LENGTH), "little")
    if length > LONGEST_HEADER:
        raise ValueError(f"a header of {length:,} bytes is too large")
    text = file.read(length)
    if len(text) < length or not text.startswith(b"{"):
        raise ValueError("it has no header")
    quotes = text.replace(rb"\\", b"").replace(rb"\"", b"")
    if quotes.count(b'"') > 2 * MOST_TEXTS or sum(map(len, quotes.split(b'"')[::2])) > MOST_SIGNS:
        raise ValueError("its header has too many entries")
    try:
        header: dict[str, Any] = json.loads(text.decode("utf8"), object_pairs_hook=_with_each_key_once)
    except RecursionError:
        raise ValueError("its header is nested too deeply") from None
    return header


def _with_each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; raises ValueError for a key that readers would take from different places."""
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError("its header has a key twice")
    return values


def _header(path: Path, file: Any, key: str | None) -> dict[str, Any] | None:
    """The header of an open file; None where it has no digests and needs none."""
    broken = VerydeepError(f"{path} is corrupted: its header is not as it was written (SHA-256).")
    try:
        header = _read_header(file)
        metadata = dict(header.get(METADATA, {}))
    except (ValueError, TypeError):
        raise broken from None
    if OF_HEADER not in metadata or OF_TENSORS not in metadata:
        if key in metadata or OF_HEADER in metadata or OF_TENSORS in metadata:
            raise broken
        return None
    if metadata.pop(OF_HEADER) != _digest({**header, METADATA: metadata}):
        raise broken
    return dict(header)


def _digest(header: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(header, sort_keys=True).encode()).hexdigest()
