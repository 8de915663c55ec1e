"""Resize the images of a dataset and pack them into a few large files (shards), to train on them faster."""

from __future__ import annotations

import shlex
from typing import Any

from ...core.config import STRIDE, typed
from ...core.settings import DataSettings, MachineSettings, TrainSettings
from ...core.terminal import Terminal
from ..execution import show_result
from ..output import show
from ..parser import READING, CommandParser, Options, add_settings, add_shared, given_settings, settings_from


def add_arguments(parser: CommandParser) -> None:
    """Adds the arguments of the command."""
    add_shared(parser, "data", "--bad-images")
    parser.add_argument("out", metavar="DIR", help="folder for the packed dataset; an interrupted packing is resumed")
    output = parser.group("Output")
    parser.group("Image preprocessing").add_argument(
        "--size", type=int, default=256, metavar="N", help="shorter side of the packed images in pixels (default: 256)"
    )
    output.add_argument(
        "--form",
        choices=["raw", "jpeg"],
        default="raw",
        help="store raw pixels, or JPEG, a tenth of the size (default: raw)",
    )
    output.add_argument("--quality", type=int, default=95, metavar="N", help="JPEG quality, 90 to 100 (default: 95)")
    add_settings(parser, DataSettings, leave_out=("data",))
    add_settings(parser, TrainSettings, only=("resampling", "other_side"))
    add_settings(parser, MachineSettings, only=READING)
    parser.epilog = (
        "Any dataset that `train --data` takes can be packed; to train on it, pass its folder DIR as --data."
    )


def run(options: Options) -> int:
    """Packs a dataset."""
    from ...core.device import resolve_device
    from ...data.pack_writer import Packing, pack_data

    rescaling = typed(TrainSettings, given_settings(options, TrainSettings))
    loading = resolve_device(settings_from(options, MachineSettings), 0).readers
    packing = Packing(options.size, options.form, options.quality, **rescaling)
    settings = settings_from(options, DataSettings, data=options.data)
    result = pack_data(settings, options.out, packing, loading, options.bad_images, reporter=Terminal(options.quiet))
    return show_result(options, result, _show)


def _show(result: dict[str, Any]) -> None:
    images = sum(part["photos"] for part in result["sets"].values())
    size = sum(shard["bytes"] for part in result["sets"].values() for shard in part["shards"])
    show(f"{result['folder']}: {images} images, shorter side {result['size']}, {result['form']}, {size / 1e6:.1f} MB")
    crop = "" if result["size"] >= TrainSettings.crop else f" --crop {result['size'] // STRIDE * STRIDE}"
    show(f"train on it: verydeep train D --data {shlex.quote(str(result['folder']))} --S {result['size']}{crop}")
