"""Malformed safetensors files, after the format's rules and its published audit (Trail of Bits, 2023).

A file is eight bytes (the header's length, little-endian), a header of JSON, and the tensors' bytes without a gap. Each
case breaks one rule; the tensors are two layers of a net, so that nothing else is wrong with the file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

WEIGHT, BIAS = 2 * 3 * 3 * 3 * 4, 2 * 4  # bytes of float32 (2,3,3,3) and (2,)
SIZE = WEIGHT + BIAS


def entry(begin: Any, end: Any, shape: Any, dtype: Any = "F32") -> dict[str, Any]:
    """What a header says of a tensor."""
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def good() -> dict[str, Any]:
    """The header of a file that has nothing wrong."""
    return {
        "conv1_1.weight": entry(0, WEIGHT, [2, 3, 3, 3]),
        "conv1_1.bias": entry(WEIGHT, SIZE, [2]),
    }


def packed(header: bytes, data: bytes = bytes(SIZE), length: int | None = None) -> bytes:
    """A file of this header, which declares ``length`` bytes of it."""
    return (len(header) if length is None else length).to_bytes(8, "little") + header + data


def changed(name: str, **values: Any) -> bytes:
    """A good file, one entry of its header changed; a value of None is left out."""
    header = good()
    header[name] = {key: value for key, value in {**header[name], **values}.items() if value is not None}
    return packed(json.dumps(header).encode())


def cases() -> Iterator[tuple[str, bytes]]:
    """Names and bytes of malformed files."""
    yield from _lengths()
    yield from _texts()
    yield from _offsets()
    yield from _shapes()
    yield from _keys()


def _lengths() -> Iterator[tuple[str, bytes]]:
    text = json.dumps(good()).encode()
    yield "empty", b""
    yield "only-a-part-of-the-length", b"\x08\0\0"
    yield "header-of-no-bytes", packed(b"", length=0)
    yield "header-longer-than-the-file", packed(text, length=len(text) + SIZE + 1)
    yield "header-that-ends-early", packed(text, length=len(text) - 1)
    yield "header-that-ends-late", packed(text, length=len(text) + 1)
    yield "header-of-100-MB-and-a-byte", packed(text, length=100_000_001)
    yield "header-of-2^63", packed(text, length=2**63)
    yield "header-of-2^64-1", packed(text, length=2**64 - 1)


def _texts() -> Iterator[tuple[str, bytes]]:
    text = json.dumps(good()).encode()
    yield "header-not-UTF-8", packed(text.replace(b"conv1_1.bias", b"conv1_1.bi\xff\xfe"))
    yield "header-not-JSON", packed(text.replace(b":", b";", 1))
    yield "header-with-a-byte-order-mark", packed(b"\xef\xbb\xbf" + text)
    yield "header-that-begins-with-spaces", packed(b"  " + text)
    yield "header-with-text-after-it", packed(text + b"{}")
    yield "header-a-list", packed(b"[]")
    yield "header-a-number", packed(b"1")
    yield "header-with-half-a-surrogate", packed(text.replace(b"conv1_1.bias", b"conv1_1.bi\\ud800"))
    yield "header-of-100,000-brackets", packed(b'{"a":' + b"[" * 100_000)
    yield "header-of-100,000-objects", packed(b'{"a":' * 100_000)
    yield "header-with-NaN", packed(text.replace(b"[2]", b"[NaN]"))


def _offsets() -> Iterator[tuple[str, bytes]]:
    text = json.dumps(good()).encode()
    yield "data-truncated", packed(text, bytes(SIZE - 1))
    yield "no-data", packed(text, b"")
    yield "bytes-after-the-data", packed(text, bytes(SIZE + 1))
    yield "an-archive-after-the-data", packed(text, bytes(SIZE) + b"PK\x05\x06" + bytes(18))
    yield "data-not-named-by-the-header", packed(b"{}")
    yield "hole-before", packed(json.dumps(_moved(8, 8)).encode(), bytes(SIZE + 8))
    yield "hole-between", packed(json.dumps(_moved(0, 8)).encode(), bytes(SIZE + 8))
    yield "overlap-of-a-part", packed(json.dumps(_moved(0, -4)).encode(), bytes(SIZE - 4))
    yield "overlap-of-all", packed(json.dumps(_moved(0, -WEIGHT)).encode(), bytes(WEIGHT))
    yield "offsets-reversed", changed("conv1_1.bias", data_offsets=[SIZE, WEIGHT])
    yield "offsets-negative", changed("conv1_1.bias", data_offsets=[-8, SIZE])
    yield "offsets-fractions", changed("conv1_1.bias", data_offsets=[WEIGHT + 0.5, SIZE + 0.5])
    yield "offsets-texts", changed("conv1_1.bias", data_offsets=[str(WEIGHT), str(SIZE)])
    yield "offsets-beyond-the-file", changed("conv1_1.bias", data_offsets=[WEIGHT + 2**40, SIZE + 2**40])
    yield "offsets-of-2^64", changed("conv1_1.bias", data_offsets=[WEIGHT, 2**64 + SIZE])
    yield "one-offset", changed("conv1_1.bias", data_offsets=[WEIGHT])
    yield "three-offsets", changed("conv1_1.bias", data_offsets=[WEIGHT, SIZE, SIZE])


def _moved(first: int, second: int) -> dict[str, Any]:
    """The header of good tensors, which begin so many bytes later."""
    return {
        "conv1_1.weight": entry(first, WEIGHT + first, [2, 3, 3, 3]),
        "conv1_1.bias": entry(WEIGHT + second, SIZE + second, [2]),
    }


def _shapes() -> Iterator[tuple[str, bytes]]:
    yield "shape-too-large-for-its-bytes", changed("conv1_1.bias", shape=[3])
    yield "shape-too-small-for-its-bytes", changed("conv1_1.bias", shape=[1])
    yield "shape-whose-product-overflows", changed("conv1_1.bias", shape=[2**32, 2**32])
    yield "shape-whose-product-wraps-to-its-bytes", changed("conv1_1.bias", shape=[2**63 + 1, 2])
    yield "shape-whose-bytes-overflow", changed("conv1_1.bias", shape=[2**62])
    yield "shape-negative", changed("conv1_1.bias", shape=[-1, -2])
    yield "shape-of-fractions", changed("conv1_1.bias", shape=[2.5])
    yield "shape-of-2^64", changed("conv1_1.bias", shape=[2**64 + 2])
    yield "shape-a-number", changed("conv1_1.bias", shape=2)
    yield "shape-with-a-0-and-an-overflow", changed("conv1_1.bias", shape=[2**63, 2**63, 0])
    yield "dtype-unknown", changed("conv1_1.bias", dtype="F31")
    yield "dtype-a-number", changed("conv1_1.bias", dtype=32)
    yield "dtype-of-half-the-bytes", changed("conv1_1.bias", dtype="F16")
    yield "dtype-of-half-a-byte", changed("conv1_1.bias", dtype="F4", shape=[3])
    yield "dtype-of-objects", changed("conv1_1.bias", dtype="O", shape=[1])


def _keys() -> Iterator[tuple[str, bytes]]:
    text = json.dumps(good()).encode()
    bias = json.dumps(good()["conv1_1.bias"]).encode()
    yield "a-tensor-twice", packed(text[:-1] + b', "conv1_1.bias": ' + bias + b"}")
    yield (
        "a-tensor-twice-at-other-bytes",
        packed(b'{"conv1_1.bias": ' + json.dumps(entry(0, 8, [2])).encode() + b", " + text[1:]),
    )
    yield "metadata-twice", packed(b'{"__metadata__": {"a": "b"}, "__metadata__": {"c": "d"}, ' + text[1:])
    yield "a-shape-twice", packed(text[:-2] + b', "shape": [1]}}')
    yield "metadata-of-numbers", packed(b'{"__metadata__": {"a": 1}, ' + text[1:])
    yield "metadata-a-list", packed(b'{"__metadata__": ["a"], ' + text[1:])
    yield "no-dtype", changed("conv1_1.bias", dtype=None)
    yield "no-shape", changed("conv1_1.bias", shape=None)
    yield "no-offsets", changed("conv1_1.bias", data_offsets=None)
    yield "a-tensor-a-text", packed(text[:-1] + b', "conv1_2.bias": "F32"}')
    yield "a-metadata-key-twice", packed(b'{"__metadata__": {"a": "b", "a": "c"}, ' + text[1:])


def huge() -> Iterator[tuple[str, bytes]]:
    """Names and headers of tens of megabytes, which unpack to gigabytes of objects where they are parsed."""
    yield "1,600,000-tensors", _many(b'"%x":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}', 1_600_000)
    yield "4,000,000-metadata-keys", b'{"__metadata__":' + _many(b'"%x":""', 4_000_000) + b"}"
    yield (
        "a-shape-of-40,000,000",
        (b'{"a":{"dtype":"F32","shape":[' + b"0," * 40_000_000 + b'0],"data_offsets":[0,0]}}'),
    )
    yield "50,000,000-lists", b'{"a":' + b"[]," * 25_000_000 + b"[]}"


def _many(pattern: bytes, count: int) -> bytes:
    return b"{" + b",".join(pattern % number for number in range(count)) + b"}"
