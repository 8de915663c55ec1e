"""Names of classes: read, compared, numbered; by them a right answer is counted as right, or nothing is counted."""

from __future__ import annotations

import json
import unicodedata
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import COLOURS, Command, paint
from verydeep.checkpoints.checkpoint import load_checkpoint, save_checkpoint
from verydeep.checkpoints.registry import ilsvrc_classes
from verydeep.core.progress import Silent
from verydeep.core.settings import DataSettings
from verydeep.data.box_targets import located
from verydeep.data.class_names import (
    caption,
    class_key,
    display_name,
    distinct,
    names_in,
    numbered,
    one_spelling,
    place_of_class,
    places_in,
)
from verydeep.data.dataset import Dataset, FolderSource, split
from verydeep.data.open import open_data
from verydeep.evaluation.scores import load_scores

NFC, NFD = (unicodedata.normalize(form, "caf\u00e9") for form in ("NFC", "NFD"))
SEPARATORS = "a\u2028b\u0085c\x0bd\x0ce\x1cf"  # of lines for Python, and of none for a file of names

# the text, its names, why
READ = [
    ("cat\ndog\n", ("cat", "dog"), "a line each"),
    ("cat\r\ndog", ("cat", "dog"), "as Windows ends lines"),
    ("cat\rdog\r", ("cat", "dog"), "as old Macs did"),
    ("cat\n\ndog\n\n\n", ("cat", "", "dog"), "a blank line is a name's place, but at the end"),
    (f" {SEPARATORS} \nx", (SEPARATORS, "x"), "other separators are part of a name"),
    ("", (), "nothing"),
]


@pytest.mark.parametrize(("text", "names", "reason"), READ)
def test_names_are_lines(text: str, names: tuple[str, ...], reason: str) -> None:
    assert names_in(text) == names, reason


# names, what they are called, why
SHARED = [
    (("a", "b"), ("a", "b"), "no name is shared"),
    (("crane", "dog", "crane"), ("crane (0)", "dog", "crane (2)"), "ILSVRC's crane is a bird and a machine"),
    (("n02012849 crane", "n03126707 crane"), ("n02012849 crane", "n03126707 crane"), "WNIDs tell them apart"),
    (("crane", "crane", "crane (0)"), ("crane (0) (0)", "crane (1)", "crane (0) (2)"), "what is made may be there"),
    ((NFC, NFD), (f"{NFC} (0)", f"{NFD} (1)"), "one name in two forms"),
    ((), (), "no class"),
]


@pytest.mark.parametrize(("names", "called", "reason"), SHARED)
def test_repeated_names_of_outputs_become_unique(names: tuple[str, ...], called: tuple[str, ...], reason: str) -> None:
    assert distinct(names) == called, reason
    assert distinct(called) == called
    assert places_in(called, called).tolist() == list(range(len(called)))


def test_a_name_finds_one_class_or_none() -> None:
    classes = ("n01440764 tench, Tinca tinca", NFD, "dog", "n02012849 a", "n02012849 b")
    asked = ("dog", NFC, "n01440764", "cat", "n02012849 c", "Dog")
    assert places_in(classes, asked).tolist() == [2, 1, 0, -1, -1, -1]
    assert [place_of_class(name, classes) for name in (NFC, "n02012849 b", "cat")] == [1, 4, None]
    assert class_key(NFC) == class_key(NFD)
    assert one_spelling([NFD, "x"]) == {NFD: NFD, "x": "x"}
    assert one_spelling([NFD, NFC]) == {NFD: NFC, NFC: NFC}
    assert len(set(ilsvrc_classes())) == 1000


@pytest.fixture
def cafes(tmp_path: Path) -> Path:
    """Photos of three classes, one of them in two folders whose names look the same."""
    for number, name in enumerate((NFC, NFD, "dog", "the\u0301")):
        for photo in range(4):
            paint(tmp_path / "photos" / name / f"{photo}.png", 10 * number + photo, (40 * number, 90, 120))
    return tmp_path


def test_normal_forms_of_a_name_are_one_class(cafes: Path, command: Command) -> None:
    """In folders, in sets, in lists and in box files; a name in one form only stays as it is."""
    classes = [NFC, "dog", "the\u0301"]
    told = json.loads(command("data", "check", cafes / "photos", "--json").stdout)
    assert told["classes"] == sorted(classes)
    assert sum(part["balance"][NFC] for part in told["sets"].values()) == 8
    photos = [f"photos/{name}/{n}.png" for name in (NFC, NFD, "dog") for n in range(4)]
    lines = [f"{photo},{Path(photo).parent.name}\n" for photo in photos]
    (cafes / "list.csv").write_text("".join(lines))
    assert open_data(DataSettings(str(cafes / "list.csv"))).classes == (NFC, "dog")
    (cafes / "sets.csv").write_text("".join(f"{line[:-1]},{'val' if NFD in line else 'train'}\n" for line in lines))
    assert len(open_data(DataSettings(str(cafes / "sets.csv"))).sets["val"]) == 4
    forms = {NFC: NFD, NFD: NFC}
    boxes = [f"{photo},11,6,30,25,{forms.get(Path(photo).parent.name, 'dog')}\n" for photo in photos]
    (cafes / "boxes.csv").write_text("".join(boxes))
    found = open_data(DataSettings(str(cafes), boxes=(str(cafes / "boxes.csv"),)))
    assert found.classes == (NFC, "dog")
    assert len(located(found.set("all"), False, Silent()).dataset) == 12
    for pattern in (NFC, NFD, f"{NFD}*"):
        chosen = open_data(DataSettings(str(cafes / "photos"), classes=(pattern, "dog")))
        assert chosen.classes == (NFC, "dog")


def renamed(trained: Path, place: Path, classes: tuple[str, ...]) -> Path:
    """A run as an older version may have stored it: the net of `trained`, its classes called otherwise."""
    found = load_checkpoint(trained / "best.safetensors")
    place.mkdir()
    save_checkpoint(place / "best.safetensors", found.net(), replace(found.metadata, classes=classes))
    return place


def photos_called(trained: Path, place: Path, names: tuple[str, ...]) -> Path:
    place.mkdir()
    for colour, name in zip(COLOURS, names, strict=True):
        (place / name).symlink_to(trained.parent / "photos" / colour)
    return place


def error(told: Any) -> tuple[int, float]:
    assert told.status == 0, told.stderr
    found = json.loads(told.stdout)
    return found["images"], found["top1_error"]


def test_repeated_class_names_do_not_change_accuracy(trained: Path, tmp_path: Path, command: Command) -> None:
    """Two outputs share a name: their places tell them apart, and a photo of either is nobody's to guess."""
    words = ["centre@36", "--set", "all", "--workers", 0, "--json"]
    expected = error(command("evaluate", trained, *words, "--data", trained.parent / "photos", "--out", tmp_path / "0"))
    crane = renamed(trained, tmp_path / "crane", ("crane", "dog", "crane"))
    apart = photos_called(trained, tmp_path / "apart", ("crane (0)", "dog", "crane (2)"))
    assert error(command("evaluate", crane, *words, "--data", apart)) == expected
    scores = load_scores(next((crane / "evaluations").rglob("scores.npz")))
    assert scores.classes == ("crane (0)", "dog", "crane (2)")
    shared = photos_called(trained, tmp_path / "shared", ("crane", "dog", "x"))
    told = command("evaluate", crane, *words, "--data", shared).mistake()
    assert "has images of class 'crane'" in told
    assert "use crane (0) or crane (2)" in told


def test_a_class_is_found_in_either_normal_form(trained: Path, tmp_path: Path, command: Command) -> None:
    """A run keeps its spelling."""
    words = ["centre@36", "--set", "all", "--workers", 0, "--json"]
    expected = error(command("evaluate", trained, *words, "--data", trained.parent / "photos", "--out", tmp_path / "0"))
    run = renamed(trained, tmp_path / "run", (NFD, "dog", NFC.upper()))
    photos = photos_called(trained, tmp_path / "photos", (NFC, "dog", unicodedata.normalize("NFD", NFC.upper())))
    assert error(command("evaluate", run, *words, "--data", photos)) == expected
    assert load_checkpoint(run / "best.safetensors").metadata.classes == (NFD, "dog", NFC.upper())


class Counted(str):
    """A name that counts how often names are compared."""

    compared = 0

    def __eq__(self, other: object) -> bool:
        Counted.compared += 1
        return str.__eq__(self, other)

    def __hash__(self) -> int:
        return str.__hash__(self)


def test_numbering_names_takes_no_more_comparisons_with_more_classes() -> None:
    """Of N names each is looked up once: with 50 times the classes it is no more work."""
    work = []
    for classes in (20, 1000):
        Counted.compared = 0
        names = [Counted(f"class {number % classes:04d}") for number in range(4000)]
        found, numbers = numbered(names)
        work.append(Counted.compared)
        assert [found[number] for number in numbers] == names
    assert max(work) <= 4 * 4000, work


class Looked(np.ndarray[Any, np.dtype[np.int64]]):
    """Labels that count how many of them are looked at, one by one or all at once."""

    looked = 0

    def __getitem__(self, place: Any) -> Any:
        Looked.looked += 1
        return np.asarray(self)[place]

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **more: Any) -> Any:
        Looked.looked += self.size
        return getattr(ufunc, method)(*(np.asarray(one) for one in inputs), **more)


def test_splitting_looks_at_each_label_a_few_times_whatever_the_number_of_classes() -> None:
    for classes in (10, 400):
        Looked.looked = 0
        labels = (np.arange(1200, dtype=np.int64) % classes).view(Looked)
        ids = tuple(f"{number}.png" for number in range(1200))
        whole = Dataset("d", "all", tuple(map(str, range(classes))), ids, labels, FolderSource(Path()))
        assert sum(map(len, split(whole, {"dev": 0.1}, 0).values())) == 1200
        assert Looked.looked <= 6 * 1200, (classes, Looked.looked)


@pytest.mark.parametrize(
    ("name", "text", "short"),
    [
        ("n01440764 tench, Tinca tinca", "tench (n01440764)", "tench"),
        ("n01440764", "n01440764", "n01440764"),  # a folder's
        ("tench, Tinca tinca", "tench, Tinca tinca", "tench, Tinca tinca"),
        ("n0144 tench", "n0144 tench", "n0144 tench"),
        ("n01440764 ", "n01440764 ", "n01440764 "),
        ("", "", ""),
    ],
)
def test_people_read_the_words_before_the_wnid(name: str, text: str, short: str) -> None:
    assert (display_name(name), caption(name)) == (text, short)
