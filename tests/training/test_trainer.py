"""Sect. 3.1: training is repeatable, resumable and independent of the number of workers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import verydeep
from conftest import TINY, Command
from verydeep import VerydeepError
from verydeep.checkpoints.checkpoint import Checkpoint, load_checkpoint
from verydeep.core.device import ONE_BY_ONE
from verydeep.core.progress import Advance, Interrupted, Silent
from verydeep.core.settings import DataSettings
from verydeep.data.dataloader import Batch, TrainingLoader
from verydeep.data.open import open_data
from verydeep.data.statistics import scan_images
from verydeep.training.classification import ClassificationTask
from verydeep.training.recipes import settings_of_run


def after(steps: int) -> dict[str, Any]:
    """Arguments that ask to stop after so many steps."""
    counter = Steps()
    return {"reporter": counter, "stop": lambda: counter.count >= steps}


class Steps(Silent):
    """Counts the steps that are reported."""

    def __init__(self) -> None:
        self.count = 0

    @contextmanager
    def track(self, label: str, total: int) -> Iterator[Advance]:
        """Each epoch's bar begins with what was done before."""
        told = [0]

        def advance(_count: int, _note: str) -> None:
            told[0] += 1
            self.count += label.startswith("epoch") and told[0] > 1

        yield advance


def last(folder: Path) -> Checkpoint:
    return load_checkpoint(folder / "last.safetensors")


def assert_equal(one: Checkpoint, other: Checkpoint) -> None:
    """Weights and momentum, bit for bit, and the state."""
    assert one.metadata.state == other.metadata.state
    for ours, theirs in ((one.weights, other.weights), (one.momentum, other.momentum)):
        assert ours.keys() == theirs.keys()
        assert ours
        for name in ours:
            assert torch.equal(ours[name], theirs[name]), name


def log(folder: Path) -> list[dict[str, Any]]:
    timed = ("seconds", "images_per_second")
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key not in timed} for row in rows]


def test_two_runs_with_one_seed_are_identical_and_workers_do_not_matter(photos: Path, tmp_path: Path) -> None:
    for name, workers, seed in (("a", 0, 5), ("b", 0, 5), ("c", 2, 5), ("d", 0, 6)):
        changes = {**TINY, "workers": workers, "seed": seed}
        verydeep.train("B", out=tmp_path / name, data=str(photos), max_epochs=2, **changes)
    assert_equal(last(tmp_path / "a"), last(tmp_path / "b"))
    assert_equal(last(tmp_path / "a"), last(tmp_path / "c"))
    assert log(tmp_path / "a") == log(tmp_path / "c")
    assert not torch.equal(last(tmp_path / "a").weights["fc8.weight"], last(tmp_path / "d").weights["fc8.weight"])


@pytest.mark.parametrize("step", range(1, 9))
def test_interrupted_after_any_step_and_resumed_equals_uninterrupted(photos: Path, tmp_path: Path, step: int) -> None:
    """Two epochs of three steps, with a drop of the rate between them and a head phase before."""
    changes = {**TINY, "S": "34-40", "drop_at": "2", "head_epochs": 1, "lr": 0.001, "max_epochs": 3}
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    verydeep.train("B", out=whole, data=str(photos), **changes)
    result = verydeep.train("B", out=parts, data=str(photos), **after(step), **changes)
    assert result["ended"] == "interrupted"
    assert last(parts).metadata.state["step"] == step
    result = verydeep.train("B", out=parts, resume=True, workers=0, threads=1)
    assert result["ended"] == "max_epochs"
    assert_equal(last(whole), last(parts))
    assert log(whole) == log(parts)
    best = [load_checkpoint(folder / "best.safetensors") for folder in (whole, parts)]
    assert torch.equal(best[0].weights["fc8.weight"], best[1].weights["fc8.weight"])


def test_interrupted_twice(photos: Path, tmp_path: Path) -> None:
    changes = {**TINY, "max_epochs": 3}
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    verydeep.train("A", out=whole, data=str(photos), **changes)
    verydeep.train("A", out=parts, data=str(photos), **after(2), **changes)
    verydeep.train("A", out=parts, resume=True, **after(3), workers=0, threads=1)
    verydeep.train("A", out=parts, resume=True, workers=0, threads=1)
    assert_equal(last(whole), last(parts))
    assert log(whole) == log(parts)


def test_automatic_settings_may_be_repeated_on_resuming(photos: Path, tmp_path: Path) -> None:
    """As when the same command is repeated, or torchrun restarts a job."""
    changes = {**TINY, "batch": 0, "max_epochs": 2}
    verydeep.train("A", out=tmp_path / "run", data=str(photos), **after(1), **changes)
    ended = verydeep.train("A", out=tmp_path / "run", data=str(photos), resume=True, **changes)
    assert ended["ended"] == "max_epochs"
    with pytest.raises(VerydeepError, match="the run was started with batch"):
        verydeep.train("A", out=tmp_path / "run", resume=True, **{**changes, "batch": 5})


def test_a_longer_training_continues_a_shorter_one(photos: Path, tmp_path: Path) -> None:
    verydeep.train("A", out=tmp_path / "whole", data=str(photos), max_epochs=3, **TINY)
    verydeep.train("A", out=tmp_path / "parts", data=str(photos), max_epochs=1, **TINY)
    verydeep.train("A", out=tmp_path / "parts", resume=True, max_epochs=3, workers=0, threads=1)
    assert torch.equal(last(tmp_path / "whole").weights["fc6.weight"], last(tmp_path / "parts").weights["fc6.weight"])


def batches(photos: Path, epoch: int, skip: int = 0, **changes: Any) -> list[Batch]:
    settings = settings_of_run("A", {**{key: TINY[key] for key in ("crop", "width", "S", "batch")}, **changes})
    dataset = open_data(DataSettings(data=str(photos))).sets["train"]
    look = scan_images(dataset, 36, ONE_BY_ONE, Silent())
    return list(TrainingLoader(dataset, settings, look.colour_axes, 10, ONE_BY_ONE).epoch(epoch, skip))


def test_an_epoch_has_each_image_once_in_another_order(photos: Path) -> None:
    first, second = batches(photos, 0), batches(photos, 1)
    assert [len(batch.labels) for batch in first] == [8, 8, 5]  # 21 photos: the last batch is smaller
    labels = torch.cat([batch.labels for batch in first])
    assert torch.bincount(labels).tolist() == [7, 7, 7]
    assert not torch.equal(first[0].images, second[0].images)
    skipped = batches(photos, 0, skip=2)
    assert len(skipped) == 1
    assert torch.equal(skipped[0].images, first[2].images)
    assert torch.equal(skipped[0].keep, first[2].keep)


def test_dropout_masks_keep_half_and_differ_between_photos(photos: Path) -> None:
    keep = torch.cat([batch.keep for epoch in range(20) for batch in batches(photos, epoch)])
    assert keep.float().mean().item() == pytest.approx(0.5, abs=0.03)
    assert len({tuple(row.tolist()) for row in keep}) > 300


def test_gradient_accumulation(photos: Path) -> None:
    """Float64: to 1e-9, the last unequal part weighted rightly."""
    net = verydeep.create_net("B", classes=3, crop=32, width=1 / 16, seed=3).double().train()
    (batch, *_) = batches(photos, 0, batch=21)
    keep = torch.rand(21, sum(net.dropout_units), generator=torch.Generator().manual_seed(0)) > 0.5
    whole = Batch(batch.images, batch.labels, batch.shift, keep, batch.boxes)
    gradients = []
    for size in (21, 8, 1):
        net.zero_grad()
        for part in whole.parts(size):
            scores = net(part.images.double() - 110 + part.shift[:, :, None, None], part.keep).flatten(1)
            (F.cross_entropy(scores, part.labels, reduction="sum") / 21).backward()  # type: ignore[no-untyped-call]
        gradients.append(
            torch.cat([parameter.grad.flatten() for parameter in net.parameters() if parameter.grad is not None])
        )
    for other in gradients[1:]:
        assert (gradients[0] - other).norm() <= 1e-9 * gradients[0].norm()


def test_accumulated_training_is_the_same_training(photos: Path, tmp_path: Path) -> None:
    for name, at_once in (("whole", 0), ("parts", 3)):
        verydeep.train("A", out=tmp_path / name, data=str(photos), max_steps=1, device_batch=at_once, **TINY)
    one, other = (last(tmp_path / name).momentum["fc7.weight"] for name in ("whole", "parts"))
    assert (one - other).norm() <= 1e-5 * one.norm()


def test_mean_and_axes_are_kept_in_the_run(trained: Path) -> None:
    metadata = last(trained).metadata
    data = open_data(DataSettings(**{**metadata.data, "classes": ()}))
    look = scan_images(data.sets["train"], 36, ONE_BY_ONE, Silent())
    np.testing.assert_allclose(metadata.mean, look.mean)
    np.testing.assert_allclose(metadata.colour_axes, look.colour_axes)
    assert metadata.data_fingerprint == data.fingerprint()


def test_a_run_starts_from_another_run(trained: Path, photos: Path, tmp_path: Path) -> None:
    said: list[str] = []

    class Listener(Silent):
        def say(self, text: str) -> None:
            said.append(text)

    changes = {**TINY, "start": str(trained), "max_epochs": 1, "head_epochs": 1}
    verydeep.train("E", out=tmp_path / "e", data=str(photos), reporter=Listener(), **changes)
    assert any(line.startswith("copied 7 layers: conv1_1, conv2_1, conv3_1, conv3_2, fc6, fc7, fc8") for line in said)
    assert any(line.startswith("random 12 layers: conv1_2") for line in said)
    # In the head epoch only the random layers learned.
    source, found = load_checkpoint(trained / "best.safetensors"), last(tmp_path / "e")
    assert torch.equal(source.weights["conv3_2.weight"], found.weights["conv3_2.weight"])
    drawn = verydeep.create_net("E", 3, 32, 1 / 32).state_dict()
    assert not torch.equal(drawn["conv3_3.weight"], found.weights["conv3_3.weight"])
    assert found.metadata.mean == source.metadata.mean


def test_tensorboard_gets_the_logs_numbers(photos: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    verydeep.train("A", out=tmp_path / "a", data=str(photos), max_epochs=2, tensorboard=True, **TINY)
    events = EventAccumulator(str(tmp_path / "a" / "tensorboard"))
    events.Reload()
    seen = [(event.step, event.value) for event in events.Scalars("dev_top1_error")]
    assert seen == [(row["epoch"], pytest.approx(row["dev_top1_error"])) for row in log(tmp_path / "a")]


def test_best_is_the_epoch_of_the_least_dev_error(photos: Path, tmp_path: Path) -> None:
    result = verydeep.train("A", out=tmp_path / "a", data=str(photos), max_epochs=5, **{**TINY, "lr": 0.003})
    rows = log(tmp_path / "a")
    reached = [(row["dev_top1_error"], row["dev_loss"]) for row in rows]
    assert result["best_epoch"] == reached.index(min(reached)) + 1
    assert load_checkpoint(tmp_path / "a" / "best.safetensors").metadata.state["epoch"] == result["best_epoch"]
    assert json.loads((tmp_path / "a" / "result.json").read_text()) == result


def test_frozen_layers_do_not_change(trained: Path, photos: Path, tmp_path: Path) -> None:
    for learn, moving in (("fc", {"fc6", "fc7", "fc8"}), ("last", {"fc8"})):
        changes = {**TINY, "start": str(trained), "max_epochs": 1, "head_epochs": 0, "learn": learn}
        verydeep.train("A", out=tmp_path / learn, data=str(photos), **changes)
        before, found = load_checkpoint(trained / "best.safetensors").weights, last(tmp_path / learn).weights
        moved = {name.split(".")[0] for name in found if not torch.equal(found[name], before[name])}
        assert moved == moving


def test_training_learns_colours(photos: Path, tmp_path: Path) -> None:
    """Three colours are classified after a few epochs."""
    changes: dict[str, Any] = {**TINY, "width": 1 / 4}
    verydeep.train("A", out=tmp_path / "a", data=str(photos), max_epochs=40, lr=0.003, **changes)
    assert verydeep.evaluate(tmp_path / "a", "dense@36,40").summary["top1_error"] == 0.0
    assert verydeep.evaluate(tmp_path / "a", "centre@36", last=True).summary["top1_error"] == 0.0


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_non_finite_steps_are_not_taken(
    photos: Path, tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The third step goes bad, in the loss or behind a finite loss; the weights on disk are those before."""
    right = F.cross_entropy
    steps = [0]

    def goes_bad(
        scores: torch.Tensor, labels: torch.Tensor, weight: torch.Tensor | None, reduction: str
    ) -> torch.Tensor:
        steps[0] += 1
        loss = right(scores, labels, weight=weight, reduction=reduction)
        if steps[0] < 3:
            return loss
        return loss * float("nan") if what == "loss" else loss + (scores - scores.detach()).abs().sqrt().sum()

    monkeypatch.setattr("verydeep.training.classification.F.cross_entropy", goes_bad)
    with pytest.raises(VerydeepError, match=r"not finite at step 3 \(epoch 1"):
        verydeep.train("A", out=tmp_path / "a", data=str(photos), max_epochs=2, **TINY)
    kept = last(tmp_path / "a")
    assert all(bool(value.isfinite().all()) for value in kept.weights.values())


def test_resuming_needs_the_same_images(photos: Path, tmp_path: Path) -> None:
    verydeep.train("A", out=tmp_path / "a", data=str(photos), max_epochs=1, **TINY)
    dev = open_data(DataSettings(data=str(photos))).sets["dev"]
    (photos / dev.ids[0]).unlink()
    with pytest.raises(VerydeepError, match="has changed since the run started"):
        verydeep.train("A", out=tmp_path / "a", resume=True, max_epochs=2, workers=0)


def test_a_truncated_log_line_does_not_stop_resuming(photos: Path, tmp_path: Path) -> None:
    verydeep.train("A", out=tmp_path / "a", data=str(photos), max_epochs=2, **TINY)
    path = tmp_path / "a" / "log.jsonl"
    path.write_text(path.read_text() + '{"epoch": 3, "st')
    verydeep.train("A", out=tmp_path / "a", resume=True, max_epochs=3, workers=0, threads=1)
    assert [row["epoch"] for row in log(tmp_path / "a")] == [1, 2, 3]


def test_an_interrupted_validation_is_repeated_on_resuming(photos: Path, tmp_path: Path) -> None:
    """The interruption comes at the last step, when only the validation is left."""
    whole = verydeep.train("A", out=tmp_path / "whole", data=str(photos), max_steps=2, **TINY)
    result = verydeep.train("A", out=tmp_path / "a", data=str(photos), max_steps=2, **after(2), **TINY)
    assert (result["ended"], result["epochs"], result["steps"]) == ("interrupted", 0, 2)
    result = verydeep.train("A", out=tmp_path / "a", resume=True, workers=0, threads=1)
    assert (result["ended"], result["epochs"], result["steps"]) == ("max_steps", 1, 2)
    assert result["best_dev_top1_error"] == whole["best_dev_top1_error"]
    assert_equal(last(tmp_path / "whole"), last(tmp_path / "a"))


def test_interruption_before_the_first_step_leaves_no_run(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        verydeep.train("A", out=tmp_path / "a", data=str(photos), stop=lambda: True, **TINY)
    assert not (tmp_path / "a").exists()


def test_an_existing_run_is_not_overwritten(trained: Path) -> None:
    with pytest.raises(VerydeepError, match="already contains a run: add --resume"):
        verydeep.train("A", out=trained, data="digits", **TINY)


def test_the_loss_by_class_weights() -> None:
    """By hand: each image's cross-entropy times the factor of its class; the error counts images alike."""
    outputs, labels = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 2, 2, 1])
    rest = torch.empty(6, 0)
    batch = Batch(rest, labels, rest, rest, rest)
    factors = torch.tensor([3.0, 1.0, 0.5])
    loss, wrong = ClassificationTask().batch_loss(outputs, batch, factors)
    by_hand = sum(float(factors[k]) * -float(row.log_softmax(0)[k]) for row, k in zip(outputs, labels, strict=True))
    assert float(loss) == pytest.approx(by_hand, rel=1e-6)
    assert wrong == ClassificationTask().batch_loss(outputs, batch)[1]


def test_equal_class_weights_change_nothing(photos: Path, tmp_path: Path) -> None:
    """To the bit; a table's weights are relative, and `balanced` weighs classes of equal size alike."""
    (tmp_path / "weights.csv").write_text("class,weight\nblue,7\ngreen,7\nred,7\n")
    for name, weights in (("none", "none"), ("table", str(tmp_path / "weights.csv")), ("balanced", "balanced")):
        verydeep.train("A", out=tmp_path / name, data=str(photos), max_epochs=1, class_weights=weights, **TINY)
    assert_equal(last(tmp_path / "none"), last(tmp_path / "table"))
    assert_equal(last(tmp_path / "none"), last(tmp_path / "balanced"))


def test_a_heavy_class_is_learned_first(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "weights.csv").write_text("class,weight\nblue,1e-6\ngreen,1e-6\nred,1\n")
    table = str(tmp_path / "weights.csv")
    verydeep.train("A", out=tmp_path / "run", data=str(photos), max_epochs=4, lr=0.05, class_weights=table, **TINY)
    predictions = verydeep.load(tmp_path / "run", last=True).predict(sorted(photos.glob("blue/*.png")))
    assert {prediction.classes[0][0] for prediction in predictions} == {"red"}


def test_class_weights_are_checked_before_anything_is_written(photos: Path, tmp_path: Path, command: Command) -> None:
    (tmp_path / "weights.csv").write_text("class,weight\nblue,1\ngren,1\nred,1\n")
    words = ("train", "A", "--data", photos, "--out", tmp_path / "run", *flags(TINY), "--class-weights")
    for value, message in (
        (tmp_path / "weights.csv", "weights.csv, line 3: unknown class 'gren'; did you mean 'green'?"),
        ("balance", "class_weights must be none, balanced or a file of class,weight; balance is no such file."),
    ):
        answer = command(*words, value)
        assert answer.status == 2
        assert message in answer.stderr
        assert not (tmp_path / "run").exists()


def flags(settings: dict[str, Any]) -> list[str]:
    return [word for name, value in settings.items() for word in (f"--{name}", str(value))]
