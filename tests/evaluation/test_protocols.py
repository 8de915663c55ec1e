"""Sect. 3.2: the protocols' grammar, places of crops and cost."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verydeep.core.errors import VerydeepError
from verydeep.evaluation.protocols import METHODS, Protocol, check_protocol, parse_protocol
from verydeep.models.architectures import layers, multiply_adds, net_facts

NAMES = (
    *("dense@64,73", "centre@64", "dense@64:softmax-first", "crops@256,384,512", "both@256", "ten@256"),
    *("dense@256:no-mirror", "centre@256:mirror", "both@256,384:no-mirror:softmax-first"),
)


@pytest.mark.parametrize("name", NAMES)
def test_names_round_trip(name: str) -> None:
    assert str(parse_protocol(name)) == name


def test_the_mirror_is_on_except_for_centre() -> None:
    assert {method: parse_protocol(f"{method}@256").mirror for method in METHODS} == {
        **dict.fromkeys(("dense", "crops", "both", "ten"), True),
        "centre": False,
    }
    assert str(parse_protocol("dense@256:mirror")) == "dense@256"  # one name for one thing
    assert str(parse_protocol("dense@256:softmax-first:no-mirror")) == "dense@256:no-mirror:softmax-first"
    assert str(parse_protocol("centre@256:no-mirror")) == "centre@256"


@pytest.mark.parametrize(
    "text",
    [
        *("dense", "dense@", "dense@x", "Dense@256", "dense@256;384", "sparse@256", "dense@-1", "dense@256:flip"),
        *("dense@256:mirror:no-mirror", "dense@256:no-mirror:no-mirror", "crop@256", "dense@256,", ""),
    ],
)
def test_invalid_names_show_the_grammar(text: str) -> None:
    with pytest.raises(VerydeepError, match=r"write METHOD@Q or METHOD@Q,Q,… with METHOD dense, crops, both"):
        parse_protocol(text)


def test_endless_numbers_are_refused() -> None:
    with pytest.raises(VerydeepError, match="is not a protocol"):
        parse_protocol("dense@" + "1" * 5000)


def test_ten_crops_are_of_the_central_square() -> None:
    """Krizhevsky's photos were cut to their central 256x256 pixels first."""
    assert parse_protocol("ten@256").corners(256, 400, 224) == [(0, 72), (0, 104), (32, 72), (32, 104), (16, 88)]
    assert parse_protocol("ten@256").corners(400, 256, 224)[0] == (72, 0)


def test_inconsistent_protocols_are_refused() -> None:
    with pytest.raises(VerydeepError, match="softmax-first applies to dense and both only"):
        parse_protocol("crops@64:softmax-first")
    with pytest.raises(VerydeepError, match="has a scale twice"):
        parse_protocol("dense@256,256")
    with pytest.raises(VerydeepError, match=r"Q = 200 in dense@256,200 is below the net's crop of 224"):
        check_protocol(parse_protocol("dense@256,200"), 224)


def test_parts_are_of_one_method_and_scale() -> None:
    def names(text: str) -> list[str]:
        return [str(part) for part in parse_protocol(text).parts()]

    assert names("dense@512,256") == ["dense@256", "dense@512"]
    assert names("both@256,384:no-mirror:softmax-first") == [
        *("crops@256:no-mirror", "crops@384:no-mirror"),
        *("dense@256:no-mirror:softmax-first", "dense@384:no-mirror:softmax-first"),
    ]


def test_fifty_crops_per_scale_touch_the_edges() -> None:
    corners = parse_protocol("crops@256").corners(256, 341, 224)
    assert len(set(corners)) == 25  # and as many of the mirror image
    assert {top for top, _ in corners} == {0, 8, 16, 24, 32}
    assert {left for _, left in corners} == {0, 29, 59, 88, 117}  # quarters of 117: 29.25, 58.5, 87.75


@given(st.integers(0, 2000), st.integers(0, 2000), st.sampled_from(("crops", "ten", "centre", "both")))
def test_crops_stay_inside(down: int, across: int, method: str) -> None:
    height, width = 224 + down, 224 + across
    corners = parse_protocol(f"{method}@224").corners(height, width, 224)
    assert len(corners) == {"crops": 25, "both": 25, "ten": 5, "centre": 1}[method]
    assert all(0 <= top <= down and 0 <= left <= across for top, left in corners)
    if method in ("crops", "both"):
        assert {(0, 0), (0, across), (down, 0), (down, across)} <= set(corners)


@given(st.integers(0, 500))
def test_the_grid_is_regular(room: int) -> None:
    lefts = sorted({left for _, left in Protocol("crops", (224,), True).corners(224, 224 + room, 224)})
    steps = [after - before for before, after in itertools.pairwise(lefts)]
    assert max(steps, default=0) - min(steps, default=0) <= 1


def test_one_crop_costs_what_the_net_costs() -> None:
    for name in ("A", "C", "E"):
        facts = net_facts(name)
        assert multiply_adds(facts.layers, 224, 224) == facts.multiply_adds
        assert multiply_adds(facts.layers, 224, 224, "down") == facts.multiply_adds


def test_dense_at_three_scales_costs_a_fifth_of_150_crops() -> None:
    """Net D on 4:3 photos, in 10^9 multiply-adds, by hand from the layers' shapes: 28.2, 67.6 and 127 a pass."""
    found = layers("D")
    dense = parse_protocol("dense@256,384,512:no-mirror")
    cost = [part.multiply_adds(found, 224, q, round(q * 4 / 3), "up") / 1e9 for part, q in _each_scale(dense)]
    assert cost == pytest.approx([28.2, 67.6, 127], rel=0.01)
    assert 2 * sum(cost) == pytest.approx(446, rel=0.01)
    crops = sum(
        part.multiply_adds(found, 224, q, round(q * 4 / 3), "up") / 1e9
        for part, q in _each_scale(parse_protocol("crops@256,384,512"))
    )
    assert crops == pytest.approx(2320, rel=0.01)
    assert crops / (2 * sum(cost)) == pytest.approx(5.2, rel=0.01)


def _each_scale(protocol: Protocol) -> list[tuple[Protocol, int]]:
    return [(part, part.scales[0]) for part in protocol.parts()]
