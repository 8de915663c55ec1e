"""What an extraction costs before it is run, as `verydeep.evaluation.cost` for evaluations."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..core.progress import Reporter
from ..data.transforms import rescaled_size
from ..evaluation.cost import ImageSample, fastest_seconds, sample_images
from ..evaluation.protocols import Protocol
from ..evaluation.rates import timing
from .descriptors import descriptors
from .extract import PreparedExtraction


@dataclass(frozen=True)
class ScaleCost:
    """How many images still lack a descriptor at a scale, its multiply-adds, and about how many seconds they take."""

    scale: int
    images: int
    multiply_adds: float
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """``{scale, images, multiply_adds_per_image, seconds}``."""
        return {
            "scale": self.scale,
            "images": self.images,
            "multiply_adds_per_image": round(self.multiply_adds),
            "seconds": round(self.seconds, 1),
        }


def extraction_costs(prepared: PreparedExtraction, reporter: Reporter) -> list[ScaleCost]:
    """The cost of an extraction at each scale on this machine, whose rate is measured on one image.

    Raises:
        VerydeepError: the file is of other images, another net or protocol.
    """
    left, readers = prepared.left(), prepared.extractor.machine.readers
    images = sample_images(prepared.dataset, min(left))
    rate = math.inf
    if any(left.values()):
        rate = _rate(prepared, images, min(left), reporter)
    costs = []
    for scale, count in left.items():
        adds = _multiply_adds(prepared, images, scale)
        each = max(adds / rate, images.read / max(1, readers.count))
        costs.append(ScaleCost(scale, count, adds, each * count))
    return costs


def _multiply_adds(prepared: PreparedExtraction, images: ImageSample, scale: int) -> float:
    """Mean forward multiply-adds of an image."""
    net, mirror = prepared.extractor.net.net, prepared.extractor.settings.mirror
    return images.multiply_adds(Protocol("dense", (scale,), mirror=mirror), net.specs, net.crop, net.pooling)


def _rate(prepared: PreparedExtraction, images: ImageSample, scale: int, reporter: Reporter) -> float:
    """Multiply-adds a second, of noise of an image's size."""
    extractor, one = prepared.extractor, replace(images, sizes=images.sizes[:1])
    shape = (*rescaled_size(*one.sizes[0], scale), 3)
    noise = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    pool, mirror, machine = extractor.settings.pool, extractor.settings.mirror, extractor.machine

    def describe() -> None:
        list(descriptors(extractor.net, [(0, [noise])], pool, mirror, machine))

    def measured() -> tuple[float]:
        with machine.running():
            return (fastest_seconds(describe, machine),)

    net, work = extractor.net, f"{extractor.net.layer} of net {extractor.net.source['net']}"
    details = {"file": net.source["sha256"], "layer": net.layer, "pool": pool, "mirror": mirror, "shape": shape}
    (seconds,) = timing(work, details, machine, measured, reporter).seconds
    return _multiply_adds(prepared, one, scale) / seconds
