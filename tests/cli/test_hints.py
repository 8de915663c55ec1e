"""What is said to those who are nearly right: the name they meant, help in place of a bare mistake, what is usual."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest

import verydeep
from conftest import Command
from verydeep.cli.parser import build_parser, parse
from verydeep.core.config import flag, to_json
from verydeep.core.device import resolve_device
from verydeep.core.nearest import COMMANDS, SETTINGS
from verydeep.core.progress import duration
from verydeep.core.settings import MachineSettings
from verydeep.evaluation.cost import fastest_seconds
from verydeep.training.recipes import settings_of_box_run, settings_of_run

# What was typed, and what is named.
HINTS = [
    ("trian D --data x", r"there is no command 'trian'; did you mean train?"),
    ("Train D --data x", "did you mean train?"),
    ("eval runs/D", "did you mean evaluate?"),  # as most programs call it
    ("localize train D", "did you mean localise?"),
    ("localise trian D", "did you mean train?"),
    ("data chekc x", "did you mean check?"),
    ("paint", "there is no command 'paint'; use benchmark, calibrate, completion"),  # near none
    ("train vgg16 --data x", "VGG-16 is net D."),
    ("train VGG-19 --data x", "VGG-19 is net E."),
    ("nets vgg11", "VGG-11 is net A."),
    ("nets vgg_13", "VGG-13 is net B."),
    ("train vgg16_bn --data x", "no net here has batch normalisation; VGG-16 is net D."),
    ("train vgg12 --data x", "there is no net 'vgg12': The nets are"),  # no such net anywhere
    ("nets d", "did you mean D?"),
    ("nets net-e", "did you mean E?"),
    ("nets shallow-b", "did you mean shallow-B?"),
    ("weights fetch oxford-d", "did you mean oxford-D?"),
    ("weights fetch vgg19", "did you mean oxford-E?"),
    ("predict oxford-d x.jpg", "did you mean oxford-D?"),
    ("train D --data x --amp yes", "did you mean --precision?"),
    ("train D --data x --epochs 3", "did you mean --max-epochs?"),
    ("train D --data x --max_epochs 3", "did you mean --max-epochs?"),
    ("train D --data x -bs 3", "did you mean --batch?"),
    ("train D --data x --imgsz=96", "did you mean --crop?"),
    ("train D --data x --gpus 1", "did you mean --device?"),
    ("train D --data x --output y", "did you mean --out?"),
    ("train D --data x --leraning-rate 1", "did you mean --lr?"),  # misspelt, as others call it
    ("train D --data x --pretrained y", "did you mean --start?"),
    ("probe --data x --pretrained y --weights z", "did you mean --weights?"),  # which has no --start
    ("train D --data x --color-shift off", "did you mean --colour-shift?"),
    ("train D --data x --optimizer adam", "unknown setting '--optimizer'; see `verydeep train --help`."),
    ("train D photos/", "unknown argument 'photos/': did you mean --data photos/?"),
    ("nets D E", "unknown argument 'E'; see `verydeep nets --help`."),
    ("export runs/D --to onxn", "--to cannot be 'onxn'; did you mean onnx?"),
    ("train D --data x --precision FP16", "did you mean 'fp16'?"),
    ("reproduce Table3/d/256", "did you mean table3/D/256?"),
    ("train D", "no data: pass a folder"),
    ("localise train D --start x", "no data: pass a folder"),
]


@pytest.mark.parametrize(("typed", "says"), HINTS, ids=[row[0] for row in HINTS])
def test_the_nearest_name_is_suggested(command: Command, tmp_path: Path, typed: str, says: str) -> None:
    assert says in command(*typed.split(), cwd=tmp_path).mistake()
    assert not list(tmp_path.iterdir())


def test_flags_of_other_programs_lead_to_ours() -> None:
    _, verbs = build_parser()
    flags = {
        name.removeprefix("--") for verb in verbs.values() for action in verb._actions for name in action.option_strings
    }
    assert {ours for several in SETTINGS.values() for ours in several} <= flags
    assert {ours for (ours,) in COMMANDS.values()} <= {name.partition(" ")[0] for name in verbs}
    with pytest.raises(verydeep.VerydeepError, match="did you mean 'max-epochs'"):
        verydeep.train("D", data="x", epochs=3)  # type: ignore[call-arg]


@pytest.mark.parametrize("words", [(), ("data",), ("localise",), ("weights",)])
def test_no_command_prints_help(command: Command, words: tuple[str, ...]) -> None:
    answer = command(*words)
    assert (answer.status, answer.stderr) == (0, "")
    assert answer.stdout.startswith(" ".join(["usage: verydeep", *words]))
    assert answer.stdout == command(*words, "--help").stdout


def test_evaluate_has_a_default_protocol(command: Command, trained: Path, tmp_path: Path) -> None:
    answer = command("evaluate", trained, "--out", tmp_path / "found", "--workers", 0, "--json")
    assert answer.status == 0, answer.stderr
    assert "evaluating with dense@36, the default of predict" in answer.stderr
    assert json.loads(answer.stdout)["protocol"] == "dense@36"


def test_data_are_opened_by_path_or_settings(photos: Path) -> None:
    for data in (photos, str(photos), f"{photos}/", verydeep.DataSettings(data=str(photos))):
        assert len(verydeep.open_data(data).sets["train"]) == 21
    assert len(verydeep.open_data("digits:60").sets["train"]) == 60
    for nothing in (None, 5, {"data": "x"}, b"x"):
        with pytest.raises(
            TypeError, match=f"data must be a path, a name or DataSettings, not {type(nothing).__name__}"
        ):
            verydeep.open_data(nothing)  # type: ignore[arg-type]


def test_waiting_for_other_processes_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sleeping stands for a process that others keep from the processor."""
    machine = resolve_device(MachineSettings(device="cpu"), 1.0)
    for load, waited in ((0.0, True), (1e4, False)):
        monkeypatch.setattr("os.getloadavg", lambda load=load: (load, load, load))
        assert (fastest_seconds(lambda: time.sleep(0.05), machine) >= 0.05) == waited


@pytest.mark.parametrize(
    ("seconds", "says"),
    [
        (45, "45 s"),
        (3600 * 3.52, "3.5 h"),
        (86_400 * 4.24, "4.2 days"),
        (86_400 * 245.7, "250 days"),  # two digits are more than a short measurement knows
        (86_400 * 5658, "15 years"),
        (86_400 * 400_000, "1100 years"),
    ],
)
def test_a_long_time_has_two_digits(seconds: float, says: str) -> None:
    assert duration(seconds) == says


# A training's command line, and what its help must show of settings that depend on the run.
HELP = [
    ("train D", {"start", "lr", "batch", "head_epochs", "drops", "patience", "max_epochs", "S", "initialise"}),
    ("train D/256-512-fc", {"start", "lr", "batch", "head_epochs", "drops", "learn", "S"}),
    ("train E --start none --crop 96", {"start", "lr", "S", "crop"}),
    ("localise train D --start runs/D", {"lr", "batch", "dropout"}),
    ("localise train D/256-SCR-fc", {"lr", "batch", "dropout", "regression", "learn"}),
]


@pytest.mark.parametrize(("line", "names"), HELP, ids=[row[0] for row in HELP])
def test_help_shows_what_a_run_would_use(capsys: pytest.CaptureFixture[str], line: str, names: set[str]) -> None:
    """The values are the recipe's own; none is typed here."""
    run, flags = re.search(r"\S*[A-E]\S*", line), re.findall(r"--(\S+) (\S+)", line)
    assert run is not None
    given = dict(flags)
    recipe = settings_of_box_run(run[0], given) if "localise" in line else (settings_of_run(run[0], given),)
    shown = help_of(capsys, line.split())
    values = {name: value for settings in recipe for name, value in to_json(settings).items()}
    for name in names:
        assert re.search(rf"\(default: {shown_as(values[name])}\)$", shown[flag(name)]), (name, shown[flag(name)])


def test_help_of_no_run_shows_both_recipes(capsys: pytest.CaptureFixture[str]) -> None:
    shown, own, paper = help_of(capsys, ["train"]), settings_of_run("D", {}), settings_of_run("D/256", {})
    assert shown["lr"].endswith(f"(default: {own.lr:g}; D/256: {paper.lr:g})")
    assert shown["momentum"].endswith(f"(default: {own.momentum:g})")  # the same in both
    assert "digits)" not in shown["data"]
    assert shown["mirror"].endswith("(default: yes)")
    # A mistake elsewhere on the line is no reason to refuse help.
    assert help_of(capsys, ["train", "F", "--lr", "fast"])["lr"] == shown["lr"]


def shown_as(value: object) -> str:
    """A value as help shows it, as a pattern."""
    text = {True: "yes", False: "no"}[value] if isinstance(value, bool) else value
    return re.escape(f"{text:g}" if isinstance(text, float) else str(text))


def help_of(capsys: pytest.CaptureFixture[str], words: list[str]) -> dict[str, str]:
    """The text of each flag in a command's help, without line breaks."""
    with pytest.raises(SystemExit) as ended:
        parse([*words, "--help"])
    assert ended.value.code == 0
    listed = capsys.readouterr().out.partition("\noptions:")[2]
    rows = re.findall(r"^  --(\S+)(?: \S+)?\s+(.*(?:\n {10,}.*)*)", listed, re.M)
    return {name: " ".join(text.split()) for name, text in rows}
