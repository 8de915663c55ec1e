"""Export a net to ONNX, int8 ONNX or safetensors, verified against the net."""

from __future__ import annotations

import shlex
from typing import Any

from ...core.settings import MachineSettings
from ...core.terminal import Terminal
from ..execution import show_result
from ..output import show
from ..parser import READING, CommandParser, Options, add_settings, add_shared, settings_from


def add_arguments(parser: CommandParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument(
        "run", metavar="MODEL", help="a run's folder, a checkpoint, a weight file, or a name such as oxford-D"
    )
    output = parser.group("Output")
    output.add_argument(
        "--to", choices=["onnx", "onnx-int8", "pt2", "safetensors"], default="onnx", help="format (default: onnx)"
    )
    output.add_argument("--out", metavar="FILE", help="file to write (default: in the run's folder)")
    output.add_argument(
        "--takes",
        choices=["uint8", "photo", "float"],
        default="uint8",
        help="input: resized uint8 images, for class probabilities; one photo of any size, which the file resizes; or "
        "normalised float pixels, for logits (default: uint8)",
    )
    output.add_argument(
        "--example",
        metavar="PHOTO",
        help="also write FILE.example: this photo, its pixels and probabilities, and programs in Python, JavaScript "
        "and C++ that reproduce them",
    )
    add_shared(parser, "--last", "--no-calibration")
    parser.group("Data").add_argument(
        "--photos",
        metavar="DATA",
        help="images to calibrate int8 and to compare it with the net on (default: those of the run)",
    )
    add_settings(parser, MachineSettings, only=("threads", *READING))


def run(options: Options) -> int:
    """Exports a net for other runtimes."""
    from ...deploy.export import export

    result = export(
        options.run,
        options.to,
        options.out,
        options.takes,
        options.photos,
        options.last,
        settings_from(options, MachineSettings),
        Terminal(options.quiet),
        options.calibration,
        options.example,
    )
    return show_result(options, result, _show)


def _show(result: dict[str, Any]) -> None:
    show(f"{result['file']}: {result['bytes'] / 1e6:.1f} MB, model card {result['card']}")
    if "largest_difference" in result:
        show(f"largest difference of posteriors from the net's, at two sizes: {result['largest_difference']:.1e}")
    if "top1_agreement" in result:
        show(
            f"int8/float top-1 agreement: {result['top1_agreement']:.1f} % ({result['compared_photos']} images); "
            f"mean difference of posteriors: {result['mean_posterior_difference']:.1e}"
        )
    for name, error in result.get("top1_error", {}).items():
        show(f"top-1 error of {name}: {error:.2f} %")
    if "example" in result:
        show(f"programs that reproduce its probabilities: {result['example']}")
    if result["takes"] != "photo":
        show(f"try it: verydeep predict {shlex.quote(result['file'])} PHOTO")
