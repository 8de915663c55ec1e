"""Names that the terminal's or the system's encoding lacks: each command prints what it can, and files are UTF-8."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

import verydeep
from conftest import TINY, Command, make_photos, own_photos
from verydeep.core.settings import FeatureSettings

# In no single encoding but UTF-8; the last sign is a byte, 0xff, that is no UTF-8 at all.
ODD = "фото é 赤\udcff"
CLASS = "rød 赤"
ASCII_CLASS, LATIN_CLASS = r"r\xf8d \u8d64", "r\udcf8d \\u8d64"  # escaped; in Latin-1, whose ø is the byte 0xf8
ON_CPU = "--workers 0 --threads 1"
SMALL = f"--crop 32 --width 0.03125 --S 36 --batch 8 --max-epochs 1 {ON_CPU}"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images, a net, a localisation model and a features file, in a folder of such a name and with such a class."""
    place = tmp_path_factory.mktemp("encodings") / ODD
    photos = make_photos(place / "photos")
    (photos / "red").rename(photos / CLASS)
    (place / "list.csv").write_text(
        "".join(
            f"photos/{path.parent.name}/{path.name},{path.parent.name}\n" for path in sorted(photos.rglob("*.png"))
        ),
        encoding="utf8",
    )
    own = own_photos(place / "own") / "boxes.csv"
    own.write_text(own.read_text(encoding="utf8").replace("red", CLASS), encoding="utf8")
    small: dict[str, Any] = {**TINY, "max_epochs": 1}
    verydeep.train("A", out=place / "run", data=str(photos), **small)
    boxed: dict[str, Any] = {"data": str(place / "own" / "photos"), "boxes": str(own), "start": "none"}
    verydeep.train_boxes("A", out=place / "boxes", **boxed, **small)
    at_36 = FeatureSettings(scales=(36,))
    on_cpu = verydeep.MachineSettings(workers=0, threads=1)
    verydeep.extract_features(place / "run", str(photos), place / "known.safetensors", settings=at_36, machine=on_cpu)
    verydeep.evaluate(place / "run", "dense@36", machine=on_cpu)
    return place


# The command, or several of which each needs the one before, run in that folder; and whether the last names the class.
COMMANDS = [
    ("--help", False),
    ("data check photos", False),
    ("data show photos --crop 32 --S 36 --out {odd}.png", False),
    ("data pack photos {odd}-pack --size 40 --workers 0", False),
    (
        f"train A --data photos --out {{odd}}-run {SMALL} && "
        f"train A --out {{odd}}-run --resume --max-epochs 2 {ON_CPU} && report run {{odd}}-run --out {{odd}}.html",
        False,
    ),
    (f"evaluate run dense@36 {ON_CPU}", True),
    ("predict run photos --explain {odd}-why", True),
    ("predict run photos --csv", True),
    ("predict run photos --json", True),
    ("fuse run/evaluations/test/dense@36 --out {odd}-fused", False),
    (f"features run --data photos --out {{odd}}.safetensors --scales 36 {ON_CPU}", False),
    ("svm own --features known.safetensors --out {odd}-svm && predict {odd}-svm photos", True),
    ("similar photos/blue --features known.safetensors --top 30 --out {odd}-similar", True),
    (f"probe --data photos --weights run --scales 36 --out {{odd}}-probe {ON_CPU}", False),
    ("report run", False),
    ("convert run {odd}.h5", False),
    ("convert run {odd}.pth && convert {odd}.pth {odd}-converted", False),
    ("export run --out {odd}.onnx && predict {odd}.onnx photos", True),
    ("localise evaluate boxes", False),
    ("localise predict boxes own/photos --class {name} --out {odd}-boxes", True),
    ("benchmark data photos --photos 4 --repeats 1 --batch 2", False),
    ("weights list", False),
    ("table 3", False),
]


def typed(line: str) -> list[str]:
    """The words of a row of `COMMANDS`."""
    return [word.format(odd=ODD, name=CLASS) for word in line.split()]


@pytest.mark.parametrize(("line", "named"), COMMANDS, ids=[row[0] for row in COMMANDS])
def test_every_command_prints_ascii(command: Command, place: Path, line: str, named: bool) -> None:
    for part in line.split(" && "):
        answer = command(*typed(part), cwd=place, PYTHONIOENCODING="ascii")
        assert answer.status == 0, answer.stderr
        assert (answer.stdout + answer.stderr).isascii()
    # In JSON the escapes are JSON's own.
    assert (ASCII_CLASS if "--json" not in line else json.dumps(CLASS)) in answer.stdout or not named


@pytest.mark.parametrize("line", ["predict {odd} photos", "train A --data {odd}", "serve {odd}"])
def test_every_mistake_is_a_sentence_in_ascii(command: Command, place: Path, line: str) -> None:
    sentence = command(*typed(line), cwd=place, PYTHONIOENCODING="ascii").mistake()
    assert sentence.isascii()
    assert r"\u0444\u043e\u0442\u043e" in sentence


@pytest.mark.parametrize("line", ["predict run photos", "predict run photos --csv"])
def test_characters_of_the_encoding_are_printed_unchanged(command: Command, place: Path, line: str) -> None:
    assert LATIN_CLASS in command(*typed(line), cwd=place, PYTHONIOENCODING="latin-1").stdout


C_LOCALE = {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.mark.slow
def test_in_a_locale_of_ascii_files_are_utf8_and_names_the_same(command: Command, place: Path) -> None:
    """A class as a folder's name, in a list and in a checkpoint is one class, whatever the locale of each command."""
    answer = command(*typed(f"train A --data list.csv --out {{odd}}-C {SMALL}"), cwd=place, **C_LOCALE)
    assert answer.status == 0, answer.stderr
    assert answer.stderr.isascii()
    for name in ("config.json", "log.jsonl", "README.md", "report.html", "environment.json"):
        text = (place / f"{ODD}-C" / name).read_bytes().decode("utf8", "surrogateescape")
        assert CLASS in text or name not in ("README.md", "report.html"), name
    answer = command("evaluate", f"{ODD}-C", "dense@36", "--data", "photos", "--json", cwd=place, **C_LOCALE)
    assert answer.status == 0, answer.stderr
    assert CLASS in {row["class"] for row in json.loads(answer.stdout)["classes"]}
    answer = command("predict", f"{ODD}-C", f"photos/{CLASS}", cwd=place, **C_LOCALE)
    assert answer.status == 0, answer.stderr
    assert answer.stdout.count(ASCII_CLASS) >= 20  # each photo's path and its list of classes


def test_a_process_that_is_utf8_already_is_not_started_again(command: Command, place: Path) -> None:
    """-X utf8=0 outweighs the variable, so that starting again would never end."""
    assert command("nets", cwd=place, PYTHONUTF8="1", LC_ALL="C").status == 0
    assert os.fsencode(ODD).endswith(b"\xff")


def test_tensorboard_needs_names_in_utf8(command: Command, place: Path) -> None:
    sentence = command(
        *typed(f"train A --data photos --out {{odd}}-board {SMALL} --tensorboard yes"), cwd=place
    ).mistake()
    assert "TensorBoard needs directory names in UTF-8" in sentence
