"""Write a picture of training crops as the net sees them."""

from __future__ import annotations

from pathlib import Path

from ...core.errors import VerydeepError
from ...core.settings import DataSettings, MachineSettings, TrainSettings
from ..execution import show_result
from ..output import show
from ..parser import CommandParser, Options, add_settings, add_shared, given_settings

SHOWN = ("S", "crop", "mirror", "colour_shift", "seed")


def add_arguments(parser: CommandParser) -> None:
    """Adds the arguments of the command."""
    add_shared(parser, "data")
    output = parser.group("Output")
    output.add_argument("--out", default="crops.png", metavar="FILE", help="PNG file to write (default: crops.png)")
    output.add_argument("--photos", type=int, default=24, metavar="N", help="number of crops (default: 24)")
    add_settings(parser, TrainSettings, only=SHOWN)
    add_settings(parser, DataSettings, only=("classes", "folders"))
    add_settings(parser, MachineSettings, only=("max_pixels",))


def run(options: Options) -> int:
    """Draws training crops."""
    from ...data.check import sample_crops
    from ...reports.figures import photo_grid, save_figure
    from ...training.recipes import settings_of_run

    if options.photos < 1:
        raise VerydeepError(f"--photos must be 1 or more, not {options.photos}.")
    settings = settings_of_run("D", {**given_settings(options, TrainSettings), "batch": options.photos})
    crops = sample_crops(options.data, settings, options.photos, **given_settings(options, DataSettings))
    path = save_figure(photo_grid(crops), Path(options.out))
    result = {"picture": str(path), "photos": len(crops), "S": str(settings.S), "crop": settings.crop}
    text = f"{path}: {len(crops)} training crops of {settings.crop} pixels at S = {settings.S}"
    return show_result(options, result, lambda _: show(text))
