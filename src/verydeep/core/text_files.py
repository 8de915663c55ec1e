"""Text files that people hand in: UTF-8, with or without a byte order mark; what else they are is told."""

from __future__ import annotations

import codecs
import contextlib
import unicodedata
from pathlib import Path

from .errors import VerydeepError

BYTE_ORDER_MARKS = {  # those of UTF-32 first, as UTF-32LE's begins with UTF-16LE's
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
WIDE = ("UTF-32LE", "UTF-32BE", "UTF-16LE", "UTF-16BE")
NO_LETTERS = ("Cc", "Cn", "Co", "Cs")  # categories: control, unassigned, private use, surrogate
SINGLE_BYTE = ("latin1", "CP1252")  # CP1252 has letters where Latin-1 has control characters


def read_text(path: Path) -> str:
    """The text of a file that somebody hands in: UTF-8, with or without a byte order mark.

    Raises:
        VerydeepError: it cannot be read, or has another encoding, which is named with the way to convert it.
    """
    try:
        data = path.read_bytes()
    except OSError as fault:
        raise VerydeepError(f"cannot read {path}: {fault.strerror or fault}.") from None
    try:
        text = data.decode("utf8").lstrip("\ufeff")
        place = data.find(b"\0")
    except UnicodeDecodeError as fault:
        text, place = "", fault.start
    if place < 0:
        return text
    line = data.count(b"\n", 0, place) + 1
    # A file that was UTF-8 as far as it goes is damaged, and of no other encoding.
    encoding = _likely_encoding(data) if data[:place].isascii() else ""
    if not encoding:
        raise VerydeepError(f"{path}, line {line}: byte {data[place]:#04x} is not UTF-8 text; is the file damaged?")
    convert = f"iconv -f {encoding} -t UTF-8 {path.name} > {path.stem}-utf8{path.suffix}"
    raise VerydeepError(f"{path} is not UTF-8 but looks like {encoding} (line {line}): convert it with `{convert}`.")


def _likely_encoding(data: bytes) -> str:
    """The encoding, by iconv's name, of bytes that are not UTF-8; empty where they are no text in any."""
    for mark, name in BYTE_ORDER_MARKS.items():
        if data.startswith(mark):
            return name
    for name in WIDE if b"\0" in data else SINGLE_BYTE:
        with contextlib.suppress(UnicodeDecodeError):
            letters = set(data.decode(name)) - set("\r\n\t")
            # Bytes in the wrong order are letters too, but hardly any ASCII among them.
            if min(letters, default="") < "\x7f" and not any(
                unicodedata.category(letter) in NO_LETTERS for letter in letters
            ):
                return name
    return ""
