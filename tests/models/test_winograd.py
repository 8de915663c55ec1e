"""Winograd convolution: equal to the direct one, forward and backward, up to rounding; used only where it is faster."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from verydeep.core.compiled import library
from verydeep.core.settings import TrainSettings
from verydeep.models import matmul, winograd_compiled, winograd_matmuls
from verydeep.models.layers import Convolution
from verydeep.models.vgg import create_net
from verydeep.models.winograd import COMPILED, MATMULS, Algorithm, from_transformed, pays
from verydeep.training.optim import optimiser

LAST = torch.channels_last


def last(net: Any) -> Any:
    """A layer or net with its weights channels last."""
    return net.to(memory_format=LAST)


def maps(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(memory_format=LAST)


def apart(found: Tensor, right: Tensor) -> float:
    """The largest difference, relative to the largest value."""
    found, right = found.detach(), right.detach()
    return float((found - right).abs().max() / right.abs().max())


FORMS = pytest.mark.parametrize("form", [COMPILED, MATMULS], ids=["compiled", "matmuls"])


def need(form: Algorithm) -> None:
    """Skips a test of the compiled form where there is no compiler."""
    if form is COMPILED and not winograd_compiled.supports(torch.empty(64, 64, 3, 3)):
        pytest.skip("no C compiler, or a processor without AVX2")


@FORMS
@settings(max_examples=25, deadline=None)
@given(
    count=st.integers(1, 4),
    height=st.integers(1, 19),
    width=st.integers(1, 19),
    channels=st.sampled_from([32, 64, 96]),
    outputs=st.sampled_from([32, 64]),
    piece=st.sampled_from([1, 20_000, 10**9]),
)
def test_equals_direct_convolution(
    form: Algorithm, count: int, height: int, width: int, channels: int, outputs: int, piece: int
) -> None:
    """In float64 by the definition, with all gradients; maps of any size, in pieces of any size."""
    need(form)
    x, weight = maps(count, channels, height, width), maps(outputs, channels, 3, 3, seed=1)
    bias, gradient = maps(outputs, 1, 1, 1, seed=2).flatten(), maps(count, outputs, height, width, seed=3)
    right = [part.double().requires_grad_() for part in (x, weight, bias)]
    expected = nn.functional.conv2d(right[0], right[1], right[2], padding=1)
    expected.backward(gradient.double())  # type: ignore[no-untyped-call]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(winograd_matmuls, "PIECE_BYTES", piece)
        patch.setattr(winograd_compiled, "MOST_TILES", 1 + piece % 7)
        assert apart(form.convolve(x, form.transformed(weight), bias), expected.detach()) < 3e-5
        turned = form.transformed(weight.flip(2, 3).transpose(0, 1))
        of_x, of_weight = right[0].grad, right[1].grad
        assert of_x is not None
        assert of_weight is not None
        assert apart(form.convolve(gradient, turned, None), of_x) < 3e-5
        assert apart(from_transformed(form.weight_gradient(x, gradient)), of_weight) < 3e-5


@FORMS
@settings(max_examples=20, deadline=None)
@given(
    count=st.integers(1, 4),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    outputs=st.sampled_from([32, 64]),
    threads=st.integers(1, 3),
    pooled=st.booleans(),
)
def test_relu_and_pooling_of_a_piece(
    form: Algorithm, count: int, height: int, width: int, outputs: int, threads: int, pooled: bool
) -> None:
    """In any number of threads, ReLU and 2x2 pooling of each piece are those of the whole map."""
    need(form)
    size = (2 * height, 2 * width) if pooled else (height, width)
    x, weight, bias = maps(count, 32, *size), maps(outputs, 32, 3, 3, seed=1), maps(outputs, 1, 1, 1, seed=2).flatten()
    right = nn.functional.conv2d(x.double(), weight.double(), bias.double(), padding=1)
    expected = nn.functional.max_pool2d(right.relu(), 2) if pooled else right.relu()
    torch.set_num_threads(threads)
    try:
        result = form.convolve(x, form.transformed(weight), bias, relu=True, pooled=pooled)
    finally:
        torch.set_num_threads(1)
    assert float((result - expected).abs().max() / right.abs().max()) < 3e-5
    assert result.is_contiguous(memory_format=LAST)


def test_compiled_bits_depend_on_no_batch_piece_or_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each output is a sum in the order of the channels; so is each weight's gradient, over tiles, in any threads."""
    need(COMPILED)
    x, weight, bias = maps(5, 64, 9, 14), maps(96, 64, 3, 3, seed=1), maps(96, 1, 1, 1, seed=2).flatten()
    gradient, results, gradients = maps(5, 96, 9, 14, seed=3), [], []
    for threads, most in ((1, 48), (2, 48), (3, 5), (2, 10**6)):
        monkeypatch.setattr(winograd_compiled, "MOST_TILES", most)
        torch.set_num_threads(threads)
        try:
            weights = COMPILED.transformed(weight)
            results.append(COMPILED.convolve(x, weights, bias))
            one_by_one = [COMPILED.convolve(image[None].contiguous(memory_format=LAST), weights, bias) for image in x]
        finally:
            torch.set_num_threads(1)
        results.append(torch.cat(one_by_one))
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        try:
            gradients.append(COMPILED.weight_gradient(x, gradient))
        finally:
            torch.set_num_threads(1)
    assert all(torch.equal(results[0], other) for other in results[1:])
    assert all(torch.equal(gradients[0], other) for other in gradients[1:])


@pytest.mark.slow
def test_compiled_for_vectors_of_16(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a processor with AVX-512: the compiler builds these vectors of smaller ones elsewhere."""
    need(COMPILED)
    monkeypatch.setenv("CC", "cc -DLANES=16")
    monkeypatch.setattr(winograd_compiled, "library", library.__wrapped__)
    winograd_compiled.c_functions.cache_clear()
    try:
        assert winograd_compiled.c_functions().panel() == 32
        x, weight, gradient = maps(2, 64, 9, 14), maps(96, 64, 3, 3, seed=1), maps(2, 96, 9, 14, seed=3)
        results = [
            (form.convolve(x, form.transformed(weight), None), form.weight_gradient(x, gradient))
            for form in (COMPILED, MATMULS)
        ]
        assert all(apart(mine, other) < 1e-5 for mine, other in zip(*results, strict=True))
    finally:
        winograd_compiled.c_functions.cache_clear()


@FORMS
def test_nan_and_infinity_reach_the_output(form: Algorithm) -> None:
    """Through ReLU and pooling too: a broken net must be seen."""
    need(form)
    x, weight = maps(1, 32, 8, 8), maps(32, 32, 3, 3, seed=1)
    x[0, 3, 2, 2] = torch.nan
    result = form.convolve(x, form.transformed(weight), None, relu=True, pooled=True)
    assert result[0, :, 1, 1].isnan().all()


def test_gradients_reach_maps_weights_and_bias() -> None:
    """Through ReLU in place, as in the nets; close to PyTorch's own."""
    ours, theirs = last(Convolution(128, 136, 3, padding=1)), nn.Conv2d(128, 136, 3, padding=1)
    theirs.load_state_dict(ours.state_dict())
    x, y = maps(2, 128, 14, 9).requires_grad_(), maps(2, 128, 14, 9).requires_grad_()
    assert pays(x, ours.weight)
    far = (
        10 * (torch.rand(2, 136, 14, 9, generator=torch.Generator().manual_seed(5)) - 0.5).sign()
    )  # no sign is doubtful
    for layer, given_maps in ((ours, x), (theirs, y)):
        nn.functional.relu(layer(given_maps) + far, inplace=True).square().sum().backward()  # type: ignore[no-untyped-call]
    nn.functional.relu(ours(x), inplace=True)  # what autograd would refuse of a view
    for mine, other in ((x.grad, y.grad), (ours.weight.grad, theirs.weight.grad)):
        assert mine is not None
        assert other is not None
        assert float((mine - other).norm() / other.norm()) < 1e-5


def test_second_derivatives_raise_an_error() -> None:
    """They would be without the convolution's own part."""
    layer, x = last(Convolution(64, 64, 3, padding=1)), maps(1, 64, 8, 8).requires_grad_()
    (first,) = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()  # type: ignore[no-untyped-call]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_traced_nets_hold_a_convolution() -> None:
    """A program that records PyTorch's operations sees none of ours, and would store the result as a constant."""
    layer = last(Convolution(64, 64, 3, padding=1)).requires_grad_(False)
    traced = torch.jit.trace(layer, maps(1, 64, 8, 8), check_trace=False)  # type: ignore[no-untyped-call]
    exported = torch.export.export(layer, (maps(1, 64, 8, 8),)).module()
    other = maps(1, 64, 8, 8, seed=1)
    for recorded in (traced, exported):
        assert apart(recorded(other), layer(other)) < 3e-5


def test_used_where_faster() -> None:
    wide = maps(256, 256, 3, 3)
    assert pays(maps(1, 256, 14, 14), wide)
    assert not pays(maps(1, 256, 14, 14).contiguous(), wide)
    assert not pays(maps(1, 256, 2, 2), wide)  # a tile would be empty but for a corner
    assert pays(maps(1, 64, 14, 14), maps(64, 64, 3, 3))
    assert not pays(maps(1, 32, 14, 14), maps(64, 32, 3, 3))
    assert not pays(maps(1, 256, 14, 14).double(), wide.double())
    assert not pays(maps(0, 256, 14, 14), wide)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not pays(maps(1, 256, 14, 14), wide)


def test_changed_weights_are_transformed_again() -> None:
    """By an optimiser's step, by loading others; and a copy of a layer has its own."""
    layer, x = last(Convolution(128, 128, 3, padding=1)), maps(1, 128, 8, 8)
    with torch.no_grad():
        first = layer(x)
        other = copy.deepcopy(layer)
        layer.weight.mul_(2)
        layer.bias.mul_(2)
        assert apart(layer(x), 2 * first) < 1e-5
        assert apart(other(x), first) < 1e-5
        layer.load_state_dict(other.state_dict())
        assert apart(layer(x), first) < 1e-5
    with torch.inference_mode():
        fresh = last(Convolution(128, 128, 3, padding=1))
        twice = [fresh(x), fresh(x)]
    assert torch.equal(*twice)


def test_training_between_evaluations_clears_the_cache() -> None:
    """Fused SGD changes weights without changing their version."""
    settings_, x = TrainSettings(net="A", crop=64, lr=1e-2), 60 * maps(2, 3, 64, 64)
    net = last(create_net("A", 3, 64, 0.5))
    sgd = optimiser(net, settings_)
    for _ in range(2):
        net.train(False)
        with torch.inference_mode():
            before = net(x)
        net.train()
        nn.functional.cross_entropy(net(x).flatten(1), torch.tensor([1, 2])).backward()  # type: ignore[no-untyped-call]
        sgd.step()
        net.eval()
        with torch.inference_mode():
            fresh = copy.deepcopy(net)
            assert torch.equal(net(x), fresh(x))
            assert apart(net(x), before) > 1e-3


def test_a_3x3_fc_layer_has_no_padding() -> None:
    """fc6 at a crop of 96: it has no padding, so its map is smaller than its input."""
    net = create_net("A", 3, 96, 0.5).eval()
    with torch.inference_mode():
        assert last(net).activations(60 * maps(1, 3, 256, 256), "fc6").shape[2:] == (6, 6)
    layer = last(Convolution(128, 128, 3))
    with torch.inference_mode():
        assert layer(maps(1, 128, 9, 9)).shape[2:] == (7, 7)


@pytest.mark.parametrize("mode", ["asked", "learning"])
def test_a_whole_net(mode: str) -> None:
    """Net D of full width at a crop of 64, both ways; its gradients too."""
    net, x = create_net("D", 10, 64).eval(), 60 * maps(2, 3, 64, 64)
    nets = [net, copy.deepcopy(net)]
    used = [last(net)(x), nets[1](x.contiguous())]
    assert apart(used[0], used[1]) < 1e-4
    if mode == "learning":
        for one in used:
            nn.functional.cross_entropy(one.flatten(1), torch.tensor([1, 2])).backward()  # type: ignore[no-untyped-call]
        for mine, other in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
            assert mine.grad is not None
            assert other.grad is not None
            assert float((mine.grad - other.grad).norm()) < 1e-2 * float(other.grad.norm())
    else:
        with torch.inference_mode():
            assert apart(net(x), used[1]) < 1e-4


@pytest.mark.parametrize("channels", [4, 128])
def test_matmuls_of_both_libraries_are_equal(monkeypatch: pytest.MonkeyPatch, channels: int) -> None:
    """Each processor uses one of them; this compares those that are here."""
    x, weight = maps(2, channels, 9, 14), maps(channels, channels, 3, 3, seed=1)
    bias, rows = maps(channels, 1, 1, 1).flatten(), x[0, :, 0].T
    results = []
    for onednn in (False, matmul.ONEDNN):
        monkeypatch.setattr(matmul, "ONEDNN", onednn)
        monkeypatch.setattr(matmul, "ONEDNN_PRODUCTS", onednn)
        results.append(MATMULS.convolve(x, MATMULS.transformed(weight), bias))
        assert apart(matmul.product(rows, weight[:, :, 1, 1].T), rows @ weight[:, :, 1, 1].T) < 1e-5
        with torch.inference_mode():
            assert apart(matmul.linear(rows, weight[:, :, 1, 1], bias), rows @ weight[:, :, 1, 1].T + bias) < 1e-5
    assert apart(results[0], results[1]) < 1e-5
