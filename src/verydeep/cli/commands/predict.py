"""Predict the classes of images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...core.settings import MachineSettings
from ...core.terminal import Terminal, clean
from ..execution import status_of
from ..output import show, show_json, show_raw, show_shares
from ..parser import ALONE, CommandParser, Options, add_settings, add_shared, settings_from


def add_arguments(parser: CommandParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument(
        "run", metavar="MODEL", help="a run's folder, a checkpoint, a weight file, or a name such as oxford-D"
    )
    add_shared(parser, "images", "--last", "--protocol", "--no-calibration", "--reject-at")
    shown = parser.group("Output")
    shown.add_argument("--top", type=int, default=5, metavar="N", help="number of classes per image (default: 5)")
    shown.add_argument(
        "--explain", metavar="DIR", help="also write score maps and Grad-CAM of each image's top class to this folder"
    )
    parser.formats.add_argument(
        "--csv",
        action="store_true",
        help="print the result as CSV: image,rank,class,probability and, with --reject-at, unknown",
    )
    add_settings(parser, MachineSettings, leave_out=ALONE)


def run(options: Options) -> int:
    """Predicts; status 1 where images could not be read or explained, 2 where none could be read."""
    from ...core.files import check_place
    from ...evaluation.predict import find_all
    from ...evaluation.rejection import check_calibrated
    from ...evaluation.saliency import check_explainable, write_explanations
    from ...transfer.load import load

    reporter = Terminal(options.quiet)
    images, problems = find_all(options.images, reporter)
    check_calibrated(options.reject_at, options.calibration)
    machine = settings_from(options, MachineSettings)
    classifier = load(options.run, options.last, machine, options.calibration)
    explained = None
    if options.explain:
        explained = check_explainable(classifier)
        check_place(Path(options.explain), "--explain")
    faults: dict[int, str] = {}
    asked = (options.top, options.protocol, faults, reporter, options.reject_at)
    predictions = classifier.predict(images, *asked) if images else []
    unexplained: dict[int, str] = {}
    explanations: list[dict[str, Any]] = [{} for _ in predictions]
    if explained is not None:
        folder = Path(options.explain)
        made = write_explanations(explained, predictions, folder, options.protocol, reporter, unexplained)
        explanations = [{} if explanation is None else {"explained": explanation.to_json()} for explanation in made]
    if options.json:
        show_json([{**shown.to_json(), **more} for shown, more in zip(predictions, explanations, strict=True)])
    elif options.csv:
        _show_csv(predictions)
    else:
        _show(predictions, explanations)
    return status_of([*problems, *faults.values(), *unexplained.values()], some_done=bool(predictions))


def _show(predictions: list[Any], explanations: list[dict[str, Any]]) -> None:
    from ...data.class_names import display_name

    for prediction, more in zip(predictions, explanations, strict=True):
        show(f"{prediction.image}: unknown" if prediction.unknown else prediction.image + _labels(prediction))
        if prediction.kind == "probability":
            show_shares((display_name(name), share) for name, share in prediction.classes)
        else:
            for number, (name, value) in enumerate(prediction.classes):
                likely = f"{prediction.probabilities[number]:6.1%}  " if prediction.probabilities else ""
                show(f"  {value:7.3f}  {likely}{display_name(name)}")
        for pictures in more.values():
            show(f"  {display_name(pictures['class'])}: score map {pictures['map']}, Grad-CAM {pictures['gradcam']}")


def _labels(prediction: Any) -> str:
    """All classes of an image that may have several, as the end of a line."""
    from ...data.class_names import display_name

    if prediction.labels is None:
        return ""
    return f": {', '.join(map(display_name, prediction.labels)) or 'none of the classes'}"


def _show_csv(predictions: list[Any]) -> None:
    import csv
    import io

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    kind, unknown = (predictions[0].kind, predictions[0].unknown) if predictions else ("probability", None)
    writer.writerow(["image", "rank", "class", kind, *([] if unknown is None else ["unknown"])])
    for prediction in predictions:
        for rank, (name, value) in enumerate(prediction.classes, start=1):
            last = [] if prediction.unknown is None else ["yes" if prediction.unknown else "no"]
            writer.writerow([clean(prediction.image), rank, clean(name), f"{value:.6f}", *last])
    show_raw(text.getvalue())
