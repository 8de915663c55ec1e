"""Sect. A.1: training on windows of whole images, which dense evaluation sees."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

import verydeep
from conftest import Command
from verydeep.checkpoints.checkpoint import load_checkpoint
from verydeep.core.config import Scale
from verydeep.core.device import ONE_BY_ONE
from verydeep.core.settings import TrainSettings
from verydeep.data.boxes import cxcywh_to_xyxy
from verydeep.data.dataloader import Batch, BoxTargets, TrainingLoader
from verydeep.data.open import Dataset, open_data
from verydeep.data.transforms import rescale
from verydeep.models.vgg import create_net

TINY: dict[str, Any] = {
    **{"crop": 32, "width": 1 / 64, "batch": 4, "initialise": "glorot", "lr": 0.01, "max_epochs": 2},
    **{"workers": 0, "threads": 1, "split_seed": 1},
}
FROZEN = Path(__file__).parents[1] / "files" / "frozen"
ONE_STEP_APART = 1e-6


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Twelve images of two classes and three sizes, each a white box on black, and their boxes."""
    lines = []
    for number in range(12):
        height, width = ((48, 64), (64, 48), (50, 50))[number % 3]
        picture = np.zeros((height, width, 3), dtype=np.uint8)
        picture[10:30, 8 : 28 + number] = 255
        path = tmp_path / "images" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path)
        lines.append(f"{path.parent.name}/{path.name},8,10,{28 + number},30,{path.parent.name}\n")
    (tmp_path / "boxes.csv").write_text("image,xmin,ymin,xmax,ymax,class\n" + "".join(lines))
    return tmp_path / "images"


def train_set(images: Path) -> Dataset:
    """All images, each with the box that the fixture drew."""
    dataset = open_data(str(images), least_classes=1).set("all")
    boxes = tuple(np.array([[8.0, 10, 28 + int(Path(name).stem), 30]]) for name in dataset.ids)
    return Dataset(**{**vars(dataset), "boxes": boxes})


def batches(dataset: Dataset, **changes: Any) -> list[Batch]:
    """Two epochs of whole images."""
    usual: dict[str, Any] = {"net": "A", "crop": 32, "S": Scale(64, 96), "batch": 5, "colour_shift": "off"}
    settings = TrainSettings(**{**usual, "context": "photo", **changes})
    assert dataset.boxes is not None
    loader = TrainingLoader(dataset, settings, np.eye(3), 1, ONE_BY_ONE, BoxTargets(dataset.boxes, False))
    return [batch for epoch in range(2) for batch in loader.epoch(epoch)]


@pytest.mark.parametrize("size", [(64, 96), (70, 101), (32, 32)])
def test_the_scores_of_a_cell_are_those_of_dense_evaluation(size: tuple[int, int]) -> None:
    """Also at the image's edges, where the last cells of a size that is no multiple of 32 extend beyond it."""
    net, x = create_net("A", classes=3, crop=32, width=1 / 16, seed=1).eval(), 100 * torch.randn(2, 3, *size)
    with torch.no_grad():
        dense = net(x)
        for row in range(dense.shape[2]):
            for column in range(dense.shape[3]):
                cells = torch.tensor([[row, column], [dense.shape[2] - 1 - row, column]])
                expected = torch.stack([dense[n, :, y, x] for n, (y, x) in enumerate(cells.tolist())])
                torch.testing.assert_close(net(x, None, cells)[:, :, 0, 0], expected, rtol=1e-5, atol=1e-5)


def test_the_target_of_a_cell_is_where_its_window_shows_the_box(images: Path) -> None:
    """Whatever the scale, the mirror and the cell; the image is the whole one."""
    dataset, seen = train_set(images), 0
    for batch in batches(dataset):
        assert batch.cells is not None
        rows = zip(batch.images.numpy(), batch.places.tolist(), batch.boxes.numpy(), strict=True)
        for image, (height, width, row, column), target in rows:
            assert not image[:, height:].any()
            assert not image[:, :, width:].any()
            x1, y1, x2, y2 = cxcywh_to_xyxy(target * 32.0) + np.tile([32 * column, 32 * row], 2)
            white = image[0] > 127
            for axis, (low, high) in ((0, (x1, x2)), (1, (y1, y2))):
                lit = np.flatnonzero(white.any(axis=axis))
                assert abs(low - lit[0]) <= 1.5
                assert abs(high - (lit[-1] + 1)) <= 1.5
                seen += 1
    assert seen == 2 * 2 * 12


def test_parts_are_of_one_size_and_unpadded_and_cover_the_batch(images: Path) -> None:
    dataset = train_set(images)
    shapes: set[tuple[int, ...]] = set()
    for batch in batches(dataset, S=Scale(64, 64)):
        parts = list(batch.parts(2))
        assert sum(len(part.labels) for part in parts) == len(batch.labels)
        assert torch.equal(torch.cat([part.boxes for part in parts]), batch.boxes)
        for part in parts:
            assert len(part.labels) <= 2
            assert all(list(part.images.shape[2:]) == place[:2] for place in part.places.tolist())
            shapes.add(tuple(part.images.shape[2:]))
    assert shapes == {(64, 85), (85, 64), (64, 64)}


def test_a_whole_image_is_the_rescaled_one_or_its_mirror_image(images: Path) -> None:
    dataset = train_set(images)
    whole = [rescale(dataset.pixels(index), 64) for index in range(len(dataset))]
    known = {pixels.tobytes() for image in whole for pixels in (image, np.ascontiguousarray(image[:, ::-1]))}
    for batch in batches(dataset, S=Scale(64, 64)):
        for part in batch.parts(1):
            assert np.ascontiguousarray(part.images[0].permute(1, 2, 0).numpy()).tobytes() in known


def trained(folder: Path, images: Path, **changes: Any) -> dict[str, NDArray[np.float32]]:
    """The last weights of a run."""
    data = {"data": str(images), "boxes": f"{images.parent / 'boxes.csv'}"}
    verydeep.train_boxes("A", folder, **{**TINY, **data, "S": "40-64", "context": "photo", **changes})
    return {name: value.numpy() for name, value in load_checkpoint(folder / "last.safetensors").weights.items()}


def test_on_images_of_the_crops_size_both_trainings_are_equal(images: Path, tmp_path: Path) -> None:
    """There is one cell, and its map has zeros around it in both."""
    for path in images.rglob("*.png"):
        Image.open(path).resize((50, 50)).save(path)
    first, second = (trained(tmp_path / way, images, S="32", context=way) for way in ("photo", "crop"))
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_a_step_does_not_depend_on_how_its_batch_is_parted(images: Path, tmp_path: Path) -> None:
    first, second = (trained(tmp_path / str(count), images, max_steps=1, device_batch=count) for count in (1, 4))
    assert max(np.abs(first[name] - second[name]).max() for name in first) < ONE_STEP_APART


def test_interrupted_and_resumed_equals_uninterrupted(images: Path, tmp_path: Path) -> None:
    whole = trained(tmp_path / "whole", images)
    trained(tmp_path / "parts", images, max_epochs=1)
    verydeep.train_boxes("A", tmp_path / "parts", resume=True, max_epochs=2, workers=0, threads=1)
    parts = load_checkpoint(tmp_path / "parts" / "last.safetensors").weights
    assert all(np.array_equal(whole[name], parts[name].numpy()) for name in whole)


def test_a_net_trained_on_whole_images_is_tested_on_them(command: Command, images: Path, tmp_path: Path) -> None:
    """By default, and a net that was trained on crops alone is not, at this crop."""
    here = ["--workers", 0, "--threads", 1]
    data = ["--data", images, "--boxes", images.parent / "boxes.csv", "--crop", 32, "--width", 1 / 64, "--S", 40, *here]
    assert command("train", "A", *data, "--max-epochs", 1, "--out", tmp_path / "classes").status == 0
    words = ["localise", "train", "A", *data, "--start", tmp_path / "classes", "--max-epochs", 1]
    for way, protocol in (("photo", "dense@40"), ("crop", "centre@40")):
        done = command(*words, "--context", way, "--out", tmp_path / way)
        assert done.status == 0, done.stderr
        answer = command("localise", "evaluate", tmp_path / way, "--json", *here)
        assert answer.status == 0, answer.stderr
        assert [test["protocol"] for test in json.loads(answer.stdout)["tests"]] == [protocol]
        assert (tmp_path / way / "report.html").exists()
    assert "must be one of crop, photo" in command(*words, "--context", "both", "--out", tmp_path / "both").mistake()


def test_a_net_of_before_this_setting_was_trained_on_crops(tmp_path: Path) -> None:
    shutil.copytree(FROZEN / "boxes", tmp_path / "boxes")
    assert load_checkpoint(tmp_path / "boxes" / "best.safetensors").metadata.train_settings.context == "crop"
