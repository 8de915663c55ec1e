"""Own images of several classes: lists, splits, one-vs-rest SVMs, and the classes that they predict."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import f1_score as their_f1
from test_transfer import HERE, made_up

import verydeep
from conftest import TINY, Command, paint
from verydeep.core.errors import VerydeepError
from verydeep.core.settings import DataSettings, SvmSettings
from verydeep.data.dataset import Dataset, FolderSource, marks_of, split
from verydeep.data.open import open_data
from verydeep.evaluation.metrics import best_threshold, f1_score
from verydeep.transfer.evaluate import learn_svms
from verydeep.transfer.features_file import Features, save_features
from verydeep.transfer.svm_file import load_svm, write_transfer

CLASSES = ("beach", "dog", "people")
COLOURS = {"beach": (200, 60, 60), "dog": (60, 60, 200), "people": (60, 200, 60)}


def names_of(number: int) -> tuple[str, ...]:
    """The classes of an image by the bits of its number; every eighth has none."""
    return tuple(name for bit, name in enumerate(CLASSES) if number >> bit & 1)


def photos(folder: Path, count: int = 24) -> list[str]:
    """Photos of the mean colour of their classes."""
    for number in range(count):
        colours = [COLOURS[name] for name in names_of(number)] or [(128, 128, 128)]
        mean = tuple(int(value) for value in np.mean(colours, axis=0))
        paint(folder / f"{number:02d}.png", number, (mean[0], mean[1], mean[2]))
    return [f"{number:02d}.png" for number in range(count)]


def csv(images: list[str], separator: str = "|") -> str:
    return "path,labels\n" + "".join(f"{name},{separator.join(names_of(n))}\n" for n, name in enumerate(images))


def jsonl(images: list[str], key: str = "labels") -> str:
    return "".join(json.dumps({"file_name": name, key: names_of(n)}) + "\n" for n, name in enumerate(images))


@pytest.mark.parametrize("form", ["|", ";", " | ", "jsonl", "tags"])
def test_a_cell_of_several_names(form: str, tmp_path: Path) -> None:
    images = photos(tmp_path)
    path = tmp_path / ("list.jsonl" if len(form) > 3 else "list.csv")
    path.write_text(csv(images, form) if len(form) <= 3 else jsonl(images, "tags" if form == "tags" else "labels"))
    whole, _ = open_data(DataSettings(str(path)), several=True).everything()
    assert whole.classes == CLASSES
    assert whole.marks is not None
    expected = [[1 if name in names_of(n) else -1 for name in CLASSES] for n in range(24)]
    np.testing.assert_array_equal(whole.marks, expected)
    assert (whole.labels == -1).all()


def test_a_column_of_single_names_stays_one_class_per_image(tmp_path: Path) -> None:
    images = photos(tmp_path, 12)
    (tmp_path / "list.csv").write_text("path,tags\n" + "".join(f"{n},{'ab'[i % 2]}\n" for i, n in enumerate(images)))
    data = open_data(DataSettings(str(tmp_path / "list.csv")))
    assert (data.classes, data.sets["train"].marks) == (("a", "b"), None)
    (tmp_path / "list.csv").write_text("path,label\n" + "".join(f"{n},{'ab'[i % 2]}|c\n" for i, n in enumerate(images)))
    assert open_data(DataSettings(str(tmp_path / "list.csv"))).classes == ("a|c", "b|c")


def test_sets_of_a_list_have_the_same_classes(tmp_path: Path) -> None:
    """Also a set in which a class has no image."""
    images = photos(tmp_path)
    rows = [("train", n) for n in range(18)] + [("val", 18), ("test", 20)]
    lines = "".join(f"{images[n]},{';'.join(names_of(n))},{name}\n" for name, n in rows)
    (tmp_path / "list.csv").write_text(f"path,labels,set\n{lines}")
    data = open_data(DataSettings(str(tmp_path / "list.csv")), several=True)
    marks = {name: part.marks.tolist() for name, part in data.sets.items() if part.marks is not None}
    assert (marks["dev"], marks["test"]) == ([[-1, 1, -1]], [[-1, -1, 1]])
    chosen = open_data(DataSettings(str(tmp_path / "list.csv"), classes=("people", "beach")), several=True)
    assert chosen.sets["test"].marks is not None
    assert (chosen.classes, chosen.sets["test"].marks.tolist()) == (("beach", "people"), [[-1, 1]])


def test_a_split_counts_the_rarest_class_of_an_image() -> None:
    """Each class with three images of which it is the rarest has one in each part; every image is in one part."""
    rng = np.random.default_rng(0)
    names = [
        tuple(c for c, p in zip("abcd", (0.9, 0.5, 0.1, 0.05), strict=True) if rng.random() < p) for _ in range(200)
    ]
    marks = marks_of(names, tuple("abcd"))
    ids = tuple(f"{n:03d}" for n in range(200))
    whole = Dataset("d", "all", tuple("abcd"), ids, np.full(200, -1), FolderSource(Path()), marks=marks)
    parts = split(whole, {"dev": 0.1, "test": 0.2}, 0)
    assert sorted(image for part in parts.values() for image in part.ids) == list(ids)
    for part in parts.values():
        assert part.marks is not None
        assert (part.marks == 1).any(axis=0).all()
        assert (part.marks == -1).all(axis=1).any()  # images of no class too
    assert [len(part) for part in parts.values()] == pytest.approx([140, 20, 40], abs=4)


def test_the_threshold_has_the_largest_f1() -> None:
    rng = np.random.default_rng(0)
    for levels in (5, 1000):
        scores = rng.integers(levels, size=(40, 3)) / levels
        marks = rng.choice(np.array([-1, 0, 1], dtype=np.int8), size=(40, 3))
        marks[0, 0] = 1
        threshold = best_threshold(scores, marks)
        counted = marks != 0
        tried = [
            their_f1(marks[counted] == 1, scores[counted] > cut, zero_division=0.0)
            for cut in (-1.0, *np.unique(scores[counted]))
        ]
        assert f1_score(scores > threshold, marks) == pytest.approx(max(tried), abs=1e-12)
        assert threshold not in scores[counted]
    assert np.isnan(f1_score(np.ones((2, 1), bool), np.full((2, 1), -1, np.int8)))


def described(**changed: Any) -> Features:
    """Descriptors of 160 images, each with the class of its centre and perhaps the next."""
    plain = made_up()
    also = np.random.default_rng(1).random(160) < 0.3
    names = [
        {int(label)} | ({(int(label) + 1) % 4} if more else set())
        for label, more in zip(plain.labels, also, strict=True)
    ]
    marks = marks_of([[plain.classes[k] for k in sorted(several)] for several in names], plain.classes)
    rows = plain.scales[256] + also[:, None] * np.roll(plain.scales[256], 40, axis=0)
    return made_up(**{"marks": marks, "labels": np.full(160, -1), "scales": {256: rows}, **changed})


def test_own_images_are_tested_as_vocs(tmp_path: Path) -> None:
    """The same sets, descriptors and labels under VOC-2012's protocol: the same C, SVMs, scores and AP."""
    sets = tuple("train" if n % 4 < 2 else "val" if n % 4 == 2 else "test" for n in range(160))
    results = []
    for protocol, data in (("own", "made up"), ("voc2012", "voc2012")):
        save_features(tmp_path / f"{protocol}.safetensors", described(sets=sets, data=data))
        results.append(learn_svms(protocol, [tmp_path / f"{protocol}.safetensors"], machine=HERE).splits[0])
    own, voc = results
    assert own.C == voc.C
    assert own.top1_error is None
    np.testing.assert_array_equal(own.scores, voc.scores)
    np.testing.assert_array_equal(own.by_class, voc.by_class)
    marks = described().marks
    assert own.threshold is not None and own.f1 is not None and marks is not None  # noqa: PT018
    has = marks == 1
    assert own.f1 == pytest.approx(100 * their_f1(has[own.parts.test], own.scores > own.threshold, average="micro"))
    assert own.f1 > 70


def test_a_class_called_other_counts_for_own_images(tmp_path: Path) -> None:
    save_features(tmp_path / "f.safetensors", described(classes=("a", "b", "c", "other")))
    (split,) = learn_svms("own", [tmp_path / "f.safetensors"], svm=SvmSettings(splits=1), machine=HERE).splits
    assert not np.isnan(split.by_class).any()


@pytest.mark.parametrize("classifier", ["svm", "logistic", "knn"])
def test_random_splits_and_the_stored_classifier(classifier: Any, tmp_path: Path) -> None:
    save_features(tmp_path / "f.safetensors", described())
    settings = SvmSettings(splits=2, classifier=classifier)
    transfer = learn_svms("own", [tmp_path / "f.safetensors"], svm=settings, machine=HERE)
    assert {len(split.parts.test) for split in transfer.splits} <= set(range(28, 37))
    told = write_transfer(transfer, tmp_path / "out")
    assert (told["figure"], told["mistakes"], told["top1_error"]) == ("mean_average_precision", [], None)
    assert told["splits"][0]["f1"] == pytest.approx(transfer.splits[0].f1, abs=1e-4)
    stored = load_svm(tmp_path / "out" / "classifier.safetensors")
    assert (stored.threshold, stored.temperature) == (transfer.splits[0].threshold, None)
    single = learn_svms("own", [tmp_path / "f.safetensors"], svm=SvmSettings(splits=1, C=(1.0,)), machine=HERE)
    assert single.splits[0].threshold is None


def test_the_real_commands(tmp_path: Path, command: Command) -> None:
    """Checked, probed and predicted; nets are not trained on such lists."""
    images = photos(tmp_path / "photos", 32)
    (tmp_path / "photos" / "list.csv").write_text(csv(images))
    words = [*(f"--{key}={value}" for key, value in TINY.items()), "--start", "none", "--max-epochs", 1, "--quiet"]
    data = tmp_path / "photos" / "list.csv"
    told = command("train", "A", *words, "--data", data, "--out", tmp_path / "no").mistake()
    assert "list.csv has several labels per image, which nets are not trained on here" in told
    assert command("train", "A", *words, "--data", "digits:60", "--out", tmp_path / "run").status == 0
    told = command("evaluate", tmp_path / "run", "dense@36", "--data", data).mistake()
    assert "several labels per image" in told
    probed = command(
        *("probe", "--data", data, "--weights", tmp_path / "run", "--layer", "pool5", "--scales", 40, "--splits", 1),
        *("--out", tmp_path / "probe", "--threads", 1, "--workers", 0, "--json"),
    )
    assert probed.status == 0, probed.stderr
    result = json.loads(probed.stdout)
    assert result["figure"] == "mean_average_precision"
    assert [row["class"] for row in result["by_class"]] == list(CLASSES)
    assert "Several classes per image" in (tmp_path / "probe" / "report.html").read_text()
    answer = command("predict", tmp_path / "probe", tmp_path / "photos" / "07.png", "--json")
    (prediction,) = json.loads(answer.stdout)
    above = {row["class"] for row in prediction["predictions"] if row["score"] > result["splits"][0]["threshold"]}
    assert set(prediction["labels"]) == above
    shown = command("predict", tmp_path / "probe", tmp_path / "photos" / "07.png").stdout.splitlines()[0]
    assert shown.endswith(f"07.png: {', '.join(prediction['labels']) or 'none of the classes'}")
    found = verydeep.predict(tmp_path / "probe", tmp_path / "photos" / "07.png")
    assert found[0].labels == tuple(prediction["labels"])
    refused = command("svm", "own", "--features", tmp_path / "probe" / "features.safetensors", "--curve").mistake()
    assert "class" in refused


FAULTS = {
    "path,labels\n00.png,a\n01.png,\n02.png,b\n": 'line 3: the class is "": use a name or an integer',
    "path,labels\n00.png,a|b\n00.png,a\n": "lists 00.png twice, as 'a|b' and as 'a'",
}


@pytest.mark.parametrize("text", FAULTS)
def test_invalid_lists(text: str, tmp_path: Path, command: Command) -> None:
    photos(tmp_path, 3)
    (tmp_path / "list.csv").write_text(text)
    assert FAULTS[text] in command("data", "check", tmp_path / "list.csv").mistake()


def test_an_array_is_read_under_a_plural_key_only(tmp_path: Path) -> None:
    (tmp_path / "list.jsonl").write_text(jsonl(photos(tmp_path), "label"))
    with pytest.raises(VerydeepError, match=r"the class is \[\]: use a name or an integer; several .* column 'labels'"):
        open_data(DataSettings(str(tmp_path / "list.jsonl")))
