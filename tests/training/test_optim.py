"""Sect. 3.1: the plateau rule by hand, and steps that equal Caffe's."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, asdict, replace

import pytest
import torch

from verydeep import create_net
from verydeep.core.settings import TrainSettings
from verydeep.training.optim import (
    Plateau,
    TrainState,
    drop_rate,
    freeze_all_but,
    learning_layers,
    momentum_buffers,
    optimiser,
)


def followed(errors: list[float], **changes: object) -> list[Plateau]:
    settings = TrainSettings(**{"patience": 2, "drops": 3, **changes})  # type: ignore[arg-type]
    states = [Plateau()]
    for epoch, error in enumerate(errors, start=1):
        states.append(states[-1].after(epoch, error, 90.0, settings))
    return states[1:]


def test_four_rates_three_drops_and_an_end() -> None:
    """After two epochs without improvement the rate drops; the plateau after the third drop ends it."""
    states = followed([50.0, 50.0, 50.0, 50.0, 50.0, 50.0, 50.0, 50.0, 50.0])
    assert [state.drops for state in states] == [0, 0, 1, 1, 2, 2, 3, 3, 3]
    assert [state.finished for state in states] == [False] * 8 + [True]


def test_improvement_starts_the_count_again_and_less_than_a_tenth_of_a_point_does_not() -> None:
    states = followed([50.0, 49.95, 49.9, 49.85, 49.82])
    assert [state.stale for state in states] == [0, 1, 0, 1, 0]
    assert states[-1].drops == 1


def test_an_equal_error_is_not_an_improvement() -> None:
    assert [state.stale for state in followed([50.0, 50.0, 49.99, 49.99], improvement=0.0, patience=9)] == [0, 1, 0, 1]


def test_no_drop_at_chance() -> None:
    assert [state.drops for state in followed([90.0] * 6)] == [0] * 6
    assert [state.drops for state in followed([90.0] * 4, hold_at_chance=False)] == [0, 0, 1, 1]
    left = followed([90.0] * 4 + [60.0] * 3)
    assert [state.drops for state in left] == [0] * 6 + [1]


def test_chance_is_left_below_nine_tenths_of_its_error() -> None:
    """Of a chance error of 90 %, that is 81 %."""
    assert [state.stale for state in followed([81.5, 81.5, 81.5])] == [0, 0, 0]
    assert [state.stale for state in followed([81.0, 81.0])] == [0, 1]
    assert [state.stale for state in followed([80.5, 80.5])] == [0, 1]


def test_the_first_error_is_the_best_and_later_ones_below_it() -> None:
    assert [state.best for state in followed([60.0, 50.0, 55.0, 49.0], drop_at=(9,))] == [60.0, 50.0, 50.0, 49.0]
    assert [state.best for state in followed([60.0, 50.0, 55.0, 49.0])] == [60.0, 50.0, 50.0, 49.0]
    assert [state.stale for state in followed([60.0, 60.0, 60.0], drop_at=(9,))] == [0, 0, 0]


def test_earlier_states_stay_as_they_were() -> None:
    with pytest.raises(FrozenInstanceError):
        Plateau().stale = 1  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        TrainState().step = 1  # type: ignore[misc]


def test_a_plateau_begins_its_count_again_after_a_drop() -> None:
    states = followed([50.0] * 5, patience=3)
    assert [(state.stale, state.drops) for state in states] == [(0, 0), (1, 0), (2, 0), (0, 1), (1, 1)]


def test_no_drops_end_at_the_first_plateau() -> None:
    assert [state.finished for state in followed([50.0] * 3, drops=0)] == [False, False, True]


def test_a_state_is_restored_from_json() -> None:
    """A new one too, and one of a checkpoint from before ``returns``; all that is counted starts at 0."""
    states = [
        TrainState(),
        TrainState(2, 3, 40, Plateau(50.0, 1, 2), (50.0, 1.5), 1, (3.5, 2, 8), ("fc8",), 4, {"a": 1}, ("x",), "y", 9.0),
    ]
    for state in states:
        values = json.loads(json.dumps(asdict(state)))
        assert TrainState.from_json(values) == state
        del values["returns"]
        assert TrainState.from_json(values) == replace(state, returns=())
    new = states[0]
    assert (new.epoch, new.batch, new.step, new.best_epoch, new.sums, new.at_once) == (0, 0, 0, 0, (0, 0, 0), 0)
    assert new.plateau == Plateau(None, 0, 0, False)


def test_drops_at_given_epochs_replace_the_rule() -> None:
    states = followed([50.0] * 6, drop_at=(2, 4))
    assert [state.drops for state in states] == [0, 1, 1, 2, 2, 2]
    assert not any(state.finished for state in states)


def caffe(gradients: list[float], rates: list[float], momentum: float, decay: float) -> float:
    """Caffe's own formula for one weight that starts at 1: V = m·V + lr·(g + wd·w); w -= V."""
    weight, velocity = 1.0, 0.0
    for gradient, rate in zip(gradients, rates, strict=True):
        velocity = momentum * velocity + rate * (gradient + decay * weight)
        weight -= velocity
    return weight


@pytest.mark.parametrize("rescale", [True, False])
def test_steps_equal_caffes_across_a_drop_only_when_buffers_are_rescaled(rescale: bool) -> None:
    net = create_net("A", classes=2, crop=32, width=1 / 64).double()
    settings = TrainSettings(net="A", lr=0.1)
    weight = net.layer("conv1_1").weight
    with torch.no_grad():
        weight.fill_(1.0)
    sgd = optimiser(net, settings)
    gradients, rates = [0.3, -0.2, 0.5, 0.1, 0.4], [0.1, 0.1, 0.01, 0.01, 0.01]
    for step, gradient in enumerate(gradients):
        if step == 2:
            drop_rate(sgd, 0.1, 0.01, rescale)
        weight.grad = torch.full_like(weight, gradient)
        sgd.step()
    expected = caffe(gradients, rates, 0.9, 5e-4)
    equal = torch.allclose(weight, torch.full_like(weight, expected), rtol=1e-12)
    assert equal is rescale


def test_biases_learn_twice_as_fast_and_do_not_decay() -> None:
    net = create_net("A", classes=2, crop=32, width=1 / 64)
    sgd = optimiser(net, TrainSettings(net="A", lr=0.1))
    bias, weight = net.layer("fc7").bias, net.layer("fc7").weight
    assert bias is not None
    before = weight.detach().clone()
    with torch.no_grad():
        bias.fill_(1.0)
    bias.grad, weight.grad = torch.ones_like(bias), torch.ones_like(weight)
    sgd.step()
    torch.testing.assert_close(bias, torch.full_like(bias, 1 - 2 * 0.1))
    torch.testing.assert_close(weight, before - 0.1 * (1 + 5e-4 * before))
    assert len(momentum_buffers(sgd)) == 2 * len(net.specs)


def test_trained_layers() -> None:
    net = create_net("A", classes=2, crop=32, width=1 / 64)
    names = [spec.name for spec in net.specs]
    for learn, expected in (("all", names), ("fc", ["fc6", "fc7", "fc8"]), ("last", ["fc8"])):
        settings = TrainSettings(net="A", learn=learn)  # type: ignore[arg-type]
        assert learning_layers(net, settings, ["fc8"], head=False) == expected
    assert learning_layers(net, TrainSettings(net="A"), ["fc6", "fc8"], head=True) == ["fc6", "fc8"]
    freeze_all_but(net, ["fc8"])
    assert {name for name, parameter in net.named_parameters() if parameter.requires_grad} == {"fc8.weight", "fc8.bias"}
