"""Train, evaluate and predict with a small net on handwritten digits, in minutes."""

from __future__ import annotations

import shlex

from ...core.progress import Interrupted
from .. import output
from ..execution import NOTHING_SAVED, OK
from ..output import Terminal, show, show_json
from ..parser import CommandParser, Options
from ..signals import InterruptHandler


def add_arguments(parser: CommandParser) -> None:
    """Adds the arguments of the command."""
    learning = parser.group("Training")
    learning.add_argument("--seed", type=int, default=0, metavar="N", help="random seed (default: 0)")
    learning.add_argument("--epochs", type=int, metavar="N", help="maximum number of epochs, for a quick trial")
    parser.group("Data").add_argument(
        "--scenes", type=int, metavar="N", help="number of training images (default: 6000)"
    )
    parser.group("Output").add_argument("--out", metavar="DIR", help="a new folder for the run (default: runs/demo)")


def run(options: Options) -> int:
    """Runs training, evaluation and prediction at doll size."""
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
