"""App. A, data: box files of all kinds, their faults, and what a crop's net is to tell of a box."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from conftest import make_imagenet, paint
from verydeep.core.config import Scale
from verydeep.core.device import ONE_BY_ONE
from verydeep.core.errors import VerydeepError
from verydeep.core.progress import Collected, Silent
from verydeep.core.settings import DataSettings, TrainSettings
from verydeep.data.annotations import read_boxes, read_xml
from verydeep.data.box_targets import FAULTS, located
from verydeep.data.boxes import cxcywh_to_xyxy
from verydeep.data.dataloader import BoxTargets, TrainingLoader, box_in_window
from verydeep.data.dataset import NamedBox
from verydeep.data.datasets.digits import scene
from verydeep.data.datasets.imagenet import blacklisted
from verydeep.data.image_io import image_size, read_image
from verydeep.data.open import Dataset, lasting_boxes, open_data
from verydeep.data.transforms import Window

XML = """<annotation><filename>%s</filename><size><width>{width}</width><height>{height}</height><depth>3</depth></size>
{objects}</annotation>"""
OBJECT = "<object><name>{}</name><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"


def xml(path: Path, objects: list[tuple[str, float, float, float, float]], width: int = 48, height: int = 40) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(XML.format(width=width, height=height, objects="".join(OBJECT.format(*item) for item in objects)))


def photos_in(folder: Path, count: int = 6) -> None:
    for number in range(count):
        paint(folder / "a" / f"{number}.png", number, (200, 60, 60))
        paint(folder / "b" / f"{number}.png", 50 + number, (60, 60, 200))


def rows(folder: Path, boxes: dict[str, str]) -> Path:
    """A CSV of each photo's box, all the same but those given as text."""
    path = folder / "boxes.csv"
    lines = [
        f"{name}/{number}.png,{boxes.get(f'{name}/{number}.png', '11,6,30,25')},{'cat' if name == 'a' else 'dog'}"
        for name in "ab"
        for number in range(6)
    ]
    path.write_text("image,xmin,ymin,xmax,ymax,class\n" + "\n".join(lines) + "\n")
    return path


def opened(folder: Path, *boxes: object) -> Dataset:
    """All photos of a folder that have boxes."""
    return open_data(DataSettings(data=str(folder), boxes=tuple(map(str, boxes)))).set("all")


def test_the_same_boxes_from_all_kinds_of_files(tmp_path: Path) -> None:
    photos_in(tmp_path / "photos")
    table = rows(tmp_path, {})
    told = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]}
    for name in "ab":
        for number in range(6):
            label = "cat" if name == "a" else "dog"
            xml(tmp_path / "annotations" / name / f"{number}.xml", [(label, 11, 6, 30, 25)])
            key = len(told["images"])
            told["images"].append({"id": key, "file_name": f"{name}/{number}.png", "width": 48, "height": 40})
            box = [10, 5, 20, 20]  # xywh from 0
            told["annotations"].append({"image_id": key, "category_id": 1 if name == "a" else 2, "bbox": box})
            told["annotations"].append({"image_id": key, "category_id": 1, "bbox": [0, 0, 9, 9], "iscrowd": 1})
    (tmp_path / "coco.json").write_text(json.dumps(told))
    for place in (table, tmp_path / "annotations", tmp_path / "coco.json"):
        found = located(opened(tmp_path / "photos", place), True, Silent())
        assert found.faults == {}
        assert len(found.dataset) == 12
        assert found.dataset.boxes is not None
        assert all(boxes.tolist() == [[10, 5, 30, 25]] for boxes in found.dataset.boxes), place
        names = [found.dataset.classes[label] for label in found.dataset.labels]
        assert names == ["cat"] * 6 + ["dog"] * 6


def test_names_may_be_relative_to_a_folder_or_unique_file_names(tmp_path: Path) -> None:
    photos_in(tmp_path / "photos")
    paint(tmp_path / "photos" / "c" / "alone.png", 99, (9, 9, 9))
    (tmp_path / "a.csv").write_text("".join(f"{number}.png,1,1,20,20,cat\n" for number in range(6)))
    (tmp_path / "b.csv").write_text("".join(f"{number},1,1,20,20,dog\n" for number in range(6)))  # no extension
    found = opened(tmp_path / "photos", f"a={tmp_path / 'a.csv'}", f"b={tmp_path / 'b.csv'}")
    assert list(found.ids) == [f"{name}/{number}.png" for name in "ab" for number in range(6)]
    with pytest.raises(VerydeepError, match=r"a.csv names 0.png, which 2 images are called \(a/0.png, b/0.png, …\)"):
        opened(tmp_path / "photos", tmp_path / "a.csv")
    (tmp_path / "c.csv").write_text("alone.png,1,1,20,20,bird\n" * 3)
    dataset = opened(tmp_path / "photos", tmp_path / "c.csv", f"a={tmp_path / 'a.csv'}")
    assert "c/alone.png" in dataset.ids
    with pytest.raises(VerydeepError, match="has no folder nowhere"):
        opened(tmp_path / "photos", f"nowhere={tmp_path / 'a.csv'}")


def test_an_image_has_the_class_with_most_box_area(tmp_path: Path) -> None:
    photos_in(tmp_path / "photos")
    table = rows(tmp_path, {})
    with table.open("a") as file:
        file.write("a/0.png,1,1,40,40,dog\na/1.png,1,1,5,5,dog\n")
    found = located(opened(tmp_path / "photos", table), True, Silent()).dataset
    assert found.boxes is not None
    assert [found.classes[label] for label in found.labels[:2]] == ["dog", "cat"]
    assert found.boxes[0].tolist() == [[0, 0, 40, 40]]
    assert found.boxes[1].tolist() == [[10, 5, 30, 25]]


# what the row says, the fault's kind, the box that is left or None, why
FAULTY = [
    ("30,25,11,6", "swapped", [10, 5, 30, 25], "put right"),
    ("30,6,11,25", "swapped", [10, 5, 30, 25], "in one direction only"),
    ("11,6,60,25", "outside", [10, 5, 48, 25], "cut at the edge of a photo 48 wide"),
    ("-9,6,30,25", "outside", [0, 5, 30, 25], "on the other side"),
    ("0,0,30,25", None, [0, 0, 30, 25], "counted from 0: a pixel beyond the edge is no fault"),
    ("11,6,49,25", None, [10, 5, 48, 25], "or beyond the other"),
    ("100,6,130,25", "away", None, "wholly outside"),
    ("11,6,11,25", "empty", None, "no width"),
    ("11,25,30,25", "empty", None, "no height, as one row of Caltech's"),
]


@pytest.mark.parametrize(("row", "fault", "left", "reason"), FAULTY)
def test_faults_are_corrected_and_reported_or_refused_when_strict(
    row: str, fault: str | None, left: list[float] | None, reason: str, tmp_path: Path
) -> None:
    photos_in(tmp_path / "photos")
    dataset = opened(tmp_path / "photos", rows(tmp_path, {"a/3.png": row}))
    told = Collected()
    found = located(dataset, False, told)
    assert found.dataset.boxes is not None
    kinds = ([fault] if fault else []) + (["none"] if left is None else [])
    assert list(found.faults) == kinds, reason
    assert len(told.warnings) == len(kinds)
    if left is None:
        assert "a/3.png" not in found.dataset.ids
        assert len(found.dataset) == 11
    else:
        assert found.dataset.boxes[found.dataset.ids.index("a/3.png")].tolist() == [left], reason
    if fault:
        assert FAULTS[fault] in told.warnings[0]
        assert "3.png" in told.warnings[0]
        with pytest.raises(VerydeepError, match=r"3\.png.*without --strict"):
            located(dataset, True, Silent())
    else:
        assert located(dataset, True, Silent()).faults == {}


def test_boxes_annotated_at_another_size_are_rescaled(tmp_path: Path) -> None:
    """ILSVRC's coordinates are of the size its annotators saw."""
    photos_in(tmp_path / "photos")
    for name in "ab":
        for number in range(6):
            xml(tmp_path / "xml" / name / f"{number}.xml", [(name, 21, 11, 60, 50)], width=96, height=80)
    xml(tmp_path / "xml" / "a" / "2.xml", [("a", 21, 11, 60, 50)], width=80, height=96)
    (tmp_path / "xml" / "b" / "4.xml").write_text("<annotation></annotation>")
    found = located(opened(tmp_path / "photos", tmp_path / "xml"), False, Silent())
    assert found.dataset.boxes is not None
    assert found.dataset.boxes[0].tolist() == [[10, 5, 30, 25]]
    assert [Path(name).name for name in found.faults["shape"]] == ["2.png"]
    assert "b/4.png" not in found.dataset.ids


def test_missing_images_of_box_files_are_reported(tmp_path: Path) -> None:
    photos_in(tmp_path / "photos")
    table = rows(tmp_path, {})
    with table.open("a") as file:
        file.write("a/77.png,1,1,9,9,cat\n")
    told = Collected()
    located(opened(tmp_path / "photos", table), False, told)
    assert told.warnings == ["all: 1 times: box of an image that does not exist, left out; a/77.png"]
    (tmp_path / "other.csv").write_text("x/y.png,1,1,9,9,cat\n")
    with pytest.raises(VerydeepError, match=r"images in the box files is below .* \(the first is x/y.png\)"):
        opened(tmp_path / "photos", tmp_path / "other.csv")


BROKEN = [
    ("boxes.csv", "a/0.png,1,2,3,cat\n", "line 1: expected image,xmin,ymin,xmax,ymax,class"),
    ("boxes.csv", "a/0.png,1,2,3,x,cat\n", "line 1: expected image"),
    ("boxes.csv", "image,xmin,ymin,xmax,ymax,class\na/0.png,1,2,nan,4,cat\n", "line 2: expected image"),
    ("boxes.csv", "", "contains no boxes"),
    ("boxes.json", "[1, 2]", "is not COCO JSON"),
    ("boxes.json", '{"images": [], "annotations": [{"image_id": 3}]}', "is not COCO JSON"),
    ("boxes.txt", "hello", "is neither a folder of XML files nor"),
    ("nothing.csv", None, "cannot read"),
    ("nothing", None, "does not exist"),
]


@pytest.mark.parametrize(("name", "text", "sentence"), BROKEN)
def test_invalid_box_files(name: str, text: str | None, sentence: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(VerydeepError, match=sentence):
        read_boxes(tmp_path / name)


@pytest.mark.parametrize(
    "text",
    [
        "<annotation><object>",
        "not xml",
        XML.format(width=4, height=4, objects="<object><name>a</name></object>"),
        XML.format(width=4, height=4, objects=OBJECT.format("", 1, 2, 3, 4)),
        XML.format(width=4, height=4, objects=OBJECT.format("a", 1, 2, "inf", 4)),
        XML.format(width=4, height=4, objects=OBJECT.format("a", 1, 2, "1e200", 4)),
        '<?xml version="1.0" encoding="foo-99"?><annotation/>',
    ],
)
def test_broken_xml_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text(text)
    with pytest.raises(VerydeepError, match=r"a\.xml is not a PASCAL VOC XML annotation, or corrupted"):
        read_xml(tmp_path / "a.xml")
    with pytest.raises(VerydeepError, match=r"none of its 1 files can be read, the first is .*a\.xml"):
        read_boxes(tmp_path)
    xml(tmp_path / "b.xml", [("cat", 1, 1, 2, 2)])
    assert read_boxes(tmp_path)[1] == [str(tmp_path / "a.xml")]


def test_ilsvrcs_boxes_by_wnid_by_words_and_the_blacklist(tmp_path: Path) -> None:
    make_imagenet(tmp_path)
    boxes = tmp_path / "ILSVRC2012_bbox_train_v2"
    xml(boxes / "n02084071" / "n02084071_3.xml", [("n02084071", 11, 6, 30, 25), ("n02084071", 1, 1, 9, 9)])
    xml(boxes / "n02084071" / "n02084071_4.xml", [("dog", 11, 6, 30, 25)])
    xml(boxes / "n01440764" / "n01440764_5.xml", [("Tinca_tinca", 11, 6, 30, 25), ("n02084071", 1, 1, 9, 9)])
    xml(boxes / "n01440764" / "n01440764_6.xml", [("n02084071", 1, 1, 9, 9)])  # none of its class
    for photo in (7, 8, 9):
        (boxes / "n01440764" / f"n01440764_{photo}.xml").write_text("torn")
    for photo in range(1, 5):
        xml(tmp_path / "bbox_val" / f"ILSVRC2012_val_{photo:08d}.xml", [("n01440764", 1, 1, 9, 9)])
    data = open_data(DataSettings(data=f"imagenet:{tmp_path}", dev_fraction=0.1))
    train = data.sets["train"]
    wanted = [index for index, photo in enumerate(train.ids) if photo.split("_")[-1] in ("3.png", "4.png", "5.png")]
    found = located(train.take(np.array(wanted)), False, Silent()).dataset
    assert found.boxes is not None
    by_photo = dict(zip([Path(photo).stem for photo in found.ids], found.boxes, strict=True))
    # Pixels 11 to 30, counted from 0, are the 20 pixels between the edges 11 and 31.
    assert by_photo["n02084071_3"].tolist() == [[11, 6, 31, 26], [1, 1, 10, 10]]
    assert by_photo["n02084071_4"].tolist() == [[11, 6, 31, 26]]
    assert by_photo["n01440764_5"].tolist() == [[11, 6, 31, 26]]
    every = located(data.set("train"), False, Silent())
    torn = [photo for photo in train.ids if Path(photo).stem in ("n01440764_7", "n01440764_8", "n01440764_9")]
    assert [Path(photo).stem for photo in every.faults.get("broken", [])] == [Path(photo).stem for photo in torn]
    assert torn
    assert "n01440764_6" not in {Path(photo).stem for photo in every.dataset.ids}
    val = located(data.sets["val"], False, Silent()).dataset
    assert len(val) == 1  # the one tench: the others' boxes are of another class
    assert blacklisted(tmp_path) is None
    devkit = tmp_path / "ILSVRC2012_devkit_t12" / "data"
    (devkit / "ILSVRC2014_clsloc_validation_blacklist.txt").write_text("1\n3\n")
    assert blacklisted(tmp_path) == frozenset({1, 3})
    (devkit / "ILSVRC2014_clsloc_validation_blacklist.txt").write_text("one\n")
    with pytest.raises(VerydeepError, match=r"blacklist\.txt is corrupted"):
        blacklisted(tmp_path)


def test_words_are_of_synsets_only(tmp_path: Path) -> None:
    """A dog's box is none of a hot dog's; a photo that no file names is told, and refused when strict."""
    photos_in(tmp_path / "photos")
    table = rows(tmp_path, {})
    table.write_text(table.read_text().replace(",cat", ",hot dog") + "a/0.png,1,1,9,9,dog\n")
    found = located(opened(tmp_path / "photos", table), True, Silent()).dataset
    assert found.boxes is not None
    assert found.boxes[0].tolist() == [[10, 5, 30, 25]]
    paint(tmp_path / "photos" / "a" / "unnamed.png", 1, (1, 2, 3))
    told = Collected()
    located(opened(tmp_path / "photos", table), False, told)
    assert told.warnings == ["all: 1 times: image that is not in the box files, left out; a/unnamed.png"]
    with pytest.raises(VerydeepError, match=r"unnamed\.png; fix it"):
        located(opened(tmp_path / "photos", table), True, Silent())


def test_a_box_outside_the_image_does_not_count_for_its_class(tmp_path: Path) -> None:
    photos_in(tmp_path / "photos")
    table = rows(tmp_path, {})
    table.write_text(table.read_text() + "a/0.png,500,500,900,900,dog\n")
    found = opened(tmp_path / "photos", table)
    assert found.classes[found.labels[0]] == "cat"


def test_names_with_an_equals_sign_and_names_that_are_stems_of_others(tmp_path: Path) -> None:
    place = tmp_path / "lr=0.1"
    photos_in(place / "photos")
    paint(place / "photos" / "a" / "0.png.png", 7, (1, 2, 3))
    table = rows(place, {})
    assert len(opened(place / "photos", table)) == 12  # an exact name before a stem
    assert lasting_boxes((f"a={table}",)) == (f"a={table}",)
    assert lasting_boxes((str(table),)) == (str(table),)
    with pytest.raises(VerydeepError, match="'a=' names no file"):
        lasting_boxes(("a=",))


def test_invalid_sizes_are_ignored(tmp_path: Path) -> None:
    told: dict[str, Any] = {
        "images": [{"id": 1, "file_name": "a.png", "height": 0, "width": 1e400}],
        "categories": [{"id": 1, "name": "c"}],
    }
    told["annotations"] = [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 5, 5]}]
    (tmp_path / "boxes.json").write_text(json.dumps(told))
    assert read_boxes(tmp_path / "boxes.json")[0]["a.png"][0].size is None
    xml(tmp_path / "x" / "p.xml", [("cat", 1, 1, 2, 2)], width=0, height=9)
    assert read_boxes(tmp_path / "x")[0]["p"][0].size is None


def test_data_without_boxes_are_refused(photos: Path) -> None:
    dataset = open_data(DataSettings(data=str(photos))).set("train")
    with pytest.raises(VerydeepError, match="has no boxes: name their files with --boxes"):
        located(dataset, False, Silent())


def test_one_class_is_enough_for_boxes(tmp_path: Path) -> None:
    photos_in(tmp_path / "photos")
    (tmp_path / "a.csv").write_text("".join(f"a/{number}.png,1,1,20,20,cat\n" for number in range(6)))
    settings = DataSettings(data=str(tmp_path / "photos"), boxes=(str(tmp_path / "a.csv"),))
    assert len(open_data(settings, least_classes=1).classes) == 1
    with pytest.raises(VerydeepError, match="has only one class"):
        open_data(settings)


def test_the_boxes_of_digits_contain_the_ink() -> None:
    data = open_data(DataSettings(data="digits:60"))
    found = located(data.sets["val"], True, Silent()).dataset
    assert found.boxes is not None
    for index in (0, 7, 19):
        pixels, box = scene("val", index)
        assert found.boxes[index].tolist() == [list(box)]
        x1, y1, x2, y2 = (int(value) for value in box)
        assert pixels[y1:y2, x1:x2].astype(float).std() > 12
    assert found.take(np.array([3, 1])).boxes == (found.boxes[3], found.boxes[1])
    assert found.fingerprint() != data.sets["val"].fingerprint()  # boxes are part of what it was trained on


@pytest.mark.parametrize("orientation", [1, 3, 5, 6, 7, 8])
@pytest.mark.parametrize("kind", ["jpg", "png", "tiff", "webp"])
def test_the_size_of_an_image_is_that_of_its_upright_pixels(orientation: int, kind: str, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (30, 20)).save(tmp_path / f"turned.{kind}", exif=exif)
    assert image_size(tmp_path / f"turned.{kind}") == read_image(tmp_path / f"turned.{kind}").shape[:2]
    (tmp_path / "no.jpg").write_text("no photo")
    with pytest.raises(VerydeepError, match=r"no\.jpg cannot be read as an image"):
        image_size(tmp_path / "no.jpg")


def test_a_box_in_a_window_and_back() -> None:
    """By hand: a 20x10 box whose corner is 4 right and 8 below that of a 32-pixel crop."""
    box = np.array([14.0, 18.0, 34.0, 28.0])
    plain, mirrored = Window(10, 10, False), Window(10, 10, True)
    assert box_in_window(box, plain, 32) == pytest.approx([14 / 32, 13 / 32, 20 / 32, 10 / 32])
    assert box_in_window(box, mirrored, 32) == pytest.approx([18 / 32, 13 / 32, 20 / 32, 10 / 32])
    back = cxcywh_to_xyxy(box_in_window(box, plain, 32) * 32.0) + np.array([10, 10, 10, 10])
    assert back == pytest.approx(box, abs=1e-5)


def test_targets_match_training_crops(tmp_path: Path) -> None:
    """A white box on black: wherever the crop, the scale and the mirror, the target is where the white is."""
    for number in range(6):
        picture = np.zeros((60, 80, 3), dtype=np.uint8)
        picture[10:40, 20 : 44 + number] = 255
        (tmp_path / "photos" / "x").mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(tmp_path / "photos" / "x" / f"{number}.png")
    lines = [f"x/{number}.png,21,11,{44 + number},40,{'odd' if number % 2 else 'even'}\n" for number in range(6)]
    (tmp_path / "boxes.csv").write_text("".join(lines))
    dataset = located(opened(tmp_path / "photos", tmp_path / "boxes.csv"), True, Silent()).dataset
    assert dataset.boxes is not None
    settings = TrainSettings(net="A", crop=32, S=Scale(32, 64), batch=6, colour_shift="off")
    loader = TrainingLoader(dataset, settings, np.eye(3), 1, ONE_BY_ONE, BoxTargets(dataset.boxes, False))
    seen = 0
    for epoch in range(12):
        for batch in loader.epoch(epoch):
            for image, target in zip(batch.images.numpy(), batch.boxes.numpy(), strict=True):
                x1, y1, x2, y2 = cxcywh_to_xyxy(target * 32.0)
                white = image[0] > 127
                for axis, (low, high) in ((0, (x1, x2)), (1, (y1, y2))):
                    lit = np.flatnonzero(white.any(axis=axis))
                    if len(lit):
                        assert abs(max(low, 0) - lit[0]) <= 1.0
                        assert abs(min(high, 32) - (lit[-1] + 1)) <= 1.0
                        seen += 1
    assert seen > 100


def test_half_of_the_box_is_visible_if_possible() -> None:
    """Ten draws of a window in 65x65 places miss a small box now and then; one draw misses it mostly."""
    settings = TrainSettings(net="A", crop=32, S=Scale(96, 96))
    small = BoxTargets((np.array([[60.0, 30, 80, 50]]),), True)
    first, again = (small.draw(0, (96, 96), (96, 96), settings, np.random.default_rng(5)) for _ in range(2))
    assert first[0] == again[0]
    free = BoxTargets(small.boxes, False)
    shown = {"half": 0, "free": 0}
    for seed in range(200):
        for name, targets in (("half", small), ("free", free)):
            target = targets.draw(0, (96, 96), (96, 96), settings, np.random.default_rng(seed))[1]
            x1, y1, x2, y2 = np.clip(cxcywh_to_xyxy(target * 32.0), 0, 32)
            shown[name] += (x2 - x1) * (y2 - y1) >= 200
    assert shown["half"] > 2 * shown["free"]


def test_one_of_several_boxes_is_drawn_each_epoch() -> None:
    settings = TrainSettings(net="A", crop=32, S=Scale(32, 32), mirror=False)
    targets = BoxTargets((np.array([[0.0, 0, 8, 8], [16, 16, 32, 32]]),), False)
    drawn = {float(targets.draw(0, (32, 32), (32, 32), settings, np.random.default_rng(n))[1][2]) for n in range(30)}
    assert drawn == {8 / 32, 16 / 32}


def test_boxes_record_the_size_of_their_image(tmp_path: Path) -> None:
    xml(tmp_path / "p.xml", [("cat", 1, 1, 2, 2)], width=7, height=9)
    assert read_boxes(tmp_path)[:2] == ({"p": [NamedBox("cat", (0.0, 0.0, 2.0, 2.0), (9, 7))]}, [])
