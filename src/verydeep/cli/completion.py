"""Scripts that complete the command line in bash, zsh and fish, made from the parsers themselves."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

from ..core.errors import VerydeepError
from .arguments import build_parser

NO_FILE = ("N", "X", "S", "NAME", "N,…")  # placeholders of values that are no files


@dataclass(frozen=True)
class Flag:
    """A flag, what it is for, and its values: ``choices``, or a file, or neither; ``alone`` takes none."""

    name: str
    text: str
    choices: tuple[str, ...]
    alone: bool
    file: bool


@dataclass(frozen=True)
class Verb:
    """A verb's name, of one word or two, what it does, its flags, and the choices of its first argument."""

    name: str
    text: str
    flags: tuple[Flag, ...]
    choices: tuple[str, ...]


def completion_script(shell: str) -> str:
    """The script for a shell; raises VerydeepError for one that is not known."""
    if shell not in SCRIPTS:
        raise VerydeepError(f"there is no completion for {shell!r}: it is one of {', '.join(SCRIPTS)}.")
    _, parsers = build_parser()
    return SCRIPTS[shell]([_verb(name, parser) for name, parser in parsers.items()])


def _verb(name: str, parser: argparse.ArgumentParser) -> Verb:
    flags, choices = [], tuple[str, ...]()
    for action in parser._actions:
        if not action.option_strings:
            choices = choices or tuple(map(str, action.choices or ()))
            continue
        placeholder = action.metavar if isinstance(action.metavar, str) else ""
        several = tuple(map(str, action.choices or ())) or tuple(placeholder.split("|") if "|" in placeholder else ())
        file = action.nargs != 0 and not several and placeholder not in NO_FILE
        text = (action.help or "").replace("%%", "%")
        flags += [Flag(flag, text, several, action.nargs == 0, file) for flag in action.option_strings]
    return Verb(name, parser.description or "", tuple(flags), choices)


def _groups(verbs: list[Verb]) -> dict[str, list[str]]:
    """The first words of the commands, each with its second ones."""
    found: dict[str, list[str]] = {}
    for verb in verbs:
        first, _, second = verb.name.partition(" ")
        found.setdefault(first, []).extend([second] if second else [])
    return found


def _cases(verbs: list[Verb], words: str, file: str) -> list[str]:
    """The lines of a case statement over "VERB BEFORE", which bash and zsh share.

    Args:
        words: what offers the words that are put in its place.
        file: what offers files.
    """
    lines = []
    for verb in verbs:
        for flag in verb.flags:
            if not flag.alone:
                offered = words.format(" ".join(flag.choices)) if flag.choices else file if flag.file else ":"
                lines.append(f'    "{verb.name} {flag.name}") {offered}; return ;;')
    return lines


def _flags_of(verbs: list[Verb], words: str) -> list[str]:
    return [f'    "{verb.name}") {words.format(" ".join(flag.name for flag in verb.flags))} ;;' for verb in verbs]


def _choices_of(verbs: list[Verb], words: str, file: str) -> list[str]:
    lines = [f'    "{verb.name}") {words.format(" ".join(verb.choices))} ;;' for verb in verbs if verb.choices]
    return [*lines, f"    *) {file} ;;"]


def _seconds_of(verbs: list[Verb], first: str, second: str, words: str) -> list[str]:
    """Lines of a case statement over the first word: they offer the second ones, or put both into ``verb``.

    Args:
        first: the shell's test of being at the second word.
        second: the shell's word for it.
    """
    return [
        f'    "{name}") if {first}; then {words.format(" ".join(names))}; return; fi; verb="{name} {second}" ;;'
        for name, names in _groups(verbs).items()
        if names
    ]


def _bash(verbs: list[Verb]) -> str:
    words = "COMPREPLY=($(compgen -W '{}' -- \"$word\"))"
    file = "local IFS=$'\\n'; COMPREPLY=($(compgen -f -- \"$word\"))"
    seconds = _seconds_of(verbs, '[ "$COMP_CWORD" -eq 2 ]', "${COMP_WORDS[2]}", words)
    return _joined(
        '# verydeep in bash: eval "$(verydeep completion bash)", or this into ~/.bashrc',
        "_verydeep() {",
        '  local word="${COMP_WORDS[COMP_CWORD]}" before="${COMP_WORDS[COMP_CWORD-1]}" verb="${COMP_WORDS[1]}"',
        "  COMPREPLY=()",
        f'  if [ "$COMP_CWORD" -eq 1 ]; then {words.format(" ".join(_groups(verbs)))}; return; fi',
        *('  case "$verb" in', *seconds, "  esac"),
        *('  case "$verb $before" in', *_cases(verbs, words, file), "  esac"),
        *('  if [[ "$word" == -* ]]; then case "$verb" in', *_flags_of(verbs, words), "  esac; return; fi"),
        *('  case "$verb" in', *_choices_of(verbs, words, file), "  esac"),
        "}",
        "complete -o filenames -F _verydeep verydeep",
    )


def _zsh(verbs: list[Verb]) -> str:
    words, file = "compadd -- {}", "_files"
    seconds = _seconds_of(verbs, "(( CURRENT == 3 ))", "$words[3]", words)
    return _joined(
        "#compdef verydeep",
        '# verydeep in zsh: eval "$(verydeep completion zsh)" after compinit, or this as _verydeep in $fpath',
        "_verydeep() {",
        '  local verb="$words[2]" before="$words[CURRENT-1]"',
        f"  if (( CURRENT == 2 )); then {words.format(' '.join(_groups(verbs)))}; return; fi",
        *('  case "$verb" in', *seconds, "  esac"),
        *('  case "$verb $before" in', *_cases(verbs, words, file), "  esac"),
        *('  if [[ "$words[CURRENT]" == -* ]]; then case "$verb" in', *_flags_of(verbs, words), "  esac; return; fi"),
        *('  case "$verb" in', *_choices_of(verbs, words, file), "  esac"),
        "}",
        'if [ "$funcstack[1]" = "_verydeep" ]; then _verydeep "$@"; else compdef _verydeep verydeep; fi',
    )


def _fish(verbs: list[Verb]) -> str:
    lines = [
        "# verydeep in fish: verydeep completion fish | source",
        "function __verydeep_at",
        "    set -l typed (commandline -opc)[2..-1]",
        '    set -l wanted (string split " " -- $argv[1])',
        "    set -l last (count $wanted)",
        '    test (count $typed) -ge $last; and test "$typed[1..$last]" = "$argv[1]"',
        "end",
    ]
    texts = {verb.name: verb.text for verb in verbs}
    for first, names in _groups(verbs).items():
        told = f" -d {_quoted(texts[first])}" if first in texts else ""
        lines.append(f"complete -c verydeep -n __fish_use_subcommand -f -a {first}{told}")
        for name in names:
            alone = f"__verydeep_at {first}; and not __fish_seen_subcommand_from {' '.join(names)}"
            told = _quoted(texts[f"{first} {name}"])
            lines.append(f"complete -c verydeep -n {_quoted(alone)} -f -a {name} -d {told}")
    for verb in verbs:
        at = f"complete -c verydeep -n {_quoted(f'__verydeep_at {chr(34)}{verb.name}{chr(34)}')}"
        if verb.choices:
            lines.append(f"{at} -f -a {_quoted(' '.join(verb.choices))}")
        lines += [f"{at} {_fish_flag(flag)}" for flag in verb.flags]
    return _joined(*lines)


def _fish_flag(flag: Flag) -> str:
    name = f"-l {flag.name[2:]}" if flag.name.startswith("--") else f"-s {flag.name[1:]}"
    kind = "" if flag.alone else f" -x -a {_quoted(' '.join(flag.choices))}" if flag.choices else " -r"
    return f"{name}{kind}{' -F' if flag.file else ''} -d {_quoted(flag.text)}"


def _quoted(text: str) -> str:
    """Text in fish's single quotes."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _joined(*lines: str) -> str:
    return "\n".join(lines) + "\n"


SCRIPTS: dict[str, Callable[[list[Verb]], str]] = {"bash": _bash, "zsh": _zsh, "fish": _fish}
