"""Sect. 4, data: what is found in folders and lists, how it is split, and what the doll's house shows."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import COLOURS, make_imagenet, make_photos, paint
from verydeep.core.errors import VerydeepError
from verydeep.core.settings import DataSettings
from verydeep.data.check import check_data
from verydeep.data.dataset import Dataset, FolderSource, join, split
from verydeep.data.datasets.digits import PARTS, SETS, SceneReader, digit_shown, scene
from verydeep.data.open import open_data


def opened(path: Path | str, **changes: Any) -> Any:
    return open_data(DataSettings(data=str(path), **changes))


def flat(counts: list[int]) -> Dataset:
    labels = np.repeat(np.arange(len(counts)), counts)
    ids = tuple(f"{label}/{number:04d}.png" for label, count in enumerate(counts) for number in range(count))
    return Dataset("d", "all", tuple(map(str, range(len(counts)))), ids, labels, FolderSource(Path()))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=2, max_size=6), st.integers(0, 9))
def test_a_split_has_every_image_once_and_training_images_of_each_class(counts: list[int], seed: int) -> None:
    whole = flat(counts)
    parts = split(whole, {"dev": 0.1, "test": 0.2}, seed)
    everything = [photo for part in parts.values() for photo in part.ids]
    assert sorted(everything) == sorted(whole.ids)
    assert set(parts["train"].labels.tolist()) == set(range(len(counts)))
    for label, count in enumerate(counts):
        for name, share in (("dev", 0.1), ("test", 0.2)):
            found = int((parts[name].labels == label).sum())
            assert found == (max(1, round(share * count)) if count >= 3 else 0)
    again = split(whole, {"dev": 0.1, "test": 0.2}, seed)
    assert all(parts[name].ids == again[name].ids for name in parts)


def test_another_seed_splits_otherwise_and_new_files_hardly_move_others() -> None:
    whole, more = flat([40, 40]), flat([44, 44])
    test = {seed: set(split(whole, {"test": 0.2}, seed)["test"].ids) for seed in (0, 1)}
    assert test[0] != test[1]
    grown = set(split(more, {"test": 0.2}, 0)["test"].ids)
    assert len(test[0] - grown) <= 4


def test_a_folder_of_classes(photos: Path) -> None:
    (photos / "notes.txt").write_text("not a photo")
    (photos / "red" / "Thumbs.db").write_text("")
    (photos / ".ipynb_checkpoints").mkdir()
    paint(photos / "red" / "LOUD.PNG", 7, (200, 50, 50))
    data = opened(photos)
    assert list(data.sets) == ["train", "dev", "test"]
    assert data.reported == "test"
    assert data.sets["train"].classes == tuple(sorted(COLOURS))
    assert {name: len(found) for name, found in data.sets.items()} == {"train": 22, "dev": 3, "test": 6}
    assert data.sets["train"].skipped.total == 3
    assert "red/LOUD.PNG" in data.set("all").ids
    assert len(data.set("all")) == 31
    assert data.set("all").pixels(0).shape == (40, 48, 3)


def test_train_and_val_folders_report_val_and_decide_on_a_part_of_train(tmp_path: Path) -> None:
    make_photos(tmp_path / "train", 20)
    make_photos(tmp_path / "val", 4)
    data = opened(tmp_path)
    assert {name: len(found) for name, found in data.sets.items()} == {"train": 54, "dev": 6, "val": 12}
    assert data.reported == "val"
    assert all(photo.startswith("train/") for photo in data.sets["dev"].ids)
    make_photos(tmp_path / "test", 5)
    data = opened(tmp_path)
    assert {name: len(found) for name, found in data.sets.items()} == {"train": 60, "dev": 12, "test": 15}
    assert all(photo.startswith("val/") for photo in data.sets["dev"].ids)


def test_val_with_a_class_that_train_lacks_is_refused(tmp_path: Path) -> None:
    make_photos(tmp_path / "train", 4)
    make_photos(tmp_path / "val", 2)
    paint(tmp_path / "val" / "mauve" / "1.png", 1, (200, 100, 200))
    with pytest.raises(VerydeepError, match="class 'mauve', which the net does not know"):
        opened(tmp_path)


def test_a_listed_class_that_train_lacks_is_refused(photos: Path) -> None:
    rows = [f"photos/{name}/{number:03d}.png,{name},train" for name in ("blue", "red") for number in range(10)]
    path = photos.parent / "list.csv"
    path.write_text("\n".join([*rows, "photos/green/000.png,green,val"]))
    with pytest.raises(VerydeepError, match="class 'green', which the net does not know"):
        opened(path)


def test_a_linked_folder_is_counted_and_not_followed(photos: Path) -> None:
    """Within a class, as it may lead to other classes or in a circle; a class's own folder may be a link."""
    (photos / "red" / "all").symlink_to("..")
    (photos / "mauve").symlink_to(photos / "red")
    data = opened(photos)
    assert data.sets["train"].classes == ("blue", "green", "mauve", "red")
    assert data.sets["train"].skipped.total == 2
    assert len(data.set("all")) == 40


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_list_of_paths_and_labels(photos: Path, kind: str) -> None:
    rows = [(f"photos/{name}/{number:03d}.png", name) for name in COLOURS for number in range(10)]
    path = photos.parent / f"list.{kind}"
    if kind == "csv":
        path.write_text("path,label\n" + "".join(f"{photo},{label}\n" for photo, label in rows))
    else:
        path.write_text("".join(json.dumps({"path": photo, "label": label}) + "\n" for photo, label in rows))
    data = opened(path)
    assert {name: len(found) for name, found in data.sets.items()} == {"train": 21, "dev": 3, "test": 6}
    train = data.sets["train"]
    assert all(f"/{train.classes[label]}/" in photo for photo, label in zip(train.ids, train.labels, strict=True))
    assert train.pixels(0).dtype == np.uint8


def test_a_list_may_name_the_sets(photos: Path) -> None:
    path = photos.parent / "list.csv"
    rows = [f"photos/{name}/{n:03d}.png,{name},{'train' if n < 7 else 'test'}" for name in COLOURS for n in range(10)]
    path.write_text("\n".join(rows))
    assert {name: len(found) for name, found in opened(path).sets.items()} == {"train": 18, "dev": 3, "test": 9}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "lists no images"),
        ("a.png\n", "line 1: expected path,label"),
        ("a.png,x\nb.png,\n", "line 2: expected path,label"),
        ("a.png,x\na.png,y\n", "lists a.png twice, as 'x' and as 'y'"),
        ("a.png,x,train\n./a.png,x,val\n", "lists a.png twice, as 'x in train' and as 'x in val'"),
        ("a.png,x,learn\nb.png,y,learn\n", "train, val or test"),
        ("a.png," + "x" * 200_000, "line 1: expected path,label or path,label,set"),
    ],
)
def test_faults_of_a_list_name_the_line(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(VerydeepError, match=says):
        opened(tmp_path / "list.csv")


def test_only_some_classes(photos: Path) -> None:
    data = opened(photos, classes=("*e*n", "red"))
    assert data.sets["train"].classes == ("green", "red")
    assert set(data.sets["test"].labels.tolist()) == {0, 1}
    with pytest.raises(VerydeepError, match=r"no class .* matches .purple."):
        opened(photos, classes=("purple",))
    with pytest.raises(VerydeepError, match=r"only one class \(red\)"):
        opened(photos, classes=("red",))


def test_classes_too_small_for_a_dev_set_are_refused(photos: Path) -> None:
    for name in ("few", "fewer"):
        for number in range(2):
            paint(photos / name / f"{number}.png", number, (9, 99, 199))
    assert len(opened(photos).sets["train"].classes) == 5
    with pytest.raises(VerydeepError, match="too few images for a dev set"):
        opened(photos, classes=("few*",))


def test_train_without_val_is_not_a_class(tmp_path: Path) -> None:
    make_photos(tmp_path / "train", 4)
    make_photos(tmp_path / "holdout", 4)
    with pytest.raises(VerydeepError, match="has train/ but no val/ or test/ beside it"):
        opened(tmp_path)


def test_a_name_means_a_dataset_even_if_a_folder_has_that_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    make_photos(tmp_path / "digits", 4)
    monkeypatch.chdir(tmp_path)
    assert len(opened("digits").sets["train"].classes) == 10
    assert len(opened("./digits").sets["train"].classes) == 3


def test_the_fingerprint_depends_on_images_and_labels(photos: Path) -> None:
    one = opened(photos).sets["train"]
    assert one.fingerprint() == opened(photos).sets["train"].fingerprint()
    assert one.fingerprint() != opened(photos, split_seed=1).sets["train"].fingerprint()


@pytest.mark.parametrize("flat_val", [True, False])
def test_imagenet_as_downloaded(tmp_path: Path, flat_val: bool) -> None:
    make_imagenet(tmp_path, flat_val)
    data = opened(f"imagenet:{tmp_path}", dev_fraction=0.25)
    assert data.reported == "val"
    assert data.sets["train"].classes == ("n01440764 tench, Tinca tinca", "n01443537 goldfish", "n02084071 dog")
    assert {name: len(found) for name, found in data.sets.items()} == {"train": 27, "dev": 9, "val": 4}
    val = {
        Path(photo).name: int(label) for photo, label in zip(data.sets["val"].ids, data.sets["val"].labels, strict=True)
    }
    assert [val[f"ILSVRC2012_val_{photo:08d}.png"] for photo in range(1, 5)] == [0, 2, 1, 2]


def test_imagenets_test_images_have_no_labels(tmp_path: Path) -> None:
    make_imagenet(tmp_path)
    for photo in (2, 1):
        paint(tmp_path / "test" / f"ILSVRC2012_test_{photo:08d}.png", photo, (4, 5, 6))
    data = opened(f"imagenet:{tmp_path}", dev_fraction=0.25)
    assert data.reported == "val"
    assert data.sets["test"].ids == ("test/ILSVRC2012_test_00000001.png", "test/ILSVRC2012_test_00000002.png")
    assert not data.sets["test"].labelled
    assert len(data.sets["test"].classes) == 3


def test_imagenets_test_photos_may_lie_one_folder_deeper_and_an_empty_folder_is_none(tmp_path: Path) -> None:
    make_imagenet(tmp_path)
    (tmp_path / "test").mkdir()
    assert "test" not in opened(f"imagenet:{tmp_path}", dev_fraction=0.25).sets
    paint(tmp_path / "test" / "test" / "ILSVRC2012_test_00000001.png", 1, (4, 5, 6))
    data = opened(f"imagenet:{tmp_path}", dev_fraction=0.25)
    assert data.sets["test"].ids == ("test/test/ILSVRC2012_test_00000001.png",)


@pytest.mark.parametrize("flat_val", [True, False])
def test_imagenets_validation_photos_are_enough_to_test(tmp_path: Path, flat_val: bool) -> None:
    make_imagenet(tmp_path, flat_val)
    whole = opened(f"imagenet:{tmp_path}", dev_fraction=0.25)
    shutil.rmtree(tmp_path / "train")
    data = opened(f"imagenet:{tmp_path}")
    assert set(data.sets) == {"val"}
    assert data.classes == whole.classes
    np.testing.assert_array_equal(data.sets["val"].labels, whole.sets["val"].labels)
    with pytest.raises(VerydeepError, match="has no set 'train': its sets are val"):
        data.set("train")


def test_joined_sets_keep_their_subjects_apart() -> None:
    sets = list(opened("digits:60").sets.values())
    joined = join(sets, "all")
    assert joined.subjects is not None
    assert len(np.unique(joined.subjects)) == sum(len(np.unique(found.groups)) for found in sets)
    assert list(joined.ids) == sorted(photo for found in sets for photo in found.ids)


def test_imagenet_dev_is_ten_photos_a_class_unless_a_fraction_is_given(tmp_path: Path) -> None:
    make_imagenet(tmp_path)
    assert len(opened(f"imagenet:{tmp_path}").sets["dev"]) == 30
    assert len(opened(f"imagenet:{tmp_path}", dev_fraction=0.1).sets["dev"]) == 3


def test_imagenet_names_come_from_the_devkit_where_there_is_no_other_list(tmp_path: Path) -> None:
    make_imagenet(tmp_path)
    (tmp_path / "synset_words.txt").unlink()
    assert opened(f"imagenet:{tmp_path}").sets["train"].classes[0] == "n01440764 tench, Tinca tinca"


def test_imagenet_ground_truth_must_fit_the_photos(tmp_path: Path) -> None:
    make_imagenet(tmp_path)
    (tmp_path / "val" / "ILSVRC2012_val_00000004.png").unlink()
    with pytest.raises(VerydeepError, match="has 4 lines, but there are 3 validation images"):
        opened(f"imagenet:{tmp_path}")
    (tmp_path / "ILSVRC2012_devkit_t12" / "data" / "ILSVRC2012_validation_ground_truth.txt").unlink()
    with pytest.raises(VerydeepError, match="no ground truth"):
        opened(f"imagenet:{tmp_path}")


def test_caltech_splits_as_the_paper(tmp_path: Path) -> None:
    for name, count in (("ant", 31), ("bass", 60), ("zebra", 95)):
        for photo in range(count):
            paint(tmp_path / "101_ObjectCategories" / name / f"image_{photo:04d}.png", photo, (9, 9, 9), (4, 4))
    data = opened(f"caltech101:{tmp_path}")
    assert np.bincount(data.sets["train"].labels).tolist() == [24, 24, 24]
    assert np.bincount(data.sets["dev"].labels).tolist() == [6, 6, 6]
    assert np.bincount(data.sets["test"].labels).tolist() == [1, 30, 50]
    other = opened(f"caltech101:{tmp_path}", split_seed=1)
    assert other.sets["test"].ids != data.sets["test"].ids
    with pytest.raises(VerydeepError, match="class 'ant' of caltech256 has 31 images"):
        opened(f"caltech256:{tmp_path / '101_ObjectCategories'}")


def test_a_name_without_a_folder_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("IMAGENET", raising=False)
    with pytest.raises(VerydeepError, match=r"where is imagenet\? Use --data imagenet:DIR"):
        opened("imagenet")
    make_imagenet(tmp_path)
    monkeypatch.setenv("IMAGENET", str(tmp_path))
    assert len(opened("imagenet").sets["val"]) == 4


def test_digits_are_scikit_learns() -> None:
    from sklearn.datasets import load_digits

    from verydeep.data.datasets import digits

    images, labels = digits._digits()
    theirs = load_digits()
    np.testing.assert_array_equal(images, theirs.images)
    np.testing.assert_array_equal(labels, theirs.target)


def test_sets_of_digits_share_no_digit() -> None:
    shown = {name: {digit_shown(name, index) for index in range(count)} for name, count in SETS.items()}
    assert not shown["train"] & shown["dev"]
    assert not shown["train"] & shown["val"]
    assert not shown["dev"] & shown["val"]
    assert {name: len(found) for name, found in shown.items()} == {n: end - first for n, (first, end) in PARTS.items()}


def test_a_scene_is_a_function_of_its_number_and_its_box_contains_the_ink() -> None:
    for index in range(40):
        pixels, box = scene("val", index)
        again, _ = scene("val", index)
        assert SceneReader().size(f"val/{index:05d}") == pixels.shape[:2]
        np.testing.assert_array_equal(pixels, again)
        assert min(pixels.shape[:2]) == 96
        xmin, ymin, xmax, ymax = box
        assert 0 <= xmin < xmax <= pixels.shape[1]
        assert 0 <= ymin < ymax <= pixels.shape[0]
        outside = np.ones(pixels.shape[:2], bool)
        outside[int(ymin) : int(ymax), int(xmin) : int(xmax)] = False
        inside = pixels[~outside].astype(float).mean(axis=1)
        around = pixels[outside].astype(float).mean(axis=1)
        # the pen is far from the ground's level: some of the box is, hardly anything around it
        level, spread = np.median(around), 60
        assert (np.abs(inside - level) > spread).mean() > 0.1
        assert (np.abs(around - level) > spread).mean() < 0.1


def test_check_data_finds_faults_and_duplicates(photos: Path) -> None:
    (photos / "red" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 not really")
    paint(photos / "red" / "strip.png", 3, (200, 50, 50), (600, 4))
    first = sorted((photos / "blue").iterdir())[0]
    (photos / "green" / "copy.png").write_bytes(first.read_bytes())
    found = check_data(str(photos))
    assert sorted(Path(fault["photo"]).name for fault in found["faults"]) == ["broken.jpg", "strip.png"]
    assert all(fault["photo"] in fault["fault"] for fault in found["faults"])
    assert len(found["duplicates"]) == 1
    assert all(name in str(found["duplicates"]) for name in (first.name, "copy.png"))
    assert sum(part["photos"] for part in found["sets"].values()) == 33
    assert sum(found["sets"][name]["balance"]["red"] for name in found["sets"]) == 12
    assert found["sets"]["train"]["smallest_side"] == [40, 40, 40]
