"""The command line: what was typed, as options; the flags themselves are in `verydeep.flags`.

argparse and no library for it: its mistakes can be made one sentence, and it starts at once.
"""

from __future__ import annotations

import argparse
import difflib
from typing import Any, NoReturn

from .errors import VerydeepError
from .flags import VERBS


class _Parser(argparse.ArgumentParser):
    """argparse whose mistakes are one sentence."""

    def error(self, message: str) -> NoReturn:
        raise VerydeepError(f"{message[:1].lower()}{message[1:]}; `{self.prog} --help` tells more.")


def parse(arguments: list[str]) -> argparse.Namespace:
    """The options of one command line, and all as ``typed``; raises VerydeepError for a mistake in it."""
    parser, verbs = build_parser()
    options, extra = parser.parse_known_args(arguments)
    if extra:
        known = [name for action in verbs[options.verb]._actions for name in action.option_strings]
        wrong = extra[0].partition("=")[0]
        near = difflib.get_close_matches(wrong, known, n=1, cutoff=0.5)
        hint = f": did you mean {near[0]}?" if near else f"; `verydeep {options.verb} --help` lists them."
        kind = "setting" if wrong.startswith("-") else "argument"
        raise VerydeepError(f"unknown {kind} {wrong!r}{hint}")
    for name, value in vars(options).items():
        if value == "" or (isinstance(value, list) and "" in value):
            raise VerydeepError(f"{name.removeprefix('set_')} is empty: give a value, or leave it out.")
    options.typed = list(arguments)
    return options


def build_parser() -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    """The parser, and that of each verb by its name."""
    from importlib.metadata import version

    text = "Very deep ConvNets (Simonyan & Zisserman, ICLR 2015): nets A to E, trained, tested and asked."
    parser = _Parser(prog="verydeep", description=text, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"verydeep {version('verydeep')}")
    commands: Any = parser.add_subparsers(metavar="COMMAND", required=True, dest="command", parser_class=_Parser)
    data = commands.add_parser("data", help="data before training: check, show, pack", allow_abbrev=False)
    boxes = commands.add_parser("localise", help="box nets: train, evaluate, predict", allow_abbrev=False)
    weights = commands.add_parser("weights", help="public weight files: list, fetch", allow_abbrev=False)
    groups: dict[str, Any] = {
        name: group.add_subparsers(metavar="COMMAND", required=True, dest="kind", parser_class=_Parser)
        for name, group in (("data", data), ("localise", boxes), ("weights", weights))
    }
    verbs: dict[str, argparse.ArgumentParser] = {}
    for name, (what, add_flags) in VERBS.items():
        family, _, last = name.rpartition(" ")
        group = groups[family] if family else commands
        verbs[name] = group.add_parser(last, help=what, description=what, allow_abbrev=False)
        verbs[name].set_defaults(verb=name)
        form: Any = verbs[name].add_mutually_exclusive_group()
        form.add_argument("--json", action="store_true", help="print one JSON document to stdout")
        if name == "predict":
            form.add_argument("--csv", action="store_true", help="print rows of image,rank,class,probability")
        verbs[name].add_argument("--quiet", action="store_true", help="no news on stderr but warnings")
        add_flags(verbs[name])
    return parser, verbs


def given_settings(options: argparse.Namespace) -> dict[str, Any]:
    """The settings that were given, as text, by field name."""
    found = {key[4:]: value for key, value in vars(options).items() if key.startswith("set_")}
    return {name: value for name, value in found.items() if value is not None}
