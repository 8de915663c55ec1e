"""Pages of HTML that are one file each: blocks to build them from, and the look they share.

A page holds all it shows: no address outside, no script; pictures are inside it as ``data:`` addresses. All text is
escaped here, so that a photo's or a class's name can hold what it likes. Blocks are strings of HTML.
"""

from __future__ import annotations

import base64
import html
import time
from collections.abc import Iterable, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from ..core.errors import VerydeepError
from ..core.files import write_atomically
from ..data.image_io import Pixels
from .css import STYLE

MARK = '<meta name="generator" content="verydeep">'
LONGEST_SIDE = 256  # of a photo inside a page, in pixels
COMMAND_WIDTH = 88  # letters of a line of a command
# Nothing of a page may be fetched or run, whatever a name in it says.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
Shown = tuple[Pixels | None, str]  # a photo, None where it is gone, and lines of text below it


def escaped(text: object) -> str:
    """Text from outside as HTML's text or an attribute's value; what cannot be printed is a question mark."""
    return html.escape("".join(letter if letter.isprintable() or letter == "\n" else "?" for letter in str(text)))


def counted(number: int, what: str) -> str:
    """A number of things: ``1 epoch``, ``24 epochs``."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def paragraph(text: str, kind: str = "") -> str:
    """Some text; ``kind`` is ``note`` for what is less than the rest."""
    return f'<p class="{kind}">{escaped(text)}</p>' if kind else f"<p>{escaped(text)}</p>"


def command(parts: Sequence[str]) -> str:
    """A command line to be copied, broken between its parts as shells understand it."""
    lines = [parts[0]]
    for one in parts[1:]:
        if len(lines[-1]) + len(one) < COMMAND_WIDTH:
            lines[-1] += f" {one}"
        else:
            lines.append(f"  {one}")
    text = " \\\n".join(lines)
    return f'<pre tabindex="0"><code>{escaped(text)}</code></pre>'


def section(heading: str, *blocks: str) -> str:
    """A part of a page under its heading."""
    return f"<section><h2>{escaped(heading)}</h2>{''.join(blocks)}</section>"


def part(heading: str, *blocks: str) -> str:
    """A part of a section under its heading."""
    return f"<h3>{escaped(heading)}</h3>{''.join(blocks)}"


def folded(summary: str, *blocks: str) -> str:
    """Blocks that are seen once their summary is opened."""
    return f"<details><summary>{escaped(summary)}</summary>{''.join(blocks)}</details>"


def beside(*blocks: str) -> str:
    """Blocks side by side where there is room, else one below the other."""
    return f'<div class="beside">{"".join(f"<div>{block}</div>" for block in blocks if block)}</div>'


def headline(title: str, state: str, text: str, figures: Iterable[tuple[str, str, str]]) -> str:
    """The head of a page: title, state in a word, a sentence, and figures as (what, value, more)."""
    cards = "".join(
        f"<div><dt>{escaped(what)}</dt><dd><b>{escaped(value)}</b> <span>{escaped(more)}</span></dd></div>"
        for what, value, more in figures
    )
    chip = f'<span class="state">{escaped(state)}</span>' if state else ""
    return f'<header><h1>{escaped(title)}</h1><p>{chip} {escaped(text)}</p><dl class="figures">{cards}</dl></header>'


def facts(rows: Iterable[tuple[str, str]]) -> str:
    """Names and values, one a line."""
    cells = "".join(f"<div><dt>{escaped(name)}</dt><dd>{escaped(value)}</dd></div>" for name, value in rows)
    return f'<dl class="facts">{cells}</dl>'


def table(caption: str, heads: Sequence[str], rows: Iterable[Sequence[object]], share: int | None = None) -> str:
    """A table whose first column names its rows; columns of figures are set right.

    Args:
        share: a column of percentages, ``12.5 %``, that get a bar of that length.
    """
    cells = [[str(cell) for cell in row] for row in rows]
    columns = [[row[number] for row in cells] for number in range(len(heads))]
    right = [number != share and _figures(number, column) for number, column in enumerate(columns)]
    top = "".join(f'<th scope="col"{_kind(*one)}>{escaped(head)}</th>' for head, *one in zip(heads, right, strict=True))
    body = "".join(f"<tr>{_row(row, right, share)}</tr>" for row in cells)
    label = escaped(caption)
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{label}"><table><caption>{label}</caption>'
        f"<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _figures(number: int, column: list[str]) -> bool:
    """Whether a column holds figures: none of it begins with a letter."""
    return number > 0 and any(column) and all(cell[:1] in "+−-<" or cell[:1].isdigit() for cell in column)


def _kind(figures: bool) -> str:
    return ' class="figure"' if figures else ""


def _row(cells: Sequence[str], right: Sequence[bool], share: int | None) -> str:
    drawn = [f'<th scope="row">{escaped(cells[0])}</th>']
    for number, cell in enumerate(cells[1:], start=1):
        if number == share and cell.endswith(" %"):
            length = min(100.0, max(0.0, float(cell.removesuffix(" %"))))
            drawn.append(f'<td class="share" style="--share:{length:.1f}%">{escaped(cell)}</td>')
        else:
            drawn.append(f"<td{_kind(right[number])}>{escaped(cell)}</td>")
    return "".join(drawn)


def tiles(photos: Iterable[Shown], what: str) -> str:
    """Photos with their lines of text, as many a row as there is room for; ``what`` begins their alternative texts."""
    return f'<ul class="tiles">{"".join(_tile(pixels, text, what) for pixels, text in photos)}</ul>'


def _tile(pixels: Pixels | None, text: str, what: str) -> str:
    told = escaped(text).replace("\n", "<br>")
    if pixels is None:
        return f'<li><div class="gone">the photo is gone</div><span>{told}</span></li>'
    alt = escaped(f"{what}: {text}".replace("\n", ", "))
    return f'<li><img alt="{alt}" src="{_photo_address(pixels)}"><span>{told}</span></li>'


def picture(png: bytes, alt: str, text: str = "", kind: str = "") -> str:
    """A picture and a line below it; ``kind`` is ``pixels`` for one whose pixels are to be seen, ``wide`` for a large
    one that keeps its size on narrow screens.
    """
    caption = f"<figcaption>{escaped(text)}</figcaption>" if text else ""
    image = f'<img alt="{escaped(alt)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'
    inner = f'<div class="scroll" role="region" tabindex="0" aria-label="{escaped(alt)}">{image}</div>'
    return f'<figure class="{kind}">{inner if kind == "wide" else image}{caption}</figure>'


def png_of(pixels: Pixels) -> bytes:
    """A picture's pixels as a PNG file."""
    file = BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, "PNG")
    return file.getvalue()


def _photo_address(pixels: Pixels) -> str:
    """A photo, no larger than a page needs it, as an address that holds it."""
    image, file = Image.fromarray(np.ascontiguousarray(pixels)), BytesIO()
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    image.save(file, "JPEG", quality=88, subsampling=0)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def write_page(path: Path, title: str, blocks: Iterable[str], refresh: int | None = None) -> Path:
    """One self-contained page, written atomically.

    Args:
        refresh: seconds after which a browser reads the file again; None for a page that is finished.

    Raises:
        VerydeepError: it cannot be written, or what is in its place is no page of ours.
    """
    check_page_place(path)
    again = "" if refresh is None else f'<meta http-equiv="refresh" content="{refresh}">'
    head = (
        f'<meta charset="utf-8">{MARK}<meta http-equiv="Content-Security-Policy" content="{POLICY}">{again}'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta name="color-scheme" content="light dark"><title>{escaped(title)}</title><style>{STYLE}</style>'
    )
    foot = f"<footer>Written by verydeep on {time.strftime('%Y-%m-%d at %H:%M:%S')}.</footer>"
    page = (
        f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body><main>\n'
        f"{chr(10).join(blocks)}\n{foot}</main></body></html>\n"
    )
    write_atomically(path, lambda file: file.write(page.encode("utf8", "replace")))
    return path


def check_page_place(path: Path) -> None:
    """Raises VerydeepError where something is that is no page of ours, and would be lost."""
    if not path.exists():
        return
    try:
        with path.open("rb") as file:
            ours = MARK.encode() in file.read(500)
    except OSError:
        ours = False
    if not ours:
        raise VerydeepError(f"{path} is there already and is no report: give another --out, or move it away.")
