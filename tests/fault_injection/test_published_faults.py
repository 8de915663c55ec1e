"""Published cases: average precision of detections; the faults of ILSVRC and Caltech, in replicas that have them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from conftest import SHARED, Command, make_imagenet
from verydeep.core.progress import Silent
from verydeep.core.settings import DataSettings
from verydeep.data.annotations import read_xml
from verydeep.data.box_targets import located
from verydeep.data.boxes import iou, iou_inclusive
from verydeep.data.datasets.imagenet import blacklisted
from verydeep.data.open import open_data
from verydeep.evaluation.metrics import average_precision

FAULTS, DETECTIONS = SHARED / "external" / "dataset_faults.json", SHARED / "external" / "detection_ap_toy"
needs_faults = pytest.mark.skipif(not FAULTS.exists(), reason="the published faults are not here")
needs_detections = pytest.mark.skipif(not DETECTIONS.exists(), reason="the published detections are not here")
Overlap = Callable[[Any, Any], NDArray[np.float64]]


def boxes_in(folder: Path) -> list[tuple[str, list[float]]]:
    """Image and numbers (score first, if any, then x y w h) of each line, by name of file."""
    lines = [
        (path.stem, line.split()[1:]) for path in sorted(folder.glob("*.txt")) for line in path.read_text().splitlines()
    ]
    return [(image, [float(word) for word in words]) for image, words in lines]


def corners(xywh: list[float]) -> list[float]:
    x, y, w, h = xywh
    return [x, y, x + w, y + h]


def matched(folder: Path, truths: str, found: str, overlap: Overlap, least: float) -> tuple[list[float], list[int]]:
    """VOC's matching: by falling score a detection takes the box it overlaps most, if enough and not taken yet.

    The published figures let equal scores enter one by one, as they are listed; ours together, so ranks are given.
    """
    every = {(image, number): corners(box) for number, (image, box) in enumerate(boxes_in(folder / truths))}
    taken: set[tuple[str, int]] = set()
    scores: list[float] = []
    marks: list[int] = []
    for image, (_, *box) in sorted(boxes_in(folder / found), key=lambda row: -row[1][0]):
        here = [key for key in every if key[0] == image]
        best = max(here, key=lambda key: float(overlap(corners(box), every[key])))
        hit = float(overlap(corners(box), every[best])) >= least and best not in taken
        taken |= {best} if hit else set()
        scores.append(-float(len(scores)))
        marks.append(1 if hit else -1)
    missed = len(every) - len(taken)
    return [*scores, *[-np.inf] * missed], [*marks, *[1] * missed]


@needs_detections
@pytest.mark.parametrize(("pixels", "overlap"), [("inclusive_pixels", iou_inclusive), ("continuous", iou)])
@pytest.mark.parametrize(("told", "form"), [("11pt", "11-point"), ("every", "area")])
def test_average_precision_of_published_detections(
    pixels: str, overlap: Overlap, told: str, form: Literal["11-point", "area"]
) -> None:
    """What no detection found never enters, and so keeps recall below 1."""
    published = json.loads((DETECTIONS / "expected_test_case_1.json").read_text())
    for least, wanted in zip(published["iou_thr"], published[pixels][told], strict=True):
        scores, marks = matched(DETECTIONS / "tests" / "test_case_1", "gts", "dets", overlap, least)
        assert sum(mark == 1 for mark in marks) == 15
        ap = average_precision(np.array(scores), np.array(marks, np.int8), form)
        # Nine of 15 are found after 23: exactly .6, which the published code misses, as its .6 is a sum of tenths.
        missed = 9 / 23 / 11 if (pixels, told, least) == ("inclusive_pixels", "11pt", 0.1) else 0
        assert ap / 100 == pytest.approx(wanted + missed, abs=1e-9), least


@needs_detections
def test_the_figures_of_the_second_sample() -> None:
    """24.56 % and 26.84 % at an overlap of .3, by the devkit's pixels; the first was cut off, not rounded."""
    scores, marks = matched(DETECTIONS / "odm_sample2", "groundtruths", "detections", iou_inclusive, 0.3)
    arrays = np.array(scores), np.array(marks, np.int8)
    assert average_precision(*arrays, "area") == pytest.approx(24.565, abs=5e-3)
    assert average_precision(*arrays, "11-point") == pytest.approx(26.84, abs=5e-3)


@needs_faults
def test_ilsvrcs_cmyk_photos_and_the_png_named_jpeg_are_read_as_what_they_are(tmp_path: Path, command: Command) -> None:
    told = json.loads(FAULTS.read_text())["ilsvrc2012"]
    inks, png = told["cmyk_jpeg"]["files"], told["png_named_jpeg"]["files"]
    assert (len(inks), len(png)) == (told["cmyk_jpeg"]["count"], 1)
    tmp_path.joinpath("val").mkdir()
    for name in [*inks, *png]:
        folder = tmp_path / "train" / name.partition("_")[0]
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("CMYK", (48, 40), (0, 255, 255, 0)).save(folder / "ink.jpg", quality=95)
        Image.new("RGB", (48, 40), (255, 0, 0)).save(folder / "plain.png")
        (folder / ("ink.jpg" if name in inks else "plain.png")).rename(folder / name)
        for left in folder.glob("[ip]*.[jp]*g"):
            left.unlink()
        for number in range(3):  # a set needs some photos a class
            Image.new("RGB", (48, 40), (0, 80 * number, 9)).save(folder / f"{folder.name}_{number}.JPEG")
        shutil.copytree(folder, tmp_path / "val" / folder.name, dirs_exist_ok=True)
    found = json.loads(command("data", "check", f"imagenet:{tmp_path}", "--json", cwd=tmp_path).stdout)
    assert found["faults"] == []
    data = open_data(DataSettings(data=f"imagenet:{tmp_path}", dev_fraction=0.25))
    for part in data.sets.values():
        for index, photo in enumerate(part.ids):
            if Path(photo).name in (*inks, *png):
                assert np.abs(part.pixels(index).astype(int) - (255, 0, 0)).max() < 6, photo


@needs_faults
def test_ilsvrcs_faults_of_boxes(tmp_path: Path) -> None:
    """Boxes of another size, outside, with swapped corners, of files named "%s", under the words of their class."""
    told = json.loads(FAULTS.read_text())["ilsvrc2012"]
    assert len(told["train_boxes"]["faults"]) == 5
    make_imagenet(tmp_path)  # photos of 48 x 40 pixels or so
    (tmp_path / "synset_words.txt").write_text(
        "n01440764 Scottish deerhound, deerhound\nn01443537 goldfish\nn02084071 dog\n"
    )
    folder = tmp_path / "ILSVRC2012_bbox_train_v2" / "n01440764"
    folder.mkdir(parents=True)
    data = open_data(DataSettings(data=f"imagenet:{tmp_path}", dev_fraction=0.1))
    train = data.sets["train"]
    first = next(index for index, photo in enumerate(train.ids) if "n01440764" in photo)
    height, width = train.pixels(first).shape[:2]
    rows = "".join(  # counted from 0, the numbers below from 1
        f"<object><name>{name}</name><bndbox><xmin>{x1 - 1}</xmin><ymin>{y1 - 1}</ymin><xmax>{x2 - 1}</xmax>"
        f"<ymax>{y2 - 1}</ymax></bndbox></object>"
        for name, x1, y1, x2, y2 in (
            ("n01440764", 1, 1, width, height),  # a quarter of the size shown to who drew it
            ("Scottish_deerhound", 3, 5, 2 * width + 40, 2 * height),  # reaches outside
            ("n01440764", 21, 21, 3, 7),  # min above max
            ("n01440764", 9 * width, 9 * height, 10 * width, 10 * height),  # wholly outside
        )
    )
    xml = folder / f"{Path(train.ids[first]).stem}.xml"
    size = f"<size><width>{2 * width}</width><height>{2 * height}</height><depth>3</depth></size>"
    xml.write_text(f"<annotation><filename>%s</filename>{size}{rows}</annotation>")
    assert len(read_xml(xml)) == 4
    train = open_data(DataSettings(data=f"imagenet:{tmp_path}", dev_fraction=0.1)).sets["train"]  # now with boxes
    found = located(train.take(np.array([first])), False, Silent()).dataset
    assert found.boxes is not None
    right = [[0, 0, width / 2, height / 2], [1, 2, width, height], [1, 3, 10.5, 10.5]]
    assert found.boxes[0] == pytest.approx(np.array(right), abs=1e-6)


@needs_faults
def test_the_devkits_list_of_photos_that_do_not_count(tmp_path: Path) -> None:
    told = json.loads(FAULTS.read_text())["ilsvrc2012"]["val_localisation_blacklist"]
    make_imagenet(tmp_path)
    chosen = np.sort(np.random.default_rng(0).permutation(told["of"])[: told["count"]] + 1)
    listed = tmp_path / "ILSVRC2012_devkit_t12" / "data" / "ILSVRC2014_clsloc_validation_blacklist.txt"
    listed.write_text("".join(f"{number}\n" for number in chosen))
    assert blacklisted(tmp_path) == frozenset(chosen.tolist())


@needs_faults
def test_caltechs_files_that_are_no_photos_are_counted_and_left(tmp_path: Path, command: Command) -> None:
    """A JPEG without an extension and a text, and empty folders inside a class's."""
    told = json.loads(FAULTS.read_text())
    odd = "BACKGROUND_Google/tmp"
    assert any(odd in name for name in told["caltech101"]["of_which_without_extension"])
    for name, folder, classes, photos in (
        ("caltech101", "101_ObjectCategories", ("BACKGROUND_Google", "Faces", "Faces_easy"), 32),
        ("caltech256", "256_ObjectCategories", ("056.dog", "198.spider", "257.clutter"), 62),
    ):
        root = tmp_path / name / folder
        for number, of in enumerate(classes):
            (root / of).mkdir(parents=True)
            for photo in range(photos):
                Image.new("RGB", (40, 36), (60 * number, photo, 9)).save(root / of / f"{photo:04d}.jpg")
    Image.new("RGB", (40, 36)).save(tmp_path / "caltech101" / "101_ObjectCategories" / odd, "JPEG")
    (tmp_path / "caltech256" / "256_ObjectCategories" / "198.spider" / "RENAME2").write_text("mv\n")
    (tmp_path / "caltech256" / "256_ObjectCategories" / "056.dog" / "greg" / "vision309").mkdir(parents=True)
    for name, photos in (("caltech101", 32), ("caltech256", 62)):
        found = json.loads(command("data", "check", f"{name}:{tmp_path / name}", "--json", cwd=tmp_path).stdout)
        assert (found["faults"], found["ignored"]) == ([], 1), name
        assert len(found["classes"]) == 3
        whole = open_data(DataSettings(data=f"{name}:{tmp_path / name}")).unsplit
        assert whole is not None
        assert len(whole) == 3 * photos
