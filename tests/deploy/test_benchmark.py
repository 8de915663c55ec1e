"""`verydeep benchmark` by the real command: equal work is measured, rows are complete, errors are sentences."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

from conftest import Command
from verydeep.core.device import resolve_device
from verydeep.core.errors import VerydeepError
from verydeep.core.progress import Silent
from verydeep.core.settings import MachineSettings
from verydeep.deploy.benchmark.peer_process import Order, at_work, normalised, plain_net
from verydeep.deploy.benchmark.runner import Contender, compare, measured_peak
from verydeep.models.architectures import net_facts
from verydeep.models.vgg import create_net

TOP = Path(__file__).resolve().parents[2]
HERE = resolve_device(MachineSettings(workers=0, threads=1), 1)


def test_the_peers_net_computes_what_ours_does() -> None:
    """As many parameters, and with our weights the same scores of an image of the crop's size."""
    ours, theirs = create_net("A", 5).eval(), plain_net("A", 5).eval()
    assert sum(one.numel() for one in theirs.parameters()) == net_facts("A", 5).parameters
    with torch.no_grad():
        for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            other.copy_(mine.flatten().view(other.shape))
        photo = torch.randint(0, 256, (1, 224, 224, 3), dtype=torch.uint8)
        image = normalised(photo)
        assert image.mean().abs() < 0.5
        scores = theirs(image)
        assert (ours(image).flatten(1) - scores).abs().max() < 1e-4 * scores.abs().max()


def test_rows_are_of_each_contender_in_turn() -> None:
    """Each twice a turn, of which one is timed; ratios are to the first, shares to a peak measured beside it."""
    done: list[str] = []

    def once(name: str) -> int:
        done.append(name)
        return sum(range(300_000))

    contenders = [
        Contender("one", partial(once, "one"), 4, 2.0),
        Contender("two", partial(once, "two"), 8),
    ]
    found = compare(contenders, 3, HERE, Silent())
    assert done == ["one", "one", "two", "two"] * 4
    first, second = found.rows
    assert (first.name, first.ratio_to_first, second.share_of_peak) == ("one", 1.0, None)
    assert second.ratio_to_first == pytest.approx(second.images_per_second / first.images_per_second, abs=0.01)
    assert all(row.least <= row.images_per_second <= row.most for row in found.rows)
    assert found.peak_multiply_adds_per_second > 1e9
    assert found.peak_memory_bytes > 1e6
    assert measured_peak(HERE) > 1e9


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ("infer {run} --batch 2 --against torchvision", ["vgg11", "run"]),
        ("{run} --batch 2", ["run"]),
        ("train A A-LRN --batch 2 --size 32", ["A", "A-LRN"]),
        ("dense {run} --size 48", ["dense@48"]),
        ("svm --photos 40 --size 64 --against scikit-learn", ["LinearSVC", "verydeep"]),
        ("data {photos} --photos 4", ["Pillow", "files", "coarsely", "raw pack"]),
    ],
)
def test_the_real_command(command: Command, trained: Path, words: str, names: list[str]) -> None:
    typed = words.format(run=trained, photos=trained.parent / "photos").split()
    done = command("benchmark", *typed, "--repeats", 1, "--threads", 1, "--json")
    assert done.status == 0, done.stderr
    told = json.loads(done.stdout)
    rows = told["sets"][0]["rows"] if told["what"] == "data" else told["rows"]
    assert [name in row["name"] for name, row in zip(names, rows, strict=True)] == [True] * len(names)
    assert all(row["images_per_second"] > 0 for row in rows)


@pytest.mark.slow
def test_several_numbers_of_processes(command: Command) -> None:
    words = ["benchmark", "train", "A", "--size", 32, "--batch", 3, "--repeats", 1, "--processes", "1,2"]
    done = command(*words, "--json")
    assert done.status == 0, done.stderr
    one, two = json.loads(done.stdout)["runs"]
    assert (one["processes"], one["speed_up"], one["efficiency"]) == (1, 1.0, 1.0)
    assert two["processes"] == 2
    assert two["efficiency"] == pytest.approx(two["speed_up"] / 2, abs=0.001)


MISTAKES = [
    ("train Q", "there is no net 'Q'"),
    ("infer runs/none", "runs/none"),
    ("infer {run} --size 16", "size 16 is below a net's crop: use 32 or more"),
    ("infer {run} --batch 0", "batch and photos must be 1 or more, not 0 and None"),
    ("infer {run} --repeats 0", "repeats must be 1 or more"),
    ("infer {run} --against timm", "there is no peer 'timm' to compare with: use torchvision"),
    ("train C --size 32 --batch 1 --against torchvision", "torchvision has no net C"),
    ("svm --against torchvision", "SVMs have no peer 'torchvision': use scikit-learn"),
    ("svm --size -3", "size must be 1 or more, not -3"),
    ("svm --photos 2", "svm needs 40 photos or more, two for each class, not 2"),
    ("dense {run} --size 16", "the net's crop, or more"),
    ("data nowhere", "nowhere"),
    ("data digits:60", "digits:60 is not a folder of images or tar files"),
    ("infer {run} --processes 2", "only `benchmark train` takes --processes"),
    ("train A --processes 2,x", "processes lists whole numbers from 1 to 512"),
]


@pytest.mark.parametrize(("words", "sentence"), MISTAKES)
def test_mistakes(command: Command, trained: Path, words: str, sentence: str) -> None:
    assert sentence in command("benchmark", *words.format(run=trained).split()).mistake()


@pytest.mark.slow
def test_the_script_for_a_gpu_can_be_tried_on_a_cpu(tmp_path: Path) -> None:
    done = subprocess.run(
        ["bash", str(TOP / "benchmarks" / "gpu.sh"), "--try"],
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
        env={**os.environ, "OUT": str(tmp_path), "PYTHON": sys.executable, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    found = {path.stem: json.loads(path.read_text()) for path in tmp_path.glob("*.json")}
    assert sorted(found) == ["dense", "infer", "infer-plain", "train", "train-plain"]
    assert found["train-plain"]["machine"]["layout"] == "contiguous_format"
    assert len(done.stdout.splitlines()) == sum(len(told["rows"]) for told in found.values())


def test_a_peer_whose_process_ends_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    order = Order("torchvision", "A", 3, 1, 32, trains=False)
    with (
        pytest.raises(VerydeepError, match="torchvision's process ended"),
        at_work(order, HERE),
    ):
        pass
