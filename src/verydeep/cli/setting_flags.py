"""Flags of the command line, made from the fields of settings."""

from __future__ import annotations

import argparse
from typing import Any

from ..core.config import field_help, flag, lists_names

READING = ("workers", "read_timeout", "read_retries", "max_pixels")  # machine settings of what reads photos
# Machine settings that only training reads.
OF_TRAINING = ("compile", "tensorboard", "device_batch", "recompute", "bf16_gradients")
ALONE = (*OF_TRAINING, "peer_timeout")  # not read by what one process does


def add_settings(
    parser: argparse.ArgumentParser, kind: type, only: tuple[str, ...] = (), leave_out: tuple[str, ...] = ()
) -> None:
    """A flag for each field of a settings dataclass; values stay text, which `config.typed` reads."""
    group = parser.add_argument_group(kind.__name__)
    for name, shape, text, default in field_help(kind):
        if (not only or name in only) and name not in leave_out:
            value = "" if name == "data" else _typed_as(default)  # which must be named
            several = "append" if name == "boxes" or name in lists_names(kind) else "store"
            group.add_argument(
                f"--{flag(name)}", dest=f"set_{name}", metavar=shape, help=_help(text, value), action=several
            )


def show_defaults(parser: argparse.ArgumentParser, *ways: tuple[str, tuple[Any, ...]]) -> None:
    """Makes `--help` show the values that a command uses, in place of the dataclasses' own defaults.

    Args:
        ways: what each way to use the command is called, and its settings; of all but the first, values that differ.
    """
    flags = {action.dest: action for action in parser._actions}
    (_, usual), *others = ways
    for number, settings in enumerate(usual):
        for name, _, text, _ in field_help(type(settings)):
            if f"set_{name}" not in flags:
                continue
            value = _typed_as(getattr(settings, name))
            more = [(called, _typed_as(getattr(found[number], name))) for called, found in others]
            parts = [value or "none", *(f"{called}: {other or 'none'}" for called, other in more if other != value)]
            flags[f"set_{name}"].help = _help(text, "; ".join(parts) if len(parts) > 1 else value)


def _help(text: str, value: str) -> str:
    return (f"{text} ({value})" if value else text).replace("%", "%%")


def _typed_as(value: Any) -> str:
    """A value as it would be typed; empty where there is nothing to show, or what it stands for is in the text."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return "" if value in (None, -1) else f"{value:g}" if isinstance(value, float) else str(value)
