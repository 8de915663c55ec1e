"""Train and evaluate linear SVMs, or another classifier, on descriptors by a dataset's protocol (App. B)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ...core.config import typed
from ...core.errors import VerydeepError
from ...core.settings import DescriptorSettings, FeatureSettings, MachineSettings, SvmSettings
from ...core.terminal import Terminal
from ..execution import OK
from ..output import show, show_json, show_table
from ..parser import CommandParser, Options, add_settings, settings_from


def add_arguments(parser: CommandParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument(
        "protocol", metavar="PROTOCOL", help="protocol: caltech101, caltech256, voc2007, voc2012, voc2012-action or own"
    )
    descriptors = parser.group("Descriptors")
    descriptors.add_argument(
        "--features",
        metavar="FILE",
        nargs="+",
        action="extend",
        required=True,
        help="features files, or descriptors of other programs: .npz, .npy, .safetensors, .parquet; several are "
        "concatenated",
    )
    descriptors.add_argument("--scales", metavar="Q,…", help="scales of the files to use (default: all)")
    parser.group("Data").add_argument(
        "--data",
        metavar="DATA",
        help="dataset of the images of other programs' descriptors, which are found by their ids",
    )
    parser.group("Output").add_argument(
        "--out", metavar="DIR", help="folder for results and classifier (default: runs/svm/PROTOCOL)"
    )
    add_settings(parser, DescriptorSettings)
    add_settings(parser, SvmSettings)
    add_curve(parser)
    add_settings(parser, MachineSettings, only=("device", "threads", "max_pixels"))


def add_curve(parser: CommandParser) -> None:
    """Adds the arguments of the learning curve."""
    group = parser.group("SVM")
    group.add_argument(
        "--curve",
        action="store_true",
        help="also show the error at 1, 2, 5, 10, 20, 50 and all training images per class, and what more would gain",
    )
    group.add_argument(
        "--draws", type=int, metavar="N", help="random draws of images for each size of --curve (default: 10)"
    )


def draws_of(options: Options) -> int:
    """The number of draws of `add_curve`; raises VerydeepError if it is given without a curve."""
    from ...transfer.learning_curve import DRAWS

    if options.draws is not None and not options.curve:
        raise VerydeepError("--draws is of the learning curve: add --curve.")
    return DRAWS if options.draws is None else options.draws


def run(options: Options) -> int:
    """Trains and evaluates SVMs."""
    from ...reports.svm_report import write_svm_report
    from ...transfer.evaluate import learn_svms, usual_aggregate
    from ...transfer.learning_curve import learning_curve
    from ...transfer.svm_file import check_svm_place, write_transfer

    folder = Path(options.out or f"runs/svm/{re.sub(r'[^a-z0-9-]', '', options.protocol.lower())}")
    check_svm_place(folder)
    draws = draws_of(options)
    machine = settings_from(options, MachineSettings)
    descriptor = settings_from(options, DescriptorSettings, aggregate=usual_aggregate(options.protocol))
    settings = settings_from(options, SvmSettings)
    reporter = Terminal(options.quiet)
    scales = typed(FeatureSettings, {"scales": options.scales or ()})["scales"]
    transfer = learn_svms(
        *(options.protocol, options.features, descriptor, settings, scales, machine, reporter, options.data)
    )
    curve = learning_curve(transfer, draws, machine=machine, reporter=reporter) if options.curve else None
    result = write_transfer(transfer, folder, curve)
    _, page = write_svm_report(folder)
    if options.json:
        show_json(result)
    else:
        show_svms(result)
        show(f"results, splits, predictions and classifier: {folder}; report: {page.name}")
    return OK


def show_svms(result: dict[str, Any]) -> None:
    """Prints the errors of SVMs or other classifiers, split by split."""
    name, parameter = result["figure"], "k" if result["classifier"] == "knn" else "C"
    nets = " and ".join(
        f"{row['net']} {row['layer']}@{','.join(map(str, row['scales']))}" if row["scales"] else row["net"]
        for row in result["features"]
    )
    title = f"{result['protocol']}, {result['data']}: {nets}, {result['aggregate']}, {result['dimensions']} dimensions"
    rows = [
        (row["split"], images["fit"] + images["dev"], images["test"], f"{row[parameter]:g}", *_percent(row, name))
        for row, images in zip(result["splits"], result["images"], strict=True)
    ]
    shown = name.replace("_", " ")
    show_table(title, ["split", "training images", "test images", parameter, shown, "top1 error"], rows)
    if result[f"{name}_std"] is not None:
        show(f"{shown} {result[name]:.2f} ± {result[f'{name}_std']:.2f} %, over {len(rows)} splits")
    elif result[name] is None:
        show(f"the test images have no labels, so there is no {shown}")
    first = result["splits"][0]
    if first.get("f1") is not None:
        show(f"classes with scores above {first['threshold']:.4f}, chosen on the dev part: F1 {first['f1']:.2f} %")
    if "curve" in result:
        _show_curve(result["curve"], parameter)


def _show_curve(curve: dict[str, Any], parameter: str) -> None:
    rows = [
        (
            "all" if point["images_per_class"] is None else point["images_per_class"],
            point["images"],
            point["draws"],
            _with_spread(point, "top1_error"),
            _with_spread(point, "mean_class_recall"),
        )
        for point in curve["points"]
    ]
    title = f"error on the same {curve['test_images']} test images by number of training images"
    title += f", {parameter} = {curve[parameter]:g}"
    show_table(title, ["images per class", "images", "draws", "top1 error", "mean class recall"], rows)
    show(curve["sentence"])


def _with_spread(row: dict[str, Any], name: str) -> str:
    """A mean over draws and the standard deviation, in percent."""
    std = row[f"{name}_std"]
    return f"{row[name]:.2f}{'' if std is None else f' ± {std:.2f}'} %"


def _percent(row: dict[str, Any], name: str) -> tuple[str, str]:
    first, second = ("" if row[key] is None else f"{row[key]:.2f} %" for key in (name, "top1_error"))
    return first, second
