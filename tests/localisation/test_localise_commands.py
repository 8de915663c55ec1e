"""App. A by the real commands: localisation models on digits and on own photos, and every error message."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from conftest import Command, make_imagenet, own_photos, run_command
from verydeep.evaluation.scores import load_scores, save_scores
from verydeep.evaluation.submission import write_localisation

TINY = ["--crop", 32, "--width", 0.03125, "--S", 36, "--workers", 0, "--threads", 1]
DOLL = ["--crop", 64, "--S", 73, "--width", 0.125, "--batch", 32, "--lr", "5e-3", "--workers", 1, "--threads", 1]
# Six of the ten classes: PCR learns a box for each, faster with many images of each.
SIX = ["--data", "digits:3000", "--classes", "0,1,2,3,4,5"]


def made(place: Path, *commands: list[Any]) -> Path:
    """A folder in which commands were run."""
    for words in commands:
        answer = run_command(*words, cwd=place)
        assert answer.status == 0, answer.stderr
    return place


@pytest.fixture(scope="module")
def doll(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SCR from random weights, and PCR from it, long enough to learn."""
    begin, go_on = ["--initialise", "glorot", *SIX, *DOLL], ["--start", "scr", *SIX, *DOLL]
    return made(
        tmp_path_factory.mktemp("doll"),
        ["localise", "train", "A", *begin, "--max-epochs", 3, "--regression", "SCR", "--out", "scr"],
        ["localise", "train", "A", *go_on, "--max-epochs", 4, "--out", "pcr"],
    )


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SCR, PCR and a classification net of ten classes that have hardly begun."""
    short = ["--data", "digits:600", *TINY, "--max-epochs", 1]
    return made(
        tmp_path_factory.mktemp("begun"),
        ["localise", "train", "A", *short, "--initialise", "glorot", "--regression", "SCR", "--out", "scr"],
        ["localise", "train", "A", *short, "--start", "scr", "--out", "pcr"],
        ["train", "A", *short, "--start", "scr", "--out", "classes"],
    )


@pytest.mark.slow
@pytest.mark.parametrize("regression", ["scr", "pcr"])
def test_box_nets_learn_where_a_digit_is(doll: Path, regression: str) -> None:
    """The first procedure at S = Q (the paper's 256 in doll pixels), beside the best constant box."""
    answer = run_command("localise", "evaluate", regression, "centre@73", "--json", cwd=doll)
    assert answer.status == 0, answer.stderr
    found = json.loads(answer.stdout)
    assert found["images"] == 550
    assert found["gt_class_error"] <= 20, found
    assert found["constant_box_error"] > 2 * found["gt_class_error"]
    low, high = found["gt_class_error_interval"]
    assert low <= found["gt_class_error"] <= high
    assert found["localisation_error"] is found["classification_error"] is None
    folder = doll / found["folder"]
    assert {path.name for path in folder.iterdir()} == {"guesses.npz", "result.json", "right.png", "wrong.png"}
    with np.load(folder / "guesses.npz", allow_pickle=False) as guesses:
        assert guesses["true_class_boxes"].shape == (550, 4)


def times(place: Path) -> dict[Path, int]:
    """When each file of dense windows was written."""
    return {path: path.stat().st_mtime_ns for path in place.rglob("dense@*/windows.npz")}


@pytest.mark.slow
def test_the_full_procedure_with_merging_and_fusion(begun: Path, command: Command) -> None:
    """Dense boxes of both nets, five labels, t tuned on dev photos; its parts add up; windows are used again."""
    place = ["localise", "evaluate", "pcr", "dense@36,48", "scr", "dense@48", "--classifier", "classes"]
    answer = command(*place, "--json", cwd=begun)
    assert answer.status == 0, answer.stderr
    found = json.loads(answer.stdout)
    assert found["guesses"] == 5
    assert found["tuned_on"] == "100 dev photos"
    assert len(found["gt_class_error_by_t"]) == 16
    assert found["localisation_error"] == pytest.approx(
        found["classification_error"] + found["box_only_error"], abs=1e-3
    )
    assert found["one_guess_error"] >= found["localisation_error"]
    stored = times(begun)
    assert len(stored) == 6  # two scales and one, of the dev photos and of those that are reported
    again = command(*place, cwd=begun)
    assert again.status == 0, again.stderr
    assert {
        path: path.stat().st_mtime_ns for path in begun.rglob("dense@*/windows.npz")
    } == stored  # no net is applied twice
    assert "localisation error with one guess" in again.stdout
    assert "the best constant box" in again.stdout
    # By the scores the classification net left, and rated by the image's posterior: another way, the same photos.
    scores = next((begun / "pcr" / "labels").rglob("val/*/scores.npz"))
    voted = command(
        *("localise", "evaluate", "pcr", "dense@36:mirror:offsets", "--scores", scores, "--rate", "image"),
        *("--t", 0.6, "--json"),
        cwd=begun,
    )
    assert voted.status == 0, voted.stderr
    told = json.loads(voted.stdout)
    assert told["classification_error"] == found["classification_error"]
    assert (told["t"], told["tuned_on"], told["merging"]["rate"]) == (0.6, None, "image")


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classification run and a localisation model on own photos; read-only."""
    place = own_photos(tmp_path_factory.mktemp("own"))
    data = ["--data", "photos", "--boxes", "boxes.csv"]
    named = run_command("train", "A", *data, *TINY, "--max-epochs", 2, "--out", "classes", cwd=place)
    assert named.status == 0, named.stderr
    words = ("localise", "train", "A", *data, "--start", "classes", *TINY, "--max-epochs", 3, "--out", "net")
    boxes = run_command(*words, cwd=place)
    assert boxes.status == 0, boxes.stderr
    assert "random 1 layers: fc8" in boxes.stderr
    assert "to fit the learning rate" in boxes.stderr
    assert "next: verydeep localise evaluate net centre@36\n" in boxes.stdout  # as predict asks nets of small crops
    return place


def test_suggested_commands_work(own: Path, command: Command, tmp_path: Path) -> None:
    """`verydeep localise evaluate` as `localise train` printed it, and what `convert` of a box net prints."""
    told = command("localise", "evaluate", "net", "centre@36", "--out", tmp_path / "e", cwd=own)
    assert told.status == 0, told.stderr
    told = command("convert", own / "net", tmp_path / "copy")
    assert f"try it: verydeep localise predict {tmp_path / 'copy'} PHOTO" in told.stdout
    words = ["--class", "red", "--out", tmp_path / "boxes"]
    found = command("localise", "predict", tmp_path / "copy", own / "photos" / "00.png", *words)
    assert found.status == 0, found.stderr


def test_own_photos_are_trained_on_evaluated_and_predicted(own: Path, command: Command, tmp_path: Path) -> None:
    found = command("localise", "evaluate", "net", "dense@36,48", "--json", cwd=own)
    assert found.status == 0, found.stderr
    summary = json.loads(found.stdout)
    assert summary["images"] == 4
    assert summary["guesses"] == 1  # of two classes
    assert "one_guess_error" not in summary  # it is the headline
    assert "boxes are scored by the classifier that the localisation model was initialised from" in found.stderr
    asked = command("localise", "predict", "net", "photos", "--out", tmp_path / "drawn", "--json", cwd=own)
    assert asked.status == 0, asked.stderr
    answers = json.loads(asked.stdout)
    assert len(answers) == 24
    for answer in answers:
        (box,) = answer["boxes"]
        assert box["class"] in ("red", "blue")
        assert 0 <= box["box"][0] <= box["box"][2] <= 64
        assert 0 <= box["box"][1] <= box["box"][3] <= 48
        assert box["score"] > 0
    assert len(list((tmp_path / "drawn").glob("*.jpg"))) == 24
    with Image.open(tmp_path / "drawn" / "00.jpg") as picture:
        assert picture.size == (64, 48)
    assert json.loads((tmp_path / "drawn" / "boxes.json").read_text()) == {"photos": answers}
    named = command("localise", "predict", "net", "photos/03.png", "--class", "blue", "--out", tmp_path / "b", cwd=own)
    assert "blue  score" in named.stdout
    top = command("localise", "predict", "net", "photos/03.png", "--top", 2, "--out", tmp_path / "b", "--json", cwd=own)
    assert len(json.loads(top.stdout)[0]["boxes"]) == 2


def test_in_python(own: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import verydeep

    monkeypatch.chdir(own)
    here = verydeep.MachineSettings(workers=0, threads=1)
    found = verydeep.evaluate_boxes([("net", "centre@36")], machine=here, out=tmp_path)
    assert found.summary["images"] == len(found.guesses.dataset) == 4
    net = verydeep.load_localiser("net", machine=here)
    photo = verydeep.read_image("photos/05.png")
    (in_memory,), (from_file,) = net.predict(photo), net.predict("photos/05.png")
    assert in_memory.boxes == from_file.boxes
    with pytest.raises(verydeep.ImageError, match=r"boxes\.csv"):
        net.predict(["boxes.csv"])


def test_a_resumed_localisation_model_equals_an_uninterrupted_one(own: Path, command: Command, tmp_path: Path) -> None:
    words = ["localise", "train", "A", "--data", "photos", "--boxes", "boxes.csv", "--start", "classes", *TINY]
    for name, epochs in (("whole", 4), ("parts", 2)):
        assert command(*words, "--max-epochs", epochs, "--out", tmp_path / name, cwd=own).status == 0
    more = command("localise", "train", "A", "--out", tmp_path / "parts", "--resume", "--max-epochs", 4, cwd=own)
    assert more.status == 0, more.stderr
    whole, parts = ((tmp_path / name / "last.safetensors").read_bytes() for name in ("whole", "parts"))
    assert whole[-2000:] == parts[-2000:]
    other = command("localise", "train", "A", "--out", tmp_path / "parts", "--resume", "--regression", "SCR", cwd=own)
    assert "resume it with the command that started it" in other.mistake()
    weighed = command(*words, "--class-weights", "balanced", "--out", tmp_path / "weighed", cwd=own)
    assert "class_weights is for classification: omit it to train a localisation model." in weighed.mistake()
    wrong = command("train", "A", "--out", tmp_path / "parts", "--resume", cwd=own)
    assert "contains a localisation model with" in wrong.mistake()


def test_faulty_boxes_are_reported_repaired_and_refused_with_strict(command: Command, tmp_path: Path) -> None:
    place = own_photos(tmp_path, faulty=True)
    words = ["localise", "train", "A", "--data", "photos", "--boxes", "boxes.csv", *TINY, "--max-steps", 1]
    mended = command(*words, "--out", "mended", cwd=place)
    assert mended.status == 0, mended.stderr
    told = [line for line in mended.stderr.splitlines() if line.startswith("warning: ")]
    assert any("box of an image that does not exist, left out; nowhere.png" in line for line in told)
    strict = command(*words, "--strict", "--out", "strict", cwd=place)
    assert "fix it, or run without --strict" in strict.mistake()
    assert not (place / "strict").exists()
    checked = command("data", "check", "photos", "--boxes", "boxes.csv", cwd=place)
    assert checked.status == 2
    assert "boxes: " in checked.stdout
    assert "box with swapped corners, corrected" in checked.stdout


def test_images_of_unknown_classes_are_skipped(own: Path, command: Command, tmp_path: Path) -> None:
    lines = (own / "boxes.csv").read_text().replace(",red", ",green", 3)
    (tmp_path / "boxes.csv").write_text(lines)
    words = ["localise", "evaluate", "net", "centre@36", "--data", own / "photos", "--boxes", tmp_path / "boxes.csv"]
    found = command(*words, "--set", "all", "--json", "--out", tmp_path / "found", cwd=own)
    assert found.status == 0, found.stderr
    assert json.loads(found.stdout)["images"] == 21
    assert json.loads(found.stdout)["faults"] == {"class": 3}
    assert "skipped 3 images of unknown classes (green)" in found.stderr
    strict = command(*words, "--set", "all", "--strict", cwd=own)
    assert "images of class 'green', which the net does not know" in strict.mistake()


def test_scores_of_other_images_or_classes_are_refused(own: Path, command: Command, tmp_path: Path) -> None:
    assert command("localise", "evaluate", "net", "dense@36", "--t", 0.5, cwd=own).status == 0
    scores = load_scores(next((own / "net" / "labels" / "test").glob("*/scores.npz")))
    other = tmp_path / "other.npz"
    from dataclasses import replace

    save_scores(other, replace(scores, ids=("x", *scores.ids[1:])))
    words = ("localise", "evaluate", "net", "dense@36", "--scores", other)
    assert f"has no scores of {scores.ids[0]}" in command(*words, cwd=own).mistake()
    save_scores(other, replace(scores, classes=("blue", "green")))
    assert "has other classes than the localisation model" in command(*words, cwd=own).mistake()


MISTAKES: list[tuple[list[str], str]] = [
    (["evaluate", "net", "centre@36", "net"], "pass pairs of a run's folder and a protocol"),
    (["evaluate", "net", "ten@36"], "is not a localisation protocol: write centre@Q, dense@Q"),
    (["evaluate", "net", "dense@16"], "each Q once, from the net's crop of 32"),
    (["evaluate", "classes", "dense@36"], "is a classifier, not a localisation model"),
    (["evaluate", "nowhere", "dense@36"], "does not exist"),
    (["evaluate", "net", "dense@36", "--classifier", "net"], "is a localisation model, not a classifier"),
    (["evaluate", "net", "dense@36", "--match", "literal"], "pass --t, the largest distance at which"),
    (["evaluate", "net", "dense@36", "--t", "-1"], "0 or more, not -1"),
    (["evaluate", "net", "dense@36", "--server-file", "x"], "--server-file and --devkit must be used together"),
    (["evaluate", "net", "dense@36", "--scores", "nothing.npz"], "there is no scores file nothing.npz"),
    (["evaluate", "net", "dense@36", "--matching", "x"], "unknown setting '--matching': did you mean --match?"),
    (["predict", "net", "photos/00.png", "--class", "green"], "unknown class 'green'"),
    (["predict", "net", "photos/00.png", "--top", "0"], "top must be 1 or more"),
    (["predict", "classes", "photos/00.png"], "is a classifier, not a localisation model"),
    (["train", "A", "--data", "digits", "--regression", "XCR"], "regression must be one of PCR, SCR"),
    (["train", "D/256", "--data", "digits"], "is not a localisation run"),
    (["train", "A", "--data", "photos"], "has no class folders"),
    (["train", "A", "--data", "photos", "--boxes", "nothing.csv"], "nothing.csv: No such file"),
    (["train", "A", "--data", "photos", "--boxes", "boxes.csv", "--out", "net"], "already contains a run"),
]


@pytest.mark.parametrize(("words", "sentence"), MISTAKES)
def test_mistakes(own: Path, words: list[str], sentence: str) -> None:
    assert sentence in run_command("localise", *words, cwd=own).mistake()


def test_other_commands_refuse_localisation_models(own: Path, command: Command) -> None:
    assert "is a localisation model, not a classifier" in command("evaluate", "net", "dense@36", cwd=own).mistake()
    assert "is a localisation model" in command("predict", "net", "photos/00.png", cwd=own).mistake()


def test_without_a_classification_net_the_class_is_required(own: Path, command: Command, tmp_path: Path) -> None:
    data = ["--data", own / "photos", "--boxes", own / "boxes.csv"]
    trained = command("localise", "train", "A", *data, *TINY, "--max-steps", 2, "--out", tmp_path / "alone")
    assert trained.status == 0, trained.stderr
    photo = own / "photos" / "00.png"
    words = ("localise", "predict", tmp_path / "alone", photo, "--out", tmp_path / "drawn")
    assert (
        "no classification net predicts the labels: add --classifier RUN, or --class NAME" in command(*words).mistake()
    )
    assert command(*words, "--class", "red").status == 0
    tested = command("localise", "evaluate", tmp_path / "alone", "dense@36")
    assert "there is no classification net to score boxes with: pass --classifier RUN" in tested.mistake()
    voted = command("localise", "evaluate", tmp_path / "alone", "dense@36", "--rate", "image")
    assert "no classification net predicts the labels: add --classifier RUN, or --scores FILE" in voted.mistake()


def test_pictures_never_overwrite_images(own: Path, command: Command, tmp_path: Path) -> None:
    folder = tmp_path / "holiday"
    folder.mkdir()
    with Image.open(own / "photos" / "00.png") as picture:
        picture.save(folder / "a.jpg")
    before = (folder / "a.jpg").read_bytes()
    answer = command("localise", "predict", "net", folder, "--out", folder, cwd=own)
    assert answer.status == 0, answer.stderr
    assert (folder / "a.jpg").read_bytes() == before
    assert (folder / "a-2.jpg").exists()


def test_t_is_tuned_on_dev_images_of_the_training_data(own: Path, command: Command, tmp_path: Path) -> None:
    """All own photos tested: the dev photos are among them, so nothing is left to tune on."""
    words = ("localise", "evaluate", "net", "dense@36", "--json", "--out", tmp_path / "found", "--set")
    whole = command(*words, "all", cwd=own)
    assert whole.status == 0, whole.stderr
    found = json.loads(whole.stdout)
    assert (found["images"], found["tuned_on"], found["constant_box_error"]) == (24, None, None)
    assert "no dev images to tune --t on" in whole.stderr
    assert json.loads(command(*words, "test", cwd=own).stdout)["tuned_on"] == "2 dev photos"


def test_an_unreadable_photo_has_status_1_and_others_boxes(own: Path, command: Command, tmp_path: Path) -> None:
    (tmp_path / "torn.png").write_bytes((own / "photos" / "00.png").read_bytes()[:60])
    words = (
        "localise",
        "predict",
        "net",
        tmp_path / "torn.png",
        own / "photos" / "01.png",
        "--out",
        tmp_path / "drawn",
    )
    answer = command(*words, "--json", cwd=own)
    assert answer.status == 1
    assert [Path(row["image"]).name for row in json.loads(answer.stdout)] == ["01.png"]
    assert "torn.png" in answer.stderr


def test_the_localisation_servers_file(tmp_path: Path) -> None:
    """Sorted by file name, ids of the devkit's own order, first and last pixels counted from 0 as ILSVRC's boxes."""
    from verydeep.data.dataset import Dataset

    make_imagenet(tmp_path)
    classes = ("n01440764 tench", "n01443537 goldfish", "n02084071 dog")
    ids = ("val/ILSVRC2012_val_00000002.png", "val/ILSVRC2012_val_00000001.png")
    dataset = Dataset("imagenet", "val", classes, ids, np.array([0, 1]), str)  # type: ignore[arg-type]
    boxes: Any = np.array([[[0, 0, 10, 20], [5.4, 5.6, 7.5, 9.5]], [[1, 2, 3, 4], [0, 0, 1, 1]]])
    write_localisation(tmp_path / "loc.txt", dataset, np.array([[0, 2], [1, 0]]), boxes, tmp_path)
    assert (tmp_path / "loc.txt").read_text() == "3 1 2 2 3 2 0 0 0 0\n2 0 0 9 19 1 5 6 7 9\n"
