"""Malformed safetensors files are refused by every reader with one sentence, and in little memory."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from malformed_safetensors import cases, good, huge, packed

from conftest import Command
from verydeep.checkpoints.checkpoint import load_checkpoint, read_header, read_metadata, read_safetensors
from verydeep.checkpoints.pretrained import read_weights
from verydeep.core.errors import VerydeepError
from verydeep.transfer.features_file import load_features
from verydeep.transfer.svm_file import load_svm

CASES = dict(cases())
READERS: tuple[Callable[[Path], object], ...] = (
    *(read_safetensors, read_header, read_metadata, load_checkpoint, load_features, load_svm),
    lambda path: read_weights(str(path)),
)


def test_the_file_that_cases_break_is_read(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(packed(json.dumps(good()).encode()))
    _, tensors = read_safetensors(tmp_path / "x.safetensors")
    assert {name: tuple(value.shape) for name, value in tensors.items()} == {
        "conv1_1.weight": (2, 3, 3, 3),
        "conv1_1.bias": (2,),
    }


@pytest.mark.parametrize("name", CASES)
def test_every_reader_refuses_it_with_one_sentence(name: str, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(CASES[name])
    for read in READERS:
        with pytest.raises(VerydeepError) as refused:
            read(path)
        assert str(path) in str(refused.value)
        assert "\n" not in str(refused.value)


@pytest.mark.slow
def test_the_command_refuses_each_with_one_sentence(tmp_path: Path, command: Command) -> None:
    for name, data in CASES.items():
        (tmp_path / "x.safetensors").write_bytes(data)
        ended = command("convert", "x.safetensors", "out.safetensors", "--preprocessing", "torchvision", cwd=tmp_path)
        assert "x.safetensors" in ended.mistake(), name
        assert [path.name for path in tmp_path.iterdir()] == ["x.safetensors"], name


@pytest.mark.slow
def test_a_huge_header_is_refused_before_it_is_parsed(tmp_path: Path) -> None:
    for name, header in huge():
        path = tmp_path / "x.safetensors"
        path.write_bytes(packed(header, b""))
        tracemalloc.start()
        try:
            with pytest.raises(VerydeepError, match="its header has too many entries"):
                read_header(path)
            assert tracemalloc.get_traced_memory()[1] < 5 * len(header), name
        finally:
            tracemalloc.stop()
