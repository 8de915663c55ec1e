"""The verbs of App. A: localise train, evaluate, predict."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import Any

from ...core.config import typed
from ...core.errors import VerydeepError
from ...core.settings import DataSettings, MachineSettings, MergeSettings
from ..arguments import boxes_of, given_settings
from ..output import Terminal, show, show_table
from .common import answer_json, error_cells, run_training, status_of, told_at_the_end

ERRORS = {
    "gt_class_error": "the true class's box",
    "localisation_error": "localisation",
    "classification_error": "of it, no guess of the right class",
    "box_only_error": "of it, the right class and a wrong box",
    "one_guess_error": "localisation with one guess",
    "localisation_error_without_blacklisted": "localisation, as the devkit counts",
}


def train(options: argparse.Namespace) -> int:
    """A box net trained, begun or resumed; 130 or 143 where it was interrupted."""
    from ...api import train_boxes
    from ...checkpoints.run_dir import REPORT
    from ...localisation.predict import usual_test

    given = given_settings(options)
    status, result = run_training(
        options,
        lambda reporter, stopper, team: train_boxes(
            options.run, options.out, options.resume, options.strict, reporter, stopper, team, **given
        ),
    )
    if result is not None:
        folder, error = result["folder"], result["best_dev_gt_class_error"]
        show(f"{folder}: {result['steps']} steps, best dev error {error:.2f} % in epoch {result['best_epoch']}")
        show(f"next: verydeep localise evaluate {shlex.quote(str(folder))} {usual_test(folder)}")
        show(f"to look at: {folder}/{REPORT}")
    return status


def _settings(options: argparse.Namespace) -> tuple[MergeSettings, MachineSettings]:
    """How boxes merge, and what is wished of the machine."""
    given = given_settings(options)
    of_machine = {name: value for name, value in given.items() if name in MachineSettings.__dataclass_fields__}
    rest = {name: value for name, value in given.items() if name not in of_machine}
    return MergeSettings(**typed(MergeSettings, rest)), MachineSettings(**typed(MachineSettings, of_machine))


def evaluate(options: argparse.Namespace) -> int:
    """Box nets tested on a set."""
    from ...api import evaluate_boxes

    pairs = [*options.tests, None] if len(options.tests) == 1 else options.tests
    if len(pairs) % 2:
        raise VerydeepError("a test is a run's folder and a protocol, such as `runs/D/384-PCR dense@352,384`.")
    merging, machine = _settings(options)
    reporter = Terminal(options.quiet)
    found = evaluate_boxes(
        list(zip(pairs[::2], pairs[1::2], strict=True)),
        scores=options.scores,
        classifier=options.classifier,
        data=options.data,
        boxes=typed(DataSettings, {"boxes": boxes_of(options.boxes)})["boxes"] if options.boxes else (),
        set_name=options.set,
        out=options.out,
        strict=options.strict,
        merging=merging,
        server_file=options.server_file,
        devkit=options.devkit,
        machine=machine,
        reporter=reporter,
    )
    if options.json:
        answer_json(found.summary)
    else:
        _show(found.summary)
    return status_of(found.problems, answered=True)


def _show(summary: dict[str, Any]) -> None:
    named = " and ".join(f"{test['folder']} {test['protocol']}" for test in summary["tests"])
    title = f"{named} on {summary['images']} photos of {summary['data']} ({summary['set']})"
    rows = [(text, *error_cells(summary, name)) for name, text in ERRORS.items() if summary.get(name) is not None]
    if rows:
        show_table(title, ["error", "", "95 % interval"], rows)
    else:
        show(f"{title}: their classes are not known, so there are no errors")
    if summary.get("constant_box_error") is not None:
        show(f"the best constant box: {summary['constant_box_error']:.2f} %")
    if summary["localisation_error"] is not None:
        t = "" if summary["t"] is None else f"; t = {summary['t']:g}, tuned on {summary['tuned_on'] or 'nothing'}"
        show(f"{summary['guesses']} guesses a photo{t}")
    show(f"guesses and pictures: {summary['folder']}")


def predict(options: argparse.Namespace) -> int:
    """Boxes drawn on photos; status 1 where some could not be read or drawn, 2 where none could be read."""
    from ...core.files import check_place, write_json
    from ...evaluation.predict import find_all
    from ...localisation.predict import load_localiser
    from ...reports.figures import write_boxed_photos

    reporter = Terminal(options.quiet)
    photos, problems = find_all(options.images, reporter)
    folder = Path(options.out)
    check_place(folder)
    merging, machine = _settings(options)
    net = load_localiser(options.run, options.classifier, options.protocol, merging, machine, reporter)
    faults: dict[int, str] = {}
    found = net.predict(photos, options.top, options.name, faults, reporter)
    answers = [boxes.to_json() for boxes in found]
    unwritten: list[str] = []
    pictures = write_boxed_photos(found, folder, unwritten)
    if answers:
        with told_at_the_end(unwritten):
            write_json(folder / "boxes.json", {"photos": answers})
    if options.json:
        answer_json(answers)
    else:
        for boxes, picture in zip(found, pictures, strict=True):
            show(boxes.image if picture is None else f"{boxes.image}  ({picture})")
            for box in boxes.boxes:
                corners = ", ".join(f"{value:.0f}" for value in box.xyxy)
                show(f"  {box.name}  score {box.score:.3f}  box {corners}")
    return status_of([*problems, *faults.values(), *unwritten], answered=bool(found))
