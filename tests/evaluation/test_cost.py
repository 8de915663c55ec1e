"""What an evaluation will cost, before it is run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from conftest import Command
from verydeep.core import device
from verydeep.core.device import Machine
from verydeep.core.progress import Silent
from verydeep.core.settings import MachineSettings
from verydeep.evaluation import agreement, cost
from verydeep.evaluation.cost import ImageSample
from verydeep.evaluation.evaluate import prepare_evaluation
from verydeep.evaluation.protocols import parse_protocol
from verydeep.models.architectures import net_facts

FROZEN = Path(__file__).parents[1] / "files" / "frozen"
HERE = ("--workers", 0, "--threads", 1)


def test_the_multiply_adds_of_a_protocol_are_the_sum_of_its_parts() -> None:
    """Of ``both``, those of dense and of crops; of several scales, those of each."""
    images, layers = ImageSample(0.0, ((375, 500), (500, 333))), net_facts("D").layers
    both = images.multiply_adds(parse_protocol("both@256,384"), layers, 224, "up")
    parts = [f"{method}@{scale}" for method in ("dense", "crops") for scale in (256, 384)]
    assert both == sum(images.multiply_adds(parse_protocol(part), layers, 224, "up") for part in parts)


def test_a_centre_crop_costs_what_the_paper_counts_for_the_net() -> None:
    images, facts = ImageSample(0.0, ((375, 500), (500, 333))), net_facts("D")
    assert images.multiply_adds(parse_protocol("centre@256"), facts.layers, 224, "up") == facts.multiply_adds


def test_a_plan_tells_what_an_evaluation_then_reports_and_leaves_nothing(command: Command, tmp_path: Path) -> None:
    """A named protocol alone; without one, those of Tables 3 to 5 at the net's scale."""
    shutil.copytree(FROZEN / "run", tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "evaluations")
    shutil.copytree(FROZEN / "photos", tmp_path / "photos")
    data = ("--data", tmp_path / "photos", *HERE)
    before = sorted(tmp_path.rglob("*"))
    answer = command("evaluate", tmp_path / "run", "both@36,40", "--plan", "--json", *data)
    assert answer.status == 0, answer.stderr
    assert sorted(tmp_path.rglob("*")) == before
    plan = json.loads(answer.stdout)
    done = json.loads(command("evaluate", tmp_path / "run", "both@36,40", "--json", *data).stdout)
    (row,) = plan["protocols"]
    assert (plan["images"], row["protocol"]) == (done["images"], "both@36,40")
    assert row["multiply_adds_per_image"] == done["multiply_adds_per_image"]
    assert row["seconds"] > 0
    plan = json.loads(command("evaluate", tmp_path / "run", "--plan", "--json", *data).stdout)
    assert [row["protocol"] for row in plan["protocols"]] == [
        *("centre@36", "dense@36", "crops@36", "both@36"),
        *(f"{method}@32,36,41" for method in ("dense", "crops", "both")),
    ]
    assert "both@32,36,41" in command("evaluate", tmp_path / "run", "--plan", *data).stdout


@pytest.mark.parametrize(("shared", "precision"), [(1, "bf16"), (1000, "float32")])
def test_a_plan_measures_the_precision_that_would_be_tried(
    monkeypatch: pytest.MonkeyPatch, shared: int, precision: str
) -> None:
    """On a processor with AMX, for a set that is large enough, and for one that is too small."""
    measured: list[str] = []

    def timing(_name: str, _details: object, machine: Machine, *_: object) -> SimpleNamespace:
        measured.append(machine.precision)
        return SimpleNamespace(seconds=(1.0,))

    monkeypatch.setattr(cost, "timing", timing)
    monkeypatch.setattr(device, "_has_matrix_units", lambda: True)
    for name, least in {"LEAST_WORK": 0, "LEAST_SAMPLE": 1, "SHARE": shared}.items():
        monkeypatch.setattr(agreement, name, least)
    prepared = prepare_evaluation(FROZEN / "run", data=str(FROZEN / "photos"), reporter=Silent())
    cost.protocol_costs(prepared, [prepared.protocol], MachineSettings(device="cpu", workers=0), Silent())
    assert measured == [precision]


def test_a_plan_of_a_wrong_protocol_says_so(command: Command) -> None:
    answer = command("evaluate", FROZEN / "run", "dense@8", "--plan", "--data", FROZEN / "photos", *HERE)
    assert (answer.status, answer.stdout) == (2, "")
    assert "Q = 8 in dense@8 is below the net's crop of 32 pixels" in answer.stderr
