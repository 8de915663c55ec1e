"""Figures typed from the paper, typed a second time here, and read where the paper itself is at hand."""

from __future__ import annotations

import json
import re

import pytest

from conftest import SHARED
from verydeep.core.config import Scale
from verydeep.core.settings import TrainSettings
from verydeep.models.architectures import NET_NAMES, layers
from verydeep.paper.rows.row import experiment, find_table
from verydeep.paper.tables import table_rows
from verydeep.training.recipes import papers_start, settings_of_run

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


# Tables 2 to 7 typed a second time, from the page and not from the package: the cells of each row as printed.
# A dash is the paper's; ~ is a blank, or a cell that the one beside it spans.
SECOND = {
    "3": """
        A | 256 | 256 | 29.6 | 10.4
        A-LRN | 256 | 256 | 29.7 | 10.5
        B | 256 | 256 | 28.7 | 9.9
        C | 256 | 256 | 28.1 | 9.4
        C | 384 | 384 | 28.1 | 9.3
        C | [256;512] | 384 | 27.3 | 8.8
        D | 256 | 256 | 27.0 | 8.8
        D | 384 | 384 | 26.8 | 8.7
        D | [256;512] | 384 | 25.6 | 8.1
        E | 256 | 256 | 27.3 | 9.0
        E | 384 | 384 | 26.9 | 8.7
        E | [256;512] | 384 | 25.5 | 8.0
    """,
    "4": """
        B | 256 | 224,256,288 | 28.2 | 9.6
        C | 256 | 224,256,288 | 27.7 | 9.2
        C | 384 | 352,384,416 | 27.8 | 9.2
        C | [256;512] | 256,384,512 | 26.3 | 8.2
        D | 256 | 224,256,288 | 26.6 | 8.6
        D | 384 | 352,384,416 | 26.5 | 8.6
        D | [256;512] | 256,384,512 | 24.8 | 7.5
        E | 256 | 224,256,288 | 26.9 | 8.7
        E | 384 | 352,384,416 | 26.7 | 8.6
        E | [256;512] | 256,384,512 | 24.8 | 7.5
    """,
    "5": """
        D | dense | 24.8 | 7.5
        D | multi-crop | 24.6 | 7.5
        D | multi-crop & dense | 24.4 | 7.2
        E | dense | 24.8 | 7.5
        E | multi-crop | 24.6 | 7.4
        E | multi-crop & dense | 24.4 | 7.1
    """,
    "6": """
        submission | 24.7 | 7.5 | 7.3
        dense | 24.0 | 7.1 | 7.0
        crops | 23.9 | 7.2 | -
        both | 23.7 | 6.8 | 6.8
    """,
    "7": """
        VGG (2 nets, multi-crop & dense eval.) | 23.7 | 6.8 | 6.8
        VGG (1 net, multi-crop & dense eval.) | 24.4 | 7.1 | 7.0
        VGG (ILSVRC submission, 7 nets, dense eval.) | 24.7 | 7.5 | 7.3
        GoogLeNet (1 net) | - | 7.9 | ~
        GoogLeNet (7 nets) | - | 6.7 | ~
        MSRA (11 nets) | - | - | 8.1
        MSRA (1 net) | 27.9 | 9.1 | 9.1
        Clarifai (multiple nets) | - | - | 11.7
        Clarifai (1 net) | - | - | 12.5
        Zeiler & Fergus (6 nets) | 36.0 | 14.7 | 14.8
        Zeiler & Fergus (1 net) | 37.5 | 16.0 | 16.1
        OverFeat (7 nets) | 34.0 | 13.2 | 13.6
        OverFeat (1 net) | 35.7 | 14.2 | -
        Krizhevsky et al. (5 nets) | 38.1 | 16.4 | 16.4
        Krizhevsky et al. (1 net) | 40.7 | 18.2 | -
    """,
}
ERROR_COLUMNS = {"3": 2, "4": 2, "5": 2, "6": 3, "7": 3}


def second(name: str) -> list[tuple[list[str], list[float | None]]]:
    """The cells left of the errors, and the errors, of each row of the second typing."""
    lines = [[cell.strip() for cell in line.split("|")] for line in SECOND[name].strip().splitlines()]
    split = -ERROR_COLUMNS[name]
    return [(line[:split], [None if cell in "-~" else float(cell) for cell in line[split:]]) for line in lines]


@pytest.mark.parametrize("name", SECOND)
def test_both_typings_agree(name: str) -> None:
    rows = table_rows(name, [])
    assert len(rows) == len(second(name))
    for row, (cells, errors) in zip(rows, second(name), strict=True):
        paper = row["paper"]
        assert [paper["top1_val"], paper["top5_val"], paper["top5_test"]][: len(errors)] == errors, row["row"]
        if name == "6":
            assert row["row"] == f"table6/{cells[0]}"
        else:
            assert list(row["cells"].values()) == cells, row["row"]
        assert row["measured"] is None


def test_figures_that_span_columns_say_so() -> None:
    notes = {row["row"]: row["paper"].get("note", "") for row in table_rows("7", [])}
    spanning = [name for name, note in notes.items() if "across the val and the test column" in note]
    assert spanning == ["table7/GoogLeNet-1-net", "table7/GoogLeNet-7-nets"]


@pytest.mark.parametrize("name", SECOND)
def test_the_second_typing_is_the_papers_text(name: str) -> None:
    """Every error of a table, in order, is what the paper's text has between its caption and the next."""
    text = paper()
    table = text[text.index(f"Table {name}: **") :]
    printed = re.findall(r"(?<=\t)(\d+\.\d|-)(?=\t|$)", table.partition("\n\n5 CONCLUSION")[0], re.MULTILINE)
    typed = [cell.strip() for line in SECOND[name].strip().splitlines() for cell in line.split("|")]
    errors = [cell for cell in typed if re.fullmatch(r"\d+\.\d|-", cell)]
    assert printed[: len(errors)] == errors


def test_the_runs_of_the_rows_are_the_papers() -> None:
    """Sect. 3.2's and 4's rules for Q, read from each row's own cells."""
    for name in ("3", "4"):
        for row in find_table(name).rows:
            net, scale, q = row.cells
            (test,) = row.tests
            assert test.run == f"{net}/{scale.strip('[]').replace(';', '-')}"
            assert test.protocol == f"dense@{q}"
            fixed = Scale.parse(test.run.partition("/")[2])
            middle = fixed.test_scale
            several = (
                [fixed.smallest, middle, fixed.largest] if fixed.smallest < fixed.largest else [middle - 32, middle]
            )
            several = several if len(several) == 3 else [*several, middle + 32]
            assert q == (str(middle) if name == "3" else ",".join(map(str, several)))


def test_the_submission_is_the_papers_seven_nets() -> None:
    """Table 6's first row as it is printed, net/S/Q; only the FC layers of its jittered D were trained (Sect. 4.4)."""
    printed = (
        "(D/256/224,256,288), (D/384/352,384,416), (D/[256;512]/256,384,512) "
        "(C/256/224,256,288), (C/384/352,384,416) (E/256/224,256,288), (E/384/352,384,416)"
    )
    (row,) = [row for row in find_table("6").rows if row.name == "table6/submission"]
    shown = [
        f"({test.run.replace('256-512-fc', '[256;512]')}/{test.protocol.removeprefix('dense@')})" for test in row.tests
    ]
    assert re.findall(r"\([^)]*\)", printed) == shown
    assert row.tests[2].run == "D/256-512-fc"
    assert papers_start("D/256-512-fc") == "D/384"


def test_tables_1_and_2_stand_beside_what_the_nets_are() -> None:
    for row in table_rows("1", []):
        assert row["paper"]["weight_layers"] == row["measured"]["weight_layers"], row["row"]
        assert re.findall(r"conv\d-\d+", " ".join(row["paper"]["stages"])) == row["measured"]["layers"]
    printed = {"A": 133, "A-LRN": 133, "B": 133, "C": 134, "D": 138, "E": 144}
    for row in table_rows("2", []):
        assert row["paper"]["parameters_millions"] == printed[row["cells"]["network"]]
        assert round(row["measured"]["parameters"] / 1e6) == row["paper"]["parameters_millions"]


PUBLISHED = SHARED / "external" / "published_errors.json"


def test_released_models_stand_beside_the_published_figures() -> None:
    """Oxford's weights on ILSVRC's val set: the project's facts, and where it is at hand the list of sources."""
    found = {row["row"]: (row["paper"]["top1_val"], row["paper"]["top5_val"]) for row in table_rows("released", [])}
    assert found["released/D/centre"] == (28.5, 9.9)
    assert found["released/E/centre"] == (28.7, 9.9)
    top5 = {"D/single-scale": 8.1, "E/single-scale": 8.0, "D/dense": 7.5, "E/dense": 7.5, "D+E/dense": 7.1}
    assert {name: found[f"released/{name}"][1] for name in top5} == top5
    if not PUBLISHED.exists():
        pytest.skip("the list of published errors is not on this machine")
    published = json.loads(PUBLISHED.read_text())
    names = {
        "dense Q=384": "single-scale",
        "dense Q=256,384,512": "dense",
        "multi-crop 150": "crops",
        "multi-crop+dense": "both",
    }
    for net, key in (("D", "vgg_release_16"), ("E", "vgg_release_19")):
        for protocol, name in names.items():
            assert found[f"released/{net}/{name}"] == (
                published[key][protocol]["top1"],
                published[key][protocol]["top5"],
            )
    for protocol, name in (("dense", "dense"), ("multi-crop", "crops"), ("multi-crop+dense", "both")):
        errors = published["fusion_D_E"][protocol]
        assert found[f"released/D+E/{name}"] == (errors["top1"], errors["top5"])


def test_every_claim_names_existing_rows() -> None:
    found = experiment("classification")
    names = {row.name for row in found.rows}
    assert all(name in names for claim in found.claims for pair in claim.pairs for name in pair)
    assert [claim.name for claim in found.claims] == [
        *("depth", "LRN", "C", "shallow", "jitter", "scales", "complementary", "fusion")
    ]


# App. A, typed a second time: cells left of the errors, then the errors as printed.
SECOND_A = {
    "8": """
        1st and 2nd FC | SCR | 36.4
        1st and 2nd FC | PCR | 34.3
        all | PCR | 33.1
    """,
    "9": """
        256 | 256 | 29.5 | -
        384 | 384 | 28.2 | 26.7
        384 | 352,384 | 27.5 | -
        fusion | 256/256 and 384/352,384 | 26.9 | 25.3
    """,
    "10": """
        VGG | 26.9 | 25.3
        GoogLeNet (Szegedy et al., 2014) | - | 26.7
        OverFeat (Sermanet et al., 2014) | 30.0 | 29.9
        Krizhevsky et al. (2012) | - | 34.2
    """,
}
OF_A = {"8": ["gt_class_val"], "9": ["top5_val", "top5_test"], "10": ["top5_val", "top5_test"]}


@pytest.mark.parametrize("name", SECOND_A)
def test_both_typings_of_appendix_a_agree(name: str) -> None:
    lines = [[cell.strip() for cell in line.split("|")] for line in SECOND_A[name].strip().splitlines()]
    rows = table_rows(name, [])
    assert len(rows) == len(lines)
    for row, line in zip(rows, lines, strict=True):
        many = len(OF_A[name])
        assert list(row["cells"].values()) == line[:-many]
        shown = [row["paper"].get(error) for error in OF_A[name]]
        assert ["-" if error is None else str(error) for error in shown] == line[-many:]


@pytest.mark.parametrize("name", SECOND_A)
def test_the_second_typing_of_appendix_a_is_the_papers_text(name: str) -> None:
    text = paper()
    table = text[text.index(f"Table {name}: **") :]
    printed = re.findall(r"(?<=\t)(\d+\.\d|-)(?=\t|$)", table, re.MULTILINE)
    typed = [cell.strip() for line in SECOND_A[name].strip().splitlines() for cell in line.split("|")]
    errors = [cell for cell in typed if re.fullmatch(r"\d+\.\d|-", cell)]
    assert printed[: len(errors)] == errors


def test_the_rows_of_appendix_a_are_of_the_papers_nets() -> None:
    """Table 8 at S = 384, Table 9's S and Q as its cells say; fusion is of its first and third rows."""
    rows = {row.name: row for row in experiment("localisation").rows}
    for name, row in rows.items():
        for test in row.tests:
            assert papers_start(test.run) == test.run.partition("-")[0]
            assert test.protocol.startswith("centre" if "table8" in name or "text" in name else "dense")
    for name in ("table9/256", "table9/384", "table9/384-several"):
        scale, q = rows[name].cells
        (test,) = rows[name].tests
        assert (test.run, test.protocol) == (f"D/{scale}-PCR", f"dense@{q}")
    fused = (*rows["table9/256"].tests, *rows["table9/384-several"].tests)
    assert rows["table9/fusion"].tests == rows["table10/VGG"].tests == fused
    assert [row.tests[0].run for row in rows.values() if row.name.startswith("table8/")] == [
        *("D/384-SCR-fc", "D/384-PCR-fc", "D/384-PCR")
    ]


def test_every_claim_of_appendix_a_names_existing_rows() -> None:
    found = experiment("localisation")
    names = {row.name for row in found.rows}
    assert all(name in names for claim in found.claims for pair in claim.pairs for name in pair)
    assert [claim.name for claim in found.claims] == ["PCR", "all-layers", "whole-image", "box-scales", "box-fusion"]


TABLE_11 = """
Zeiler   | -    | 79.0 | 86.5 0.5 | 74.2 0.3
Chatfield| 82.4 | 83.2 | 88.4 0.6 | 77.6 0.1
He       | 82.4 | -    | 93.4 0.5 | -
Wei      | 81.5 | 81.7 | -        | -
Wei-2000 | 85.2 | 90.3 | -        | -
D        | 89.3 | 89.0 | 91.8 1.0 | 85.0 0.2
E        | 89.3 | 89.0 | 92.3 0.5 | 85.1 0.3
D+E      | 89.7 | 89.3 | 92.7 0.5 | 86.2 0.3
"""
TABLE_12 = {"Oquab": 70.2, "Gkioxari": 73.6, "Hoai": 76.3, "image": 79.2, "image-and-box": 84.0}


def test_tables_11_and_12_have_the_papers_figures() -> None:
    rows = {row.name: row for row in experiment("transfer").rows}
    read = 0
    for line in TABLE_11.strip().splitlines():
        method, *cells = (cell.strip() for cell in line.split("|"))
        for data, cell in zip(("voc2007", "voc2012", "caltech101", "caltech256"), cells, strict=True):
            row = rows.get(f"table11/{method}/{data}")
            assert (row is None) == (cell == "-")
            if row is not None:
                read += 1
                spread = row.paper.figure_std
                assert f"{row.paper.figure:.1f}" + ("" if spread is None else f" {spread:.1f}") == cell
                assert bool(row.tests) == (method in ("D", "E", "D+E"))
    assert read + len(TABLE_12) == len(rows)
    assert {name: rows[f"table12/{name}"].paper.figure for name in TABLE_12} == TABLE_12


def test_descriptors_are_those_app_b_names() -> None:
    from verydeep.paper.rows.transfer import LAYER, RECIPES

    assert LAYER == "fc7"
    for data, recipe in RECIPES.items():
        voc = data.startswith("voc")
        assert recipe.aggregate == ("average" if voc else "stack")
        assert recipe.scales == ((256, 384, 512, 640, 768) if voc else (256, 384, 512))
    both = {row.name: row for row in experiment("transfer").rows}["table12/image-and-box"]
    assert [(test.run[0], test.protocol.endswith("box")) for test in both.tests] == [
        *(("D", False), ("E", False), ("D", True), ("E", True)),
    ]
