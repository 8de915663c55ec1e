"""Photos at another place than when a run began: known again by their contents, and changed ones noticed."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from conftest import COLOURS, Command, make_photos, own_photos, paint
from verydeep.checkpoints.checkpoint import read_metadata
from verydeep.core.settings import DataSettings
from verydeep.data.open import open_data

SIZE = ["--crop", 32, "--width", 0.03125, "--S", 36, "--batch", 8, "--workers", 0, "--threads", 1]
GO_ON = ["--workers", 0, "--threads", 1, "--resume", "--max-epochs", 2]


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photos and a run of one epoch on them; not to be changed."""
    from conftest import run_command

    place = tmp_path_factory.mktemp("begun")
    make_photos(place / "photos", per_class=6)
    words = ("train", "A", "--data", "photos", "--out", "run", "--start", "none", "--max-epochs", 1, *SIZE)
    answer = run_command(*words, cwd=place)
    assert answer.status == 0, answer.stderr
    return place


def moved(begun: Path, place: Path) -> Path:
    """The run, and a copy of its photos under another name, with files written at another time."""
    shutil.copytree(begun / "run", place / "run")
    shutil.copytree(begun / "photos", place / "elsewhere")
    for path in (place / "elsewhere").rglob("*.png"):
        os.utime(path, (1, 1))
    return place


def test_a_run_resumes_with_the_same_images_at_another_place(command: Command, begun: Path, tmp_path: Path) -> None:
    place = moved(begun, tmp_path)
    answer = command("train", "A", "--out", "run", "--data", "elsewhere", *GO_ON, cwd=place)
    assert answer.status == 0, answer.stderr
    assert "resuming run at step" in answer.stderr
    assert read_metadata(place / "run" / "last.safetensors").data["data"] == str(place / "elsewhere")
    again = command("train", "A", "--out", "run", *GO_ON[:-1], 3, cwd=place)  # it knows their new place now
    assert again.status == 0, again.stderr
    here = command("train", "A", "--out", begun / "run", "--data", begun / "photos", *GO_ON[:-1], 1)
    assert here.status == 0, here.stderr


def _rename(folder: Path) -> None:
    (folder / "red" / "000.png").rename(folder / "red" / "new.png")


def _of_another_class(folder: Path) -> None:
    (folder / "red" / "000.png").rename(folder / "blue" / "zzz.png")


def _another_size(folder: Path) -> None:
    paint(folder / "red" / "000.png", 99, COLOURS["red"], (70, 70))


def _the_same_size(folder: Path) -> None:
    for path in folder.rglob("*.png"):  # whichever sets they are in
        data = bytearray(path.read_bytes())
        data[-20] ^= 1
        path.write_bytes(bytes(data))


def _one_less(folder: Path) -> None:
    for path in folder.rglob("000.png"):
        path.unlink()


@pytest.mark.parametrize("change", [_rename, _of_another_class, _another_size, _the_same_size, _one_less])
def test_changed_images_are_detected(command: Command, begun: Path, tmp_path: Path, change: object) -> None:
    place = moved(begun, tmp_path)
    assert callable(change)
    change(place / "elsewhere")
    if change is _another_size:  # a photo of the test set is none that training reads
        dataset = open_data(DataSettings(data=str(place / "elsewhere")))
        for name in ("train", "dev"):
            paint(place / "elsewhere" / dataset.sets[name].ids[0], 99, COLOURS["red"], (70, 70))
    before = (place / "run" / "last.safetensors").read_bytes()
    sentence = command("train", "A", "--out", "run", "--data", "elsewhere", *GO_ON, cwd=place).mistake()
    assert "elsewhere has changed since the run started" in sentence
    assert (place / "run" / "last.safetensors").read_bytes() == before


def test_runs_without_recorded_contents_are_compared_by_names(command: Command, begun: Path, tmp_path: Path) -> None:
    """Those of earlier versions."""
    place = moved(begun, tmp_path)
    config = json.loads((place / "run" / "config.json").read_text())
    assert set(config.pop("photos")) == {"train", "dev"}
    (place / "run" / "config.json").write_text(json.dumps(config))
    answer = command("train", "A", "--out", "run", "--data", "elsewhere", *GO_ON, cwd=place)
    assert answer.status == 0, answer.stderr


def test_missing_images_have_a_message_on_how_to_name_them(command: Command, begun: Path, tmp_path: Path) -> None:
    place = moved(begun, tmp_path)
    (begun / "photos").rename(begun / "away")
    try:
        for words in (("evaluate", "run", "centre@36"), ("train", "A", "--out", "run", "--resume", "--max-epochs", 2)):
            sentence = command(*words, "--workers", 0, cwd=place).mistake()
            assert sentence.startswith(f"{begun / 'photos'}, the folder of the run's data, no longer exists")
            assert "pass its new path as --data" in sentence
        answer = command("evaluate", "run", "centre@36", "--data", "elsewhere", "--workers", 0, "--json", cwd=place)
        assert json.loads(answer.stdout)["set"] == "test"
        assert "is not as it was" not in answer.stderr
    finally:
        (begun / "away").rename(begun / "photos")


def test_images_and_their_boxes_are_moved_together(command: Command, tmp_path: Path) -> None:
    """The box file lies among the photos, so that it is at another place too."""
    place = own_photos(tmp_path)
    shutil.move(place / "boxes.csv", place / "photos" / "boxes.csv")
    data = ("--data", "photos", "--boxes", "photos/boxes.csv")
    words = ("--start", "none", "--max-epochs", 1, *SIZE)
    assert command("train", "A", *data, *words, "--out", "run", cwd=place).status == 0
    boxed = ("localise", "train", "A", *data, "--start", "run", "--max-epochs", 1, *SIZE, "--out", "net")
    assert command(*boxed, cwd=place).status == 0
    (place / "photos").rename(place / "moved")
    more = command("train", "A", "--out", "run", "--data", "moved", *GO_ON, cwd=place)
    assert more.status == 0, more.stderr
    gone = command("localise", "evaluate", "net", "centre@36", "--workers", 0, cwd=place)
    assert "no longer exists" in gone.mistake()
    for verb, run in ((("localise", "evaluate"), "net"), (("evaluate",), "run")):
        answer = command(*verb, run, "centre@36", "--data", "moved", "--workers", 0, "--json", cwd=place)
        assert answer.status == 0, answer.stderr
        assert json.loads(answer.stdout)["set"] == "test"
    resumed = command("localise", "train", "A", "--out", "net", "--data", "moved", *GO_ON, cwd=place)
    assert resumed.status == 0, resumed.stderr


def test_contents_depend_on_sizes_and_bytes_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_photos(tmp_path / "a", per_class=6)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    sets = [open_data(DataSettings(data=str(tmp_path / name))).set("train") for name in "ab"]
    assert sets[0].contents() == sets[1].contents()
    monkeypatch.setattr("verydeep.data.dataset.MOST_HASHED", 10_000)  # of large sets some photos
    some = sets[0].contents()
    assert some == sets[1].contents()
    last = tmp_path / "b" / sets[1].ids[1]
    last.write_bytes(last.read_bytes() + b"0")  # a size is noticed of any photo
    assert sets[1].contents() != some
    assert len(open_data(DataSettings(data="digits:60")).set("train").contents()) == 64  # painted
