"""Check every image of a dataset: unreadable files, class balance, sizes, duplicates."""

from __future__ import annotations

from typing import Any

from ...core.config import typed
from ...core.settings import DataSettings, MachineSettings
from ..execution import MISTAKE, OK, show_result
from ..output import Terminal, show, show_note, show_table
from ..parser import CommandParser, Options, add_settings, add_shared, given_settings

MOST_KINDS = 8  # of skipped files, named on the screen


def add_arguments(parser: CommandParser) -> None:
    """Adds the arguments of the command."""
    add_shared(parser, "data")
    add_settings(parser, DataSettings, only=("classes", "boxes", "folders"))
    add_settings(parser, MachineSettings, only=("max_pixels",))


def run(options: Options) -> int:
    """Checks a dataset; status 2 where an image, a box or a format cannot be read."""
    from ...core.device import LoaderSettings
    from ...core.processors import cores
    from ...data.check import check_data

    settings = typed(DataSettings, given_settings(options, DataSettings))
    result = check_data(options.data, readers=LoaderSettings(cores()), reporter=Terminal(options.quiet), **settings)
    show_result(options, result, _show)
    return MISTAKE if any(result[key] for key in ("faults", "box_faults", "unread")) else OK


def _show(result: dict[str, Any]) -> None:
    from ...data.dataset import first_names

    rows = []
    for name, part in result["sets"].items():
        counts = sorted(part["balance"].values())
        spread = f"{counts[0]} / {counts[len(counts) // 2]} / {counts[-1]}"
        sides = " / ".join(map(str, part["smallest_side"] or ["-"]))
        rows.append((name, part["photos"], spread, sides))
    show_note(f"{result['data']}: {len(result['classes'])} classes")
    show_note(f"classes: {first_names(result['classes'])}")
    show_note(f"split: {result['split']}")
    for note in result["notes"]:
        show_note(f"note: {note}")
    columns = ["set", "images", "per class (min/median/max)", "shorter side (min/median/max)"]
    show_table("", columns, rows)
    for images in result["duplicates"]:
        show(f"duplicates: {'; '.join(images)}")
    _show_skipped(result)
    for sentence in result["unread"]:
        show(sentence)
    for fault in result["faults"]:
        show(f"unreadable: {fault['fault']}")
    for line in [*result["boxes_skipped"], *result["box_faults"]]:
        show(f"boxes: {line}")
    for box in result["boxes"]:
        corners = ", ".join(f"{side} {box[side]:g}" for side in ("xmin", "ymin", "xmax", "ymax"))
        show(f"as read: {box['image']}, {box['class']}, {corners}")
    show(f"unreadable images: {len(result['faults'])}, sets of duplicates: {len(result['duplicates'])}")


def _show_skipped(result: dict[str, Any]) -> None:
    """The kinds of files that are not read, on one line."""
    kinds = []
    for name, kind in result["skipped"].items():
        first = kind["first"].removeprefix(f"{result['data']}/")
        kinds.append(f"{kind['count']} {name} ({first}{', …' if kind['count'] > 1 else ''})")
    more = f", {len(kinds) - MOST_KINDS} more kinds" if len(kinds) > MOST_KINDS else ""
    show_note(f"skipped: {', '.join(kinds[:MOST_KINDS]) or 'nothing'}{more}")
