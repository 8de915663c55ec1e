"""Training of the FC layers on whole images, whose last maps are computed once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

import verydeep
from verydeep.checkpoints.checkpoint import load_checkpoint
from verydeep.core.settings import DataSettings
from verydeep.data.open import open_data
from verydeep.models.map_cache import MapCache
from verydeep.models.vgg import Net
from verydeep.training import trainer

TINY: dict[str, Any] = {
    **{"crop": 32, "width": 1 / 64, "batch": 4, "initialise": "glorot", "lr": 0.01, "max_epochs": 3, "S": "40"},
    **{"workers": 0, "threads": 1, "split_seed": 1, "context": "photo", "learn": "fc", "colour_shift": "off"},
    "start": "none",
}


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Twelve images of noise, of two classes and three sizes."""
    rng = np.random.default_rng(0)
    for number in range(12):
        size = ((48, 64), (64, 48), (50, 50))[number % 3]
        path = tmp_path / "images" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)
    return tmp_path / "images"


def trained(folder: Path, images: Path, **changes: Any) -> dict[str, NDArray[np.float32]]:
    """The last weights of a run."""
    verydeep.train("A", folder, **{**TINY, "data": str(images), **changes})
    return {name: value.numpy() for name, value in load_checkpoint(folder / "last.safetensors").weights.items()}


def sizes(images: Path) -> tuple[int, int]:
    """How many images are for training, and for validation."""
    opened = open_data(DataSettings(data=str(images), split_seed=1))
    return len(opened.set("train")), len(opened.set("dev"))


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of images in each pass through the convolutions."""
    counts: list[int] = []
    stages = Net.stages

    def counted(net: Net, x: Tensor) -> list[Tensor]:
        counts.append(len(x))
        return stages(net, x)

    monkeypatch.setattr(Net, "stages", counted)
    return counts


def test_each_map_is_computed_once(images: Path, tmp_path: Path, computed: list[int]) -> None:
    """Those of the training images, their mirror images, and the dev images; without the cache in every epoch."""
    trained(tmp_path / "few", images, max_epochs=8)
    train, dev = sizes(images)
    assert train + dev <= sum(computed) <= 2 * train + dev
    computed.clear()
    trained(tmp_path / "jittered", images, max_epochs=8, S="40-64")
    assert sum(computed) >= 8 * train


def test_of_crops_the_maps_of_validation_are_computed_once(images: Path, tmp_path: Path, computed: list[int]) -> None:
    trained(tmp_path / "crops", images, max_epochs=4, context="crop")
    train, dev = sizes(images)
    assert sum(computed) == 4 * train + dev


def test_the_weights_are_those_without_a_cache(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = trained(tmp_path / "kept", images)
    monkeypatch.setattr(trainer, "CACHE_SHARE", 0.0)
    anew = trained(tmp_path / "anew", images)
    for name, value in kept.items():
        np.testing.assert_allclose(value, anew[name], rtol=1e-5, atol=1e-6)
    assert any(not np.array_equal(value, kept[name]) for name, value in trained(tmp_path / "1", images, seed=1).items())


def test_interrupted_and_resumed_equals_uninterrupted(images: Path, tmp_path: Path) -> None:
    whole = trained(tmp_path / "whole", images)
    trained(tmp_path / "parts", images, max_epochs=1)
    verydeep.train("A", tmp_path / "parts", resume=True, max_epochs=3, workers=0, threads=1)
    parts = load_checkpoint(tmp_path / "parts" / "last.safetensors").weights
    for name, value in whole.items():
        np.testing.assert_allclose(parts[name].numpy(), value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("learn", ["all", "fc"])
def test_on_images_of_the_crops_size_windows_are_crops(images: Path, tmp_path: Path, learn: str) -> None:
    """There is one cell, and its map has zeros around it in both."""
    for path in images.rglob("*.png"):
        Image.open(path).resize((50, 50)).save(path)
    first, second = (
        trained(tmp_path / way, images, S="32", context=way, learn=learn, max_epochs=1) for way in ("photo", "crop")
    )
    for name, value in first.items():
        np.testing.assert_allclose(value, second[name], rtol=1e-5, atol=1e-6)


def test_convolutions_that_learn_have_no_cache(images: Path, tmp_path: Path, computed: list[int]) -> None:
    before = trained(tmp_path / "all", images, learn="all", max_epochs=1)
    after = trained(tmp_path / "more", images, learn="all", max_epochs=2)
    assert not np.array_equal(before["conv1_1.weight"], after["conv1_1.weight"])
    assert sum(computed) >= 3 * sizes(images)[0]


def test_a_cache_computes_what_it_does_not_have_and_keeps_what_fits() -> None:
    seen: list[int] = []

    def double(images: Tensor) -> Tensor:
        seen.append(len(images))
        return 2 * images

    images = torch.arange(4 * 3 * 2 * 2, dtype=torch.float32).view(4, 3, 2, 2)
    cache = MapCache(most_bytes=2 * images[0].nbytes)
    for rows in ([0, 1], [1, 0, 0], [2, 1, 3], [3, 2]):
        assert torch.equal(cache(images[rows], double), 2 * images[rows])
    assert seen == [2, 2, 2]  # the third and the fourth image do not fit
    assert cache.bytes == 2 * images[0].nbytes


def test_images_of_the_same_bytes_and_another_shape_are_others() -> None:
    cache, images = MapCache(10**6), torch.zeros(1, 3, 2, 4)
    assert cache(images, lambda x: x).shape == (1, 3, 2, 4)
    assert cache(images.view(1, 3, 4, 2), lambda x: x).shape == (1, 3, 4, 2)


def test_maps_of_inference_mode_serve_in_training() -> None:
    cache, images = MapCache(10**6), torch.ones(1, 3, 2, 2)
    with torch.inference_mode():
        cache(images, lambda x: x + 1)
    weight = torch.ones(1, requires_grad=True)
    (cache(images, lambda x: x) * weight).sum().backward()  # type: ignore[no-untyped-call]
    assert weight.grad is not None
    assert weight.grad.item() == 24
