"""HTML pages: jinja2 templates, each rendered to one self-contained file.

A page has no scripts and no external resources; images are embedded as ``data:`` URLs. Every expression of a template
is escaped, in attributes too, so that names of classes and images can contain anything.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Iterable, Sequence
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from ..core.errors import VerydeepError
from ..core.files import write_atomically
from ..core.progress import duration
from ..data.class_names import display_name
from ..data.image_io import Pixels

MARK = '<meta name="generator" content="verydeep">'  # as in templates/page.html
LONGEST_SIDE = 256  # of an image inside a page, in pixels
COMMAND_WIDTH = 88  # characters of a line of a command


class Tile(NamedTuple):
    """An image of a grid: its URL, None where it no longer exists, and lines of text below it."""

    url: str | None
    text: str


def render(template: str, context: dict[str, Any]) -> Markup:
    """A template of this package with its variables filled in; one that is missing raises `jinja2.UndefinedError`."""
    return Markup(_templates().get_template(template).render(context))


@cache
def _templates() -> Environment:
    templates = Environment(
        loader=PackageLoader("verydeep.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=printable,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {"counted": counted, "percent": percent, "signed": signed}
    templates.filters["display_name"] = display_name
    templates.filters |= {"duration": duration, "command_lines": command_lines}
    return templates


def printable(value: object) -> object:
    """A value as text, with question marks for control characters and those that change the writing direction."""
    if isinstance(value, Markup):
        return value
    return "".join(letter if letter.isprintable() or letter == "\n" else "?" for letter in str(value))


def counted(number: int, what: str) -> str:
    """A number and a noun: ``1 epoch``, ``24 epochs``."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def percent(value: float | None) -> str:
    """``12.50 %``; empty without a value."""
    return "" if value is None else f"{value:.2f} %"


def signed(value: float) -> str:
    """``+1.50`` or ``−1.50``."""
    return f"{'−' if value < 0 else '+'}{abs(value):.2f}"


def command_lines(parts: Sequence[str]) -> str:
    """A command line to copy, with shell line continuations between its parts."""
    lines = [parts[0]]
    for part in parts[1:]:
        if len(lines[-1]) + len(part) < COMMAND_WIDTH:
            lines[-1] += f" {part}"
        else:
            lines.append(f"  {part}")
    return " \\\n".join(lines)


def tiles(images: Iterable[tuple[Pixels | None, str]]) -> list[Tile]:
    """Images with their lines of text, scaled down for a page."""
    return [Tile(None if pixels is None else _jpeg_url(pixels), text) for pixels, text in images]


def _jpeg_url(pixels: Pixels) -> str:
    jpeg = encoded(pixels, "JPEG", LONGEST_SIDE, quality=88, subsampling=0)
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"


def png_url(png: bytes) -> str:
    """A PNG file as a URL that contains it."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def encoded(pixels: Pixels, form: Literal["PNG", "JPEG"], longest_side: int | None = None, **options: int) -> bytes:
    """The bytes of an image file, made smaller where a side is longer; ``options`` are Pillow's for the format."""
    image, file = Image.fromarray(np.ascontiguousarray(pixels)), BytesIO()
    if longest_side is not None:
        image.thumbnail((longest_side, longest_side))
    image.save(file, form, **options)
    return file.getvalue()


def write_page(path: Path, template: str, context: dict[str, Any], refresh: int | None = None) -> Path:
    """Writes one self-contained page atomically.

    Args:
        template: one that extends page.html.
        context: its variables, with the page's ``title``.
        refresh: seconds after which a browser reloads the file; None: never.

    Raises:
        VerydeepError: it cannot be written, or would overwrite a file that is not a report.
    """
    check_page_place(path)
    page = render(template, {**context, "refresh": refresh, "written": time.strftime("%Y-%m-%d at %H:%M:%S")})
    write_atomically(path, lambda file: file.write(page.encode("utf8", "replace")))
    return path


def check_page_place(path: Path) -> None:
    """Raises VerydeepError where a file that is not a report would be overwritten."""
    if not path.exists():
        return
    try:
        with path.open("rb") as file:
            ours = MARK.encode() in file.read(500)
    except OSError:
        ours = False
    if not ours:
        raise VerydeepError(f"{path} exists and is not a report: choose another --out, or move it away.")
