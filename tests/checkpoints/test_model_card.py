"""Following a model card, a sidecar or a prototxt without verydeep gives the run's posteriors.

Each file is read by h5py, a pickle of tensors, ONNX Runtime or byte by byte; which axis is which, the order of colours
and of fc6's inputs, mean, scale, resize rule and the order of classes are taken from the card's words alone.
"""

from __future__ import annotations

import json
import re
import struct
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.numpy import load_file
from test_pretrained import FORMATS, random_layers
from torch.nn import functional as F

import weight_files as made
from conftest import Command, paint, run_command

Arrays = dict[str, NDArray[np.float32]]
Q = 73  # of a crop of 64, as 256 is of 224
NAMES = [f"thing {number}" for number in (3, 1, 4, 0, 5, 9, 2)]  # neither sorted nor in the order of a folder's names


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Narrow nets D of seven classes in three layouts of others, their classes' names, and an oblong photo."""
    place = tmp_path_factory.mktemp("cards")
    made.caffe_v1(place / "d.caffemodel", random_layers())
    FORMATS["torchvision"][0](place / "d.pth", random_layers())
    made.matconvnet(place / "d.mat", random_layers())
    (place / "names.txt").write_text("\n".join(NAMES))
    paint(place / "photo.png", 3, (200, 90, 20), (150, 101))
    return place


PIXELS = {"d.caffemodel": "caffe", "d.pth": "torchvision", "d.mat": "rgb-mean"}


def rows_of(page: Path) -> dict[str, str]:
    """The card's first table."""
    return dict(re.findall(r"^\| ([a-z][\w ]*) \| (.*) \|$", page.read_text().partition("\n## ")[0], re.MULTILINE))


def classes_of(page: Path) -> list[str]:
    """The names in the order of the outputs."""
    found = re.findall(r"^\| (\d+) \| (.*) \|$", page.read_text().partition("## Classes")[2], re.MULTILINE)
    assert [int(number) for number, _ in found] == list(range(len(found)))
    return [name for _, name in found]


def resized(rule: str, photo: Path) -> NDArray[np.uint8]:
    """A photo as the card's rule says, RGB."""
    smallest, crop = int(re.findall(r"shorter side to (\d+)", rule)[0]), int(re.findall(r"central (\d+) x", rule)[0])
    filters = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
    assert "in proportion and rounded, by" in rule
    image = Image.open(photo)
    ratio = smallest / min(image.size)
    size = (round(image.width * ratio), round(image.height * ratio))
    pixels = np.asarray(image.resize(size, filters[re.findall(r"Pillow's (\w+)", rule)[0]]))
    top, left = (pixels.shape[0] - crop) // 2, (pixels.shape[1] - crop) // 2
    return pixels[top : top + crop, left : left + crop]


def as_told(formula: str, pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Pixels (H,W,3) by ``ORDER, formula, x from 0 to 255``, the formula read as arithmetic over x."""
    order, _, rest = formula.partition(", ")
    text = rest.removesuffix(", x from 0 to 255")
    assert re.fullmatch(r"[x\d\s().,/+e-]+", text), text
    vectors = re.sub(r"\(([\d.e-]+, [\d.e-]+, [\d.e-]+)\)", r"array([\1])", text)
    x = pixels.astype(np.float64)[:, :, ["RGB".index(colour) for colour in order]]
    return np.asarray(eval(vectors, {"__builtins__": {}, "array": np.array, "x": x}))


def keras(path: Path) -> Iterator[Arrays]:
    import h5py

    with h5py.File(path) as file:
        for layer in file.attrs["layer_names"]:
            names = file[layer].attrs["weight_names"]
            yield dict(zip(("weight", "bias"), (np.asarray(file[layer][name]) for name in names), strict=True))


def torchvision(path: Path) -> Iterator[Arrays]:
    found = torch.load(path, weights_only=True)
    for name in found:
        if name.endswith(".weight"):
            yield {"weight": found[name].numpy(), "bias": found[name.removesuffix("weight") + "bias"].numpy()}


def ours(path: Path) -> Iterator[Arrays]:
    found = load_file(path)
    for name in sorted((name for name in found if name.endswith(".weight")), key=lambda name: (name[:2] == "fc", name)):
        yield {"weight": found[name], "bias": found[name.removesuffix("weight") + "bias"]}


def fields(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Those of a protocol buffer that have a length."""
    at = 0

    def number() -> int:
        nonlocal at
        value, shift = 0, 0
        while True:
            at, value, shift = at + 1, value | (content[at] & 127) << shift, shift + 7
            if content[at - 1] < 128:
                return value

    while at < len(content):
        key = number()
        assert key & 7 == 2  # as all that we write
        length = number()
        yield key >> 3, content[at : at + length]
        at += length


def caffe(path: Path) -> Iterator[Arrays]:
    """layer 100: blobs 7: shape 7 (dim 1, packed), data 5."""
    for number, layer in fields(path.read_bytes()):
        if number == 100:
            blobs = []
            for _, blob in (one for one in fields(layer) if one[0] == 7):
                parts = dict(fields(blob))
                flat = np.array(struct.unpack(f"<{len(parts[5]) // 4}f", parts[5]), dtype=np.float32)
                sides = dict(fields(b"\x0a" + bytes([len(parts[7])]) + parts[7]))[1]
                blobs.append((flat, sides))
            yield {"weight": blobs[0][0], "bias": blobs[1][0]}


READERS = {"h5": keras, "pth": torchvision, "safetensors": ours, "caffemodel": caffe}


def forward(layers: list[Arrays], tensors: str, x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scores (K,) of pixels (H,W,3) by plain functions: axes and fc6's order as the card's ``tensors`` row says."""
    told = re.findall(r"\(((?:out|in|row|column)(?:, (?:out|in|row|column))+)\)", tensors)
    by_row = "counts its inputs by row, column, channel" in tensors
    maps = torch.tensor(x).permute(2, 0, 1)[None]
    for number, one in enumerate(layers):  # of net D: 13 convolutions, three FC layers
        axes = told[0 if number < 13 else -1].split(", ")
        kernel = 3 if number < 13 else maps.shape[-1]
        inputs = maps.shape[1] if len(axes) == 4 else maps[0].numel()
        sides = {"out": len(one["bias"]), "in": inputs, "row": kernel, "column": kernel}
        weight = torch.tensor(one["weight"].reshape([sides[axis] for axis in axes])).double()
        weight = weight.permute([axes.index(axis) for axis in ("out", "in", "row", "column")[: len(axes)]])
        bias = torch.tensor(one["bias"]).double()
        if len(axes) == 2:
            maps = maps.permute(0, 2, 3, 1) if by_row and maps.dim() == 4 else maps
            maps = F.linear(maps.flatten(1), weight, bias)
        else:
            maps = F.conv2d(maps, weight, bias, padding=1 if number < 13 else 0)
        maps = F.relu(maps) if number < 15 else maps
        maps = F.max_pool2d(maps, 2) if number in (1, 3, 6, 9, 12) else maps
    return maps.flatten().numpy()


def softmax(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    found = np.exp(scores - scores.max())
    return np.asarray(found / found.sum())


def run_posteriors(command: Command, run: object, photo: Path) -> dict[str, float]:
    """The predictions of the run's own command."""
    told = command("predict", run, photo, "--protocol", f"centre@{Q}", "--top", 7, "--json")
    assert told.status == 0, told.stderr
    return {row["class"]: row["probability"] for row in json.loads(told.stdout)[0]["predictions"]}


@cache
def converted(home: Path, source: str) -> tuple[Path, dict[str, float]]:
    """The run of a source, and its posteriors of the photo."""
    run = home / f"run-of-{source.replace('.', '-')}"
    words = ["--preprocessing", PIXELS[source], "--class-names", home / "names.txt"]
    assert run_command("convert", home / source, run, *words).status == 0
    return run, run_posteriors(run_command, run, home / "photo.png")


EACH_LAYOUT = [("d.caffemodel", ending) for ending in READERS]
OTHER_MEANS = [("d.pth", "h5"), ("d.pth", "pth"), ("d.mat", "caffemodel")]  # a deviation to fold in; RGB to BGR


@pytest.mark.parametrize(("source", "ending"), [*EACH_LAYOUT, *OTHER_MEANS])
def test_following_the_model_card_gives_the_runs_posteriors(
    home: Path, tmp_path: Path, command: Command, source: str, ending: str
) -> None:
    file = tmp_path / f"net.{ending}"
    run, expected = converted(home, source)
    told = command("convert", run, file)
    assert told.status == 0, told.stderr
    page = Path(f"{file}.card.md")
    rows, photo = rows_of(page), home / "photo.png"
    layers = list(READERS[ending](file))
    pixels = as_told(rows["pixels"], resized(rows["resize"], photo))
    assert rows["output"].startswith("scores before soft-max")
    found = dict(zip(classes_of(page), softmax(forward(layers, rows["tensors"], pixels)), strict=True))
    assert found == pytest.approx(expected, abs=2e-5)
    assert run_posteriors(command, file, photo) == pytest.approx(expected, abs=2e-5)
    if ending == "safetensors":  # the page in the run's own folder is of the same tensors
        assert rows_of(run / "README.md")["pixels"] == rows["pixels"]
        return
    beside = json.loads(Path(f"{file}.card.json").read_text())
    assert [beside["tensors"], beside["classes"]] == [rows["tensors"], classes_of(page)]
    given = beside["pixels"]
    by_json = resized(beside["resize"], photo)[:, :, ["RGB".index(colour) for colour in given["channel_order"]]]
    assert (by_json * given["scale"] - given["mean"]) / given["std"] == pytest.approx(pixels, abs=1e-3)
    if ending == "caffemodel":
        assert f"# pixels: {rows['pixels']}\n" in (tmp_path / "net.prototxt").read_text()


@pytest.mark.parametrize("takes", ["uint8", "float"])
def test_following_the_model_card_of_an_exported_file(home: Path, tmp_path: Path, command: Command, takes: str) -> None:
    """Photos go in as they are where the file subtracts the mean itself: twice would be a wrong answer."""
    import onnxruntime

    file, photo = tmp_path / "net.onnx", home / "photo.png"
    run, expected = converted(home, "d.caffemodel")
    assert command("export", run, "--takes", takes, "--out", file).status == 0
    page = Path(f"{file}.card.md")
    rows = rows_of(page)
    x: Any = resized(rows["resize"], photo)
    if "subtracts the mean itself" not in rows["pixels"]:
        x = as_told(rows["pixels"], x).astype(np.float32)
    assert rows["pixels"].startswith("RGB, ")
    x = x.transpose(2, 0, 1) if rows["input"].startswith("float (batch, 3,") else x
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    answer = session.run(None, {session.get_inputs()[0].name: np.ascontiguousarray(x[None])})[0][0]
    answer = softmax(answer) if "before soft-max" in rows["output"] else answer
    assert dict(zip(classes_of(page), answer, strict=True)) == pytest.approx(expected, abs=2e-5)
    assert rows["input name"] == f"`{session.get_inputs()[0].name}`"
    assert rows["output name"].startswith(f"`{session.get_outputs()[0].name}` ")
    printed = program_of(page, photo)
    assert list(printed) == sorted(expected, key=lambda name: -expected[name])[:5]
    assert printed == pytest.approx({name: expected[name] for name in printed}, abs=1e-4)


def program_of(page: Path, photo: Path) -> dict[str, float]:
    """What the card's program without verydeep prints, as it stands, in the folder of the file."""
    (program,) = re.findall(r"^```python\n(import json.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    Image.open(photo).save(page.parent / "photo.jpg", "PNG")  # a format without loss, whose name does not matter
    ended = subprocess.run([sys.executable, "-c", program], cwd=page.parent, capture_output=True, text=True, check=True)
    return {name: float(value) for value, name in (line.split(" ", 1) for line in ended.stdout.splitlines())}


def test_config_json_records_the_preprocessing_of_its_own_file(home: Path) -> None:
    """The source was BGR; what was written is RGB."""
    told = json.loads((converted(home, "d.caffemodel")[0] / "config.json").read_text())
    assert told["pixels"]["channel_order"] == "RGB"
    assert told["converted"]["pixels"]["channel_order"] == "BGR"
