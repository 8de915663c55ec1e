"""VOC's sets and average precision (App. B)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import SHARED, make_voc
from verydeep.core.errors import ImageError, VerydeepError
from verydeep.core.settings import DataSettings
from verydeep.data.check import check_data
from verydeep.data.datasets.voc import ACTIONS, CLASSES
from verydeep.data.open import Data
from verydeep.data.open import open_data as open_any
from verydeep.evaluation.metrics import average_precision, class_recalls

INF = float("inf")


def open_data(settings: DataSettings) -> Data:
    """Sets of photos of several classes."""
    return open_any(settings, several=True)


# scores, marks, 11-point AP, area AP, why
CASES: list[tuple[list[float], list[int], float, float, str]] = [
    ([4, 3, 2, 1], [1, 1, -1, -1], 1, 1, "all hits first"),
    ([4, 3, 2, 1], [-1, -1, 1, 1], 0.5, 0.5, "precisions 1/3 and 1/2; made monotone from the right 1/2 at all recalls"),
    ([4, 3, 2, 1], [1, -1, 1, -1], (6 + 5 * 2 / 3) / 11, 0.5 + 0.5 * 2 / 3, "recalls to .5 at 1, the rest at 2/3"),
    ([4, 3, 2, 1], [1, 0, 1, -1], 1, 1, "an ignored photo between two hits is not there"),
    ([4, 3, 2, 1], [0, 0, 1, 0], 1, 1, "nor are ignored ones above the only hit"),
    ([1, 1, 1, 1], [1, -1, -1, -1], 0.25, 0.25, "equal scores enter together: the share of hits"),
    ([1, 1, 1, 1], [-1, -1, -1, 1], 0.25, 0.25, "in whatever order they are listed"),
    ([2, 1, 1], [1, 1, -1], (6 + 5 * 2 / 3) / 11, 0.5 + 0.5 * 2 / 3, "a tie of a hit and a miss"),
    ([2, -INF, 1], [1, 1, -1], 6 / 11, 0.5, "a hit that never enters still counts among the hits"),
    ([3, 2, 1, 0], [-1, 1, -1, -1], 0.5, 0.5, "one hit, in second place"),
    (
        list(range(10, 0, -1)),
        [1] + [-1] * 8 + [1],
        (6 * 1 + 5 * 0.2) / 11,
        0.5 + 0.5 * 0.2,
        "recall .5 is reached by .5",
    ),
]


@pytest.mark.parametrize(("scores", "marks", "points", "area", "why"), CASES)
def test_average_precision_by_hand(scores: list[float], marks: list[int], points: float, area: float, why: str) -> None:
    arrays = np.array(scores, dtype=np.float64), np.array(marks, dtype=np.int8)
    assert average_precision(*arrays, "11-point") == pytest.approx(100 * points), why
    assert average_precision(*arrays, "area") == pytest.approx(100 * area), why


def test_average_precision_of_published_cases() -> None:
    path = SHARED / "external" / "metrics_cases.json"
    if not path.exists():
        pytest.skip("the published cases are not here")
    cases = json.loads(path.read_text())["average_precision_classification"]["cases"]
    for case in cases:
        scores = np.array([float(value) for value in case["scores"]])
        if case.get("include_inf"):
            scores[np.isinf(scores)] = -1e9
        found = average_precision(scores, np.array(case["labels"], dtype=np.int8), "11-point")
        assert found == pytest.approx(100 * case["ap_interp_11"]), case
    assert len(cases) == 4


def test_average_precision_ignores_order_and_unlabelled_images() -> None:
    rng = np.random.default_rng(0)
    scores, marks = rng.integers(0, 6, 60).astype(float), rng.choice(np.array([-1, 0, 1], np.int8), 60)
    order = rng.permutation(60)
    for form in ("11-point", "area"):
        one = average_precision(scores, marks, form)
        assert one == pytest.approx(average_precision(scores[order], marks[order], form))
        kept = marks != 0
        assert one == pytest.approx(average_precision(scores[kept], marks[kept], form))
        assert one == pytest.approx(average_precision(3 * scores - 7, marks, form))
    with pytest.raises(VerydeepError, match="no image has the class"):
        average_precision(scores, np.full(60, -1, np.int8), "area")
    with pytest.raises(VerydeepError, match="image number 3 is NaN"):
        average_precision(np.where(np.arange(60) == 3, np.nan, scores), marks, "area")


def test_recall_of_each_class() -> None:
    answers, labels = np.array([0, 0, 1, 2, 2]), np.array([0, 1, 1, 2, 0])
    found = class_recalls(answers, labels, 4)
    np.testing.assert_allclose(found[:3], [50, 50, 100])
    assert np.isnan(found[3])  # no photo has it


@pytest.mark.parametrize("depth", ["", "VOC2007", "VOCdevkit/VOC2007"])
def test_vocs_sets(tmp_path: Path, depth: str) -> None:
    make_voc(tmp_path / depth, "2007")
    data = open_data(DataSettings(data=f"voc2007:{tmp_path}"))
    assert data.classes == CLASSES
    assert {name: len(found) for name, found in data.sets.items()} == {"train": 8, "val": 8, "test": 6}
    train = data.set("train")
    assert train.marks is not None
    assert not train.labelled
    dog, cat = CLASSES.index("dog"), CLASSES.index("cat")
    assert train.ids[:2] == ("000001.jpg", "000002.jpg")
    assert train.marks[0, dog] == 1
    assert train.marks[0, cat] == -1
    assert train.marks[1, dog] == 0
    assert train.pixels(0).shape == (40, 48, 3)
    whole, sets = data.everything()
    assert len(whole) == 22
    assert sets.count("val") == 8
    assert whole.marks is not None
    only = open_data(DataSettings(data=f"voc2007:{tmp_path}", classes=("d*g", "cat")))
    assert only.classes == ("cat", "dog")
    assert only.set("val").marks is not None


def test_the_server_keeps_the_labels_of_voc_2012(tmp_path: Path) -> None:
    make_voc(tmp_path, "2012")
    test = open_data(DataSettings(data=f"voc2012:{tmp_path}")).set("test")
    assert test.marks is not None
    assert not test.marks.any()
    assert len(test) == 6


def test_actions_of_people_in_boxes(tmp_path: Path) -> None:
    make_voc(tmp_path, "2012")
    whole = open_data(DataSettings(data=f"voc2012-action:{tmp_path}"))
    boxes = open_data(DataSettings(data=f"voc2012-action-box:{tmp_path}"))
    assert whole.classes == ACTIONS
    assert whole.set("train").ids == boxes.set("train").ids
    assert whole.set("train").ids[:3] == ("000001#1", "000001#2", "000002#1")
    assert whole.set("train").pixels(1).shape == (40, 48, 3)
    photo = np.asarray(Image.open(tmp_path / "JPEGImages" / "000001.jpg"))
    np.testing.assert_array_equal(boxes.set("train").pixels(1), photo[9:30, 4:25])  # pixels 5 to 25, 10 to 30
    with pytest.raises(VerydeepError, match="has 2 objects, but no number 3"):
        boxes.set("train").source.read("000001#3")


BROKEN = {
    "Main/dog_train.txt": (
        "".join(f"{number:06d} 2\n" for number in range(1, 9)),
        "has a line that ends in '2': it must be 1, -1 or 0",
    ),
    "Main/cat_train.txt": ("000001 1\n000009 1\n", "lists other images than aeroplane_train.txt"),
    "Main/sheep_val.txt": ("000001\n", "every line must have 2 words"),
    "Main/sofa_val.txt": ("", "is empty"),
    "Main/bus_train.txt": (None, "cannot read .*bus_train.txt: No such file"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_lists_have_a_message(tmp_path: Path, name: str) -> None:
    make_voc(tmp_path, "2007")
    text, sentence = BROKEN[name]
    path = tmp_path / "ImageSets" / name
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(VerydeepError, match=sentence):
        open_data(DataSettings(data=f"voc2007:{tmp_path}"))


def test_a_folder_that_is_not_voc(tmp_path: Path) -> None:
    with pytest.raises(VerydeepError, match="is not VOC-2012: it, its VOC2012"):
        open_data(DataSettings(data=f"voc2012:{tmp_path}"))


def test_several_labels_are_refused_for_nets_but_checked(tmp_path: Path) -> None:
    make_voc(tmp_path, "2007")
    with pytest.raises(VerydeepError, match="has several labels per image, which nets are not trained on"):
        open_any(DataSettings(data=f"voc2007:{tmp_path}"))
    found = check_data(f"voc2007:{tmp_path}")
    assert found["sets"]["train"]["balance"]["dog"] == 5  # of eight photos two show none, one a difficult one
    assert not found["faults"]


def test_errors_of_people_and_lists_have_a_message(tmp_path: Path) -> None:
    make_voc(tmp_path, "2012")
    xml = tmp_path / "Annotations" / "000001.xml"
    xml.write_text(xml.read_text().replace("<xmin>5<", "<xmin>60<").replace("<xmax>25<", "<xmax>70<"))
    boxes = open_data(DataSettings(data=f"voc2012-action-box:{tmp_path}")).set("train")
    with pytest.raises(ImageError, match="the box of 000001#2 is outside its image of 48x40 pixels"):
        boxes.source.read("000001#2")
    folder = tmp_path / "ImageSets" / "Action"
    listed = (folder / "jumping_val.txt").read_text()
    (folder / "jumping_val.txt").write_text(listed.replace("000009 1", "000009 x"))
    with pytest.raises(VerydeepError, match="lists person 'x' of image 000009: it must be a number"):
        open_data(DataSettings(data=f"voc2012-action:{tmp_path}"))
    main = tmp_path / "ImageSets" / "Main"
    for path in main.glob("*_val.txt"):
        path.write_text(path.read_text() + path.read_text().splitlines()[0] + "\n")
    with pytest.raises(VerydeepError, match=r"aeroplane_val.txt lists an image twice"):
        open_data(DataSettings(data=f"voc2012:{tmp_path}"))
    for path in main.glob("*_val.txt"):
        path.unlink()
    with pytest.raises(VerydeepError, match=r"aeroplane_val.txt is missing: it lists which images"):
        open_data(DataSettings(data=f"voc2012:{tmp_path}"))
