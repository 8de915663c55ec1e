"""Train, evaluate and predict with a small net on handwritten digits, in minutes; or show a trained net on photos."""

from __future__ import annotations

import shlex
from typing import Any

from ...core.errors import VerydeepError
from ...core.progress import Interrupted
from ...core.terminal import Terminal
from .. import output
from ..execution import NOTHING_SAVED, OK, show_result
from ..output import show, show_json, show_shares
from ..parser import CommandParser, Options
from ..signals import InterruptHandler


def add_arguments(parser: CommandParser) -> None:
    """Adds the arguments of the command."""
    learning = parser.group("Training")
    learning.add_argument("--seed", type=int, default=0, metavar="N", help="random seed (default: 0)")
    learning.add_argument("--epochs", type=int, metavar="N", help="maximum number of epochs, for a quick trial")
    data = parser.group("Data")
    data.add_argument("--scenes", type=int, metavar="N", help="number of training images (default: 6000)")
    data.add_argument("--photos", metavar="DIR", help="with --weights: photos to predict, explain and compare")
    parser.group("Net and weights").add_argument(
        "--weights", metavar="MODEL", help="a run's folder or a name such as oxford-D: show this net, without training"
    )
    parser.group("Output").add_argument("--out", metavar="DIR", help="a new folder for the run (default: runs/demo)")


def run(options: Options) -> int:
    """Runs training, evaluation and prediction at doll size, or prediction with a trained net."""
    if options.weights is not None or options.photos is not None:
        return _tour(options)
    from ...evaluation.metrics import headline
    from ...paper.demo import demo

    with InterruptHandler(reporter := Terminal(options.quiet)) as stop:
        smaller = {name: vars(options)[name] for name in ("epochs", "scenes") if vars(options)[name] is not None}
        try:
            result = demo(options.out, options.seed, **smaller, reporter=reporter, stop=stop)
        except Interrupted:
            output.fail(NOTHING_SAVED)
            return stop.status
    if options.json:
        show_json(result)
    if result["page"] is None:
        folder = shlex.quote(str(result["folder"]))
        output.fail(f"interrupted; resume with `verydeep train A --out {folder} --resume`.")
        return stop.status
    if not options.json:
        for row in result["evaluations"]:
            show(headline(row))
        show(f"report: {result['page']}  ({result['seconds']:.0f} s in all)")
        show(f"try it: verydeep predict {shlex.quote(str(result['folder']))} PHOTO")
    return OK


def _tour(options: Options) -> int:
    """Shows a trained net on photos."""
    if options.weights is None or options.photos is None:
        raise VerydeepError("--weights MODEL and --photos DIR go together: a trained net, and photos for it.")
    if options.epochs is not None or options.scenes is not None:
        raise VerydeepError("--epochs and --scenes are for the demo that trains: leave them out with --weights.")
    from ...data.class_names import display_name
    from ...paper.tour import tour

    result = tour(options.weights, options.photos, options.out, Terminal(options.quiet))

    def rows(result: dict[str, Any]) -> None:
        for row in result["predictions"]:
            show(row["image"])
            show_shares((display_name(best["class"]), best["probability"]) for best in row["predictions"])
        show(f"page: {result['page']}  ({result['seconds']:.0f} s in all)")

    return show_result(options, result, rows)
