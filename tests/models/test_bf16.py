"""Layers in bf16 on a CPU: PyTorch's results under autocast, from weights that are prepared once."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from verydeep.models import bf16, matmul
from verydeep.models.layers import Convolution, FullyConnected
from verydeep.models.vgg import create_net

pytestmark = pytest.mark.skipif(not matmul.ONEDNN, reason="PyTorch without oneDNN")
ROUNDING = 2**-7  # bf16 has 8 significant bits; sums may be added in another order


def maps(*shape: int, seed: int = 0) -> Tensor:
    drawn = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return drawn.to(memory_format=torch.channels_last) if drawn.ndim == 4 else drawn


def in_bf16() -> torch.autocast:
    return torch.autocast("cpu", dtype=torch.bfloat16)


def assert_close(found: Tensor, right: Tensor) -> None:
    assert found.dtype == right.dtype == torch.bfloat16
    assert found.shape == right.shape
    found, right = found.float(), right.float()
    assert float((found - right).abs().max()) <= ROUNDING * float(right.abs().max())


@settings(max_examples=25, deadline=None)
@given(
    count=st.integers(1, 3),
    height=st.integers(1, 12),
    width=st.integers(1, 12),
    channels=st.sampled_from([3, 8, 64]),
    outputs=st.sampled_from([1, 16, 64]),
    side=st.sampled_from([1, 3]),
)
def test_a_convolution_equals_pytorchs(
    count: int, height: int, width: int, channels: int, outputs: int, side: int
) -> None:
    layer, x = Convolution(channels, outputs, side, padding=side // 2), maps(count, channels, height, width)
    with torch.inference_mode(), in_bf16():
        assert bf16.runs(x)
        right = F.conv2d(x, layer.weight, layer.bias, padding=side // 2)
        assert_close(layer(x), right)
        assert_close(layer.rectified(x), F.relu(right))
        if height % 2 == width % 2 == 0:
            assert_close(layer.rectified(x, pooled=True), F.max_pool2d(F.relu(right), 2))


@given(count=st.integers(1, 2), height=st.integers(1, 4), width=st.integers(1, 4), channels=st.sampled_from([1, 5, 64]))
def test_pooling_is_pytorchs_to_the_bit(count: int, height: int, width: int, channels: int) -> None:
    x = F.relu(maps(count, channels, 2 * height, 2 * width).bfloat16())
    x[0, 0, 0, 0], x[-1, -1, -1, -1] = float("inf"), -0.0
    found, right = bf16.pool(x), F.max_pool2d(x, 2)
    assert torch.equal(found, right)
    assert found.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("count", [1, 2, 5, 9])
def test_a_batch_in_parts_has_the_maps_of_its_images(count: int, threads: int) -> None:
    seen: list[int] = []

    def maps_of(part: Tensor) -> Tensor:
        assert torch.is_autocast_enabled("cpu")
        seen.append(len(part))
        return 2 * part[:, :1]

    x, before = maps(count, 3, 4, 4), torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        with torch.inference_mode(), in_bf16():
            assert torch.equal(bf16.in_parts(maps_of, x), 2 * x[:, :1])
    finally:
        torch.set_num_threads(before)
    assert sum(seen) == count
    assert max(seen) <= bf16.IMAGES


@pytest.mark.parametrize("last", [False, True], ids=["channels first", "channels last"])
@pytest.mark.parametrize(("height", "width"), [(3, 3), (3, 7), (20, 9)])
def test_an_fc_layer_equals_pytorchs(height: int, width: int, last: bool) -> None:
    layer, x = FullyConnected(8, 24, 3), maps(5, 8, height, width)
    if last:
        layer.weight.data = layer.weight.data.to(memory_format=torch.channels_last)
    with torch.inference_mode():
        assert torch.allclose(layer(x), F.conv2d(x, layer.weight, layer.bias), atol=1e-5)
        with in_bf16():
            assert_close(layer(x), F.conv2d(x, layer.weight, layer.bias))


def test_a_net_is_within_bf16_of_float32() -> None:
    """Also with LRN, with 1x1 convolutions, and maps of odd sizes."""
    for name in ("A-LRN", "C"):
        net, x = create_net(name, classes=5, crop=32, width=1 / 8).eval(), 50 * maps(2, 3, 47, 70)
        with torch.inference_mode():
            right = net(x)
            with in_bf16():
                found = net(x).float()
        apart = float((found - right).abs().max() / right.abs().max())
        assert 0 < apart < 0.05


def test_prepared_weights_follow_the_weights() -> None:
    layer, x = Convolution(8, 8, 3, padding=1), maps(1, 8, 6, 6)
    with torch.no_grad(), in_bf16():
        before = layer(x)
        assert torch.equal(layer(x), before)
        layer.weight.mul_(2)
        assert layer.bias is not None
        layer.bias.mul_(2)
        assert torch.equal(layer(x), 2 * before)  # exact: a power of two
    assert layer.weight.dtype == torch.float32


def test_precisions_in_turn_do_not_share_weights() -> None:
    layer, x = Convolution(64, 64, 3, padding=1), maps(1, 64, 8, 8)
    with torch.no_grad():
        exact = layer(x)
        with in_bf16():
            rounded = layer(x)
        assert torch.equal(layer(x), exact)
        with in_bf16():
            assert torch.equal(layer(x), rounded)
    assert rounded.dtype == torch.bfloat16


def test_gradients_are_those_of_autocast() -> None:
    ours, theirs = Convolution(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
    theirs.load_state_dict(ours.state_dict())
    x = maps(2, 8, 6, 6)
    for layer in (ours, theirs):
        with in_bf16():
            assert not bf16.runs(x)
            layer(x).float().square().sum().backward()
    assert ours.weight.grad is not None
    assert theirs.weight.grad is not None
    assert torch.equal(ours.weight.grad, theirs.weight.grad)


def test_a_used_net_is_copied_and_stored_without_its_prepared_weights() -> None:
    net, x = create_net("A", classes=3, crop=32, width=1 / 8).eval(), maps(1, 3, 32, 32)
    size = len(pickle.dumps(net))
    with torch.no_grad(), in_bf16():
        right = net(x)
        assert len(pickle.dumps(net)) == size
        assert torch.equal(copy.deepcopy(net)(x), right)
