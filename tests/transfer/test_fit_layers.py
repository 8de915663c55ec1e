"""Before fine-tuning new FC layers are fitted, and the start is probed: linear SVMs on the same descriptors."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import verydeep
from conftest import TINY, Command, make_photos
from verydeep.checkpoints.checkpoint import load_checkpoint
from verydeep.core.config import to_json
from verydeep.core.device import resolve_device
from verydeep.core.progress import Silent
from verydeep.core.settings import DataSettings, MachineSettings
from verydeep.core.team import Team
from verydeep.data.open import open_data
from verydeep.training.recipes import settings_of_run
from verydeep.transfer.fit_layers import Fitted, fit_start

SIZE = ["--crop", 32, "--width", 0.03125, "--S", 36, "--batch", 8, "--workers", 0, "--threads", 1]


def test_a_fitted_start_is_right_before_the_first_step(command: Command, trained: Path, photos: Path) -> None:
    """A rate of nothing, so that the best net is the fitted start: colours are easy on the start's fc7."""
    place = photos.parent
    make_photos(photos / "more", 10)  # a class more, so that the last layer is new
    words = ["train", "A", "--data", "photos", "--start", trained, "--lr", 1e-30, "--max-epochs", 1, *SIZE]
    fitted = command(*words, "--out", "fitted", "--json", cwd=place)
    random = command(*words, "--out", "random", "--new-fc", "random", "--json", cwd=place)
    errors = [json.loads(answer.stdout)["best_dev_top1_error"] for answer in (fitted, random)]
    assert errors[0] < errors[1]


def test_fine_tuning_worse_than_a_probe_advises_a_command_that_works(
    command: Command, trained: Path, photos: Path
) -> None:
    """A random last layer that does not learn, while the colours are easy for SVMs on the start's fc7."""
    place = photos.parent
    make_photos(photos / "more", 10)
    words = ["train", "A", "--data", "photos", "--start", trained, "--lr", 1e-30, "--max-epochs", 1, *SIZE]
    answer = command(*words, "--new-fc", "random", "--out", "run", cwd=place)
    assert answer.status == 0, answer.stderr
    result = json.loads((place / "run" / "result.json").read_text())
    assert result["probe_dev_top1_error"] < result["best_dev_top1_error"]
    advised = re.search(r"train those with `verydeep (probe .*)`", " ".join(answer.stderr.split()))
    assert advised, answer.stderr
    assert command(*shlex.split(advised[1]), "--workers", 0, "--threads", 1, cwd=place).status == 0
    assert "dev error of a probe" in (place / "run" / "report.html").read_text()


def test_fine_tuning_that_is_not_worse_has_no_advice(command: Command, trained: Path, photos: Path) -> None:
    words = ["train", "A", "--data", "photos", "--start", trained, "--max-epochs", 1, *SIZE]
    answer = command(*words, "--out", "run", cwd=photos.parent)
    result = json.loads((photos.parent / "run" / "result.json").read_text())
    worse = result["probe_dev_top1_error"] < result["best_dev_top1_error"]
    assert ("verydeep probe" in answer.stderr) is worse


def test_runs_of_the_paper_and_random_weights_are_not_compared(trained: Path, photos: Path, tmp_path: Path) -> None:
    for run, start in (("A/36", str(trained)), ("A", "none")):
        out = tmp_path / run.replace("/", "-")
        changes = {name: value for name, value in TINY.items() if name != "S" or run == "A"}
        result = verydeep.train(run, out=out, data=str(photos), start=start, max_steps=1, **changes)
        assert result["probe_dev_top1_error"] is None


def fitted(run: Path, photos: Path, random: tuple[str, ...], **changes: Any) -> tuple[verydeep.Net, Fitted]:
    """A run's net after the fit, and what that left."""
    checkpoint = load_checkpoint(run / "best.safetensors")
    net, sets = checkpoint.net(), open_data(DataSettings(data=str(photos))).sets
    settings = settings_of_run("A", {"start": str(run), "crop": 32, "S": "36", **changes})
    metadata = replace(checkpoint.metadata, settings=to_json(settings))
    machine = resolve_device(MachineSettings(workers=0, threads=1), 0)
    two = (sets["train"], sets["dev"])
    return net, fit_start(net, metadata, random, two, machine, Silent(), Team())


@pytest.mark.parametrize("random", [("fc8",), ("fc6", "fc7", "fc8"), ("fc6", "fc8"), ("fc7", "fc8")])
def test_fitted_fc_layers_classify_the_training_images(trained: Path, photos: Path, random: tuple[str, ...]) -> None:
    net, found = fitted(trained, photos, random)
    assert found.random == ()
    assert found.probe_error is not None
    train = open_data(DataSettings(data=str(photos))).sets["train"]
    mean = torch.tensor(load_checkpoint(trained / "best.safetensors").metadata.mean)[:, None, None]
    crops = torch.stack([torch.from_numpy(train.pixels(i)[2:34, 2:34]).permute(2, 0, 1) - mean for i in range(21)])
    with torch.no_grad():
        predicted = net.eval()(crops).flatten(1).argmax(1).numpy()
    assert (predicted == train.labels).mean() > 0.9


def test_layers_of_the_start_are_not_changed(trained: Path, photos: Path) -> None:
    before = load_checkpoint(trained / "best.safetensors").weights
    for random, changes in ((("conv1_1", "fc8"), {}), ((), {}), (("fc8",), {"new_fc": "random"})):
        net, found = fitted(trained, photos, random, **changes)
        assert found.random == random
        assert (found.probe_error is None) is ("conv1_1" in random)
        assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_svms_need_photos_of_every_class(trained: Path, photos: Path) -> None:
    checkpoint = load_checkpoint(trained / "best.safetensors")
    sets = open_data(DataSettings(data=str(photos))).sets
    few = sets["train"].take(np.flatnonzero(sets["train"].labels > 0))
    settings = settings_of_run("A", {"start": "x", "crop": 32, "S": "36"})
    machine = resolve_device(MachineSettings(workers=0, threads=1), 0)
    metadata = replace(checkpoint.metadata, settings=to_json(settings))
    found = fit_start(checkpoint.net(), metadata, ("fc8",), (few, sets["dev"]), machine, Silent(), Team())
    assert found == Fitted((), None)
