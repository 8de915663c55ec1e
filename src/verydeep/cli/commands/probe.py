"""Train a linear SVM on a net's descriptors of your own images, in minutes: its error and worst mistakes."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from ...core.config import typed
from ...core.progress import Reporter
from ...core.settings import (
    DataSettings,
    DescriptorSettings,
    FeatureSettings,
    MachineSettings,
    SvmSettings,
    TrainSettings,
)
from ..execution import run_extraction, show_result
from ..output import show
from ..parser import CommandParser, Options, add_settings, add_shared, given_settings, settings_from
from .features import add_net_settings
from .svm import add_curve, draws_of, show_svms


def add_arguments(parser: CommandParser) -> None:
    """Adds the arguments of the command."""
    parser.group("Data").add_argument(
        "--data", metavar="DATA", required=True, help="dataset: a folder with a folder per class, or a list file"
    )
    add_shared(parser, "--bad-images")
    parser.group("Net and weights").add_argument(
        "--weights", metavar="MODEL", required=True, help="a run's folder, a checkpoint or a weight file"
    )
    parser.group("Output").add_argument(
        "--out", metavar="DIR", default="runs/probe", help="folder for the results (default: runs/probe)"
    )
    add_settings(parser, FeatureSettings)
    add_settings(parser, DescriptorSettings)
    add_settings(parser, SvmSettings)
    add_curve(parser)
    add_net_settings(parser)


def run(options: Options) -> int:
    """Extracts descriptors, then trains and evaluates an SVM on them."""
    return run_extraction(options, lambda reporter: _probe(options, reporter))


def _probe(options: Options, reporter: Reporter) -> int:
    from ...api import probe
    from ...transfer.backbone import usual_layer
    from ...transfer.svm_file import check_svm_place

    check_svm_place(Path(options.out))
    draws = draws_of(options)
    preprocessing = typed(TrainSettings, given_settings(options, TrainSettings)).get("preprocessing", "recorded")
    given = typed(FeatureSettings, given_settings(options, FeatureSettings))
    data = typed(DataSettings, given_settings(options, DataSettings))
    layer = given.get("layer") or usual_layer(options.weights, preprocessing)
    result = probe(
        options.data,
        options.weights,
        options.out,
        **{name: value for name, value in data.items() if not hasattr(SvmSettings, name)},
        features=FeatureSettings(**{**given, "layer": layer}),
        descriptor=settings_from(options, DescriptorSettings),
        svm=settings_from(options, SvmSettings),
        preprocessing=preprocessing,
        bad_images=options.bad_images,
        curve=options.curve,
        draws=draws,
        machine=settings_from(options, MachineSettings),
        reporter=reporter,
    )
    return show_result(options, result, _show)


def _show(result: dict[str, Any]) -> None:
    show_svms(result)
    show(f"report, with the worst mistakes: {result['page']}")
    show(f"try it: verydeep predict {shlex.quote(str(result['folder']))} PHOTO")
