"""Protocol buffers, as far as weight files need them: reading and writing fields of a message by number.

A message is a sequence of fields, each a number and a wire type in one varint, then its value: a varint (0), 8 bytes
(1), a length and that many bytes (2), or 4 bytes (5). The readers of a format know what the numbers mean.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

MOST_SIDES, LARGEST_SIDE = 8, 2**40


def varint(view: memoryview, at: int) -> tuple[int, int]:
    """The number at an offset, and the offset after it; raises ValueError or IndexError where it has no end."""
    value = shift = 0
    while shift < 64:
        byte = view[at]
        value, at = value | (byte & 127) << shift, at + 1
        if byte < 128:
            return value, at
        shift += 7
    raise ValueError("a number without an end")


def varints(value: Any) -> list[int]:
    """The numbers of a repeated field, either packed into bytes or a single one."""
    if isinstance(value, int):
        return [value]
    numbers, at = [], 0
    while at < len(value):
        number, at = varint(value, at)
        numbers.append(number)
    return numbers


def fields(view: memoryview, whole: bool = True) -> Iterator[tuple[int, Any]]:
    """Each field's number and value, an int or bytes; unless ``whole``, the last value may be truncated.

    Raises:
        ValueError, IndexError: not a message, or a truncated one.
    """
    at, end = 0, len(view)
    while at < end:
        key, at = varint(view, at)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, at = varint(view, at)
            yield number, value
            continue
        if wire not in (1, 2, 5) or number == 0:
            raise ValueError(f"no field has the wire type {wire}")
        size = {1: 8, 5: 4}.get(wire, 0)
        if wire == 2:
            size, at = varint(view, at)
        if whole and at + size > end:
            raise ValueError(f"{at + size - end} bytes are missing at its end")
        yield number, view[at : at + size]
        at += size


def checked_sides(sides: list[int]) -> list[int]:
    """A tensor's shape; raises ValueError for more dimensions than weights have, or a size that no file has.

    The product of a million large sides would take minutes.
    """
    if len(sides) > MOST_SIDES or max(sides, default=0) > LARGEST_SIDE:
        raise ValueError(f"a shape of {len(sides)} dimensions, the largest {max(sides)}")
    return sides


def data(value: Any) -> memoryview:
    """A field's value, which must be bytes; raises ValueError for a number."""
    if not isinstance(value, memoryview):
        raise ValueError("a field of a wrong type")
    return value


def text(value: Any) -> str:
    """A field's value, which must be UTF-8; raises ValueError where it is not."""
    return bytes(data(value)).decode("utf8")


def number_bytes(value: int) -> bytes:
    """A varint."""
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 127 | 128)
        value >>= 7
    return bytes([*encoded, value])


def field_bytes(number: int, content: bytes) -> bytes:
    """A field of so many bytes."""
    return number_bytes(number << 3 | 2) + number_bytes(len(content)) + content
