"""Sect. 3.2: the protocols' grammar, places of crops and cost."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verydeep.core.errors import VerydeepError
from verydeep.evaluation.protocols import (
    METHODS,
    BoxProtocol,
    Protocol,
    check_protocol,
    parse_box_protocol,
    parse_protocol,
)
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


def test_equal_protocols_are_one_key() -> None:
    assert len({parse_protocol("dense@256"), parse_protocol("dense@256:mirror"), parse_protocol("dense@384")}) == 2
    assert len({parse_box_protocol("dense@256", 32), parse_box_protocol("dense@256", 224)}) == 1


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
    assert parse_protocol("ten@256").corners(401, 256, 224)[0] == (72, 0)  # half of 145, down to whole pixels
    assert parse_protocol("ten@256").corners(256, 401, 224)[0] == (0, 72)


def test_inconsistent_protocols_are_refused() -> None:
    with pytest.raises(VerydeepError, match="softmax-first applies to dense and both only"):
        parse_protocol("crops@64:softmax-first")
    with pytest.raises(VerydeepError, match="has a scale twice"):
        parse_protocol("dense@256,256")
    with pytest.raises(VerydeepError, match=r"Q = 200 in dense@256,200 is below the net's crop of 224"):
        check_protocol(parse_protocol("dense@256,200"), 224)


def test_scales_are_bounded_by_the_crop_and_the_limit() -> None:
    """Both bounds are allowed themselves; the largest Q counts, wherever it is in the list."""
    check_protocol(parse_protocol("dense@256,224"), 224)
    assert parse_protocol("dense@8192").scales == (8192,)
    for text in ("dense@8193", "dense@8193,256"):
        with pytest.raises(VerydeepError, match=f"Q = 8193 in '{text}' is above the limit of 8192 pixels"):
            parse_protocol(text)


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


# A localisation protocol of a net of crop 32, and what it is; None where it is refused.
BOX_GRAMMAR = [
    ("dense@32,8192", BoxProtocol("dense", (32, 8192))),
    ("dense@31", None),
    ("dense@8193", None),
    ("dense@64,96", BoxProtocol("dense", (64, 96))),
    ("centre@64", BoxProtocol("centre", (64,))),
    ("dense@64:offsets:mirror", BoxProtocol("dense", (64,), True, True)),
    ("dense@64:mirror", BoxProtocol("dense", (64,), True)),
    ("crops@64:mirror", BoxProtocol("crops", (64,), True)),
    ("ten@64", None),
    ("crops@64:offsets", None),
    ("dense@", None),
    ("dense@64:mirror:mirror", None),
    ("centre@64:offsets", None),
    ("dense@64,64", None),
    ("dense@16", None),
    ("dense@9000", None),
]


@pytest.mark.parametrize(("text", "expected"), BOX_GRAMMAR)
def test_box_protocols(text: str, expected: BoxProtocol | None) -> None:
    if expected is None:
        with pytest.raises(VerydeepError, match=r"write centre@Q, dense@Q|each Q once, from the net's crop of 32"):
            parse_box_protocol(text, 32)
    else:
        assert parse_box_protocol(text, 32) == expected
        assert parse_box_protocol(str(expected), 32) == expected
        assert [part.scales for part in expected.parts()] == [(scale,) for scale in sorted(expected.scales)]


def test_the_centre_crop_and_dense_by_hand() -> None:
    """An odd remainder is halved downwards; dense has no crops."""
    assert parse_protocol("centre@256").corners(257, 342, 224) == [(16, 59)]
    assert parse_protocol("dense@256").corners(256, 341, 224) == []


def test_box_protocols_have_the_crops_of_evaluation() -> None:
    for name, crops in (("centre@48", 1), ("crops@48", 25), ("dense@48", 0)):
        corners = parse_box_protocol(name, 32).corners(48, 72, 32)
        assert corners == parse_protocol(name).corners(48, 72, 32)
        assert len(corners) == crops


# A protocol, and how many pixels of a 256 x 341 image it shows a net of crop 224.
SHOWN = [
    ("centre@256", 224 * 224),
    ("centre@256:mirror", 2 * 224 * 224),
    ("ten@256", 10 * 224 * 224),
    ("crops@256", 50 * 224 * 224),
    ("dense@256", 2 * 256 * 341),
    ("dense@256:no-mirror", 256 * 341),
    ("both@256", 2 * 256 * 341 + 50 * 224 * 224),
]


@pytest.mark.parametrize(("text", "pixels"), SHOWN)
def test_the_pixels_that_a_net_is_shown(text: str, pixels: int) -> None:
    assert parse_protocol(text).shown_pixels(224, 256, 341) == pixels


def test_costs_of_mirror_images_of_both_and_of_softmax_first() -> None:
    """The mirror image doubles a cost, ``both`` is a sum, and softmax-first applies fc8 to each cell of the map."""

    def cost(text: str) -> int:
        return parse_protocol(text).multiply_adds(layers("A"), 224, 256, 341, "up")

    last = layers("A")[-1]
    cells = (8 - 6) * (11 - 6)  # of fc6 on maps of 256 / 32 and 341 / 32, rounded up
    assert cost("dense@256") == 2 * cost("dense@256:no-mirror")
    assert cost("both@256") == cost("dense@256") + cost("crops@256")
    assert cost("crops@256") == 25 * cost("centre@256:mirror")
    first = cost("dense@256:no-mirror:softmax-first") - cost("dense@256:no-mirror")
    assert first == (cells - 1) * last.inputs * last.outputs


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
