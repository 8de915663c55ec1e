"""Train a localisation model from a classification run (App. A)."""

from __future__ import annotations

import shlex

from ...core.settings import BoxSettings, DataSettings, MachineSettings, TrainSettings
from ...training.recipes import settings_of_box_run
from ..execution import run_training
from ..output import show
from ..parser import RECIPES, CommandParser, Options, add_settings, add_shared, given_settings, show_defaults

DISTRIBUTED = True


def add_arguments(parser: CommandParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument("run", metavar="RUN", help="a net (D) or a run of the paper (D/384-PCR, D/384-SCR-fc)")
    parser.group("Output").add_argument("--out", metavar="DIR", help="folder for the run (default: runs/RUN)")
    add_shared(parser, "--strict", "--resume", "--max-hours")
    add_settings(parser, BoxSettings)
    add_settings(parser, DataSettings)
    add_settings(parser, TrainSettings, leave_out=("net", "validate"))
    add_settings(parser, MachineSettings)
    own = settings_of_box_run("D", {"start": "RUN"})
    ways = {"D --start RUN": own, "D/384-PCR": settings_of_box_run("D/384-PCR", {})}
    show_defaults(parser, *ways.items())
    parser.epilog = RECIPES.format("localise train", *ways)


def used_settings(options: Options) -> tuple[TrainSettings, BoxSettings]:
    """The settings that this command line would train with."""
    return settings_of_box_run(options.run, given_settings(options, TrainSettings, BoxSettings))


def run(options: Options) -> int:
    """Trains, from the start or resumed; status 130 or 143 where it was interrupted."""
    from ...api import train_boxes
    from ...checkpoints.run_dir import REPORT
    from ...localisation.predict import usual_test

    given = given_settings(options)
    status, result = run_training(
        options,
        lambda reporter, stop, team: train_boxes(
            options.run, options.out, options.resume, options.strict, reporter, stop, team, **given
        ),
    )
    if result is not None:
        folder, error = result["folder"], result["best_dev_gt_class_error"]
        show(f"{folder}: {result['steps']} steps, best dev error {error:.2f} % in epoch {result['best_epoch']}")
        show(f"next: verydeep localise evaluate {shlex.quote(str(folder))} {usual_test(folder)}")
        show(f"report: {folder}/{REPORT}")
    return status
