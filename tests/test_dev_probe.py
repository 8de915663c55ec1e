"""Fine-tuning is compared with a probe of its start: linear SVMs on descriptors, on the same dev part."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

import verydeep
from conftest import TINY, Command, make_photos
from verydeep.checkpoints import load_checkpoint
from verydeep.config import DataSettings, MachineSettings
from verydeep.data import open_data
from verydeep.machine import this_machine
from verydeep.progress import Silent
from verydeep.team import Alone
from verydeep.transfer.dev_probe import dev_error

SIZE = ["--crop", 32, "--width", 0.03125, "--S", 36, "--batch", 8, "--workers", 0, "--threads", 1]


def test_fine_tuning_that_is_worse_than_a_probe_says_so_and_its_command_works(
    command: Command, trained: Path, photos: Path
) -> None:
    """A rate of nothing: the new last layer stays at 0, while the colours are easy for SVMs on the start's fc7."""
    place = photos.parent
    make_photos(photos / "more", 10)  # a class more, so that the last layer is new
    words = ["train", "A", "--data", "photos", "--start", trained, "--lr", 1e-30, "--max-epochs", 1, *SIZE]
    answer = command(*words, "--out", "run", cwd=place)
    assert answer.status == 0, answer.stderr
    result = json.loads((place / "run" / "result.json").read_text())
    assert result["probe_dev_top1_error"] < result["best_dev_top1_error"]
    advised = re.search(r"train those with `verydeep (probe .*)`", " ".join(answer.stderr.split()))
    assert advised, answer.stderr
    assert command(*shlex.split(advised[1]), "--workers", 0, "--threads", 1, cwd=place).status == 0
    assert "dev error of a probe" in (place / "run" / "report.html").read_text()


def test_fine_tuning_that_is_better_says_nothing(command: Command, trained: Path, photos: Path) -> None:
    """The start's own classes: fine-tuning begins at what the start had learned, which the probe cannot beat."""
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


@pytest.mark.parametrize(("random", "expected"), [((), True), (("fc6", "fc7", "fc8"), True), (("conv1_1",), False)])
def test_a_probe_needs_the_starts_convolutions(
    trained: Path, photos: Path, random: tuple[str, ...], expected: bool
) -> None:
    checkpoint = load_checkpoint(trained / "best.safetensors")
    data = open_data(DataSettings(data=str(photos)))
    machine = this_machine(MachineSettings(workers=0, threads=1), 0)
    found = dev_error(
        *(checkpoint.net(), random, checkpoint.card, data.sets["train"], data.sets["dev"], machine),
        *(Silent(), Alone()),
    )
    assert (found is not None) is expected
    few = data.sets["train"].take(np.flatnonzero(data.sets["train"].labels > 0))  # a class has no photo to learn from
    assert (
        dev_error(
            *(checkpoint.net(), (), checkpoint.card, few, data.sets["dev"], machine),
            *(Silent(), Alone()),
        )
        is None
    )
