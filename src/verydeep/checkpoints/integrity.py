"""Corruption checks: safetensors files whose header contains SHA-256 digests of the tensors and of the header.

There are two digests, so that metadata can be verified without reading the tensors: one of the tensors' bytes, and one
of the header, the first digest included. Any reader of safetensors reads these files; a file of verydeep without
digests, or with wrong ones, is refused.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from ..core.errors import VerydeepError
from ..core.files import write_atomically

OF_TENSORS, OF_HEADER = "tensors_sha256", "header_sha256"
METADATA = "__metadata__"
LENGTH = 8  # bytes of a safetensors file before its header, the length of the header
LONGEST_HEADER = 100_000_000  # by the format's own rule
PIECE = 2**22


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
    header[METADATA][OF_HEADER] = _digest(header)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % LENGTH)
    pieces = (len(text).to_bytes(LENGTH, "little"), text, body)

    def read_back(beside: Path) -> None:
        try:
            check_seal(beside)
        except VerydeepError:
            raise VerydeepError(
                f"{path} could not be saved: its disk returns other bytes than were written; the one saved before "
                "is intact. Use another disk."
            ) from None

    write_atomically(path, lambda file: file.writelines(pieces), None if previous is None else read_back, previous)


def check_seal(path: Path, key: str | None = None) -> None:
    """Raises VerydeepError where a file's bytes do not match its digests.

    Args:
        key: the metadata key of verydeep's files; a file that has it and no digests is refused.
    """
    with path.open("rb") as file:
        header = _header(path, file, key)
        if header is None:
            return
        digest = hashlib.sha256()
        while piece := file.read(PIECE):
            digest.update(piece)
    if digest.hexdigest() != header[METADATA][OF_TENSORS]:
        raise VerydeepError(f"{path} is corrupted: its bytes are not those that were written (SHA-256).")


def check_header(path: Path, key: str | None = None) -> None:
    """As `check_seal`, for the header only."""
    with path.open("rb") as file:
        _header(path, file, key)


def _header(path: Path, file: Any, key: str | None) -> dict[str, Any] | None:
    """The header of an open file; None where it has no digests and needs none."""
    broken = VerydeepError(f"{path} is corrupted: its header is not as it was written (SHA-256).")
    length = int.from_bytes(file.read(LENGTH), "little")
    if length > LONGEST_HEADER:
        raise broken
    try:
        header = json.loads(file.read(length))
        metadata = dict(header.get(METADATA, {}))
    except (ValueError, TypeError, AttributeError, RecursionError):
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
