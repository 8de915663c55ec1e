"""`verydeep reproduce released` on a part of ILSVRC: which output is which class, what the figures are of."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from test_pretrained import random_layers

import weight_files as made
from conftest import Command, paint
from verydeep.checkpoints.registry import ilsvrc_classes
from verydeep.evaluation.scores import load_scores
from verydeep.paper.plan import ExperimentDir, make_plan
from verydeep.paper.rows.row import find_rows
from verydeep.paper.scale import PAPER

WNIDS = [name.split()[0] for name in ilsvrc_classes()]
SHOWN = [WNIDS[at] for at in (3, 500, 998)]
TESTED = ["--workers", 0, "--threads", 1]


def layers_of_1000() -> made.Layers:
    """A narrow net D of crop 64 that predicts the three classes shown only, in the order of sorted WNIDs."""
    layers = random_layers(classes=1000)
    weight, bias = layers["fc8"]
    bias = np.full_like(bias, -1e3)
    bias[[3, 500, 998]] = 0
    return {**layers, "fc8": (weight, bias)}


def moved(layers: made.Layers, order: list[int]) -> made.Layers:
    weight, bias = layers["fc8"]
    return {**layers, "fc8": (np.ascontiguousarray(weight[order]), bias[order])}


def plain(path: Path, layers: made.Layers) -> None:
    """safetensors with the pixels recorded, and no classes."""
    result = {"net": "D", "channel_order": "RGB", "mean_rgb": ",".join(map(str, made.MEAN)), "input_range": "0-255"}
    save_file(
        {
            f"{name}.{part}": torch.tensor(value)
            for name, pair in layers.items()
            for part, value in zip(("weight", "bias"), pair, strict=True)
        },
        path,
        metadata=result,
    )


ORDER = [int(at) for at in np.random.default_rng(7).permutation(1000)]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine photos in three WNID folders and no folder around them but a devkit; one net in three class orders."""
    place = tmp_path_factory.mktemp("part")
    for number, wnid in enumerate(SHOWN):
        for photo in range(3):
            paint(place / "part" / wnid / f"{photo}.png", 10 * number + photo, (90 * number, 120, 70), (90, 70))
    (place / "part" / "ILSVRC2012_devkit_t12" / "data").mkdir(parents=True)
    layers = layers_of_1000()
    plain(place / "sorted.safetensors", layers)
    made.matconvnet(place / "moved.mat", moved(layers, ORDER), wnids=[WNIDS[at] for at in ORDER])
    plain(place / "moved.safetensors", moved(layers, ORDER))
    (place / "names.txt").write_text("\n".join(ilsvrc_classes()[at] for at in ORDER))
    return place


def reproduced(command: Command, home: Path, out: Path, file: object, *more: object) -> tuple[dict[str, Any], str]:
    """The row of one centre crop, and stderr."""
    words = ["reproduce", "released/D/centre", "--data", home / "part", "--weights", f"D={file}", "--out", out]
    result = command(*words, *TESTED, "--json", *more)
    assert result.status == 0, result.stderr
    found = json.loads(result.stdout)["rows"]["released/D/centre"]
    assert isinstance(found, dict)
    return found, result.stderr


def test_outputs_are_assigned_by_the_recorded_class_list(home: Path, tmp_path: Path, command: Command) -> None:
    """A permuted file with its classes, and a run with them in its metadata, are the net of sorted WNIDs."""
    first, said = reproduced(command, home, tmp_path / "sorted", home / "sorted.safetensors")
    assert "are in the order of sorted WNIDs, as it records no classes" in said
    assert (first["images"], first["classes"], first["classes_shown"]) == (9, 1000, 3)
    words = ["--class-names", home / "names.txt"]
    assert command("convert", home / "moved.safetensors", tmp_path / "run", *words).status == 0
    expected = load_scores(tmp_path / "sorted" / "D" / "released" / "evaluations" / "val" / "centre@256")
    assert first["top1_val"] not in (0, 100)  # else nothing would be seen
    for source in (home / "moved.mat", tmp_path / "run"):
        out = tmp_path / f"from-{source.stem}"
        found, said = reproduced(command, home, out, source)
        assert "are in the order of its recorded classes" in said
        assert found["top1_val"] == first["top1_val"]
        scores = load_scores(out / "D" / "released" / "evaluations" / "val" / "centre@256")
        assert scores.posteriors == pytest.approx(expected.posteriors, abs=1e-5)
        assert [name.split()[0] for name in scores.classes] == WNIDS  # so that it is fused with others
    # A run that an earlier version made of the permuted file is replaced.
    found, _ = reproduced(command, home, tmp_path / "sorted", home / "moved.mat")
    assert found["top1_val"] == first["top1_val"]


def test_every_table_notes_a_net_of_another_size(home: Path, tmp_path: Path, command: Command) -> None:
    words = ["reproduce", "released/D/centre", "--data", home / "part", "--weights", f"D={home / 'sorted.safetensors'}"]
    document = command(*words, *TESTED, cwd=tmp_path)
    assert document.status == 0, document.stderr
    label = "D of width 0.0625, crop 64"
    assert "show it again: verydeep table released --from runs\n" in document.stdout
    assert (
        command("table", "released", "--from", "runs", cwd=tmp_path).stdout == document.stdout.rpartition("show it")[0]
    )
    page = tmp_path / "page.md"
    page.write_text("<!-- table-released -->\n<!-- /table-released -->\n")
    assert command("table", "released", "--write", page, cwd=tmp_path).status == 0
    for text in (document.stdout, command("table", "released", cwd=tmp_path).stdout, page.read_text()):
        assert re.search(rf"D, centre@256.*28\.5.*\d\), {label}", text)
        assert f"Not of the paper's size, and no result of its nets: {label}." in text
        assert "9 photos of imagenet (val), which show 3 of the nets' 1000 classes" in text
    row = next(
        row
        for row in json.loads(command("table", "released", "--json", cwd=tmp_path).stdout)
        if row["row"] == "released/D/centre"
    )
    assert row["measured"]["nets"] == {"D/released": {"crop": 64, "width": 0.0625}}


def test_a_plan_names_the_weight_files_that_are_missing(home: Path, tmp_path: Path, command: Command) -> None:
    words = ["reproduce", "released/D/centre", "--plan", "--data", home / "part"]
    result = command(*words, cwd=tmp_path)
    assert result.status == 0, result.stderr
    assert (
        "the weight file of D/released is missing: add --weights D=FILE (`verydeep weights fetch oxford-D`"
        in result.stdout
    )
    assert "already done" not in result.stdout
    assert "there is no run or weight file nowhere" in command(*words, "--weights", "D=nowhere", cwd=tmp_path).mistake()
    assert not (tmp_path / "runs").exists()
    both = make_plan(find_rows("released/D+E/dense")[1], ExperimentDir(tmp_path, PAPER, "val", "", ""), {})
    assert both.to_json()["without_file"] == ["D/released", "E/released"]
    given = both.to_json(with_file=("D",))  # as --weights D=FILE
    assert (given["without_file"], given["done"], given["train"], len(given["test"])) == (["E/released"], [], [], 6)


def test_a_converted_net_is_evaluated_on_a_part_of_ilsvrc(home: Path, tmp_path: Path, command: Command) -> None:
    """A folder of some WNIDs, down to a photo a class and to one class, by `evaluate` as by `reproduce released`."""
    words = ["--class-names", home / "names.txt"]
    assert command("convert", home / "moved.safetensors", tmp_path / "run", *words).status == 0
    for wnid in SHOWN:
        paint(tmp_path / "few" / wnid / "0.png", 3, (9, 99, 199))
    paint(tmp_path / "one" / SHOWN[1] / "0.png", 3, (9, 99, 199))
    for folder, images in ((home / "part", 9), (tmp_path / "few", 3), (tmp_path / "one", 1)):
        data = f"imagenet:{folder}" if folder.name == "part" else folder
        result = command("evaluate", tmp_path / "run", "centre@64", "--data", data, *TESTED, "--json")
        assert result.status == 0, result.stderr
        assert json.loads(result.stdout)["images"] == images


@pytest.mark.parametrize(
    ("classes", "says"),
    [
        ([*WNIDS[:3], *WNIDS[4:], "n99999999"], r"has the class 'n01491361', which is none of the 1000 of .*d\.mat"),
        (
            [*WNIDS[:999], WNIDS[0]],
            r"has the class 'n01440764 thing n01440764' twice, so its outputs cannot be matched",
        ),
    ],
    ids=["a class that the net lacks", "a class twice"],
)
def test_a_wrong_class_list_is_one_sentence(
    home: Path, tmp_path: Path, command: Command, classes: list[str], says: str
) -> None:
    made.matconvnet(tmp_path / "d.mat", layers_of_1000(), wnids=classes)
    words = ["reproduce", "released/D/centre", "--data", home / "part", "--weights", f"D={tmp_path / 'd.mat'}"]
    assert re.search(says, command(*words, "--out", tmp_path / "out", *TESTED).mistake())
    assert not (tmp_path / "out" / "D").exists()
