"""Parsers under changed bytes: each of many files from strangers is read, or refused with a sentence, soon.

    python torture/fuzz.py SECONDS [PARSER…]

Seeds are good files; of each, bytes are changed, put in and taken out, and texts get odd words. What raises anything
but a `VerydeepError`, or takes more than five seconds, is kept and told.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from safetensors.numpy import save

TESTS = Path(__file__).resolve().parents[1] / "tests"
sys.path[:0] = [str(TESTS)]

from verydeep.config import DataSettings, TrainSettings, from_json  # noqa: E402
from verydeep.data import open_data  # noqa: E402
from verydeep.data.boxfiles import read_boxes  # noqa: E402
from verydeep.errors import VerydeepError  # noqa: E402
from verydeep.feature_files import load_features  # noqa: E402
from verydeep.files import read_json  # noqa: E402
from verydeep.images import read_image  # noqa: E402
from verydeep.scores import Scores, load_scores, save_scores  # noqa: E402
from verydeep.sealed import write_sealed  # noqa: E402
from verydeep.weights import read_weights  # noqa: E402

SLOW = 5.0
BEGINNING = 400  # bytes of a file that half of the changes are in
KINDS = ("Caffe, version 1", "Caffe, version 2", "MatConvNet", "Keras 1", "Keras 3", "TF-Slim", "torchvision", "timm")
WORDS = [*b'| -1|nan|1e999|\x00|\xff\xfe|"|[]|{}|null|\n|,|<a>|..|'.split(b"|"), b"9" * 400]


@dataclass(frozen=True)
class Parser:
    """A parser, the ending of its files, and good files to begin from."""

    read: Callable[[Path], object]
    ending: str
    seeds: list[bytes]


def changed(data: bytes, rng: np.random.Generator) -> bytes:
    """A file with a few changes."""
    found = bytearray(data)
    for _ in range(int(rng.integers(1, 8))):
        end = len(found) if rng.random() < 0.5 else min(len(found), BEGINNING)
        at = int(rng.integers(0, end + 1))
        some = rng.integers(0, 256, int(rng.integers(1, 16)), dtype=np.uint8).tobytes()
        kind = int(rng.integers(0, 5))
        if kind == 0 and at < len(found):
            found[at] ^= 1 << int(rng.integers(0, 8))
        elif kind == 1:
            del found[at : at + int(rng.integers(1, 64))]
        elif kind == 2:
            found[at:at] = some
        elif kind == 3:
            found[at : at + len(some)] = some
        else:
            found[at : at + int(rng.integers(0, 8))] = WORDS[int(rng.integers(0, len(WORDS)))]
    return bytes(found)


def parsers(place: Path) -> dict[str, Parser]:
    """All of them, with seeds made here."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)
    (place / "photos" / "a").mkdir(parents=True)
    images = []
    for kind in ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM"):
        Image.fromarray(pixels).save(place / f"x.{kind}", kind)
        images.append((place / f"x.{kind}").read_bytes())
    rows = b"path,label\n" + b"".join(b"%d.jpg,%d\n" % (number, number % 2) for number in range(40))
    lines = b"".join(b'{"path": "%d.jpg", "label": "%d"}\n' % (number, number % 2) for number in range(40))
    xml = (
        b"<annotation><size><width>32</width><height>24</height></size><object><name>a</name><bndbox><xmin>1</xmin>"
        b"<ymin>2</ymin><xmax>10</xmax><ymax>12</ymax></bndbox></object></annotation>"
    )
    coco = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 32, "height": 24}],
        "categories": [{"id": 3, "name": "a"}],
        "annotations": [{"image_id": 1, "category_id": 3, "bbox": [1, 2, 5, 6]}],
    }
    boxes = b"image,xmin,ymin,xmax,ymax,class\na.jpg,1,2,10,12,a\nb.jpg,1,2,10,12,b\n"
    return {
        "images": Parser(read_image, ".jpg", images),
        "csv": Parser(_data, ".csv", [rows]),
        "jsonl": Parser(_data, ".jsonl", [lines]),
        "xml": Parser(lambda path: read_boxes(_alone(path)), ".xml", [xml]),
        "coco": Parser(read_boxes, ".json", [json.dumps(coco).encode()]),
        "boxes": Parser(read_boxes, ".csv", [boxes]),
        "config": Parser(lambda path: from_json(TrainSettings, read_json(path)), ".json", [_config()]),
        "scores": Parser(load_scores, ".npz", [_scores(place)]),
        "features": Parser(_sealed_anew, ".safetensors", [_features()]),
        **_weights(place),
    }


def _data(path: Path) -> object:
    return open_data(DataSettings(str(path)))


def _alone(path: Path) -> Path:
    """A folder of one XML file, named as a photo."""
    return path.parent


def _config() -> bytes:
    from verydeep.config import to_json

    return json.dumps(to_json(TrainSettings(net="D"))).encode()


def _scores(place: Path) -> bytes:
    rng = np.random.default_rng(1)
    posteriors = rng.random((5, 3)).astype(np.float32)
    scores = Scores(
        ids=tuple("abcde"),
        labels=np.array([0, 1, 2, 0, 1]),
        subjects=np.arange(5),
        classes=("x", "y", "z"),
        posteriors=posteriors / posteriors.sum(1, keepdims=True),
        set_name="test",
        data="digits",
        run="A",
        protocol="dense@64",
        checkpoint="0" * 64,
    )
    save_scores(place / "scores.npz", scores)
    return (place / "scores.npz").read_bytes()


def _features() -> bytes:
    """Not sealed: a stranger's file would have a hash that fits, so each changed one gets it."""
    net = {"file": "f", "sha256": "0", "net": "A", "preprocessing": "caffe"}
    recipe = {
        **{"net": net, "layer": "fc7", "pool": "mean", "mirror": True, "precision": "float32", "data": "d"},
        **{"classes": [], "splits": None, "described": {"36": {"commit": None}}, "resampling": "bilinear"},
        "other_side": "round",
    }
    card = {"ids": ["a", "b"], "classes": ["x"], "sets": ["", ""], "data": "d", "key": "k", "recipe": recipe}
    arrays: dict[str, NDArray[Any]] = {"Q36": np.ones((2, 4), np.float32), "labels": np.zeros(2, np.int64)}
    return save(arrays, {"verydeep-features": json.dumps(card)})


def _sealed_anew(path: Path) -> object:
    data = path.read_bytes()
    try:
        write_sealed(path, data)
    except (ValueError, TypeError, AttributeError, IndexError):  # no header any more that could be sealed
        path.write_bytes(data)
    return load_features(path)


def _weights(place: Path) -> dict[str, Parser]:
    from test_weights import FORMATS, random_layers

    found: dict[str, Parser] = {}
    for name in KINDS:
        write, _, preprocessing, _ = FORMATS[name]
        write(place / "weights.bin", random_layers("D"))
        data = (place / "weights.bin").read_bytes()
        found[name] = Parser(partial(_read_weights, preprocessing), ".bin", [data])
    return found


def _read_weights(preprocessing: str, path: Path) -> object:
    return read_weights(str(path), preprocessing)


def fuzz(
    name: str, parser: Parser, seconds: float, place: Path, most: float = float("inf")
) -> tuple[int, int, list[str]]:
    """Reads changed files for some seconds, or ``most`` files: how many, how many were read, and what went wrong."""
    (place / name).mkdir(parents=True, exist_ok=True)
    path, until, tried, read = place / name / f"x{parser.ending}", time.monotonic() + seconds, 0, 0
    faults: dict[str, str] = {}
    for seed in parser.seeds:
        path.write_bytes(seed)
        parser.read(path)
    while time.monotonic() < until and tried < most:
        rng = np.random.default_rng([13, tried])
        path.write_bytes(changed(parser.seeds[tried % len(parser.seeds)], rng))
        tried, began = tried + 1, time.monotonic()
        try:
            parser.read(path)
            read += 1
        except VerydeepError:
            pass
        except Exception as fault:
            frame = traceback.extract_tb(fault.__traceback__)[-1]
            told = f"{type(fault).__name__} at {Path(frame.filename).name}:{frame.lineno}: {str(fault)[:200]}"
            if faults.setdefault(f"{type(fault).__name__}{frame.lineno}", told) == told:
                (place / name / f"fault-{tried}{parser.ending}").write_bytes(path.read_bytes())
        if time.monotonic() - began > SLOW:
            faults["slow"] = f"file {tried} took {time.monotonic() - began:.1f} s"
    return tried, read, list(faults.values())


def main() -> int:
    """The command."""
    place = Path(tempfile.mkdtemp(prefix="fuzz-"))
    found = parsers(place / "seeds")
    chosen = sys.argv[2:] or list(found)
    failed = 0
    for name in chosen:
        tried, read, faults = fuzz(name, found[name], float(sys.argv[1]), place)
        print(f"{name}: {tried} files, {read} read, {len(faults)} kinds of faults", flush=True)
        for fault in faults:
            print(f"    {fault}", flush=True)
        failed += bool(faults)
    print(place)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
