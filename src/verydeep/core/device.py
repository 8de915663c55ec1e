"""Facts of this machine: device, precision, memory layout, compilation, workers, threads, memory.

They never change what is computed beyond rounding, and they are no part of a run's name. What is
slower here is never chosen silently: an explicit wish that the device lacks is an error.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from . import memory
from .errors import VerydeepError
from .pixel_limit import allow_pixels
from .processors import cores, openmp_threads, processes_here
from .settings import MachineSettings

READ_SECONDS, CORE_SPEED, READING_SHARE = 3e-3, 2e10, 0.1  # of a photo; multiply-adds a second; of the work
PRECISIONS = {torch.float32: "float32", torch.float64: "float64", torch.bfloat16: "bf16", torch.float16: "fp16"}


@dataclass(frozen=True)
class Machine:
    """The choices made for this machine."""

    device: torch.device
    autocast_dtype: torch.dtype | None
    dtype: torch.dtype
    layout: torch.memory_format
    compile: bool
    loaders: LoaderSettings
    threads: int
    device_batch: int
    recompute: bool
    bf16_gradients: bool

    @property
    def readers(self) -> LoaderSettings:
        """Processes that read photos where nothing else keeps a core busy for long: one a core."""
        count = self.loaders.count
        return replace(self.loaders, count=max(count, cores()) if count else 0)

    def place_model(self, net: nn.Module) -> Callable[..., Any]:
        """Moves the net to the device and layout, in place; returns what to call, compiled if wished.

        On a CPU the weights keep their layout: convolutions order them as they need, and a copy would take seconds.
        """
        placed: Any = net.to(device=self.device, dtype=self.dtype)
        if self.device.type != "cpu":
            placed = placed.to(memory_format=self.layout)
        compiled: Callable[..., Any] = torch.compile(placed) if self.compile else placed
        return compiled

    def to_input(self, batch: Tensor, shift: Tensor) -> Tensor:
        """uint8 (B,3,H,W) to float on the device, plus ``shift``, float (B,3) or (1,3): minus the mean, say."""
        moved = batch.to(self.device, non_blocking=True).to(memory_format=self.layout, dtype=self.dtype)
        return moved.add_(shift.to(self.device, self.dtype)[:, :, None, None])

    @contextmanager
    def running(self, static_shapes: bool = False) -> Iterator[None]:
        """A context in which PyTorch uses the chosen number of threads, and freed memory stays for the next step.

        Args:
            static_shapes: batches are all of one shape, for which cuDNN may try which of its ways is the fastest.
        """
        before, tried = torch.get_num_threads(), torch.backends.cudnn.benchmark
        torch.set_num_threads(self.threads)
        torch.backends.cudnn.benchmark = static_shapes
        try:
            with memory.retain_freed_memory():
                yield
        finally:
            torch.set_num_threads(before)
            torch.backends.cudnn.benchmark = tried

    @contextmanager
    def autocast(self) -> Iterator[None]:
        """A context in which products run in the chosen precision."""
        with torch.autocast(self.device.type, dtype=self.autocast_dtype, enabled=self.autocast_dtype is not None):
            yield

    def describe(self) -> dict[str, Any]:
        """For a run's environment.json."""
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else self.device.type
        return {
            "device": name,
            "precision": PRECISIONS[self.autocast_dtype or self.dtype],
            "layout": str(self.layout).removeprefix("torch."),
            "compile": self.compile,
            "workers": self.loaders.count,
            "threads": self.threads,
            "cores": cores(),
        }


def resolve_device(wish: MachineSettings, multiply_adds: float) -> Machine:
    """The choices for this machine and work of so many multiply-adds a photo.

    On a CPU products stay float32: bf16 there is slow where the CPU lacks it, and not bit-stable across
    kinds of CPU; on CUDA they are bf16 where the GPU has it and fp16 with loss scaling where not.

    Raises:
        VerydeepError: the wished device or precision is not there.
    """
    if wish.max_pixels:
        allow_pixels(wish.max_pixels)
    device = _device(wish.device)
    precision = _precision(device, wish.precision)
    # channels_last was the faster layout on the CPU measured (NOTES.md); on MPS it is untried, so it is not chosen.
    last = wish.layout == "channels_last" or (wish.layout == "auto" and device.type != "mps")
    workers = wish.workers if wish.workers >= 0 else max(1, min(16, cores() - 1))
    return Machine(
        device=device,
        autocast_dtype=precision if precision in (torch.bfloat16, torch.float16) else None,
        dtype=torch.float64 if precision == torch.float64 else torch.float32,
        layout=torch.channels_last if last else torch.contiguous_format,
        compile=wish.compile,
        loaders=LoaderSettings(workers, wish.read_timeout, wish.read_retries),
        threads=wish.threads or _threads(workers, multiply_adds),
        device_batch=wish.device_batch,
        recompute=wish.recompute,
        bf16_gradients=wish.bf16_gradients,
    )


def _threads(workers: int, multiply_adds: float) -> int:
    """All cores, but where reading a photo is a fair part of its work, the readers keep theirs.

    ``OMP_NUM_THREADS`` bounds them, as it does all that is built on OpenMP; processes that read photos have one each.
    More busy threads than cores make small products several times slower (NOTES.md). The choice is by
    arithmetic and not by trial, so that it is the same in every run: thread counts change rounding.
    """
    reading = READ_SECONDS / (READ_SECONDS + multiply_adds / CORE_SPEED)
    usual = max(1, cores() - workers) if reading > READING_SHARE else cores()
    return int(min(usual, openmp_threads()))


def _device(wish: str) -> torch.device:
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if wish == "auto":
        return torch.device(next(name for name in ("cuda", "mps", "cpu") if there[name]))
    if not there[wish]:
        have = ", ".join(name for name, found in there.items() if found)
        raise VerydeepError(f"device {wish} is not available to PyTorch on this machine: use --device {have}.")
    return torch.device(wish)


def _precision(device: torch.device, wish: str) -> torch.dtype:
    if wish == "auto":
        if device.type != "cuda":
            return torch.float32
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    if wish == "fp16" and device.type != "cuda":
        raise VerydeepError(f"precision fp16 needs a CUDA device, not {device.type}: use float32 or bf16.")
    if wish == "float64" and device.type == "mps":
        raise VerydeepError("precision float64 is not there on mps: use --device cpu.")
    return next(dtype for dtype, name in PRECISIONS.items() if name == wish)


def free_bytes(device: torch.device) -> int:
    """Memory that is free on the device; for a CPU, what the machine and its control group can give."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    info, limit = Path("/proc/meminfo"), Path("/sys/fs/cgroup/memory.max")
    if not info.is_file():
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    rows = dict(line.split(":", 1) for line in info.read_text(encoding="utf8").splitlines())
    free = 1024 * int(rows["MemAvailable"].split()[0])  # with what the file cache can give back
    bound = limit.read_text(encoding="utf8").strip() if limit.is_file() else "max"
    return (min(free, int(bound)) if bound.isdigit() else free) // processes_here()


@dataclass(frozen=True)
class LoaderSettings:
    """How photos are read: by ``count`` processes, or in this one where it is 0.

    ``timeout``: seconds a process may take for a batch or a photo; ``retries``: of a photo that the disk does not give.
    """

    count: int = 0
    timeout: int = 600
    retries: int = 0


ONE_BY_ONE = LoaderSettings()
