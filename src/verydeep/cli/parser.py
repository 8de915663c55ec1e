"""The parser of the command line, made from the modules of the commands, and the arguments that they share.

A command is a module of `verydeep.cli.commands`, such as ``data_check`` for ``verydeep data check``. Its docstring is
its help; ``add_arguments(parser)`` adds its arguments; ``run(options)`` runs it and returns the exit status. A module
with ``DISTRIBUTED = True`` can be started by torchrun in several processes. ``used_settings(options)``, where there is
one, returns the settings that a command line would use, for help to show. Imports that load torch are inside ``run``.

argparse is used directly, as its errors can be made one sentence, and it starts fast.
"""

from __future__ import annotations

import argparse
import math
import os
import pkgutil
from functools import cache, cached_property
from importlib import import_module
from types import ModuleType
from typing import Any, NoReturn, TypeVar

from ..core.config import as_typed, field_help, flag, lists_names, typed
from ..core.errors import VerydeepError
from ..core.nearest import nearest, nearest_command, nearest_setting
from ..core.paths import listed_paths, typed_path
from . import commands as _package

# Titles of the arguments' groups, in the order in which help shows them.
GROUPS = (
    *("Data", "Net and weights", "Training", "Schedule", "Image preprocessing", "Validation", "Prediction"),
    *("Boxes", "Box merging", "Descriptors", "SVM", "Ensemble", "Benchmark", "Experiments", "Server"),
    *("Output", "Data loading", "Hardware"),
)
FAMILIES = {
    **{"data": "Datasets", "localise": "Localisation models"},
    **{"scores": "Stored posteriors", "weights": "Public weight files"},
}
READING = ("workers", "read_timeout", "read_retries", "max_pixels")  # machine settings of commands that read images
# Machine settings of training only.
OF_TRAINING = ("compile", "tensorboard", "track", "device_batch", "recompute", "bf16_gradients")
ALONE = (*OF_TRAINING, "peer_timeout")  # not read by commands that run in one process
RECIPES = (
    "Defaults are those of `{0} {1}`, the recipe for your own images, and those of the paper's {2} where they differ. "
    "`{0} RUN --help` shows the defaults of a run, given the other flags on the command line."
)


def positive_hours(text: str) -> float:
    """A number of hours above 0; raises ArgumentTypeError."""
    try:
        hours = float(text)
    except ValueError:
        hours = 0.0
    if not 0 < hours < math.inf:
        raise argparse.ArgumentTypeError(f"{text[:60]!r} is not a number of hours above 0")
    return hours


def percentage(text: str) -> float:
    """A percentage above 0 and below 100, with or without its sign; raises ArgumentTypeError."""
    try:
        percent = float(text.removesuffix("%"))
    except ValueError:
        percent = 0.0
    if not 0 < percent < 100:
        raise argparse.ArgumentTypeError(f"{text[:60]!r} is not a percentage above 0 and below 100")
    return percent


# Arguments of several commands: the title of their group, and the options of argparse.
SHARED: dict[str, tuple[str, dict[str, Any]]] = {
    "data": ("Data", {"metavar": "DATA", "help": "dataset: a folder, a list file or a name, as `train --data` takes"}),
    "images": (
        "Data",
        {
            "metavar": "IMAGE",
            "nargs": "+",
            "help": "images, folders of images, glob patterns, http(s) URLs, which are downloaded, or - for one image "
            "from standard input",
        },
    ),
    "protocol": (
        "Prediction",
        {
            "metavar": "PROTOCOL",
            "nargs": "?",
            "help": "protocol: dense@256,384,512, crops@…, … (default: that of `predict`)",
        },
    ),
    "--bad-images": (
        "Data",
        {
            "choices": ["stop", "skip"],
            "default": "stop",
            "help": "at an unreadable image, stop or skip it (default: stop)",
        },
    ),
    "--strict": (
        "Data",
        {"action": "store_true", "help": "stop at faulty boxes, which are otherwise clipped or left out"},
    ),
    "--last": ("Net and weights", {"action": "store_true", "help": "use the last checkpoint of the run, not the best"}),
    "--resume": ("Output", {"action": "store_true", "help": "resume the run in its folder from its last checkpoint"}),
    "--max-hours": (
        "Schedule",
        {
            "type": positive_hours,
            "metavar": "H",
            "help": "stop and save after H hours, if it has not ended; --resume goes on",
        },
    ),
    "--server-file": ("Output", {"metavar": "FILE", "help": "also write a submission file for ILSVRC's server"}),
    "--devkit": ("Output", {"metavar": "DIR", "help": "folder of ILSVRC's devkit, needed by --server-file"}),
    "--no-calibration": (
        "Prediction",
        {
            "dest": "calibration",
            "action": "store_false",
            "help": "leave out the temperature of `calibrate`, and of SVMs the probabilities",
        },
    ),
    "--reject-at": (
        "Prediction",
        {
            "type": percentage,
            "metavar": "PERCENT",
            "help": "call images unknown that are too unlike the classes, so that at most PERCENT %% of the others are "
            "wrong among the images of `calibrate` or, of SVMs, the dev part",
        },
    ),
    "--protocol": (
        "Prediction",
        {"metavar": "PROTOCOL", "help": "protocol: dense@Q,…, centre@Q, … (default: dense at the training scale)"},
    ),
}
Options = argparse.Namespace  # of a parsed command line
_Settings = TypeVar("_Settings")


class CommandParser(argparse.ArgumentParser):
    """An argparse parser with one-sentence errors and arguments grouped by purpose."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, allow_abbrev=False)
        self._groups = {title: self.add_argument_group(title) for title in GROUPS}  # empty ones are not shown

    def group(self, title: str) -> argparse._ArgumentGroup:
        """The group of arguments with one of the titles in `GROUPS`."""
        return self._groups[title]

    @cached_property
    def formats(self) -> argparse._MutuallyExclusiveGroup:
        """Mutually exclusive flags for the format of the result."""
        return self.group("Output").add_mutually_exclusive_group()

    def error(self, message: str) -> NoReturn:
        """Raises VerydeepError, in place of printing the usage and exiting."""
        raise VerydeepError(f"{message[:1].lower()}{message[1:]}; see `{self.prog} --help`.")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Raises VerydeepError for an invalid choice; argparse would list all of them and not the nearest."""
        if action.choices is None or value in action.choices:
            return
        is_command = isinstance(action, argparse._SubParsersAction)
        near = nearest_command(value, action.choices) if is_command else nearest(value, action.choices)
        hint = f"did you mean {near}?" if near else f"use {', '.join(action.choices)}."
        flag_or_name = action.option_strings[0] if action.option_strings else str(action.metavar or action.dest)
        fault = f"there is no command {value!r}" if is_command else f"{flag_or_name} cannot be {value!r}"
        raise VerydeepError(f"{fault}; {hint} See `{self.prog} --help`.")


@cache
def commands() -> dict[str, ModuleType]:
    """The module of each command, by the words of the command line."""
    modules = pkgutil.iter_modules(_package.__path__)
    return {module.name.replace("_", " "): import_module(f"{_package.__name__}.{module.name}") for module in modules}


def build_parser() -> tuple[CommandParser, dict[str, CommandParser]]:
    """The parser, and that of each command by its name."""
    from importlib.metadata import version

    parser = CommandParser(
        prog="verydeep",
        description="Very deep ConvNets (VGG; Simonyan & Zisserman, ICLR 2015): train, evaluate, deploy nets A to E.",
        epilog="`verydeep demo` shows the main commands in minutes; `verydeep COMMAND --help` explains a command.",
    )
    parser.add_argument("--version", action="version", version=f"verydeep {version('verydeep')}")
    families: dict[str, Any] = {"": parser.add_subparsers(metavar="COMMAND", required=True)}
    parsers: dict[str, CommandParser] = {}
    for name, module in commands().items():
        family, _, last = name.rpartition(" ")
        if family not in families:
            members = [other.partition(" ")[2] for other in commands() if other.startswith(f"{family} ")]
            text = f"{FAMILIES.get(family, family)}: {', '.join(members)}"
            group = families[""].add_parser(family, help=text, description=text)
            families[family] = group.add_subparsers(metavar="COMMAND", required=True)
        text = str(module.__doc__)
        command = families[family].add_parser(last, help=text.partition("\n")[0].rstrip("."), description=text)
        command.set_defaults(command=name)
        module.add_arguments(command)
        command.formats.add_argument("--json", action="store_true", help="print the result as JSON")
        quiet = "suppress progress; print only warnings and errors"
        command.group("Output").add_argument("--quiet", action="store_true", help=quiet)
        parsers[name] = command
    return parser, parsers


def parse(arguments: list[str]) -> Options:
    """The options of a command line, with all its words as ``typed``; raises VerydeepError for an error in it.

    Without words, or with the name of a group of commands alone, prints help to stdout with status 0, as pip does.
    """
    parser, parsers = build_parser()
    words = list(arguments)
    arguments = [typed_path(word) for word in arguments]
    if not arguments or (len(arguments) == 1 and any(name.startswith(f"{arguments[0]} ") for name in parsers)):
        arguments = [*arguments, "--help"]
    if {"-h", "--help"} & set(arguments):
        _show_used_settings(parser, parsers, [word for word in arguments if word not in ("-h", "--help")])
    options, extra = parser.parse_known_args(arguments)
    if extra:
        raise VerydeepError(_unknown(extra[0].partition("=")[0], options, parsers[options.command]))
    for name, value in vars(options).items():
        if value == "" or (isinstance(value, list) and "" in value):
            raise VerydeepError(f"{name.removeprefix('set_')} is empty: pass a value, or leave it out.")
    options.typed = words
    return options


def _show_used_settings(parser: CommandParser, parsers: dict[str, CommandParser], arguments: list[str]) -> None:
    """Makes the help of a training show what its run would use, where the command line names one."""
    try:
        options, _ = parser.parse_known_args(arguments)
        module = commands()[options.command]
        if not hasattr(module, "used_settings"):
            return
        used = module.used_settings(options)
    except VerydeepError:  # an error on the line may be the reason to ask for help
        return
    show_defaults(parsers[options.command], (options.run, used))
    parsers[options.command].epilog = f"Defaults are those of this run of {options.run}."


def _unknown(word: str, options: Options, parser: argparse.ArgumentParser) -> str:
    """The error message for a word that the command does not take."""
    known = [name.removeprefix("--") for action in parser._actions for name in action.option_strings]
    listed = f"see `{parser.prog} --help`."
    if word.startswith("-"):
        if os.path.exists(word):
            return f"{word!r} is read as a setting: write ./{word} for the file."
        near = nearest_setting(word, known)
        return f"unknown setting {word!r}" + (f": did you mean --{near}?" if near else f"; {listed}")
    data = "data" in known and vars(options).get("set_data", vars(options).get("data")) is None
    return f"unknown argument {word!r}" + (f": did you mean --data {word}?" if data else f"; {listed}")


def add_shared(parser: CommandParser, *names: str) -> None:
    """Adds arguments that several commands have, by their names in `SHARED`."""
    for name in names:
        title, options = SHARED[name]
        (parser.group(title) if name.startswith("-") else parser).add_argument(name, **options)


def add_settings(
    parser: CommandParser, kind: type, only: tuple[str, ...] = (), leave_out: tuple[str, ...] = ()
) -> None:
    """Adds a flag for each field of a settings dataclass; values stay text, which `config.typed` converts."""
    for row in field_help(kind):
        if (not only or row.name in only) and row.name not in leave_out:
            default = "" if row.name == "data" else _shown(row.default)  # --data must be given
            repeatable = row.name == "boxes" or row.name in lists_names(kind)
            parser.group(row.group).add_argument(
                f"--{flag(row.name)}",
                dest=f"set_{row.name}",
                metavar=row.placeholder,
                help=_with_default(row.text, default),
                action="append" if repeatable else "store",
            )


def show_defaults(parser: CommandParser, *ways: tuple[str, tuple[Any, ...]]) -> None:
    """Makes `--help` show the values that a command uses, in place of the dataclasses' own defaults.

    Args:
        ways: a name and settings for each way to use the command; after the first, only different values are shown.
    """
    flags = {action.dest: action for action in parser._actions}
    (_, usual), *others = ways
    for number, settings in enumerate(usual):
        for row in field_help(type(settings)):
            if f"set_{row.name}" not in flags:
                continue
            value = _shown(getattr(settings, row.name))
            more = [(way, _shown(getattr(used[number], row.name))) for way, used in others]
            parts = [value or "none", *(f"{way}: {other or 'none'}" for way, other in more if other != value)]
            flags[f"set_{row.name}"].help = _with_default(row.text, "; ".join(parts) if len(parts) > 1 else value)


def _with_default(text: str, default: str) -> str:
    return (f"{text} (default: {default})" if default else text).replace("%", "%%")


def _shown(value: Any) -> str:
    """A default value as text; empty where it is None, and explained in the help text."""
    return "" if value is None else f"{value:g}" if isinstance(value, float) else as_typed(value)


def given_settings(options: Options, *kinds: type) -> dict[str, Any]:
    """The settings on the command line, as text, by field name: all, or only those of the dataclasses ``kinds``."""
    given = {key[4:]: value for key, value in vars(options).items() if key.startswith("set_") and value is not None}
    if isinstance(given.get("boxes"), list):  # of several flags
        given["boxes"] = boxes_of(given["boxes"])
    return {name: value for name, value in given.items() if not kinds or any(hasattr(kind, name) for kind in kinds)}


def settings_from(options: Options, kind: type[_Settings], **defaults: Any) -> _Settings:
    """The settings of one dataclass, from the command line, else ``defaults``, else those of the dataclass."""
    return kind(**{**defaults, **typed(kind, given_settings(options, kind))})


def boxes_of(texts: list[str]) -> list[str] | str:
    """The box files listed by several flags; without any, the first text, for `config.typed` to refuse."""
    return [path for text in texts for path in listed_paths(text)] or texts[0]
