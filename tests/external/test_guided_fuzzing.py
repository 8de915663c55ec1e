"""The inputs of coverage-guided fuzzing, and the stored files of its faults."""

from __future__ import annotations

from pathlib import Path

import fuzzing
import pytest
from guided_fuzzing import packed, still_there, unpacked
from targets import READERS


def test_an_input_holds_files() -> None:
    files = {"x.csv": b"path,label\n", "labels/a.txt": b"", "x": bytes(range(256))}
    assert unpacked(packed(files)) == files
    for data in (b"", b"\0", packed(files)[:-9]):
        assert unpacked(data) == {}


def test_a_fault_is_stored_until_its_files_are_read_or_refused(tmp_path: Path) -> None:
    """A fault whose files are not here stays."""
    folder = tmp_path / "names" / "fault-3"
    folder.mkdir(parents=True)
    (folder / "names.txt").write_bytes(b"ant\nbee\n")
    shown = {"ValueError at x.py:1": "ValueError: x (fault-3)", "slow": "9.0 s (fault-4)"}
    assert still_there("names", shown, tmp_path) == {"slow": "9.0 s (fault-4)"}


def test_the_files_of_a_fault_show_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A traceback on stderr."""

    def read(folder: Path) -> object:
        raise KeyError((folder / "x").read_text())

    monkeypatch.setitem(READERS, "names", read)
    (tmp_path / "x").write_text("a key")
    assert fuzzing.read_again("names", tmp_path) == 1
    assert "in read\n" in (shown := capfd.readouterr().err)
    assert shown.endswith("KeyError: 'a key'\n")
