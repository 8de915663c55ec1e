"""R6: odd photos, PngSuite, and photos with bytes changed: refused or read, soon, in little memory, never mistaken."""

from __future__ import annotations

import csv
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from harness import TRAIN, Outcome, command, done, environment

from verydeep.core.errors import VerydeepError
from verydeep.data.image_io import read_image

EXTERNAL = Path(__file__).resolve().parents[3] / "shared" / "external"
SECONDS, MEGABYTES = 5.0, 300.0
MIXED = 40  # changed photos among good ones that a net is asked about


def photos(place: Path, trials: int, advance: Callable[[], object]) -> Outcome:
    """Reads each in a process that is watched, and asks a net about good and bad ones together."""
    child = subprocess.run(
        [sys.executable, __file__, str(place), str(trials)],
        capture_output=True,
        text=True,
        check=False,
        timeout=1200,
        env=environment(),
    )
    if child.returncode:
        return Outcome(trials, [f"the process that reads ended with {child.returncode}: {child.stderr[-500:]}"])
    told = json.loads(child.stdout)
    for _ in range(told["read"] + told["refused"]):
        advance()
    faults = told["faults"] + _mixed(place)
    if told["slowest"] > SECONDS or told["megabytes"] > MEGABYTES:
        faults.append(f"the slowest took {told['slowest']:.1f} s, and memory grew by {told['megabytes']:.0f} MB")
    figures = {name: told[name] for name in ("read", "refused", "slowest", "megabytes")}
    return Outcome(told["read"] + told["refused"], faults, figures)


def _mixed(place: Path) -> list[str]:
    """Good photos keep their answers whatever stands between them."""
    done(*TRAIN, "--max-epochs", 1, "--quiet", "--out", "run", cwd=place)
    good = sorted((EXTERNAL / "pngsuite" / "png").glob("bas*.png"))
    alone = json.loads(command("predict", "run", *good, "--json", cwd=place).stdout)
    bad = sorted((place / "changed").iterdir())[:MIXED]
    both = [path for pair in zip(bad, [*good] * 4, strict=False) for path in pair]
    ended = command("predict", "run", *both, "--json", cwd=place)
    answers = {row["image"]: row["predictions"] for row in json.loads(ended.stdout)}
    mistaken = [row["image"] for row in alone if answers.get(row["image"]) != row["predictions"]]
    return [f"{name} has another answer among broken photos" for name in mistaken]


def _wanted() -> list[tuple[Path, str]]:
    """Photos from elsewhere, and what is to happen to each."""
    with (EXTERNAL / "odd_images" / "INDEX.tsv").open() as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    odd = [(EXTERNAL / "odd_images" / row["file"], row["action"]) for row in rows]
    known = set(np.load(EXTERNAL / "pngsuite" / "expected_rgba.npz").files)
    suite = sorted((EXTERNAL / "pngsuite" / "png").glob("*.png"))
    return odd + [(path, "LOAD" if path.stem in known else "REJECT") for path in suite]


def _changed(place: Path, count: int) -> list[Path]:
    """Photos with bytes changed, put in or taken out."""
    sources = [path for path, action in _wanted() if action == "LOAD"]
    folder = place / "changed"
    folder.mkdir()
    found = []
    for number in range(count):
        rng, source = np.random.default_rng([6, number]), sources[number % len(sources)]
        data = bytearray(source.read_bytes())
        for _ in range(int(rng.integers(1, 20))):
            at, kind = int(rng.integers(0, len(data))), int(rng.integers(0, 4))
            some = rng.integers(0, 256, int(rng.integers(1, 64)), dtype=np.uint8).tobytes()
            if kind == 0:
                data[at] ^= 1 << int(rng.integers(0, 8))
            elif kind == 1:
                data[at] = some[0]
            elif kind == 2 and len(data) > 2 * len(some):
                del data[at : at + len(some)]
            else:
                data[at:at] = some
        found.append(folder / f"{number:04d}{source.suffix}")
        found[-1].write_bytes(data)
    return found


def _read_all(place: Path, trials: int) -> None:
    """In a process of its own: all are read; what happened goes to stdout."""
    wanted = _wanted()
    changed = _changed(place, max(MIXED, trials - len(wanted)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    read, slowest, faults = 0, 0.0, []
    everything = [*wanted, *((path, "EITHER") for path in changed)]
    for path, action in everything:
        began = time.monotonic()
        try:
            pixels = read_image(path)
            read += 1
            if action == "REJECT" or pixels.dtype != np.uint8:
                faults.append(f"{path.name} was read")
        except VerydeepError as fault:
            if action == "LOAD":
                faults.append(f"{path.name} was refused: {fault}")
        slowest = max(slowest, time.monotonic() - began)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    refused = len(everything) - read
    print(json.dumps({"read": read, "refused": refused, "slowest": slowest, "megabytes": grown, "faults": faults}))


if __name__ == "__main__":
    _read_all(Path(sys.argv[1]), int(sys.argv[2]))
