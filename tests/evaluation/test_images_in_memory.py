"""Images in the forms in which Python programs hold them: one image or several, read the same by all that predict."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import verydeep
from conftest import make_photos
from verydeep.core.settings import FeatureSettings

Pair = tuple[Path, Path]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """Two photos of one size, so that they fit in one array."""
    photos = make_photos(tmp_path_factory.mktemp("held") / "photos", 1, ((48, 40),))
    return photos / "blue" / "000.png", photos / "red" / "000.png"


def pixels(pair: Pair) -> Any:
    return np.stack([verydeep.read_image(path) for path in pair])


def generated(pair: Pair) -> Iterator[Path]:
    yield from pair


SEVERAL: dict[str, Callable[[Pair], Any]] = {
    "list": list,
    "paths as text": lambda pair: [str(path) for path in pair],
    "generator": generated,
    "map": lambda pair: map(str, pair),
    "glob": lambda pair: sorted(pair[0].parents[1].glob("[br]*/*.png")),
    "unsorted glob of one": lambda pair: (path for one in pair for path in one.parent.glob("*.png")),
    "array of paths": lambda pair: np.array([str(path) for path in pair]),
    "bytes": lambda pair: [path.read_bytes() for path in pair],
    "files in memory": lambda pair: [io.BytesIO(path.read_bytes()) for path in pair],
    "open files": lambda pair: [path.open("rb") for path in pair],  # closed as they are collected
    "PIL": lambda pair: [Image.open(path).convert("RGB") for path in pair],
    "array": pixels,
    "array, channels first": lambda pair: pixels(pair).transpose(0, 3, 1, 2),
    "tensor": lambda pair: torch.from_numpy(pixels(pair)),
    "tensor, channels first": lambda pair: torch.from_numpy(pixels(pair)).permute(0, 3, 1, 2),
    "list of arrays": lambda pair: list(pixels(pair)),
}


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("form", SEVERAL)
def test_several_images(trained: Path, pair: Pair, form: str) -> None:
    net = verydeep.load(trained)
    expected = [found.classes for found in net.predict(list(pair))]
    assert [found.classes for found in net.predict(SEVERAL[form](pair))] == expected


@pytest.mark.parametrize("form", ["bytes", "files in memory", "PIL", "array", "tensor, channels first"])
def test_one_image(trained: Path, pair: Pair, form: str) -> None:
    net = verydeep.load(trained)
    assert net.predict(next(iter(SEVERAL[form](pair))))[0].classes == net.predict(pair[0])[0].classes


@pytest.mark.parametrize("nothing", [None, 5, {"a": "b"}, {"a", "b"}])
def test_other_objects_raise_a_type_error(trained: Path, nothing: object) -> None:
    with pytest.raises(TypeError, match=rf"not a {type(nothing).__name__}"):
        verydeep.load(trained).predict(nothing)
    with pytest.raises(TypeError, match="image 1 is an array of float32 from 0 to 0"):
        verydeep.load(trained).predict([np.zeros((40, 40, 3), np.uint8), np.zeros((40, 40, 3), np.float32)])


def test_top_may_be_a_numpy_integer(trained: Path, pair: Pair) -> None:
    for top in (2, np.int64(2), np.uint8(2)):
        assert len(verydeep.predict(trained, pair[0], top=top)[0].classes) == 2  # type: ignore[arg-type]
    for wrong in (0, np.int64(0), 2.0, "2", None):
        with pytest.raises(verydeep.VerydeepError, match="top must be 1 or more"):
            verydeep.predict(trained, pair[0], top=wrong)  # type: ignore[arg-type]


def test_similar_photos_of_images_in_memory(trained: Path, pair: Pair, tmp_path: Path) -> None:
    file, cpu = tmp_path / "known.safetensors", verydeep.MachineSettings(workers=0, threads=1)
    photos = pair[0].parents[1]
    verydeep.extract_features(trained, str(photos), file, settings=FeatureSettings(scales=(36,)), machine=cpu)
    for images in (iter(pair), pixels(pair), [path.read_bytes() for path in pair]):
        found = verydeep.find_similar(images, file, top=np.int64(1))  # type: ignore[arg-type]
        assert [one.neighbours[0].id for one in found] == ["blue/000.png", "red/000.png"]
    assert len(verydeep.find_similar(str(pair[0]), file)) == 1  # not its letters


def test_an_unreadable_file_does_not_stop_the_others(trained: Path, pair: Pair) -> None:
    closed = pair[0].open("rb")
    closed.close()
    faults: dict[int, str] = {}
    with pair[0].open(encoding="utf8") as text:
        found = verydeep.load(trained).predict([closed, text, pair[0]], faults=faults)
    assert len(found) == 1
    assert faults[0].startswith("image 0 cannot be read: ")
    assert faults[1] == 'image 1 is a file opened as text: open it with "rb".'
