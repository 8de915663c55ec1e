"""Print a shell completion script for commands, flags, their values and file names."""

from __future__ import annotations

from ..execution import show_result
from ..output import show_raw
from ..parser import CommandParser, Options, build_parser

SHELLS = ("bash", "zsh", "fish", "tcsh")
# Placeholders of values that are no files.
NO_FILE = ["N", "X", "PIXELS", "NAME", "NET", "LAYER", "ADDRESS", "N,…", "X,…", "Q,…", "EPOCH,…", "NAME,…"]


def add_arguments(parser: CommandParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument("shell", choices=SHELLS, help="the shell that you use")
    parser.epilog = (
        'To install it in bash, add `eval "$(verydeep completion bash)"` to ~/.bashrc; in zsh, the same with zsh to '
        "~/.zshrc, after compinit; in fish or tcsh, save the script to a file that the shell sources at its start."
    )


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
