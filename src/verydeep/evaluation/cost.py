"""What an evaluation costs before it is run: multiply-adds by arithmetic, time from a short measurement.

The multiply-adds of an image follow from the protocol and the image's size after rescaling. The rate at which this
machine does them, in bf16 where that would be tried, is measured by a dense evaluation, kept
(`verydeep.evaluation.rates`), and taken for all protocols.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from ..checkpoints.checkpoint import Metadata
from ..core.config import Scale
from ..core.device import Machine
from ..core.errors import ImageError
from ..core.progress import Reporter
from ..core.settings import MachineSettings
from ..data.open import Dataset
from ..data.transforms import rescale, rescaled_size
from ..models.architectures import Layer
from ..models.vgg import Net
from .agreement import tries_bf16
from .evaluate import PreparedEvaluation
from .inference import posteriors
from .predict import place_classifier, usual_protocol
from .protocols import Method, Protocol
from .rates import load_per_core, timing

TRIALS = 2
IMAGES_READ = 8
USUAL_IMAGE = (375, 500)  # typical height and width in pixels, without data


@dataclass(frozen=True)
class ImageSample:
    """Seconds to read and rescale an image, and heights and widths of a few images of a set."""

    read: float
    sizes: tuple[tuple[int, int], ...]

    def multiply_adds(self, protocol: Protocol, layers: tuple[Layer, ...], crop: int, pooling: str) -> float:
        """Mean forward multiply-adds of an image by a protocol."""
        scaled = [rescaled_size(*size, scale) for size in self.sizes for scale in protocol.scales]
        return sum(protocol.multiply_adds(layers, crop, *size, pooling) for size in scaled) / len(self.sizes)


@dataclass(frozen=True)
class ProtocolCost:
    """A protocol's mean forward multiply-adds per image, and about how many seconds a set of images takes."""

    protocol: Protocol
    multiply_adds: float
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """``{protocol, multiply_adds_per_image, seconds}``."""
        return {
            "protocol": str(self.protocol),
            "multiply_adds_per_image": round(self.multiply_adds),
            "seconds": round(self.seconds, 1),
        }


def papers_protocols(metadata: Metadata) -> tuple[Protocol, ...]:
    """The centre crop, and dense, multi-crop and both at one scale and at several: Tables 3 to 5 for a net's S."""
    scale = metadata.test_scale
    trained = Scale.parse(str(metadata.settings.get("S", scale)))
    groups = ((scale,), trained.test_scales(metadata.crop))
    methods: tuple[Method, ...] = ("dense", "crops", "both")
    several = (Protocol(method, scales, mirror=True) for scales in groups for method in methods)
    return Protocol("centre", (scale,), mirror=False), *several


def protocol_costs(
    prepared: PreparedEvaluation, protocols: Sequence[Protocol], settings: MachineSettings, reporter: Reporter
) -> list[ProtocolCost]:
    """The cost of evaluating a model on its set by each protocol, on this machine.

    Raises:
        VerydeepError: a device or precision that this machine does not have.
    """
    classifier = place_classifier(prepared.checkpoint, settings)
    net, metadata, machine = classifier.net, classifier.metadata, classifier.machine
    count = len(prepared.dataset)
    if isinstance(net, Net) and tries_bf16(machine, count, count * metadata.multiply_adds):
        machine = machine.in_bf16()
    trial = usual_protocol(metadata)
    images = sample_images(prepared.dataset, trial.scales[0])
    one = replace(images, sizes=images.sizes[:1])
    shape = (*rescaled_size(*one.sizes[0], trial.scales[0]), 3)
    noise = [np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)]

    def dense() -> None:
        posteriors(net, np.array(metadata.mean), trial, [(0, noise)], 1, machine)

    def measured() -> tuple[float]:
        with machine.running():
            return (fastest_seconds(dense, machine),)

    details = {"file": prepared.checkpoint.sha256, "protocol": str(trial), "shape": shape}
    (seconds,) = timing(f"net {metadata.net}", details, machine, measured, reporter).seconds
    rate = one.multiply_adds(trial, net.specs, net.crop, net.pooling) / seconds
    costs = []
    for protocol in protocols:
        adds = images.multiply_adds(protocol, net.specs, net.crop, net.pooling)
        each = max(adds / rate, images.read / max(1, machine.readers.count))
        costs.append(ProtocolCost(protocol, adds, each * count))
    return costs


def fastest_seconds(work: Callable[[], object], machine: Machine) -> float:
    """Seconds of the fastest of a few runs, after a warm-up; on a busy CPU the processor time of this process.

    So waiting for other processes does not count.
    """
    on_cpu = machine.device.type == "cpu"
    waits = on_cpu and load_per_core() > 1
    taken = []
    for _ in range(1 + TRIALS):
        began, used = time.monotonic(), time.process_time()
        work()
        if not on_cpu:
            torch.accelerator.synchronize()
        seconds = time.monotonic() - began
        taken.append(min(seconds, (time.process_time() - used) / torch.get_num_threads()) if waits else seconds)
    return min(taken[1:])


def sample_images(dataset: Dataset, scale: int) -> ImageSample:
    """Reads and rescales a few images, evenly spread; skips those that cannot be read."""
    few = dataset.evenly(IMAGES_READ)
    taken, sizes = [], []
    for index in range(len(few)):
        began = time.monotonic()
        try:
            pixels = few.pixels(index)
        except ImageError:
            continue
        rescale(pixels, scale)
        taken.append(time.monotonic() - began)
        sizes.append((pixels.shape[0], pixels.shape[1]))
    # The median, as the first image waits for the disk, and any may wait for other processes.
    return ImageSample(float(np.median(taken)) if taken else 0.0, tuple(sizes) or (USUAL_IMAGE,))
