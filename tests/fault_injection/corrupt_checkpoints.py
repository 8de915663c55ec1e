"""R4: checkpoints that are truncated, have a bit flipped, or are of another run; `--resume` takes the one before."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from harness import TINY, TRAIN, Outcome, command, differences, done, each
from safetensors.torch import load_file, save

from verydeep.checkpoints.checkpoint import METADATA_KEY, read_header
from verydeep.checkpoints.integrity import write_sealed

LAST = "last.safetensors"
EPOCHS = 3
KINDS = ("truncated", "foreign", *["flipped"] * 10)  # of trials, in turn


def damages(place: Path, trials: int, advance: Callable[[], object]) -> Outcome:
    """Each trial damages the last checkpoint of a run, lets it go on, and looks where it ends."""
    base: list[object] = [*TRAIN, "--max-epochs", EPOCHS]
    done(*base, "--out", "whole", cwd=place)
    others = _others(place)

    def one(number: int) -> list[str]:
        rng, run = np.random.default_rng([4, number]), place / f"trial-{number}"
        shutil.copytree(place / "whole", run)
        turn, place_in_turn = divmod(number, len(KINDS))
        kind = KINDS[place_in_turn]
        if kind == "foreign":
            shutil.copy(others[turn % len(others)], run / LAST)
        else:
            (run / LAST).write_bytes(_damaged((run / LAST).read_bytes(), kind, rng))
        ended = command(*base, "--out", run.name, "--resume", cwd=place)
        if ended.returncode:
            return [f"{kind}: ended with {ended.returncode}: {ended.stderr[-300:]}"]
        told = [line for line in ended.stderr.splitlines() if LAST in line and "previous checkpoint" in line]
        faults = [] if told else [f"{kind}: nothing was told of {LAST}"]
        faults += differences(place / "whole", run)
        shutil.rmtree(run)
        return faults

    return each(trials, one, advance)


def _damaged(data: bytes, kind: str, rng: np.random.Generator) -> bytes:
    if kind == "truncated":
        return data[: int(rng.integers(0, len(data)))]
    # Half of the bits in the header, which is a hundredth of the file.
    header = 8 + int.from_bytes(data[:8], "little")
    bit = int(rng.integers(0, 8 * (header if rng.random() < 0.5 else len(data))))
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def _others(place: Path) -> list[Path]:
    """Whole checkpoints that are not of the run: of another net, of other classes, of another rate, lacking a layer."""
    ways: dict[str, list[object]] = {
        "net": ["train", "B", "--data", "digits:120", *TINY],
        "classes": [*TRAIN, "--classes", "0,1,2,3,4"],
        "rate": [*TRAIN, "--lr", 0.02],
    }
    for name, way in ways.items():
        done(*way, "--max-epochs", 1, "--out", name, cwd=place)
    metadata, tensors = read_header(place / "whole" / LAST)[0], load_file(place / "whole" / LAST)
    del tensors["conv4_1.weight"]
    write_sealed(place / "lacking.safetensors", save(tensors, {METADATA_KEY: metadata[METADATA_KEY]}))
    return [*(place / name / LAST for name in ways), place / "lacking.safetensors"]
