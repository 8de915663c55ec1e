"""Where memory runs out, batches are halved: a training step is the same step, and so are posteriors, descriptors."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import verydeep
from conftest import TINY, Command
from verydeep.checkpoints.checkpoint import load_checkpoint
from verydeep.core.out_of_memory import is_out_of_memory, within_memory
from verydeep.models.vgg import Net

MOST = 3  # images for which memory suffices


def full(images: int) -> None:
    if images > MOST:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB.\nMore lines follow.")


def of_forward(stages: Callable[[Net, Tensor], list[Tensor]]) -> Callable[[Net, Tensor], list[Tensor]]:
    def checked(net: Net, x: Tensor) -> list[Tensor]:
        full(len(x))
        return stages(net, x)

    return checked


def of_backward(stages: Callable[[Net, Tensor], list[Tensor]]) -> Callable[[Net, Tensor], list[Tensor]]:
    """Memory runs out when the gradients of all later layers are there."""

    def checked(net: Net, x: Tensor) -> list[Tensor]:
        maps = stages(net, x)
        if maps[0].requires_grad:
            maps[0].register_hook(lambda gradient: full(len(gradient)))  # type: ignore[no-untyped-call]
        return maps

    return checked


def test_the_size_is_halved_until_it_fits() -> None:
    tried = []

    def work(size: int) -> str:
        tried.append(size)
        full(size)
        return f"{size} at once"

    assert within_memory(work, 23) == ("3 at once", 3)
    assert tried == [23, 12, 6, 3]
    with pytest.raises(torch.OutOfMemoryError):
        within_memory(work, 23, least=12)
    with pytest.raises(ZeroDivisionError):
        within_memory(lambda size: 1 // 0, 23)


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory"),
            True,
        ),
        (RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (MemoryError(), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_errors_of_memory_are_recognised(fault: Exception, expected: bool) -> None:
    assert is_out_of_memory(fault) == expected


@pytest.mark.parametrize(("patched", "learn"), [(of_forward, "all"), (of_backward, "all"), (of_forward, "fc")])
def test_a_halved_training_step_is_the_same_step(
    tmp_path: Path,
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    patched: Any,
    learn: str,
) -> None:
    given: dict[str, Any] = {**TINY, "data": str(photos), "max_epochs": 1, "learn": learn}
    verydeep.train("A", tmp_path / "whole", **given)
    verydeep.train("A", tmp_path / "twos", device_batch=2, **given)
    assert not caplog.records
    monkeypatch.setattr(Net, "stages", patched(Net.stages))
    verydeep.train("A", tmp_path / "halved", **given)
    told = [record.getMessage() for record in caplog.records]
    assert told == ["memory ran out with 8 images at once: going on with 2, which changes results by rounding only"]
    whole, twos, halved = (
        load_checkpoint(tmp_path / name / "last.safetensors") for name in ("whole", "twos", "halved")
    )
    assert halved.metadata.state["at_once"] == 2
    for name, value in twos.weights.items():
        assert torch.equal(halved.weights[name], value)
        assert torch.allclose(whole.weights[name], value, rtol=1e-4, atol=1e-6)


def test_predictions_and_descriptors_are_computed_in_parts(
    trained: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    photos = sorted((trained.parent / "photos").glob("*/*.png"))
    whole, model = verydeep.load(trained), verydeep.load(trained)
    assert isinstance(whole, verydeep.Model)
    assert isinstance(model, verydeep.Model)
    before = [whole.posteriors(photos, "dense@36,54"), whole.posteriors(photos, "crops@54"), whole.features(photos)]
    passes: list[int] = []
    pooled = Net._pooled_stage

    def checked(net: Net, stage: int, x: Tensor) -> Tensor:
        if stage == 1:
            passes.append(len(x))
            full(len(x))
        return pooled(net, stage, x)

    monkeypatch.setattr(Net, "_pooled_stage", checked)
    after = [model.posteriors(photos, "dense@36,54"), model.posteriors(photos, "crops@54"), model.features(photos)]
    for left, right in zip(before, after, strict=True):
        assert np.allclose(left, right, rtol=1e-4, atol=1e-6)
    assert 1 <= len(caplog.records) <= 2  # what fits is remembered
    assert sum(size > MOST for size in passes) < 10


REAL = """
import resource, sys, torch
from verydeep.models.vgg import create_net
net = create_net("A", classes=2, crop=32, width=0.5)
images = torch.rand(64, 3, 128, 128)
with torch.inference_mode():
    before = net.activations(images[:2], "pool1")
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + int(sys.argv[1]) * 2**20,) * 2)
    maps = net.activations(images, "pool1")
assert maps.shape == (64, 32, 64, 64)
assert torch.allclose(maps[:2], before, atol=1e-5)
print(net.most_values)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory of a process is limited as on Linux")
def test_a_process_without_memory_goes_on_with_smaller_batches() -> None:
    """Maps of 64 images need 128 MiB before pooling and 32 MiB after it."""
    ended = subprocess.run([sys.executable, "-c", REAL, "100"], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert float(ended.stdout) < 64 * 3 * 128 * 128
    assert "memory ran out with 64 images at once: going on with" in ended.stderr


def test_the_command_says_that_memory_ran_out(trained: Path, command: Command) -> None:
    photo = next((trained.parent / "photos").glob("*/*.png"))
    words = ["predict", trained, photo, "--protocol", "dense@2048", "--threads", 1]
    told = command(*words, memory_limit=30_000_000).mistake()
    assert told.startswith("memory ran out (")
    assert "or use smaller images (--crop, --S, the Q of a protocol, --scales)" in told
