"""Flags of the command line, made from the fields of settings."""

from __future__ import annotations

import argparse

from .config import field_help, flag

READING = ("workers", "read_timeout", "read_retries")  # machine settings of what reads photos
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
            shown = text if default in ((), -1) else f"{text} ({default})"
            group.add_argument(
                f"--{flag(name)}", dest=f"set_{name}", metavar=shape, help=shown.replace("%", "%%"), default=None
            )
