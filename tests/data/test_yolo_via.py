"""Boxes in YOLO's label files and in VIA's JSON and CSV: read as those of a table, their faults counted or named."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from conftest import paint, run_command
from verydeep.core.errors import VerydeepError
from verydeep.core.progress import Collected, Silent
from verydeep.core.settings import DataSettings
from verydeep.data.annotations import read_boxes
from verydeep.data.box_targets import located
from verydeep.data.open import Dataset, open_data

YAML = "path: .\ntrain: images\nnames:\n  0: cat\n  1: 'big dog'  # a comment\n"
# The box (10,5)-(30,25) of a photo of 48 x 40: its centre is (20,15), its sides are 20 and 20.
LINE = f"{20 / 48} {15 / 40} {20 / 48} {20 / 40}"
RECT = {"name": "rect", "x": 10, "y": 5, "width": 20, "height": 20}
HEADER = "filename,file_size,file_attributes,region_count,region_id,region_shape_attributes,region_attributes\n"


def photos_in(folder: Path, count: int = 6) -> None:
    for number in range(count):
        paint(folder / "a" / f"{number}.png", number, (200, 60, 60))
        paint(folder / "b" / f"{number}.png", 50 + number, (60, 60, 200))


def labels_in(folder: Path, lines: dict[str, str] | None = None) -> Path:
    """A label file for each photo: a cat or a dog, or the given lines."""
    for name in "ab":
        for number in range(6):
            path = folder / name / f"{number}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text((lines or {}).get(f"{name}/{number}", f"{'ab'.index(name)} {LINE}\n"))
    return folder


def opened(folder: Path, boxes: Path) -> Dataset:
    return open_data(DataSettings(data=str(folder), boxes=(str(boxes),))).set("all")


def via_item(image: str, name: Any, shape: dict[str, Any] | None = None) -> dict[str, Any]:
    region = {"shape_attributes": shape or RECT, "region_attributes": {"animal": name}}
    return {"filename": image, "size": 99, "regions": [region], "file_attributes": {}}


def via_items() -> dict[str, Any]:
    return {
        f"{number}{name}": via_item(f"{name}/{number}.png", "cat" if name == "a" else "big dog")
        for name in "ab"
        for number in range(6)
    }


def csv_row(image: str, shape: Any, attributes: Any) -> str:
    quoted = ('"' + json.dumps(value).replace('"', '""') + '"' for value in (shape, attributes))
    return f'{image},99,"{{}}",1,0,{",".join(quoted)}\n'


def yolo(folder: Path) -> Path:
    (folder / "data.yaml").write_text(YAML)
    return labels_in(folder / "labels" / "train")


def via_json(folder: Path) -> Path:
    (folder / "via.json").write_text(json.dumps(via_items()))
    return folder / "via.json"


def via_project(folder: Path) -> Path:
    (folder / "p.json").write_text(json.dumps({"_via_settings": {}, "_via_img_metadata": via_items()}))
    return folder / "p.json"


def via_1(folder: Path) -> Path:
    """Regions are numbered, and the class is that of a checkbox's one option that is chosen."""
    items = via_items()
    for item in items.values():
        chosen = item["regions"][0]["region_attributes"]["animal"]
        item["regions"][0]["region_attributes"]["animal"] = {chosen: True, "other": False}
        item["regions"] = {"0": item["regions"][0]}
    (folder / "one.json").write_text(json.dumps(items))
    return folder / "one.json"


def via_csv(folder: Path) -> Path:
    rows = [csv_row(item["filename"], RECT, item["regions"][0]["region_attributes"]) for item in via_items().values()]
    empty = 'a/none.png,99,"{}",0,0,"{}","{}"\n'
    (folder / "via.csv").write_text("#" + HEADER + empty + "".join(rows))
    return folder / "via.csv"


@pytest.mark.parametrize("write", [yolo, via_json, via_project, via_1, via_csv])
def test_boxes_are_those_of_the_other_files(write: Any, tmp_path: Path) -> None:
    photos_in(tmp_path / "images" / "train")
    found = located(opened(tmp_path / "images" / "train", write(tmp_path)), True, Silent())
    assert found.faults == {}
    assert found.dataset.boxes is not None
    assert len(found.dataset) == 12
    for boxes in found.dataset.boxes:
        assert boxes.tolist() == [[pytest.approx(value) for value in (10, 5, 30, 25)]]
    assert found.dataset.classes == ("big dog", "cat")
    assert [found.dataset.classes[label] for label in found.dataset.labels] == ["cat"] * 6 + ["big dog"] * 6


NAMES = [
    ("data.yaml", YAML, "cat"),
    ("data.yml", "names: ['cat', \"dog\"]\n", "cat"),
    ("data.yaml", "nc: 2\nnames:\n- cat\n- dog\n", "cat"),
    ("classes.txt", "cat\ndog\n", "cat"),
    ("obj.names", "black cat\r\ndog\r\n", "black cat"),
    ("data.yaml", "names: {0: cat, 1: dog}", "cat"),
]


@pytest.mark.parametrize(("file", "text", "name"), NAMES)
@pytest.mark.parametrize("place", [".", "labels", "labels/train"])
def test_class_names_are_found_in_the_folder_or_above(
    file: str, text: str, name: str, place: str, tmp_path: Path
) -> None:
    labels = tmp_path / "labels" / "train"
    labels.mkdir(parents=True)
    (labels / "x.txt").write_text(f"0 {LINE} 0.9\n\n")
    (tmp_path / place / file).write_text(text)
    boxes, broken, skipped = read_boxes(labels)
    assert [(image, box.name, box.relative) for image, several in boxes.items() for box in several] == [
        ("x", name, True)
    ]
    assert (broken, skipped) == ([], [])


def test_folders_labels_and_images_are_parallel(tmp_path: Path) -> None:
    """A whole dataset as it is exported, whose other text files are no labels; files without a line have no boxes."""
    photos_in(tmp_path / "train" / "images")
    labels_in(tmp_path / "train" / "labels", {"a/3": "\n"})
    (tmp_path / "README.txt").write_text("exported yesterday\n")
    (tmp_path / "data.yaml").write_text(YAML)
    told = Collected()
    found = located(opened(tmp_path, tmp_path), False, told).dataset
    assert len(found) == 11
    assert told.warnings == ["all: 1 times: image that is not in the box files, left out; train/images/a/3.png"]


BROKEN_LINES = [
    ("cat 0.5 0.5 0.1 0.1", "expected class cx cy w h, got 'cat 0.5 0.5 0.1 0.1'"),
    ("0 0.5 0.5 0.1", "expected class cx cy w h"),
    ("7 0.5 0.5 0.1 0.1", "class 7 is not among the 2 class names"),
    ("-1 0.5 0.5 0.1 0.1", "class -1 is not among"),
    ("0.5 0.5 0.5 0.1 0.1", "class 0.5 is not among"),
    ("0 20 15 20 20", "20 is not a fraction of the image's side"),
    ("0 0.5 nan 0.1 0.1", "nan is not a fraction"),
]


@pytest.mark.parametrize(("line", "reason"), BROKEN_LINES)
def test_broken_labels_are_named_with_the_reason(line: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    (tmp_path / "x.txt").write_text(f"0 {LINE}\n{line}\n")
    with pytest.raises(VerydeepError, match=r"none of its 1 files can be read, the first is .*x\.txt, line 2"):
        read_boxes(tmp_path)
    (tmp_path / "y.txt").write_text(f"0 {LINE}\n1 0.1 0.1 0.2 0.1 0.2 0.2 0.1 0.2\n")
    boxes, (broken,), skipped = read_boxes(tmp_path)
    assert list(boxes) == ["y"]
    assert broken.startswith(f"{tmp_path / 'x.txt'}, line 2: {reason}")
    kinds = "1 polygon or keypoints; the first is"
    assert skipped == [f"{tmp_path}: annotations without a box are skipped: {kinds} {tmp_path / 'y.txt'}, line 2"]


@pytest.mark.parametrize(
    ("file", "text", "sentence"),
    [
        ("notes.md", "", r"no list of class names: write .*classes\.txt"),
        ("data.yaml", "train: images\n", "does not name the classes"),
        ("data.yaml", "names: [", "does not name the classes"),
        ("data.yaml", "[" * 5000, "does not name the classes"),
        ("data.yaml", "names: cat\n", "does not name the classes"),
        ("classes.txt", "cat\n\ndog\n", "does not name the classes"),
    ],
)
def test_class_names_that_are_missing(file: str, text: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text(f"0 {LINE}\n")
    (tmp_path / file).write_text(text)
    with pytest.raises(VerydeepError, match=sentence):
        read_boxes(tmp_path)


def test_yaml_without_its_library_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(VerydeepError, match=r"verydeep\[yolo\].*or write its names into .*classes\.txt"):
        read_boxes(yolo(tmp_path))


# A region beside a good one, and what it counts as.
OTHER_REGIONS = [
    ({"name": "polygon", "all_points_x": [1, 2, 3], "all_points_y": [1, 2, 3]}, "cat", "1 polygon"),
    ({"name": "point", "cx": 1, "cy": 2}, "cat", "1 point"),
    (RECT, "", "1 without a class"),
    (RECT, "undefined", "1 without a class"),
    (RECT, {"cat": True, "dog": True}, "1 without a class"),
]


@pytest.mark.parametrize(("shape", "name", "kind"), OTHER_REGIONS)
def test_regions_that_are_no_box_are_counted(shape: dict[str, Any], name: Any, kind: str, tmp_path: Path) -> None:
    path = tmp_path / "via.json"
    path.write_text(json.dumps({"1": via_item("x.png", name, shape), "2": via_item("y.png", "cat")}))
    boxes, broken, skipped = read_boxes(path)
    assert (list(boxes), broken) == (["y.png"], [])
    assert skipped == [f"{path}: annotations without a box are skipped: {kind}; the first is region 0 of x.png"]


BROKEN_VIA = [
    ("v.json", json.dumps({"1": via_item("x.png", "cat", {**RECT, "x": None})}), "region 0 of x.png: float"),
    ("v.json", json.dumps({"1": via_item("x.png", "cat", {**RECT, "x": 1e9})}), "is not x, y, width, height in pixels"),
    ("v.json", json.dumps({"1": {"filename": "x", "regions": [7]}}), "is not JSON as VIA writes it"),
    ("v.json", json.dumps({"_via_img_metadata": [7]}), "is not JSON as VIA writes it"),
    ("v.csv", HEADER + 'x.png,1,{},1,0,"{""name"": ","{}"\n', "line 2: expected a JSON object"),
    (
        "v.csv",
        HEADER + csv_row("x.png", RECT, {"size": "1", "animal": "cat"}),
        "each of the region attributes animal, size may be the class",
    ),
    ("v.csv", HEADER, "contains no boxes"),
]


@pytest.mark.parametrize(("file", "text", "sentence"), BROKEN_VIA)
def test_invalid_via_files(file: str, text: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / file).write_text(text)
    with pytest.raises(VerydeepError, match=sentence):
        read_boxes(tmp_path / file)


def test_a_region_attribute_named_class_counts(tmp_path: Path) -> None:
    (tmp_path / "v.csv").write_text(HEADER + csv_row("x.png", RECT, {"size": "1", "Label": "cat"}))
    assert [box.name for box in read_boxes(tmp_path / "v.csv")[0]["x.png"]] == ["cat"]


def test_data_check_shows_the_boxes_in_pixels(tmp_path: Path) -> None:
    photos_in(tmp_path / "images")
    labels = labels_in(tmp_path / "labels", {"a/5": "0 0.5 0.5 9 9\n"})
    (labels / "classes.txt").write_text("cat\ndog\n")
    checked = run_command("data", "check", tmp_path / "images", "--boxes", labels)
    assert checked.status == 2
    assert "as read: a/0.png, cat, xmin 10, ymin 5, xmax 30, ymax 25" in checked.stdout
    assert f"{labels / 'a' / '5.txt'}, line 1: 9 is not a fraction of the image's side" in checked.stdout
    (labels / "classes.txt").unlink()
    refused = run_command("data", "check", tmp_path / "images", "--boxes", labels)
    assert (refused.status, refused.stdout) == (2, "")
    assert "no list of class names: write" in refused.stderr
