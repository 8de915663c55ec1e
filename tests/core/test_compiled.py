"""C code compiled for this processor: once, whole or not at all; without it everything works."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest
import torch

from verydeep.core import compiled
from verydeep.core.compiled import library

SOURCE = "int answer(void) { return 42; }\n"


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A C file, with a cache directory of its own."""
    monkeypatch.setenv("VERYDEEP_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "answer.c"
    path.write_text(SOURCE)
    if load(path) is None:
        pytest.skip("no C compiler, or a processor without AVX2")
    return path


def load(path: Path) -> ctypes.CDLL | None:
    """`library` as a new process calls it."""
    return library.__wrapped__(path)


def test_compiled_once(source: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    functions = load(source)
    assert functions is not None
    assert functions.answer() == 42
    monkeypatch.setattr(compiled, "_compile", None)  # would fail if it were compiled again
    assert load(source) is not None
    assert [path.suffix for path in (tmp_path / "cache" / "compiled").iterdir()] == [".so"]


def test_changed_code_is_compiled_again(source: Path) -> None:
    source.write_text(SOURCE.replace("42", "43"))
    functions = load(source)
    assert functions is not None
    assert functions.answer() == 43


@pytest.mark.parametrize("compiler", ["", "no-such-compiler"])
def test_works_without_a_compiler(source: Path, monkeypatch: pytest.MonkeyPatch, compiler: str) -> None:
    monkeypatch.setenv("CC", compiler)
    assert load(source) is None


def test_a_compiler_that_fails(source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A sentence with what the compiler says, and no trace of it in the cache."""
    source.write_text("int answer(void) { return }")
    assert load(source) is None
    assert len(list((tmp_path / "cache" / "compiled").iterdir())) == 1  # the first, by the fixture
    assert "answer.c was not compiled, so PyTorch's operations are used" in caplog.text
    assert "error" in caplog.text


@pytest.mark.parametrize("kind", ["AVX2", "DEFAULT"])
def test_only_for_processors_with_vectors(source: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: kind)
    assert (load(source) is None) == (kind == "DEFAULT")


def test_code_that_others_can_change_is_not_run(source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "cache" / "compiled"
    folder.chmod(0o777)
    assert load(source) is None
    assert f"others can write {folder};" in caplog.text
    folder.chmod(0o700)
    next(folder.iterdir()).chmod(0o720)
    assert load(source) is None


def test_a_cache_that_cannot_be_written(
    source: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("VERYDEEP_CACHE", str(source / "below-a-file"))
    assert load(source) is None
    assert "Not a directory" in caplog.text
    assert "set VERYDEEP_CACHE to a directory that you can write" in caplog.text


def test_a_user_without_a_home(source: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("VERYDEEP_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", home)
    assert load(source) is None
    assert "Could not determine home directory" in caplog.text
