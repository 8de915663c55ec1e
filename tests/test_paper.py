"""Figures typed from the paper, read a second time where the paper itself is at hand."""

from __future__ import annotations

import re

import pytest

from conftest import SHARED
from verydeep.config import TrainSettings
from verydeep.configurations import NET_NAMES, layers
from verydeep.recipes import settings_of_run

PAPER = SHARED / "paper" / "paper.txt"


def paper() -> str:
    if not PAPER.exists():
        pytest.skip("the paper's text is not on this machine")
    return PAPER.read_text(encoding="utf8")


def test_table_1_is_the_papers() -> None:
    """Each stage of Table 1 is a line of the paper's text, one cell a net."""
    text = paper()
    table = text[text.index("ConvNet Configuration\t") : text.index("Table 2:")]
    stages = [line.split("\t") for line in table.splitlines() if line.startswith("conv3-")]
    assert len(stages) == 5
    names = [name for name in NET_NAMES if name != "shallow-B"]
    for column, name in enumerate(names):
        cells = " ".join(stage[column] for stage in stages)
        theirs = re.findall(r"conv(\d)-(\d+)", cells)
        ours = [(str(spec.kernel), str(spec.outputs)) for spec in layers(name) if spec.stage <= 5]
        assert ours == theirs, name
        assert ("LRN" in cells) == (name == "A-LRN")
    depths = re.findall(r"(\d+) weight layers", table)
    assert [len(layers(name)) for name in names] == [int(depth) for depth in depths]


def test_shallow_b_replaces_each_pair_of_3x3_by_one_5x5() -> None:
    pairs = [spec for spec in layers("B") if spec.name.endswith("_2")]
    shallow = [spec for spec in layers("shallow-B") if spec.stage <= 5]
    assert [(spec.stage, spec.outputs) for spec in pairs] == [(spec.stage, spec.outputs) for spec in shallow]
    assert {spec.kernel for spec in shallow} == {5}


# setting, and the paper's words for it
RECIPE = [
    ("batch", 256, "The batch size was set to 256"),
    ("momentum", 0.9, "momentum to 0.9"),
    ("weight_decay", 5e-4, r"multiplier set to $5 \cdot 10^{-4}$"),
    ("lr", 1e-2, "The learning rate was initially set to 10^{-2}"),
    ("drops", 3, "the learning rate was decreased 3 times"),
    ("max_steps", 370_000, "stopped after 370K iterations (74 epochs)"),
    ("max_epochs", 74, "stopped after 370K iterations (74 epochs)"),
    ("crop", 224, "a fixed-size 224×224 RGB image"),
]


@pytest.mark.parametrize(("name", "value", "words"), RECIPE)
def test_the_recipe_is_the_papers(name: str, value: float, words: str) -> None:
    assert words in paper()
    assert getattr(TrainSettings(), name) == value
    assert getattr(settings_of_run("D/256", {}), name) == value
