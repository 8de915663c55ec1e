"""Changes of bytes, text, JSON and XML for the fuzzing: what is drawn, and what it does to a file."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np

BEGINNING = 400  # bytes of a file that half of the changes are in
WORDS = [*b'| -1|nan|1e999|\x00|\xff\xfe|"|[]|{}|null|\n|,|<a>|..|/|%s|\xe2\x80\xae|\x1b[2J'.split(b"|"), b"9" * 400]
INTEGERS = (0, 1, 2, 127, 128, 255, 256, 32767, 65535, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63, 2**64 - 1)
NUMBERS = (
    *b"nan inf -inf 1e999 -1 0 1e-320 0x10 1_0 1e5 -0 007 .5 99999999999999999999".split(),
    b"1" * 5000,
    "٣".encode(),
)
DEEP = "@deep@"  # stands for brackets within brackets
ODD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63, 2**200, 0.5, -0.0, 1e308, float("nan"), float("inf")),
    *("", "\0", "x" * 70_000, "\ud800", "1", "nan", "-1", "none", "../../x", [], {}, [[]], {"": 0}, DEEP),
)
ENTITIES = (
    b'<!DOCTYPE a [<!ENTITY b "bbbbbbbbbb">'
    + b"".join(b'<!ENTITY %c "%s">' % (99 + level, b"&%c;" % (98 + level) * 10) for level in range(9))
    + b"]>"
)


T = TypeVar("T")


class Draw:
    """What a change draws."""

    def __init__(self, seed: Sequence[int]) -> None:
        self._rng = np.random.default_rng(seed)

    def below(self, end: int) -> int:
        """A whole number from 0 to ``end`` - 1; 0 where there is none."""
        return int(self._rng.integers(0, max(1, end)))

    def chance(self, share: float) -> bool:
        """Whether it happens."""
        return bool(self._rng.random() < share)

    def one(self, among: Sequence[T]) -> T:
        """One of some."""
        return among[self.below(len(among))]

    def some(self, most: int) -> bytes:
        """Random bytes, one at least."""
        return self._rng.integers(0, 256, 1 + self.below(most), dtype=np.uint8).tobytes()


def change_bytes(data: bytes, other: bytes, draw: Draw) -> bytes:
    """A few changes of bytes anywhere."""
    found = bytearray(data)
    for _ in range(1 if draw.chance(0.5) else 1 + draw.below(7)):
        end = len(found) if draw.chance(0.5) else min(len(found), BEGINNING)
        _step(found, draw.below(end + 1), draw.below(11), other, draw)
    return bytes(found)


def _step(found: bytearray, at: int, kind: int, other: bytes, draw: Draw) -> None:
    some = draw.some(15)
    piece = bytes(found[at : at + 1 + draw.below(1 << draw.below(14))])
    if kind == 0 and at < len(found):
        found[at] ^= 1 << draw.below(8)
    elif kind == 1:
        del found[at : at + 1 + draw.below(63)]
    elif kind == 2:
        found[at:at] = some
    elif kind == 3:
        found[at : at + len(some)] = some
    elif kind == 4:
        found[at : at + draw.below(8)] = draw.one(WORDS)
    elif kind in (5, 6):  # a length, a count or an offset
        wide = draw.one((1, 2, 4, 8))
        value = draw.one((*INTEGERS, len(found), len(found) + 1)) % 256**wide
        found[at : at + wide] = value.to_bytes(wide, draw.one(("little", "big")))
    elif kind == 7:
        del found[at : at + len(piece)]
    elif kind == 8:
        found[at:at] = piece * draw.one((1, 1, 2, 50))
    elif kind == 9:  # the rest of another file, or another beginning
        start = draw.below(len(other) + 1)
        found[at:] = other[start:] if other else b""
    elif draw.chance(0.2):
        del found[at:]


def change_text(data: bytes, draw: Draw) -> bytes:
    """Numbers become odd ones; lines, cells and words are repeated, swapped, emptied or left out."""
    for _ in range(1 + draw.below(3)):
        kind = draw.below(6)
        if kind < 3:
            data = instead(data, rb"-?\d+(?:\.\d+)?", draw.one(NUMBERS), draw)
        elif kind == 3:
            data = instead(data, rb"[^\s,<>]+", draw.one((b"", b"x" * 70_000, *WORDS)), draw)
        else:
            lines = data.split(b"\n")
            line, place = lines[draw.below(len(lines))], draw.below(len(lines))
            lines[place : place + draw.below(2)] = [line] * draw.one((0, 1, 1, 200))
            data = draw.one((b"\n", b"\n", b"\n", b"\r\n", b"\r", b"\x0c", "\u2028".encode())).join(lines)
    return data


def instead(data: bytes, pattern: bytes, word: bytes, draw: Draw) -> bytes:
    """One of a pattern's places gets another word."""
    places = list(re.finditer(pattern, data[:100_000]))
    if not places:
        return data + word
    place = draw.one(places)
    return data[: place.start()] + word + data[place.end() :]


def change_xml(data: bytes, draw: Draw) -> bytes:
    kind = draw.below(8)
    if kind == 0:
        return ENTITIES + instead(data, rb">[^<>]+<", b">&k;<", draw)
    if kind == 1:
        return b'<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]>' + instead(data, rb">[^<>]+<", b">&b;<", draw)
    if kind == 2:
        return b"<a>" * draw.one((50, 1000, 1000, 100_000)) + data
    if kind == 3:
        return instead(
            data, rb"<[^<>]+>", draw.one((b"", b"<object/>", b"<!--", b"<![CDATA[", b"<a b='c' b='d'/>")), draw
        )
    if kind == 4:
        encoding = draw.one((b"utf-16", b"utf-7", b"latin-1", b"nothing", b"idna", b"rot13", b"hex"))
        return b'<?xml version="1.0" encoding="' + encoding + b'"?>' + data
    return change_text(data, draw)


def change_json(data: bytes, draw: Draw) -> bytes:
    """Values become odd ones or each other, keys go, come twice or are others."""
    root = [json.loads(data)]
    for _ in range(1 if draw.chance(0.6) else 3):
        holder, key = _place(root, draw)
        kind = draw.below(5)
        if kind < 3:
            alike = [value for value in ODD if type(value) is type(holder[key])]
            holder[key] = draw.one(alike if alike and draw.chance(0.5) else ODD)
        elif kind == 3:
            other, place = _place(root, draw)
            holder[key] = json.loads(json.dumps(other[place]))
        elif isinstance(holder, dict):
            holder[draw.one(("", "x", "__proto__", "\0", str(key) + " "))] = holder.pop(key)
        elif len(holder) > 1:
            del holder[key]
    text = json.dumps(root[0]).replace(f'"{DEEP}"', draw.one(("[", '{"a":')) * draw.one((500, 100_000)))
    return text.encode()


def _place(root: list[Any], draw: Draw) -> tuple[Any, Any]:
    """A holder and a key in it, at any depth."""
    holder: Any = root
    key: Any = 0
    while isinstance(holder[key], dict | list) and holder[key] and draw.chance(0.8):
        holder = holder[key]
        key = draw.one(sorted(holder)) if isinstance(holder, dict) else draw.below(len(holder))
    return holder, key


def change_json_lines(data: bytes, draw: Draw) -> bytes:
    if draw.chance(0.3):
        return change_text(data, draw)
    lines = data.split(b"\n")
    place = draw.below(len(lines))
    lines[place] = change_json(lines[place], draw)
    return b"\n".join(lines)
