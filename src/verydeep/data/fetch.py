"""Images that are no files on this machine: a URL that the user names, and standard input. They are kept in memory."""

from __future__ import annotations

import os
import time
from typing import Any

from ..core.errors import ImageError
from ..core.progress import Reporter, Silent
from ..core.url import FAULTS, open_url, why_not
from .image_io import NamedImage

STDIN = "-"  # on the command line
MOST_BYTES = 100_000_000
MOST_SECONDS = 120.0  # from the first byte to the last
PIECE = 2**16
ADVICE = "download it yourself and pass the file"


def download_image(url: str, reporter: Reporter | None = None) -> NamedImage:
    """Downloads an image; the result is named by its URL and is used like a path.

    Raises:
        ImageError: it cannot be reached, is too large or too slow. Whether it is an image shows when it is read.
    """
    (reporter or Silent()).say(f"downloading {url}")
    try:
        with open_url(url) as response:
            return NamedImage(url, _content(response, url))
    except FAULTS as fault:
        raise ImageError(f"{why_not(url, fault)}: check the address, or {ADVICE}.") from None


def _content(response: Any, url: str) -> bytes:
    """All bytes of a response, read as they arrive."""
    size, content, end = response.length or 0, bytearray(), time.monotonic() + MOST_SECONDS
    while max(size, len(content)) <= MOST_BYTES and (piece := response.read1(PIECE)):
        content += piece
        if time.monotonic() > end:
            raise ImageError(f"{url} was not complete after {MOST_SECONDS:.0f} s: {ADVICE}.")
    if max(size, len(content)) > MOST_BYTES:
        raise ImageError(f"{url} has more than {MOST_BYTES:,} bytes, the limit of a download: {ADVICE}.")
    if len(content) < size:
        raise ImageError(f"{url} ended after {len(content):,} of {size:,} bytes: try again, or {ADVICE}.")
    return bytes(content)


def image_of_stdin() -> NamedImage:
    """The image whose bytes arrive on standard input; raises ImageError for a terminal, and for too many bytes."""
    if os.isatty(0):
        raise ImageError("- reads an image from standard input: pipe one in, such as `cat photo.jpg | verydeep …`.")
    try:
        with open(0, "rb", closefd=False) as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as fault:  # it is closed
        raise ImageError(f"cannot read standard input: {fault.strerror or fault}.") from None
    if len(content) > MOST_BYTES:
        raise ImageError(f"standard input has more than {MOST_BYTES:,} bytes, the limit: pass a file instead.")
    return NamedImage("stdin", content)
