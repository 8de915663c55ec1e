"""Reports: the page of a run during training and after, and pages that compare several."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pages_read import read_page

from conftest import Answer, make_photos, own_photos, run_command
from verydeep import VerydeepError
from verydeep.checkpoints.checkpoint import Metadata, read_metadata
from verydeep.cli.parser import given_settings, parse
from verydeep.core.config import to_json
from verydeep.core.files import only_one, taken
from verydeep.core.settings import TrainSettings
from verydeep.evaluation.metrics import mcnemar
from verydeep.evaluation.scores import load_scores
from verydeep.reports.charts import HEIGHT, WIDTH, Line, line_chart
from verydeep.reports.html import render
from verydeep.reports.write import write_report
from verydeep.training.recipes import settings_of_run
from verydeep.training.rerun import command_of

SIZE = ("--crop", 32, "--width", 0.03125, "--S", 36, "--batch", 8, "--workers", 0, "--threads", 1)
NASTY = '<script>alert("x")<&\u202e'  # what a folder of photos may be called


def done(words: str | list[object], cwd: Path) -> Answer:
    """The result of a command that has to succeed."""
    answer = run_command(*(words.split() if isinstance(words, str) else words), cwd=cwd)
    assert answer.status == 0, answer.stderr
    return answer


def train(place: Path, out: str, *words: object) -> None:
    done(["train", "A", "--data", "photos", "--out", out, *SIZE, *words], place)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two evaluated runs on the same images; one class has a name that is HTML. Read-only."""
    place = tmp_path_factory.mktemp("reports")
    make_photos(place / "photos")
    (place / "photos" / "red").rename(place / "photos" / NASTY)
    train(place, "one", "--max-epochs", 3, "--drop-at", 1)
    train(place, "two", "--max-epochs", 2, "--seed", 1)
    for run, protocol in (("one", "dense@36"), ("one", "dense@36,44"), ("two", "dense@36")):
        done(["evaluate", run, protocol, "--workers", 0], place)
    return place


def test_a_report_describes_a_run(place: Path) -> None:
    page = read_page(place / "one" / "report.html")
    assert not page.refreshed
    for words in ("finished", "best dev error", "top-1 error (%)", "Training crops", "filters of conv1_1"):
        assert words in page.text, words
    for words in ("0.01, divided by 10 after epochs 1", "lr 0.001", "dense@36,44", "95 % interval", "images/s"):
        assert words in page.text, words
    for words in ("Errors by class", "mean class recall", "Probabilities", "accuracy equal to confidence"):
        assert words in page.text, words
    document = json.loads((place / "one" / "evaluations" / "test" / "dense@36" / "result.json").read_text())
    low, high = document["top1_error_interval"]
    assert f"{document['top1_error']:.2f} %" in page.text
    assert f"{low:.2f} to {high:.2f} %" in page.text
    assert f"ECE {document['ece']:.2f} %" in page.text
    assert f"NLL {document['nll']:.4f}; Brier score {document['brier']:.4f}." in page.text
    if document["top1_error"]:
        assert "Most confident mistakes" in page.text
        assert any(alt["alt"].startswith("misclassified image: ") for alt in page.all("img"))
    crops = [document["alt"] for document in page.all("img") if document["alt"].startswith("training crop: ")]
    assert len(crops) == 16
    assert '<script>alert("x")<&?' in page.text  # its name, to the letter, but for what turns the line around
    assert "<script" not in page.source
    rows = json.loads((place / "one" / "log.jsonl").read_text().splitlines()[0])
    assert f"{rows['loss']:.3f}" in page.text


def test_the_printed_command_makes_the_same_run(place: Path, tmp_path: Path) -> None:
    (words,) = re.findall(r"verydeep train A .*?/one\b", read_page(place / "one" / "report.html").text, re.DOTALL)
    typed = shlex.split(words.replace("\\\n", " "))[1:]
    typed[typed.index("--out") + 1] = str(tmp_path / "again")
    done([*typed, "--workers", 0, "--threads", 1], tmp_path)
    assert (tmp_path / "again" / "config.json").read_text() == (place / "one" / "config.json").read_text()
    cards = [read_metadata(folder / "last.safetensors") for folder in (place / "one", tmp_path / "again")]
    assert cards[0] == cards[1]


@settings(max_examples=15, deadline=None)
@given(
    st.sampled_from(["A", "D", "A/256", "D/384", "E/256-512", "D/256-fc"]),
    st.fixed_dictionaries(
        {},
        optional={
            "crop": st.sampled_from([32, 64, 224]),
            "S": st.sampled_from(["224-300", "256", "300"]),
            "lr": st.sampled_from([0.1, 5e-05, 0.01]),
            "drop_at": st.sampled_from([(3, 7), (2,)]),
            "start": st.sampled_from(["none", "a b/$x.pth"]),
            "mirror": st.booleans(),
            "batch": st.integers(0, 300),
        },
    ),
)
def test_a_run_name_and_its_overrides_give_the_settings(run: str, chosen: dict[str, Any]) -> None:
    asked = settings_of_run(run, chosen)
    metadata = card_with(asked)
    options = parse(shlex.split(" ".join(command_of(run, metadata)))[1:])
    typed = given_settings(options)
    assert typed.pop("data") == "digits"
    assert settings_of_run(options.run, typed) == asked


def card_with(settings: TrainSettings) -> Metadata:
    """A card with these settings."""
    result: dict[str, Any] = {"data": {"data": "digits"}, "settings": to_json(settings)}
    return Metadata(settings.net, settings.crop, settings.width, ("a", "b"), (1.0, 2.0, 3.0), 256, **result)


def test_a_report_is_written_each_epoch_and_a_killed_training_resumes(tmp_path: Path) -> None:
    make_photos(tmp_path / "photos")
    words = ["train", "A", "--data", "photos", "--out", "run", *map(str, SIZE), "--max-epochs", "5000"]
    words += ["--patience", "5000"]
    command = [sys.executable, "-m", "verydeep", *words]
    run = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"})
    report = tmp_path / "run" / "report.html"
    seen: set[str] = set()
    until = time.monotonic() + 120
    while len(seen) < 4 and time.monotonic() < until:
        if report.exists():
            page = read_page(report)  # whole, whenever it is read
            assert page.refreshed
            seen |= set(
                re.findall(r"Epoch \d+ of at most 5000; about [^;]* left, less if it stops at a plateau", page.text)
            )
        time.sleep(0.05)
    assert len(seen) >= 4
    assert write_report(tmp_path / "run")["state"] == "training"
    run.send_signal(signal.SIGKILL)
    run.wait()
    read_page(report)
    assert write_report(tmp_path / "run")["state"] == "stopped"
    page = read_page(report)
    assert "Stopped early after" in page.text
    assert not page.refreshed
    epochs = json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[-1])["epoch"]
    done(f"train A --out run --resume --max-epochs {epochs + 2} --workers 0", tmp_path)
    page = read_page(report)
    assert f"{epochs + 2} epochs" in page.text
    assert "finished" in page.text


def test_training_continues_without_a_report_that_cannot_be_written(tmp_path: Path) -> None:
    make_photos(tmp_path / "photos")
    (tmp_path / "run" / "report.html").mkdir(parents=True)
    trained = run_command("train", "A", "--data", "photos", "--out", "run", *SIZE, "--max-epochs", 3, cwd=tmp_path)
    assert trained.status == 0, trained.stderr
    assert trained.stderr.count("cannot write the run's report; training continues") == 1
    assert "Traceback" not in trained.stderr
    assert json.loads((tmp_path / "run" / "result.json").read_text())["epochs"] == 3
    tested = done("evaluate run dense@36 --workers 0 --json", tmp_path)
    assert json.loads(tested.stdout)["images"] == 6
    assert tested.stderr.count("cannot update the run's report") == 1
    assert "exists and is not a report" in run_command("report", "run", cwd=tmp_path).mistake()


def test_missing_images_and_pictures_are_replaced_by_a_sentence(place: Path, tmp_path: Path) -> None:
    """Images deleted, then the stored picture of them, then the checkpoint that was evaluated."""
    shutil.copytree(place, tmp_path / "place")
    run = tmp_path / "place" / "one"
    whole = read_page(run / "report.html")
    shown = len(whole.all("img"))
    metadata = json.loads((run / "config.json").read_text())
    assert metadata["data"]["data"] == str(place / "photos")  # not those of the copy
    place.joinpath("photos").rename(place / "hidden")
    try:
        write_report(run)
        page = read_page(run / "report.html")
        assert "as the training images no longer exist" in page.text
        assert "Errors by class" in page.text
        assert len(page.all("img")) < shown
        for path in (run / "evaluations").glob("**/*.png"):
            path.unlink()
        write_report(run)
        document = json.loads((run / "evaluations" / "test" / "dense@36" / "result.json").read_text())
        sentence = (
            "No picture: the images no longer exist" if document["top1_error"] else "None: every image is classified"
        )
        assert sentence in read_page(run / "report.html").text
    finally:
        place.joinpath("hidden").rename(place / "photos")
    shutil.copy(place / "two" / "best.safetensors", run / "best.safetensors")
    shutil.copy(place / "two" / "last.safetensors", run / "last.safetensors")
    found = write_report(run)
    assert [test["of_this_net"] for test in found["tests"]] == [False, False]
    assert "an earlier one" in read_page(run / "report.html").text


@pytest.mark.parametrize("text", ["", "not json", "[1]", '{"protocol": 1}', '{"checkpoints": []}'])
def test_damaged_files_are_left_out(place: Path, tmp_path: Path, text: str) -> None:
    shutil.copytree(place / "one", tmp_path / "one")
    run = tmp_path / "one"
    (run / "evaluations" / "test" / "dense@36" / "result.json").write_text(text)
    (run / "result.json").write_text(text)
    (run / "environment.json").write_text(text)
    with (run / "log.jsonl").open("a") as file:
        file.write('{"epoch": 4, "loss": "much"}\n{"epoch": 5, "lo')
    found = write_report(run)
    assert [test["test"] for test in found["tests"]] == ["dense@36,44"]
    assert (found["epochs"], found["state"]) == (3, "stopped")
    read_page(run / "report.html")


def test_runs_side_by_side(place: Path, tmp_path: Path) -> None:
    found = json.loads(done(["report", "one", "two", "--out", tmp_path / "both.html", "--json"], place).stdout)
    assert [run["folder"] for run in found["runs"]] == ["one", "two"]
    assert {row["setting"] for row in found["differing"]} == {"drop_at", "max_epochs", "seed"}
    (pair,) = found["pairs"]
    scores = [load_scores(place / run / "evaluations" / "test" / "dense@36") for run in ("one", "two")]
    wrong = [found.posteriors.argmax(axis=1) != found.labels for found in scores]
    assert pair["difference"] == pytest.approx(100 * (wrong[1].mean() - wrong[0].mean()), abs=1e-4)
    assert {name: pair[name] for name in ("only_first_wrong", "only_second_wrong", "p")} == mcnemar(
        wrong[0], wrong[1], np.arange(6)
    )
    assert pair["interval"][0] <= pair["difference"] <= pair["interval"][1]
    page = read_page(tmp_path / "both.html")
    for words in (
        "2 runs on",
        "Difference of the error to one, on the same images",
        "training loss",
        "drop-at",
        "Settings that differ",
    ):
        assert words in page.text, words
    curves = [result["class"] for result in page.all("polyline")]
    assert curves == ["line s0", "line s1"] * 2
    shown = done("report one two", place).stdout
    assert "against one, on the same images" in shown
    assert "comparison.html" in shown
    assert (place / "comparison.html").exists()


def test_runs_of_different_scales_are_compared_at_their_own_scale(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "one", tmp_path / "one")
    shutil.copytree(place / "two", tmp_path / "two")
    shutil.rmtree(tmp_path / "one" / "evaluations" / "test" / "dense@36")
    found = write_report([tmp_path / "one", tmp_path / "two"], tmp_path / "c.html")
    (pair,) = found["pairs"]
    assert (pair["first_test"], pair["second_test"]) == ("dense@36,44", "dense@36")
    assert "dense@36 against dense@36,44" in read_page(tmp_path / "c.html").text


MISTAKES = {
    "report nowhere": "nowhere does not exist: use the directory of a run, a probe or SVMs",
    "report photos": "photos is not a run directory: it has no checkpoint (best.safetensors, last.safetensors) and no",
    "report one/config.json": "one/config.json is a file: use the directory",
    "report one one/": "one is listed twice",
    "report photos nowhere": "photos is not a run directory",
    "report one --out photos": "photos is a directory: pass a file as --out, such as photos/comparison.html",
    "report one --out one/best.safetensors": "one/best.safetensors exists and is not a report",
    "report one two --out one/log.jsonl": "one/log.jsonl exists and is not a report",
    "report one --out one/config.json/page.html": "is not a folder; use another --out",
    "report one other": "other has other data than one (",
    "report svms one": "svms contains SVMs and one a run: compare directories of one kind",
    "report one boxes": "boxes is a localisation run and one a classification run: compare runs of one kind",
    "report broken": "broken/result.json was not written by `verydeep svm`: train the SVMs again for a report",
}


@pytest.fixture(scope="module")
def kinds(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same place with a run on other images, SVMs, and an evaluated localisation model."""
    kinds = tmp_path_factory.mktemp("kinds")
    shutil.copytree(place, kinds, dirs_exist_ok=True)
    own_photos(kinds / "boxed")
    data = ("--data", "boxed/photos", "--boxes", "boxed/boxes.csv")
    words = (*data, *SIZE, "--max-epochs", 1)
    done(["train", "A", *words, "--out", "other"], kinds)
    done(["localise", "train", "A", *words, "--start", "other", "--out", "boxes"], kinds)
    for protocol in ("centre@36", "dense@36"):
        done(f"localise evaluate boxes {protocol} --workers 0", kinds)
    done("features two --data photos --out f.safetensors --scales 36 --workers 0", kinds)
    learnt = done("svm own --features f.safetensors --out svms --splits 2", kinds)
    assert "report: report.html" in learnt.stdout
    done("svm own --features f.safetensors --out hinge --loss hinge", kinds)
    shutil.copytree(kinds / "svms", kinds / "broken")
    (kinds / "broken" / "result.json").write_text("{}")
    return kinds


@pytest.mark.parametrize("words", MISTAKES)
def test_mistakes_have_a_message(kinds: Path, words: str) -> None:
    before = {path: path.stat().st_mtime_ns for path in kinds.glob("**/*") if path.is_file()}
    assert MISTAKES[words] in run_command(*words.split(), cwd=kinds).mistake()
    assert before == {path: path.stat().st_mtime_ns for path in kinds.glob("**/*") if path.is_file()}


def test_localisation_has_a_report(kinds: Path) -> None:
    page = read_page(kinds / "boxes" / "report.html")
    for words in ("GT-class error", "wrong box of the true class", "a box per class (PCR)", "The target box is green"):
        assert words in page.text, words
    assert "baseline: the best constant box" in page.text
    named = {result["alt"] for result in page.all("img")}
    assert any(alt.startswith(("Right boxes", "Wrong boxes")) for alt in named)
    assert "verydeep localise train A --data" in page.text.replace(" \\\n  ", " ")  # folded after long paths
    result = json.loads(done("report boxes --json", kinds).stdout)
    assert {test["test"] for test in result["tests"]} == {"centre@36", "dense@36"}
    assert result["best_dev_error"] is not None


def test_svms_have_a_report(kinds: Path) -> None:
    page = read_page(kinds / "svms" / "report.html")
    for words in ("Choice of C", "mean class recall", "Results by class", "2 splits", "Worst mistakes"):
        assert words in page.text, words
    assert len(page.all("polyline")) == 2
    document = json.loads((kinds / "svms" / "result.json").read_text())
    assert f"C = {document['splits'][0]['C']:g}" in page.text
    again = done("report svms --json", kinds)
    assert json.loads(again.stdout)["splits"] == document["splits"]
    if document["mistakes"]:
        assert f"predicted {document['mistakes'][0]['taken_for']}"[:12] in page.text


def test_svms_side_by_side(kinds: Path, tmp_path: Path) -> None:
    found = json.loads(done(["report", "svms", "hinge", "--out", tmp_path / "c.html", "--json"], kinds).stdout)
    assert [row["folder"] for row in found["svms"]] == ["svms", "hinge"]
    assert [row["loss"] for row in found["svms"]] == ["squared-hinge", "hinge"]
    page = read_page(tmp_path / "c.html")
    assert "2 linear SVMs on" in page.text
    assert len(page.all("polyline")) == 2


def test_imported_weights_have_a_report(place: Path, tmp_path: Path) -> None:
    done(["convert", place / "one" / "best.safetensors", "net.pth"], tmp_path)
    done("convert net.pth net", tmp_path)
    assert json.loads(done("report net --json", tmp_path).stdout)["state"] == "a net"
    page = read_page(tmp_path / "net" / "report.html")
    assert "imported weights, trained on photos." in page.text


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.lists(st.tuples(st.floats(0, 1e4), st.floats(-1e9, 1e9)), min_size=1, max_size=40), min_size=1, max_size=12
    ),
    st.lists(st.tuples(st.floats(0, 1e4), st.text(max_size=8)), max_size=4),
    st.booleans(),
)
def test_a_chart_is_drawn_within_its_frame(
    lines: list[list[tuple[float, float]]], marks: list[tuple[float, str]], from_zero: bool
) -> None:
    drawn = line_chart(
        "y", [Line(f"<{n}>", tuple(sorted(one))) for n, one in enumerate(lines)], "x", marks, None, from_zero
    )
    tree = ElementTree.fromstring(drawn)
    for found in tree.iter("polyline"):
        for place in found.attrib["points"].split():
            x, y = (float(value) for value in place.split(","))
            assert 0 <= x <= WIDTH
            assert 0 <= y <= HEIGHT
    texts = [found.text for found in tree.iter("li")]
    assert len(texts) == len(lines)
    assert sum(found.attrib.get("text-anchor") == "end" for found in tree.iter("text")) >= 2  # heights to read by


def contrast(first: str, second: str) -> float:
    """Of two colours, as WCAG 2 counts it."""

    def light(colour: str) -> float:
        whole = colour if len(colour) == 7 else "#" + "".join(2 * letter for letter in colour[1:])
        shares = [int(whole[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        parts = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2] + 0.05

    lights = sorted((light(first), light(second)))
    return lights[1] / lights[0]


def test_contrast_in_light_and_dark_mode() -> None:
    css = render("report.css", {})
    themes = [
        dict(re.findall(r"--(\w+): (#\w+)", theme)) for theme in re.findall(r":root \{([^}]*--paper[^}]*)\}", css)
    ]
    assert set(themes[0]) == set(themes[1])
    for theme in themes:
        for text in ("ink", "soft", "accent"):
            for behind in ("paper", "card", "wash"):
                assert contrast(theme[text], theme[behind]) >= 4.5, (text, behind)
        for number in range(1, 8):
            assert contrast(theme[f"s{number}"], theme["paper"]) >= 3, number


def test_whether_a_process_holds_a_folder(tmp_path: Path) -> None:
    assert not taken(tmp_path / "nowhere")
    assert not taken(tmp_path)
    with only_one(tmp_path):
        assert taken(tmp_path)
    assert not taken(tmp_path)


def test_reports_from_python(place: Path, tmp_path: Path) -> None:
    import verydeep

    found = verydeep.write_report(place / "one", tmp_path / "page.html")
    assert (found["page"], found["net"], found["epochs"]) == (str(tmp_path / "page.html"), "A", 3)
    with pytest.raises(VerydeepError, match="there is nothing to report on"):
        verydeep.write_report([])


def on_a_terminal(*words: object, cwd: Path, **env: str) -> str:
    """What a command shows on a terminal of 80 columns; news goes elsewhere."""
    import pty
    import struct
    import termios
    from fcntl import ioctl

    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 80, 0, 0))
    cleared = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "NO_COLOR", "FORCE_COLOR")}
    command = [sys.executable, "-m", "verydeep", *map(str, words)]
    shown = b""
    with subprocess.Popen(
        command, cwd=cwd, stdout=theirs, stderr=subprocess.DEVNULL, env={**cleared, "OMP_NUM_THREADS": "1", **env}
    ) as run:
        os.close(theirs)
        while True:
            try:
                shown += os.read(ours, 65536)
            except OSError:  # on Linux: the other side is closed
                break
        os.close(ours)
    assert run.returncode == 0
    return shown.decode().replace("\r\n", "\n")


SHOWN = (
    "report one two --out c.html",
    "predict two photos/blue/000.png",
    "fuse one/evaluations/test/dense@36 two/evaluations/test/dense@36",
    "evaluate two dense@36 --workers 0",
    "weights list",
    "nets D",
)


@pytest.mark.parametrize("words", SHOWN)
def test_output_fits_80_columns_without_colour(kinds: Path, words: str) -> None:
    plain = on_a_terminal(*words.split(), cwd=kinds, TERM="dumb")
    assert "\x1b" not in plain
    assert max(map(len, plain.splitlines())) <= 80
    if words.startswith("predict"):
        assert re.search(r"^ +\d+\.\d %  █", plain, re.MULTILINE)
        uncoloured = on_a_terminal(*words.split(), cwd=kinds, TERM="xterm-256color", NO_COLOR="1")
        assert not re.search(r"\x1b\[\d+(;\d+)*m", uncoloured)


@pytest.mark.parametrize(
    "verb", ["evaluate two dense@36", "predict two photos/blue", "data check photos", "report two"]
)
def test_quiet_leaves_warnings_alone(kinds: Path, verb: str) -> None:
    answer = done(f"{verb} --quiet", kinds)
    assert answer.stderr == ""
    assert answer.stdout
