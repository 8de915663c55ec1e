"""Commands over many inputs: a bad one is reported at the end with status 1, and the results of the others are kept."""

from __future__ import annotations

import json
import os
import shutil
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from conftest import Answer, paint, run_command
from verydeep.core.files import FreeNames, short_name

FAST = ("--workers", 0, "--threads", 1)
# Photos' names without their ending, of 255 bytes at most with it; each pair is one name for some file system or cut.
NAMES = [
    "a" * 250 + "x",
    "a" * 250 + "y",  # differs in its last letter only
    "é" * 120 + "1",  # letters of two bytes
    "日" * 80 + "2",  # of three
    "IMG",
    "img",  # differs in case
    unicodedata.normalize("NFC", "café"),
    unicodedata.normalize("NFD", "café"),  # differs in Unicode form
    "ok",
]


def asked(verb: str, served: Path, out: Path) -> list[object]:
    """A command over photos, which come last, and its folder of pictures."""
    return {
        "predict": ["predict", served / "run", "--explain", out, *FAST],
        "localise": ["localise", "predict", served / "net", "--out", out, *FAST],
        "similar": ["similar", "--features", served / "f.safetensors", "--out", out, *FAST],
    }[verb]


def pictures_of(verb: str, answer: Answer, out: Path) -> list[str]:
    """The pictures of a command's photos; of an explanation the map."""
    rows = json.loads(answer.stdout)
    if verb == "predict":
        return [row["explained"]["map"] for row in rows]
    if verb == "localise":
        return sorted(str(path) for path in out.glob("*.jpg"))
    return [str(out / row["picture"]) for row in json.loads((out / "similar.json").read_text())["photos"]]


@pytest.mark.parametrize("verb", ["predict", "localise", "similar"])
def test_long_names_and_names_of_one_file_have_pictures_of_their_own(served: Path, tmp_path: Path, verb: str) -> None:
    for number, name in enumerate(NAMES):
        paint(tmp_path / "photos" / f"{name}.png", number, (90, 120, 200))
    out = tmp_path / "out"
    answer = run_command(*asked(verb, served, out), "--json", *sorted((tmp_path / "photos").iterdir()))
    assert answer.status == 0, answer.stderr
    made = [Path(str(path)) for path in pictures_of(verb, answer, out)]
    assert len(made) == len(NAMES)
    assert all(path.is_file() for path in made)
    known = {unicodedata.normalize("NFC", path.name).casefold() for path in made}
    assert len(known) == len(NAMES)
    assert all(len(os.fsencode(path.name)) <= 255 for path in out.iterdir())
    assert sum(path.name.startswith("a" * 200) for path in made) == 2  # a readable head
    assert sum(path.name.startswith("日" * 60) for path in made) == 1
    assert any(path.name in ("ok.png", "ok.jpg", "ok-map.png") for path in made)  # short names stay


def test_names_are_cut_between_letters_and_only_where_they_are_too_long() -> None:
    assert short_name("b" * 251, ".png") == "b" * 251 + ".png"  # 255 bytes
    cut = short_name("b" * 252, ".png")
    assert cut.startswith("b" * 242 + "-")  # 255 less the ending, a dash and 8 letters
    assert len(cut) == 255
    wide = short_name("日" * 100, ".png")
    assert wide.startswith("日" * 80 + "-")  # of 242 bytes 240
    names = FreeNames(Path("out"), [Path("out/a.png")])
    found = [names.after(name, ".png")[0].name for name in ("x/a.jpg", "y/A.jpg", "b.jpg", "b.png")]
    assert found == ["a-2.png", "A-3.png", "b.png", "b-2.png"]


@pytest.mark.parametrize(
    ("verb", "place"), [("predict", 0), ("predict", 1), ("predict", 2), ("localise", 1), ("similar", 0)]
)
def test_a_bad_image_leaves_the_results_of_the_others(served: Path, tmp_path: Path, verb: str, place: int) -> None:
    good = [tmp_path / "good1.png", tmp_path / "good2.png"]
    for number, path in enumerate(good):
        paint(path, number, (90, 120, 200))
    torn = tmp_path / "torn.png"
    torn.write_bytes(good[0].read_bytes()[:90])
    Image.new("RGB", (3000, 4)).save(tmp_path / "strip.png")
    bad: list[object] = [torn, "nowhere.png", tmp_path / "strip.png", "n" * 300 + ".png", "*.nothing", tmp_path / "dir"]
    (tmp_path / "dir").mkdir()
    typed: list[object] = [*good[:place], *bad, *good[place:]]
    answer = run_command(*asked(verb, served, tmp_path / "out"), "--json", *typed, cwd=tmp_path)
    assert answer.status == 1, answer.stderr
    assert [row["image"] for row in json.loads(answer.stdout)] == list(map(str, good))
    result = [line for line in answer.stderr.splitlines() if line.startswith("verydeep: ")]
    assert len(result) == len(bad), answer.stderr
    for words in ("torn.png", "nowhere.png", "strip.png", "nnnn.png", "*.nothing", "dir has no images"):
        assert any(words in line for line in result), words
    none = run_command(*asked(verb, served, tmp_path / "out"), *bad, cwd=tmp_path)
    assert none.status == 2
    assert "Traceback" not in none.stderr


@pytest.mark.parametrize(
    ("verb", "taken"),
    [("predict", "b-map.png"), ("predict", "b-gradcam.png"), ("localise", "b.jpg"), ("localise", "boxes.json")],
)
def test_an_unwritable_picture_is_reported_at_the_end(served: Path, tmp_path: Path, verb: str, taken: str) -> None:
    """A folder with something in it is in the file's place, which no user's rights would change."""
    photos = [tmp_path / f"{name}.png" for name in "abc"]
    for number, path in enumerate(photos):
        paint(path, number, (90, 120, 200))
    out = tmp_path / "out"
    (out / taken / "mine").mkdir(parents=True)
    answer = run_command(*asked(verb, served, out), "--json", *photos)
    assert answer.status == 1, answer.stderr
    assert [row["image"] for row in json.loads(answer.stdout)] == list(map(str, photos))
    (result,) = [line for line in answer.stderr.splitlines() if line.startswith("verydeep: ")]
    assert taken in result
    others = [path.name for path in out.iterdir() if path.name.startswith(("a", "c"))]
    assert len(others) == (4 if verb == "predict" else 2)


def test_unwritable_pictures_leave_an_evaluations_numbers(served: Path, tmp_path: Path) -> None:
    for verb, run, picture in (((), "run", "confusion.png"), (("localise",), "net", "wrong.png")):
        out = tmp_path / run
        for name in (picture, "right.png"):
            (out / name / "mine").mkdir(parents=True)
        words = (*verb, "evaluate", served / run, "centre@36", "--out", out, *FAST, "--json")
        answer = run_command(*words)
        assert answer.status == 1, answer.stderr
        assert json.loads(answer.stdout)["images"] > 0
        assert ".png" in answer.stderr
        assert (out / "result.json").is_file()


def test_data_with_a_long_name_are_evaluated(served: Path, tmp_path: Path) -> None:
    """The test's folder is called after the data, with three letters before."""
    data = tmp_path / ("d" * 254)
    shutil.copytree(served / "photos", data)
    shutil.copytree(served / "run", tmp_path / "run")
    answer = run_command("evaluate", tmp_path / "run", "centre@36", "--data", data, *FAST, "--json")
    assert answer.status == 0, answer.stderr
    assert Path(json.loads(answer.stdout)["folder"]).is_dir()
    features = tmp_path / ("f" * 243 + ".safetensors")
    words = ("features", tmp_path / "run", "--data", served / "photos", "--out", features, "--scales", 36, *FAST)
    assert run_command(*words).status == 0
    assert features.is_file()


def test_runs_that_cannot_be_read_are_left_out_of_a_comparison(served: Path, tmp_path: Path) -> None:
    shutil.copytree(served / "run", tmp_path / "two")
    torn = tmp_path / "torn"
    torn.mkdir()
    (torn / "best.safetensors").write_bytes(b"no net")
    good: list[Any] = [served / "run", tmp_path / "two"]
    bad: list[Any] = [torn, tmp_path / "nowhere", "n" * 300, served / "net"]  # the last is of another kind
    for typed in ([*bad[:3], *good, bad[3]], [good[0], *bad, good[1]], [*good, *bad]):
        answer = run_command("report", *typed, "--out", tmp_path / "page.html", "--json")
        assert answer.status == 1, answer.stderr
        result = json.loads(answer.stdout)
        assert [row["folder"] for row in result["runs"]] == list(map(str, good))
        assert len(result["faults"]) == 4
        assert answer.stderr.count("verydeep: ") == 4
        assert (tmp_path / "page.html").is_file()
    alone = run_command("report", good[0], tmp_path / "nowhere", "--out", tmp_path / "one.html")
    assert alone.status == 1
    assert str(good[0]) in alone.stdout
    assert "1 run on" in (tmp_path / "one.html").read_text()
    assert "nowhere does not exist" in run_command("report", tmp_path / "nowhere", tmp_path / "gone").mistake()


def test_explanations_in_python_raise_without_a_place_for_faults(served: Path, tmp_path: Path) -> None:
    import verydeep
    from verydeep.evaluation.predict import Classifier
    from verydeep.evaluation.saliency import write_explanations

    net = verydeep.load(served / "run")
    assert isinstance(net, Classifier)
    paint(tmp_path / "a.png", 1, (9, 9, 9))
    found = net.predict([str(tmp_path / "a.png")])
    (tmp_path / "out" / "a-map.png" / "mine").mkdir(parents=True)
    with pytest.raises(verydeep.VerydeepError, match="cannot write"):
        write_explanations(net, found, tmp_path / "out")
    (tmp_path / "a.png").unlink()  # gone since it was listed
    faults: dict[int, str] = {}
    assert write_explanations(net, found, tmp_path / "new", faults=faults) == [None]
    assert ": cannot read" in faults[0]
    assert np.isfinite(found[0].classes[0][1])
