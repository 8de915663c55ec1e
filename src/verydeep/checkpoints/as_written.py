"""Sect. 2.1: how the numbers of a weight file are used by a reader that has nothing of ours.

Pixels, input, tensors, layers and output of the file as it was written, in words. The model card, the sidecar and
Caffe's prototxt take them from here, so that whoever follows one of them computes what the run computes.
"""

from __future__ import annotations

from ..models.architectures import has_lrn
from .checkpoint import Metadata
from .preprocessing import Preprocessing, Triple

OURS = "verydeep"
CHANNELS_FIRST = "float (batch, 3, row, column)"
SCORES = "scores before soft-max"
PROB = "; the prototxt's `prob` is their soft-max"
BOXES = "boxes, as `verydeep.load_localiser` reads them"
# Of a format: its input and its tensors.
TENSORS = {
    OURS: (
        CHANNELS_FIRST,
        "`convS_N.weight` and `fc6.weight`, `fc7.weight`, `fc8.weight` (out, in, row, column): FC layers are "
        "convolutions, fc6 of crop/32 x crop/32; each with its `.bias` (out)",
    ),
    "torchvision": (
        CHANNELS_FIRST,
        "`features.N.weight` (out, in, row, column); `classifier.0.weight`, `classifier.3.weight`, "
        "`classifier.6.weight` (out, in), whose `classifier.0` counts its inputs by channel, row, column; "
        "each with its `.bias` (out)",
    ),
    "keras": (
        "float (batch, row, column, 3)",
        "`blockS_convN/blockS_convN/kernel:0` (row, column, in, out); `fc1/fc1/kernel:0`, `fc2/fc2/kernel:0`, "
        "`predictions/predictions/kernel:0` (in, out), whose `fc1` counts its inputs by row, column, channel; "
        "each with its `bias:0` (out)",
    ),
    "caffe": (
        CHANNELS_FIRST,
        "blobs of `convS_N` (out, in, row, column); of `fc6`, `fc7`, `fc8` (out, in), whose `fc6` counts its inputs by "
        "channel, row, column; each with its bias (out)",
    ),
}


def our_pixels(metadata: Metadata) -> Preprocessing:
    """What a net of ours takes: RGB, 0-255, minus its mean."""
    return Preprocessing("RGB", metadata.mean)


def described(metadata: Metadata, form: str, pixels: Preprocessing) -> dict[str, str]:
    """How a weight file of a net is used.

    Args:
        form: a key of `TENSORS`.
        pixels: those of the file.

    Returns:
        ``pixels``, ``input``, ``tensors``, ``layers``, ``output`` and ``resize``, each a line of text.
    """
    given, tensors = TENSORS[form]
    return {
        "pixels": formula(pixels),
        "input": given,
        "tensors": tensors,
        "layers": _layers(metadata),
        "output": BOXES if metadata.is_localiser else SCORES + (PROB if form == "caffe" else ""),
        "resize": _resize(metadata, dense=form == OURS),
    }


def described_export(metadata: Metadata, takes: str) -> dict[str, str]:
    """How an exported file is used, which holds its own layers: ``pixels``, ``input``, ``output``, ``resize``.

    Args:
        takes: ``uint8`` or ``float``.
    """
    if takes == "uint8":
        rows = {
            "pixels": "RGB, x, from 0 to 255: the file subtracts the mean itself",
            "input": "uint8 (batch, row, column, 3)",
            "output": "posteriors",
        }
    else:
        rows = {"pixels": formula(our_pixels(metadata)), "input": CHANNELS_FIRST, "output": SCORES}
    return {**rows, "resize": _resize(metadata, dense=True)}


def formula(pixels: Preprocessing) -> str:
    """``BGR, x - (103.939, 116.779, 123.68), x from 0 to 255``: numbers are in the order of the colours."""
    text = "x" if pixels.scale == 1 else f"x / {1 / pixels.scale:.9g}"
    text = f"{text} - {_numbers(pixels.mean)}"
    if pixels.std != (1.0, 1.0, 1.0):
        text = f"({text}) / {_numbers(pixels.std)}"
    return f"{pixels.order}, {text}, x from 0 to 255"


def _numbers(values: Triple) -> str:
    """As many digits as tell one 32-bit float from the next."""
    return f"({', '.join(f'{value:.9g}' for value in values)})"


def _layers(metadata: Metadata) -> str:
    """What is between the tensors."""
    lrn = "PyTorch's LocalResponseNorm(5, 5e-4, 0.75, 2) after that of conv1_1; " if has_lrn(metadata.net) else ""
    return (
        f"net {metadata.net} of Table 1: convolutions of stride 1, padded so that the map keeps its size; ReLU after "
        f"each layer but the last; {lrn}2x2 max-pooling of stride 2 after each stage, "
        f"whose odd sides are rounded {metadata.pooling}"
    )


def _resize(metadata: Metadata, dense: bool) -> str:
    """How a photo becomes the input."""
    rounding = "rounded" if metadata.other_side == "round" else "rounded down"
    text = (
        f"the smallest side to {metadata.test_scale}, the other in proportion and {rounding}, by Pillow's "
        f"{metadata.resampling} filter; then the central {metadata.crop} x {metadata.crop}"
    )
    return f"{text}, or the whole photo" if dense else text
