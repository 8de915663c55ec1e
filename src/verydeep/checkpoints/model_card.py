"""A page beside every saved net: what it is, how its file is used, its recipe, errors, licence and classes.

In a run directory it is ``README.md``, which model hubs show; beside a single file ``FILE.card.md``. It is rewritten
after training, after each evaluation and by `convert` and `export`; a page that verydeep did not write is left alone.

`usage` and `export_usage` describe a weight file to readers that do not have verydeep: the model card, the sidecar and
Caffe's prototxt take the same rows, so following any of them gives the run's scores.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from ..core.errors import VerydeepError
from ..core.files import file_sha256, read_json, short_name, write_atomically
from ..models.architectures import has_lrn, net_facts
from .checkpoint import METADATA_KEY, Metadata
from .exported import FLOAT, INPUTS, OUTPUTS, PHOTO, UINT8
from .preprocessing import Preprocessing, our_pixels
from .run_dir import BEST, EVALUATIONS, LAST

# Pages of all versions are recognised by this line, so it stays as it is.
MARK = "<!-- a model card, written by verydeep; what is added here is lost when it is written anew -->"
PAGE, ENDING = "README.md", ".card.md"
RECIPE = ("S", "batch", "lr", "weight_decay", "learn", "initialise", "seed")
IMAGE_TERMS = "The images' own terms hold."

OURS = "verydeep"
CHANNELS_FIRST = "float (batch, 3, row, column)"
SCORES = "scores before soft-max"
PROB = "; the prototxt's `prob` is their soft-max"
BOXES = "boxes, as `verydeep.load_localiser` reads them"
# The input and the tensors of each format.
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


def usage(metadata: Metadata, form: str, pixels: Preprocessing) -> dict[str, str]:
    """How a weight file of a net is used.

    Args:
        form: a key of `TENSORS`.
        pixels: those of the file.

    Returns:
        ``pixels``, ``input``, ``tensors``, ``layers``, ``output`` and ``resize``, each a line of text.
    """
    shape, tensors = TENSORS[form]
    return {
        "pixels": pixels.formula(),
        "input": shape,
        "tensors": tensors,
        "layers": _layers(metadata),
        "output": BOXES if metadata.is_localiser else SCORES + (PROB if form == "caffe" else ""),
        "resize": _resize(metadata, dense=form == OURS),
    }


def export_usage(metadata: Metadata, takes: str) -> dict[str, str]:
    """How an exported file, which contains its layers, is used: ``pixels``, ``input``, ``output``, ``resize``.

    Args:
        takes: ``uint8``, ``photo`` or ``float``.
    """
    rows = {
        UINT8: {
            "pixels": "RGB, x, from 0 to 255: the file subtracts the mean itself",
            "input": "uint8 (batch, row, column, 3)",
            "output": "posteriors",
        },
        PHOTO: {
            "pixels": "RGB, x, from 0 to 255: the file resizes, crops and subtracts the mean itself",
            "input": "uint8 (row, column, 3), one upright photo of any size",
            "output": "posteriors",
        },
        FLOAT: {"pixels": our_pixels(metadata.mean).formula(), "input": CHANNELS_FIRST, "output": SCORES},
    }
    names = {"input name": f"`{INPUTS[takes]}`", "output name": f"`{OUTPUTS[takes]}` (batch, class)"}
    resize = _resize(metadata, dense=takes != PHOTO)
    return {**rows[takes], **names, "resize": f"in the file: {resize}" if takes == PHOTO else resize}


# An ONNX file in ONNX Runtime, without verydeep: the central crop, to the most probable classes.
PROGRAM = """\
import json

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

session = onnxruntime.InferenceSession({file!r})
classes = json.loads(session.get_modelmeta().custom_metadata_map[{key!r}])["classes"]
image = ImageOps.exif_transpose(Image.open({photo!r})).convert("RGB")
{pixels}
output = session.run(None, {{{input!r}: pixels}})[0][0]
{posteriors}
for number in np.argsort(-posteriors)[:5]:
    print(f"{{posteriors[number]:.4f}} {{classes[number]}}")
"""
CROP = """\
width, height = (int(side * {scale} / min(image.size) + {rounding}) for side in image.size)
left, top = (width - {crop}) // 2, (height - {crop}) // 2
image = image.resize((width, height), Image.Resampling.{resampling}).crop((left, top, left + {crop}, top + {crop}))
"""
TO_PIXELS = {
    UINT8: CROP + "pixels = np.asarray(image)[None]",
    PHOTO: "pixels = np.asarray(image)",
    FLOAT: CROP + "pixels = (np.asarray(image) - np.float32({mean})).transpose(2, 0, 1)[None]",
}
SOFTMAX = "posteriors = np.exp(output - output.max()) / np.exp(output - output.max()).sum()"


def onnx_program(file: str, metadata: Metadata, takes: str, photo: str = "photo.jpg") -> str:
    """A Python program that prints the most probable classes of a photo by ONNX Runtime.

    Args:
        file: the ONNX file, seen from the working directory.
        takes: ``uint8``, ``photo`` or ``float``.
        photo: the photo, seen from there.
    """
    pixels = TO_PIXELS[takes].format(
        scale=metadata.test_scale,
        rounding=0.5 if metadata.other_side == "round" else 0.0,
        crop=metadata.crop,
        resampling=metadata.resampling.upper(),
        mean=list(metadata.mean),
    )
    posteriors = SOFTMAX if takes == FLOAT else "posteriors = output"
    return PROGRAM.format(
        file=file, photo=photo, key=METADATA_KEY, pixels=pixels, input=INPUTS[takes], posteriors=posteriors
    )


def _layers(metadata: Metadata) -> str:
    """What happens between the layers with weights."""
    lrn = "PyTorch's LocalResponseNorm(5, 5e-4, 0.75, 2) after that of conv1_1; " if has_lrn(metadata.net) else ""
    return (
        f"net {metadata.net} of Table 1: convolutions of stride 1, padded so that the map keeps its size; ReLU after "
        f"each layer but the last; {lrn}2x2 max-pooling of stride 2 after each stage, "
        f"whose odd sides are rounded {metadata.pooling}"
    )


def _resize(metadata: Metadata, dense: bool) -> str:
    """How an image becomes the input."""
    rounding = "rounded" if metadata.other_side == "round" else "rounded down"
    text = (
        f"the shorter side to {metadata.test_scale}, the other in proportion and {rounding}, by Pillow's "
        f"{metadata.resampling} filter; then the central {metadata.crop} x {metadata.crop}"
    )
    return f"{text}, or the whole image" if dense else text


def write_model_card(
    path: Path, metadata: Metadata, facts: dict[str, Any] | None = None, use: dict[str, str] | None = None
) -> Path:
    """Writes the model card of a weight file and returns its path; a page by another author is left alone.

    Args:
        path: of the weight file; the card of a run's checkpoint is the run directory's README.
        facts: further rows, such as those of an export.
        use: `usage` or `export_usage` of a file that is not one of our checkpoints.

    Raises:
        VerydeepError: it cannot be written.
    """
    of_run = path.name in (BEST, LAST)
    page = path.with_name(PAGE if of_run else short_name(path.name, ENDING))
    if page.exists() and MARK not in page.read_text(encoding="utf8", errors="replace"):
        return page
    use = use or usage(metadata, OURS, our_pixels(metadata.mean))
    lines = [MARK, *_facts(path, metadata, use, facts or {}), *_errors(path.parent if of_run else None)]
    lines += [*_licence(metadata), *_loading(path.parent if of_run else path, metadata)]
    if path.suffix.lower() == ".onnx":
        program = onnx_program(path.name, metadata, (facts or {})["takes"])
        lines += ["", "## Use without verydeep", "", f"```python\n{program}```"]
    lines += _classes(metadata)
    write_atomically(page, lambda file: file.write(("\n".join(lines) + "\n").encode("utf8", "backslashreplace")))
    return page


def _facts(path: Path, metadata: Metadata, use: dict[str, str], more: dict[str, Any]) -> list[str]:
    net = net_facts(metadata.net, max(1, metadata.outputs), metadata.crop, metadata.width)
    kind = f"{metadata.localiser_settings.regression} localisation" if metadata.is_localiser else "classification"
    first = ", ".join(metadata.classes[:8]) + (", …" if len(metadata.classes) > 8 else "")
    rows = {
        "net": f"{metadata.net} of Table 1 in Simonyan & Zisserman, ICLR 2015; {net.weight_layers} weight layers, "
        f"{net.parameters:,} parameters, crop {metadata.crop}, width {metadata.width:g}",
        "classes": f"{len(metadata.classes)}: {first}",
        **use,
        "test scale Q": str(metadata.test_scale),
        "data": _data(metadata),
        "calibration": "; ".join(_calibrated(*item) for item in metadata.calibration.items()),
        "recipe": ", ".join(f"{name} {metadata.settings[name]}" for name in RECIPE if name in metadata.settings),
        "file": f"{path.name}, SHA-256 {file_sha256(path)}",
        **{name.replace("_", " "): _value(value) for name, value in more.items()},
    }
    table = [f"| {_cell(name)} | {_cell(value)} |" for name, value in rows.items() if value]
    title = f"# Net {metadata.net}: {kind} of {len(metadata.classes)} classes"
    return [title, "", "| | |", "| --- | --- |", *table, ""]


def _calibrated(protocol: str, fitted: dict[str, Any]) -> str:
    return (
        f"{protocol}: posteriors to the power of 1/{fitted['temperature']:.4g}, normalised, which verydeep does and "
        f"the file does not; {_value(fitted.get('images'))} images, NLL {_value(fitted.get('nll_before'))} before and "
        f"{_value(fitted.get('nll_after'))} after"
    )


def _cell(text: str) -> str:
    """Untrusted text as a table cell."""
    printable = "".join(letter if letter.isprintable() else " " for letter in text)
    return printable.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_value(item)}" for name, item in value.items())
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _data(metadata: Metadata) -> str:
    if metadata.data:
        return f"{metadata.data.get('data', '')} (fingerprint {metadata.data_fingerprint[:12]})"
    return "ILSVRC-2012's training set, according to its publisher" if metadata.origin.get("name") else ""


def _errors(folder: Path | None) -> list[str]:
    """The table of a run's stored evaluations; those of localisation models are elsewhere."""
    rows = []
    for path in sorted((folder / EVALUATIONS).glob("**/result.json")) if folder else []:
        with contextlib.suppress(VerydeepError, KeyError, TypeError, ValueError):
            result = read_json(path)
            low, high = result["top1_error_interval"]
            top1 = f"{result['top1_error']:.2f} ({low:.2f}–{high:.2f})"
            top5 = "" if result.get("top5_error") is None else f"{result['top5_error']:.2f}"
            data = f"{_cell(str(result['data']))}, {result['set']}"
            rows.append(f"| {result['protocol']} | {data} | {result['images']} | {top1} | {top5} |")
    if not rows:
        return []
    head = "| protocol | data | images | top-1 error % (95 % interval) | top-5 error % |"
    return ["## Errors", "", head, "| --- | --- | --- | --- | --- |", *rows, ""]


def _licence(metadata: Metadata) -> list[str]:
    start = metadata.origin.get("started_from", metadata.origin)
    name = start.get("name") or start.get("file")
    licence = start.get("licence") or "see its publisher for the licence"
    if "started_from" not in metadata.origin and name:
        text = f"The weights are {name}: {licence}."
    elif name:
        text = f"Trained from {name}: {licence}. {IMAGE_TERMS}"
    else:
        text = f"The owner of the weights chooses the licence. {IMAGE_TERMS}"
    return ["## Licence", "", text, ""]


def _loading(place: Path, metadata: Metadata) -> list[str]:
    load = "load_localiser" if metadata.is_localiser else "load"
    return [
        *("## Use", "", "```python", "import verydeep", "", f"net = verydeep.{load}({str(place)!r})"),
        *('for prediction in net.predict(["photo.jpg"]):', "    print(prediction)", "```"),
    ]


def _classes(metadata: Metadata) -> list[str]:
    """All classes, in the order of the outputs."""
    rows = [f"| {number} | {_cell(name)} |" for number, name in enumerate(metadata.classes)]
    return ["", "## Classes, in the order of the outputs", "", "| output | class |", "| --- | --- |", *rows]
