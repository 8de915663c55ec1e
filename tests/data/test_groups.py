"""Splits that keep groups of images together, and images that are in several sets as equal files."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import paint, run_command
from verydeep.core.errors import VerydeepError
from verydeep.core.settings import DataSettings
from verydeep.data.copies import copies_message
from verydeep.data.dataset import Dataset, FolderSource, split
from verydeep.data.open import open_data
from verydeep.transfer.splits import parts_of

SHARES: dict[str, float | int] = {"dev": 0.1, "test": 0.2}


def dataset(labels: list[int], groups: list[int] | None) -> Dataset:
    ids = tuple(f"{number}.png" for number in range(len(labels)))
    subjects = None if groups is None else np.array(groups, dtype=np.int64)
    return Dataset("x", "all", ("a", "b", "c"), ids, np.array(labels), FolderSource(Path()), subjects=subjects)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 9)), min_size=1, max_size=60), st.integers(0, 3))
def test_no_group_is_in_two_parts_and_no_image_is_lost(rows: list[tuple[int, int]], seed: int) -> None:
    labels, groups = [label for label, _ in rows], [group for _, group in rows]
    parts = split(dataset(labels, groups), SHARES, seed)
    members = [set(part.groups.tolist()) for part in parts.values()]
    assert sum(map(len, members)) == len(set(groups))
    assert sorted(image for part in parts.values() for image in part.ids) == sorted(dataset(labels, groups).ids)


@given(st.lists(st.integers(0, 2), min_size=1, max_size=60), st.integers(0, 3))
def test_with_an_image_a_group_the_split_is_that_of_images(labels: list[int], seed: int) -> None:
    plain = split(dataset(labels, None), SHARES, seed)
    grouped = split(dataset(labels, list(range(len(labels)))), SHARES, seed)
    assert {name: part.ids for name, part in grouped.items()} == {name: part.ids for name, part in plain.items()}


# The groups' sizes in one class of 20 images, and the sizes of dev (2 wanted) and test (4 wanted), with the reason.
SIZES = [
    ([2] * 10, {2}, {4}, "whole groups meet the shares"),
    ([5] * 4, {5}, {5}, "at least one group each"),
    ([10, 10], {0}, {0}, "two groups are too few for three parts"),
    ([18, 1, 1], {1}, {1}, "the largest group would be far beyond either share"),
]


@pytest.mark.parametrize(("sizes", "dev", "test", "reason"), SIZES)
def test_shares_are_met_as_closely_as_groups_allow(
    sizes: list[int], dev: set[int], test: set[int], reason: str
) -> None:
    groups = [group for group, size in enumerate(sizes) for _ in range(size)]
    for seed in range(5):
        parts = split(dataset([0] * len(groups), groups), SHARES, seed)
        assert ({len(parts["dev"])}, {len(parts["test"])}) == (dev, test), reason


def animals(folder: Path, column: str = "animal") -> Path:
    """A list of 48 photos of 12 animals in two classes."""
    rows = [f"path,label,{column}"]
    for number in range(48):
        name = f"{'ab'[number % 2]}/{number // 4}_{number}.png"
        paint(folder / name, number, (200, 60, 60) if number % 2 else (60, 60, 200))
        rows.append(f"{name},{'ab'[number % 2]},tom {number // 4}")
    (folder / "list.csv").write_text("\n".join(rows) + "\n")
    return folder / "list.csv"


@pytest.mark.parametrize(("data", "group_by"), [("list.csv", "animal"), ("list.csv", r"/(\d+)_"), (".", r"/\d+_")])
def test_a_column_or_a_pattern_names_the_group(data: str, group_by: str, tmp_path: Path) -> None:
    animals(tmp_path)
    opened = open_data(DataSettings(data=str(tmp_path / data), group_by=group_by))
    of = {name: {image.split("/")[1].split("_")[0] for image in part.ids} for name, part in opened.sets.items()}
    assert not of["train"] & of["dev"] | of["train"] & of["test"] | of["dev"] & of["test"]
    assert all(len(part) and set(part.labels.tolist()) == {0, 1} for part in opened.sets.values())
    assert f"in whole groups (12 by --group-by {group_by})" in opened.split


def test_groups_of_a_given_split_that_are_in_both_sets_are_counted(tmp_path: Path) -> None:
    for number in range(24):
        for part in ("train", "val"):
            paint(tmp_path / part / "ab"[number % 2] / f"{number // 4}_{part}{number}.png", number, (200, 60, 60))
    opened = open_data(DataSettings(data=str(tmp_path), group_by=r"(\d+)_"))
    assert opened.warnings == [r"6 groups of --group-by (\d+)_ are in train and in val"]
    dev, train = ({image.split("/")[2].split("_")[0] for image in opened.sets[name].ids} for name in ("dev", "train"))
    assert dev
    assert not dev & train


def test_random_splits_of_svms_keep_groups() -> None:
    class Described:
        ids = tuple(f"{number // 4}_{number}.png" for number in range(48))
        labels, marks, classes = np.arange(48) % 2, None, ("a", "b")
        sets, recipe, data = ("",) * 48, dict[str, Any](), "x"

    for parts in parts_of("own", Described(), 3, 0, r"^\d+"):  # type: ignore[arg-type]
        of = [{Described.ids[index].split("_")[0] for index in part} for part in (parts.fit, parts.dev, parts.test)]
        assert sum(map(len, of)) == len(set.union(*of)) == 12
    with pytest.raises(VerydeepError, match="--group-by applies to random splits of own images"):
        parts_of("caltech101", Described(), 3, 0, r"^\d+")  # type: ignore[arg-type]


REFUSED = [
    ("list.csv", "(", "is not a regular expression"),
    ("list.csv", "patient", "is not a column of a list file, and as a pattern it does not match the paths of 48 of 48"),
    ("digits", "x", "--group-by applies to folders, list files and tar files, unlike digits"),
    ("gap.csv", "animal", r"gap\.csv, line 3: the animal is empty, and --group-by needs one for each image"),
]


@pytest.mark.parametrize(("data", "group_by", "sentence"), REFUSED)
def test_groups_that_cannot_be_found(data: str, group_by: str, sentence: str, tmp_path: Path) -> None:
    text = animals(tmp_path).read_text()
    (tmp_path / "gap.csv").write_text(
        text.replace("a/0_2.png,a,tom 0", "a/0_2.png,a, ").replace("b/0_1.png,b,tom 0", "b/0_1.png,b,", 1)
    )
    settings = DataSettings(data=data if data == "digits" else str(tmp_path / data), group_by=group_by)
    with pytest.raises(VerydeepError, match=sentence):
        open_data(settings)


def test_the_command_refuses_a_pattern_that_matches_nothing(tmp_path: Path) -> None:
    animals(tmp_path)
    refused = run_command(
        "train", "A", "--data", tmp_path / "list.csv", "--group-by", "video", "--out", tmp_path / "run"
    )
    assert "as a pattern it does not match the paths of 48 of 48 images" in refused.mistake()


def test_probe_takes_groups_and_a_list_to_leave_out(trained: Path, tmp_path: Path) -> None:
    animals(tmp_path / "photos").unlink()
    (tmp_path / "out.csv").write_text("image\na/0_2.png\n")
    done = run_command(
        *("probe", "--data", tmp_path / "photos", "--weights", trained, "--group-by", r"/(\d+)_", "--splits", 1),
        *("--exclude", tmp_path / "out.csv", "--out", tmp_path / "probe", "--threads", 1, "--json"),
    )
    assert done.status == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["group_by"], result["excluded"]) == (r"/(\d+)_", 1)


def test_equal_files_in_several_sets_are_reported_in_one_line(tmp_path: Path) -> None:
    animals(tmp_path)
    settings = DataSettings(data=str(tmp_path))
    opened = open_data(settings)
    assert copies_message(opened) is None
    (train, other), test = opened.sets["train"].ids[:2], opened.sets["test"].ids[0]
    shutil.copy(tmp_path / train, tmp_path / test)
    message = copies_message(opened)
    assert message is not None
    shown = f"{tmp_path / train} (train) and {tmp_path / test} (test)"
    assert message.startswith(f"2 images are equal files in several sets, such as {shown}: errors on them are too low")
    shutil.copy(tmp_path / train, tmp_path / other)  # a third copy, in a set that has one
    assert (copies_message(opened) or "").startswith("3 images are equal files")
    assert copies_message(open_data(replace(settings, data="digits"))) is None
