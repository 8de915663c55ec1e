"""Table 1 and Table 2: layers, parameters and multiply-adds."""

import pytest

from verydeep.core.errors import VerydeepError
from verydeep.models.architectures import NET_NAMES, layers, net_facts

# name, weight layers (Table 1), parameters and multiply-adds (arithmetic done apart from this code)
EXACT = [
    ("A", 11, 132_863_336, 7_609_090_048),
    ("A-LRN", 11, 132_863_336, 7_609_090_048),
    ("B", 13, 133_047_848, 11_308_466_176),
    ("C", 16, 133_638_952, 11_770_888_192),
    ("D", 16, 138_357_544, 15_470_264_320),
    ("E", 19, 143_667_240, 19_632_062_464),
    ("shallow-B", 8, 134_503_528, 9_356_017_664),
]
TABLE_2 = {"A": 133, "A-LRN": 133, "B": 133, "C": 134, "D": 138, "E": 144}


@pytest.mark.parametrize(("name", "depth", "parameters", "multiply_adds"), EXACT)
def test_counts(name: str, depth: int, parameters: int, multiply_adds: int) -> None:
    facts = net_facts(name)
    assert (facts.weight_layers, facts.parameters, facts.multiply_adds) == (depth, parameters, multiply_adds)


def test_parameters_of_table_2() -> None:
    assert tuple(row[0] for row in EXACT) == NET_NAMES
    for name, millions in TABLE_2.items():
        assert round(net_facts(name).parameters / 1e6) == millions


def test_receptive_field_of_d_is_404_pixels() -> None:
    assert net_facts("D").receptive_field == 404


def test_receptive_fields_agree_between_b_and_shallow_b() -> None:
    """Two 3x3 convolutions see what one 5x5 sees: why Sect. 4.1 compares these nets."""
    assert net_facts("B").receptive_field == net_facts("shallow-B").receptive_field


def test_width_narrows_hidden_layers_only() -> None:
    thin = layers("D", classes=7, crop=64, width=1 / 8)
    assert [spec.outputs for spec in thin] == [8, 8, 16, 16, 32, 32, 32, 64, 64, 64, 64, 64, 64, 512, 512, 7]
    assert thin[0].inputs == 3
    assert thin[-3].kernel == 2


@pytest.mark.parametrize("crop", [0, 16, 33, 100, 223])
def test_crop_must_be_a_multiple_of_32(crop: int) -> None:
    with pytest.raises(VerydeepError, match=r"must be a multiple of 32.*use \d+"):
        net_facts("A", crop=crop)


def test_unknown_net_suggests_the_nearest() -> None:
    with pytest.raises(VerydeepError, match="did you mean A-LRN"):
        net_facts("ALRN")
