"""Training that diverges returns to its best epoch, or ends there."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_trainer import after
from torch.nn import functional as F

import verydeep
from conftest import TINY, Command
from verydeep import VerydeepError
from verydeep.checkpoints.checkpoint import load_checkpoint

BEST, LAST = "best.safetensors", "last.safetensors"
SIZE = ["--crop", 32, "--width", 0.03125, "--S", 36, "--batch", 8, "--workers", 0, "--threads", 1]


@pytest.fixture
def losing(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A call after which the losses with these numbers, counted from then on, are ``factor`` times what they are."""
    right = F.cross_entropy

    def arm(*lost: int, factor: float = float("nan")) -> None:
        steps = [0]

        def loss(
            scores: torch.Tensor, labels: torch.Tensor, weight: torch.Tensor | None, reduction: str
        ) -> torch.Tensor:
            steps[0] += 1
            return right(scores, labels, weight=weight, reduction=reduction) * (factor if steps[0] in lost else 1.0)

        monkeypatch.setattr("verydeep.training.classification.F.cross_entropy", loss)

    return arm


def weights(folder: Path, name: str) -> dict[str, torch.Tensor]:
    return load_checkpoint(folder / name).weights


def log(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_a_diverged_run_is_complete_and_its_advised_command_works(command: Command, photos: Path) -> None:
    place = photos.parent
    words = ["train", "A", "--data", "photos", "--out", "run", "--lr", 100, "--max-epochs", 3, *SIZE]
    sentence = command(*words, cwd=place).mistake()
    assert "Training diverged: the loss or its gradient is not finite at step" in sentence
    result = json.loads((place / "run" / "result.json").read_text())
    assert (result["ended"], result["best_epoch"]) == ("diverged", 0)
    assert "verydeep.load" in (place / "run" / "README.md").read_text()
    page = (place / "run" / "report.html").read_text()
    body = page[page.index("<main") :]
    assert body.index("Training diverged") < body.index("<h1>")
    assert command("predict", "run", "photos/red/000.png", cwd=place).status == 0
    assert command("report", "run", cwd=place).status == 0
    for broken in ({"returns": 3}, {"best_epoch": None}, {"best_dev_top1_error": "low"}):
        (place / "run" / "result.json").write_text(json.dumps({**result, **broken}))
        assert command("report", "run", cwd=place).mistake().startswith("run/result.json is corrupted: resume the run")
    # Going on would meet the same loss: the same sentence at once, and the same files.
    before = (place / "run" / LAST).read_bytes()
    assert command(*words, "--resume", cwd=place).mistake() == sentence
    assert (place / "run" / LAST).read_bytes() == before
    advised = shlex.split(sentence.partition("learning rate: verydeep ")[2])
    assert advised[advised.index("--lr") + 1] == "10.0"
    # The advised rate is a tenth of one that is far too high; a sane one in its place shows that the command is right.
    advised[advised.index("--lr") + 1] = "1e-3"
    again = command(*advised, "--workers", 0, "--threads", 1, cwd=place)
    assert again.status == 0, again.stderr


def test_without_retries_training_ends_at_the_best_epoch(
    photos: Path, tmp_path: Path, losing: Callable[..., None]
) -> None:
    """Three steps an epoch: the fifth is the second of epoch 2."""
    losing(5)
    with pytest.raises(VerydeepError, match=r"step 5 \(epoch 2.*the best epoch, 1 \(dev error"):
        verydeep.train("A", out=tmp_path / "a", data=str(photos), max_epochs=4, **TINY)
    result = json.loads((tmp_path / "a" / "result.json").read_text())
    assert (result["ended"], result["epochs"], result["best_epoch"]) == ("diverged", 1, 1)
    kept = weights(tmp_path / "a", LAST)
    assert all(torch.equal(kept[name], value) for name, value in weights(tmp_path / "a", BEST).items())


def test_a_dev_part_whose_posteriors_are_not_finite_ends_training(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("verydeep.training.classification.ClassificationTask.validate", lambda *_: (np.nan, np.nan))
    with pytest.raises(VerydeepError, match=r"the dev part's posteriors are not finite at step 3 \(epoch 1"):
        verydeep.train("A", out=tmp_path / "a", data=str(photos), max_epochs=2, **TINY)
    assert all(bool(value.isfinite().all()) for value in weights(tmp_path / "a", BEST).values())


def test_returns_to_the_best_epoch_at_a_tenth_of_the_rate(
    photos: Path, tmp_path: Path, losing: Callable[..., None]
) -> None:
    """Of losses 5 and 9 the first is step 5, the second of epoch 2, which begins again: the other is step 8."""
    losing(5, 9)
    result = verydeep.train("A", out=tmp_path / "a", data=str(photos), max_epochs=3, divergence_retries=2, **TINY)
    assert result["ended"] == "max_epochs"
    assert ["step 5" in result["returns"][0], "step 8 (epoch 3" in result["returns"][1]] == [True, True]
    assert [row["lr"] for row in log(tmp_path / "a")] == pytest.approx([1e-2, 1e-3, 1e-4])
    assert [row["epoch"] for row in log(tmp_path / "a")] == [1, 2, 3]


@pytest.mark.parametrize("stopped_at", [4, 5, 6])
def test_interrupted_around_a_return_and_resumed_equals_uninterrupted(
    photos: Path, tmp_path: Path, losing: Callable[..., None], stopped_at: int
) -> None:
    """The fifth loss is lost: four steps are taken before the return, and epoch 2 then begins again."""
    changes: dict[str, Any] = {**TINY, "max_epochs": 3, "divergence_retries": 1}
    losing(5)
    verydeep.train("A", out=tmp_path / "whole", data=str(photos), **changes)
    losing(5)
    result = verydeep.train("A", out=tmp_path / "parts", data=str(photos), **after(stopped_at), **changes)
    assert result["ended"] == "interrupted"
    if stopped_at == 4:  # before the lost loss, which is then the first one after going on
        losing(1)
    verydeep.train("A", out=tmp_path / "parts", resume=True, workers=0, threads=1)
    whole, parts = (load_checkpoint(tmp_path / name / LAST) for name in ("whole", "parts"))
    assert whole.metadata.state == parts.metadata.state
    for ours, theirs in ((whole.weights, parts.weights), (whole.momentum, parts.momentum)):
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_dev_loss_at_chance_is_a_divergence(photos: Path, tmp_path: Path, losing: Callable[..., None]) -> None:
    """One step much too far, the last of epoch 6, spoils a net that had learned, and nothing is a NaN."""
    losing(18, factor=1000.0)
    changes: dict[str, Any] = {**TINY, "width": 1 / 4, "lr": 0.001, "divergence_retries": 1, "drop_at": "40"}
    result = verydeep.train("A", out=tmp_path / "a", data=str(photos), max_epochs=8, **changes)
    assert "the dev loss rose to" in result["returns"][0]
    assert [row["lr"] for row in log(tmp_path / "a")[-2:]] == pytest.approx([1e-4, 1e-4])
    assert result["best_dev_top1_error"] == 0.0


def test_training_that_never_improves_keeps_the_start(
    trained: Path, photos: Path, tmp_path: Path, losing: Callable[..., None]
) -> None:
    losing(*range(1, 99))
    changes: dict[str, Any] = {**TINY, "start": str(trained), "divergence_retries": 2, "head_epochs": 0}
    with pytest.raises(VerydeepError, match=r"learning rate 1e-06\)\. It ended with the weights it started from \(dev"):
        verydeep.train("A", out=tmp_path / "a", data=str(photos), lr=1e-4, **changes)
    kept = weights(tmp_path / "a", BEST)
    assert all(torch.equal(kept[name], value) for name, value in weights(trained, BEST).items())


def test_a_diverged_localisation_run_is_complete(command: Command, tmp_path: Path) -> None:
    words = ["localise", "train", "A", "--data", "digits:100", "--out", "boxes", "--start", "none", "--lr", 1e9]
    sentence = command(*words, "--max-epochs", 3, *SIZE, cwd=tmp_path).mistake()
    assert "Training diverged" in sentence
    assert "Train again with a lower learning rate: verydeep localise train A" in sentence
    assert json.loads((tmp_path / "boxes" / "result.json").read_text())["ended"] == "diverged"
    assert (tmp_path / "boxes" / BEST).is_file()


def test_the_advised_command_is_minimal(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(VerydeepError, match="Training diverged") as diverged:
        verydeep.train("A", out=tmp_path / "a", data=str(photos), start="none", lr=100, max_epochs=3, **TINY)
    words = shlex.split(str(diverged.value).partition("learning rate: verydeep ")[2])
    expected = {
        "data",
        "S",
        "crop",
        "width",
        "batch",
        "lr",
        "max-epochs",
        "out",
    }  # no weights of such a width are released
    assert {word.removeprefix("--") for word in words if word.startswith("--")} == expected
