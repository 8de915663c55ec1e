"""What folders' names mean: sets or classes, which was taken, how to force the other; and which classes are chosen."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from conftest import Command, make_photos, paint
from verydeep.core.config import from_json, to_json
from verydeep.core.errors import VerydeepError
from verydeep.core.settings import DataSettings
from verydeep.data.layout import set_of_name
from verydeep.data.open import open_data


def fill(top: Path, folders: dict[str, Any], seed: int = 0) -> Path:
    """Folders of so many photos, or of folders."""
    for number, (name, inside) in enumerate(folders.items()):
        (top / name).mkdir(parents=True, exist_ok=True)
        if isinstance(inside, dict):
            fill(top / name, inside, seed + 10 * number)
        else:
            for photo in range(inside):
                paint(top / name / f"{photo}.png", 1000 * seed + 100 * number + photo, (20 * number, 9, 9), (4, 4))
    return top


def sizes(top: Path, **changes: Any) -> dict[str, int]:
    return {name: len(found) for name, found in open_data(DataSettings(data=str(top), **changes)).sets.items()}


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        *((name, ("train", ())) for name in ("train", "TRAIN", "Training", "train_images", "images-train", "TrainSet")),
        *((name, ("train", ())) for name in ("traindata", "Train Images", "training_set", "trainImgs")),
        *(
            (name, ("val", ()))
            for name in ("val", "Valid", "validation", "dev", "val_images", "ValidationSet", "valset")
        ),
        *((name, ("test", ())) for name in ("Test", "testing", "test_photos", "TESTDATA")),
        ("train2017", ("train", ("2017",))),
        ("seg_test", ("test", ("seg",))),
        # words that only begin so, or that are of something else
        *((name, None) for name in ("trains", "trainer", "tests", "contest", "valley", "device", "cat", "", "123")),
        ("trainval", None),
        ("train_test", None),
    ],
)
def test_names_of_sets(name: str, meant: object) -> None:
    assert set_of_name(name) == meant


TWO = {"cat": 10, "dog": 10}
FEW = {"cat": 3, "dog": 3}
SPLIT_IN_TWO = {"train": 18, "dev": 2}  # a tenth of 20 decides


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        ({"Training": TWO, "Testing": FEW}, {**SPLIT_IN_TWO, "test": 6}),
        ({"Train": TWO, "Test": FEW}, {**SPLIT_IN_TWO, "test": 6}),
        ({"TRAIN": TWO, "VALID": FEW}, {**SPLIT_IN_TWO, "val": 6}),
        ({"train_images": TWO, "val_images": FEW}, {**SPLIT_IN_TWO, "val": 6}),
        ({"images_train": TWO, "images_test": FEW}, {**SPLIT_IN_TWO, "test": 6}),
        ({"train2017": TWO, "val2017": FEW}, {**SPLIT_IN_TWO, "val": 6}),
        ({"seg_train": TWO, "seg_test": FEW}, {**SPLIT_IN_TWO, "test": 6}),
        ({"train": TWO, "dev": FEW}, {**SPLIT_IN_TWO, "val": 6}),  # as val/: reported
        # all three: what is called val or dev decides
        ({"train": TWO, "val": FEW, "Test": {"cat": 2, "dog": 2}}, {"train": 20, "dev": 6, "test": 4}),
        ({"Training": TWO, "dev": FEW, "testing": {"cat": 2, "dog": 2}}, {"train": 20, "dev": 6, "test": 4}),
        # a class that a set lacks, and a test folder without classes, which nobody can score
        ({"train": TWO, "val": {"cat": 3}}, {**SPLIT_IN_TWO, "val": 3}),
        ({"train": TWO, "val": FEW, "Test": 5}, {**SPLIT_IN_TWO, "val": 6}),
        ({"train": TWO, "val": FEW, "train_labels": {}, "@eaDir": FEW}, {**SPLIT_IN_TWO, "val": 6}),
        # class folders with folders in them; classes that are called like sets
        ({"cat": {"in": 6, "out": 4}, "dog": {"in": {"deep": 10}}}, {"train": 14, "dev": 2, "test": 4}),
        ({"train": 10, "bus": 10}, {"train": 14, "dev": 2, "test": 4}),
        ({"train": {"steam": 5, "electric": 5}, "bus": 10}, {"train": 14, "dev": 2, "test": 4}),
        ({"train": 10, "bus": 10, "test": 10}, {"train": 21, "dev": 3, "test": 6}),
        ({"valid": 10, "invalid": 10}, {"train": 14, "dev": 2, "test": 4}),
    ],
)
def test_sets_and_classes_by_their_folders(tmp_path: Path, folders: dict[str, Any], expected: dict[str, int]) -> None:
    assert sizes(fill(tmp_path, folders)) == expected


@pytest.mark.parametrize(
    ("folders", "says"),
    [
        ({"train": TWO}, "has train/ but no val/ or test/ beside it: use .*/train, or add one; --folders classes"),
        ({"train": TWO, "holdout": FEW}, "has train/ but no val/ or test/ beside it"),
        ({"val": TWO, "test": FEW}, "has val/, test/ but no train/ beside it"),
        ({**TWO, "Test": FEW}, "has Test/ but no train/ beside it"),  # the test photos would be a class
        ({"train": TWO, "val": {**FEW, "bird": 2}}, "has images of class 'bird'"),
        ({"train": {"cat": 9}, "val": {"cat": 3}}, r"only one class \(cat\)"),
        ({"train": 10, "test": 10}, "train has no class folders"),
        ({"a_train": TWO, "a_test": FEW, "b_train": TWO, "b_test": FEW}, "several folders for training"),
    ],
)
def test_ambiguous_folders_are_refused(tmp_path: Path, folders: dict[str, Any], says: str) -> None:
    with pytest.raises(VerydeepError, match=says):
        sizes(fill(tmp_path, folders))


def test_the_interpretation_is_reported_and_can_be_changed(command: Command, tmp_path: Path) -> None:
    """Sets beside which a class lies: both readings would do."""
    top = fill(tmp_path / "photos", {"Training": TWO, "Testing": FEW, "bird": 4})
    (top / "readme.txt").write_text("x")
    answer = command("data", "check", top, "--json")
    assert answer.status == 0, answer.stderr
    found = json.loads(answer.stdout)
    assert found["classes"] == ["cat", "dog"]
    assert found["split"] == "Training/ is train, Testing/ is test, 10 % of train is dev; test is reported"
    assert "bird/ beside them not at all (--folders classes reads all folders)" in found["notes"][0]
    assert found["skipped"]["folders beside the sets"]["count"] == 1
    assert found["skipped"][".txt"]["count"] == 1
    shown = command("data", "check", top).stdout
    assert "classes: cat, dog" in shown
    assert found["split"] in shown
    forced = json.loads(command("data", "check", top, "--folders", "classes", "--json").stdout)
    assert forced["classes"] == ["Testing", "Training", "bird"]
    assert forced["notes"] == []


def test_a_class_named_train_is_reported_and_training_prints_classes_and_split(
    command: Command, tmp_path: Path
) -> None:
    names = [f"c{number:02d}" for number in range(11)]
    top = fill(tmp_path / "photos", {"train": 4, **dict.fromkeys(names, 4)})
    small = ("--crop", 32, "--width", 0.03125, "--S", 36, "--workers", 0, "--start", "none", "--max-steps", 1)
    answer = command("train", "A", "--data", "photos", "--out", "run", *small, cwd=tmp_path)
    assert answer.status == 0, answer.stderr
    assert "train/ is read as a class, like the folders beside (--folders splits" in answer.stderr
    assert f"classes: {', '.join(names[:10])}, … (12 in all)" in answer.stderr
    assert "split: 10 % dev and 20 % test of each class, drawn by seed 0; test is reported" in answer.stderr
    told = command("data", "check", top, "--folders", "splits").mistake()
    assert "has no folders for training and testing: name them train, val and test" in told
    named = command("data", "check", "digits", "--folders", "classes").mistake()
    assert "--folders applies to folders of images only" in named


def test_a_forced_layout_is_kept_by_the_run(command: Command, tmp_path: Path) -> None:
    """What was trained on classes called like sets is tested on them; settings of older runs have no such setting."""
    top = fill(tmp_path / "photos", {"train": {"a": 5, "b": 5}, "val": {"a": 5, "b": 5}})
    small = ("--crop", 32, "--width", 0.03125, "--S", 36, "--workers", 0, "--start", "none", "--max-steps", 1)
    answer = command("train", "A", "--data", top, "--folders", "classes", "--out", "run", *small, cwd=tmp_path)
    assert answer.status == 0, answer.stderr
    found = json.loads(command("evaluate", "run", "centre@36", "--json", cwd=tmp_path).stdout)
    assert [row["class"] for row in found["classes"]] == ["train", "val"]
    stored = to_json(DataSettings(data=str(top)))
    del stored["folders"]
    assert from_json(DataSettings, stored).folders == "auto"


def test_tar_files_in_folders_of_usual_names(tmp_path: Path) -> None:
    from test_walk import tar_of_photos

    tar_of_photos(tmp_path / "Training" / "0.tar", {})
    tar_of_photos(tmp_path / "Testing" / "0.tar", {})
    found = open_data(DataSettings(data=f"webdataset:{tmp_path}")).sets
    assert {name: len(one) for name, one in found.items()} == {"train": 10, "dev": 2, "test": 12}


ODD = ("[c]at", "a, b", "a", "b", "c*", "crab", "what?")


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        (["[c]at"], ["[c]at"]),  # as a pattern it would be cat
        (["c*"], ["c*"]),  # an exact name wins over the pattern that it is, too
        (["cr*"], ["crab"]),
        (["a, b"], ["a, b"]),
        (["a,b"], ["a", "b"]),
        (["a", "b"], ["a", "b"]),
        (["a, b", "what?"], ["a, b", "what?"]),
        (["a, b,what?,[c]at"], ["[c]at", "a, b", "what?"]),  # the longest name wins within a list
        (["*"], sorted(ODD)),
        (["[ab]"], ["a", "b"]),
    ],
)
def test_chosen_classes(tmp_path: Path, typed: list[str], expected: list[str]) -> None:
    fill(tmp_path, dict.fromkeys(ODD, 4))
    found = open_data(from_json(DataSettings, {"data": str(tmp_path), "classes": typed}), least_classes=1)
    assert list(found.classes) == expected
    if len(typed) == 1:  # and as text, from Python
        found = open_data(from_json(DataSettings, {"data": str(tmp_path), "classes": typed[0]}), least_classes=1)
        assert list(found.classes) == expected


def test_classes_on_the_command_line(command: Command, photos: Path) -> None:
    shutil.copytree(photos / "red", photos / "[r]ed, dark")
    words = ("data", "check", photos, "--json", "--classes", "[r]ed, dark", "--classes", "blue")
    assert json.loads(command(*words).stdout)["classes"] == ["[r]ed, dark", "blue"]
    for typed, says in (
        ("blue,grene", "no class of .* matches 'grene': did you mean 'green'"),
        ("red,x*", r"no class of .* matches 'x\*'"),
        ("Red,blue", "no class of .* matches 'Red': did you mean 'red'"),
    ):
        told = command("data", "check", photos, "--classes", typed).mistake()
        assert re.search(says, told), told
    told = command("train", "A", "--data", photos, "--classes", "red,blu").mistake()
    assert "did you mean 'blue'" in told


def test_a_run_of_a_version_without_commas_in_names_resumes(command: Command, tmp_path: Path) -> None:
    """Its settings hold the list in pieces, and the same command line has it whole."""
    photos = make_photos(tmp_path / "photos", 6)
    small = ("--crop", 32, "--width", 0.03125, "--S", 36, "--workers", 0, "--start", "none", "--batch", 8)
    words = ("train", "A", "--data", photos, "--out", "run", *small)
    pieces = ("--classes", "red", "--classes", "b*")
    assert command(*words, *pieces, "--max-steps", 1, cwd=tmp_path).status == 0
    again = command(*words, "--classes", "red,b*", "--max-steps", 2, "--resume", cwd=tmp_path)
    assert again.status == 0, again.stderr
