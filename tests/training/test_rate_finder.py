"""The learning-rate range test: its first step is that of training, it is repeatable, and it writes nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import verydeep
from conftest import TINY, Command, make_photos
from verydeep.checkpoints.run_dir import read_log
from verydeep.data.image_io import read_image
from verydeep.training import rate_finder
from verydeep.training.rate_finder import RateTest, steepest

WORDS = [word for name, value in TINY.items() for word in (f"--{name}", value)]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_photos(tmp_path_factory.mktemp("rate") / "photos").parent


@pytest.fixture(scope="module")
def tested(place: Path) -> RateTest:
    return verydeep.find_rate("A", data=str(place / "photos"), **TINY)


def test_the_first_step_is_that_of_training(tested: RateTest, place: Path, tmp_path: Path) -> None:
    verydeep.train("A", tmp_path / "run", data=str(place / "photos"), max_steps=1, **TINY)
    assert tested.losses[0] == read_log(tmp_path / "run")[0]["loss"]
    assert tested.smoothed[0] == pytest.approx(tested.losses[0])
    assert tested.lr == 1e-2


def test_it_is_the_same_again_and_another_with_another_seed(tested: RateTest, place: Path) -> None:
    again = verydeep.find_rate("A", data=str(place / "photos"), **TINY)
    assert again == tested
    other = verydeep.find_rate("A", data=str(place / "photos"), seed=1, **TINY)
    assert other.losses[0] != tested.losses[0]


def test_rates_rise_by_a_factor_and_the_test_ends_where_the_loss_diverges(tested: RateTest) -> None:
    assert tested.rates[0] == pytest.approx(1e-6)
    assert np.allclose(np.diff(np.log10(tested.rates)), 6 / 99)
    if tested.diverged_at is not None:
        assert tested.diverged_at > tested.rates[-1]
        assert len(tested.rates) < 100


@pytest.mark.parametrize("fault", [5.0, None])
def test_a_loss_that_rises_or_is_not_finite_ends_the_test(
    place: Path, monkeypatch: pytest.MonkeyPatch, fault: float | None
) -> None:
    """The losses fall from 1 to .5 in 40 steps; then they are 5, or there are no more."""

    def losses_at(_trainer: Any, _rates: tuple[float, ...]) -> Iterator[float]:
        yield from np.linspace(1, 0.5, 40).tolist()
        while fault is not None:
            yield fault

    monkeypatch.setattr("verydeep.training.trainer.Trainer.losses_at", losses_at)
    test = verydeep.find_rate("A", data=str(place / "photos"), **TINY)
    assert test.diverged_at is not None
    assert len(test.losses) >= 40
    assert max(test.smoothed) <= rate_finder.DIVERGED * min(test.smoothed)
    assert test.suggestion in test.rates[10:39]
    assert "falls fastest at a learning rate of" in test.sentence
    assert "and diverges at" in test.sentence


def test_the_suggestion_is_where_the_loss_falls_most() -> None:
    rates = tuple(np.geomspace(1e-6, 1, 100).tolist())
    smoothed = [1 / (1 + np.exp((number - 60) / 5)) for number in range(100)]  # steepest at step 60
    assert steepest(rates, smoothed) == rates[60]
    assert steepest(rates, sorted(smoothed)) is None  # it only rises
    assert steepest(rates, smoothed[:12]) is None  # too few


def test_nothing_is_suggested_where_the_loss_stays_at_chance(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of three classes it is ln 3, about 1.1."""
    for last, suggested in ((1.05, False), (0.8, True)):
        losses = np.linspace(1.5, last, 80).tolist() + [last] * 20
        monkeypatch.setattr("verydeep.training.trainer.Trainer.losses_at", lambda *_, losses=losses: iter(losses))
        test = verydeep.find_rate("A", data=str(place / "photos"), **TINY)
        assert (test.suggestion is not None) == suggested
        told = "The loss stays at chance in these 100 steps, so no learning rate is suggested."
        assert (test.sentence == told) != suggested


def test_the_command_prints_a_table_and_writes_the_plot_only(
    tested: RateTest, place: Path, tmp_path: Path, command: Command
) -> None:
    words = ["rate", "A", "--data", place / "photos", *WORDS]
    answer = command(*words, "--plot", "new/rates.png", cwd=tmp_path)
    assert answer.status == 0, answer.stderr
    assert tested.sentence in answer.stdout
    assert len(answer.stdout.splitlines()) < 20
    assert f"{tested.rates[-1]:.1e}" in answer.stdout
    assert [path.name for path in tmp_path.rglob("*")] == ["new", "rates.png"]
    assert read_image(tmp_path / "new" / "rates.png").shape == (440, 660, 3)
    answer = command(*words, "--json", "--lr", 0.5, cwd=tmp_path)
    assert answer.status == 0, answer.stderr
    document = json.loads(answer.stdout)
    assert document["lr"] == 0.5
    assert document["suggestion"] == tested.suggestion
    assert [row["loss"] for row in document["steps"]] == list(tested.losses)


def test_mistakes_are_one_sentence(place: Path, tmp_path: Path, command: Command) -> None:
    data = ["--data", place / "photos"]
    assert "no data: pass a folder" in command("rate", "A").mistake()
    assert "there is no net 'F'" in command("rate", "F", *data).mistake()
    assert "unknown setting '--resume'" in command("rate", "A", *data, "--resume").mistake()
    (tmp_path / "file").write_text("")
    told = command("rate", "A", *data, *WORDS, "--plot", tmp_path / "file" / "rates.png").mistake()
    assert "is not a folder; use another --plot" in told
