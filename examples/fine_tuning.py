"""Fine-tuning on small sets of real photos: does it diverge, and what does it gain over its first epochs and a probe?

    CALTECH101=folder NET_D_CONV=file NET_E=run python examples/fine_tuning.py run [HOURS [K/N]]
    python examples/fine_tuning.py write     # the stored results into docs/train.md

Sets of 2 to 102 classes of Caltech-101 are folders of links, `train/` and `val/`, drawn once. Each run trains as a
user would, by the recipe for own photos; a run of one step beside it is the start as it was fitted. Both nets are
tested on the same photos by their centre crop, and so is `verydeep probe` on the same split. There are two starts: net
D's convolutions alone (its FC layers are then new), and net E whole. At a crop of 224 only the FC layers learn, on
windows of whole photos, and the net is tested densely too. Each part is stored when it ends and not repeated; after
HOURS no further part starts. Several processes can share the work: the Kth of N runs every Nth part.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from commands import TOP, run_json

from verydeep.checkpoints.run_dir import environment
from verydeep.core.files import read_json, write_json
from verydeep.paper.tables import markdown_table, write_block

RESULTS = TOP / "docs" / "results" / "fine_tuning.json"
RUNS = Path(os.environ.get("FINE_TUNING_RUNS", TOP / "runs" / "fine-tuning"))
# Classes: photos of each to train on (a sixth of them decides), and to test on.
SETS = {2: (36, 44), 5: (36, 30), 10: (36, 20), 23: (30, 10), 50: (26, 5), 102: (12, 3)}
STARTS = {"D": "net D's convolutions", "E": "net E whole"}
START_FLAGS = {"D": "--start $NET_D_CONV --preprocessing caffe", "E": "--start $NET_E"}
CROPS = {96: ("", "@110"), 224: ("--learn fc --context photo --colour-shift off", "@256")}
LARGEST_AT_224 = 50  # classes: larger sets would take hours
SEEDS = (0, 1, 2)
QUIETLY = "--threads 1 --workers 0"


@dataclass(frozen=True)
class Run:
    """One training: how many classes, which start, crop and seed."""

    classes: int
    net: str
    crop: int
    seed: int

    @property
    def name(self) -> str:
        """Its folder's name and its key in the stored results."""
        return f"{self.classes}-{self.net}-{self.crop}-{self.seed}"


def make_sets() -> None:
    """The sets as folders of links."""
    photos = Path(os.environ["CALTECH101"]).resolve()
    names = sorted(folder.name for folder in photos.iterdir() if folder.is_dir())
    for count, (train, test) in SETS.items():
        own = [name for name in names if name not in ("BACKGROUND_Google", "Faces_easy")]  # no class; Faces, cropped
        enough = [name for name in own if len(list((photos / name).glob("*.jpg"))) >= min(train + test, 80)]
        chosen = sorted(random.Random(count).sample(enough, count)) if count <= len(enough) else names
        for name in chosen:
            files = sorted((photos / name).glob("*.jpg"))
            random.Random(f"{count} {name}").shuffle(files)
            for part, chosen_files in (("train", files[:train]), ("val", files[train : train + test])):
                place = RUNS / "sets" / str(count) / part / name
                place.mkdir(parents=True, exist_ok=True)
                for photo in chosen_files:
                    if not (place / photo.name).exists():
                        (place / photo.name).symlink_to(photo)


def train_and_test(run: Run) -> dict[str, Any]:
    """The fitted start and the end of a run, and their tests, as stored."""
    layers, protocol = CROPS[run.crop]
    base = f"train {run.net} --data {RUNS}/sets/{run.classes} --dev-fraction 0.1667 --crop {run.crop} {layers} "
    base += f"{START_FLAGS[run.net]} --seed {run.seed} {QUIETLY}"
    start = time.monotonic()
    result = asdict(run)
    for phase, steps in (("fitted", "--max-steps 1"), ("end", "")):
        place = RUNS / f"{run.name}-{phase}"
        shutil.rmtree(place, ignore_errors=True)
        trained = _trained(f"{base} {steps} --out {place}", place)
        result |= {"commit": read_json(place / "environment.json")["commit"]}
        result[phase] = {"training": trained, "test": _tested(place, f"centre{protocol}")}
        if run.crop == 224:
            result[phase]["dense"] = _tested(place, f"dense{protocol}")
        shutil.rmtree(place)
    return {**result, "seconds": round(time.monotonic() - start, 1)}


def _tested(place: Path, protocol: str) -> dict[str, Any]:
    tested = run_json(f"evaluate {place} {protocol} {QUIETLY}")
    return {name: tested[name] for name in ("protocol", "images", "top1_error", "top1_error_interval")}


def _trained(command: str, place: Path) -> dict[str, Any]:
    """The training's result.json, also of one that diverged."""
    with suppress(subprocess.CalledProcessError):
        run_json(command)
    return {name: value for name, value in read_json(place / "result.json").items() if name != "folder"}


def probe(classes: int, net: str) -> dict[str, Any]:
    """`verydeep probe` by the same start on the same split, one scale and no mirror images."""
    place = RUNS / f"probe-{classes}-{net}"
    flags = START_FLAGS[net].replace("--start", "--weights")
    result = run_json(f"probe --data {RUNS}/sets/{classes} {flags} --scales 224 --mirror no {QUIETLY} --out {place}")
    shutil.rmtree(place)
    figures = {name: result[name] for name in ("top1_error", "dimensions", "described", "seconds")}
    return {"classes": classes, "net": net, "probe": figures}


def parts() -> list[tuple[str, Callable[[], dict[str, Any]]]]:
    """Every part by name, the most informative first."""
    parts: list[tuple[str, Callable[[], dict[str, Any]]]] = []
    for seed, crop, classes, net in product(SEEDS, CROPS, SETS, STARTS):
        run = Run(classes, net, crop, seed)
        if crop == 96 or classes <= LARGEST_AT_224:
            parts.append((run.name, partial(train_and_test, run)))
        if (seed, crop) == (0, 96):
            parts.append((f"{classes}-{net}-probe", partial(probe, classes, net)))
    return parts


def run(hours: float, place: int, of: int) -> None:
    """Runs the missing parts."""
    make_sets()
    until = time.monotonic() + 3600 * hours
    for name, work in parts()[place - 1 :: of]:
        stored = RUNS / "parts" / f"{name}.json"
        if stored.exists() or name in _stored() or time.monotonic() > until:
            continue
        print(name, flush=True)
        write_json(stored, work() | {"environment": environment({"cores": os.cpu_count()})})


def _stored() -> dict[str, Any]:
    """The completed parts by name: those in docs, and those completed since."""
    stored = dict(read_json(RESULTS)) if RESULTS.exists() else {}
    return stored | {path.stem: read_json(path) for path in sorted((RUNS / "parts").glob("*.json"))}


def write() -> None:
    """Stores all parts in docs, and the table of them in docs/train.md."""
    stored = _stored()
    write_json(RESULTS, stored)
    runs = [part for part in stored.values() if "end" in part]
    rows = []
    for classes, net, crop in sorted({(run["classes"], run["net"], run["crop"]) for run in runs}):
        same = [run for run in runs if (run["classes"], run["net"], run["crop"]) == (classes, net, crop)]
        probed = stored.get(f"{classes}-{net}-probe")
        rows.append(
            [
                *(str(classes), STARTS[net], f"{crop}{', FC layers' if CROPS[crop][0] else ''}", str(len(same))),
                *(str(same[0]["end"]["test"]["images"]), _spread(same, "fitted"), _spread(same, "end")),
                _spread(same, "end", "dense") if crop == 224 else "",
                f"{probed['probe']['top1_error']:.1f}" if probed else "",
                str(sum(len(run["end"]["training"]["returns"]) for run in same)),
            ]
        )
    columns = ["classes", "start", "crop", "seeds", "test photos", "fitted start", "end", "dense", "probe", "restarts"]
    ended = [run["end"]["training"]["ended"] for run in runs]
    first = [(run["fitted"]["test"], run["end"]["test"]["top1_error"]) for run in runs]
    worse = sum(error > before["top1_error_interval"][1] for before, error in first)
    where = next(iter(stored.values()))["environment"]
    commits = sorted({run["commit"] for run in runs})
    dates = sorted({part["environment"]["time"][:10] for part in stored.values()})
    note = (
        "Top-1 error in percent on held-out photos: mean over seeds (minimum–maximum). Fitted start: FC layers fitted, "
        "before fine-tuning; end: afterwards, on the centre crop; dense: the same net on whole photos. Restarts: "
        "returns to the best epoch after divergence. "
        f"{len(runs)} runs: {ended.count('diverged')} diverged, {worse} ended above the 95 % interval of the "
        "fitted start's error. The probe uses one scale, Q = 224, without mirror images. "
        f"{where['processor']}, {where['cores']} cores, torch {where['versions']['torch']}, {' and '.join(dates)}, "
        f"trained at commit {', '.join(commits)}."
    )
    heading = "Measured on small sets of Caltech-101, by `python examples/fine_tuning.py run`:"
    write_block(TOP / "docs" / "train.md", "fine-tuning", f"{heading}\n\n{markdown_table(columns, rows)}\n\n{note}")


def _spread(runs: list[dict[str, Any]], phase: str, test: str = "test") -> str:
    errors = [run[phase][test]["top1_error"] for run in runs]
    spread = f" ({min(errors):.1f}–{max(errors):.1f})" if len(errors) > 1 else ""
    return f"{sum(errors) / len(errors):.1f}{spread}"


if __name__ == "__main__":
    if sys.argv[1] == "run":
        of_all = sys.argv[3].split("/") if len(sys.argv) > 3 else ("1", "1")
        run(float(sys.argv[2]) if len(sys.argv) > 2 else float("inf"), int(of_all[0]), int(of_all[1]))
    else:
        write()
