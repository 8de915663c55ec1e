"""Find a learning rate: train some steps whose rate rises, and see where the loss falls fastest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...core.settings import DataSettings, MachineSettings, TrainSettings
from ...core.terminal import Terminal
from ...training.recipes import settings_of_run
from ..execution import show_result
from ..output import show, show_table
from ..parser import RECIPES, CommandParser, Options, add_settings, given_settings, show_defaults

ROWS = 10  # of the table, and the last step


def add_arguments(parser: CommandParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument("run", metavar="RUN", help="a net or a run of the paper, with the settings of its `train`")
    parser.group("Output").add_argument("--plot", metavar="FILE", help="also write the losses as a picture, a PNG file")
    add_settings(parser, DataSettings)
    add_settings(parser, TrainSettings, leave_out=("net",))
    add_settings(parser, MachineSettings, leave_out=("tensorboard", "track", "peer_timeout", "bf16_gradients"))
    ways = {"D": (settings_of_run("D", {}),), "D/256": (settings_of_run("D/256", {}),)}
    show_defaults(parser, *ways.items())
    parser.epilog = RECIPES.format("rate", *ways)


def used_settings(options: Options) -> tuple[TrainSettings]:
    """The settings that this command line would train with."""
    return (settings_of_run(options.run, given_settings(options, TrainSettings)),)


def run(options: Options) -> int:
    """Runs the test, and prints it; writes only the picture."""
    from ...api import find_rate
    from ...core.files import check_place
    from ...reports.figures import rate_figure, save_figure

    plot = Path(options.plot) if options.plot else None
    if plot is not None:
        check_place(plot.parent, "--plot")
    test = find_rate(options.run, Terminal(options.quiet), **given_settings(options))
    if plot is not None:
        plot.parent.mkdir(parents=True, exist_ok=True)
        save_figure(rate_figure(test), plot)
    return show_result(options, test.to_json(), lambda _: _show(test))


def _show(test: Any) -> None:
    rows = list(zip(test.rates, test.losses, test.smoothed, strict=True))
    shown = [*rows[: -1 : max(1, len(rows) // ROWS)], *rows[-1:]]
    cells = [(f"{rate:.1e}", f"{loss:.4f}", f"{smooth:.4f}") for rate, loss, smooth in shown]
    show_table(test.sentence, ["learning rate", "loss", "smoothed loss"], cells)
    if test.suggestion is not None:
        show(f"next: `verydeep train` with the same settings and --lr {test.suggestion:.2g}")
