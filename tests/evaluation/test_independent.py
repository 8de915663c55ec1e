"""Posteriors and descriptors against `benchmarks/independent.py`, which computes them without `verydeep`."""

from __future__ import annotations

import ast
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from conftest import SHARED, TOP, Command

SCRIPT = TOP / "benchmarks" / "independent.py"
PHOTOS = SHARED / "data" / "caltech101"
DESCRIBED = {"strawberry": "n07745940", "dalmatian": "n02110341", "flamingo": "n02007558"}
OTHERS = {"llama": "n02437616", "pizza": "n07873807", "platypus": "n01873310", "starfish": "n02317335"}
OTHERS |= {"grand_piano": "n03452741", "beaver": "n02363005", "dragonfly": "n02268443"}


def written(command: Command, run: Path, photos: Path, place: Path, *, low: int, high: int, described: str) -> None:
    """What the real commands write: dense posteriors, those of the centre crop, and descriptors at two scales."""
    predicted = command("predict", run, photos, "--protocol", f"dense@{low}", "--top", 1000, "--json")
    assert predicted.status == 0, predicted.stderr
    (place / "dense.json").write_text(predicted.stdout)
    assert command("evaluate", run, f"centre@{low}", "--data", photos, "--out", place / "scores").status == 0
    two = ("--scales", f"{low},{high}", "--out", place / "fc7.safetensors")
    assert command("features", run, "--data", photos, "--classes", described, *two).status == 0


def script() -> Callable[..., int]:
    spec = importlib.util.spec_from_file_location("independent", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    spec.loader.exec_module(module := importlib.util.module_from_spec(spec))
    return cast(Callable[..., int], module.main)


def compared(run: Path, photos: Path, place: Path, low: int) -> int:
    files = (f"dense@{low}={place / 'dense.json'}", place / "scores" / "scores.npz", place / "fc7.safetensors")
    return script()(str(run / "best.safetensors"), str(photos), *map(str, files))


def test_it_imports_nothing_of_ours() -> None:
    imports = [
        node for node in ast.walk(ast.parse(SCRIPT.read_text())) if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    names = {name for node in imports for name in (getattr(node, "module", None), *(one.name for one in node.names))}
    assert not any(name.startswith(("verydeep", ".")) for name in names if name)


def test_small_weights_agree_and_each_changed_number_is_found(
    command: Command, trained: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written(command, trained, photos, tmp_path, low=36, high=48, described="red")
    assert compared(trained, photos, tmp_path, 36) == 0
    assert capsys.readouterr().out.count("images") == 3

    dense = tmp_path / "dense.json"
    text = dense.read_text()
    lines = json.loads(text)
    lines[-1]["predictions"][1]["probability"] += 2e-4
    dense.write_text(json.dumps(lines))
    assert compared(trained, photos, tmp_path, 36) == 1
    dense.write_text("[]")
    assert compared(trained, photos, tmp_path, 36) == 1
    dense.write_text(text)

    scores = dict(np.load(tmp_path / "scores" / "scores.npz"))
    changed = {**scores, "posteriors": scores["posteriors"] * np.where(np.arange(3) == 1, 1.001, 1).astype(np.float32)}
    np.savez(tmp_path / "scores" / "scores.npz", **changed)
    assert compared(trained, photos, tmp_path, 36) == 1
    np.savez(tmp_path / "scores" / "scores.npz", **scores)
    assert compared(trained, photos, tmp_path, 36) == 0

    _change_a_descriptor(tmp_path / "fc7.safetensors")
    assert compared(trained, photos, tmp_path, 36) == 1


def _change_a_descriptor(path: Path) -> None:
    from safetensors import safe_open

    rows = load_file(path)
    rows["Q48"][2, rows["Q48"][2].argmax()] *= 1.001
    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
    save_file(rows, path, metadata)


@pytest.mark.slow
def test_net_e_agrees_on_photos(
    net_e: Path, command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if not PHOTOS.is_dir():
        pytest.skip("Caltech-101 is not on this machine")
    photos = tmp_path / "photos"
    for name, wnid in (DESCRIBED | OTHERS).items():
        (photos / wnid).mkdir(parents=True)
        (photos / wnid / "1.jpg").write_bytes((PHOTOS / name / "image_0001.jpg").read_bytes())
    run = net_e.parent
    written(command, run, photos, tmp_path, low=256, high=288, described=",".join(DESCRIBED.values()))
    assert compared(run, photos, tmp_path, 256) == 0
    printed = capsys.readouterr().out
    assert printed.count("10 images") == 2
    assert "3 images" in printed
