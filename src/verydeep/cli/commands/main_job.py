"""The verbs of the main job: train, evaluate, predict, demo."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import Any

from ...core.interrupt import Interrupted
from .. import output
from ..arguments import given_settings
from ..output import Terminal, show, show_shares, show_table
from .common import (
    BEFORE_THE_FIRST_STEP,
    OK,
    Stopper,
    answer_json,
    error_cells,
    machine_wish,
    reporter_of,
    run_training,
    status_of,
    team_of,
)


def train(options: argparse.Namespace) -> int:
    """A training, begun or resumed; 130 or 143 where it was interrupted."""
    from ...api import train
    from ...checkpoints.run_dir import REPORT

    given = given_settings(options)
    status, result = run_training(
        options,
        lambda reporter, stopper, team: train(
            options.run, options.out, options.resume, reporter, stopper, team, **given
        ),
    )
    if result is not None:
        error = result["best_dev_top1_error"]
        show(
            f"{result['folder']}: {result['steps']} steps, best dev error {error:.2f} % in epoch {result['best_epoch']}"
        )
        folder, several = shlex.quote(str(result["folder"])), ",".join(map(str, result["test_scales"]))
        show(f"next: verydeep evaluate {folder} dense@{result['test_scale']}")
        if len(result["test_scales"]) > 1:
            show(f"slower, and better: verydeep evaluate {folder} dense@{several}")
        show(f"to look at: {result['folder']}/{REPORT}")
    return status


def evaluate(options: argparse.Namespace) -> int:
    """A run's net tested on a set."""
    from ...api import evaluate

    with team_of(options) as team:
        reporter = reporter_of(team, options.quiet)
        found = evaluate(
            options.run,
            options.protocol,
            data=options.data,
            set_name=options.set,
            last=options.last,
            out=options.out,
            bad_images=options.bad_images,
            machine=machine_wish(options),
            reporter=reporter,
            team=team,
        )
    if not team.is_main:
        return OK
    if options.json:
        answer_json(found.summary)
    else:
        _show_evaluation(found.summary)
    return status_of(found.problems, answered=True)


def _show_evaluation(summary: dict[str, Any]) -> None:
    title = f"{summary['protocol']} on {summary['images']} photos of {summary['data']} ({summary['set']})"
    rows = [(name.replace("_", " "), *error_cells(summary, name)) for name in ("top1_error", "top5_error")]
    show_table(title, ["", "error", "95 % interval"], [row for row in rows if row[1]])
    worst = sorted(summary["classes"], key=lambda row: -row["top1_error"])[:10]
    if worst:
        worst_rows = [(row["class"], row["images"], f"{row['top1_error']:.1f} %") for row in worst]
        show_table("", ["worst classes", "photos", "top1 error"], worst_rows)
    for pair in summary["confused"][:5]:
        show(f"{pair['class']} taken for {pair['taken_for']}: {pair['images']}")
    cost = summary["multiply_adds_per_image"] / 1e9
    show(f"{cost:.2f} G multiply-adds a photo, {summary['images_per_second']:.1f} photos/s")
    show(f"scores, all classes and pictures: {summary['folder']}")


def predict(options: argparse.Namespace) -> int:
    """Photos asked about; status 1 where some could not be read or explained, 2 where none could be read."""
    from ...api import load
    from ...evaluation.predict import find_all

    reporter = Terminal(options.quiet)
    photos, problems = find_all(options.images, reporter)
    classifier = load(options.run, options.last, machine_wish(options))
    if options.explain:
        _check_explain(classifier, Path(options.explain))
    faults: dict[int, str] = {}
    found = classifier.predict(photos, options.top, options.protocol, faults, reporter) if photos else []
    unexplained: dict[int, str] = {}
    explained = _explained(classifier, found, options, reporter, unexplained)
    if options.json:
        rows = [{**prediction.to_json(), **more} for prediction, more in zip(found, explained, strict=True)]
        answer_json(rows)
    elif options.csv:
        _show_csv(found)
    else:
        for prediction, more in zip(found, explained, strict=True):
            show(prediction.image)
            if prediction.kind == "probability":
                show_shares(prediction.classes)
            else:
                for name, value in prediction.classes:
                    show(f"  {value:7.3f}  {name}")
            for told in more.values():
                show(f"  {told['class']} seen in {told['map']}, {told['gradcam']}")
    return status_of([*problems, *faults.values(), *unexplained.values()], answered=bool(found))


def _check_explain(classifier: Any, folder: Path) -> None:
    """Raises VerydeepError before the photos are asked about where they cannot be explained."""
    from ...core.files import check_place
    from ...evaluation.saliency import explainable

    explainable(classifier)
    check_place(folder, "--explain")


def _explained(
    classifier: Any, found: list[Any], options: argparse.Namespace, reporter: Terminal, faults: dict[int, str]
) -> list[dict[str, Any]]:
    """What an answer has more where it was explained: ``explained`` and its pictures; ``faults`` takes the others."""
    from ...evaluation.saliency import write_explanations

    if not options.explain:
        return [{} for _ in found]
    made = write_explanations(classifier, found, Path(options.explain), options.protocol, reporter, faults)
    return [{} if one is None else {"explained": one.to_json()} for one in made]


def _show_csv(found: list[Any]) -> None:
    import csv
    import io

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image", "rank", "class", found[0].kind if found else "probability"])
    for prediction in found:
        for rank, (name, value) in enumerate(prediction.classes, start=1):
            writer.writerow([output.clean(prediction.image), rank, output.clean(name), f"{value:.6f}"])
    output.show_raw(text.getvalue())


def demo(options: argparse.Namespace) -> int:
    """The main job at doll size."""
    from ...evaluation.metrics import headline
    from ...paper.demo import demo

    reporter = Terminal(options.quiet)
    with Stopper(reporter) as stopper:
        fewer = {name: vars(options)[name] for name in ("epochs", "scenes") if vars(options)[name] is not None}
        try:
            found = demo(options.out, options.seed, **fewer, reporter=reporter, stop=stopper)
        except Interrupted:
            output.fail(BEFORE_THE_FIRST_STEP)
            return stopper.status
    if options.json:
        answer_json(found)
    if found["page"] is None:
        folder = shlex.quote(str(found["folder"]))
        output.fail(f"interrupted; go on with `verydeep train A --out {folder} --resume`.")
        return 128 + stopper.signal
    if not options.json:
        for row in found["evaluations"]:
            show(headline(row))
        show(f"pictures: {found['page']}  ({found['seconds']:.0f} s in all)")
        show(f"ask it: verydeep predict {shlex.quote(str(found['folder']))} PHOTO")
    return OK
