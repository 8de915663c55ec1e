"""Tables 11 and 12 at doll size: made-up sets in the real ones' folders, and rows of nets trained in a few steps."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from conftest import Command
from verydeep.core.settings import DataSettings
from verydeep.data.doll_sets import CALTECH_CLASSES, CALTECH_TEST, LARGE, doll_set
from verydeep.data.image_io import read_image
from verydeep.data.open import open_data

FEW = ["--doll", "--data", "digits:60", "--max-steps", 2, "--workers", 0, "--threads", 1]


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of made-up sets."""
    return tmp_path_factory.mktemp("sets")


@pytest.mark.parametrize("name", CALTECH_CLASSES)
def test_caltech_has_the_protocols_numbers(sets: Path, name: str) -> None:
    """30 (60) pictures of a class are for training; a fifth of them is dev."""
    opened = open_data(DataSettings(data=f"{name}:{doll_set(name, sets)}")).sets
    classes, train = CALTECH_CLASSES[name], {"caltech101": 30, "caltech256": 60}[name]
    sizes = {set_name: Counter(dataset.labels.tolist()) for set_name, dataset in opened.items()}
    assert sizes == {
        "train": dict.fromkeys(range(classes), train - train // 5),
        "dev": dict.fromkeys(range(classes), train // 5),
        "test": dict.fromkeys(range(classes), CALTECH_TEST),
    }
    assert all(re.fullmatch(r"\d\d", title) for title in opened["train"].classes)


@pytest.mark.parametrize("name", ["voc2007", "voc2012", "voc2012-action", "voc2012-action-box"])
def test_voc_has_each_class_in_each_set(sets: Path, name: str) -> None:
    opened = open_data(DataSettings(data=f"{name}:{doll_set(name, sets)}"), several=True).sets
    assert list(opened) == ["train", "val", "test"]
    for dataset in opened.values():
        assert dataset.marks is not None
        assert set(np.unique(dataset.marks)) == {-1, 1}
        assert ((dataset.marks == 1).sum(axis=0) >= 2).all()
        assert (dataset.marks == 1).any(axis=1).all()


def test_a_box_shows_one_person_of_two(sets: Path) -> None:
    """Boxes of people of two actions are two parts of the same picture."""
    places = doll_set("voc2012", sets)
    whole, boxes = (
        open_data(DataSettings(data=f"{name}:{places}"), several=True).sets["train"]
        for name in ("voc2012-action", "voc2012-action-box")
    )
    assert whole.ids[:2] == boxes.ids[:2] == ("000201#1", "000201#2")
    picture = whole.source.read(whole.ids[0])
    assert np.array_equal(picture, whole.source.read(whole.ids[1]))
    first, second = (boxes.source.read(person) for person in boxes.ids[:2])
    assert np.array_equal(first, picture[:, : first.shape[1]])
    assert np.array_equal(second, picture[:, LARGE : LARGE + second.shape[1]])


def test_sets_are_the_same_each_time_and_not_written_twice(sets: Path, tmp_path: Path) -> None:
    for name in ("caltech101", "voc2007"):
        first, again = (doll_set(name, folder) for folder in (sets, tmp_path))
        files = sorted(path.relative_to(first) for path in first.rglob("*.*"))
        assert files == sorted(path.relative_to(again) for path in again.rglob("*.*"))
        for file in files[::97]:
            assert (first / file).read_bytes() == (again / file).read_bytes()
        before = {path: path.stat().st_mtime_ns for path in first.rglob("*")}
        assert doll_set(name, sets) == first
        assert {path: path.stat().st_mtime_ns for path in first.rglob("*")} == before
    picture = read_image(next((sets / "voc2007" / "JPEGImages").iterdir()))
    assert picture.shape[0] == 96


@pytest.mark.slow
def test_rows_of_tables_11_and_12(command: Command, tmp_path: Path) -> None:
    """Nets are trained for the first row; a row that shares them and their descriptors computes SVMs alone."""
    plan = json.loads(command("reproduce", "table11/D/caltech101", *FEW, "--plan", "--json", cwd=tmp_path).stdout)
    assert [run["run"] for run in plan["plan"]["train"]] == ["A/256", "D/256", "D/384", "D/256-512"]
    done = command("reproduce", "table11/D/caltech101", *FEW, "--json", cwd=tmp_path)
    assert done.status == 0, done.stderr
    row = json.loads(done.stdout)["rows"]["table11/D/caltech101"]
    assert (row["size"], row["images"], row["set"], row["cut_short"]) == ("doll", 200, "3 splits", True)
    assert row["steps"] == [2]
    assert 0 < row["figure"] <= 100
    again = json.loads(command("reproduce", "table11/D/caltech101", *FEW, "--json", cwd=tmp_path).stdout)
    assert (again["plan"]["train"], again["plan"]["descriptors"]) == ([], [])
    assert again["rows"]["table11/D/caltech101"]["figure"] == row["figure"]
    done = command("reproduce", "table12", *FEW, "--json", cwd=tmp_path)
    assert done.status == 0, done.stderr
    assert {name: found["images"] for name, found in json.loads(done.stdout)["rows"].items()} == {
        "table12/image": 200,
        "table12/image-and-box": 200,
    }
    told = command("table", "11", "--from", tmp_path / "runs" / "doll").stdout
    assert "200 photos of caltech101 (3 splits, size: doll); sets of digits, nets of 2 steps, cut short" in told


def test_a_list_at_doll_size_names_what_is_trained(command: Command) -> None:
    listed = json.loads(command("reproduce", "table12", "--list", "--doll", "--json").stdout)
    assert {row["row"]: (row["trains"][-1], row["missing"]) for row in listed} == {
        "table12/image": ("E/256-512", []),
        "table12/image-and-box": ("E/256-512", []),
    }
