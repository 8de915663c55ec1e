"""Calibrate a net's probabilities: fit one temperature for a protocol, and find what `--reject-at` needs.

It is fitted on the dev part and stored in the checkpoint. Errors and the order of classes stay as they are.
"""

from __future__ import annotations

from typing import Any

from ...core.settings import MachineSettings
from ...core.terminal import Terminal
from ..execution import show_result
from ..output import show
from ..parser import ALONE, CommandParser, Options, add_settings, add_shared, settings_from


def add_arguments(parser: CommandParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument("run", metavar="MODEL", help="a run's folder or a checkpoint")
    add_shared(parser, "protocol")
    data = parser.group("Data")
    data.add_argument("--data", metavar="DATA", help="labelled dataset to fit on (default: that of the run)")
    data.add_argument("--set", metavar="NAME", default="dev", help="dev, val, test or all (default: dev)")
    add_shared(parser, "--last")
    add_settings(parser, MachineSettings, leave_out=ALONE)


def run(options: Options) -> int:
    """Fits and stores a temperature."""
    from ...api import calibrate

    result = calibrate(
        options.run,
        options.protocol,
        data=options.data,
        set_name=options.set,
        last=options.last,
        machine=settings_from(options, MachineSettings),
        reporter=Terminal(options.quiet),
    )
    return show_result(options, result, _show)


def _show(result: dict[str, Any]) -> None:
    from ...evaluation.rejection import usual_rejections

    show(f"{result['protocol']} on {result['images']} images of {result['data']} ({result['set']})")
    show(f"temperature: {result['temperature']:.4f}")
    show(f"NLL: {result['nll_before']:.4f} before, {result['nll_after']:.4f} after")
    show(f"ECE: {result['ece_before']:.2f} % before, {result['ece_after']:.2f} % after")
    for chosen in usual_rejections(result["risk_coverage"]):
        show(f"--reject-at {chosen.percent:g}: {chosen.answered} of these are answered, {chosen.wrong} of them wrongly")
    show(f"stored in {result['checkpoint']}; predict, serve and exports use it, unless --no-calibration is given")
