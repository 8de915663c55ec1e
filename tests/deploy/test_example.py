"""`export --takes photo` and `--example`: the pixels, and the posteriors, that Pillow and our own net give."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

import verydeep
from conftest import Command, paint
from verydeep.checkpoints.checkpoint import Metadata, save_checkpoint
from verydeep.checkpoints.exported import FLOAT, INPUTS, PHOTO, UINT8
from verydeep.checkpoints.load import load_model
from verydeep.core.settings import MachineSettings
from verydeep.data.transforms import OtherSide, Resampling, centre_crop, rescale
from verydeep.deploy.graph import Graph
from verydeep.deploy.onnx import IR, OPSET
from verydeep.deploy.resize import add_resize
from verydeep.evaluation.predict import place_classifier

CROP, Q, CLASSES = 32, 37, ("cat", "a dog", "a line\nbreak", "fish")
MEAN = (123.68, 116.779, 103.939)
SIDES = [(37, 37), (20, 33), (50, 43), (74, 111), (97, 64), (200, 151), (37, 300), (480, 360)]  # height, width


def net_file(path: Path, q: int = Q) -> None:
    """A narrow net A with random weights."""
    torch.manual_seed(0)
    net = verydeep.create_net("A", len(CLASSES), CROP, 1 / 16)
    save_checkpoint(path, net, Metadata("A", CROP, 1 / 16, CLASSES, MEAN, q))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A net and an oblong photo that is reduced."""
    place = tmp_path_factory.mktemp("example")
    net_file(place / "net.safetensors")
    paint(place / "photo.png", 3, (200, 90, 20), (150, 101))
    return place


def central_posteriors(run: str | Path, photos: list[Any]) -> NDArray[np.float32]:
    """The posteriors (N,K) of the central crops of photos at Q, which Pillow resizes."""
    classifier = place_classifier(load_model(run), MachineSettings(device="cpu"))
    return classifier.posteriors(photos, f"centre@{classifier.metadata.test_scale}")


def resize_model(metadata: Metadata) -> Any:
    """An ONNX model of the resize alone: from a photo to (3,crop,crop)."""
    graph = Graph()
    end, helper, types = add_resize(graph, metadata), graph.onnx.helper, graph.onnx.TensorProto
    source = helper.make_tensor_value_info(INPUTS[PHOTO], types.UINT8, ["height", "width", 3])
    result = helper.make_tensor_value_info(end, types.FLOAT, [3, metadata.crop, metadata.crop])
    layers = helper.make_graph(graph.nodes, "resize", [source], [result], graph.weights)
    model = helper.make_model(layers, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR)
    graph.onnx.checker.check_model(model, full_check=True)
    return model


def in_graph(metadata: Metadata, photos: list[NDArray[np.uint8]]) -> list[NDArray[np.float32]]:
    """What the graph's resize makes of photos, (crop,crop,3) each."""
    import onnxruntime

    content = resize_model(metadata).SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return [session.run(None, {INPUTS[PHOTO]: photo})[0].transpose(1, 2, 0) for photo in photos]


@pytest.mark.parametrize("resampling", ["bilinear", "bicubic"])
@pytest.mark.parametrize("other_side", ["round", "truncate"])
def test_the_resize_in_the_graph_is_pillows_to_the_bit(resampling: Resampling, other_side: OtherSide) -> None:
    """On noise, where no rounding hides another one; Pillow 13 resizes what is twice as high as wide in other order."""
    rng = np.random.default_rng(0)
    photos = [rng.integers(0, 256, (*sides, 3), dtype=np.uint8) for sides in SIDES]
    metadata = Metadata("A", CROP, 1.0, CLASSES, MEAN, Q, resampling=resampling, other_side=other_side)
    for photo, found in zip(photos, in_graph(metadata, photos), strict=True):
        expected = centre_crop(rescale(photo, Q, resampling, other_side), CROP)
        assert np.array_equal(found, expected), photo.shape


def test_a_tall_photo_differs_from_pillow_13_by_a_grey_level_at_most() -> None:
    photo = np.random.default_rng(0).integers(0, 256, (400, 90, 3), dtype=np.uint8)
    (found,) = in_graph(Metadata("A", CROP, 1.0, CLASSES, MEAN, Q), [photo])
    assert np.abs(found - centre_crop(rescale(photo, Q), CROP).astype(int)).max() <= 1


def test_a_file_that_takes_photos_gives_the_posteriors_of_the_central_crop(
    home: Path, tmp_path: Path, command: Command
) -> None:
    import onnxruntime

    told = command("export", home / "net.safetensors", "--takes", "photo", "--out", tmp_path / "n.onnx", "--json")
    assert told.status == 0, told.stderr
    assert json.loads(told.stdout)["largest_difference"] < 1e-5
    session = onnxruntime.InferenceSession(str(tmp_path / "n.onnx"), providers=["CPUExecutionProvider"])
    photo = np.asarray(Image.open(home / "photo.png"))
    expected = central_posteriors(home / "net.safetensors", [photo])
    assert session.run(None, {"photo": photo})[0] == pytest.approx(expected, abs=1e-5)
    card = (tmp_path / "n.onnx.card.md").read_text()
    assert "| resize | in the file: the shorter side to 37, " in card
    assert "or the whole image" not in card
    said = command("predict", tmp_path / "n.onnx", home / "photo.png").mistake()
    assert "takes whole photos for other programs, and classifies their centre only: use the run" in said


@pytest.mark.parametrize("takes", [UINT8, PHOTO, FLOAT])
def test_the_python_program_of_an_example_runs_as_it_stands(
    home: Path, tmp_path: Path, command: Command, takes: str
) -> None:
    words = ["--takes", takes, "--out", tmp_path / "n.onnx", "--example", home / "photo.png", "--json"]
    told = command("export", home / "net.safetensors", *words)
    assert told.status == 0, told.stderr
    folder = Path(json.loads(told.stdout)["example"])
    assert folder == tmp_path / "n.onnx.example"
    names = {"photo.png", "input.bin", "posteriors.bin", "classes.txt", "classify.py", "classify.mjs", "classify.cpp"}
    assert {path.name for path in folder.iterdir()} == names
    assert (folder / "classes.txt").read_text() == "cat\na dog\na line break\nfish\n"
    expected = central_posteriors(home / "net.safetensors", [home / "photo.png"])[0]
    stored = np.frombuffer((folder / "posteriors.bin").read_bytes(), "<f4")
    assert stored == pytest.approx(expected, abs=1e-6)
    ended = subprocess.run(
        [sys.executable, "classify.py"], cwd=folder, capture_output=True, text=True, check=True, encoding="utf8"
    )
    last = ended.stdout.splitlines()[-1]
    assert last.startswith("largest difference: ")
    assert float(last.split()[-1]) < 1e-5
    assert ended.stdout.startswith(f"{stored.max():.4f} {CLASSES[stored.argmax()]}")


@pytest.mark.parametrize("takes", [UINT8, PHOTO, FLOAT])
def test_the_input_of_an_example_is_what_the_file_takes(home: Path, tmp_path: Path, takes: str) -> None:
    """The plain numbers, with the shape that the programs name, in ONNX Runtime."""
    import onnxruntime

    verydeep.export(home / "net.safetensors", "onnx", tmp_path / "n.onnx", takes, example=home / "photo.png")
    folder = tmp_path / "n.onnx.example"
    (shape,) = re.findall(r'"input.bin", \w+\), \[([\d, ]+)\]', (folder / "classify.mjs").read_text())
    assert f"{{{shape}}}, input.data()" in (folder / "classify.cpp").read_text()
    pixels = np.frombuffer((folder / "input.bin").read_bytes(), np.float32 if takes == FLOAT else np.uint8)
    session = onnxruntime.InferenceSession(str(tmp_path / "n.onnx"), providers=["CPUExecutionProvider"])
    output = session.run(None, {INPUTS[takes]: pixels.reshape([int(side) for side in shape.split(",")])})[0][0]
    posteriors = np.exp(output) / np.exp(output).sum() if takes == FLOAT else output
    assert posteriors == pytest.approx(np.frombuffer((folder / "posteriors.bin").read_bytes(), "<f4"), abs=1e-5)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--example", "missing.png"], "missing.png"),
        (["--example", "text.png"], "text.png"),
        (["--to", "safetensors", "--example", "photo.png"], "has weights only, no program to run: leave out --example"),
        (["--to", "safetensors", "--takes", "photo"], "has weights only, no program to run: leave out --takes photo"),
        (["--to", "onnx-int8", "--takes", "photo"], "int8 models take uint8 images: leave out --takes photo."),
        (["--example", "photo.png", "--out", "blocked.onnx"], "blocked.onnx.example is not a folder"),
    ],
)
def test_mistakes_end_before_anything_is_written(
    home: Path, tmp_path: Path, command: Command, words: list[str], says: str
) -> None:
    (tmp_path / "net.safetensors").write_bytes((home / "net.safetensors").read_bytes())
    (tmp_path / "photo.png").write_bytes((home / "photo.png").read_bytes())
    (tmp_path / "text.png").write_text("no photo")
    (tmp_path / "blocked.onnx.example").write_text("a file")
    before = sorted(tmp_path.iterdir())
    out = [] if "--out" in words else ["--out", "n.safetensors" if "safetensors" in words else "n.onnx"]
    assert says in command("export", "net.safetensors", *words, *out, cwd=tmp_path).mistake()
    assert sorted(tmp_path.iterdir()) == before


def test_a_net_whose_q_is_below_its_crop_has_no_central_crop(tmp_path: Path, command: Command) -> None:
    net_file(tmp_path / "net.safetensors", q=30)
    words = ["export", tmp_path / "net.safetensors", "--takes", "photo", "--out", tmp_path / "n.onnx"]
    assert "Q = 30 in centre@30 is below the net's crop of 32 pixels" in command(*words).mistake()
