"""Exported files in either runtime: the net's probabilities, from several threads too."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import verydeep
from verydeep.checkpoints.exported import open_exported
from verydeep.checkpoints.onnx_runtimes import open_onnx
from verydeep.checkpoints.run_dir import environment
from verydeep.core.errors import VerydeepError
from verydeep.deploy.export import export
from verydeep.transfer.predict import SvmClassifier

MODULES = {"OpenVINO": "openvino", "ONNX Runtime": "onnxruntime"}
ROUNDING, OF_8_BITS = 1e-5, 0.02  # of posteriors


def images(count: int, height: int = 40, width: int = 47) -> NDArray[np.uint8]:
    return np.random.default_rng(count).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def posteriors(path: Path, photos: list[Path]) -> NDArray[np.float32]:
    classifier = verydeep.load(path)
    assert not isinstance(classifier, SvmClassifier)
    return classifier.posteriors(photos)


def test_a_file_has_the_posteriors_of_its_net(trained: Path, tmp_path: Path, runtime: str) -> None:
    export(trained, "onnx", tmp_path / "x.onnx")
    photos = sorted((trained.parent / "photos").glob("*/*.png"))[:5]
    right = posteriors(trained, photos)
    assert np.abs(posteriors(tmp_path / "x.onnx", photos) - right).max() < ROUNDING
    assert MODULES[runtime] in environment({})["versions"]


def test_runtimes_agree_on_8_bits(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export(trained, "onnx-int8", tmp_path / "x.onnx", photos=str(trained.parent / "photos"))
    photos = sorted((trained.parent / "photos").glob("*/*.png"))[::5]
    by_openvino = posteriors(tmp_path / "x.onnx", photos)
    monkeypatch.setattr("verydeep.checkpoints.onnx_runtimes.find_spec", lambda _: None)
    by_onnxruntime = posteriors(tmp_path / "x.onnx", photos)
    assert np.abs(by_openvino - by_onnxruntime).max() < OF_8_BITS
    assert not np.array_equal(by_openvino, by_onnxruntime)  # two runtimes did run


@pytest.mark.usefixtures("runtime")
def test_images_of_any_number_and_size_and_several_threads(trained: Path, tmp_path: Path) -> None:
    export(trained, "onnx", tmp_path / "x.onnx")
    run = open_onnx(tmp_path / "x.onnx")
    given = [images(1), images(3), images(2, 64, 33), images(1), images(5)]
    alone = [run(batch) for batch in given]
    assert [len(posteriors) for posteriors in alone] == [1, 3, 2, 1, 5]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            for right, found in zip(alone, pool.map(run, given), strict=True):
                assert np.abs(found - right).max() < ROUNDING


@pytest.mark.usefixtures("runtime")
def test_a_broken_file_is_refused(trained: Path, tmp_path: Path) -> None:
    export(trained, "onnx", tmp_path / "x.onnx")
    content = (tmp_path / "x.onnx").read_bytes()
    (tmp_path / "x.onnx").write_bytes(content.replace(b"MaxPool", b"MinPool"))
    with pytest.raises(VerydeepError, match=r"x\.onnx is corrupted, or refused by its runtime \(\[ONNXRuntimeError"):
        open_onnx(tmp_path / "x.onnx")


def test_without_a_runtime_the_message_says_what_to_install(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(trained, "onnx", tmp_path / "x.onnx")
    monkeypatch.setattr("verydeep.checkpoints.onnx_runtimes.find_spec", lambda _: None)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(VerydeepError, match=r"needs onnxruntime: pip install 'verydeep\[onnx\]'"):
        open_exported(tmp_path / "x.onnx").net().mean_scores(torch.zeros(1, 3, 40, 40, dtype=torch.uint8))
