"""The real commands, as a user types them: the main job on small data, and every mistake's sentence."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from process_watch import watched

from conftest import COLOURS, Command, make_photos, paint, save_sealed
from verydeep.checkpoints.checkpoint import METADATA_KEY, read_safetensors
from verydeep.cli.main import main
from verydeep.core.files import only_one

SIZE = ["--crop", 32, "--width", 0.03125, "--S", 36, "--batch", 8, "--workers", 0, "--threads", 1]


def test_nets(command: Command) -> None:
    answer = command("nets", "--json")
    assert answer.status == 0
    found = {net["name"]: net for net in json.loads(answer.stdout)}
    assert found["D"]["parameters"] == 138_357_544
    assert found["E"]["multiply_adds"] == 19_632_062_464
    assert found["A"]["weight_layers"] == 11
    assert json.loads(command("nets", "D", "--json").stdout)["receptive_field"] == 404
    table = command("nets").stdout
    assert all(name in table for name in found)
    assert "133,638,952" in table
    assert "conv3_3" in command("nets", "C", "--crop", "64", "--classes", "7").stdout


@pytest.mark.parametrize("chosen", [None, "active"])
def test_waiting_threads_sleep_unless_the_user_chose(monkeypatch: pytest.MonkeyPatch, chosen: str | None) -> None:
    """OpenMP reads the variable when PyTorch is imported, after the command line has begun."""
    monkeypatch.setenv("OMP_WAIT_POLICY", chosen or "")
    if chosen is None:
        monkeypatch.delenv("OMP_WAIT_POLICY")
    assert main(["nets", "--quiet"]) == 0
    assert os.environ["OMP_WAIT_POLICY"] == (chosen or "passive")


def test_train_evaluate_predict(command: Command, photos: Path) -> None:
    """Check, show, train, evaluate and predict, each with and without --json, from another folder."""
    place = photos.parent
    checked = command("data", "check", photos, "--json")
    assert checked.status == 0
    assert json.loads(checked.stdout)["faults"] == []
    assert "unreadable images: 0" in command("data", "check", "photos", cwd=place).stdout

    shown = command("data", "show", "photos", "--crop", 32, "--S", 36, "--out", "crops.png", cwd=place)
    assert "crops.png" in shown.stdout
    with Image.open(place / "crops.png") as picture:
        assert picture.size[0] > 300

    trained = command("train", "A", "--data", "photos", "--out", "run", "--max-epochs", 2, *SIZE, "--json", cwd=place)
    assert trained.status == 0, trained.stderr
    result = json.loads(trained.stdout)
    assert (result["epochs"], result["steps"], result["ended"]) == (2, 6, "max_epochs")
    assert (
        "random weights (glorot): the error may only begin to fall after about 1000 steps, here 333" in trained.stderr
    )
    assert "GiB free on cpu" in trained.stderr
    assert "epoch 2: loss" in trained.stderr
    assert {path.name for path in (place / "run").iterdir()} == {
        *("config.json", "environment.json", "log.jsonl", "result.json", "last.safetensors", "best.safetensors"),
        *("previous.safetensors", "README.md", "report.html"),
    }

    evaluated = command("evaluate", place / "run", "dense@36,44", "--json")  # data remembered, from anywhere
    assert evaluated.status == 0, evaluated.stderr
    summary = json.loads(evaluated.stdout)
    assert (summary["protocol"], summary["images"], summary["set"]) == ("dense@36,44", 6, "test")
    assert 0 <= summary["top1_error"] <= 100
    assert summary["top5_error"] is None
    folder = Path(summary["folder"])
    assert {path.name for path in folder.iterdir()} >= {"result.json", "scores.npz", "classes.csv", "confusion.png"}
    with np.load(folder / "scores.npz", allow_pickle=False) as scores:
        assert scores["posteriors"].shape == (6, 3)
        wrong = scores["posteriors"].argmax(axis=1) != scores["labels"]
        assert summary["top1_error"] == pytest.approx(100 * wrong.mean(), abs=1e-4)
        assert (folder / "mistakes.png").exists() == bool(wrong.any())
    page = (place / "run" / "README.md").read_text()
    assert f"| dense@36,44 | {summary['data']}, test | 6 | {summary['top1_error']:.2f} (" in page
    text = command("evaluate", "run", "centre@36", "--last", "--set", "dev", cwd=place)
    assert "centre@36 on 3 images" in text.stdout
    assert "top1 error" in text.stdout

    asked = command("predict", "run", "photos/red", "photos/blue/00*.png", "--top", 2, "--json", cwd=place)
    assert asked.status == 0, asked.stderr
    answers = json.loads(asked.stdout)
    assert len(answers) == 20
    assert answers[0]["image"] == "photos/red/000.png"
    assert len(answers[0]["predictions"]) == 2
    assert answers[0]["predictions"][0]["class"] in COLOURS
    assert answers[0]["predictions"][0]["probability"] >= answers[0]["predictions"][1]["probability"]
    rows = list(csv.DictReader(io.StringIO(command("predict", "run", "photos/red/000.png", "--csv", cwd=place).stdout)))
    assert [row["rank"] for row in rows] == ["1", "2", "3"]
    assert sum(float(row["probability"]) for row in rows) == pytest.approx(1, abs=1e-4)
    assert re.search(
        r"\d+\.\d %  (red|green|blue)", command("predict", place / "run", photos / "red" / "001.png").stdout
    )


def test_demo(command: Command, tmp_path: Path) -> None:
    """One epoch only: whether it learns is measured by `make demo`."""
    answer = command("demo", "--epochs", 1, "--scenes", 600, "--out", "d", "--json", cwd=tmp_path)
    assert answer.status == 0, answer.stderr
    found = json.loads(answer.stdout)
    assert [row["protocol"] for row in found["evaluations"]] == ["dense@73", "dense@64,73,82"]
    assert found["evaluations"][0]["images"] == 200
    assert len(found["predictions"]) == 6
    page = (tmp_path / found["page"]).read_text()
    assert page.count("<img ") == 16 + 1 + 16 + 6  # crops, the confusion, mistakes, scenes
    assert "http://" not in page  # self-contained
    assert "https://" not in page
    few = command("demo", "--scenes", 59, "--out", "few", cwd=tmp_path).mistake()
    assert few == "digits:59: the number of training scenes must be 60 to 6000."


def test_a_trained_net_is_shown_on_photos(command: Command, trained: Path, photos: Path, tmp_path: Path) -> None:
    (photos / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    words = ("demo", "--weights", trained, "--photos", photos, "--out", tmp_path / "tour")
    answer = command(*words, "--json")
    assert answer.status == 0, answer.stderr
    assert "torn.png" in answer.stderr
    found = json.loads(answer.stdout)
    assert (found["images"], len(found["predictions"])) == (30, 6)
    expected = json.loads(command("predict", trained, *(row["image"] for row in found["predictions"]), "--json").stdout)
    assert found["predictions"] == [{**row, "predictions": row["predictions"][:3]} for row in expected]
    page = Path(found["page"]).read_text()
    assert page.count("<img ") == 6 * (3 + 4)  # the photo and two maps, and similar photos
    assert page.count("Grad-CAM of") >= 6
    assert f"page: {tmp_path / 'tour' / 'index.html'}" in command(*words).stdout
    nowhere = command("demo", "--weights", trained, "--photos", "nowhere", cwd=tmp_path).mistake()
    assert nowhere == "none of the photos can be read."


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--weights", "run"), "--weights MODEL and --photos DIR go together: a trained net, and photos for it."),
        (("--photos", "."), "--weights MODEL and --photos DIR go together: a trained net, and photos for it."),
        (
            ("--weights", "run", "--photos", ".", "--epochs", 1),
            "--epochs and --scenes are for the demo that trains: leave them out with --weights.",
        ),
        (("--weights", "run", "--photos", "nowhere"), "there is no run or weight file run"),
    ],
)
def test_what_a_tour_needs(command: Command, tmp_path: Path, words: tuple[object, ...], sentence: str) -> None:
    assert sentence in command("demo", *words, cwd=tmp_path).mistake()


def test_other_data_are_evaluated_by_class_name(command: Command, trained: Path, tmp_path: Path) -> None:
    for number, name in enumerate(("red", "blue")):
        for photo in range(4):
            paint(tmp_path / "new" / name / f"{photo}.jpg", number * 10 + photo, COLOURS[name])
    summary = json.loads(
        command("evaluate", trained, "dense@36", "--data", tmp_path / "new", "--json", "--workers", 0).stdout
    )
    assert (summary["images"], summary["set"]) == (8, "all")
    assert {row["class"] for row in summary["classes"]} == {"red", "blue"}
    paint(tmp_path / "new" / "mauve" / "1.jpg", 1, (200, 100, 200))
    sentence = command("evaluate", trained, "dense@36", "--data", tmp_path / "new").mistake()
    assert "class 'mauve', which the net does not know: its 3 classes are blue, green, red" in sentence


def test_moved_images_are_recognised_as_the_runs_own(command: Command, photos: Path) -> None:
    place = photos.parent
    command("train", "A", "--data", photos, "--out", "run", "--max-epochs", 1, *SIZE, cwd=place)
    photos.rename(place / "moved")
    assert "no longer exists" in command("evaluate", "run", "dense@36", cwd=place).mistake()
    summary = json.loads(command("evaluate", "run", "dense@36", "--data", "moved", "--json", cwd=place).stdout)
    assert (summary["images"], summary["set"]) == (6, "test")


def test_images_added_after_training_do_not_move_trained_ones_into_the_test_set(command: Command, photos: Path) -> None:
    place = photos.parent
    command("train", "A", "--data", photos, "--out", "run", "--max-epochs", 1, *SIZE, cwd=place)
    for number in range(5):
        paint(photos / "red" / f"new{number}.png", 77 + number, COLOURS["red"])
    for words in ((), ("--data", "photos")):
        answer = command("evaluate", "run", "dense@36", *words, "--json", cwd=place)
        assert json.loads(answer.stdout)["set"] == "test"
        assert "has changed since the net was trained" in answer.stderr


def test_evaluations_do_not_overwrite_each_other(command: Command, trained: Path, tmp_path: Path) -> None:
    make_photos(tmp_path / "other", 4)
    asked = [
        ["evaluate", trained, "dense@36"],
        ["evaluate", trained, "dense@36", "--last"],
        ["evaluate", trained / "last.safetensors", "dense@36"],
        ["evaluate", trained, "dense@36", "--data", tmp_path / "other", "--set", "test"],
    ]
    folders = [json.loads(command(*words, "--json", "--workers", 0).stdout)["folder"] for words in asked]
    assert folders[1] == folders[2]
    assert len(set(folders)) == 3


def test_other_images_of_the_same_names_do_not_overwrite_the_runs_own(
    command: Command, trained: Path, tmp_path: Path
) -> None:
    other = make_photos(tmp_path / "photos")
    found = [
        json.loads(command("evaluate", trained, "centre@36", *words, "--json", "--workers", 0).stdout)["folder"]
        for words in ((), ("--data", other))
    ]
    assert found[0] != found[1]
    assert "of-photos" in found[1]


def test_evaluation_does_not_start_where_it_cannot_be_stored(command: Command, trained: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "file is not a folder" in command("evaluate", trained, "dense@36", "--out", tmp_path / "file").mistake()
    assert "is a run's folder: use another" in command("evaluate", trained, "dense@36", "--out", trained).mistake()


def test_two_trainings_do_not_share_a_folder(command: Command, photos: Path) -> None:
    place = photos.parent
    with only_one(place / "run"):
        words = ["train", "A", "--data", "photos", "--out", "run", "--max-epochs", 1, *SIZE]
        assert "another process is using run" in command(*words, cwd=place).mistake()


def test_names_that_are_not_utf8_are_kept(command: Command, tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos")
    os.rename(os.fsencode(photos / "red"), os.fsencode(photos) + b"/caf\xe9")
    assert command("train", "A", "--data", photos, "--out", tmp_path / "r", "--max-epochs", 1, *SIZE).status == 0
    assert command("evaluate", tmp_path / "r", "dense@36", "--workers", 0).status == 0
    answer = command("predict", tmp_path / "r", photos / "blue", "--csv", PYTHONIOENCODING="utf-8:strict")
    assert answer.status == 0, answer.stderr
    assert r"caf\udce9" in answer.stdout


def test_an_unwritable_log_is_one_sentence(command: Command, photos: Path) -> None:
    place = photos.parent
    base = ["train", "A", "--out", "run", "--workers", 0, "--threads", 1]
    command(*base, "--data", "photos", "--max-epochs", 1, *SIZE[:8], cwd=place)
    (place / "run" / "log.jsonl").unlink()
    (place / "run" / "log.jsonl").mkdir()
    assert "cannot write run/log.jsonl" in command(*base, "--resume", "--max-epochs", 2, cwd=place).mistake()


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGUSR1, 138)])
def test_a_stopped_training_is_saved_and_resumes_to_the_same_end(
    command: Command, photos: Path, number: signal.Signals, status: int
) -> None:
    """The signal goes to all processes of the job, as Ctrl-C and schedulers send it."""
    place = photos.parent
    base = ["train", "A", "--data", "photos", *map(str, SIZE), "--max-epochs", "100", "--workers", "1"]
    command(*base, "--out", "whole", cwd=place)
    going = subprocess.Popen(
        [sys.executable, "-m", "verydeep", *base, "--out", "parts"],
        cwd=place,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    log = place / "parts" / "log.jsonl"
    for _ in range(3000):
        if log.exists() and log.read_text().count("\n") >= 2:
            break
        time.sleep(0.01)
    os.killpg(going.pid, number)
    _, result = going.communicate(timeout=60)
    assert going.returncode == status, result
    assert re.search(r"verydeep: interrupted at step \d+, saved", result)
    assert "Traceback" not in result
    resumed = command("train", "A", "--out", "parts", "--resume", "--workers", 0, "--threads", 1, cwd=place)
    assert resumed.status == 0, resumed.stderr
    whole, parts = ((place / name / "last.safetensors").read_bytes() for name in ("whole", "parts"))
    assert whole == parts


def test_a_training_stops_after_the_given_hours_and_goes_on(
    command: Command,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It stops after a step, with status 0, as it does what it was told to; the clock is the test's own."""
    train = ["train", "A", "--data", photos, "--out", tmp_path / "run", *SIZE, "--validate", "centre"]

    def step_reached() -> float:
        log = tmp_path / "run" / "log.jsonl"
        return 3601.0 if log.exists() and log.read_text() else 0.0

    monkeypatch.setattr("verydeep.cli.execution.time", SimpleNamespace(monotonic=step_reached))
    assert main([str(word) for word in (*train, "--max-epochs", 100, "--max-hours", 1)]) == 0
    stopped = re.search(
        r"verydeep: stopped after 1 h at step (\d+), saved; resume with the same", capsys.readouterr().err
    )
    assert stopped is not None
    more = command(*train, "--resume", "--max-steps", int(stopped[1]) + 1, "--json")
    assert json.loads(more.stdout)["steps"] == int(stopped[1]) + 1


def test_hours_that_no_training_fits_in_are_mistakes(command: Command, photos: Path, tmp_path: Path) -> None:
    train = ("train", "A", "--data", photos, "--out", tmp_path / "run", *SIZE, "--max-hours")
    assert "'0' is not a number of hours above 0" in command(*train, 0).mistake()
    assert "'soon' is not a number of hours above 0" in command(*train, "soon").mistake()
    assert "1e-09 h were over before the first step: nothing was saved" in command(*train, 1e-9).mistake()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_an_evaluation_stopped_by_a_signal_has_its_status(
    trained: Path, tmp_path: Path, number: signal.Signals
) -> None:
    typed = ["evaluate", trained, "dense@36", "--data", "digits:6000", "--out", "tested", "--workers", 0]
    going = watched(typed, tmp_path, "tested")
    going.until(going.listens)
    going.tell(number)
    assert going.ended(number, 60.0) == []
    assert going.told == "verydeep: interrupted.\n"


SIGNALLED_AT_ONCE = """
import os, signal, sys
from verydeep.cli import main as cli

class Signalled(cli.InterruptHandler):
    def __enter__(self):
        super().__enter__()
        os.kill(os.getpid(), signal.SIGUSR1)
        return self

cli.InterruptHandler = Signalled
sys.exit(cli.main(["nets"]))
"""


def test_a_signal_before_the_command_starts_has_its_status() -> None:
    ended = subprocess.run([sys.executable, "-c", SIGNALLED_AT_ONCE], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (128 + signal.SIGUSR1, "verydeep: interrupted.\n")


UNHEARD = """
import signal, sys, time
from verydeep.cli import main as cli

class Told:
    def __del__(self):
        signal.raise_signal(signal.{name})

def verb(options):
    {lost}
    time.sleep(60)
    return 0

cli.commands()["nets"].run = verb
sys.exit(cli.main(["nets"]))
"""
LOST = {"destructor": "Told()", "swallowed": "\n    try: Told().__del__()\n    except BaseException: pass"}


@pytest.mark.parametrize(
    ("name", "lost", "status"),
    [("SIGINT", "swallowed", 130), ("SIGTERM", "destructor", 143), ("SIGUSR1", "swallowed", 138)],
)
def test_a_signal_whose_exception_is_lost_is_repeated(name: str, lost: str, status: int) -> None:
    """Python lets no error out of a destructor, and code that catches every error passes over it."""
    typed = [sys.executable, "-c", UNHEARD.format(name=name, lost=LOST[lost])]
    done = subprocess.run(typed, capture_output=True, text=True, timeout=50, check=False)
    assert (done.returncode, done.stderr) == (status, "verydeep: interrupted.\n")


# What was typed, and what the one sentence must say. {photos} is a good folder, {run} a trained net.
MISTAKES = [
    ("train A --data nowhere", r"nowhere does not exist: use a folder with a folder per class"),
    ("train A --data {file}", r"is not a folder, \.csv, \.tsv or \.jsonl file"),
    ("train A --data {empty_class}", r"class 'red' in .* has no images: add some"),
    ("train A --data {one_class}", r"only one class \(red\)"),
    ("train A --data {no_classes}", r"has no class folders"),
    ("train A --data {unreadable} --crop 32 --start none", r"none of the \d+ images can be read"),
    (
        "train A --data {broken} --crop 32 --start none",
        r"broken\.jpg is .*or train with --bad-images skip",
    ),
    ("train A --data {photos} --crop 64 --S 50", r"S 50 is below the crop of 64: raise S or lower --crop"),
    ("train A --data {photos} --crop 100", r"crop 100 must be a multiple of 32, .*: use 96"),
    ("train A --data {photos} --leraning-rate 1", r"unknown setting '--leraning-rate'"),
    ("train A --data {photos} --momentun .9", r"unknown setting '--momentun': did you mean --momentum\?"),
    ("train A --data {photos} --lr fast", r"lr must be a number, not 'fast'"),
    ("train A --data {photos} --learn fcs", r"learn must be one of all, fc, last, not 'fcs'; did you mean 'fc'"),
    ("train F --data {photos}", r"there is no net 'F'"),
    ("train D/2x --data {photos}", r"'D/2x' is not a run"),
    ("train A --data {photos} --start nowhere", r"there is no run or weight file nowhere"),
    ("train A --data {photos} --start {file}", r"is corrupted, or not of a supported format"),
    ("train A --data {photos} --out {run}", r"already contains a run: add --resume"),
    ("train D --out {run} --resume", r"contains run A, not D: name that run"),
    ("train A --out {run} --resume --lr 0.5", r"started with lr 0\.01, not 0\.5: resume without --lr"),
    ("train A --out nowhere --resume", r"nowhere has no training to resume"),
    ("train A --data {photos} --device cuda", r"device cuda is not available"),
    ("train A --data {photos} --precision fp16 --device cpu", r"fp16 needs a CUDA device"),
    ("train A --data imagenet", r"where is imagenet\? Use --data imagenet:DIR"),
    ("train", r"the following arguments are required: RUN"),
    ("train A --data {photos} --out=", r"out is empty"),
    ("train A --data digits:x", r"digits:x: the number of training scenes must be 60 to 6000"),
    ("train A --data {photos} --workers 1000000000000", r"workers must be -1 to 512"),
    ("train A --data {photos} --threads 99999999999", r"threads 0 to 512"),
    ("train A --data {photos} --classes ,", r"classes is an empty list"),
    ("train A --data {photos} --start {nan}", r"NaN or infinite values in conv1_1\.weight"),
    ("train A --out {torn_config} --resume", r"config\.json is corrupted: it does not contain a JSON object"),
    ("train A --out {bad_momentum} --resume --max-epochs 3", r"its momentum buffers do not match the shapes"),
    ("evaluate {run} dense@999999999", r"above the limit of 8192 pixels"),
    ("evaluate {nan} dense@36", r"NaN or infinite values in conv1_1\.weight"),
    ("evaluate {bad_card} dense@36", r"has metadata that this version cannot read"),
    ("predict {nan} {photos}", r"NaN or infinite values in conv1_1\.weight"),
    ("predict {run} {photos} --json --csv", r"not allowed with argument"),
    ("data check {long}", r"the operating system refused: File name too long"),
    (
        "evaluate nowhere dense@36",
        r"there is no run or weight file nowhere: use the folder that `verydeep train` wrote",
    ),
    ("evaluate {photos} dense@36", r"contains no checkpoint"),
    ("evaluate {run} dense@16", r"Q = 16 in dense@16 is below the net's crop of 32"),
    ("evaluate {run} densely@36", r"'densely@36' is not a protocol: write METHOD@Q"),
    ("evaluate {run} dense@36 --set best", r"has no set 'best': its sets are train, dev, test, all"),
    ("evaluate {truncated} dense@36", r"is corrupted, or not a safetensors file"),
    ("evaluate {run} dense@36 --data {broken}", r"broken\.jpg is .*leave it out with --bad-images skip"),
    ("predict {run} nowhere.jpg", r"cannot read nowhere\.jpg: No such file or directory"),
    ("predict {run} {file}", r"is not an image in a known format"),
    ("predict {run} *.nothing", r"no file matches \*\.nothing"),
    ("predict {run} {photos} --top 0", r"top must be 1 or more"),
    ("predict {file} {photos}", r"is corrupted, or not of a supported format"),
    ("nets Z", r"there is no net 'Z'"),
    ("nets --crop 31", r"crop 31 must be a multiple of 32"),
    ("data check nowhere", r"does not exist"),
    ("data show {photos} --photos 0", r"photos must be 1 or more"),
    ("paint", r"there is no command 'paint'"),
]


@pytest.fixture(scope="module")
def places(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Good and bad folders and files, by name."""
    top = tmp_path_factory.mktemp("places")
    made = {name: top / name for name in ("file", "empty_class", "one_class", "no_classes", "unreadable", "broken")}
    made["file"].write_text("plain text")
    make_photos(made["empty_class"])
    for photo in (made["empty_class"] / "red").iterdir():
        photo.unlink()
    for number in range(5):
        paint(made["one_class"] / "red" / f"{number}.png", number, COLOURS["red"])
        paint(made["no_classes"] / f"{number}.png", number, COLOURS["red"])
        for name in COLOURS:
            path = made["unreadable"] / name / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"")
    make_photos(made["broken"])
    whole = (made["broken"] / "red" / "000.png").read_bytes()
    (made["broken"] / "red" / "broken.jpg").write_bytes(whole[: len(whole) // 2])
    made["truncated"] = top / "truncated.safetensors"
    made["truncated"].write_bytes((trained / "best.safetensors").read_bytes()[:-1000])
    made |= _broken_runs(top, trained)
    return {**made, "run": trained, "photos": trained.parent / "photos", "long": Path("x" * 5000)}


def _broken_runs(top: Path, trained: Path) -> dict[str, Path]:
    """Copies of a run, each with one thing wrong in it."""
    made = {name: top / name for name in ("nan", "torn_config", "bad_momentum", "bad_card")}
    for folder in made.values():
        shutil.copytree(trained, folder)
    (made["torn_config"] / "config.json").write_text("[]")
    changes: dict[tuple[str, str], Callable[[Any, Any], object]] = {
        ("nan", "best"): lambda tensors, _: tensors["conv1_1.weight"].fill_(float("nan")),
        ("bad_momentum", "last"): lambda tensors, _: tensors.pop("momentum/fc6.bias"),
        ("bad_card", "best"): lambda _, metadata: metadata.update(classes=5),
    }
    for (name, which), change in changes.items():
        path = made[name] / f"{which}.safetensors"
        header, tensors = read_safetensors(path)
        metadata = json.loads(header[METADATA_KEY])
        change(tensors, metadata)
        save_sealed(tensors, path, {METADATA_KEY: json.dumps(metadata)})
    (made["bad_momentum"] / "previous.safetensors").unlink()
    return made


@pytest.mark.parametrize(("typed", "says"), MISTAKES, ids=[row[0] for row in MISTAKES])
def test_a_mistake_is_one_sentence(
    command: Command, places: dict[str, Path], tmp_path: Path, typed: str, says: str
) -> None:
    words = [word.format(**places) if "{" in word else word for word in typed.split()]
    sentence = command(*words, cwd=tmp_path, IMAGENET="").mistake()
    assert re.search(says, sentence), sentence
    assert not list(tmp_path.iterdir())  # nothing half-made is left


def test_data_check_lists_every_fault(command: Command, places: dict[str, Path]) -> None:
    answer = command("data", "check", places["unreadable"])
    assert answer.status == 2
    assert answer.stdout.count("is an empty file") == 15
    assert "unreadable images: 15" in answer.stdout


def test_bad_images_can_be_skipped_and_are_logged(command: Command, places: dict[str, Path], tmp_path: Path) -> None:
    words = ["train", "A", "--data", places["broken"], "--out", tmp_path / "r", "--max-epochs", 1, *SIZE]
    answer = command(*words, "--bad-images", "skip")
    assert answer.status == 0, answer.stderr
    assert re.search(r"warning: skipped: .*broken\.jpg", answer.stderr)
    assert list(json.loads((tmp_path / "r" / "bad_images.json").read_text())) == ["red/broken.jpg"]
    resumed = command("train", "A", "--out", tmp_path / "r", "--resume", "--max-epochs", 2, "--workers", 0)
    assert resumed.status == 0, resumed.stderr
    tested = command("evaluate", tmp_path / "r", "dense@36", "--set", "all", "--bad-images", "skip", "--json")
    summary = json.loads(tested.stdout)
    assert (summary["images"], summary["skipped"]) == (30, 1)


def test_a_broken_image_is_named_and_the_others_are_predicted(command: Command, places: dict[str, Path]) -> None:
    answer = command("predict", places["run"], places["broken"] / "red", "--json")
    assert answer.status == 1
    assert len(json.loads(answer.stdout)) == 10
    assert len(answer.stderr.splitlines()) == 1
    assert "broken.jpg is" in answer.stderr


def test_a_full_disk_leaves_the_old_checkpoint(command: Command, photos: Path) -> None:
    """Files are bounded below a checkpoint's size, as a full disk would bound them."""
    place = photos.parent
    base = ["train", "A", "--out", "run", "--workers", 0, "--threads", 1]
    assert command(*base, "--data", "photos", "--max-epochs", 1, *SIZE[:8], cwd=place).status == 0
    before = (place / "run" / "last.safetensors").read_bytes()
    answer = command(*base, "--resume", "--max-epochs", 3, cwd=place, file_limit=len(before) // 2)
    sentence = answer.mistake()
    assert re.search(r"cannot write run/(best|last)\.safetensors: .*; the one saved before is intact", sentence)
    assert (place / "run" / "last.safetensors").read_bytes() == before
    assert not list((place / "run").glob(".*"))
    assert command(*base, "--resume", "--max-epochs", 2, cwd=place).status == 0


def test_an_image_that_breaks_during_training_is_named(command: Command, photos: Path) -> None:
    """Resuming does not read every photo again, so an epoch meets the broken one."""
    place = photos.parent
    command("train", "A", "--data", "photos", "--out", "run", "--max-epochs", 1, *SIZE, cwd=place)
    for path in (place / "photos").rglob("*.png"):
        path.write_bytes(b"gone bad")
    sentence = command("train", "A", "--out", "run", "--resume", "--max-epochs", 2, "--workers", 1, cwd=place).mistake()
    assert re.search(r"photos/.*\.png is not an image", sentence)


def test_output_that_cannot_be_written_is_one_sentence() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no device here that is always full")
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "verydeep", "nets"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 2
    assert done.stderr.startswith("verydeep: the operating system refused: No space left on device")
    assert len(done.stderr.splitlines()) == 1


def test_names_cannot_control_the_terminal(command: Command, tmp_path: Path) -> None:
    """An escape code in a file's name is shown, not obeyed."""
    photos = make_photos(tmp_path / "photos")
    os.rename(photos / "red", photos / "re\x1b[31md")
    words = ["train", "A", "--data", photos, "--out", tmp_path / "r", "--max-epochs", 1, *SIZE]
    assert command(*words).status == 0
    answer = command("predict", tmp_path / "r", photos / "blue" / "000.png")
    assert "\x1b" not in answer.stdout + answer.stderr
    assert r"\x1b[31m" in answer.stdout
    rows = command("predict", tmp_path / "r", photos / "blue" / "000.png", "--csv").stdout
    assert "\x1b" not in rows
    assert r"\x1b[31m" in rows


@pytest.mark.skipif(shutil.which("pgrep") is None, reason="finding the reading process needs pgrep")
def test_the_reader_of_stdout_may_end() -> None:
    pipe = f"{sys.executable} -m verydeep nets | head -1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", pipe], capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    assert "1000 classes" in done.stdout
