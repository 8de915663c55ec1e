"""Sect. 3.2: properties of each evaluation protocol."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from verydeep import create_net
from verydeep.core.device import resolve_device
from verydeep.core.settings import MachineSettings
from verydeep.data.image_io import Pixels
from verydeep.data.transforms import rescale
from verydeep.evaluation.inference import ResizeToScales, equal_sizes, posteriors
from verydeep.evaluation.protocols import METHODS, parse_protocol
from verydeep.models.architectures import multiply_adds
from verydeep.models.vgg import Net

MEAN = np.array([120.0, 110.0, 100.0])
MACHINE = resolve_device(MachineSettings(workers=0, threads=1, device="cpu"), 1e6)


def net() -> Net:
    return create_net("C", classes=7, crop=32, width=1 / 8, seed=6).eval()


def photos(sizes: list[tuple[int, int]]) -> list[Pixels]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (height, width, 3)).astype(np.uint8) for height, width in sizes]


def posteriors_of(model: Net, protocol: str, images: list[Pixels], mirror: bool | None = None) -> NDArray[np.float32]:
    asked = parse_protocol(protocol)
    asked = asked if mirror is None else replace(asked, mirror=mirror)
    views = ResizeToScales(asked, model.crop)
    return posteriors(model, MEAN, asked, enumerate(map(views, images)), len(images), MACHINE).posteriors


def test_dense_on_a_photo_of_the_crops_size_is_the_centre_crop() -> None:
    images = photos([(32, 32), (32, 32)])
    np.testing.assert_allclose(
        posteriors_of(net(), "dense@32", images, mirror=False), posteriors_of(net(), "centre@32", images), atol=1e-6
    )


@pytest.mark.parametrize("method", METHODS)
def test_a_batch_equals_single_images_in_any_order(method: str) -> None:
    images = photos([(40, 50), (50, 40), (40, 50), (44, 44), (40, 50)])
    model, protocol = net(), f"{method}@40,48"
    together = posteriors_of(model, protocol, images)
    single = np.concatenate([posteriors_of(model, protocol, [image]) for image in images])
    np.testing.assert_allclose(together, single, atol=1e-6)
    np.testing.assert_allclose(posteriors_of(model, protocol, images[::-1]), together[::-1], atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_the_size_of_batches_changes_nothing(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    images = photos([(40, 50)] * 5)
    model = net()
    whole = posteriors_of(model, f"{method}@40", images)
    for pixels in (1, 5_000, 20_000):
        monkeypatch.setattr("verydeep.evaluation.inference.BATCH_PIXELS", pixels)
        np.testing.assert_allclose(posteriors_of(model, f"{method}@40", images), whole, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_the_mirror_average_is_symmetric(method: str) -> None:
    """On photos that Q = 63 does not resample, as resampling need not treat left and right alike; also where
    an odd number of pixels is left beside the crops."""
    images = photos([(63, 96), (63, 93)])
    mirrored = [np.ascontiguousarray(image[:, ::-1]) for image in images]
    model = net()
    for mirror in (True, False):
        found = [posteriors_of(model, f"{method}@63", shown, mirror) for shown in (images, mirrored)]
        assert np.allclose(found[0], found[1], atol=1e-6) is mirror


@pytest.mark.parametrize("method", METHODS)
def test_crops_of_a_constant_photo_are_its_centre(method: str) -> None:
    images = [np.full((40, 57, 3), (200, 90, 30), dtype=np.uint8)]
    model = net()
    centre = posteriors_of(model, "centre@40", images)
    same = np.allclose(posteriors_of(model, f"{method}@40", images, mirror=False), centre, atol=1e-6)
    assert same is (method not in ("dense", "both"))  # whose maps see no zeros between crops


def test_fifty_crops_are_the_mean_of_each_crops_softmax() -> None:
    """Recomputed from Sect. 3.2's text, crop by crop, the mirrored ones from the mirrored photo."""
    (image,) = photos([(40, 59)])
    model = net()
    found = []
    for shown in (image, image[:, ::-1]):
        for top in (0, 2, 4, 6, 8):
            for left in (0, 7, 14, 20, 27):  # quarters of 27: 6.75, 13.5, 20.25
                crop = np.ascontiguousarray(shown[top : top + 32, left : left + 32]).astype(np.float32)
                x = torch.from_numpy(crop - MEAN.astype(np.float32)).permute(2, 0, 1)[None]
                with torch.no_grad():
                    found.append(F.softmax(model(x).flatten(), dim=0).numpy())
    np.testing.assert_allclose(posteriors_of(model, "crops@40", [image])[0], np.mean(found, axis=0), atol=1e-6)


def test_ten_crops_are_five_places_and_their_mirror_images() -> None:
    (image,) = photos([(40, 59)])
    model = net()
    found = []
    for shown in (image, image[:, ::-1]):
        for top, left in ((0, 9), (0, 17), (8, 9), (8, 17), (4, 13)):  # of the central 40x40
            crop = np.ascontiguousarray(shown[top : top + 32, left : left + 32])
            found.append(posteriors_of(model, "centre@32", [crop])[0])
    np.testing.assert_allclose(posteriors_of(model, "ten@40", [image])[0], np.mean(found, axis=0), atol=1e-6)


@pytest.mark.parametrize("protocol", ["both@36,48", "dense@36,48,40", "crops@36,48:no-mirror", "both@36:softmax-first"])
def test_a_protocol_is_the_mean_of_its_parts(protocol: str) -> None:
    images = photos([(40, 50), (44, 44)])
    model = net()
    parts = [posteriors_of(model, str(part), images) for part in parse_protocol(protocol).parts()]
    np.testing.assert_allclose(posteriors_of(model, protocol, images), np.mean(parts, axis=0), atol=1e-6)


def test_cost_is_of_the_rescaled_photos() -> None:
    images = photos([(40, 50), (40, 60)])
    model = net()
    asked = parse_protocol("both@40,48")
    answers = posteriors(model, MEAN, asked, enumerate(map(ResizeToScales(asked, 32), images)), 2, MACHINE)
    crops = 2 * 2 * 25 * multiply_adds(model.specs, 32, 32)
    dense = 2 * np.mean(
        [
            multiply_adds(model.specs, 40, 50) + multiply_adds(model.specs, 48, 60),
            multiply_adds(model.specs, 40, 60) + multiply_adds(model.specs, 48, 72),
        ]
    )
    assert answers.multiply_adds == pytest.approx(crops + dense)


def test_scales_are_averaged() -> None:
    images = photos([(40, 50)])
    model = net()
    mean = (posteriors_of(model, "dense@36", images) + posteriors_of(model, "dense@52", images)) / 2
    np.testing.assert_allclose(posteriors_of(model, "dense@36,52", images), mean, atol=1e-6)


def test_dense_is_softmax_of_the_spatial_mean_of_scores() -> None:
    """Recomputed from Sect. 3.2's text with the score map itself."""
    (image,) = photos([(50, 80)])
    model = net()
    x = torch.from_numpy(rescale(image, 70).astype(np.float32) - MEAN.astype(np.float32)).permute(2, 0, 1)[None]
    with torch.no_grad():
        found = [F.softmax(model(view).mean(dim=(2, 3)), dim=1) for view in (x, x.flip(3))]
    np.testing.assert_allclose(posteriors_of(model, "dense@70", [image])[0], ((found[0] + found[1]) / 2)[0], atol=1e-6)


def test_softmax_first_is_the_mean_of_each_places_softmax() -> None:
    (image,) = photos([(50, 80)])
    model = net()
    x = torch.from_numpy(rescale(image, 70).astype(np.float32) - MEAN.astype(np.float32)).permute(2, 0, 1)[None]
    with torch.no_grad():
        found = [F.softmax(model(view), dim=1).mean(dim=(2, 3)) for view in (x, x.flip(3))]
    asked = posteriors_of(model, "dense@70:softmax-first", [image])
    np.testing.assert_allclose(asked[0], ((found[0] + found[1]) / 2)[0], atol=1e-6)
    assert not np.allclose(asked, posteriors_of(model, "dense@70", [image]), atol=1e-6)
    one_place = photos([(32, 32)])
    np.testing.assert_allclose(
        posteriors_of(model, "dense@32:softmax-first", one_place),
        posteriors_of(model, "dense@32", one_place),
        atol=1e-6,
    )


def test_posteriors_sum_to_one() -> None:
    found = posteriors_of(net(), "dense@32,40", photos([(60, 45), (33, 90)]))
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)
    assert found.dtype == np.float32


def test_equal_sizes_loses_nothing_and_bounds_what_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("verydeep.evaluation.inference.WAITING_PIXELS", 6000)
    monkeypatch.setattr("verydeep.evaluation.inference.BATCH_IMAGES", 3)
    sizes = [(32, 32 + number % 5) for number in range(23)]
    images = photos(sizes)
    given, waiting = 0, []
    batches: list[tuple[list[int], NDArray[np.uint8]]] = []

    def views() -> Iterator[tuple[int, list[Pixels]]]:
        nonlocal given
        for index, image in enumerate(images):
            waiting.append(given - sum(batch.shape[0] * batch.shape[1] * batch.shape[2] for _, batch in batches))
            given += image.shape[0] * image.shape[1]
            yield index, [image]

    for found in equal_sizes(views(), lambda height, width: height * width):
        batches.append(found)
    assert max(waiting) <= 6000 < sum(height * width for height, width in sizes)
    assert sorted(index for indices, _ in batches for index in indices) == list(range(23))
    for indices, batch in batches:
        assert len(indices) <= 3
        for index, shown in zip(indices, batch, strict=True):
            np.testing.assert_array_equal(images[index], shown)


def test_crops_count_for_a_batch_by_their_own_pixels() -> None:
    asked = parse_protocol("both@40")
    assert asked.shown_pixels(32, 40, 50) == 2 * (40 * 50 + 25 * 32 * 32)
    assert parse_protocol("ten@40").shown_pixels(32, 40, 50) == 2 * 5 * 32 * 32
    assert parse_protocol("dense@40").shown_pixels(32, 40, 50) == 2 * 40 * 50
