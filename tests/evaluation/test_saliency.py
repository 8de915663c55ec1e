"""Sect. 3.2: score maps and Grad-CAM by their properties, and `predict --explain` by the real command."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

import verydeep
from conftest import Command, make_photos
from verydeep import Classifier, MachineSettings, VerydeepError
from verydeep.checkpoints.checkpoint import Metadata
from verydeep.core.device import resolve_device
from verydeep.data.image_io import Pixels
from verydeep.evaluation.inference import model_input
from verydeep.evaluation.saliency import PlacedMap, check_explainable, grad_cam, map_scale, overlay, score_map
from verydeep.models.vgg import Net, create_net

MACHINE = resolve_device(MachineSettings(workers=0, threads=1, device="cpu"), 1e6)
MEAN = (120.0, 110.0, 100.0)
CLASSES = ("ant", "bee", "cat")


def asking(net: Net, test_scale: int) -> Classifier:
    """A classifier at a test scale."""
    metadata = Metadata(net.name, net.crop, net.width, CLASSES, MEAN, test_scale, net.pooling)
    MACHINE.place_model(net.eval())
    return Classifier(net, metadata, MACHINE)


def small(name: str = "A", test_scale: int = 96) -> Classifier:
    return asking(create_net(name, classes=3, crop=64, width=1 / 16, seed=3), test_scale)


def noise(height: int, width: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def dense_scores(asked: Classifier, pixels: Pixels) -> NDArray[np.float32]:
    """The dense scores (K,) of a photo that is at the test scale already."""
    shift = torch.tensor([[-value for value in MEAN]])
    with torch.no_grad():
        found = asked.net.mean_scores(model_input(asked.net, torch.from_numpy(pixels)[None], MACHINE, shift))
    return np.asarray(found[0])


def symmetric(asked: Classifier) -> Classifier:
    """The same with kernels that are their own mirror images."""
    assert isinstance(asked.net, Net)
    with torch.no_grad():
        for spec in asked.net.specs:
            weight = asked.net.layer(spec.name).weight
            weight.copy_((weight + weight.flip(3)) / 2)
    return asked


@pytest.mark.parametrize(("height", "width"), [(96, 96), (96, 131), (160, 96)])
@pytest.mark.parametrize("name", ["A", "A-LRN", "C"])
def test_the_maps_mean_is_the_dense_score(name: str, height: int, width: int) -> None:
    asked, pixels = small(name), noise(height, width)
    expected = dense_scores(asked, pixels)
    for label in range(3):
        found = score_map(asked, pixels, label, scale=96)
        assert found.values.mean() == pytest.approx(expected[label], rel=1e-4, abs=1e-4 * float(np.abs(expected).max()))


def test_a_photo_of_the_crops_size_has_one_cell_in_its_middle() -> None:
    found = score_map(small(), noise(64, 64), 1, scale=64)
    assert found.values.shape == (1, 1)
    assert (found.rows.tolist(), found.columns.tolist()) == ([32.0], [32.0])


@pytest.mark.parametrize(("height", "width"), [(48, 64), (300, 200)])
def test_by_default_a_map_has_eight_cells_on_the_shorter_side(height: int, width: int) -> None:
    found = score_map(small(), noise(height, width), 0)
    assert min(found.values.shape) == 8
    assert min(grad_cam(small(), noise(height, width), 0).values.shape) == 18  # 288 pixels, 16 apart


def test_the_scale_of_maps_is_the_protocols_or_at_least_what_eight_cells_need() -> None:
    metadata = small().metadata
    assert map_scale(metadata) == 64 + 7 * 32
    assert map_scale(replace(metadata, test_scale=400)) == 400
    assert map_scale(metadata, "dense@96,128") == 128


def test_cells_are_placed_in_pixels_of_the_photo() -> None:
    """A photo of twice the test scale: cells are 64 of its pixels apart, and Grad-CAM's 32."""
    asked, pixels = small(), noise(192, 256)
    found = score_map(asked, pixels, 0, scale=96)
    assert found.rows.tolist() == [64.0, 128.0]
    assert found.columns.tolist() == [64.0, 128.0, 192.0]
    assert found.size == (192, 256)
    fine = grad_cam(asked, pixels, 0, scale=96)
    assert fine.values.shape == (6, 8)
    assert fine.rows.tolist() == [16.0 + 32 * cell for cell in range(6)]
    assert fine.columns.tolist() == [16.0 + 32 * cell for cell in range(8)]


@pytest.mark.parametrize("way", [score_map, grad_cam])
def test_a_mirrored_photo_has_the_mirrored_map(way: Callable[..., PlacedMap]) -> None:
    asked, pixels = symmetric(small()), noise(96, 160)
    one, other = way(asked, pixels, 2), way(asked, np.ascontiguousarray(pixels[:, ::-1]), 2)
    np.testing.assert_allclose(other.values[:, ::-1], one.values, atol=1e-4 * np.abs(one.values).max())
    np.testing.assert_allclose(pixels.shape[1] - other.columns[::-1], one.columns)


def test_a_distant_change_does_not_affect_a_cell() -> None:
    """What a cell of net A sees ends 150 pixels around its centre, so the farthest cells do not change."""
    asked, pixels = small(), noise(96, 480)
    other = pixels.copy()
    other[:, :16] = 255 - other[:, :16]
    one, changed = (score_map(asked, each, 0, scale=96).values for each in (pixels, other))
    assert np.abs(one[:, 0] - changed[:, 0]).min() > 1e-6
    np.testing.assert_allclose(one[:, -4:], changed[:, -4:], rtol=1e-4, atol=1e-6)


def hand_made() -> Classifier:
    """Net A whose every layer passes its first channel on; class 0 is its mean over the map, class 1 minus it."""
    net = create_net("A", classes=3, crop=32, width=1 / 32)
    with torch.no_grad():
        for spec in net.specs:
            layer = net.layer(spec.name)
            layer.weight.zero_()
            layer.bias.zero_()  # type: ignore[union-attr]
            layer.weight[
                0, 0, spec.kernel // 2 if spec.stage <= 5 else 0, spec.kernel // 2 if spec.stage <= 5 else 0
            ] = 1
        net.layer("fc8").weight[1, 0] = -1
    return asking(net, 64)


def test_grad_cam_by_hand() -> None:
    """The score is the mean over 4 cells of pool5 of the red channel: 4 of conv5_2's 16 cells have gradient 1/4."""
    asked, pixels = hand_made(), np.zeros((64, 64, 3), dtype=np.uint8)
    pixels[:, :, 0] = 130  # 10 above the mean
    pixels[:16, 32:48, 0] = 220  # cell (0, 2) of conv5_2's map
    pixels[48:, 48:, 0] = 160
    found = grad_cam(asked, pixels, 0, scale=64).values
    expected = np.full((4, 4), 10)
    expected[0, 2], expected[3, 3] = 100, 40
    np.testing.assert_allclose(found, expected / 16, atol=1e-4)  # the mean gradient is 4 times 1/4 over 16 cells
    assert score_map(asked, pixels, 0, scale=64).values.tolist() == [[10, 100], [10, 40]]
    assert grad_cam(asked, pixels, 1, scale=64).values.max() == 0  # nothing speaks for it
    assert score_map(asked, pixels, 1, scale=64).values.tolist() == [[-10, -100], [-10, -40]]


def placed(values: list[list[float]], rows: list[float], columns: list[float], size: tuple[int, int]) -> PlacedMap:
    return PlacedMap(np.array(values, dtype=np.float32), np.array(rows), np.array(columns), size)


def test_an_overlay_is_bright_where_the_map_is_large() -> None:
    grey = np.full((60, 100, 3), 128, dtype=np.uint8)
    found = overlay(grey, placed([[0, 0, 9]], [30], [10, 50, 90], (60, 100)))
    assert found.shape == (60, 100, 3)
    assert found.dtype == np.uint8
    light = found.astype(int).sum(axis=2)
    assert (np.diff(light, axis=0) == 0).all()  # of one row of cells
    assert (np.diff(light[0]) >= 0).all()
    assert (light[0, :50] == light[0, 0]).all()
    assert light[0, 89] > light[0, 51] + 100
    level = overlay(grey, placed([[7]], [30], [50], (60, 100)))
    assert len(np.unique(level.reshape(-1, 3), axis=0)) == 1


def test_overlays_of_large_images_are_shrunk() -> None:
    found = overlay(noise(300, 2560), placed([[0, 1]], [150], [0, 2560], (300, 2560)))
    assert found.shape == (150, 1280, 3)
    assert found[:, -1].mean() > found[:, 0].mean()


def test_models_without_maps_are_refused() -> None:
    asked = small()
    with pytest.raises(VerydeepError, match="is below the net's crop of 64"):
        score_map(asked, noise(96, 96), 0, scale=40)
    with pytest.raises(VerydeepError, match="has no score map: explain a net"):
        check_explainable(object())
    other: object = replace(asked, net=object())  # type: ignore[arg-type]
    with pytest.raises(VerydeepError, match="an exported file returns mean scores only"):
        check_explainable(other)


def test_predict_explains(command: Command, trained: Path, tmp_path: Path) -> None:
    folder = make_photos(tmp_path / "photos", per_class=1)
    (tmp_path / "photos" / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    words = ("predict", trained, folder, "--explain", tmp_path / "why", "--json")
    answer = command(*words)
    assert answer.status == 1
    assert "torn.png" in answer.stderr
    found = json.loads(answer.stdout)
    assert len(found) == 3
    for row in found:
        told = row["explained"]
        assert told["class"] == row["predictions"][0]["class"]
        for kind in ("map", "gradcam"):
            with Image.open(told[kind]) as picture, Image.open(row["image"]) as photo:
                assert picture.size == photo.size
    # All three photos are called 000.png.
    assert {path.name for path in (tmp_path / "why").iterdir()} == {
        *("000-map.png", "000-gradcam.png", "000-2-map.png", "000-2-gradcam.png", "000-3-map.png"),
        "000-3-gradcam.png",
    }
    text = command("predict", trained, folder / "red" / "000.png", "--explain", "why", cwd=tmp_path)
    assert "score map why/000-map.png, Grad-CAM why/000-gradcam.png" in text.stdout
    classifier = verydeep.load(trained)
    assert isinstance(classifier, Classifier)
    pixels = verydeep.read_image(folder / "red" / "000.png")
    label = classifier.classes.index(json.loads(answer.stdout)[-1]["explained"]["class"])
    with Image.open(found[-1]["explained"]["map"]) as picture:
        np.testing.assert_array_equal(np.asarray(picture), overlay(pixels, score_map(classifier, pixels, label)))


def test_pictures_never_overwrite_images(command: Command, trained: Path, tmp_path: Path) -> None:
    folder = make_photos(tmp_path / "photos", per_class=1) / "red"
    shutil.copy(folder / "000.png", folder / "000-map.png")
    before = (folder / "000-map.png").read_bytes()
    assert command("predict", trained, folder, "--explain", folder).status == 0
    assert (folder / "000-map.png").read_bytes() == before
    assert (folder / "000-2-map.png").exists()


def test_mistakes(command: Command, trained: Path, tmp_path: Path) -> None:
    photo = make_photos(tmp_path / "photos", per_class=1) / "red" / "000.png"
    exported = command("export", trained, "--to", "onnx", "--out", tmp_path / "net.onnx", "--photos", photo.parent)
    assert exported.status == 0, exported.stderr
    refused = command("predict", tmp_path / "net.onnx", photo, "--explain", tmp_path / "why")
    assert "an exported file returns mean scores only and has no score map" in refused.mistake()
    place = command("predict", trained, photo, "--explain", photo)
    assert place.mistake().endswith("is not a folder; use another --explain.")
