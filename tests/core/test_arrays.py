"""Archives of arrays that say they unpack to more than the memory of a machine."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from conftest import Command
from verydeep.core.arrays import opened_arrays
from verydeep.core.errors import VerydeepError

CENTRAL, SIZE = b"PK\x01\x02", 24  # a member's entry in the archive's directory, and where its unpacked size is


def bomb(path: Path, members: int) -> Path:
    """An archive whose members say that each unpacks to 4 GB."""
    np.savez_compressed(path, **{f"array{number}": np.zeros(4) for number in range(members)})  # type: ignore[arg-type]
    data, at = bytearray(path.read_bytes()), 0
    while (at := data.find(CENTRAL, at)) >= 0:
        struct.pack_into("<I", data, at + SIZE, 2**32 - 2)
        at += SIZE
    path.write_bytes(data)
    return path


def test_archives_are_refused_before_their_arrays_are_read(tmp_path: Path) -> None:
    with pytest.raises(VerydeepError, match=r"unpacks to 20 GB of arrays: more than 16 GB is not read"):
        opened_arrays(bomb(tmp_path / "x.npz", 5)).__enter__()
    with opened_arrays(bomb(tmp_path / "y.npz", 3)) as stored:
        assert sorted(stored.files) == ["array0", "array1", "array2"]


@pytest.mark.parametrize("words", ["fuse x.npz x.npz", "scores import x.npz --labels x.npz --out y.npz"])
def test_commands_refuse_them(words: str, tmp_path: Path, command: Command) -> None:
    bomb(tmp_path / "x.npz", 5)
    assert "unpacks to 20 GB" in command(*words.split(), cwd=tmp_path).mistake()
