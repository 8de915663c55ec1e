"""Long inference on a CPU with bf16 units: bf16 only where a sample of the images agrees with float32."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
from numpy.typing import NDArray

import verydeep
from verydeep.core import device
from verydeep.core.device import Machine, resolve_device
from verydeep.core.errors import VerydeepError
from verydeep.core.progress import Silent
from verydeep.core.settings import MachineSettings
from verydeep.core.team import Team
from verydeep.evaluation import agreement
from verydeep.evaluation.agreement import LARGEST_SAMPLE, LEAST_WORK, POSTERIORS, agreed_machine, angle, total_variation
from verydeep.evaluation.predict import Classifier
from verydeep.models import matmul
from verydeep.transfer.extract import extract_features

T = TypeVar("T")
Rows = NDArray[np.float32]
MANY = 10_000


class Said(Silent):
    """Keeps what was said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


class Disagreeing(Team):
    """A job of two processes, of which the other never agrees."""

    def all_gather(self, value: T) -> list[T]:
        return [value, False]  # type: ignore[list-item]


def machine(may_lower: bool = True) -> Machine:
    return replace(resolve_device(MachineSettings(device="cpu"), 1e9), may_lower=may_lower)


def apart_by(distance: float) -> Callable[[Machine, Sequence[int]], Rows]:
    """Posteriors of two classes, in bf16 a total variation of ``distance`` from those in float32."""

    def compute(tried: Machine, indices: Sequence[int]) -> Rows:
        first = 0.5 + distance * (tried.precision == "bf16")
        return np.tile(np.array([[first, 1 - first]], dtype=np.float32), (len(indices), 1))

    return compute


def test_close_results_choose_bf16() -> None:
    said = Said()
    chosen, found = agreed_machine(machine(), MANY, LEAST_WORK, apart_by(0.01), POSTERIORS, said)
    assert chosen.precision == "bf16"
    assert found is not None
    assert (found.precision, found.images) == ("bf16", LARGEST_SAMPLE)
    assert found.distance == pytest.approx(0.01, abs=1e-6)
    assert said.lines == [str(found)]
    assert "--precision float32 is exact" in said.lines[0]


@pytest.mark.parametrize("distance", [0.03, math.nan])
def test_others_stay_in_float32(distance: float) -> None:
    chosen, found = agreed_machine(machine(), MANY, LEAST_WORK, apart_by(distance), POSTERIORS, Silent())
    assert chosen.precision == "float32"
    assert found is not None
    assert found.precision == "float32"


def test_all_processes_choose_alike() -> None:
    team = Disagreeing()
    assert agreed_machine(machine(), MANY, LEAST_WORK, apart_by(0), POSTERIORS, Silent(), team) == (machine(), None)


@pytest.mark.parametrize(
    ("may_lower", "count", "work"), [(False, MANY, LEAST_WORK), (True, 319, LEAST_WORK), (True, MANY, LEAST_WORK - 1)]
)
def test_short_work_and_other_processors_try_nothing(may_lower: bool, count: int, work: float) -> None:
    def compute(*_: object) -> Rows:
        raise AssertionError("nothing is computed")

    here = machine(may_lower)
    assert agreed_machine(here, count, work, compute, POSTERIORS, Silent()) == (here, None)


def test_the_sample_is_spread_over_the_set() -> None:
    tried: list[list[int]] = []

    def compute(_: Machine, indices: Sequence[int]) -> Rows:
        tried.append(list(indices))
        return np.ones((len(indices), 1), dtype=np.float32)

    agreed_machine(machine(), 640, LEAST_WORK, compute, POSTERIORS, Silent())
    assert tried[0] == tried[1]
    assert (tried[0][0], tried[0][-1], len(set(tried[0]))) == (0, 639, 32)  # a twentieth
    assert set(np.diff(tried[0])) <= {20, 21}


def test_a_requested_precision_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "_has_matrix_units", lambda: True)
    wanted = {"auto": True, "float32": False, "bf16": False}
    for precision, tries in wanted.items():
        settings = MachineSettings(device="cpu", precision=precision)  # type: ignore[arg-type]
        assert resolve_device(settings, 1e9).may_lower == tries


def test_distances_by_hand() -> None:
    one, other = np.array([[0.5, 0.5, 0.0], [1, 0, 0]]), np.array([[0.4, 0.5, 0.1], [0, 0, 1]])
    assert total_variation(one, other) == pytest.approx([0.1, 1])
    assert angle(np.array([[3.0, 0], [0, 0], [1, 1]]), np.array([[1.0, 0], [0, 0], [0, 2]])) == pytest.approx(
        [0, 0, 1 - math.sqrt(0.5)]
    )


@pytest.mark.skipif(not matmul.ONEDNN, reason="PyTorch without oneDNN")
def test_commands_choose_and_record_it(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a processor with AMX, for a set of thousands of images."""
    monkeypatch.setattr(device, "_has_matrix_units", lambda: True)
    for name, least in {"LEAST_WORK": 0, "LEAST_SAMPLE": 1, "SHARE": 1}.items():
        monkeypatch.setattr(agreement, name, least)
    data, here = str(trained.parent / "photos"), MachineSettings(device="cpu", workers=0)
    tested = verydeep.evaluate(trained, data=data, machine=here, out=tmp_path / "test")
    assert tested.summary["agreement"]["precision"] == "bf16"
    assert json.loads((tmp_path / "test" / "result.json").read_text())["environment"]["precision"] == "bf16"
    exact = verydeep.evaluate(trained, data=data, machine=replace(here, precision="float32"), out=tmp_path / "exact")
    assert exact.summary["agreement"] is None
    apart = total_variation(tested.scores.posteriors, exact.scores.posteriors)
    assert 0 < apart.mean() <= POSTERIORS.most
    images = sorted(map(str, Path(data).rglob("*.png")))
    by_choice, in_bf16 = (verydeep.load(trained, machine=replace(here, precision=name)) for name in ("auto", "bf16"))
    assert isinstance(by_choice, Classifier)
    assert isinstance(in_bf16, Classifier)
    assert np.array_equal(by_choice.posteriors(images), in_bf16.posteriors(images))
    made = extract_features(trained, data, tmp_path / "f.safetensors", machine=here)
    assert made.to_json()["precision"] == "bf16"
    monkeypatch.setattr(agreement, "LEAST_WORK", math.inf)  # a file that is there has the precision chosen before
    again = extract_features(trained, data, tmp_path / "f.safetensors", machine=here)
    assert (again.computed, again.to_json()["precision"]) == (0, "bf16")
    assert extract_features(trained, data, tmp_path / "g.safetensors", machine=here).to_json()["precision"] == "float32"
    with pytest.raises(VerydeepError, match="is a folder"):
        extract_features(trained, data, Path(), machine=here)
