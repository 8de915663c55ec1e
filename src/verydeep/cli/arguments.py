"""The command line: what was typed, as options; the flags themselves are in `verydeep.cli.flags`.

argparse and no library for it: its mistakes can be made one sentence, and it starts at once.
"""

from __future__ import annotations

import argparse
import os
from typing import Any, NoReturn

from ..core.errors import VerydeepError
from ..core.nearest import nearest, nearest_command, nearest_setting
from ..core.paths import listed_paths, typed_path
from ..core.settings import BoxSettings, TrainSettings
from ..training.recipes import settings_of_box_run, settings_of_run
from .flags import VERBS
from .setting_flags import show_defaults


class _Parser(argparse.ArgumentParser):
    """argparse whose mistakes are one sentence."""

    def error(self, message: str) -> NoReturn:
        raise VerydeepError(f"{message[:1].lower()}{message[1:]}; `{self.prog} --help` tells more.")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Raises VerydeepError for none of the choices; argparse would name all of them and not the nearest."""
        if action.choices is None or value in action.choices:
            return
        commands = isinstance(action, argparse._SubParsersAction)
        near = nearest_command(value, action.choices) if commands else nearest(value, action.choices)
        hint = f"did you mean {near}?" if near else f"use {', '.join(action.choices)}."
        name = f"there is no command {value!r}" if commands else f"{_called(action)} cannot be {value!r}"
        raise VerydeepError(f"{name}; {hint} `{self.prog} --help` tells more.")


def _called(action: argparse.Action) -> str:
    """What an argument is called where it is typed."""
    return action.option_strings[0] if action.option_strings else str(action.metavar or action.dest)


def parse(arguments: list[str]) -> argparse.Namespace:
    """The options of one command line, and all as ``typed``; raises VerydeepError for a mistake in it.

    Nothing, and the name of a group of commands alone, ask for help, as they do of pip: it goes to stdout, status 0.
    """
    parser, verbs = build_parser()
    typed = list(arguments)
    arguments = [typed_path(word) for word in arguments]
    if not arguments or (len(arguments) == 1 and any(name.startswith(f"{arguments[0]} ") for name in verbs)):
        arguments = [*arguments, "--help"]
    if {"-h", "--help"} & set(arguments):
        _show_recipe(parser, verbs, [word for word in arguments if word not in ("-h", "--help")])
    options, extra = parser.parse_known_args(arguments)
    if extra:
        raise VerydeepError(_unknown(extra[0].partition("=")[0], options, verbs[options.verb]))
    for name, value in vars(options).items():
        if value == "" or (isinstance(value, list) and "" in value):
            raise VerydeepError(f"{name.removeprefix('set_')} is empty: give a value, or leave it out.")
    options.typed = typed
    return options


def _show_recipe(
    parser: argparse.ArgumentParser, verbs: dict[str, argparse.ArgumentParser], arguments: list[str]
) -> None:
    """Makes the help of a training show what its run would use, where the command line names one."""
    try:
        options, _ = parser.parse_known_args(arguments)
        given = given_settings(options)
        if options.verb == "train":
            used: tuple[Any, ...] = (settings_of_run(options.run, _of(given, TrainSettings)),)
        elif options.verb == "localise train":
            used = settings_of_box_run(options.run, _of(given, TrainSettings, BoxSettings))
        else:
            return
    except VerydeepError:  # a mistake elsewhere on the line, which may be why help is asked for
        return
    show_defaults(verbs[options.verb], (options.run, used))
    verbs[options.verb].epilog = f"In brackets: the values of this run of {options.run}."


def _of(given: dict[str, Any], *kinds: type) -> dict[str, Any]:
    """The given settings that dataclasses of these kinds have."""
    return {name: value for name, value in given.items() if any(hasattr(kind, name) for kind in kinds)}


def _unknown(wrong: str, options: argparse.Namespace, verb: argparse.ArgumentParser) -> str:
    """The sentence for a word that the command does not take."""
    known = [name.removeprefix("--") for action in verb._actions for name in action.option_strings]
    listed = f"`{verb.prog} --help` lists them."
    if wrong.startswith("-"):
        if os.path.exists(wrong):
            return f"{wrong!r} is read as a setting: write ./{wrong} for the file."
        near = nearest_setting(wrong, known)
        return f"unknown setting {wrong!r}" + (f": did you mean --{near}?" if near else f"; {listed}")
    data = "data" in known and vars(options).get("set_data", vars(options).get("data")) is None
    return f"unknown argument {wrong!r}" + (f": did you mean --data {wrong}?" if data else f"; {listed}")


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
    found = {key[4:]: value for key, value in vars(options).items() if key.startswith("set_") and value is not None}
    if isinstance(found.get("boxes"), list):  # of several flags
        found["boxes"] = boxes_of(found["boxes"])
    return found


def boxes_of(texts: list[str]) -> list[str] | str:
    """The box files that several flags list; where there are none, the first text, of which `config.typed` tells."""
    return [path for text in texts for path in listed_paths(text)] or texts[0]
