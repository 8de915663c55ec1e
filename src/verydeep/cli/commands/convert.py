"""Convert a public weight file to a run, or a run to torchvision, Keras or Caffe."""

from __future__ import annotations

import shlex
from typing import Any

from ...core.settings import TrainSettings
from ...core.team import Team
from ...data.class_names import caption
from ..execution import reporter_of, show_result
from ..output import show
from ..parser import CommandParser, Options, add_settings, settings_from


def add_arguments(parser: CommandParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument(
        "source", metavar="MODEL", help="a run's folder, a checkpoint, a weight file, or a name such as oxford-D"
    )
    parser.add_argument(
        "out", metavar="OUT", help="a folder for a run, or a file: .safetensors, .pth, .h5 or .caffemodel"
    )
    parser.group("Net and weights").add_argument(
        "--class-names",
        metavar="FILE",
        help="class names if MODEL records none: ilsvrc, or a file with a name per line",
    )
    parser.group("Output").add_argument(
        "--to", choices=["verydeep", "torchvision", "keras", "caffe"], help="format of OUT (default: by its extension)"
    )
    parser.group("Net and weights").add_argument(
        "--no-check",
        dest="check",
        action="store_false",
        help="do not let a net of ILSVRC's 1000 classes classify three photos, which takes some seconds",
    )
    add_settings(parser, TrainSettings, only=("preprocessing",))


def run(options: Options) -> int:
    """Converts weights."""
    from ...api import convert

    preprocessing = settings_from(options, TrainSettings).preprocessing
    given = options.source, options.out, options.to, preprocessing, options.class_names
    result = convert(*given, options.check, reporter_of(Team(), options.quiet))
    return show_result(options, result, lambda result: _show(result, shlex.quote(options.out)))


def _show(result: dict[str, Any], place: str) -> None:
    classes = f", {result['classes']} classes" if result["classes"] else ", convolutions only"
    name = result["origin"].get("name")
    show(f"{result['file']}: net {result['net']}, {result['layers']} layers{classes}{f', from {name}' if name else ''}")
    if result["card"]:
        show(f"model card: {result['card']}")
    if result["check"]:
        show(f"checked on photos: {_predicted(result['check'])}")
    if result["boxes"]:
        show(f"try it: verydeep localise predict {place} PHOTO")
    elif result["classes"]:
        show(f"try it: verydeep predict {place} PHOTO")
    else:  # convolutions alone cannot classify
        width = "" if result["width"] == 1 else f" --width {result['width']:g}"
        show(f"classify your images with its descriptors: verydeep probe --data DATA --weights {place}")
        show(f"fine-tune it: verydeep train {result['net']} --data DATA --start {place}{width}")


def _predicted(check: dict[str, Any]) -> str:
    """The class that the net predicts for each photo, such as ``cab as cab (100 %)``."""
    best = ((photo["image"], photo["predictions"][0]) for photo in check["photos"])
    return ", ".join(f"{image} as {caption(row['class'])} ({100 * row['probability']:.0f} %)" for image, row in best)
