"""Every command line that a message suggests is run, as it was printed.

Suggestions are found in the source itself, so that a new one fails here until it is run: by a scenario below, which
makes the real command print it, or by the test file that is named beside it.
"""

from __future__ import annotations

import ast
import re
import shlex
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from test_pretrained import random_layers

import verydeep
import weight_files as made
from conftest import Answer, Command, make_photos, paint, run_command
from verydeep.checkpoints.checkpoint import read_metadata
from verydeep.checkpoints.registry import ilsvrc_classes
from verydeep.checkpoints.run_dir import BEST
from verydeep.cli.parser import build_parser, commands, parse
from verydeep.training.rerun import command_of, probe_command

TOP = Path(verydeep.__file__).parent
GROUPS = {name.partition(" ")[0] for name in commands() if " " in name}
# What only names a command, or a command and what it takes: the first words are one.
MENTIONS = {"{options.command}", "COMMAND --help", "train … --start", "{version('verydeep')}"}
# Suggestions that other tests run, where what prints them is made there.
ELSEWHERE = {
    "localise evaluate {shlex.quote(str(folder))} {usual_test(folder)}": "test_localise_commands.py",
    "localise predict {place} PHOTO": "test_localise_commands.py",
    "calibrate RUN {tested}": "test_calibration.py",
    "table {table} --from {shlex.quote(result['folder'])}": "test_released_runs.py",
}
PROBE = "probe --data"  # of `reports.rerun`, which puts commands together from what a run records
# Those that take hours or a network are parsed, and begin.
PARSED = {
    "reproduce classification": "reproduce classification",
    "export RUN --to onnx": "export runs/D --to onnx",
    "weights fetch NAME": "weights fetch oxford-D",
    **{
        example: example  # of --help
        for example in (
            "fuse D.npz E.npz --weights 2,1 --out runs/fused",
            "similar photo.jpg --features features.safetensors --top 5",
            "localise predict runs/D-PCR photo.jpg --top 1",
        )
    },
    "weights fetch {source}": "weights fetch oxford-D",
    "weights fetch {first.name}": "weights fetch oxford-E",
    "weights fetch oxford-{net}": "weights fetch oxford-E",
    "train A --out {folder} --resume": "train A --out runs/demo --resume",  # of an interrupted demo
}


def texts(tree: ast.Module) -> list[str]:
    """A module's texts but its docstrings, formatted values as ``{code}``."""
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef)]
    left_out = {id(node.body[0].value) for node in nodes if node.body and isinstance(node.body[0], ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            left_out |= {id(part) for part in ast.walk(node) if part is not node}
    found = []
    for node in ast.walk(tree):
        if id(node) in left_out:
            continue
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.append(node.value)
        elif isinstance(node, ast.JoinedStr):
            parts = [(part.value, isinstance(part, ast.Constant)) for part in node.values if hasattr(part, "value")]
            found.append("".join(str(value) if plain else f"{{{ast.unparse(value)}}}" for value, plain in parts))
    return found


def suggestions() -> dict[str, str]:
    """Every suggestion in the source, without its first word, and the module it is in."""
    found = {}
    for path in sorted(TOP.rglob("*.py")):
        for text in texts(ast.parse(path.read_text())):
            for quoted, result in re.findall(r"`verydeep ([^`]*)`?|(?:^|: )verydeep (.*)$", text):
                found[quoted or result] = path.name
    return found


def names_a_command(words: str) -> bool:
    return words in commands() or words in GROUPS or words in MENTIONS


@dataclass(frozen=True)
class Scenario:
    """A command that prints a suggestion; ``more`` makes what is suggested small, ``given`` is for its capitals."""

    template: str
    words: str
    given: tuple[tuple[str, str], ...] = ()
    more: str = ""


SMALL = "--crop 32 --batch 8 --max-steps 1 --workers 0 --threads 1"
PHOTO = (("PHOTO", "photos/red/000.png"),)
CONVERT = "convert {shlex.quote(str(self.path))} runs/NAME --preprocessing caffe{names}"
CLASSES = "convert {shlex.quote(weights.source)} runs/NAME {names_flag(outputs)}"
PREDICT = "predict {place} PHOTO"
NAMES = (("FILE", "names.txt"),)
TESTS = Path(__file__).resolve().parents[1]
SCENARIOS = [
    *(
        Scenario(CONVERT, f"{words}", NAMES)  # none of the six takes --preprocessing
        for words in (
            "predict seven.caffemodel photos/red",
            "evaluate seven.caffemodel dense@64 --data photos",
            "serve seven.caffemodel",
            "export seven.caffemodel",
            "reproduce released/D/centre --data part --weights D=seven.caffemodel",
            "benchmark infer seven.caffemodel",
        )
    ),
    Scenario(CONVERT, "predict all.caffemodel photos/red"),  # of ILSVRC's classes
    Scenario(CLASSES, "predict seven.safetensors photos/red", NAMES),
    Scenario("convert {shlex.quote(str(run))} runs/NAME", "evaluate 'a net.pth' centre@36 --data photos"),
    Scenario(PREDICT, "convert 'its classes.mat' runs/mine", PHOTO),
    Scenario(PREDICT, "convert run mine.pth", PHOTO),
    Scenario("predict {shlex.quote(result['file'])} PHOTO", "export run --out net.onnx", PHOTO),
    Scenario(
        "probe --data DATA --weights {place}",
        "convert conv.caffemodel runs/conv --preprocessing caffe",
        *((("DATA", "photos"),), "--scales 64 --splits 1 --workers 0"),
    ),
    Scenario(
        "train {result['net']} --data DATA --start {place}{width}",
        "convert conv.caffemodel conv.safetensors --preprocessing caffe",
        *((("DATA", "photos"),), SMALL),
    ),
    Scenario(
        "predict {shlex.quote(str(result['folder']))} PHOTO",
        "probe --data photos --weights run --scales 36 --splits 1 --workers 0",
        PHOTO,
    ),
    Scenario(
        "train D --data {shlex.quote(str(result['folder']))} --S {result['size']}{crop}",
        "data pack photos 'a pack' --size 40 --workers 0",
        more=f"--start none --width 0.03125 {SMALL.replace('--crop 32 ', '')}",
    ),
    Scenario("reproduce --list", "reproduce"),
    Scenario(
        "train D --data DATA --exclude {shlex.quote(found['csv'])}",
        "data check photos --weights run --scales 36 --out checked --near 0.02 --workers 0 --threads 1",
        *((("DATA", "photos"),), f"--start none --width 0.03125 {SMALL}"),
    ),
    Scenario(
        "evaluate {quoted} dense@{result['test_scale']}",
        f"train A --data photos {SMALL} --start none --S 36-64 --width 0.03125 --out r",
    ),
    Scenario(
        "evaluate {quoted} dense@{scales}",
        f"train A --data photos {SMALL} --start none --S 36-64 --width 0.03125 --out r",
    ),
]


def test_every_suggestion_in_the_source_is_run_or_names_a_command() -> None:
    run = {scenario.template for scenario in SCENARIOS} | ELSEWHERE.keys() | PARSED.keys()
    run |= {PROBE}
    left = {words: module for words, module in suggestions().items() if not names_a_command(words) and words not in run}
    assert not left, "each needs a scenario here"
    assert not run - suggestions().keys(), "no message suggests these any more"
    for template, file in ELSEWHERE.items():
        assert f"verydeep {template.partition('{')[0].strip()}" in next(TESTS.rglob(file)).read_text()


@pytest.mark.parametrize("words", PARSED.values())
def test_what_takes_hours_or_a_network_is_a_command(words: str) -> None:
    assert parse(shlex.split(words)).command in commands()


def test_what_names_a_command_names_one_with_a_help() -> None:
    assert build_parser()[1].keys() == commands().keys()


@pytest.fixture
def place(tmp_path: Path, trained: Path) -> Path:
    """Photos, a run, and weight files that lack pixels, classes or FC layers."""
    make_photos(tmp_path / "photos")
    (tmp_path / "run").symlink_to(trained)
    layers = random_layers()
    made.caffe_v1(tmp_path / "seven.caffemodel", layers)
    made.caffe_v2(tmp_path / "conv.caffemodel", {name: pair for name, pair in layers.items() if name[:2] != "fc"})
    made.matconvnet(tmp_path / "its classes.mat", random_layers(classes=3), wnids=["blue", "green", "red"])
    (tmp_path / "names.txt").write_text("".join(f"thing {number}\n" for number in range(7)))
    return tmp_path


def needs(place: Path, words: str) -> None:
    """What only some scenarios need."""
    if "all.caffemodel" in words:
        made.caffe_v1(place / "all.caffemodel", random_layers(classes=1000))
    if "a net.pth" in words:
        assert run_command("convert", "run", "a net.pth", cwd=place).status == 0
    if "checked" in words:
        shutil.copy(place / "photos" / "red" / "000.png", place / "photos" / "red" / "copy.png")
    if "part" in words:
        paint(place / "part" / ilsvrc_classes()[3].split()[0] / "0.png", 1, (9, 99, 199))
    if "seven.safetensors" in words:
        done = run_command("convert", "seven.caffemodel", "x", *OF_SEVEN, cwd=place)
        assert done.status == 0, done.stderr
        without_card(place / "x" / "best.safetensors", place / "seven.safetensors")


OF_SEVEN = ["--preprocessing", "caffe", "--class-names", "names.txt"]


def without_card(source: Path, place: Path) -> None:
    """Our own layers with their pixels and no classes."""
    from safetensors.torch import load_file, save_file

    result = {"net": "D", "channel_order": "RGB", "mean_rgb": ",".join(map(str, made.MEAN)), "input_range": "0-255"}
    save_file(load_file(source), place, metadata=result)


def suggested(answer: Answer, template: str) -> list[str]:
    """The words of a suggestion as it was printed."""
    known = re.sub(r"\\\{.*?\\\}", r".*?", re.escape(template))
    text = answer.stdout + answer.stderr
    found = re.findall(rf"(?:`verydeep ({known})`|: verydeep ({known})$)", text, re.MULTILINE)
    assert found, text
    return shlex.split(next(filter(None, found[0])))


@pytest.mark.parametrize("scenario", SCENARIOS, ids=[f"{one.words} -> {one.template}"[:90] for one in SCENARIOS])
def test_what_is_suggested_can_be_typed(place: Path, command: Command, scenario: Scenario) -> None:
    needs(place, scenario.words)
    first = command(*shlex.split(scenario.words), cwd=place)
    assert first.status in (0, 1, 2), first.stderr
    given = dict(scenario.given)
    words = [given.get(word, word) for word in suggested(first, scenario.template)]
    result = command(*words, *shlex.split(scenario.more), cwd=place)
    assert result.status == 0, (words, result.stderr)


def test_commands_put_together_from_a_runs_records_can_be_typed(place: Path, command: Command) -> None:
    """The command that makes a run again, and the probe that training names."""
    words = shlex.split(f"train A --data photos --start run --out second --S 36 --width 0.03125 {SMALL}")
    assert command(*words, cwd=place).status == 0
    metadata = read_metadata(place / "second" / BEST)
    again = [*command_of("A", metadata, "again"), "--workers 0 --threads 1"]
    for text in (" ".join(again), f"{probe_command(metadata, 'second')} --scales 36 --splits 1 --workers 0"):
        result = command(*shlex.split(text)[1:], cwd=place)
        assert result.status == 0, (text, result.stderr)


def test_the_python_of_a_card_can_be_typed(place: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    assert command("convert", "run", "net.pth", cwd=place).status == 0
    code = (place / "net.pth.card.md").read_text().partition("```python\n")[2].partition("```")[0]
    monkeypatch.chdir(place)
    run: Callable[..., None] = exec
    run(code.replace("photo.jpg", "photos/red/000.png"), {})
