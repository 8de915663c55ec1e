"""New fc6 and fc7 pass pool5 on, and their scale fits the learning rate; a trained fc7 changes by a factor only."""

from __future__ import annotations

import pytest
import torch

from verydeep import create_net
from verydeep.models.fc_layers import fit_to_rate, pass_pool5_on, squared_length
from verydeep.models.vgg import Net

IMAGES = torch.rand(4, 3, 96, 96, generator=torch.Generator().manual_seed(0)) * 255 - 110


def small_net() -> Net:
    return create_net("A", 3, 96, 1 / 8, initialise="glorot", seed=1).eval()


def fc7(net: Net) -> torch.Tensor:
    with torch.no_grad():
        return net.penultimate(IMAGES).flatten(1)


def test_new_fc_layers_pass_pool5_on_by_region() -> None:
    """A pool5 of 64 channels of 3x3 cells, and eight times as many units: one for each channel and region."""
    net = small_net()
    pass_pool5_on(net)
    found = fc7(net).view(4, 8, 64)
    with torch.no_grad():
        pool5 = net.stages(IMAGES)[-1]
    assert pool5.shape[1:] == (64, 3, 3)
    rows = [slice(0, 3), slice(0, 2), slice(0, 2), slice(1, 3), slice(1, 3), slice(1, 2), slice(0, 2), slice(1, 3)]
    columns = [slice(0, 3), slice(0, 2), slice(1, 3), slice(0, 2), slice(1, 3), slice(1, 2), slice(0, 3), slice(0, 3)]
    for number, (down, across) in enumerate(zip(rows, columns, strict=True)):
        torch.testing.assert_close(found[:, number], pool5[:, :, down, across].mean((2, 3)), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("new", [("fc6", "fc7", "fc8"), ("fc8",), ("fc7", "fc8")])
def test_the_squared_length_of_fc7_becomes_one_over_the_rate(new: tuple[str, ...]) -> None:
    net = small_net()
    before = squared_length(fc7(net))
    factor = fit_to_rate(net, before, 10 / before, new)
    assert factor == pytest.approx(10**-0.5)
    assert squared_length(fc7(net)) == pytest.approx(before / 10, rel=1e-4)


def test_both_layers_share_the_factor_where_both_are_new() -> None:
    net = small_net()
    before = squared_length(fc7(net))
    weights = {name: net.layer(name).weight.clone() for name in ("fc6", "fc7")}
    fit_to_rate(net, before, 16 / before, ("fc6", "fc7", "fc8"))
    for name, weight in weights.items():
        torch.testing.assert_close(net.layer(name).weight, weight / 2)


@pytest.mark.parametrize("length", [0.0, 5.0])
def test_a_short_map_is_not_scaled(length: float) -> None:
    net = small_net()
    before = net.layer("fc7").weight.clone()
    assert fit_to_rate(net, length, 0.1, ("fc8",)) == 1.0
    assert torch.equal(net.layer("fc7").weight, before)


def test_a_trained_fc7_changes_by_a_factor_only() -> None:
    net = small_net()
    with torch.no_grad():
        net.layer("fc7").bias.normal_(generator=torch.Generator().manual_seed(2))  # type: ignore[union-attr]
    before = fc7(net)
    factor = fit_to_rate(net, squared_length(before), 100 / squared_length(before), ("fc8",))
    torch.testing.assert_close(fc7(net), factor * before, rtol=1e-4, atol=1e-4)
