"""Sect. 2: the nets against independent code, and what Sect. 3.2 promises of the dense net."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from conftest import SHARED
from verydeep import VerydeepError, create_net
from verydeep.models.architectures import NET_NAMES


def plain_vgg16(classes: int) -> nn.Sequential:
    """VGG-16 as it is usually written: convolutions, then FC layers over the flattened (C,H,W) map."""
    modules: list[nn.Module] = []
    channels = 3
    for wide in [64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0]:
        if wide:
            modules += [nn.Conv2d(channels, wide, 3, padding=1), nn.ReLU()]
            channels = wide
        else:
            modules.append(nn.MaxPool2d(2, 2))
    modules += [nn.Flatten(), nn.Linear(512 * 49, 4096), nn.ReLU(), nn.Dropout()]
    modules += [nn.Linear(4096, 4096), nn.ReLU(), nn.Dropout(), nn.Linear(4096, classes)]
    return nn.Sequential(*modules).eval()


def test_net_d_equals_an_independent_vgg16_at_every_window() -> None:
    """At full size: 1000 classes, 224 pixels, weights that differ in every position."""
    net = create_net("D", seed=3).eval()
    plain = plain_vgg16(1000)
    weighted = [module for module in plain if isinstance(module, nn.Conv2d | nn.Linear)]
    with torch.no_grad():
        for spec, module in zip(net.specs, weighted, strict=True):
            layer = net.layer(spec.name)
            assert layer.bias is not None
            layer.bias.uniform_(-0.1, 0.1, generator=torch.Generator().manual_seed(len(spec.name)))
            assert module.bias is not None
            module.weight.copy_(layer.weight.reshape(module.weight.shape))
            module.bias.copy_(layer.bias)
        x = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0)) * 60
        ours, theirs = net(x), plain(x)
        assert ours.shape == (1, 1000, 1, 1)
        assert (ours.flatten(1) - theirs).norm() <= 1e-4 * theirs.norm()

        large = torch.randn(1, 3, 256, 320, generator=torch.Generator().manual_seed(1)) * 60
        shared_map = net.stages(large)[-1]  # (1,512,8,10)
        dense = net(large)
        assert dense.shape == (1, 1000, 2, 4)
        for row in range(2):
            for column in range(4):
                window = shared_map[:, :, row : row + 7, column : column + 7].flatten(1)
                scores = plain[-7:](window)
                assert (dense[:, :, row, column] - scores).norm() <= 1e-4 * scores.norm()


@pytest.mark.parametrize("name", NET_NAMES)
def test_score_map_shapes(name: str) -> None:
    net = create_net(name, classes=5, crop=64, width=1 / 16).eval()
    with torch.no_grad():
        assert net(torch.zeros(2, 3, 64, 64)).shape == (2, 5, 1, 1)
        assert net(torch.zeros(1, 3, 96, 161)).shape == (1, 5, 2, 5)  # 161 pixels pool up to 6 cells


@pytest.mark.parametrize(("height", "width", "cells"), [(256, 341, (2, 5)), (512, 682, (10, 16)), (224, 224, (1, 1))])
def test_pooling_rounds_up(height: int, width: int, cells: tuple[int, int]) -> None:
    """The original code's rounding: a 256x341 photo has 2x5 scores, not 2x4."""
    net = create_net("A", classes=2, width=1 / 64).eval()
    with torch.no_grad():
        assert net(torch.zeros(1, 3, height, width)).shape[-2:] == cells


def test_pooling_may_round_down() -> None:
    net = create_net("A", classes=2, width=1 / 64, pooling="down").eval()
    with torch.no_grad():
        assert net(torch.zeros(1, 3, 256, 341)).shape[-2:] == (2, 4)
    with pytest.raises(VerydeepError, match="smaller than the net's crop"):
        net(torch.zeros(1, 3, 223, 224))


def test_stages_are_maps_at_strides_2_to_32() -> None:
    net = create_net("C", classes=2, crop=32, width=1 / 16).eval()
    shapes = [tuple(found.shape[1:]) for found in net.stages(torch.zeros(1, 3, 64, 96))]
    assert shapes == [(4, 32, 48), (8, 16, 24), (16, 8, 12), (32, 4, 6), (32, 2, 3)]


def test_mean_scores_equals_the_mean_of_the_score_map() -> None:
    net = create_net("B", classes=6, crop=32, width=1 / 16, seed=1).eval()
    x = torch.randn(3, 3, 70, 90)
    with torch.no_grad():
        torch.testing.assert_close(net.mean_scores(x), net(x).mean(dim=(2, 3)), rtol=1e-4, atol=1e-5)


def test_batched_equals_single() -> None:
    net = create_net("E", classes=4, crop=32, width=1 / 16, seed=2).double().eval()
    x = torch.randn(5, 3, 40, 40, dtype=torch.float64)
    with torch.no_grad():
        single = torch.cat([net(image[None]) for image in x])
        torch.testing.assert_close(net(x), single, rtol=1e-9, atol=1e-12)


def test_an_image_below_the_crop_is_refused() -> None:
    with pytest.raises(VerydeepError, match="smaller than the net's crop of 64"):
        create_net("A", classes=2, crop=64, width=1 / 16)(torch.zeros(1, 3, 30, 64))


def lrn_by_hand(x: Tensor) -> Tensor:
    """Krizhevsky et al. 2012, Sect. 3.3: b = a / (k + alpha * sum a^2)^beta, n=5, alpha=1e-4 undivided."""
    out = torch.empty_like(x)
    for channel in range(x.shape[1]):
        low, high = max(0, channel - 2), min(x.shape[1], channel + 3)
        out[:, channel] = x[:, channel] / (2 + 1e-4 * (x[:, low:high] ** 2).sum(1)) ** 0.75
    return out


def test_lrn_is_krizhevskys_after_the_relu_of_conv1() -> None:
    plain, normed = (create_net(name, classes=2, crop=32, width=1 / 4, seed=5).eval() for name in ("A", "A-LRN"))
    normed.load_state_dict(plain.state_dict())
    x = torch.randn(2, 3, 32, 32) * 100
    with torch.no_grad():
        expected = F.max_pool2d(lrn_by_hand(F.relu(plain.layer("conv1_1")(x))), 2)
        torch.testing.assert_close(normed.stages(x)[0], expected, rtol=1e-5, atol=1e-6)
        assert not torch.allclose(plain.stages(x)[0], normed.stages(x)[0])


def test_lrn_meets_published_cases() -> None:
    """Inputs and outputs from the tests of other implementations."""
    path = SHARED / "external" / "lrn_cases.npz"
    if not path.exists():
        pytest.skip("the published LRN cases are not on this machine")
    lrn = create_net("A-LRN", classes=2, crop=32, width=1 / 16).lrn
    assert lrn is not None
    with np.load(path, allow_pickle=False) as cases:
        found = lrn(torch.from_numpy(cases["x"]))
        torch.testing.assert_close(found, torch.from_numpy(cases["krizhevsky"]), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("initialise", "std"), [("gaussian", 0.01), ("gaussian-literal", 0.1)])
def test_gaussian_initialisers(initialise: str, std: float) -> None:
    net = create_net("A", classes=10, crop=64, width=1 / 2, initialise=initialise)  # type: ignore[arg-type]
    for spec in net.specs[1:]:
        layer = net.layer(spec.name)
        assert layer.weight.std().item() == pytest.approx(std, rel=0.05)
        assert layer.bias is not None
        assert not layer.bias.any()


def test_glorot_bounds_treat_an_fc_layer_as_one_matmul() -> None:
    net = create_net("A", classes=10, crop=64, width=1 / 2)
    conv, fc = net.layer("conv3_2").weight, net.layer("fc6").weight
    assert conv.abs().max().item() == pytest.approx((6 / (128 * 9 + 128 * 9)) ** 0.5, rel=0.01)
    assert fc.abs().max().item() == pytest.approx((6 / (256 * 4 + 2048)) ** 0.5, rel=0.01)


def test_a_seed_fixes_the_weights_and_layers_differ() -> None:
    one, same, other = (create_net("D", classes=3, crop=32, width=1 / 16, seed=seed) for seed in (1, 1, 2))
    for spec in one.specs:
        assert torch.equal(one.layer(spec.name).weight, same.layer(spec.name).weight)
        assert not torch.equal(one.layer(spec.name).weight, other.layer(spec.name).weight)
    assert not torch.equal(one.layer("conv3_2").weight, one.layer("conv3_3").weight)


def test_dropout_keeps_the_given_units_at_twice_their_value() -> None:
    net = create_net("A", classes=3, crop=32, width=1 / 16, seed=4)
    x = torch.randn(2, 3, 32, 32) * 50
    units = sum(net.dropout_units)
    everything = torch.ones(2, units, dtype=torch.bool)
    with torch.no_grad():
        net.train()
        all_kept = net.penultimate(x, everything)
        half = everything.clone()
        half[:, -net.dropout_units[1] // 2 :] = False
        some_kept = net.penultimate(x, half)
        cut = net.dropout_units[1] - net.dropout_units[1] // 2
        torch.testing.assert_close(some_kept[:, :cut], all_kept[:, :cut])
        assert not some_kept[:, cut:].any()
        net.eval()
        plain = net.penultimate(x)
    # Twice at fc6, twice at fc7: with the biases at 0 the ReLU passes the factor 4 through.
    torch.testing.assert_close(all_kept, 4 * plain, rtol=1e-4, atol=1e-4)


def test_unknown_initialiser() -> None:
    with pytest.raises(VerydeepError, match="unknown initialiser 'he'"):
        create_net("A", classes=2, crop=32, width=1 / 16, initialise="he")  # type: ignore[arg-type]


def test_an_empty_batch_has_an_empty_map() -> None:
    """A process of a job may have no image of a batch."""
    net = create_net("A", classes=10, crop=32, width=1 / 16)
    assert net(torch.zeros(0, 3, 32, 32)).shape == (0, 10, 1, 1)
    assert net.eval()(torch.zeros(0, 3, 64, 96)).shape == (0, 10, 2, 3)


def test_gradients_have_the_layout_of_their_weights() -> None:
    """DistributedDataParallel copies others."""
    net = create_net("A", classes=10, crop=32, width=1 / 16)
    net(torch.ones(2, 3, 32, 32)).sum().backward()
    assert all(weight.grad is not None and weight.grad.stride() == weight.stride() for weight in net.parameters())
