"""Several processes equal one: shards, gradients, evaluations, descriptors; a killed one is restarted."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import verydeep
from conftest import Answer, Command, make_photos
from verydeep.checkpoints.checkpoint import read_safetensors
from verydeep.core.config import Scale
from verydeep.core.device import ONE_BY_ONE
from verydeep.core.settings import DataSettings, TrainSettings
from verydeep.core.team import Team, share_of
from verydeep.data.dataloader import Batch, TrainingLoader
from verydeep.data.datasets.digits import open_named
from verydeep.evaluation.scores import load_scores
from verydeep.transfer.features_file import load_features

TINY = ["--crop", 32, "--S", "32-40", "--width", 1 / 16, "--workers", 0, "--threads", 1, "--start", "none", "--quiet"]


def job(processes: int, *words: object, restarts: int = 0) -> list[str]:
    """The command line of several processes. The ``--`` keeps torchrun from reading our flags as its own."""
    return [
        *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes)),
        *("--max-restarts", str(restarts), "--monitor-interval", "0.1", "--standalone", "-m", "--", "verydeep"),
        *map(str, words),
    ]


def run_job(processes: int, *words: object, restarts: int = 0) -> Answer:
    finished = subprocess.run(
        job(processes, *words, restarts=restarts),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    return Answer(finished.returncode, finished.stdout, finished.stderr)


def tensors(run: Path, name: str = "last") -> dict[str, Tensor]:
    return read_safetensors(run / f"{name}.safetensors")[1]


def distance(one: dict[str, Tensor], other: dict[str, Tensor], only: str = "") -> float:
    """The largest difference of a tensor, relative to its norm."""
    assert one.keys() == other.keys()
    names = [name for name in one if name.startswith(only)]
    assert names
    return max(float((one[name] - other[name]).norm() / one[name].norm()) for name in names)


@given(count=st.integers(0, 2000), size=st.integers(1, 64))
def test_shards_partition_the_data(count: int, size: int) -> None:
    """Each item is in one shard, in order, and the sizes of shards differ by at most one."""
    shares = [share_of(count, rank, size) for rank in range(size)]
    assert [thing for share in shares for thing in share] == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


class Member(Team):
    """One of several processes, as far as shares go."""

    def __init__(self, rank: int, size: int) -> None:
        super().__init__()
        self.rank, self.size = rank, size


@pytest.mark.parametrize("size", [2, 3, 5])
def test_shards_of_a_batch_make_the_batch(size: int) -> None:
    """Crops, labels, colour shifts and dropout's masks, also where some process's share is empty."""
    settings = TrainSettings(net="A", S=Scale(32, 40), crop=32, batch=4)
    photos = open_named("digits:60", None, DataSettings()).sets["train"].take(np.arange(14))
    axes = np.eye(3)
    whole = list(TrainingLoader(photos, settings, axes, 10, ONE_BY_ONE).epoch(3, skip=1))
    shares = [
        list(TrainingLoader(photos, settings, axes, 10, ONE_BY_ONE, team=Member(rank, size)).epoch(3, skip=1))
        for rank in range(size)
    ]
    assert min(len(batch.labels) for share in shares for batch in share) == (0 if size > 2 else 1)
    for number, batch in enumerate(whole):
        for column in Batch.__dataclass_fields__:
            joined = torch.cat([getattr(share[number], column) for share in shares])
            assert torch.equal(joined, getattr(batch, column)), column


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "steps", "bound"), [("float64", 20, 1e-9), ("float32", 1, 1e-5)])
def test_several_processes_equal_one(
    tmp_path: Path, command: Command, precision: str, steps: int, bound: float
) -> None:
    """Jitter, mirrors, colour shift and dropout at work; batches of 12, the last of 2, which leaves some no photo.

    In float64 weights and momentum after twenty steps. Float32 training is chaotic, so there the gradient of one
    step, which is what the momentum's buffers hold after it where no weight decays.
    """
    words = [*TINY, "--data", "digits:62", "--batch", 12, "--max-steps", steps, "--precision", precision]
    words += ["--lr", 5e-3, "--weight-decay", 5e-4 if steps > 1 else 0]
    assert command("train", "A", *words, "--out", tmp_path / "one").status == 0
    begun = tensors(tmp_path / "one")
    for processes in (2, 4):
        ended = run_job(processes, "train", "A", *words, "--json", "--out", tmp_path / str(processes))
        assert ended.status == 0, ended.stderr
        assert json.loads(ended.stdout)["steps"] == steps  # one process answers
        only = "" if steps > 1 else "momentum"
        assert distance(begun, tensors(tmp_path / str(processes)), only) < bound
    logs = [(tmp_path / name / "log.jsonl").read_text().splitlines() for name in ("one", "2", "4")]
    told = [[json.loads(line)["loss"] for line in log] for log in logs]
    assert told[1] == pytest.approx(told[0], rel=1e-6)
    assert told[2] == pytest.approx(told[0], rel=1e-6)


def test_resuming_in_float64_is_exact(tmp_path: Path) -> None:
    given: dict[str, Any] = {"S": "36", "crop": 32, "width": 1 / 32, "start": "none", "batch": 8, "data": "digits:60"}
    here: dict[str, Any] = {"workers": 0, "threads": 1, "precision": "float64"}
    for name, epochs in (("whole", 2), ("parts", 1)):
        verydeep.train("A", out=tmp_path / name, max_epochs=epochs, **given, **here)
    verydeep.train("A", out=tmp_path / "parts", resume=True, max_epochs=2, **here)
    whole, parts = tensors(tmp_path / "whole"), tensors(tmp_path / "parts")
    assert all(torch.equal(whole[name], parts[name]) and whole[name].dtype == torch.float64 for name in whole)


@pytest.mark.slow
def test_recomputation_is_exact(tmp_path: Path, command: Command) -> None:
    """One process with and without; and two, whose gradients are averaged while the maps are computed again."""
    words = [*TINY, "--data", "digits:62", "--batch", 12, "--max-steps", 8, "--precision", "float64", "--lr", 5e-3]
    for name, recompute in (("kept", "no"), ("again", "yes")):
        assert command("train", "A", *words, "--recompute", recompute, "--out", tmp_path / name).status == 0
    kept, again = tensors(tmp_path / "kept"), tensors(tmp_path / "again")
    assert all(torch.equal(kept[name], again[name]) for name in kept)
    assert run_job(2, "train", "A", *words, "--recompute", "yes", "--out", tmp_path / "two").status == 0
    assert distance(kept, tensors(tmp_path / "two")) < 1e-9


@pytest.mark.slow
def test_bf16_gradients_are_rounded_only(tmp_path: Path, command: Command) -> None:
    words = [*TINY, "--data", "digits:62", "--batch", 12, "--max-steps", 1, "--lr", 5e-3, "--weight-decay", 0]
    assert command("train", "A", *words, "--out", tmp_path / "one").status == 0
    assert run_job(2, "train", "A", *words, "--bf16-gradients", "yes", "--out", tmp_path / "two").status == 0
    apart = distance(tensors(tmp_path / "one"), tensors(tmp_path / "two"), "momentum")
    assert 1e-5 < apart < 2**-7  # bf16 has eight bits


@pytest.mark.slow
def test_evaluations_and_descriptors_equal_those_of_one_process(
    trained: Path, tmp_path: Path, command: Command
) -> None:
    """Each photo once; four processes and odd numbers of photos."""
    asked = ["evaluate", trained, "both@36,40", "--set", "train", "--workers", 0, "--threads", 1, "--json"]
    assert command(*asked, "--out", tmp_path / "one").status == 0
    one = load_scores(tmp_path / "one" / "scores.npz")
    told = run_job(4, *asked, "--out", tmp_path / "four")
    assert told.status == 0, told.stderr
    assert json.loads(told.stdout)["images"] == len(one.ids)
    several = load_scores(tmp_path / "four" / "scores.npz")
    assert several.ids == one.ids
    assert np.abs(several.posteriors - one.posteriors).max() < 1e-6

    data = ["--data", trained.parent / "photos", "--scales", "36,48", "--workers", 0, "--threads", 1, "--json"]
    assert command("features", trained, *data, "--layer", "fc7", "--out", tmp_path / "one.safetensors").status == 0
    told = run_job(3, "features", trained, *data, "--layer", "fc7", "--out", tmp_path / "3.safetensors")
    assert told.status == 0, told.stderr
    whole, parts = load_features(tmp_path / "one.safetensors"), load_features(tmp_path / "3.safetensors")
    assert json.loads(told.stdout)["computed"] == 2 * len(whole)
    assert parts.ids == whole.ids
    for scale, rows in whole.scales.items():
        assert np.abs(parts.scales[scale] - rows).max() < 1e-5 * np.abs(rows).max()
    assert sorted(path.name for path in tmp_path.glob("3.safetensors*")) == ["3.safetensors"]


LONG = ["train", "A", *TINY, "--data", "digits:400", "--batch", 8, "--max-epochs", 4, "--lr", 5e-3, "--workers", 1]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of two processes that nobody disturbs."""
    place = tmp_path_factory.mktemp("unbroken") / "run"
    assert run_job(2, *LONG, "--out", place).status == 0
    return place


@pytest.mark.slow
@pytest.mark.parametrize("leader", [True, False])
def test_a_killed_process_is_restarted(unbroken: Path, tmp_path: Path, leader: bool) -> None:
    """torchrun restarts the job, it resumes, and the weights are those of an uninterrupted run."""
    process = subprocess.Popen(
        job(2, *LONG, "--out", tmp_path / "killed", restarts=1),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        log = tmp_path / "killed" / "log.jsonl"
        until = time.monotonic() + 120
        while not (log.is_file() and log.read_text().count("\n") >= 1):
            assert time.monotonic() < until, "no epoch ended"
            time.sleep(0.02)
        time.sleep(0.1)
        os.kill(_child(process.pid, 0 if leader else 1), signal.SIGKILL)
        stderr = process.communicate(timeout=240)[1].decode()
    finally:
        process.kill()
    assert process.returncode == 0, stderr
    assert "exitcode: -9" in stderr  # it was killed before its end
    found, right = tensors(tmp_path / "killed"), tensors(unbroken)
    assert all(torch.equal(found[name], right[name]) for name in right)
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4]


@pytest.mark.slow
def test_a_hanging_process_ends_the_job_but_a_suspended_job_continues(tmp_path: Path) -> None:
    """Suspended together, as by Ctrl-Z, they are responsive; suspended alone, one is not."""
    log = tmp_path / "run" / "log.jsonl"

    def goes_on(rows: int) -> None:
        wanted, until = (log.read_text().count("\n") if log.is_file() else 0) + rows, time.monotonic() + 120
        while not (log.is_file() and log.read_text().count("\n") >= wanted):
            assert time.monotonic() < until, "no epoch ended"
            time.sleep(0.02)

    process = subprocess.Popen(
        job(2, *LONG, "--max-epochs", 10000, "--peer-timeout", 2, "--out", tmp_path / "run"),
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        goes_on(1)
        ranks = [_child(process.pid, rank) for rank in (0, 1)]
        for number in (signal.SIGSTOP, signal.SIGCONT):
            for one in ranks:
                os.kill(one, number)
            time.sleep(4)
        goes_on(1)
        os.kill(ranks[0], signal.SIGSTOP)
        until = time.monotonic() + 20
        while Path(f"/proc/{ranks[1]}").exists():
            assert time.monotonic() < until, "the other process waits"
            time.sleep(0.05)
        os.kill(ranks[0], signal.SIGCONT)  # torchrun would need half a minute to end it otherwise
        stderr = process.communicate(timeout=120)[1]
    finally:
        process.kill()
    assert process.returncode == 1, stderr
    assert re.search(r"verydeep: rank 0 of 2 \(process \d+ on \S+\) has been unresponsive for 2 s", stderr), stderr


@pytest.mark.slow
def test_a_refused_command_is_not_a_restart(unbroken: Path) -> None:
    """torchrun restarts it all the same; the existing run is another one, and is not changed."""
    before = (unbroken / "last.safetensors").read_bytes()
    lines = told(run_job(2, *LONG, "--lr", 1e-3, "--out", unbroken, restarts=1))
    assert lines
    assert all("already contains a run: add --resume" in line for line in lines)
    assert (unbroken / "last.safetensors").read_bytes() == before


def _child(parent: int, rank: int) -> int:
    """The process of a rank among those that torchrun started."""
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            words = path.read_bytes().split(b"\0")
            born = (path.parent / "stat").read_text().rpartition(")")[2].split()[1]
        except OSError:
            continue
        if int(born) == parent and f"RANK={rank}".encode() in words:
            return int(path.parent.name)
    raise AssertionError(f"no process of rank {rank}")


def told(answer: Answer) -> list[str]:
    """The messages of our processes, each once, without torchrun's own lines."""
    assert answer.status != 0
    return [line.removeprefix("verydeep: ") for line in answer.stderr.splitlines() if line.startswith("verydeep: ")]


@pytest.mark.slow
def test_errors_are_reported_once(tmp_path: Path) -> None:
    """Errors that all find, that one finds in its shard, and that only one process can have."""
    photos = make_photos(tmp_path / "photos")
    (typed,) = told(run_job(2, "train", "A", "--bach", "3"))
    assert typed == "unknown setting '--bach': did you mean --batch?"
    every = told(run_job(2, "train", "A", *TINY, "--data", tmp_path / "nowhere"))
    assert len(every) == 1
    assert "nowhere" in every[0]
    assert told(run_job(2, "train", "A", "--peer-timeout", 0)) == ["peer-timeout must be 1 or more, not 0."]
    alone = told(run_job(2, "predict", "runs/D", "photo.jpg"))
    assert alone == ["`verydeep predict` runs in one process: start it without torchrun."]
    (photos / "red" / "009.png").write_bytes(b"no photo")  # in the last share
    (one,) = told(run_job(2, "train", "A", *TINY, "--data", photos, "--out", tmp_path / "run"))
    assert "009.png is not an image" in one
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_an_unreadable_image_in_one_process(trained: Path, tmp_path: Path) -> None:
    """The process of that shard reports it; the other ends with it."""
    photos = make_photos(tmp_path / "photos")
    (photos / "red" / "009.png").write_bytes(b"no photo")
    asked = ["evaluate", trained, "centre@36", "--data", photos, "--set", "all", "--workers", 0, "--quiet"]
    lines = told(run_job(2, *asked, "--out", tmp_path / "found"))
    assert sum("009.png is not an image" in line for line in lines) == 1
    assert all("009.png" in line or "another process" in line for line in lines)
    skipped = run_job(2, *asked, "--bad-images", "skip", "--json", "--out", tmp_path / "found")
    assert skipped.status == 0
    assert json.loads(skipped.stdout)["skipped"] == 1
    assert len(load_scores(tmp_path / "found" / "scores.npz").ids) == 29


@pytest.mark.slow
def test_processes_fit_a_start_and_return_from_divergence_together(tmp_path: Path, command: Command) -> None:
    """Ten classes on a start of three: fc8 is fitted by both; then every loss is lost, at each rate."""
    make_photos(tmp_path / "photos")
    first, out = tmp_path / "first", tmp_path / "run"
    command("train", "A", "--data", tmp_path / "photos", "--out", first, "--max-epochs", 1, *TINY)
    words = ["train", "A", "--data", "digits:60", "--out", out, *TINY[:-3], "--start", first, "--lr", 1e30, "--quiet"]
    ended = run_job(2, *words)
    assert ended.status != 0
    assert ended.stderr.count("verydeep: Training diverged") == 1
    result = json.loads((out / "result.json").read_text())
    assert (result["ended"], len(result["returns"]), result["best_epoch"]) == ("diverged", 3, 0)
    assert result["probe_dev_top1_error"] is not None
    assert all(bool(value.isfinite().all()) for value in tensors(out, "best").values())
