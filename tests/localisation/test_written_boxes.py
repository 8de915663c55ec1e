"""The reported localisation error is that of the boxes in the server file, read by an independent devkit."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import verydeep
from conftest import make_imagenet, paint
from verydeep.checkpoints.checkpoint import Metadata, save_checkpoint
from verydeep.core.config import to_json
from verydeep.core.settings import BoxSettings, DataSettings, MachineSettings, MergeSettings
from verydeep.data.boxes import whole_pixels, xyxy_to_inclusive
from verydeep.data.open import open_data
from verydeep.evaluation.scores import Scores, save_scores
from verydeep.models.vgg import create_net

IDS = {1: "n02084071", 2: "n01440764", 3: "n01443537"}  # those of `make_imagenet`'s devkit
TITLES = ("n01440764 tench, Tinca tinca", "n01443537 goldfish", "n02084071 dog")
SIDES = ("xmin", "ymin", "xmax", "ymax")
Pixels = tuple[int, ...]


def ilsvrc_with_boxes(root: Path, seed: int) -> None:
    """Validation images by synset, each with one or two boxes of whole pixels that count from 0."""
    rng = np.random.default_rng(seed)
    make_imagenet(root, flat_val=False)
    for number in range(5, 70):
        size = (int(rng.integers(36, 60)), int(rng.integers(36, 60)))
        path = root / "val" / IDS[int(rng.integers(1, 4))] / f"ILSVRC2012_val_{number:08d}.png"
        paint(path, number, (90, 90, 90), size)
    for image in (root / "val").rglob("*.png"):
        objects = ""
        for _ in range(int(rng.integers(1, 3))):
            first, last = rng.integers(0, 14, 2), rng.integers(15, 36, 2)
            corners = "".join(f"<{side}>{value}</{side}>" for side, value in zip(SIDES, [*first, *last], strict=True))
            objects += f"<object><name>{image.parent.name}</name><bndbox>{corners}</bndbox></object>"
        path = root / "ILSVRC2012_bbox_val_v3" / "val" / f"{image.stem}.xml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"<annotation>{objects}</annotation>")


def box_run(folder: Path, box: tuple[float, float, float, float]) -> Path:
    """A localisation model that predicts the same part of every crop."""
    net = create_net("A", classes=4, crop=32, width=1 / 32, seed=0)
    with torch.no_grad():
        net.layer("fc8").weight.zero_()
        bias = net.layer("fc8").bias
        assert bias is not None
        bias.copy_(torch.tensor(box))
    boxes = to_json(BoxSettings(regression="SCR"))
    folder.mkdir()
    metadata = Metadata("A", 32, 1 / 32, TITLES, (110.0, 115.0, 120.0), 36, box_settings=boxes)
    save_checkpoint(folder / "best.safetensors", net, metadata)
    return folder


def right(predicted: Pixels, true: Pixels) -> bool:
    """The devkit's rule in whole numbers: corners are inclusive, so a side is the difference plus 1."""
    wide = min(predicted[2], true[2]) - max(predicted[0], true[0]) + 1
    high = min(predicted[3], true[3]) - max(predicted[1], true[1]) + 1
    areas = sum((box[2] - box[0] + 1) * (box[3] - box[1] + 1) for box in (predicted, true))
    return wide > 0 and high > 0 and 2 * wide * high >= areas - wide * high


def error_of_file(file: Path, root: Path) -> float:
    """The error of a server file in percent, from its lines and the annotations alone."""
    images = sorted((root / "val").rglob("*.png"), key=lambda path: path.name)
    wrong = 0
    for line, image in zip(file.read_text().splitlines(), images, strict=True):
        cells = [int(cell) for cell in line.split()]
        guesses = [(cells[start], tuple(cells[start + 1 : start + 5])) for start in range(0, len(cells), 5)]
        tree = ElementTree.parse(root / "ILSVRC2012_bbox_val_v3" / "val" / f"{image.stem}.xml")
        truths = [tuple(int(item.findtext(f"bndbox/{side}") or "") for side in SIDES) for item in tree.iter("object")]
        named = [box for label, box in guesses if IDS[label] == image.parent.name]
        wrong += not any(right(box, true) for box in named for true in truths)
    return 100 * wrong / len(images)


@pytest.mark.parametrize("seed", range(3))
def test_the_error_is_that_of_the_written_file(tmp_path: Path, seed: int) -> None:
    """Boxes of fractions of pixels around the true ones, so that rounding decides about some images."""
    rng = np.random.default_rng(seed)
    ilsvrc_with_boxes(tmp_path, seed)
    name = f"imagenet:{tmp_path}"
    dataset = open_data(DataSettings(data=name), least_classes=1).set("val")
    posteriors = np.full((len(dataset), 3), 0.1, dtype=np.float32)
    labels = np.where(rng.random(len(dataset)) < 0.9, dataset.labels, rng.integers(0, 3, len(dataset)))
    posteriors[np.arange(len(dataset)), labels] = 0.8
    scores = Scores(
        dataset.ids, dataset.labels, dataset.groups, dataset.classes, posteriors, "val", name, "", "dense@36", ""
    )
    save_scores(tmp_path / "scores.npz", scores)
    run = box_run(tmp_path / "net", (0.47, 0.53, 0.61, 0.59))
    evaluation = verydeep.evaluate_boxes(
        [(run, "dense@36")],
        scores=tmp_path / "scores.npz",
        data=name,
        merging=MergeSettings(t=0.5, rate="image"),
        server_file=tmp_path / "boxes.txt",
        devkit=str(tmp_path),
        machine=MachineSettings(workers=0, threads=1),
    )
    reported = evaluation.summary["localisation_error"]
    assert 10 < reported < 90
    assert reported == pytest.approx(error_of_file(tmp_path / "boxes.txt", tmp_path), abs=1e-4)


@given(st.lists(st.tuples(*[st.floats(0, 60)] * 4), min_size=1, max_size=8))
def test_whole_pixels_are_written_as_they_are(corners: list[tuple[float, float, float, float]]) -> None:
    """They round to themselves, and a file has the same numbers for a box and its whole pixels."""
    boxes = np.array([(min(x, u), min(y, v), max(x, u), max(y, v)) for x, y, u, v in corners])
    rounded = whole_pixels(boxes)
    assert np.array_equal(whole_pixels(rounded), rounded)
    assert np.array_equal(xyxy_to_inclusive(rounded), xyxy_to_inclusive(boxes))
    assert (rounded[:, 2:] > rounded[:, :2]).all()
