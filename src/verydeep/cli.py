"""The command line: one small function a verb, over the Python functions of the same names.

Answers go to stdout (with ``--json`` one JSON document and nothing else), news to stderr. A user's
mistake is one sentence on stderr and status 2; an interrupted training has status 130 or 143.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from . import terminal
from .arguments import given_settings, parse
from .config import DataSettings, MachineSettings, TrainSettings, typed
from .errors import ImageError, VerydeepError
from .terminal import Terminal, show, show_table

OK, MISTAKE, INTERRUPTED = 0, 2, 130


class Stopper:
    """Turns the first Ctrl-C or SIGTERM into a wish to stop after the current step; the next is at once."""

    def __init__(self, reporter: Terminal) -> None:
        self.signal = 0
        self._reporter = reporter

    def __enter__(self) -> Stopper:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._asked)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def _asked(self, number: int, _frame: object) -> None:
        if self.signal:
            raise KeyboardInterrupt
        self.signal = number
        self._reporter.warn("stopping after this step; once more stops at once, without saving it")

    def __call__(self) -> bool:
        return bool(self.signal)


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; returns the exit status."""
    try:
        options = parse(sys.argv[1:] if arguments is None else arguments)
        status = VERBS[options.verb](options)
        sys.stdout.flush()
        return status
    except VerydeepError as mistake:
        terminal.fail(str(mistake))
        return MISTAKE
    except RuntimeError as fault:
        if "DataLoader worker" not in str(fault):
            raise
        terminal.fail("a process that reads photos was killed, perhaps for memory; try fewer --workers and --resume.")
        return MISTAKE
    except BrokenPipeError:  # the reader of our stdout left, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except OSError as fault:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left unwritten has no place to go
        terminal.fail(f"the operating system refused: {fault.strerror or fault} ({fault.filename or 'output'}).")
        return MISTAKE
    except KeyboardInterrupt:
        terminal.fail("interrupted.")
        return INTERRUPTED


def _answer_json(value: Any) -> None:
    terminal.show_raw(json.dumps(value, indent=2, allow_nan=False) + "\n")


def _machine(options: argparse.Namespace) -> MachineSettings:
    return MachineSettings(**typed(MachineSettings, given_settings(options)))


def _nets(options: argparse.Namespace) -> int:
    from .configurations import NET_NAMES, net_facts

    given = typed(TrainSettings, given_settings(options))
    size = {"classes": options.classes, "crop": given.get("crop", 224), "width": given.get("width", 1.0)}
    names = [options.name] if options.name else list(NET_NAMES)
    facts = [net_facts(name, **size) for name in names]
    if options.json:
        documents = [{**asdict(net), "layers": [asdict(layer) for layer in net.layers]} for net in facts]
        _answer_json(documents[0] if options.name else documents)
        return OK
    columns = ["net", "weight layers", "parameters", "multiply-adds", "receptive field"]
    rows = [
        (n.name, n.weight_layers, f"{n.parameters:,}", f"{n.multiply_adds:,}", f"{n.receptive_field} px") for n in facts
    ]
    crop = f"{size['crop']}x{size['crop']} pixels"
    show_table(f"{size['classes']} classes, one crop of {crop}, width {size['width']:g}", columns, rows)
    if options.name:
        layer_rows = [
            (x.name, f"{x.kernel}x{x.kernel}", x.inputs, x.outputs, f"{x.parameters:,}") for x in facts[0].layers
        ]
        show_table("", ["layer", "kernel", "inputs", "outputs", "parameters"], layer_rows)
    return OK


def _data_check(options: argparse.Namespace) -> int:
    from .data.check import check_data
    from .machine import cores

    reporter = Terminal(options.quiet)
    classes = typed(DataSettings, given_settings(options)).get("classes", ())
    found = check_data(options.data, classes, cores(), reporter)
    if options.json:
        _answer_json(found)
    else:
        _show_check(found)
    return MISTAKE if found["faults"] else OK


def _show_check(found: dict[str, Any]) -> None:
    rows = []
    for name, part in found["sets"].items():
        counts = sorted(part["balance"].values())
        spread = f"{counts[0]} / {counts[len(counts) // 2]} / {counts[-1]}"
        sides = " / ".join(map(str, part["smallest_side"] or ["-"]))
        rows.append((name, part["photos"], spread, sides))
    title = f"{found['data']}: {len(found['classes'])} classes, {found['ignored']} other files ignored"
    show_table(title, ["set", "photos", "a class (least/median/most)", "smallest side (same)"], rows)
    for photos in found["duplicates"]:
        show(f"the same picture: {'; '.join(photos)}")
    for fault in found["faults"]:
        show(f"unreadable: {fault['fault']}")
    show(f"{len(found['faults'])} unreadable photos, {len(found['duplicates'])} pictures more than once")


def _data_show(options: argparse.Namespace) -> int:
    from .data.check import sample_crops
    from .recipes import settings_of_run
    from .report import photo_grid, save_figure

    given = given_settings(options)
    classes = typed(DataSettings, {"classes": given.pop("classes", ())})["classes"]
    if options.photos < 1:
        raise VerydeepError(f"photos must be 1 or more, not {options.photos}.")
    settings = settings_of_run("D", {**given, "batch": options.photos})
    crops = sample_crops(options.data, settings, options.photos, classes)
    path = save_figure(photo_grid(crops), Path(options.out))
    if options.json:
        _answer_json({"picture": str(path), "photos": len(crops), "S": str(settings.S), "crop": settings.crop})
    else:
        show(f"{path}: {len(crops)} training crops of {settings.crop} pixels at S = {settings.S}")
    return OK


def _train(options: argparse.Namespace) -> int:
    from .preparing import train

    reporter = Terminal(options.quiet)
    with Stopper(reporter) as stopper:
        result = train(options.run, options.out, options.resume, reporter, stopper, **given_settings(options))
    if options.json:
        _answer_json(result)
    if result["ended"] == "interrupted":
        terminal.fail(f"interrupted at step {result['steps']}, saved; go on with the same command and --resume.")
        return 128 + stopper.signal
    if not options.json:
        error = result["best_dev_top1_error"]
        show(
            f"{result['folder']}: {result['steps']} steps, best dev error {error:.2f} % in epoch {result['best_epoch']}"
        )
        show(f"next: verydeep evaluate {result['folder']} dense@{result['test_scale']}")
    return OK


def _evaluate(options: argparse.Namespace) -> int:
    from .evaluation import evaluate
    from .report import write_evaluation_pictures

    found = evaluate(
        options.run,
        options.protocol,
        data=options.data,
        set_name=options.set,
        last=options.last,
        out=options.out,
        bad_images=options.bad_images,
        machine=_machine(options),
        reporter=Terminal(options.quiet),
    )
    write_evaluation_pictures(found)
    if options.json:
        _answer_json(found.summary)
        return OK
    _show_evaluation(found.summary)
    return OK


def _show_evaluation(summary: dict[str, Any]) -> None:
    rows = []
    for name in ("top1_error", "top5_error"):
        if summary[name] is not None:
            low, high = summary[f"{name}_interval"]
            rows.append((name.replace("_", " "), f"{summary[name]:.2f} %", f"{low:.2f} to {high:.2f} %"))
    title = f"{summary['protocol']} on {summary['images']} photos of {summary['data']} ({summary['set']})"
    show_table(title, ["", "error", "95 % interval"], rows)
    worst = sorted(summary["classes"], key=lambda row: -row["top1_error"])[:10]
    show_table(
        "",
        ["worst classes", "photos", "top1 error"],
        [(row["class"], row["images"], f"{row['top1_error']:.1f} %") for row in worst],
    )
    for pair in summary["confused"][:5]:
        show(f"{pair['class']} taken for {pair['taken_for']}: {pair['images']}")
    show(f"scores, all classes and pictures: {summary['folder']}")


def _predict(options: argparse.Namespace) -> int:
    from .prediction import find_photos, load

    photos: list[str] = []
    problems: list[str] = []
    for pattern in options.images:
        try:
            photos.extend(photo for photo in find_photos(pattern) if photo not in photos)
        except ImageError as problem:
            problems.append(str(problem))
    classifier = load(options.run, options.last, _machine(options))
    faults: dict[int, str] = {}
    found = classifier.predict(photos, options.top, options.protocol, faults, Terminal(options.quiet)) if photos else []
    if options.json:
        _answer_json([prediction.to_json() for prediction in found])
    elif options.csv:
        _show_csv(found)
    else:
        for prediction in found:
            show(prediction.image)
            for name, probability in prediction.classes:
                show(f"  {100 * probability:5.1f} %  {name}")
    for sentence in [*problems, *faults.values()]:
        terminal.fail(sentence)
    return MISTAKE if problems or faults else OK


def _show_csv(found: list[Any]) -> None:
    import csv
    import io

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image", "rank", "class", "probability"])
    for prediction in found:
        for rank, (name, probability) in enumerate(prediction.classes, start=1):
            writer.writerow([prediction.image, rank, name, f"{probability:.6f}"])
    terminal.show_raw(text.getvalue())


def _demo(options: argparse.Namespace) -> int:
    from .demo import DOLL, demo
    from .evaluation import headline

    reporter = Terminal(options.quiet)
    with Stopper(reporter) as stopper:
        epochs = DOLL["max_epochs"] if options.epochs is None else options.epochs
        found = demo(options.out, options.seed, epochs, reporter, stopper)
    if options.json:
        _answer_json(found)
    if found["page"] is None:
        terminal.fail(f"interrupted; go on with `verydeep train A --out {found['folder']} --resume`.")
        return 128 + stopper.signal
    if not options.json:
        for row in found["evaluations"]:
            show(headline(row))
        show(f"pictures: {found['page']}  ({found['seconds']:.0f} s in all)")
        show(f"ask it: verydeep predict {found['folder']} PHOTO")
    return OK


VERBS: dict[str, Callable[[argparse.Namespace], int]] = {
    "nets": _nets,
    "data check": _data_check,
    "data show": _data_show,
    "train": _train,
    "evaluate": _evaluate,
    "predict": _predict,
    "demo": _demo,
}


if __name__ == "__main__":
    sys.exit(main())
