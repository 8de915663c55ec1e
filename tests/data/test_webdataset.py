"""Tar files as data: photos in their order, classes, sets; read by several processes; what is wrong with them."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from test_distributed import run_job

from conftest import TINY, Command
from verydeep.core.errors import ImageError, VerydeepError
from verydeep.core.settings import DataSettings
from verydeep.data.open import open_data
from verydeep.transfer.features_file import load_features

COLOURS = [(200, 40, 40), (40, 60, 200)]


def png(label: int, seed: int) -> bytes:
    """A photo of noise around a colour."""
    noise = np.random.default_rng(seed).integers(-30, 31, (40, 48, 3))
    file = io.BytesIO()
    Image.fromarray(np.clip(np.array(COLOURS[label]) + noise, 0, 255).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def write_tar(path: Path, files: list[tuple[str, bytes]]) -> None:
    """A tar file of these."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as file:
        for name, data in files:
            told = tarfile.TarInfo(name)
            told.size = len(data)
            file.addfile(told, io.BytesIO(data))


def samples(first: int, count: int, labelled: bool = True) -> list[tuple[str, bytes]]:
    """Photos of two classes in turn, each with its class and something else."""
    found = []
    for number in range(first, first + count):
        found.append((f"{number:04d}.png", png(number % 2, number)))
        found.append((f"{number:04d}.json", b"{}"))
        if labelled:
            found.append((f"{number:04d}.cls", f"{number % 2}\n".encode()))
    return found


@pytest.fixture
def tars(tmp_path: Path) -> Path:
    for number in range(3):
        write_tar(tmp_path / "tars" / f"part-{number}.tar", samples(10 * number, 10))
    (tmp_path / "tars" / "classes.txt").write_text("red\nblue\n")
    return tmp_path / "tars"


def test_images_classes_and_order(tars: Path) -> None:
    """Split by us as a folder is, and every photo is somebody's."""
    data = open_data(DataSettings(f"webdataset:{tars}"))
    whole, _ = data.everything()
    assert data.classes == ("red", "blue")
    assert whole.ids == tuple(f"part-{number // 10}.tar/{number:04d}.png" for number in range(30))
    assert (whole.labels == np.arange(30) % 2).all()
    assert (whole.pixels(7) == np.asarray(Image.open(io.BytesIO(png(1, 7))))).all()
    assert sorted(data.sets) == ["dev", "test", "train"]


def test_separate_sets_and_classes_without_names(tmp_path: Path) -> None:
    write_tar(tmp_path / "train" / "a.tar", samples(0, 20))
    write_tar(tmp_path / "val" / "a.tar", [(f"deep/er/{name}", data) for name, data in samples(20, 4)])
    data = open_data(DataSettings(f"webdataset:{tmp_path}"))
    assert {name: len(found) for name, found in data.sets.items()} == {"train": 18, "dev": 2, "val": 4}
    assert data.classes == ("0", "1")
    assert data.sets["val"].ids[0] == "val/a.tar/deep/er/0020.png"


@pytest.mark.slow
def test_the_real_commands(tars: Path, tmp_path: Path, command: Command) -> None:
    """Trained on, tested, and described by two processes, each photo once; without classes too."""
    words = [*(f"--{key}={value}" for key, value in TINY.items()), "--start", "none", "--max-epochs", 1, "--quiet"]
    trained = command("train", "A", *words, "--data", f"webdataset:{tars}", "--out", tmp_path / "run")
    assert trained.status == 0, trained.stderr
    tested = command("evaluate", tmp_path / "run", "dense@36", "--workers", 1, "--json")
    assert json.loads(tested.stdout)["images"] == 6
    write_tar(tmp_path / "more" / "a.tar", samples(0, 7, labelled=False))
    asked = ["features", tmp_path / "run", "--layer", "pool5", "--data", f"webdataset:{tmp_path / 'more'}"]
    told = run_job(2, *asked, "--workers", 0, "--json", "--out", tmp_path / "f.safetensors")
    assert told.status == 0, told.stderr
    assert load_features(tmp_path / "f.safetensors").ids == tuple(f"a.tar/{number:04d}.png" for number in range(7))


def test_a_tar_file_that_changes_while_it_is_read(tars: Path) -> None:
    dataset = open_data(DataSettings(f"webdataset:{tars}")).everything()[0]
    (tars / "part-2.tar").write_bytes(b"")
    assert dataset.pixels(0).shape == (40, 48, 3)
    with pytest.raises(ImageError, match="has become shorter"):
        dataset.pixels(29)
    (tars / "part-1.tar").unlink()
    with pytest.raises(ImageError, match="cannot read"):
        dataset.pixels(15)


FAULTS: dict[str, tuple[list[tuple[str, Any]], str]] = {
    "no tar": ([], "has no .tar files"),
    "no photo": ([("a.tar", [("x.cls", b"1")])], "contain no images"),
    "class": ([("a.tar", [("x.png", b"1"), ("x.cls", b"red")])], "x.cls must contain a class, an integer from 0"),
    "huge class": ([("a.tar", [("x.png", b"1"), ("x.cls", b"99999999")])], "x.cls must contain a class"),
    "half": ([("a.tar", [("x.png", b"1"), ("x.cls", b"1"), ("y.png", b"1")])], "y.png has no .cls file"),
    "names": ([("a.tar", samples(0, 4)), ("classes.txt", [])], "has 0 class names, but there are 2 classes"),
    "twice": ([("a.tar", [("x.png", b"1"), ("x.jpg", b"1")])], "x.jpg and x.png are one sample: keep one"),
    "torn": ([("torn.tar", [])], "is a corrupted tar file"),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_faults_by_the_real_command(tmp_path: Path, command: Command, kind: str) -> None:
    files, sentence = FAULTS[kind]
    (tmp_path / "data").mkdir()
    for name, members in files:
        if name == "classes.txt":
            (tmp_path / "data" / name).write_text("")
        elif name == "torn.tar":
            (tmp_path / "data" / name).write_bytes(b"no tar file at all" * 100)
        else:
            write_tar(tmp_path / "data" / name, members)
    assert sentence in command("data", "check", f"webdataset:{tmp_path / 'data'}").mistake()


def test_a_folder_must_be_named() -> None:
    with pytest.raises(VerydeepError, match="where is webdataset"):
        open_data(DataSettings("webdataset"))
