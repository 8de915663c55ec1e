"""Sect. 3.2: properties of dense and centre testing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from verydeep import create_net
from verydeep.config import MachineSettings
from verydeep.errors import VerydeepError
from verydeep.images import Pixels, rescale
from verydeep.machine import this_machine
from verydeep.nets import Net
from verydeep.protocols import Protocol, Views, check_protocol, equal_sizes, parse_protocol, posteriors

MEAN = np.array([120.0, 110.0, 100.0])
MACHINE = this_machine(MachineSettings(workers=0, threads=1, device="cpu"), 1e6)


def net() -> Net:
    return create_net("C", classes=7, crop=32, width=1 / 8, seed=6).eval()


def photos(sizes: list[tuple[int, int]]) -> list[Pixels]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (height, width, 3)).astype(np.uint8) for height, width in sizes]


def posteriors_of(model: Net, protocol: str, images: list[Pixels], mirror: bool | None = None) -> NDArray[np.float32]:
    asked = parse_protocol(protocol)
    asked = asked if mirror is None else Protocol(asked.method, asked.scales, mirror)
    views = Views(asked, model.crop)
    return posteriors(model, MEAN, asked, enumerate(map(views, images)), len(images), MACHINE)


def test_grammar() -> None:
    assert parse_protocol("dense@256,384,512") == Protocol("dense", (256, 384, 512), mirror=True)
    assert parse_protocol("centre@256") == Protocol("centre", (256,), mirror=False)
    for name in ("dense@64,73", "centre@64", "dense@64:softmax-first"):
        assert str(parse_protocol(name)) == name
    with pytest.raises(VerydeepError, match="softmax-first is for dense only"):
        parse_protocol("centre@64:softmax-first")


@pytest.mark.parametrize("text", ["dense", "dense@", "dense@x", "Dense@256", "dense@256;384", "sparse@256", "dense@-1"])
def test_what_cannot_be_parsed_shows_the_grammar(text: str) -> None:
    with pytest.raises(VerydeepError, match=r"write METHOD@Q or METHOD@Q,Q,…"):
        parse_protocol(text)


def test_a_scale_twice_or_below_the_crop() -> None:
    with pytest.raises(VerydeepError, match="names a scale twice"):
        parse_protocol("dense@256,256")
    with pytest.raises(VerydeepError, match=r"Q = 200 in dense@256,200 is below the net's crop of 224"):
        check_protocol(parse_protocol("dense@256,200"), 224)


def test_dense_on_a_photo_of_the_crops_size_is_the_centre_crop() -> None:
    images = photos([(32, 32), (32, 32)])
    np.testing.assert_allclose(
        posteriors_of(net(), "dense@32", images, mirror=False), posteriors_of(net(), "centre@32", images), atol=1e-6
    )


def test_a_batch_equals_one_by_one_in_any_order() -> None:
    images = photos([(40, 50), (50, 40), (40, 50), (44, 44), (40, 50)])
    model = net()
    together = posteriors_of(model, "dense@40,48", images)
    single = np.concatenate([posteriors_of(model, "dense@40,48", [image]) for image in images])
    np.testing.assert_allclose(together, single, atol=1e-6)
    np.testing.assert_allclose(posteriors_of(model, "dense@40,48", images[::-1]), together[::-1], atol=1e-6)


def test_the_mirror_average_is_symmetric() -> None:
    """On a photo that Q = 64 does not resample, as resampling need not treat left and right alike."""
    images = photos([(64, 96)])
    mirrored = [np.ascontiguousarray(image[:, ::-1]) for image in images]
    model = net()
    for mirror in (True, False):
        found = [posteriors_of(model, "dense@64", shown, mirror) for shown in (images, mirrored)]
        assert np.allclose(found[0], found[1], atol=1e-6) is mirror


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
    from verydeep import protocols

    monkeypatch.setattr(protocols, "WAITING_PIXELS", 6000)
    monkeypatch.setattr(protocols, "BATCH_PHOTOS", 3)
    sizes = [(32, 32 + number % 5) for number in range(23)]
    images = photos(sizes)
    batches = list(equal_sizes((index, [image]) for index, image in enumerate(images)))
    assert sorted(index for indices, _ in batches for index in indices) == list(range(23))
    for indices, batch in batches:
        assert len(indices) <= 3
        for index, shown in zip(indices, batch, strict=True):
            np.testing.assert_array_equal(images[index], shown)
