"""COCO's JSON as people have it: annotations without a box are counted, and another fault names its annotation."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from conftest import own_photos, run_command
from verydeep.core.errors import VerydeepError
from verydeep.data.annotations import read_boxes

IMAGES = [{"id": 1, "file_name": "a.png", "width": 64, "height": 48}, {"id": 2, "file_name": "in\\b.png"}]
CATEGORIES = [{"id": 3, "name": "cat"}, {"id": 4, "name": "dog"}]
BOX = {"id": 10, "image_id": 1, "category_id": 3, "bbox": [1, 2, 10, 20]}
POLYGON = [[1, 2, 3, 4, 5, 6]]


def coco(path: Path, *annotations: Any, images: list[Any] | None = None, categories: list[Any] | None = None) -> Path:
    told = {"images": IMAGES if images is None else images, "annotations": annotations}
    path.write_text(json.dumps({**told, "categories": CATEGORIES if categories is None else categories}))
    return path


def changed(**more: Any) -> dict[str, Any]:
    """The box with something changed; None leaves it as null, and ``...`` leaves it out."""
    return {key: value for key, value in {**BOX, **more}.items() if value is not ...}


# An annotation beside a good one, and the kind that it is counted as.
BOXLESS = [
    (changed(bbox=..., segmentation=POLYGON), "1 segmentation only"),
    (changed(bbox=[], segmentation=POLYGON), "1 segmentation only"),
    (changed(bbox=None), "1 empty"),
    (changed(bbox=...), "1 empty"),
    (changed(bbox=..., segmentation=[]), "1 empty"),
    (changed(bbox=..., image_id=99, category_id=...), "1 empty"),  # a caption, say, of an image left out
    (changed(iscrowd=1), "1 crowd"),
    (changed(iscrowd=True, bbox=..., segmentation={"counts": [1], "size": [1, 1]}), "1 crowd"),
]


@pytest.mark.parametrize(("annotation", "kind"), BOXLESS)
def test_annotations_without_a_box_are_counted(tmp_path: Path, annotation: Any, kind: str) -> None:
    path = coco(tmp_path / "c.json", {**annotation, "id": 7}, BOX)
    found, broken, skipped = read_boxes(path)
    assert {name: [box.xyxy for box in boxes] for name, boxes in found.items()} == {"a.png": [(1, 2, 11, 22)]}
    assert broken == []
    assert skipped == [f"{path}: annotations without a box are skipped: {kind}; the first is annotation 7"]
    coco(path, annotation, annotation)
    with pytest.raises(VerydeepError, match=r"c\.json contains no boxes; .*without a box are skipped: 2"):
        read_boxes(path)


# One that is read: ids as text or as whole floats, coordinates as floats or text, and no crowd.
READ = [
    (changed(image_id="1"), {}),
    (changed(image_id=1.0, category_id="3"), {}),
    (changed(bbox=[1.0, 2.0, "10", 20.0]), {}),
    (changed(iscrowd=0), {}),
    (changed(iscrowd="0"), {}),
    (changed(iscrowd=None), {}),
    (changed(id=...), {}),
    (BOX, {"images": [{"id": "1", "file_name": "a.png"}]}),
    (BOX, {"images": [*IMAGES, IMAGES[0]]}),  # listed twice
    (BOX, {"categories": [*CATEGORIES, {"id": 9, "name": None}]}),  # of no annotation
]


@pytest.mark.parametrize(("annotation", "more"), READ)
def test_unusual_but_clear_annotations_are_read(tmp_path: Path, annotation: Any, more: dict[str, Any]) -> None:
    found, _, skipped = read_boxes(coco(tmp_path / "c.json", annotation, **more))
    assert [box.xyxy for box in found["a.png"]] == [(1, 2, 11, 22)]
    assert found["a.png"][0].name == "cat"
    assert skipped == []


REFUSED = [
    (changed(image_id=5), r"annotation 10: image_id 5 is not among the file's images"),
    (changed(image_id="a"), r"annotation 10: image_id 'a' is not among"),
    (changed(image_id=...), r"annotation 10: it has no image_id"),
    (changed(image_id=None), r"annotation 10: image_id None is not among"),
    (changed(category_id=5), r"annotation 10: category_id 5 is not among the file's categories"),
    (changed(category_id=[3]), r"annotation 10: category_id \[3\] is not among"),
    (changed(bbox=[1, 2, 3]), r"annotation 10: bbox \[1, 2, 3\] is not x, y, width, height"),
    (changed(bbox=[1, 2, 3, 4, 5]), r"annotation 10: bbox .* is not x, y"),
    (changed(bbox=[1, 2, None, 4]), r"annotation 10: "),
    (changed(bbox=[1, 2, "x", 4]), r"annotation 10: could not convert"),
    (changed(bbox=[1, 2, float("nan"), 4]), r"annotation 10: bbox .*nan.* is not x, y"),
    (changed(bbox=[1, 2, 1e9, 4]), r"annotation 10: bbox .* is not x, y"),
    (changed(bbox={"x": 1}), r"annotation 10: bbox .* is not x, y"),
    (changed(bbox="1 2 3 4"), r"annotation 10: bbox 1 2 3 4 is not x, y"),
    (changed(id=..., image_id=5), r"annotation no\. 2: image_id 5"),
    ("a box", r"annotation no\. 2: "),
    (changed(category_id=6), r"its category 6 has no name"),
    (changed(image_id=6), r"its image 6 has no file_name"),
]


@pytest.mark.parametrize(("annotation", "says"), REFUSED)
def test_errors_name_the_annotation(tmp_path: Path, annotation: Any, says: str) -> None:
    images, categories = [*IMAGES, {"id": 6}], [*CATEGORIES, {"id": 6, "name": " "}]
    path = coco(tmp_path / "c.json", {**BOX, "id": 1}, annotation, images=images, categories=categories)
    with pytest.raises(VerydeepError, match=rf"c\.json, .*{says}"):
        read_boxes(path)


def test_a_duplicate_id_is_refused(tmp_path: Path) -> None:
    """The last of them used to win, which gives boxes to a photo that they are not of."""
    path = coco(tmp_path / "c.json", BOX, images=[*IMAGES, {"id": 1, "file_name": "z.png"}])
    with pytest.raises(VerydeepError, match=r"c\.json: a\.png and z\.png share the id 1"):
        read_boxes(path)
    coco(path, BOX, categories=[*CATEGORIES, {"id": "3", "name": "cow"}])
    with pytest.raises(VerydeepError, match="cat and cow share the id 3"):
        read_boxes(path)


def test_by_the_command(tmp_path: Path) -> None:
    """Names in a folder as Windows writes them; an image without annotations; boxes beyond the edge or turned round."""
    place = own_photos(tmp_path)
    (place / "photos" / "deep").mkdir()
    shutil.move(place / "photos" / "00.png", place / "photos" / "deep" / "00.png")
    names = ["deep\\00.png", *(f"{number:02d}.png" for number in range(1, 24))]
    images = [{"id": number, "file_name": name} for number, name in enumerate(names)]
    boxes = [
        changed(id=number, image_id=number, category_id=3 + number % 2, bbox=[4, 4, 20.5, 20]) for number in range(23)
    ]
    boxes[2]["bbox"], boxes[3]["bbox"] = [-10, -5, 30, 30], [30, 30, -20, -20]
    extra = [changed(iscrowd=1), changed(bbox=..., segmentation=POLYGON)]
    coco(place / "boxes.json", *boxes, *extra, images=images)
    answer = run_command("data", "check", "photos", "--boxes", "boxes.json", "--json", cwd=place)
    told = json.loads(answer.stdout)
    assert answer.status == 2  # boxes of two photos are put right, and one photo has none
    assert sum(part["photos"] for part in told["sets"].values()) == 23
    assert told["boxes_skipped"] == [
        "boxes.json: annotations without a box are skipped: 1 crowd, 1 segmentation only; the first is annotation 10"
    ]
    assert any("extends beyond the image" in line for line in told["box_faults"])
    assert any("swapped corners" in line for line in told["box_faults"])
    assert any("23.png" in line for line in told["box_faults"])
    shown = run_command("data", "check", "photos", "--boxes", "boxes.json", cwd=place)
    assert "annotations without a box are skipped" in shown.stdout
    boxes[5]["image_id"] = 77
    coco(place / "boxes.json", *boxes, images=images)
    sentence = run_command("data", "check", "photos", "--boxes", "boxes.json", cwd=place).mistake()
    assert sentence == "boxes.json, annotation 5: image_id 77 is not among the file's images."
