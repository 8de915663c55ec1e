"""Paths are paths: what is there as it is written wins over commas, globs and endings."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from conftest import Command, make_photos, own_photos
from verydeep.core.config import typed
from verydeep.core.paths import files_matching, listed_paths, names_a_folder, typed_path
from verydeep.core.settings import DataSettings

# What is there, what is typed, and what it stands for.
LISTS = [
    ((), "a.csv,b.csv", ["a.csv", "b.csv"]),
    (("a,b.csv",), "a,b.csv", ["a,b.csv"]),
    (("a,b.csv",), "a,b.csv,c.csv", ["a,b.csv", "c.csv"]),  # the longest that is there
    (("a,b.csv",), "c.csv, a,b.csv", ["c.csv", "a,b.csv"]),
    (("a", "b.csv"), "a,b.csv", ["a", "b.csv"]),  # no file of the whole name
    (("x/a,b.csv",), "photos=x/a,b.csv", ["photos=x/a,b.csv"]),  # after FOLDER=
    (("a,b/c.csv",), "a,b/c.csv", ["a,b/c.csv"]),  # in a folder's name
    ((), ",", []),
]


@pytest.mark.parametrize(("there", "text", "paths"), LISTS, ids=[row[1] for row in LISTS])
def test_names_may_contain_commas(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: tuple[str, ...], text: str, paths: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in there:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("", encoding="utf8")
    assert listed_paths(text) == paths
    if paths:
        assert list(typed(DataSettings, {"boxes": text})["boxes"]) == paths


@pytest.mark.parametrize(
    ("pattern", "count"),
    [
        ("photos [1]/*.png", 2),  # of the folder of that name, and not of "photos 1"
        ("photos [1]/0?.png", 2),
        ("photos [1]/deep/**/*.png", 1),
        ("photos [12]/*.png", 1),  # no such folder: the signs count
        ("*/*.png", 3),
        ("photos [1]/[a]", 1),  # a file, as it is written
        ("photos [1]/*.gif", 0),
    ],
)
def test_folders_with_brackets_below_a_glob(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pattern: str, count: int
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in (
        "photos [1]/00.png",
        "photos [1]/01.png",
        "photos [1]/deep/x/2.png",
        "photos [1]/[a]",
        "photos 1/3.png",
    ):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text("", encoding="utf8")
    found = [pattern] if Path(pattern).exists() else files_matching(pattern)  # as `prediction.find_photos` does
    assert len(found) == count
    assert not any(name.startswith("./") for name in found)


@pytest.mark.parametrize(
    ("path", "folder"),
    [
        ("net", True),
        ("net-v1.0", True),
        ("runs.old/net-v1.2.3", True),
        ("net.pth/", True),  # said by the slash
        (".hidden", True),
        ("net.pth", False),
        ("net-v1.0.pth", False),
        ("net.ckpt", False),  # an ending that is not known is refused by who writes
        ("net.0a", False),
    ],
)
def test_new_paths_that_name_folders(path: str, folder: bool) -> None:
    assert names_a_folder(path) == folder


@pytest.mark.parametrize(
    ("word", "path"),
    [
        ("~/photos", "/home/me/photos"),
        ("--data=~/photos", "--data=/home/me/photos"),
        ("imagenet:~/ilsvrc", "imagenet:/home/me/ilsvrc"),
        ("file:///data/my%20photos", "/data/my photos"),
        ("a~/b", "a~/b"),
        ("--lr=1e-3", "--lr=1e-3"),
        ("new\nline", "new\nline"),
    ],
)
def test_tildes_and_file_urls_are_expanded(monkeypatch: pytest.MonkeyPatch, word: str, path: str) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert typed_path(word) == path


def test_box_files_with_commas_and_several_flags(command: Command, tmp_path: Path) -> None:
    place = own_photos(tmp_path)
    lines = (place / "boxes.csv").read_text(encoding="utf8").splitlines(keepends=True)
    (place / "part,1.csv").write_text("".join(lines[:12]), encoding="utf8")
    (place / "part 2.csv").write_text("".join(lines[12:]), encoding="utf8")
    for flags in (["part,1.csv,part 2.csv"], ["part,1.csv", "--boxes", "part 2.csv"]):
        answer = command("data", "check", "photos", "--boxes", *flags, "--json", cwd=place)
        assert answer.status == 0, answer.stderr
        assert sum(found["photos"] for found in json.loads(answer.stdout)["sets"].values()) == 24
    assert "is an empty list" in command("data", "check", "photos", "--boxes", ",", cwd=place).mistake()


def test_a_run_in_a_folder_with_a_version(command: Command, trained: Path, tmp_path: Path) -> None:
    """It is converted to, predicts, is converted from, exported and reported, with brackets and blanks on its way."""
    place = tmp_path / "my [runs]"
    make_photos(place / "photos [1]", 1)
    for out in ("net-v1.0", "net.old/"):
        assert command("convert", trained, out, cwd=place).status == 0
        assert (place / out / "best.safetensors").is_file()
    answer = command("predict", "net-v1.0", "photos [1]/*/*.png", "--json", cwd=place)
    assert len(json.loads(answer.stdout)) == 3, answer.stderr
    assert command("convert", "net-v1.0", "net-v1.0.h5", cwd=place).status == 0
    assert command("export", "net-v1.0", cwd=place).status == 0
    assert command("predict", "net-v1.0/net.onnx", "photos [1]/red", cwd=place).status == 0
    shutil.copytree(trained, place / "run.onnx")  # a folder, whatever its name ends in
    assert command("predict", "run.onnx", "photos [1]/red", cwd=place).status == 0
    assert command("report", "run.onnx", cwd=place).status == 0
    assert "does not name a layout" in command("convert", trained, "net.ckpt", cwd=place).mistake()


def test_an_image_whose_name_starts_with_a_dash(command: Command, trained: Path, photos: Path) -> None:
    shutil.copy(photos / "red" / "000.png", photos / "-1.png")
    for words in (["./-1.png"], ["--", "-1.png"]):
        assert command("predict", trained, *words, cwd=photos).status == 0
    sentence = command("predict", trained, "red/000.png", "-1.png", cwd=photos).mistake()
    assert sentence == "'-1.png' is read as a setting: write ./-1.png for the file."
