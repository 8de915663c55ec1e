"""fc6 and fc7 below a new last layer are scaled to fit the learning rate; what they tell stays the same."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from verydeep import create_net
from verydeep.fc_scale import fit_fc_to_rate, squared_length
from verydeep.nets import Net

IMAGES = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 255 - 110


def small_net() -> Net:
    return create_net("A", 3, 32, 1 / 8, initialise="glorot", seed=1)


def length_of_fc7(net: Net) -> float:
    with torch.no_grad():
        return squared_length(net.penultimate(IMAGES))


@pytest.mark.parametrize("new", [("fc6", "fc7", "fc8"), ("fc8",), ("fc6", "fc8"), ("fc7", "fc8")])
def test_the_map_of_fc7_becomes_one_over_the_rate(new: tuple[str, ...]) -> None:
    net = small_net().eval()
    rate = 10 / length_of_fc7(net)
    factor = fit_fc_to_rate(net, IMAGES, rate, new)
    assert length_of_fc7(net) == pytest.approx(1 / rate, rel=1e-4)
    assert factor == pytest.approx(10 ** (-0.25 if {"fc6", "fc7"} <= set(new) else -0.5), rel=1e-4)


def test_a_short_map_stays_as_it_is() -> None:
    net = small_net().eval()
    before = net.layer("fc7").weight.clone()
    assert fit_fc_to_rate(net, IMAGES, 0.1 / length_of_fc7(net), ("fc8",)) == 1.0
    assert torch.equal(net.layer("fc7").weight, before)


def test_a_map_of_zeros_is_left_alone() -> None:
    net = small_net().eval()
    with torch.no_grad():
        net.layer("fc7").weight.zero_()
    assert fit_fc_to_rate(net, IMAGES, 1.0, ("fc8",)) == 1.0


def test_a_trained_fc7_tells_the_same_but_for_a_factor() -> None:
    net = small_net().eval()
    with torch.no_grad():
        net.layer("fc7").bias.normal_(generator=torch.Generator().manual_seed(2))  # type: ignore[union-attr]
        before = net.penultimate(IMAGES)
        factor = fit_fc_to_rate(net, IMAGES, 100 / squared_length(before), ("fc8",))
        torch.testing.assert_close(net.penultimate(IMAGES), factor * before, rtol=1e-4, atol=1e-4)


def test_a_head_that_would_diverge_learns() -> None:
    """Twenty steps of SGD on fc8 alone at a rate that is far too high for the map as it was."""
    losses = {}
    for fitted in (False, True):
        net = small_net().eval()
        rate = 100 / length_of_fc7(net)
        if fitted:
            fit_fc_to_rate(net, IMAGES, rate, ("fc8",))
        with torch.no_grad():
            shown = net.penultimate(IMAGES).flatten(1)
        weight = torch.zeros(3, shown.shape[1], requires_grad=True)
        sgd = torch.optim.SGD([weight], lr=rate, momentum=0.9)
        labels = torch.tensor([0, 1, 2, 1])
        highest = 0.0
        for _ in range(20):
            loss = F.cross_entropy(shown @ weight.T, labels)
            highest = max(highest, loss.item())
            sgd.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            sgd.step()
        losses[fitted] = highest
    assert losses[True] < 2 < losses[False]
