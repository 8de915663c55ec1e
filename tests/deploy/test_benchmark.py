"""`verydeep benchmark` by the real command: equal work is measured, rows are complete, errors are sentences."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from conftest import Command
from verydeep.core.device import resolve_device
from verydeep.core.errors import VerydeepError
from verydeep.core.progress import Collected, Silent
from verydeep.core.settings import MachineSettings
from verydeep.deploy.benchmark.benchmark import benchmark
from verydeep.deploy.benchmark.busy import busy
from verydeep.deploy.benchmark.order import IN_BF16, RUNTIMES, Order
from verydeep.deploy.benchmark.peer_process import at_work
from verydeep.deploy.benchmark.runner import HALF_TOLERANCE, Contender, compare, measured_peak
from verydeep.deploy.benchmark.torch_peer import normalised, plain_net
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
        pytest.param("train A A-LRN --batch 2 --size 32", ["A", "A-LRN"], marks=pytest.mark.slow),
        ("dense {run} --size 48", ["dense@48"]),
        pytest.param("{run} --batch 1 --load 1 --against torchvision", ["vgg11", "run"], marks=pytest.mark.slow),
        pytest.param(
            "svm --photos 40 --size 64 --against scikit-learn", ["LinearSVC", "verydeep"], marks=pytest.mark.slow
        ),
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
    ("infer {run} --against torchvision,timm", "there is no peer 'timm' to compare with: use torchvision, onnxruntime"),
    ("infer {run} --load -1", "load must be 0 or more, not -1"),
    ("infer {run} --plot rates.svg", "--plot writes a PNG file: rates.svg must end in .png"),
    ("train A --processes 1,2 --plot rates.png", "--plot draws one measurement: leave out --processes"),
    (
        "train A --size 32 --against torchvision,mnn",
        "training is compared with torchvision alone, not 'torchvision,mnn'",
    ),
    ("svm --against torchvision", "SVMs have no peer 'torchvision': use scikit-learn"),
    ("svm --size -3", "size must be 1 or more, not -3"),
    ("svm --photos 2", "svm needs 40 photos or more, two for each class, not 2"),
    ("dense {run} --size 16", "the net's crop, or more"),
    ("data nowhere", "nowhere"),
    ("data digits:60", "digits:60 is not a folder of images or tar files"),
    ("infer {run} --processes 2", "only `benchmark train` takes --processes"),
    ("train A --processes 2,x", "--processes must be whole numbers from 1 to 512"),
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


ORDER = Order("torchvision", "A", 3, 1, 32, trains=True, device="cpu", threads=1)


def test_a_peer_whose_process_ends_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(VerydeepError, match="torchvision's process ended"), at_work(ORDER):
        pass


@pytest.mark.slow
def test_a_peer_that_dies_between_two_turns_is_a_sentence() -> None:
    with at_work(ORDER) as (name, once):
        assert "vgg11" in name
        once()
        (process,) = children_of(os.getpid(), "peer_process")
        os.kill(process, signal.SIGKILL)
        with pytest.raises(VerydeepError, match="torchvision's process ended; it may need more memory"):
            once()
    assert children_of(os.getpid(), "peer_process") == []


INSTALLED = [name for name, modules in RUNTIMES.items() if all(find_spec(module) for module in modules)]


@pytest.mark.parametrize("name", RUNTIMES)
@pytest.mark.parametrize("size", [32, 64])
def test_a_runtime_predicts_what_ours_does(command: Command, trained: Path, name: str, size: int) -> None:
    if name not in INSTALLED:
        pytest.skip(f"{name} is not installed")
    words = ["benchmark", "infer", trained, "--batch", 2, "--size", size, "--repeats", 1, "--threads", 1]
    done = command(*words, "--against", name, "--json")
    assert done.status == 0, done.stderr
    result = json.loads(done.stdout)
    theirs, ours = result["rows"]
    assert result["not_compared"] == []
    assert theirs["name"].startswith(f"{name} ")
    assert theirs["largest_difference"] < 1e-5
    assert (theirs["ratio_to_best_rival"], ours["largest_difference"]) == (1.0, None)


@pytest.mark.parametrize("name", IN_BF16)
def test_rivals_in_bf16(command: Command, trained: Path, name: str) -> None:
    if name in RUNTIMES and name not in INSTALLED:
        pytest.skip(f"{name} is not installed")
    words = ["benchmark", "infer", trained, "--batch", 2, "--repeats", 1, "--threads", 1, "--precision", "bf16"]
    done = command(*words, "--against", name, "--json")
    assert done.status == 0, done.stderr
    theirs, ours = json.loads(done.stdout)["rows"]
    assert theirs["largest_difference"] < HALF_TOLERANCE
    assert (theirs["ratio_to_best_rival"], ours["largest_difference"]) == (1.0, None)


def test_a_rival_without_bf16_is_a_sentence(command: Command, trained: Path) -> None:
    done = command("benchmark", "infer", trained, "--precision", "bf16", "--against", "mnn")
    assert done.status == 2
    assert done.stderr.endswith(
        "mnn is compared in float32 on a CPU alone (torchvision and openvino in bf16 too): add --device cpu "
        "--precision float32.\n"
    )


def test_a_runtime_that_is_missing_is_named(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RUNTIMES, "mnn", ("no_such_module",))
    told = Collected()
    measure = partial(benchmark, "infer", [str(trained)], 1, repeats=1, machine=MachineSettings(threads=1))
    result = measure(against="torchvision,mnn", reporter=told)
    assert told.warnings == ["mnn is not compared: Python module no_such_module is not installed."]
    assert result["not_compared"] == ["mnn"]
    assert len(result["rows"]) == 2
    with pytest.raises(VerydeepError, match=r"none to compare with is installed \(mnn\): pip install"):
        measure(against=["mnn"])


@pytest.mark.skipif("mnn" in INSTALLED, reason="MNN is installed")
def test_a_runtime_that_does_not_start_is_a_sentence(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RUNTIMES, "mnn", ("json",))
    with pytest.raises(VerydeepError, match="mnn failed: ModuleNotFoundError: No module named 'MNN'"):
        benchmark("infer", [str(trained)], 1, against="mnn")


def test_a_rival_that_predicts_something_else_is_reported(command: Command, trained: Path, tmp_path: Path) -> None:
    """On a larger image torchvision averages the map before fc6, and not the score map."""
    words = ["benchmark", trained, "--batch", 2, "--size", 64, "--repeats", 1, "--against", "torchvision"]
    done = command(*words, "--plot", tmp_path / "rates.png")
    assert done.status == 0, done.stderr
    assert "torchvision's layers differ from those of verydeep by up to 0." in done.stderr
    assert "to best rival" not in done.stdout
    assert (tmp_path / "rates.png").read_bytes().startswith(b"\x89PNG")


def test_the_best_rival_is_the_fastest_that_is_equal() -> None:
    def once(numbers: int) -> int:
        return sum(range(numbers))

    contenders = [
        Contender("slow", partial(once, 400_000), 1, is_rival=True, difference=1e-6),
        Contender("wrong", partial(once, 1), 1, is_rival=True, difference=0.01),
        Contender("fast", partial(once, 40_000), 1, is_rival=True, difference=1e-6),
        Contender("ours", partial(once, 4_000), 1),
    ]
    slow, wrong, fast, ours = (row.ratio_to_best_rival for row in compare(contenders, 3, HERE, Silent()).rows)
    assert slow is not None
    assert wrong is not None
    assert ours is not None
    assert fast == 1.0
    assert slow < 1 < ours < wrong


def test_busy_processes_end_with_the_measurement() -> None:
    def fail() -> None:
        until(lambda: len(children_of(os.getpid(), "busy")) == 2)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), busy(2):
        fail()
    assert children_of(os.getpid(), "busy") == []


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_a_signal_ends_busy_processes_and_peers(trained: Path, number: signal.Signals, status: int) -> None:
    """Ctrl-C too, and where the command itself cannot end them."""
    words = [
        "benchmark",
        str(trained),
        "--batch",
        "1",
        "--repeats",
        "100000",
        "--load",
        "2",
        "--against",
        "torchvision",
    ]
    with subprocess.Popen(
        [sys.executable, "-m", "verydeep", *words, "--quiet"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as command:
        until(lambda: len(children_of(command.pid, "busy")) == 2)
        children = children_of(command.pid, "")
        assert len(children) == 3
        command.send_signal(number)
        printed, _ = command.communicate(timeout=60)
    assert (command.returncode, b"Traceback" in printed) == (status, False)
    until(lambda: not any(words_of(child) for child in children))


def until(condition: Callable[[], bool]) -> None:
    """Waits for a condition, a minute at most."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def words_of(process: int) -> bytes:
    """The command line of a process; nothing of one that has ended."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process}/cmdline").read_bytes()
    return b""


def children_of(parent: int, module: str) -> list[int]:
    """The children of a process that run a module of the benchmark."""
    with contextlib.suppress(OSError):
        children = map(int, Path(f"/proc/{parent}/task/{parent}/children").read_text().split())
        return [child for child in children if f"verydeep.deploy.benchmark.{module}".encode() in words_of(child)]
    return []
