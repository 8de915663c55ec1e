"""Boxes in YOLO's label files and in VIA's JSON and CSV: read as those of a table, their faults counted or named."""

from __future__ import annotations

import json
import re
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


def via_3_project(items: dict[str, Any], kind: int = 4) -> dict[str, Any]:
    """A project as VIA 3 writes it, in which the class is an option of a list, or a text."""
    options = {"0": "cat", "1": "big dog"} if kind != 1 else {}
    numbers = {name: number for number, name in options.items()}
    attribute = {"aname": "animal", "anchor_id": "FILE1_Z0_XY1", "type": kind, "desc": "", "default_option_id": ""}
    caption = {**attribute, "aname": "caption", "anchor_id": "FILE1_Z0_XY0", "type": 1, "options": {}}
    project: dict[str, Any] = {
        "project": {"pid": "__VIA_PROJECT_ID__", "data_format_version": "3.1.1", "vid_list": []},
        "config": {"file": {"loc_prefix": {"1": "", "2": "", "3": "", "4": ""}}},
        "attribute": {"1": {**attribute, "options": options}, "2": caption},
        **{"file": {}, "metadata": {}, "view": {}},
    }
    for number, item in enumerate(items.values(), start=1):
        name = item["regions"][0]["region_attributes"]["animal"]
        file = {"fid": number, "fname": item["filename"], "type": 2, "loc": 1, "src": ""}
        shape = item["regions"][0]["shape_attributes"]
        project["file"][str(number)] = file
        project["view"][str(number)] = {"fid_list": [number]}
        project["project"]["vid_list"].append(str(number))
        whole = {"vid": str(number), "flg": 0, "z": [], "xy": [], "av": {"2": "an animal"}}
        xy = [2, *(shape[side] for side in ("x", "y", "width", "height"))]
        project["metadata"][f"{number}_a"] = whole
        project["metadata"][f"{number}_b"] = {**whole, "xy": xy, "av": {"1": numbers.get(name, name)}}
    return project


def via_3(folder: Path) -> Path:
    (folder / "via_project.json").write_text(json.dumps(via_3_project(via_items())))
    return folder / "via_project.json"


def via_csv(folder: Path) -> Path:
    rows = [csv_row(item["filename"], RECT, item["regions"][0]["region_attributes"]) for item in via_items().values()]
    empty = 'a/none.png,99,"{}",0,0,"{}","{}"\n'
    (folder / "via.csv").write_text("#" + HEADER + empty + "".join(rows))
    return folder / "via.csv"


@pytest.mark.parametrize("write", [yolo, via_json, via_project, via_1, via_3, via_csv])
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


def broken_3(change: dict[str, Any]) -> dict[str, Any]:
    """A project of VIA 3 whose first region is changed."""
    project = via_3_project(via_items())
    project["view"]["pair"] = {"fid_list": [1, 2]}
    project["metadata"]["1_b"] |= change
    return project


def test_regions_of_via_3_that_are_no_boxes(tmp_path: Path) -> None:
    """Texts are classes too; a path is that of `src` where the file was added by it."""
    project = via_3_project(via_items(), kind=1)
    changes: list[dict[str, Any]] = [{"xy": [7, 1, 2, 3, 4, 5, 6]}, {"xy": [3, 9, 9, 2]}, {"z": [1.5]}, {"av": {}}]
    for number, change in enumerate(changes, start=1):
        project["metadata"][f"{number}_b"] |= change
    project["file"]["5"] |= {"loc": 3, "src": "far/4.png", "fname": "4.png"}
    (tmp_path / "v.json").write_text(json.dumps(project))
    boxes, _, skipped = read_boxes(tmp_path / "v.json")
    assert list(boxes)[:2] == ["far/4.png", "a/5.png"]
    assert len(boxes) == 8
    assert boxes["b/0.png"][0].name == "big dog"
    for kind in ("polygon", "circle", "in a video", "without a class"):
        assert any(kind in sentence for sentence in skipped)


def test_two_chosen_options_of_via_3_are_no_class(tmp_path: Path) -> None:
    project = via_3_project(via_items(), kind=2)
    project["metadata"]["1_b"]["av"] = {"1": "0,1"}
    (tmp_path / "v.json").write_text(json.dumps(project))
    boxes, _, skipped = read_boxes(tmp_path / "v.json")
    assert len(boxes) == 11
    assert "without a class" in skipped[0]


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
    *(
        ("v.json", json.dumps(broken_3(change)), sentence)
        for change, sentence in (
            ({"xy": [2, 1, 2, 3]}, r"xy [2, 1, 2, 3] of a rectangle is not [2, x, y, width, height]"),
            ({"xy": [2, 1, 2, 3, None]}, "region 1_b of a/0.png: float"),
            ({"xy": 2}, "is not JSON as VIA writes it"),
            ({"vid": "99"}, "is not JSON as VIA writes it ('99')"),
            ({"vid": "pair"}, "the view of 1_b has 2 files, not one"),
            ({"av": {"7": "cat"}}, "is not JSON as VIA writes it ('7')"),
        )
    ),
]


@pytest.mark.parametrize(("file", "text", "sentence"), BROKEN_VIA)
def test_invalid_via_files(file: str, text: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / file).write_text(text)
    with pytest.raises(VerydeepError, match=re.escape(sentence)):
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
