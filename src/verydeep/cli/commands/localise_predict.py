"""Predict boxes in images and draw them, with class and score."""

from __future__ import annotations

from pathlib import Path

from ...core.settings import MachineSettings, MergeSettings
from ...core.terminal import Terminal
from ..execution import status_of, write_rows
from ..output import show, show_json
from ..parser import ALONE, CommandParser, Options, add_settings, add_shared, settings_from


def add_arguments(parser: CommandParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument("run", metavar="MODEL", help="a localisation model: a run's folder or a checkpoint")
    add_shared(parser, "images")
    net, output = parser.group("Net and weights"), parser.group("Output")
    net.add_argument(
        "--classifier",
        metavar="MODEL",
        help="classifier that predicts the classes (default: the one that training started from)",
    )
    prediction = parser.group("Prediction")
    prediction.add_argument(
        "--protocol",
        metavar="PROTOCOL",
        help="protocol: dense@Q,… or centre@Q (default: dense@Q; for crops below 224: centre@Q)",
    )
    output.add_argument(
        "--out", default="boxes", metavar="DIR", help="folder for pictures and boxes.json (default: boxes)"
    )
    prediction.add_argument(
        "--top", type=int, metavar="N", help="number of classes per image (default: 5; for fewer than 10 classes: 1)"
    )
    prediction.add_argument(
        "--class", dest="name", metavar="NAME", help="class to locate in every image (default: those predicted)"
    )
    add_settings(parser, MergeSettings)
    add_settings(parser, MachineSettings, leave_out=ALONE)
    parser.epilog = "Example: `verydeep localise predict runs/D-PCR photo.jpg --top 1`"


def run(options: Options) -> int:
    """Predicts boxes; status 1 where images could not be read or drawn, 2 where none could be read."""
    from ...core.files import check_place
    from ...data.class_names import display_name
    from ...evaluation.predict import find_all
    from ...localisation.predict import load_localiser
    from ...reports.figures import write_boxed_photos

    reporter = Terminal(options.quiet)
    images, problems = find_all(options.images, reporter)
    folder = Path(options.out)
    check_place(folder)
    merging, machine = settings_from(options, MergeSettings), settings_from(options, MachineSettings)
    localiser = load_localiser(options.run, options.classifier, options.protocol, merging, machine, reporter)
    faults: dict[int, str] = {}
    predictions = localiser.predict(images, options.top, options.name, faults, reporter)
    rows = [prediction.to_json() for prediction in predictions]
    unwritten: list[str] = []
    pictures = write_boxed_photos(predictions, folder, unwritten)
    write_rows(folder / "boxes.json", rows, unwritten)
    if options.json:
        show_json(rows)
    else:
        for prediction, picture in zip(predictions, pictures, strict=True):
            show(prediction.image if picture is None else f"{prediction.image}  ({picture})")
            for box in prediction.boxes:
                corners = ", ".join(f"{value:.0f}" for value in box.xyxy)
                show(f"  {display_name(box.name)}  score {box.score:.3f}  box {corners}")
    return status_of([*problems, *faults.values(), *unwritten], some_done=bool(predictions))
