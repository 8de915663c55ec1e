"""Evaluations, scores files, tables and pictures."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from jinja2 import UndefinedError
from pages_read import read_page
from PIL import Image

import verydeep
from verydeep import VerydeepError
from verydeep.evaluation.metrics import class_errors, confused_pairs, worst_mistakes
from verydeep.evaluation.scores import Scores, load_scores, save_scores
from verydeep.paper.tables import markdown_table, write_block
from verydeep.reports.figures import photo_grid, save_figure, write_evaluation_pictures
from verydeep.reports.html import Tile, render, write_page


def scores() -> Scores:
    posteriors = np.array([[0.7, 0.2, 0.1], [0.6, 0.3, 0.1], [0.5, 0.1, 0.4], [0.1, 0.8, 0.1]], dtype=np.float32)
    labels = np.array([0, 1, 2, 1])
    ids, groups = ("a/1", "b/1", "c/1", "b/2"), np.arange(4)
    return Scores(ids, labels, groups, ("a", "b", "c"), posteriors, "test", "d", "A", "dense@36", "0" * 64)


def test_scores_round_trip_as_plain_arrays(tmp_path: Path) -> None:
    save_scores(tmp_path / "s.npz", scores())
    found = load_scores(tmp_path / "s.npz")
    assert found.ids == scores().ids
    assert found.classes == scores().classes
    np.testing.assert_array_equal(found.posteriors, scores().posteriors)
    assert (found.set_name, found.protocol) == ("test", "dense@36")
    with np.load(tmp_path / "s.npz", allow_pickle=False) as plain:
        assert set(plain.files) == {
            *("ids", "labels", "subjects", "classes", "posteriors"),
            *("set", "data", "run", "protocol", "checkpoint"),
        }


def test_other_files_are_not_scores_files(tmp_path: Path) -> None:
    for data in (b"", b"PK\x03\x04 nonsense", b"text"):
        (tmp_path / "s.npz").write_bytes(data)
        with pytest.raises(VerydeepError, match="is not a scores file"):
            load_scores(tmp_path / "s.npz")


def test_summaries_by_hand() -> None:
    assert class_errors(scores()) == [
        {"class": "a", "images": 1, "top1_error": 0.0},
        {"class": "b", "images": 2, "top1_error": 50.0},
        {"class": "c", "images": 1, "top1_error": 100.0},
    ]
    assert confused_pairs(scores()) == [
        {"class": "b", "taken_for": "a", "images": 1},
        {"class": "c", "taken_for": "a", "images": 1},
    ]
    assert worst_mistakes(scores(), 5) == [1, 2]  # .3 for the right class, then .4


def test_python_functions_on_files_and_arrays(trained: Path) -> None:
    photo = sorted((trained.parent / "photos" / "red").iterdir())[0]
    net = verydeep.load(trained)
    pixels = verydeep.read_image(photo)
    held = [str(photo), photo, photo.read_bytes(), pixels, torch.from_numpy(pixels), Image.fromarray(pixels)]
    found = net.predict(held, top=3)
    assert len({answer.classes for answer in found}) == 1
    assert found[0].image == str(photo)
    for other in (net.predict(pixels)[0], verydeep.predict(trained, str(photo.parent))[0]):  # in batches of other sizes
        assert [name for name, _ in other.classes] == [name for name, _ in found[0].classes]
        assert dict(other.classes) == pytest.approx(dict(found[0].classes), abs=1e-6)
    assert net.classes == ("blue", "green", "red")
    assert isinstance(net, verydeep.Classifier)
    assert net.posteriors(pixels).shape == (1, 3)
    with pytest.raises(verydeep.ImageError, match="image 1 is an empty file"):
        net.predict([pixels, b""])
    for wrong in (torch.zeros(3, 4, 4, dtype=torch.bfloat16), object(), "a\0b"):
        with pytest.raises(verydeep.ImageError):
            net.predict(wrong)
    with pytest.raises(VerydeepError, match="top must be 1 or more"):
        net.predict(pixels, top="3")  # type: ignore[arg-type]


def test_evaluation_agrees_with_prediction(trained: Path, tmp_path: Path) -> None:
    done = verydeep.evaluate(trained, "dense@36,40", out=tmp_path / "e")
    net = verydeep.load(trained)
    assert isinstance(net, verydeep.Classifier)
    asked = net.posteriors([done.dataset.pixels(i) for i in range(len(done.dataset))], "dense@36,40")
    np.testing.assert_allclose(done.scores.posteriors, asked, atol=1e-6)
    other = verydeep.evaluate(
        trained, "dense@36,40", out=tmp_path / "f", machine=verydeep.MachineSettings(workers=2, threads=1)
    )
    np.testing.assert_array_equal(done.scores.posteriors, other.scores.posteriors)


def test_pictures_can_be_opened(trained: Path, tmp_path: Path) -> None:
    done = verydeep.evaluate(trained, "dense@36", out=tmp_path / "e")
    for path in write_evaluation_pictures(done):
        with Image.open(path) as picture:
            assert min(picture.size) > 200
    grid = photo_grid([(done.dataset.pixels(0), "a name with $ and \x1b and _ ^")] * 7)
    with Image.open(save_figure(grid, tmp_path / "g.png")) as picture:
        assert np.asarray(picture).std() > 5


HOSTILE = "<script>\"'&\x1b\u202e"


def test_a_page_escapes_hostile_text_in_elements_and_attributes(tmp_path: Path) -> None:
    pair: dict[str, Any] = {
        "second": "b",
        "first_test": HOSTILE,
        "second_test": HOSTILE,
        "photos": HOSTILE,
        "images": 1,
        "p": 1,
    }
    pair |= {"difference": 1, "interval": [0, 2], "only_second_wrong": HOSTILE, "only_first_wrong": HOSTILE}
    context: dict[str, object] = {"title": HOSTILE, "summary": HOSTILE, "error_name": HOSTILE, "other_splits": False}
    evaluation = SimpleNamespace(name=HOSTILE, photos=HOSTILE, images=1, error_and_interval=("", ""))
    run = SimpleNamespace(
        **{"status": HOSTILE, "metadata": SimpleNamespace(net=HOSTILE), "scale": HOSTILE, "log": [], "seconds": 0},
        **{"facts": SimpleNamespace(parameters=1), "best": None, "evaluation": None, "images_per_second": None},
    )
    context |= {"runs": [(HOSTILE, run)], "evaluations": [(HOSTILE, evaluation)], "pairs": [pair]}
    context |= {"labels": {"b": HOSTILE}, "charts": [], "settings": [(HOSTILE, HOSTILE)]}
    write_page(tmp_path / "p.html", "comparison.html", context)
    page = read_page(tmp_path / "p.html")
    hidden = "<script>\"'&??"
    assert page.source.count("&lt;script&gt;&#34;&#39;&amp;??") == 23
    assert f"Difference of the error to {hidden}, on the same images" in [
        div.get("aria-label") for div in page.all("div")
    ]
    assert not re.search("<script|\x1b|\u202e", page.source)
    demo: dict[str, object] = dict.fromkeys(("title", "state", "summary", "crop", "evaluations"), HOSTILE)
    tiles = [Tile("data:image/png;base64,", f"{HOSTILE}\n{HOSTILE}"), Tile(None, HOSTILE)]
    demo |= {"training": None, "confusion": "data:image/png;base64,", "crops": tiles, "mistakes": [], "predictions": []}
    write_page(tmp_path / "d.html", "demo.html", demo)
    assert read_page(tmp_path / "d.html").all("img")[0]["alt"] == "training crop: <script>\"'&??, <script>\"'&??"


def test_a_template_with_a_missing_variable_is_an_error() -> None:
    with pytest.raises(UndefinedError, match="'svms' is undefined"):
        render("svm_comparison.html", dict.fromkeys(("title", "summary", "figure_name", "refresh", "written"), ""))


def test_tables_are_written_between_markers_only(tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    page.write_text("before\n<!-- t -->\nold\n<!-- /t -->\nafter\n")
    write_block(page, "t", markdown_table(["a", "b"], [["x|y", 1]]))
    assert page.read_text() == "before\n<!-- t -->\n| a | b |\n| --- | --- |\n| x\\|y | 1 |\n<!-- /t -->\nafter\n"
    with pytest.raises(VerydeepError, match="needs the lines <!-- u -->"):
        write_block(page, "u", "")
