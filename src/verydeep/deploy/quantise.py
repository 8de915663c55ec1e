"""A net in 8 bits: static quantisation by ONNX Runtime, with the ranges of maps taken from real photos.

Weights are stored in 8 bits, a scale for each output channel; maps in 8 bits, a scale for each map, which is that of
the least and largest value that the calibration photos show. fc8 and what comes after it stay
float, as all of it is cheap.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.errors import VerydeepError
from ..core.progress import Reporter
from ..data.image_io import Pixels

QUANTISED = ["Conv", "Relu", "MaxPool"]  # a ReLU then becomes the lower end of a range


def quantise(source: Path, out: Path, photos: Iterator[Pixels], total: int, reporter: Reporter) -> None:
    """Writes the 8-bit form of an ONNX file that takes uint8 photos.

    Args:
        photos: uint8 (H,W,3), rescaled to Q; of any sizes.
        total: how many there are.

    Raises:
        VerydeepError: onnxruntime is not installed.
    """
    try:
        from onnxruntime import quantization
    except ImportError:
        raise VerydeepError("8 bits need onnxruntime: pip install 'verydeep[onnx]'.") from None
    level = logging.getLogger().level
    logging.getLogger().setLevel(logging.ERROR)  # it advises a pre-processing that this graph does not need
    try:
        with reporter.track("calibrating", total) as advance:
            reader = _reader(quantization.CalibrationDataReader, photos, lambda: advance(1, ""))
            quantization.quantize_static(
                *(str(source), str(out), reader),
                quant_format=quantization.QuantFormat.QDQ,
                per_channel=True,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
                op_types_to_quantize=QUANTISED,
            )
    finally:
        logging.getLogger().setLevel(level)


def _reader(kind: Any, photos: Iterator[Pixels], done: Any) -> Any:
    """What ONNX Runtime asks for photos, one at a time."""

    class Reader(kind):  # type: ignore[misc]
        def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
            photo = next(photos, None)
            if photo is None:
                return None
            done()
            return {"photos": photo[None]}

    return Reader()
