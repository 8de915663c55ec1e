"""The machine that work runs on: device, precision, memory layout, compilation, workers, threads, memory.

These settings change results by rounding at most, so they are not part of a run's name. There is no silent fallback: a
device or precision that was requested and is not available raises an error.
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

READ_SECONDS = 3e-3  # to load an image
CORE_SPEED = 2e10  # multiply-adds per second of a CPU core
LOADING_SHARE = 0.1  # of the work on an image, above which workers get cores of their own
PRECISIONS = {torch.float32: "float32", torch.float64: "float64", torch.bfloat16: "bf16", torch.float16: "fp16"}


@dataclass(frozen=True)
class Machine:
    """The settings that hold on this machine.

    ``may_lower``: whether bf16 may be tried for inference, as no precision was requested and the CPU has units for it.
    """

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
    may_lower: bool

    def in_bf16(self) -> Machine:
        """The same machine with inference in bf16."""
        return replace(self, autocast_dtype=torch.bfloat16)

    @property
    def precision(self) -> str:
        """Its name, as in the settings."""
        return PRECISIONS[self.autocast_dtype or self.dtype]

    @property
    def readers(self) -> LoaderSettings:
        """Settings for loading that is not overlapped with other work: one worker per core."""
        count = self.loaders.count
        return replace(self.loaders, count=max(count, cores()) if count else 0)

    def place_model(self, net: nn.Module) -> Callable[..., Any]:
        """Moves the net to the device and memory layout, in place; returns the callable, compiled if requested.

        On a CPU the weights keep their layout: convolutions order them as they need, and a copy would take seconds.
        """
        placed: Any = net.to(device=self.device, dtype=self.dtype)
        if self.device.type != "cpu":
            placed = placed.to(memory_format=self.layout)
        compiled: Callable[..., Any] = torch.compile(placed) if self.compile else placed
        return compiled

    def to_input(self, batch: Tensor, shift: Tensor) -> Tensor:
        """Converts uint8 (B,3,H,W) to float on the device and adds ``shift``, float (B,3) or (1,3)."""
        moved = batch.to(self.device, non_blocking=True).to(memory_format=self.layout, dtype=self.dtype)
        return moved.add_(shift.to(self.device, self.dtype)[:, :, None, None])

    @contextmanager
    def running(self, static_shapes: bool = False) -> Iterator[None]:
        """A context in which PyTorch uses the chosen number of threads and the allocator keeps freed memory.

        Args:
            static_shapes: whether all batches have one shape, for which cuDNN may benchmark its algorithms.
        """
        threads, benchmark = torch.get_num_threads(), torch.backends.cudnn.benchmark
        torch.set_num_threads(self.threads)
        torch.backends.cudnn.benchmark = static_shapes
        try:
            with memory.retain_freed_memory():
                yield
        finally:
            torch.set_num_threads(threads)
            torch.backends.cudnn.benchmark = benchmark

    @contextmanager
    def autocast(self) -> Iterator[None]:
        """A context in which matmuls and convolutions run in the chosen precision."""
        with torch.autocast(self.device.type, dtype=self.autocast_dtype, enabled=self.autocast_dtype is not None):
            yield

    def describe(self) -> dict[str, Any]:
        """The entries of a run's ``environment.json``."""
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else self.device.type
        return {
            "device": name,
            "precision": self.precision,
            "layout": str(self.layout).removeprefix("torch."),
            "compile": self.compile,
            "workers": self.loaders.count,
            "threads": self.threads,
            "cores": cores(),
        }


def resolve_device(settings: MachineSettings, multiply_adds: float) -> Machine:
    """Resolves ``auto`` and 0 in machine settings.

    By default CPUs compute in float32: bf16 is slow without hardware support, and differs in bits between CPU models.
    Long inference may choose bf16 (`verydeep.evaluation.agreement`). CUDA devices use bf16 if they support it, else
    fp16 with loss scaling.

    Args:
        multiply_adds: of an image, which decide how many threads the net gets.

    Raises:
        VerydeepError: the requested device or precision is not available.
    """
    if settings.max_pixels:
        allow_pixels(settings.max_pixels)
    device = _device(settings.device)
    precision = _precision(device, settings.precision)
    # channels_last was faster on the CPU measured (NOTES.md); on MPS it was not measured.
    last = settings.layout == "channels_last" or (settings.layout == "auto" and device.type != "mps")
    workers = settings.workers if settings.workers >= 0 else max(1, min(16, cores() - 1))
    return Machine(
        device=device,
        autocast_dtype=precision if precision in (torch.bfloat16, torch.float16) else None,
        dtype=torch.float64 if precision == torch.float64 else torch.float32,
        layout=torch.channels_last if last else torch.contiguous_format,
        compile=settings.compile,
        loaders=LoaderSettings(workers, settings.read_timeout, settings.read_retries),
        threads=settings.threads or _threads(workers, multiply_adds),
        device_batch=settings.device_batch,
        recompute=settings.recompute,
        bf16_gradients=settings.bf16_gradients,
        may_lower=settings.precision == "auto" and device.type == "cpu" and _has_matrix_units(),
    )


def _threads(workers: int, multiply_adds: float) -> int:
    """All cores, without those of the workers if loading an image is a considerable part of its work.

    ``OMP_NUM_THREADS`` limits them, as in any OpenMP program; workers use one thread each. More busy threads than cores
    make small matmuls several times slower (NOTES.md). The number is estimated and not measured, so that it is the same
    in every run: thread counts change rounding.
    """
    loading = READ_SECONDS / (READ_SECONDS + multiply_adds / CORE_SPEED)
    free = max(1, cores() - workers) if loading > LOADING_SHARE else cores()
    return int(min(free, openmp_threads()))


def _device(name: str) -> torch.device:
    devices = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    available = [device for device, is_available in devices.items() if is_available]
    if name == "auto":
        return torch.device(available[0])
    if name not in available:
        raise VerydeepError(
            f"device {name} is not available to PyTorch on this machine: use --device {', '.join(available)}."
        )
    return torch.device(name)


def _has_matrix_units() -> bool:
    """Whether the CPU has AMX. With AVX512-BF16 alone bf16 was not measured against Winograd convolution in float32."""
    return bool(getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)())


def _precision(device: torch.device, name: str) -> torch.dtype:
    if name == "auto":
        if device.type != "cuda":
            return torch.float32
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    if name == "fp16" and device.type != "cuda":
        raise VerydeepError(f"precision fp16 needs a CUDA device, not {device.type}: use float32 or bf16.")
    if name == "float64" and device.type == "mps":
        raise VerydeepError("precision float64 is not supported on mps: use --device cpu.")
    return next(dtype for dtype, known in PRECISIONS.items() if known == name)


def free_bytes(device: torch.device) -> int:
    """Free memory of the device; for a CPU that of the machine, limited by its cgroup."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    info, limit = Path("/proc/meminfo"), Path("/sys/fs/cgroup/memory.max")
    if not info.is_file():
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    rows = dict(line.split(":", 1) for line in info.read_text(encoding="utf8").splitlines())
    free = 1024 * int(rows["MemAvailable"].split()[0])  # includes file caches
    most = limit.read_text(encoding="utf8").strip() if limit.is_file() else "max"
    return (min(free, int(most)) if most.isdigit() else free) // processes_here()


@dataclass(frozen=True)
class LoaderSettings:
    """How images are loaded: by ``count`` worker processes, or in the main process if it is 0.

    ``timeout``: seconds that a worker may take for a batch or an image; ``retries``: further attempts after I/O errors.
    """

    count: int = 0
    timeout: int = 600
    retries: int = 0


ONE_BY_ONE = LoaderSettings()
