"""List the public weight files of these nets, and which are downloaded."""

from __future__ import annotations

from ..execution import OK
from ..output import show_json, show_note, show_table
from ..parser import CommandParser, Options


def add_arguments(parser: CommandParser) -> None:
    """Adds no arguments."""


def run(options: Options) -> int:
    """Lists the public weight files."""
    from ...checkpoints.download import cached
    from ...checkpoints.registry import all_released

    rows = [(file, cached(file).is_file()) for file in all_released()]
    if options.json:
        show_json(
            [
                {
                    **{"name": file.name, "net": file.net, "address": file.address, "digest": file.digest},
                    **{"bytes": file.size or None, "pixels": file.pixels, "licence": file.licence, "here": here},
                    **{"all_layers": file.full, "top1_error": file.errors and file.errors[0]},
                    "file": str(cached(file)) if here else None,
                }
                for file, here in rows
            ]
        )
        return OK
    table = [
        (
            *(file.name, file.net, f"{file.errors[0]:.1f} / {file.errors[1]:.1f}" if file.errors else ""),
            *(f"{file.size / 1e6:.0f}" if file.size else "", "yes" if here else "", file.licence.partition(",")[0]),
        )
        for file, here in rows
    ]
    title = "public weights: errors % (top-1 / top-5) of one centre crop, as published"
    show_table(title, ["name", "net", "errors", "MB", "downloaded", "licence"], table)
    show_note("`verydeep weights fetch NAME` downloads a file; then train and all other commands take its name")
    return OK
