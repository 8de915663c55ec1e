"""Download a public weight file once and check its hash."""

from __future__ import annotations

from ...core.terminal import Terminal
from ..execution import show_result
from ..output import show
from ..parser import CommandParser, Options


def add_arguments(parser: CommandParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument("name", metavar="NAME", help="name in `weights list`, such as oxford-D")
    parser.group("Net and weights").add_argument(
        "--from", dest="source", metavar="FILE", help="local copy of the file, or another URL of it"
    )


def run(options: Options) -> int:
    """Downloads a weight file into the cache."""
    from ...checkpoints.download import fetch
    from ...checkpoints.registry import released_named

    released = released_named(options.name)
    path = fetch(options.name, options.source, Terminal(options.quiet))
    result = {"name": released.name, "file": str(path), "licence": released.licence}
    return show_result(options, result, lambda _: show(f"{path} ({released.licence})"))
