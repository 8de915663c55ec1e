"""The command line's flags; those of settings are made from the fields of their dataclasses.

argparse and no library for it: its mistakes can be made one sentence, and it starts at once.
"""

from __future__ import annotations

import argparse
import difflib
from typing import Any, NoReturn

from .config import DataSettings, MachineSettings, TrainSettings, field_help, flag
from .errors import VerydeepError


class _Parser(argparse.ArgumentParser):
    """argparse whose mistakes are one sentence."""

    def error(self, message: str) -> NoReturn:
        raise VerydeepError(f"{message[:1].lower()}{message[1:]}; `{self.prog} --help` tells more.")


def parse(arguments: list[str]) -> argparse.Namespace:
    """The options of one command line; raises VerydeepError for a mistake in it."""
    parser, verbs = build_parser()
    options, extra = parser.parse_known_args(arguments)
    if extra:
        known = [name for action in verbs[options.verb]._actions for name in action.option_strings]
        wrong = extra[0].partition("=")[0]
        near = difflib.get_close_matches(wrong, known, n=1, cutoff=0.5)
        hint = f": did you mean {near[0]}?" if near else f"; `verydeep {options.verb} --help` lists them."
        kind = "setting" if wrong.startswith("-") else "argument"
        raise VerydeepError(f"unknown {kind} {wrong!r}{hint}")
    return options


def build_parser() -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    """The parser, and that of each verb by its name."""
    from importlib.metadata import version

    parser = _Parser(
        prog="verydeep", description="Very deep ConvNets (Simonyan & Zisserman, ICLR 2015).", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"verydeep {version('verydeep')}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, dest="command", parser_class=_Parser)
    verbs: dict[str, argparse.ArgumentParser] = {}

    def verb(name: str, text: str, group: Any = commands) -> argparse.ArgumentParser:
        added: argparse.ArgumentParser = group.add_parser(
            name.split()[-1], help=text, description=text, allow_abbrev=False
        )
        added.set_defaults(verb=name)
        added.add_argument("--json", action="store_true", help="print one JSON document to stdout")
        added.add_argument("--quiet", action="store_true", help="no news on stderr but warnings")
        verbs[name] = added
        return added

    nets = verb("nets", "the nets of Table 1: layers, parameters, multiply-adds, receptive field")
    nets.add_argument("name", nargs="?", metavar="NET")
    _add_settings(nets, TrainSettings, only=("crop", "width"))
    nets.add_argument("--classes", type=int, default=1000, metavar="N", help="outputs of fc8 (1000)")

    data = commands.add_parser("data", help="look at data before training", allow_abbrev=False)
    kinds = data.add_subparsers(metavar="COMMAND", required=True, dest="kind", parser_class=_Parser)
    check = verb("data check", "read every photo once: faults, balance, sizes, duplicates", kinds)
    check.add_argument("data", metavar="DATA")
    show = verb("data show", "a picture of what the net will see of the training photos", kinds)
    show.add_argument("data", metavar="DATA")
    show.add_argument("--out", default="crops.png", metavar="FILE", help="the picture (crops.png)")
    show.add_argument("--photos", type=int, default=24, metavar="N", help="how many crops (24)")
    _add_settings(show, TrainSettings, only=("S", "crop", "mirror", "colour_shift", "seed"))
    for each in (check, show):
        _add_settings(each, DataSettings, only=("classes",))

    train = verb("train", "train a net (D: the recipe for own photos) or a run of the paper (D/256)")
    train.add_argument("run", metavar="RUN")
    train.add_argument("--out", metavar="DIR", help="the run's folder (runs/RUN)")
    train.add_argument("--resume", action="store_true", help="go on from the folder's last checkpoint")
    for kind in (DataSettings, TrainSettings):
        _add_settings(train, kind, leave_out=("net",))
    _add_machine(train)

    evaluate = verb("evaluate", "test a run's net on the set that training never looked at")
    evaluate.add_argument("run", metavar="DIR")
    evaluate.add_argument("protocol", metavar="PROTOCOL", help="dense@256,384,512, centre@256, …")
    evaluate.add_argument("--data", metavar="DATA", help="other data than the run's own")
    evaluate.add_argument("--set", metavar="NAME", help="a set of the data (train, dev, val, test, all)")
    evaluate.add_argument("--out", metavar="DIR", help="folder for what is found")
    evaluate.add_argument("--bad-images", choices=["stop", "skip"], default="stop", help="unreadable photos")
    evaluate.add_argument("--last", action="store_true", help="the last checkpoint, not the best")
    _add_machine(evaluate)

    predict = verb("predict", "ask a run's net about photos: files, folders or globs")
    predict.add_argument("run", metavar="DIR")
    predict.add_argument("images", metavar="IMAGE", nargs="+")
    predict.add_argument("--top", type=int, default=5, metavar="N", help="how many classes (5)")
    predict.add_argument("--protocol", metavar="PROTOCOL", help="how to test (dense at the training scale)")
    predict.add_argument("--csv", action="store_true", help="print rows of image,rank,class,probability")
    predict.add_argument("--last", action="store_true", help="the last checkpoint, not the best")
    _add_machine(predict)

    demo = verb("demo", "train, test and ask a small net on handwritten digits, in minutes")
    demo.add_argument("--out", metavar="DIR", help="a new folder (runs/demo)")
    demo.add_argument("--seed", type=int, default=0, metavar="N", help="of the training (0)")
    demo.add_argument("--epochs", type=int, default=None, metavar="N", help="fewer only try the path")
    return parser, verbs


def _add_settings(
    parser: argparse.ArgumentParser, kind: type, only: tuple[str, ...] = (), leave_out: tuple[str, ...] = ()
) -> None:
    """A flag for each field of a settings dataclass; values stay text, which `config.typed` reads."""
    group = parser.add_argument_group(kind.__name__)
    for name, shape, text, default in field_help(kind):
        if (not only or name in only) and name not in leave_out:
            default = ",".join(map(str, default)) if isinstance(default, tuple) else default
            shown = f"{text} ({default})" if default not in ("", -1) else text
            group.add_argument(
                f"--{flag(name)}", dest=f"set_{name}", metavar=shape, help=shown.replace("%", "%%"), default=None
            )


def _add_machine(parser: argparse.ArgumentParser) -> None:
    _add_settings(parser, MachineSettings)


def given_settings(options: argparse.Namespace) -> dict[str, Any]:
    """The settings that were given, as text, by field name."""
    found = {key[4:]: value for key, value in vars(options).items() if key.startswith("set_")}
    return {name: value for name, value in found.items() if value is not None}
