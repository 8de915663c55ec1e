"""Print a script that completes commands, flags, their values and file names in a shell."""

from __future__ import annotations

from ..execution import show_result
from ..output import show_raw
from ..parser import CommandParser, Options, build_parser

SHELLS = ("bash", "zsh", "fish", "tcsh")
NO_FILE = ("N", "X", "S", "NAME", "N,…", "NET")  # placeholders of values that are no files


def add_arguments(parser: CommandParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument("shell", choices=SHELLS, help="the shell")


def run(options: Options) -> int:
    """Prints the script for a shell."""
    result = {"shell": options.shell, "script": completion_script(options.shell)}
    return show_result(options, result, lambda result: show_raw(result["script"]))


def completion_script(shell: str) -> str:
    """The script for a shell, made from the parser."""
    import shtab

    parser, parsers = build_parser()
    for command in parsers.values():
        for action in command._actions:
            placeholder = str(action.metavar or "")
            if "|" in placeholder:  # the choices of a setting, which `config.typed` checks
                action.choices = placeholder.split("|")
            elif action.nargs != 0 and not action.choices and placeholder not in NO_FILE:
                action.complete = shtab.FILE  # type: ignore[attr-defined]
    return shtab.complete(parser, shell) + "\n"
