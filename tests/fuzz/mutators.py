"""Changes of files for the fuzzing: of bytes anywhere, and of what a format's own structure lets through.

A change of bytes mostly breaks a checksum, a length or the grammar, and is refused there. So half of the changes are
made behind those: a PNG's chunk gets a new CRC, a zip's member or a MATLAB element is packed anew, a protocol buffer's
lengths are counted anew, and JSON or text gets odd values where it had others.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

from mutations import (
    INTEGERS,
    WORDS,
    Draw,
    change_bytes,
    change_json,
    change_json_lines,
    change_text,
    change_xml,
    instead,
)

from verydeep.checkpoints.formats.protobuf import number_bytes, varint

Files = dict[str, bytes]  # by name, of one folder
LONGEST = 4_000_000  # bytes a changed file may have


def changed(files: Files, other: Files, draw: Draw) -> Files:
    """Files with a few changes; ``other`` is what pieces may be taken from."""
    found = dict(files)
    for _ in range(2 if draw.chance(0.3) else 1):
        name = draw.one(sorted(files))
        data = _file(name, found.get(name, files[name]), other.get(name, b""), draw)
        found[name] = data[:LONGEST]
    if len(files) > 1 and draw.chance(0.02):
        del found[draw.one(sorted(files))]
    return found


def _file(name: str, data: bytes, other: bytes, draw: Draw) -> bytes:
    way = _BY_ENDING.get(name[name.rfind(".") :] if "." in name else "")
    if way is not None and draw.chance(0.6):
        with contextlib.suppress(Exception), warnings.catch_warnings():  # of seeds that are broken already
            warnings.simplefilter("ignore")
            return way(data, draw)
    return change_bytes(data, other, draw)


def _zip(data: bytes, draw: Draw) -> bytes:
    """A member is changed and packed anew; or it is given twice, left out, or called otherwise."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [(entry, archive.read(entry)) for entry in archive.infolist()]
    place = draw.below(len(members))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for number, (entry, content) in enumerate(members):
            name, body = entry.filename, content
            if number == place:
                name = draw.one((name, name, name, name, "../" + name, "", name + "\0", members[0][0].filename))
                body = _file(entry.filename, content, members[0][1], draw)
            packed = zipfile.ZIP_DEFLATED if draw.chance(0.05) else entry.compress_type
            if number != place or not draw.chance(0.1):
                archive.writestr(name or "x", body, packed)
    found = bytearray(out.getvalue())
    if draw.chance(0.2):  # another size than the member has
        at = found.rfind(b"PK\x01\x02", 0, draw.below(len(found)) + 1)
        if at >= 0:
            start = at + draw.one((16, 20, 24, 42))
            found[start : start + 4] = (draw.one(INTEGERS) % 2**32).to_bytes(4, "little")
    return bytes(found)


def _npy(data: bytes, draw: Draw) -> bytes:
    """Another type, shape or order in the header, with its length counted anew."""
    length = int.from_bytes(data[8:10], "little")
    header = data[10 : 10 + length]
    kind = draw.below(4)
    if kind == 0:
        types = b"<f4 >f4 <f8 <i8 |b1 |O |S0 <U9 |V5 <m8 <M8[ns] <c8 |u1 <f2 <U99999999".split()
        header = instead(header, rb"'[<>|=][a-zA-Z]\d+'", b"'" + draw.one(types) + b"'", draw)
    elif kind == 1:
        shapes = (
            b"(0,)",
            b"()",
            b"(1,1)",
            b"(2,3,4)",
            b"(-1,)",
            b"(99999999999,)",
            b"(4294967296,4294967296,)",
            b"(True,)",
        )
        header = instead(header, rb"\([^)]*\)", draw.one(shapes), draw)
    elif kind == 2:
        header = change_text(header, draw)
    else:
        return data[: 10 + length] + change_bytes(data[10 + length :], b"", draw)
    header = header[:65_000].rstrip() + b"\n"
    return data[:8] + len(header).to_bytes(2, "little") + header + data[10 + length :]


def _png(data: bytes, draw: Draw) -> bytes:
    """A chunk is changed, given twice, left out or moved, with a CRC that fits."""
    chunks, at = [], 8
    while at + 12 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + size]))
        at += 12 + size
    place, kind = draw.below(len(chunks)), draw.below(6)
    name, body = chunks[place]
    if kind == 0:
        chunks.insert(draw.below(len(chunks)), chunks.pop(place))
    elif kind == 1:
        chunks.insert(
            place, (draw.one((b"tRNS", b"PLTE", b"IHDR", b"iCCP", b"eXIf", b"acTL", b"fcTL", b"zTXt")), draw.some(40))
        )
    elif kind == 2 and name == b"IDAT":
        chunks[place] = (name, zlib.compress(change_bytes(zlib.decompress(body), b"", draw)))
    else:
        chunks[place] = (name, change_bytes(body, b"", draw))
    parts = [
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    ]
    return data[:8] + b"".join(parts)


def _mat(data: bytes, draw: Draw) -> bytes:
    """An element of a MATLAB file is changed, where it is packed behind its packing."""
    elements, at = [], 128
    while at + 8 <= len(data):
        kind, size = struct.unpack("<II", data[at : at + 8])
        elements.append((kind, data[at + 8 : at + 8 + size]))
        at += 8 + size
    place = draw.below(len(elements))
    kind, body = elements[place]
    packed = kind == 15
    body = change_bytes(zlib.decompress(body) if packed else body, b"", draw)
    elements[place] = (kind, zlib.compress(body) if packed else body)
    return data[:128] + b"".join(struct.pack("<II", kind, len(body)) + body for kind, body in elements)


def _tar(data: bytes, draw: Draw) -> bytes:
    """A member's header is changed, with a checksum that fits."""
    heads = [at for at in range(0, len(data), 512) if data[at + 257 : at + 262] == b"ustar"]
    at = draw.one(heads)
    fields = ((0, 100), (100, 8), (124, 12), (136, 12), (156, 1), (157, 100), (257, 8), (345, 155))
    start, size = draw.one(fields)
    odd = (
        b"\xff" * size,
        b"\x80" + b"\0" * (size - 1),
        b"7" * size,
        b"\0" * size,
        draw.some(size),
        b"../../x.jpg\0",
        b"LKSxg1256"[: size or 1],
    )
    word = draw.one(odd)[:size]
    head = bytearray(data[at : at + 512])
    head[start : start + len(word)] = word
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    return data[:at] + bytes(head) + data[at + 512 :]


def _http(data: bytes, draw: Draw) -> bytes:
    """A request's head is changed, or its photo, with a length that fits."""
    head, _, body = data.partition(b"\r\n\r\n")
    if draw.chance(0.5):
        head = change_text(head, draw)
    elif body:
        body = _png(body, draw) if body.startswith(b"\x89PNG") and draw.chance(0.6) else change_bytes(body, b"", draw)
        head = re.sub(rb"(?i)(content-length: )\d+", rb"\g<1>%d" % len(body), head)
    return head + b"\r\n\r\n" + body


def _safetensors(data: bytes, draw: Draw) -> bytes:
    """The header's JSON is changed, or that within its metadata, with its length counted anew."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    told = header.get("__metadata__", {})
    cards = [name for name, value in told.items() if value.startswith("{")]
    if cards and draw.chance(0.7):
        name = draw.one(cards)
        told[name] = change_json(told[name].encode(), draw).decode()
        text = json.dumps(header).encode()
    else:
        text = change_json(json.dumps(header).encode(), draw)
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def _protobuf(data: bytes, draw: Draw) -> bytes:
    """A field at any depth is changed, given twice or left out, with all lengths around it counted anew."""
    parts = _parted(data)
    place = draw.below(len(parts)) if draw.chance(0.7) else min(draw.below(12), len(parts) - 1)
    key, value = parts[place]
    kind = draw.below(8)
    if kind == 0:
        parts.insert(place, parts[place])
    elif kind == 1:
        del parts[place]
    elif kind == 2:
        parts[place] = (draw.below(20) << 3 | key & 7, value)
    elif isinstance(value, int):
        parts[place] = (key, draw.one((*INTEGERS, value + 1, 2**64 - 1 - value % 9)) % 2**64)
    else:
        try:
            inner = _protobuf(value, draw)
        except (ValueError, IndexError):
            inner = draw.one((change_bytes(value, b"", draw), b"", draw.one(WORDS)))
        parts[place] = (key, inner)
    return b"".join(map(_joined, parts))


def _parted(data: bytes) -> list[tuple[int, Any]]:
    """A message's keys and values; raises ValueError where it is none."""
    parts: list[tuple[int, Any]] = []
    view, at = memoryview(data), 0
    while at < len(data):
        key, at = varint(view, at)
        if key & 7 == 0:
            value, at = varint(view, at)
            parts.append((key, value))
            continue
        size = {1: 8, 5: 4}.get(key & 7, -1)
        if key & 7 == 2:
            size, at = varint(view, at)
        if size < 0 or at + size > len(data) or not key >> 3:
            raise ValueError("no message")
        parts.append((key, data[at : at + size]))
        at += size
    if not parts:
        raise ValueError("empty")
    return parts


def _joined(part: tuple[int, Any]) -> bytes:
    key, value = part
    if isinstance(value, int):
        return number_bytes(key & ~7) + number_bytes(value)
    return number_bytes(key) + (number_bytes(len(value)) if key & 7 == 2 else b"") + bytes(value)


_BY_ENDING: dict[str, Callable[[bytes, Draw], bytes]] = {
    **dict.fromkeys((".csv", ".txt", ".typed", ".ids", ".yaml"), change_text),
    **dict.fromkeys((".npz", ".pth", ".keras"), _zip),
    **dict.fromkeys((".onnx", ".caffemodel"), _protobuf),
    **{
        ".xml": change_xml,
        ".json": change_json,
        ".jsonl": change_json_lines,
        ".npy": _npy,
        ".png": _png,
        ".mat": _mat,
        ".tar": _tar,
        ".http": _http,
    },
    ".safetensors": _safetensors,
}
