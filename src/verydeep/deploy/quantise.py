"""int8: static quantisation by ONNX Runtime, with activation ranges calibrated on real images.

Weights have a scale per output channel, activations one per tensor, from the smallest and largest value on the
calibration images. Weights take 7 of the 8 bits: processors with AVX2 or AVX-512 but without VNNI add pairs of products
in 16 bits, which saturate at full range. fc8 and the softmax stay float, as they are cheap.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.errors import VerydeepError
from ..core.progress import Reporter
from ..data.image_io import Pixels
from .onnx import IMAGES

QUANTISED = ["Conv", "Relu", "MaxPool"]  # a ReLU then becomes the lower end of a range


def quantise(source: Path, out: Path, images: Iterator[Pixels], total: int, reporter: Reporter) -> None:
    """Writes an int8 version of an ONNX file that takes uint8 images.

    Args:
        images: uint8 (H,W,3), rescaled to Q; of any sizes.
        total: number of images.

    Raises:
        VerydeepError: onnxruntime is not installed.
    """
    try:
        from onnxruntime import quantization
    except ImportError:
        raise VerydeepError("int8 needs onnxruntime: pip install 'verydeep[onnx]'.") from None
    level = logging.getLogger().level
    logging.getLogger().setLevel(logging.ERROR)  # it recommends a preprocessing step that this graph does not need
    try:
        with reporter.track("calibrating", total) as advance:
            reader = _reader(quantization.CalibrationDataReader, images, lambda: advance(1, ""))
            quantization.quantize_static(
                *(str(source), str(out), reader),
                quant_format=quantization.QuantFormat.QDQ,
                per_channel=True,
                reduce_range=True,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
                op_types_to_quantize=QUANTISED,
            )
    finally:
        logging.getLogger().setLevel(level)


def _reader(base: Any, images: Iterator[Pixels], on_read: Callable[[], None]) -> Any:
    """A reader that passes ONNX Runtime one image at a time."""

    class Reader(base):  # type: ignore[misc]
        def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
            image = next(images, None)
            if image is None:
                return None
            on_read()
            return {IMAGES: image[None]}

    return Reader()
