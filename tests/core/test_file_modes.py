"""The rights of every file that is written: those of the umask, and of a file that is replaced its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import verydeep
from conftest import TINY, make_photos
from verydeep.core.files import write_atomically
from verydeep.core.settings import DataSettings, FeatureSettings, MachineSettings
from verydeep.data.pack_writer import Packing, pack_data
from verydeep.reports.figures import write_evaluation_pictures
from verydeep.transfer.svm_file import write_transfer

HERE = MachineSettings(workers=0, threads=1)
WRITTEN = {  # by each verb; SECURITY.md's table
    *("last.safetensors", "previous.safetensors", "best.safetensors", "config.json", "environment.json", "log.jsonl"),
    *("result.json", "scores.npz", "classes.csv", "confusion.png", "x.safetensors", "classifier.safetensors"),
    *("splits.json", "answers.csv", "pack.json", "train.ids", "train.index.npy", "train-00000.bin"),
    *("x.onnx", "x.pth", "x.pth.card.json"),
}


@contextmanager
def masked(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def work(place: Path, photos: Path) -> None:
    """What each verb that writes does."""
    data = str(photos)
    verydeep.train("A", out=place / "run", data=data, max_epochs=2, **TINY)
    write_evaluation_pictures(verydeep.evaluate(place / "run", "centre@36", machine=HERE))
    verydeep.extract_features(place / "run", data, place / "features" / "x.safetensors", machine=HERE)
    write_transfer(verydeep.learn_svms("own", [place / "features" / "x.safetensors"], machine=HERE), place / "svm")
    pack_data(DataSettings(data), place / "pack", Packing(36))
    verydeep.export(place / "run", "onnx", place / "out" / "x.onnx")
    verydeep.convert(str(place / "run"), place / "out" / "x.pth")


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_new_files_have_the_permissions_of_the_umask(tmp_path: Path, mask: int) -> None:
    """Files and folders alike; nothing is executable, and no temporary file is left."""
    photos = make_photos(tmp_path / "photos")
    with masked(mask):
        work(tmp_path / "made", photos)
    found = sorted((tmp_path / "made").rglob("*"))
    assert {path.name for path in found} >= WRITTEN
    for path in found:
        wanted = 0o777 if path.is_dir() else 0o666
        assert path.stat().st_mode & 0o777 == wanted & ~mask, path
        assert not path.name.endswith(".tmp")


def test_the_command_follows_its_umask(trained: Path, tmp_path: Path) -> None:
    words = ["evaluate", str(trained), "centre@36", "--workers", "0", "--out", str(tmp_path / "found")]
    subprocess.run([sys.executable, "-m", "verydeep", *words], umask=0o027, capture_output=True, check=True)
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "found").iterdir()} == {0o640}


def test_a_replaced_file_keeps_its_permissions(tmp_path: Path) -> None:
    """Of a run that goes on, of tests and features done again; the file before the last keeps what it had too."""
    photos = make_photos(tmp_path / "photos")
    run, features = tmp_path / "run", tmp_path / "x.safetensors"
    verydeep.train("A", out=run, data=str(photos), max_epochs=1, **TINY)
    verydeep.evaluate(run, "centre@36", machine=HERE)
    verydeep.extract_features(run, str(photos), features, machine=HERE)
    there = [*(path for path in run.rglob("*") if path.is_file()), features]
    for path in there:
        path.chmod(0o640 if path.name != "last.safetensors" else 0o600)
    verydeep.extract_features(run, str(photos), features, settings=FeatureSettings(scales=(48,)), machine=HERE)
    verydeep.train("A", out=run, resume=True, max_epochs=2, workers=0, threads=1)
    verydeep.evaluate(run, "centre@36", machine=HERE)
    kept = {path.name: path.stat().st_mode & 0o777 for path in there}
    private = {"last.safetensors", "previous.safetensors"}  # which was the last before
    assert kept == {name: 0o600 if name in private else 0o640 for name in kept}


def test_a_private_file_is_private_while_it_is_written(tmp_path: Path) -> None:
    """Before there is anything to read in the file beside it."""
    path, seen = tmp_path / "x", []
    path.write_text("before")
    path.chmod(0o600)
    with masked(0o022):
        write_atomically(path, lambda file: seen.append(os.fstat(file.fileno()).st_mode & 0o777))
    assert seen == [0o600]
    assert path.stat().st_mode & 0o777 == 0o600
