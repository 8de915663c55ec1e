"""Other projects' test images through our loader, each in a process of its own, compared with OpenCV's decoder.

    python tests/external/photos.py DIR     # needs the extra `suites`, and in DIR a clone of each of `REPOSITORIES`

DIR holds git repositories (bare ones do) named as in `REPOSITORIES`; nothing of them is stored here but names, hashes
and verdicts. An image passes where the process does not crash, takes at most `SECONDS` of CPU time, grows by at most
`MEGABYTES` beyond the pixels themselves; where it is read, `image_size` says the same size, and where OpenCV reads it
too, the size is the same and the mean difference at most `LEVELS` of 255, or one of `REASONS` applies.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from child import in_child
from numpy.typing import NDArray
from PIL.GifImagePlugin import GifImageFile
from suites import SuiteResult, store, versions_of

from verydeep.core.errors import VerydeepError
from verydeep.core.terminal import Terminal
from verydeep.data.image_io import PNG, decode, image_size, open_photo, orientation, read_image

REPOSITORIES = {  # folder in DIR: where its images lie
    "google/wuffs": "test/data",
    "image-rs/image": "tests",
    "drewnoakes/metadata-extractor-images": "",
    "recurser/exif-orientation-examples": "",
    "libjpeg-turbo/libjpeg-turbo": "testimages",
    "python-pillow/Pillow": "Tests",
}
ENDINGS = (
    *("jpg", "jpeg", "jfif", "png", "apng", "gif", "bmp", "dib", "webp", "tif", "tiff", "ppm", "pgm", "pbm", "pnm"),
    *("avif", "heic", "ico", "tga", "qoi", "jp2", "psd", "nef", "cr2", "crw", "arw", "dng", "orf", "rw2", "pef", "raf"),
)
SECONDS, MEGABYTES, LEVELS = 5.0, 300.0, 2.0
PIXEL = 16  # bytes of memory that a decoded pixel may take on its way: a copy or two as RGBA and RGB
Pixels = NDArray[Any]


@dataclass(frozen=True)
class Verdict:
    """What became of an image: a word of `Counter`'s, the mean difference from OpenCV, and a fault if it is one."""

    word: str
    fault: str = ""
    seconds: float = 0.0
    megabytes: float = 0.0


def images(repository: Path, under: str) -> Iterator[tuple[str, bytes]]:
    """Paths and bytes of a repository's images; blobs that the clone lacks are left out."""
    listed = ["git", "-C", str(repository), "ls-tree", "-r", "-z", "HEAD", *([f"{under}/"] if under else [])]
    rows = subprocess.run(listed, capture_output=True, check=True).stdout.split(b"\0")[:-1]
    reader = ["git", "-C", str(repository), "cat-file", "--batch"]
    with subprocess.Popen(reader, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as blobs:
        assert blobs.stdin is not None
        assert blobs.stdout is not None
        for row in rows:
            facts, _, name = row.partition(b"\t")
            path = name.decode("utf8", "replace")
            if path.rpartition(".")[2].lower() not in ENDINGS:
                continue
            blobs.stdin.write(facts.split()[2] + b"\n")
            blobs.stdin.flush()
            size = blobs.stdout.readline().split()[2:]  # "HASH blob SIZE", or "HASH missing"
            if size:
                yield path, blobs.stdout.read(int(size[0]) + 1)[:-1]


def about(photo: Path) -> dict[str, Any]:
    """What Pillow says of an image: what the reasons for differences are found by."""
    with open_photo(photo.read_bytes()) as image:
        return {
            "format": image.format,
            "mode": image.mode,
            "orientation": orientation(image),
            "covered": not isinstance(image, GifImageFile) or image.tile[0].extents == (0, 0, *image.size),
            "transparent": image.has_transparency_data,
        }


def ours(photo: Path, pixels: Path) -> dict[str, Any]:
    """Reads an image; its pixels go into a file."""
    try:
        read = read_image(photo)
    except VerydeepError as fault:
        return {"refused": str(fault)}
    with pixels.open("wb") as file:
        np.save(file, read)
    return {"shape": list(read.shape[:2]), "size": list(image_size(photo)), "facts": about(photo)}


def opencv(photo: Path, pixels: Path) -> dict[str, Any]:
    """As `ours`, by OpenCV, composited over white: of TIFF also as if colours were multiplied by the alpha already."""
    data = without_animation(photo.read_bytes())
    plain, raw = (
        cv2.imdecode(np.frombuffer(data, np.uint8), form) for form in (cv2.IMREAD_COLOR, cv2.IMREAD_UNCHANGED)
    )
    if plain is None or raw is None:
        return {"refused": "not read"}
    ways = [plain[:, :, ::-1].astype(np.float32)]  # of an image without transparency; a fourth byte may mean nothing
    if raw.ndim == 3 and raw.shape[2] == 4 and raw.shape[:2] == plain.shape[:2]:
        most = np.iinfo(raw.dtype).max if raw.dtype.kind == "u" else 1.0
        alpha, colours = raw[:, :, 3:].astype(np.float32) / most, raw[:, :, 2::-1].astype(np.float32) * (255 / most)
        ways.append(colours * alpha + 255 * (1 - alpha))
        if data[:2] in (b"II", b"MM"):
            ways.append(colours + 255 * (1 - alpha))
    with pixels.open("wb") as file:
        np.save(file, np.stack(ways))
    return {"shape": list(plain.shape[:2])}


def without_animation(data: bytes) -> bytes:
    """A PNG without its other frames, of which OpenCV returns one in place of the image."""
    if not data.startswith(PNG):
        return data
    kept, at = [data[:8]], 8
    while at + 12 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        if data[at + 4 : at + 8] not in (b"acTL", b"fcTL", b"fdAT"):
            kept.append(data[at:end])
        at = end
    return b"".join(kept)


def judge(name: str, data: bytes) -> Verdict:
    """Reads an image by both, and compares."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        photo = place / "photo"
        photo.write_bytes(data)
        found = in_child(lambda: ours(photo, place / "ours.npy"))
        if "died" in found or "raised" in found:
            return Verdict("crash", f"died by {found['died']}" if "died" in found else f"raised {found['raised']}")
        spent: dict[str, Any] = {"seconds": found["seconds"], "megabytes": found["megabytes"]}
        pixels = found["shape"][0] * found["shape"][1] if "shape" in found else 0
        if found["seconds"] > SECONDS:
            return Verdict("slow", f"it took {found['seconds']:.1f} s", **spent)
        if found["megabytes"] > MEGABYTES + PIXEL * pixels / 2**20:
            return Verdict("large", f"memory grew by {found['megabytes']:.0f} MB", **spent)
        peer = in_child(lambda: opencv(photo, place / "opencv.npy"))
        if "refused" in found:
            return _refused(found["refused"], peer, photo, spent)
        if found["shape"] != found["size"]:
            return Verdict("size", f"image_size is {found['size']}, the pixels are {found['shape']}", **spent)
        if "shape" not in peer:
            return Verdict("read, not by OpenCV", **spent)
        word, fault = _compared(name, place, found["facts"])
        return Verdict(word, fault, **spent)


def _refused(sentence: str, peer: dict[str, Any], photo: Path, spent: dict[str, Any]) -> Verdict:
    sentence = sentence.replace(str(photo), "it")
    if "\n" in sentence or not sentence.endswith("."):
        return Verdict("refused", f"refused with other than one sentence: {sentence!r}", **spent)
    return Verdict(f"refused{', read by OpenCV' if 'shape' in peer else ''}: {sentence}", **spent)


def _compared(name: str, place: Path, facts: dict[str, Any]) -> tuple[str, str]:
    """The verdict, and the fault, of an image that both read."""
    one, ways = np.load(place / "ours.npy").astype(np.float32), np.load(place / "opencv.npy")
    if facts["transparent"] and len(ways) > 1:
        ways = ways[1:]
    if one.shape == ways.shape[1:] and min(_apart(one, way) for way in ways) <= LEVELS:
        return "as OpenCV", ""
    turned = TURNED.get(facts["orientation"])
    if turned and min(_apart(one, turned(way)) for way in ways) <= LEVELS:
        return "as OpenCV but for the orientation, which it ignores", ""
    reason = next((why for why, applies in REASONS.items() if applies(name, facts)), "")
    if reason:
        return f"differs: {reason}", ""
    return "differs", f"{list(one.shape)}, OpenCV's {list(ways.shape[1:])}, {_apart(one, ways[0]):.1f} levels ({facts})"


def _apart(one: Pixels, other: Pixels) -> float:
    """The mean difference in levels; infinite for other sizes."""
    return float("inf") if one.shape != other.shape else float(np.abs(one - other).mean()) if one.size else 0.0


# By EXIF orientation, what makes a stored image upright.
TURNED: dict[int, Callable[[Pixels], Pixels]] = {
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.transpose(1, 0, 2),
    6: lambda image: image.transpose(1, 0, 2)[:, ::-1],
    7: lambda image: image.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda image: image.transpose(1, 0, 2)[::-1],
}
# Why pixels differ from OpenCV's: the first that applies is stored.
REASONS: dict[str, Callable[[str, dict[str, Any]], bool]] = {
    "CMYK, which OpenCV converts by another formula": lambda name, facts: facts["mode"] == "CMYK",
    "Lab, which OpenCV converts by another formula": lambda name, facts: facts["mode"] == "LAB",
    "transparency of a GIF, which OpenCV drops": lambda name, facts: facts["format"] == "GIF" and facts["transparent"],
    "what a GIF's frame leaves uncovered is white, of its background colour in OpenCV": (
        lambda name, facts: facts["format"] == "GIF" and not facts["covered"]
    ),
    "5 bits a channel, which OpenCV shifts, so that white is 248": (
        lambda name, facts: facts["format"] == "BMP" and name.rpartition("/")[2].startswith(("rgb16", "Info_X1"))
    ),
    "colour masks of a 52-byte header, which OpenCV ignores": lambda name, facts: name.endswith("rgb32h52.bmp"),
    "palette before an offset, which OpenCV misreads": lambda name, facts: name.endswith("mmap_error.bmp"),
    "the transparent value of 16-bit grey, which OpenCV ignores": (
        lambda name, facts: facts["mode"].startswith("I") and facts["transparent"]
    ),
    "broken on purpose: each decoder makes something else of the damage": (
        lambda name, facts: "bmpsuite/b/" in name or name.endswith("m1-79818c280a08c94bf7fd2a54b1e2567d.tif")
    ),
    "more transparent entries than colours, which OpenCV ignores": (
        lambda name, facts: name.endswith("4f14b7aab3a41855378c5517342598b9.png")
    ),
    "16-bit planes with alpha, which OpenCV mixes up": lambda name, facts: "planar_16bit_RGBa" in name,
}
# Images that are the same photo in each orientation, and the levels that compression takes.
UPRIGHT = (
    (re.compile("recurser/.*/Landscape_[1-8].jpg"), 4),
    (re.compile("recurser/.*/Portrait_[1-8].jpg"), 4),
    (re.compile(".*/hopper_orientation_[2-8].webp"), 8),
    (re.compile(".*/avif/rot[0-3]mir[01].avif"), 12),
)


def not_upright(photos: dict[str, Pixels]) -> list[str]:
    """Images of `UPRIGHT` that do not show the same as the first of their kind."""
    faults = []
    for kind, levels in UPRIGHT:
        names = sorted(name for name in photos if kind.fullmatch(name))
        faults += [f"{name} is not upright" for name in names if _apart(photos[names[0]], photos[name]) > levels]
    return faults


def run(top: Path) -> SuiteResult:
    """Judges all images of all repositories, as many at once as there are processors."""
    result = SuiteResult("other projects' images, against OpenCV", versions_of("pillow", "opencv-python-headless"), 0)
    result.figures = {"seconds at most": 0.0, "MB at most": 0.0}
    turned: dict[str, Pixels] = {}
    with ProcessPoolExecutor() as pool, Terminal().track("photos", 0) as advance:
        for name, under in REPOSITORIES.items():
            head = ["git", "-C", str(top / name), "rev-parse", "HEAD"]
            result.versions[name] = subprocess.run(head, capture_output=True, text=True, check=True).stdout[:12]
            files = dict(images(top / name, under))
            judged = pool.map(judge, [f"{name}/{path}" for path in files], files.values())
            for (path, data), verdict in zip(files.items(), judged, strict=True):
                _count(result, name, path, data, verdict)
                advance(1, path)
            names = [path for path in files if any(kind.fullmatch(f"{name}/{path}") for kind, _ in UPRIGHT)]
            turned |= {f"{name}/{path}": decode(files[path]).astype(np.float32) for path in names}
    result.faults += not_upright(turned)
    words = Counter(word[17:].partition(":")[0] for found in result.details.values() for word in found.values())
    result.figures |= {word: float(count) for word, count in sorted(words.items())} | {"upright": float(len(turned))}
    return result


def _count(result: SuiteResult, name: str, path: str, data: bytes, verdict: Verdict) -> None:
    """Adds an image's verdict to a result."""
    digest = hashlib.sha256(data).hexdigest()[:16]
    result.cases += 1
    result.details.setdefault(name, {})[path] = f"{digest} {verdict.word}"
    result.faults += [f"{name}/{path}: {verdict.fault}"] if verdict.fault else []
    result.figures["seconds at most"] = max(result.figures["seconds at most"], verdict.seconds)
    result.figures["MB at most"] = max(result.figures["MB at most"], verdict.megabytes)


if __name__ == "__main__":
    if len(sys.argv) != 2 or not Path(sys.argv[1]).is_dir():
        sys.exit(f"usage: {sys.argv[0]} DIR, with clones of {', '.join(REPOSITORIES)} in DIR")
    result = run(Path(sys.argv[1]))
    store("photos", result)
    sys.exit(bool(result.faults))
