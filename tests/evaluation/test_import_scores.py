"""Predictions of other programs as scores: what is read, what is refused, and the figures of 50,000 real photos."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import SHARED, Command, run_command
from verydeep import load_scores
from verydeep.evaluation.import_scores import import_scores
from verydeep.evaluation.metrics import summarise

IDS, NAMES = ["a.jpg", "b.jpg", "c.jpg"], ["ant", "bee", "cat", "dog", "eel", "fox", "gnu"]
LABELS = [2, 0, 6]
CLASSES = [[1, 2], [3, 4], [6, 0]]  # the class of b.jpg is not listed
PROBABILITIES = [[0.3, 0.6], [0.5, 0.25], [0.75, 0.125]]
DENSE = np.array([[0, 0.3, 0.6, 0, 0, 0, 0], [0, 0, 0, 0.5, 0.25, 0, 0], [0.125, 0, 0, 0, 0, 0, 0.75]], np.float32)


def labels(place: Path, **changes: Any) -> Path:
    np.savez(place / "labels.npz", **{"labels": np.array(LABELS, np.int16), "ids": np.array(IDS), **changes})
    return place / "labels.npz"


def sparse(place: Path, **changes: Any) -> Path:
    arrays = {"classes": np.array(CLASSES, np.int16), "probabilities": np.array(PROBABILITIES, np.float32), **changes}
    np.savez(place / "p.npz", **{key: value for key, value in arrays.items() if value is not None})
    return place / "p.npz"


def table(place: Path, rows: list[str], name: str = "p.csv") -> Path:
    (place / name).write_text("\n".join(rows) + "\n")
    return place / name


def names(place: Path) -> str:
    return str(table(place, NAMES, "names.txt"))


ROWS = [
    f"{name},{number},{probability}"
    for name, numbers, probabilities in zip(IDS, CLASSES, PROBABILITIES, strict=True)
    for number, probability in zip(numbers, probabilities, strict=True)
]
BY_NAME = [
    ",".join([name, NAMES[int(number)], probability]) for name, number, probability in (row.split(",") for row in ROWS)
]


@pytest.mark.parametrize(
    "write",
    [
        sparse,
        lambda place: sparse(place, classes=None, probabilities=DENSE),
        lambda place: sparse(place, classes=None, probabilities=DENSE.astype(np.float64), ids=np.array(IDS)),
        lambda place: sparse(place, classes=None, probabilities=DENSE[::-1], ids=np.array(IDS[::-1])),
        lambda place: sparse(
            place, classes=CLASSES[::-1], probabilities=np.array(PROBABILITIES[::-1]), ids=np.array(IDS[::-1])
        ),
        lambda place: table(place, ROWS),
        lambda place: table(place, ["id,class,probability", *reversed(ROWS)]),
        lambda place: table(
            place, ["Class;Score;Image", *[";".join([*row.split(",")[1:], row.split(",")[0]]) for row in BY_NAME]]
        ),
    ],
    ids=["npz", "all classes", "float64", "other order", "ids", "csv", "csv with a header", "csv by name"],
)
def test_all_forms_give_the_same_scores(write: Any, tmp_path: Path) -> None:
    import_scores(write(tmp_path), labels(tmp_path), tmp_path / "s.npz", names(tmp_path))
    scores = load_scores(tmp_path / "s.npz")
    np.testing.assert_array_equal(scores.posteriors, DENSE)
    assert (scores.ids, scores.classes, scores.labels.tolist()) == (tuple(IDS), tuple(NAMES), LABELS)
    assert scores.truncated
    assert (scores.set_name, scores.run) == ("val", "p")


@pytest.mark.parametrize(
    "rows",
    [
        ["a.jpg,2", "b.jpg,0", "c.jpg,6"],
        ["path,label", "c.jpg,gnu", "b.jpg,ant", "a.jpg,cat"],
    ],
)
def test_labels_from_a_table(rows: list[str], tmp_path: Path) -> None:
    """Images are in the order of the labels."""
    scores = import_scores(table(tmp_path, ROWS), table(tmp_path, rows, "l.csv"), tmp_path / "s.npz", names(tmp_path))
    order = [IDS.index(name) for name in scores.ids]
    assert scores.labels.tolist() == [LABELS[place] for place in order]
    np.testing.assert_array_equal(scores.posteriors, DENSE[order])


def test_without_ids_and_names_both_are_numbers(tmp_path: Path) -> None:
    np.savez(tmp_path / "labels.npz", labels=np.array(LABELS))
    scores = import_scores(sparse(tmp_path), tmp_path / "labels.npz", tmp_path / "s.npz")
    assert scores.ids == ("0", "1", "2")
    assert scores.classes == tuple("0123456")


def test_a_class_that_is_not_listed_is_in_no_top_5(tmp_path: Path) -> None:
    """By the rule of ties, class 0 would rank third for b.jpg, after the two that are listed."""
    scores = import_scores(sparse(tmp_path), labels(tmp_path), tmp_path / "s.npz")
    summary = summarise(scores)
    assert summary["top1_error"] == summary["top5_error"] == pytest.approx(100 / 3, abs=1e-4)


def test_posteriors_of_all_classes_are_not_truncated(tmp_path: Path) -> None:
    whole = np.full((3, 7), 1 / 7, np.float32)
    scores = import_scores(sparse(tmp_path, classes=None, probabilities=whole), labels(tmp_path), tmp_path / "s.npz")
    assert not scores.truncated
    assert not load_scores(tmp_path / "s.npz").truncated
    assert summarise(scores)["top5_error"] == pytest.approx(100 / 3, abs=1e-4)  # class 6 of equal ones


def changed(value: float) -> np.ndarray:
    probabilities = np.array(PROBABILITIES)
    probabilities[1, 1] = value
    return probabilities


MISTAKES: list[tuple[Any, Any, str]] = [
    (lambda place: sparse(place, classes=np.array(CLASSES) + 1), labels, "class 7 of image c.jpg is out of range"),
    (lambda place: sparse(place, classes=-np.array(CLASSES)), labels, "class -1 of image a.jpg is out of range"),
    (lambda place: sparse(place, classes=np.array([[1, 1]] * 3)), labels, "lists class 1 of image a.jpg twice"),
    (lambda place: sparse(place, classes=np.array(CLASSES) / 1), labels, "classes must be whole numbers"),
    (lambda place: sparse(place, classes=np.array(CLASSES)[:, :1]), labels, "whole numbers, one per probability"),
    (lambda place: sparse(place, probabilities=changed(np.nan)), labels, "image b.jpg has a NaN or negative"),
    (lambda place: sparse(place, probabilities=changed(-0.1)), labels, "image b.jpg has a NaN or negative probability"),
    (lambda place: sparse(place, probabilities=changed(np.inf)), labels, "sum to inf, more than 1: are they percent"),
    (lambda place: sparse(place, probabilities=changed(1e300)), labels, "sum to inf, more than 1"),
    (lambda place: sparse(place, probabilities=changed(0.6)), labels, "b.jpg has probabilities that sum to 1.1, more"),
    (lambda place: sparse(place, probabilities=np.zeros((3, 2))), labels, "image a.jpg has no probability above 0"),
    (lambda place: sparse(place, probabilities=np.ones((3, 2), int)), labels, "probabilities are int64 of shape 3x2"),
    (lambda place: sparse(place, probabilities=None), labels, "has no array 'probabilities' but classes: it needs"),
    (lambda place: sparse(place, classes=None), labels, "has probabilities of 2 classes, not 7"),
    (
        lambda place: sparse(place, classes=None, probabilities=np.full((3, 7), 0.1)),
        labels,
        "image a.jpg has probabilities of all classes that sum to 0.7",
    ),
    (lambda place: sparse(place, ids=np.array(["a.jpg", "b.jpg", "x"])), labels, "c.jpg and 1 more are in one of them"),
    (lambda place: sparse(place, ids=np.array(["x", "x", "y"])), labels, "p.npz has the image x twice"),
    (lambda place: sparse(place, ids=np.array(IDS[:2])), labels, "ids must be texts or whole numbers, one per image"),
    (sparse, lambda place: labels(place, labels=np.array([1, 2]), ids=np.array(IDS[:2])), "3 images, and .* 2 labels"),
    (sparse, lambda place: labels(place, labels=np.array([1, 2, 7])), "labels.npz: class 7 of image c.jpg is out of"),
    (sparse, lambda place: labels(place, labels=np.array([1, 2, -1])), "labels.npz: class -1 of image c.jpg is out of"),
    (sparse, lambda place: labels(place, labels=np.array([0.5, 1, 2])), "labels must be whole numbers, one per image"),
    (sparse, lambda place: labels(place, ids=np.array(["x", "y", "x"])), "labels.npz has the image x twice"),
    (sparse, sparse, "p.npz has no array 'labels' but classes, probabilities: it needs labels"),
    (sparse, lambda place: place / "no.npz", "cannot read .*no.npz: No such file"),
    (
        sparse,
        lambda place: table(place, ["a.jpg,cow"], "l.csv"),
        "line 1: the class 'cow' is none of the 7 class names",
    ),
    (lambda place: table(place, ["text"], "p.npz"), labels, "p.npz is not an .npz file of plain arrays, or corrupted"),
    (lambda place: table(place, [""]), labels, "p.csv has no predictions: it needs rows of id,class,probability"),
    (lambda place: table(place, ROWS[:4]), labels, "c.jpg and 0 more are in one of them only"),
    (lambda place: table(place, [*ROWS, "c.jpg,6,0.1"]), labels, "lists class 6 of image c.jpg twice"),
    (lambda place: table(place, [*ROWS, "c.jpg,7,0.1"]), labels, "class 7 of image c.jpg is out of range"),
    (lambda place: table(place, [*ROWS, "c.jpg,cow,0.1"]), labels, "line 7: the class 'cow' is none of the 7 class"),
    (lambda place: table(place, [*ROWS, "c.jpg,5,nan"]), labels, "image c.jpg has a NaN or negative probability"),
    (
        lambda place: table(place, ["id,class,probability", "a.jpg,1,x"]),
        labels,
        "the probability is 'x': it must be a number",
    ),
    (lambda place: table(place, ["id,class", "a.jpg,1"]), labels, "line 2: the probability is '': it must be a number"),
]


@pytest.mark.parametrize(("file", "truth", "says"), MISTAKES, ids=[row[2] for row in MISTAKES])
def test_a_mistake_is_one_sentence(command: Command, tmp_path: Path, file: Any, truth: Any, says: str) -> None:
    words = ("scores", "import", file(tmp_path), "--labels", truth(tmp_path), "--class-names", names(tmp_path))
    sentence = command(*words, "--out", tmp_path / "s.npz").mistake()
    assert re.search(says, sentence), sentence
    assert not (tmp_path / "s.npz").exists()


def test_labels_have_to_be_given(command: Command, tmp_path: Path) -> None:
    assert "required: --labels" in command("scores", "import", sparse(tmp_path), "--out", tmp_path / "s.npz").mistake()


def test_huge_class_numbers_need_names(tmp_path: Path, command: Command) -> None:
    file = sparse(tmp_path, classes=np.array(CLASSES) * 10**8)
    words = ("scores", "import", file, "--labels", labels(tmp_path), "--out", tmp_path / "s.npz")
    assert "the largest class number is 600000000: pass the names" in command(*words).mistake()


def test_nothing_but_a_scores_file_is_overwritten(tmp_path: Path, command: Command) -> None:
    words = ("scores", "import", sparse(tmp_path), "--labels", labels(tmp_path), "--out")
    assert "is an input: --out is the scores file" in command(*words, tmp_path / "labels.npz").mistake()
    assert "is a folder: --out is the scores file" in command(*words, tmp_path).mistake()
    other = table(tmp_path, ["mine"], "other.npz")
    assert "exists and is not a scores file" in command(*words, other).mistake()
    assert other.read_text() == "mine\n"
    for _ in range(2):
        assert command(*words, tmp_path / "s.npz").status == 0


def test_imports_are_fused(tmp_path: Path, command: Command) -> None:
    """The mean is of truncated posteriors, and is truncated."""
    for name in ("one", "two"):
        import_scores(sparse(tmp_path).rename(tmp_path / f"{name}.npz"), labels(tmp_path), tmp_path / f"s-{name}.npz")
    ended = command("fuse", tmp_path / "s-one.npz", tmp_path / "s-two.npz", "--out", tmp_path / "fused", "--json")
    assert json.loads(ended.stdout)["fusion"]["top5_error"] == pytest.approx(100 / 3, abs=1e-4)
    fused = load_scores(tmp_path / "fused")
    assert fused.truncated
    np.testing.assert_array_equal(fused.posteriors, DENSE)
    page = table(tmp_path, ["<!-- table-fusion -->", "<!-- /table-fusion -->"], "page.md")
    assert command("table", "fusion", "--from", tmp_path / "fused", "--write", page).status == 0
    rows = [line for line in page.read_text().splitlines() if line.startswith("| ")][2:]
    assert [row.split(" | ")[0] for row in rows] == [
        "| one imported",
        "| two imported",
        "| one imported + two imported",
    ]
    assert all(row.count("33.33 (") == 2 for row in rows)


@pytest.mark.parametrize("text", ["{}", '{"parts": 1, "fusion": {}}', "[]", "{"])
def test_a_table_of_what_is_no_fusion_is_a_sentence(text: str, tmp_path: Path, command: Command) -> None:
    (tmp_path / "result.json").write_text(text)
    assert command("table", "fusion", "--from", tmp_path).mistake()


def test_fusions_of_different_images_are_not_in_one_table(tmp_path: Path, command: Command) -> None:
    for name in ("val", "test"):
        import_scores(sparse(tmp_path), labels(tmp_path), tmp_path / "s.npz", set_name=name)
        assert command("fuse", tmp_path / "s.npz", "--out", tmp_path / name).status == 0
    sentence = command("table", "fusion", "--from", tmp_path / "val", tmp_path / "test").mistake()
    assert sentence.startswith("these fusions cannot be in one table: 3 images of")


STORED = SHARED / "external" / "predictions_50000"


@pytest.mark.slow
@pytest.mark.skipif(not STORED.is_dir(), reason="needs stored predictions of 50,000 photos beside the repository")
def test_oxfords_nets_on_50000_photos(tmp_path: Path) -> None:
    """Keras's D and E, one warped crop each, the five best classes; figures that were computed without this project."""
    for net, name in (("D", "vgg16_keras"), ("E", "vgg19_keras")):
        words = ("scores", "import", STORED / f"{name}.npz", "--labels", STORED / "labels.npz")
        ended = run_command(*words, "--class-names", "ilsvrc", "--out", f"{net}.npz", cwd=tmp_path)
        assert ended.status == 0, ended.stderr
    found = json.loads(run_command("fuse", "D.npz", "E.npz", "--out", "fused", "--json", cwd=tmp_path).stdout)
    errors = [(f"{row['top1_error']:.2f}", f"{row['top5_error']:.2f}") for row in (*found["parts"], found["fusion"])]
    assert errors == [("34.76", "13.80"), ("34.42", "13.46"), ("32.97", "12.79")]
    shown = run_command("table", "fusion", "--from", "fused", cwd=tmp_path).stdout
    assert all(f"{top1} (" in shown and f"{top5} (" in shown for top1, top5 in errors)
    first = found["pairs"][0]
    assert (first["first"], first["second"], first["error"]) == (1, 2, "top1_error")
    assert first["only_first_wrong"] - first["only_second_wrong"] == round(
        500 * (found["parts"][0]["top1_error"] - found["parts"][1]["top1_error"])
    )
    assert 0.02 < first["p"] < 0.04
