"""The commands of docs/own_photos.md, on a folder of photos with planted faults, and what each of them finds.

    CALTECH101=folder NET=run python examples/own_photos.py run     # NET: a run or a weight file, such as oxford-E
    python examples/own_photos.py write     # the stored results into docs/own_photos.md

`PHOTOS` photos of each of five classes of Caltech-101 are spread over the folders train, val and test. Of some photos
of train there is a copy in test: re-encoded at three quarters of the size, cropped to 90 % of each side, or mirrored.
Some photos are in the folder of another class. The new photos are others of the five classes, and photos of other ones.
"""

from __future__ import annotations

import json
import os
import random
import resource
import shlex
import shutil
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from commands import TOP, run_json
from PIL import Image, ImageOps

from verydeep.checkpoints.run_dir import environment
from verydeep.core.files import read_json, write_json
from verydeep.paper.tables import markdown_table, write_block
from verydeep.reports.figures import photo_grid, png_of_figure

RESULTS, PICTURE = TOP / "docs" / "results" / "own_photos.json", TOP / "docs" / "pictures" / "own_photos.jpg"
HOME = Path(os.environ.get("OWN_PHOTOS", TOP / "runs" / "own_photos"))
CLASSES = ("butterfly", "chandelier", "ewer", "kangaroo", "ketch")
OTHERS = ("buddha", "hawksbill", "ibis", "laptop", "menorah")
PHOTOS, WRONG, COPIES, NEW, PERCENT = 58, 15, 10, 5, 5
SETS = ("train", "train", "train", "val", "test")  # of each five photos
QUICK = "--scales 224 --mirror no --threads 1 --workers 0"


@dataclass(frozen=True)
class Planted:
    """What was planted in ``photos``, as ids, and how many images there are; ``new`` has the new photos."""

    photos: Path
    new: Path
    wrong: frozenset[str]
    copies: frozenset[str]
    images: int


def plant(place: Path, source: Path, photos: int, wrong: int, copies: int) -> Planted:
    """Makes the folders from Caltech-101, ``photos`` of each class; the same for each call."""
    draw = random.Random(0)
    shutil.rmtree(place, ignore_errors=True)
    ids: list[str] = []
    for name in CLASSES:
        chosen = draw.sample(sorted((source / name).glob("*.jpg")), photos + NEW)
        for number, path in enumerate(chosen[:photos]):
            ids.append(f"{SETS[number % len(SETS)]}/{name}/{path.name}")
        for path in chosen[photos:]:
            _copy(path, place / "new" / name / path.name)
    for name in OTHERS:
        for path in draw.sample(sorted((source / name).glob("*.jpg")), NEW):
            _copy(path, place / "new" / name / path.name)
    copied = draw.sample([image for image in ids if image.startswith("train/")], copies)
    mislabelled = set(draw.sample([image for image in ids if image not in copied], wrong))
    found = []
    for image in ids:
        part, name, file = image.split("/")
        label = draw.choice([other for other in CLASSES if other != name]) if image in mislabelled else name
        id_ = f"{part}/{label}/{name}_{file}"
        _copy(source / name / file, place / "photos" / id_)
        found += [id_] if image in mislabelled else []
    for number, image in enumerate(copied):
        _, name, file = image.split("/")
        _change(source / name / file, place / "photos" / "test" / name / f"copy_{name}_{file}", number)
    pairs = frozenset("{1}_{2}".format(*image.split("/")) for image in copied)
    return Planted(place / "photos", place / "new", frozenset(found), pairs, len(ids) + copies)


def _copy(source: Path, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, path)
    path.chmod(0o644)


def _change(source: Path, path: Path, number: int) -> None:
    """A copy of a photo, changed in one of three ways."""
    picture = Image.open(source).convert("RGB")
    wide, high = picture.size
    crop = (wide // 20, high // 20, wide * 19 // 20, high * 19 // 20)
    changed = (picture.resize((3 * wide // 4, 3 * high // 4)), picture.crop(crop), ImageOps.mirror(picture))
    path.parent.mkdir(parents=True, exist_ok=True)
    changed[number % 3].save(path, quality=60)


def walk(planted: Planted, net: str, flags: str, percent: float) -> dict[str, Any]:
    """Runs the commands of the page and checks what each found; returns it with the seconds of each.

    Args:
        flags: of `data check` and `probe`, both the same, so that descriptors are computed once.
    """
    out = shlex.quote(str(planted.photos.with_name("own")))
    photos, new = shlex.quote(str(planted.photos)), shlex.quote(str(planted.new))
    result, times = _timed(f"data check {photos} --weights {net} {flags} --out {out}", status=1)
    check: dict[str, Any] = {**_checked(result, planted), **times}
    result, times = _timed(f"probe --data {photos} --weights {net} {flags} --exclude {out}/suspects.csv --out {out}")
    probe = {**_probed(result, check["listed"]), **times}
    result, times = _timed(f"predict {out} {new} --reject-at {percent:g} --threads 1")
    predict = {**_predicted(result), **times}
    other = next((planted.new / OTHERS[0]).iterdir())
    serve = _served(planted.photos.with_name("own"), other, percent)
    counts = {"images": planted.images, "wrong": len(planted.wrong), "copies": len(planted.copies)}
    return {"planted": counts, "check": check, "probe": probe, "predict": predict, "serve": serve}


def _timed(command: str, status: int = 0) -> tuple[Any, dict[str, float]]:
    """What a command prints, as `run_json`, and its seconds: those that passed, and of processors."""
    start, used = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    result = run_json(command, status)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime
    return result, {"seconds": round(time.monotonic() - start, 1), "processor_seconds": round(processor, 1)}


def _checked(result: dict[str, Any], planted: Planted) -> dict[str, int]:
    """How many of the planted faults `data check` lists."""
    found = result["suspects"]
    groups = [{Path(image["image"]).name for image in group["images"]} for group in found["groups"]]
    doubtful = {row["image"] for row in found["suspects"] if row["suggested"]}
    joined = [any({name, f"copy_{name}"} <= group for group in groups) for name in planted.copies]
    counts = {"wrong": len(doubtful & planted.wrong), "doubtful": len(doubtful), "copies": sum(joined)}
    assert counts["wrong"] >= 0.8 * len(planted.wrong), counts
    assert counts["copies"] >= 0.8 * len(planted.copies), counts
    return {**counts, "groups": len(groups), "listed": len(found["suspects"])}


def _probed(result: dict[str, Any], listed: int) -> dict[str, Any]:
    """The classifier's results; the descriptors are those of `data check`, and the listed photos are left out."""
    (split,), (images,) = result["splits"], result["images"]
    assert (result["described"], result["excluded"]) == (0, listed)
    assert split["temperature"] is not None
    page = Path(result["page"]).read_text()
    assert "Thresholds of --reject-at" in page
    assert 'href="suspects.html"' in page
    names = ("top1_error", "temperature", "ece", "nll")
    return {**images, **{name: split[name] for name in names}}


def _predicted(result: list[dict[str, Any]]) -> dict[str, Any]:
    """What the rule does to new photos of the classes, and to those of others."""
    rows = [
        {
            "image": "/".join(Path(one["image"]).parts[-2:]),
            "unknown": one["unknown"],
            "class": one["predictions"][0]["class"],
            "probability": one["predictions"][0]["probability"],
        }
        for one in result
    ]
    known = [row for row in rows if Path(row["image"]).parent.name in CLASSES]
    others = [row for row in rows if row not in known]
    answered = [row for row in known if not row["unknown"]]
    wrong = [row for row in answered if row["class"] != Path(row["image"]).parent.name]
    rejected = [row for row in others if row["unknown"]]
    assert len(known) == len(CLASSES) * NEW
    assert len(others) == len(OTHERS) * NEW
    assert len(rejected) / len(others) > 1 - len(answered) / len(known)
    counts = {"known": len(known), "answered": len(answered), "wrong": len(wrong)}
    return {**counts, "others": len(others), "rejected": len(rejected), "photos": rows}


def _served(run: Path, photo: Path, percent: float) -> dict[str, Any]:
    """What the server says of itself and of a photo; it is stopped."""
    words = ["serve", str(run), "--reject-at", f"{percent:g}", "--port", "0", "--threads", "1", "--json"]
    with subprocess.Popen([sys.executable, "-m", "verydeep", *words], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            address = json.loads("".join(server.stdout.readline() for _ in range(3)))["address"]
            with urllib.request.urlopen(f"{address}info") as reply:
                info = json.load(reply)
            with urllib.request.urlopen(f"{address}predict", photo.read_bytes()) as reply:
                predicted = json.load(reply)
        finally:
            server.terminate()
    assert info["threshold"] is not None
    return {"threshold": info["threshold"], "unknown": predicted["unknown"]}


def run() -> None:
    """Plants, walks, and stores the results with a picture of new photos."""
    source = Path(os.environ["CALTECH101"]).resolve()
    planted = plant(HOME, source, PHOTOS, WRONG, COPIES)
    steps = walk(planted, "$NET", QUICK, PERCENT)
    write_json(RESULTS, {**steps, "environment": environment({"cores": os.cpu_count()})})
    shown = []
    for row in steps["predict"]["photos"][::NEW]:  # the first of each class
        text = "unknown" if row["unknown"] else f"{row['class']} {100 * row['probability']:.0f} %"
        with Image.open(planted.new / row["image"]) as opened:
            shown.append((np.asarray(opened.convert("RGB")), f"{Path(row['image']).parent.name}:\n{text}"))
    with Image.open(BytesIO(png_of_figure(photo_grid(shown)))) as grid:
        grid.convert("RGB").save(PICTURE, quality=85)


def write() -> None:
    """Writes the stored results into docs/own_photos.md."""
    stored = read_json(RESULTS)
    planted, check, probe, predict = (stored[name] for name in ("planted", "check", "probe", "predict"))
    found = {
        "check": f"{check['wrong']} of {planted['wrong']} wrong labels and {check['copies']} of {planted['copies']} "
        f"copies across sets; {check['listed']} of {planted['images']} photos are listed in all",
        "probe": f"trained on {probe['fit'] + probe['dev']} photos; on {probe['test']} others top-1 error "
        f"{probe['top1_error']:.1f} %, ECE of the calibrated probabilities {probe['ece']:.1f} %",
        "predict": f"{predict['answered']} of {predict['known']} new photos of the five classes are answered, "
        f"{predict['wrong']} of them wrongly; {predict['rejected']} of {predict['others']} photos of other classes are "
        "unknown",
    }
    names = {"check": "`data check`", "probe": "`probe`", "predict": f"`predict --reject-at {PERCENT}`"}
    kinds = ("seconds", "processor_seconds")
    rows = [[names[step], text, *(f"{stored[step][kind]:.0f}" for kind in kinds)] for step, text in found.items()]
    where = stored["environment"]
    minutes, busy = (sum(stored[step][kind] for step in names) / 60 for kind in kinds)
    note = (
        f"{minutes:.1f} minutes in all, of which a processor worked {busy:.1f}: one thread beside other work, with "
        f"`{QUICK}`; net E. {where['processor']}, {where['time'][:10]}, commit {where['commit']}."
    )
    heads = ["command", "found", "seconds", "of a processor"]
    write_block(TOP / "docs" / "own_photos.md", "own photos", f"{markdown_table(heads, rows)}\n\n{note}")


if __name__ == "__main__":
    {"run": run, "write": write}[sys.argv[1]]()
