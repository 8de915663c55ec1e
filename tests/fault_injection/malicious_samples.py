"""Of R5: files made on purpose: pickles that run code, archives that lead outside, names that are orders."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from verydeep.checkpoints.checkpoint import METADATA_KEY, read_safetensors
from verydeep.checkpoints.integrity import write_sealed

MARK = "code-was-run"  # a folder beside the trials' own that only a hostile file makes
NAMES = (
    "\x1b]0;owned\x07\x1b[2J",
    "<script>alert(1)</script>",
    "line\nverydeep: fine\r\n\x9b31m\x7f",
    "<img src=x onerror=alert(1)>|`$(touch x)`",
)
Make = Callable[[Path], object]  # fills a trial's folder, which lies beside the good files


class Hostile:
    """Pickled, an order to make the mark."""

    def __init__(self, folder: Path) -> None:
        self._mark = str(folder.parent / MARK)

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (self._mark,)


def paint(path: Path, seed: int) -> None:
    """A photo of noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng([5, seed]).integers(0, 256, (36, 40, 3), np.uint8)).save(path, "PNG")


def named_photos(top: Path) -> None:
    """A folder a name, four photos each, one of which has such a name too."""
    for number, name in enumerate(NAMES):
        safe = name.replace("/", "\N{DIVISION SLASH}")  # what no file name holds
        for photo in range(4):
            paint(top / safe / (f"{safe}.png" if photo == 3 else f"{photo}.png"), 10 * number + photo)


def pickled(folder: Path, name: str) -> None:
    """A pickle under any name."""
    (folder / name).write_bytes(pickle.dumps({"features.0.weight": Hostile(folder)}, protocol=2))


def pickled_in_zip(folder: Path, name: str, *members: str) -> None:
    """A zip archive as PyTorch and Keras have them."""
    with zipfile.ZipFile(folder / name, "w") as archive:
        for member in members:
            archive.writestr(member, pickle.dumps({"features.0.weight": Hostile(folder)}, protocol=2))
        archive.writestr("archive/version", "3\n")


def objects(folder: Path, *names: str) -> None:
    """An archive of NumPy's with an array of Python objects under each name."""
    array = np.array([Hostile(folder)], dtype=object)
    np.savez(folder / "a.npz", allow_pickle=True, **dict.fromkeys(names, array))


def copied(folder: Path, source: str, *places: str) -> None:
    """A copy of something good, with a pickle in place of some of its files."""
    shutil.copytree(folder.parent / source, folder / source)
    for place in places:
        (folder / source / place).unlink(missing_ok=True)
        pickled(folder, f"{source}/{place}")


def object_array(folder: Path, source: str, place: str) -> None:
    """A copy of something good, with an array of Python objects in place of one of numbers."""
    copied(folder, source)
    with (folder / source / place).open("wb") as file:
        np.save(file, np.array([Hostile(folder)] * 4, dtype=object), allow_pickle=True)


def hostile_card(folder: Path) -> None:
    """A checkpoint whose card names a net that is an order to the terminal."""
    from safetensors.torch import save

    metadata, tensors = read_safetensors(folder.parent / "whole" / "best.safetensors")
    metadata = {**json.loads(metadata[METADATA_KEY]), "net": NAMES[0]}
    write_sealed(folder / "x.safetensors", save(tensors, {METADATA_KEY: json.dumps(metadata)}))


def _photo() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(5).integers(0, 256, (36, 40, 3), np.uint8)).save(file, "PNG")
    return file.getvalue()


def tar(folder: Path, *names: str) -> None:
    """Photos of two classes under such names, beside good ones."""
    (folder / "tars").mkdir()
    with tarfile.open(folder / "tars" / "0.tar", "w") as archive:
        for number, name in enumerate((*names, *(f"good{number}" for number in range(8)))):
            for ending, data in (("png", _photo()), ("cls", str(number % 2).encode())):
                member = tarfile.TarInfo(f"{name}.{ending}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))


def tar_outside(folder: Path) -> None:
    tar(folder, "../../evil", str(folder.parent / "evil"), "../../../../../../../../etc/evil")


def tar_links(folder: Path) -> None:
    """Members that are links, devices and pipes."""
    tar(folder)
    kinds = (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE)
    with tarfile.open(folder / "tars" / "0.tar", "a") as archive:
        for number, kind in enumerate(kinds):
            member = tarfile.TarInfo(f"odd{number}.png")
            member.type, member.linkname = kind, "/etc/passwd"
            archive.addfile(member)


def tar_huge(folder: Path) -> None:
    """A member that declares a terabyte."""
    tar(folder)
    member = tarfile.TarInfo("huge.png")
    member.size = 10**12
    (folder / "tars" / "1.tar").write_bytes(member.tobuf(tarfile.GNU_FORMAT) + bytes(1024))


def zip_bomb(folder: Path) -> None:
    """A few kilobytes that unpack to 100 MB, as tensors."""
    with zipfile.ZipFile(folder / "x.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}))
        archive.writestr("archive/data/0", bytes(10**8))


def mat_bomb(folder: Path) -> None:
    """A few hundred kilobytes that unpack to some gigabytes."""
    squeeze = zlib.compressobj(9)
    packed = b"".join(squeeze.compress(bytes(2**26)) for _ in range(20)) + squeeze.flush()
    head = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"
    (folder / "x.mat").write_bytes(head + struct.pack("<II", 15, len(packed)) + packed)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(folder: Path, side: int, *chunks: tuple[bytes, bytes]) -> None:
    """A PNG that declares such a side, with chunks before its pixels."""
    head = _chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    pixels = _chunk(b"IDAT", zlib.compress(bytes(min(side, 64) * (3 * min(side, 64) + 1))))
    body = head + b"".join(_chunk(*chunk) for chunk in chunks) + pixels + _chunk(b"IEND", b"")
    (folder / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n" + body)


def text_bomb() -> tuple[bytes, bytes]:
    """A comment of 500 kB that unpacks to 500 MB."""
    squeeze = zlib.compressobj(9)
    return b"zTXt", b"Comment\0\0" + b"".join(squeeze.compress(bytes(2**26)) for _ in range(8)) + squeeze.flush()


def listed(folder: Path, rows: tuple[str, ...]) -> None:
    """A list of good photos and of such rows."""
    good = [f"../photos/{name}/{number}.png,{name}" for name in ("a", "b") for number in range(4)]
    (folder / "list.csv").write_text("\n".join([*good, *rows]) + "\n", newline="")
