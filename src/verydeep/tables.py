"""Tables made from stored results and written into pages between markers: nobody types a result."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .errors import VerydeepError


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table in Markdown; bars in cells are escaped."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def write_block(page: Path, name: str, text: str) -> None:
    """Replaces what stands between ``<!-- name -->`` and ``<!-- /name -->`` in a page.

    Raises:
        VerydeepError: the page does not have the two markers, once each and in order.
    """
    begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    before = page.read_text(encoding="utf8")
    if before.count(begin) != 1 or before.count(end) != 1 or before.index(begin) > before.index(end):
        raise VerydeepError(f"{page} needs the lines {begin.strip()} and {end} once each, to write between.")
    head, rest = before.split(begin)
    page.write_text(head + begin + text.rstrip() + "\n" + end + rest.split(end)[1], encoding="utf8")
