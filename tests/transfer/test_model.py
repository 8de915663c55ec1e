"""`verydeep.load` as PyTorch is used: a module with its transform, other classes, descriptors in memory."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

import verydeep
from verydeep.transfer.features_file import load_features


@pytest.fixture
def model(trained: Path) -> verydeep.Model:
    loaded = verydeep.load(trained)
    assert isinstance(loaded, verydeep.Model)
    return loaded


@pytest.fixture(scope="module")
def paths(trained: Path) -> list[Path]:
    return sorted((trained.parent / "photos").glob("*/*.png"))


def test_the_module_on_a_transformed_crop_gives_the_posteriors_of_the_centre(
    model: verydeep.Model, paths: list[Path]
) -> None:
    batch = torch.stack([model.transform(Image.open(path)) for path in paths])
    with torch.no_grad():
        found = torch.softmax(model(batch), 1)
    expected = model.posteriors(paths, f"centre@{model.metadata.test_scale}")
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


def test_the_transform_is_pickled_for_workers(model: verydeep.Model, paths: list[Path]) -> None:
    again = pickle.loads(pickle.dumps(model.transform))
    assert torch.equal(again(paths[0]), model.transform(Image.open(paths[0])))


def test_other_classes_are_learned_saved_and_loaded(model: verydeep.Model, paths: list[Path], tmp_path: Path) -> None:
    before = model.net.layer("fc7").weight.clone()
    assert model.reset_classifier(["cold", "warm"]) is model
    assert torch.equal(model.net.layer("fc7").weight, before)
    labels = torch.tensor([int(path.parent.name == "red") for path in paths])
    batch = torch.stack(list(map(model.transform, paths)))
    steps = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    losses = []  # without dropout
    for _ in range(2):
        losses.append(float(F.cross_entropy(model.eval()(batch), labels).detach()))
        for _ in range(10):
            loss = F.cross_entropy(model.train()(batch), labels)
            steps.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            steps.step()
    assert losses[1] < losses[0]
    predicted = model.posteriors(paths)
    assert model.training  # as it was
    again = verydeep.load(model.save(tmp_path / "own.safetensors"))
    assert again.classes == ("cold", "warm")
    assert isinstance(again, verydeep.Model)
    np.testing.assert_allclose(again.posteriors(paths), predicted, atol=1e-6)
    assert model.reset_classifier(4).classes == ("0", "1", "2", "3")


def test_features_are_those_of_a_features_file(model: verydeep.Model, trained: Path, tmp_path: Path) -> None:
    for layer in ("fc7", "pool5", "conv3_1", "fc7-before-relu"):
        settings = verydeep.FeatureSettings(layer, (36, 48))
        file = verydeep.extract_features(
            trained, str(trained.parent / "photos"), tmp_path / f"{layer}.safetensors", settings=settings
        )
        images = [verydeep.read_image(trained.parent / "photos" / name) for name in file.features.ids]
        expected = verydeep.combine([load_features(file.path).scales], verydeep.DescriptorSettings())
        found = model.features(images, layer, (36, 48))
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_images_follow_the_weights(model: verydeep.Model, paths: list[Path]) -> None:
    """To another precision here; to another device in the same way."""
    expected = model.posteriors(paths[:3])
    found = model.double().posteriors(paths[:3])
    assert next(model.parameters()).dtype == torch.float64
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_model_is_pickled(model: verydeep.Model, paths: list[Path]) -> None:
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.posteriors(paths[:3]), model.posteriors(paths[:3]))


def test_mistakes_are_sentences(model: verydeep.Model, paths: list[Path], tmp_path: Path) -> None:
    with pytest.raises(verydeep.VerydeepError, match="has no layer 'fc9'"):
        model.features(paths[0], "fc9")
    with pytest.raises(verydeep.VerydeepError, match="twice"):
        model.features(paths[0], scales=(36, 36))
    with pytest.raises(verydeep.VerydeepError, match="at least one class"):
        model.reset_classifier(0)
    with pytest.raises(verydeep.VerydeepError, match=r"must end in \.safetensors"):
        model.save(tmp_path / "own.pth")
    with pytest.raises(TypeError):
        model.transform(3.5)
