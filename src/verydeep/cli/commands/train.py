"""Train a net (D: the recipe for your own images) or a run of the paper (D/256)."""

from __future__ import annotations

import shlex

from ...core.settings import DataSettings, MachineSettings, TrainSettings
from ...training.recipes import settings_of_run
from ..execution import run_training
from ..output import show
from ..parser import RECIPES, CommandParser, Options, add_settings, add_shared, given_settings, show_defaults

DISTRIBUTED = True


def add_arguments(parser: CommandParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument("run", metavar="RUN", help="a net (D) or a run of the paper (D/256, D/256-512)")
    parser.group("Output").add_argument("--out", metavar="DIR", help="folder for the run (default: runs/RUN)")
    add_shared(parser, "--resume", "--max-hours")
    add_settings(parser, DataSettings)
    add_settings(parser, TrainSettings, leave_out=("net",))
    add_settings(parser, MachineSettings)
    ways = {"D": (settings_of_run("D", {}),), "D/256": (settings_of_run("D/256", {}),)}
    show_defaults(parser, *ways.items())
    parser.epilog = RECIPES.format("train", *ways)


def used_settings(options: Options) -> tuple[TrainSettings]:
    """The settings that this command line would train with."""
    return (settings_of_run(options.run, given_settings(options, TrainSettings)),)


def run(options: Options) -> int:
    """Trains, from the start or resumed; status 130 or 143 where it was interrupted."""
    from ...api import train
    from ...checkpoints.run_dir import REPORT

    given = given_settings(options)
    status, result = run_training(
        options,
        lambda reporter, stop, team: train(options.run, options.out, options.resume, reporter, stop, team, **given),
    )
    if result is not None:
        folder, error = result["folder"], result["best_dev_top1_error"]
        show(f"{folder}: {result['steps']} steps, best dev error {error:.2f} % in epoch {result['best_epoch']}")
        quoted, scales = shlex.quote(str(folder)), ",".join(map(str, result["test_scales"]))
        show(f"next: verydeep evaluate {quoted} dense@{result['test_scale']}")
        if len(result["test_scales"]) > 1:
            show(f"slower, more accurate: verydeep evaluate {quoted} dense@{scales}")
        show(f"report: {folder}/{REPORT}")
    return status
