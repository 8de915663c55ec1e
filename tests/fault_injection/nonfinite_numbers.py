"""R9: numbers that are none, in photos, losses, gradients, weights, files; rates far too high."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from harness import TINY, TRAIN, Outcome, command, differences, done, each
from PIL import Image
from safetensors.torch import save
from torch import Tensor

from verydeep.checkpoints.checkpoint import METADATA_KEY, load_checkpoint, read_safetensors
from verydeep.checkpoints.integrity import write_sealed

LAST, BEST = "last.safetensors", "best.safetensors"
NOT_FINITE = (
    r"(?:the loss or its gradient is|the dev part's posteriors are) not finite at step (\d+) \(epoch \d+, .*"
    r"Train again with a lower learning rate"
)
FRESH: list[object] = [*TRAIN, "--max-epochs", 3, "--quiet"]
Change = Callable[[dict[str, Tensor]], object]


@dataclass(frozen=True)
class Case:
    """What is made in a trial's folder beside the good run, what is typed, and how it ends.

    ``step``: the step at which it has to stop, at the earliest and at the latest; ``says``: another sentence; neither
    where it has to train to its end.
    """

    make: Callable[[Path], object]
    typed: list[object]
    step: tuple[int, int] | None = None
    says: str = ""


def _nothing(folder: Path) -> None:
    """The typed settings alone are what is wrong."""


def _changed(folder: Path, name: str, change: Change) -> None:
    """The good run, with other tensors in a file, sealed as ours are."""
    shutil.copytree(folder.parent / "whole", folder / "run")
    metadata, tensors = read_safetensors(folder / "run" / name)
    change(tensors)
    write_sealed(folder / "run" / name, save(tensors, {METADATA_KEY: metadata[METADATA_KEY]}))


def _infinite_file(folder: Path) -> None:
    """A weight file as torchvision's, of which one weight is infinite."""
    done("convert", "whole", "whole.pth", "--to", "torchvision", cwd=folder.parent / "of-files")
    tensors = torch.load(folder.parent / "of-files" / "whole.pth", weights_only=True)
    tensors["features.3.weight"][0, 0, 0, 0] = float("inf")
    torch.save(tensors, folder / "x.pth")


def _large(tensors: dict[str, Tensor]) -> None:
    """Finite weights whose scores are not."""
    for name in ("fc6.weight", "fc7.weight", "fc8.weight"):
        tensors[name] *= 1e20


def _steep(tensors: dict[str, Tensor]) -> None:
    """Finite weights with a finite loss whose gradient is not: fc6's small outputs are made large again."""
    for name, factor in (("fc6.weight", 1e-30), ("fc6.bias", 0), ("fc7.weight", 1e22), ("fc8.weight", 1e22)):
        tensors[name] *= factor


def _float_photos(folder: Path) -> None:
    """TIFF's floating-point pixels, which may be no numbers."""
    _photos(folder)
    pixels = np.full((40, 40), np.nan, dtype=np.float32)
    for number in range(12):  # so many that some are trained on
        Image.fromarray(pixels).save(folder / "photos" / "a" / f"nan{number}.tif")


def _photos(folder: Path, level: int | None = None) -> None:
    """Photos of noise, or all of one grey level, whose spread is then nothing."""
    for number in range(24):
        rng = np.random.default_rng([9, number])
        pixels = (
            rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)
            if level is None
            else np.full((40, 40, 3), level, np.uint8)
        )
        place = folder / "photos" / "ab"[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(place / f"{number}.png")


def _not_a_number(tensors: dict[str, Tensor]) -> None:
    tensors["conv3_1.weight"][0, 0, 0, 0] = float("nan")


OF_PHOTOS: list[object] = ["train", "A", "--data", "photos", *TINY, "--workers", 1, "--max-epochs", 2, "--out", "run"]
STARTED: list[object] = [*FRESH, "--start", "run", "--out", "again"]
FROM_FILE: list[object] = [*FRESH, "--start", "x.pth", "--preprocessing", "torchvision"]
CASES = (
    Case(_nothing, [*FRESH, "--lr", 1e6, "--out", "run"], step=(2, 4)),
    Case(_nothing, [*FRESH, "--lr", 3, "--momentum", 0.9999, "--max-epochs", 30, "--out", "run"], step=(2, 450)),
    Case(lambda folder: _changed(folder, BEST, _large), STARTED, step=(1, 1)),
    Case(lambda folder: _changed(folder, BEST, _steep), STARTED, step=(1, 1)),
    Case(
        lambda folder: _changed(folder, BEST, _not_a_number), STARTED, says=r"NaN or infinite values in conv3_1\.weight"
    ),
    Case(
        _infinite_file,
        [*FROM_FILE, "--out", "run"],
        says=r"x\.pth has NaN or infinite values in conv2_1",
    ),
    Case(_float_photos, OF_PHOTOS, says=r"nan\d+\.tif .*floating-point pixels"),
    Case(lambda folder: _photos(folder, 0), OF_PHOTOS),
)
TRIALS = len(CASES) + 1


def lost_numbers(place: Path, trials: int, advance: Callable[[], object]) -> Outcome:
    """Each trial trains with something wrong, looks how that ends and what is kept, and goes on where it can.

    A trial after all cases puts a NaN into a run's last checkpoint.
    """
    done(*FRESH, "--out", "whole", cwd=place)
    (place / "of-files").mkdir()
    shutil.copytree(place / "whole", place / "of-files" / "whole")

    def one(number: int) -> list[str]:
        folder = place / f"trial-{number}"
        folder.mkdir()
        if number >= len(CASES):
            return _last_is_broken(place, folder)
        case = CASES[number]
        case.make(folder)
        return _tried(case, folder)

    return each(trials, one, advance)


def _tried(case: Case, folder: Path) -> list[str]:
    ended, run = command(*case.typed, cwd=folder), folder / str(case.typed[-1])
    if not (case.step or case.says):
        return [f"status {ended.returncode}: {ended.stderr[-300:]}"] if ended.returncode else _not_good(run)
    faults = _sentence(ended)
    if case.says:
        faults += [] if re.search(case.says, ended.stderr) else [f"not told {case.says}: {ended.stderr[-300:]}"]
        return faults + ([f"{run.name} was left without a step"] if run.exists() else [])
    told = re.search(NOT_FINITE, ended.stderr)
    low, high = case.step or (0, 0)
    if told is None or not low <= int(told[1]) <= high:
        return [*faults, f"no stop at a step from {low} to {high}: {ended.stderr[-300:]}"]
    return faults + _not_good(run) + _goes_on(case, folder, run, told[0])


def _sentence(ended: subprocess.CompletedProcess[str]) -> list[str]:
    one = ended.stderr.count("verydeep: ") == 1 and "Traceback" not in ended.stderr and ended.returncode == 2
    return [] if one else [f"status {ended.returncode}, not one sentence: {ended.stderr[-300:]}"]


def _not_good(run: Path) -> list[str]:
    """Checkpoints that cannot be read, or hold what is no number, momentum too."""
    faults = []
    for path in run.glob("*.safetensors"):
        found = load_checkpoint(path)
        tensors = [*found.weights.values(), *found.momentum.values()]
        if not all(bool(value.isfinite().all()) for value in tensors):
            faults.append(f"{path.name} is not finite")
    return faults if (run / LAST).exists() else [*faults, "no checkpoint was kept"]


def _goes_on(case: Case, folder: Path, run: Path, told: str) -> list[str]:
    """Resumed, a run stops at the same step again; begun anew with the advice, from what was kept, it ends well."""
    again = command(*case.typed, "--resume", cwd=folder)
    faults = _sentence(again) if told in again.stderr else [f"resumed, not told the same: {again.stderr[-300:]}"]
    if "--lr" not in case.typed:
        return faults + _not_good(run)
    better = command(*FRESH, "--lr", 0.01, "--start", f"{run.name}/{LAST}", "--out", "better", cwd=folder)
    faults += [f"from what was kept: {better.stderr[-300:]}"] if better.returncode else _not_good(folder / "better")
    return faults + _not_good(run)


def _last_is_broken(place: Path, folder: Path) -> list[str]:
    """A NaN in the last checkpoint, under a seal that fits: the one before is taken, to the unbroken run's end."""
    _changed(folder, LAST, _not_a_number)
    ended = command(*FRESH, "--resume", "--out", "run", cwd=folder)
    if ended.returncode or not re.search(r"NaN or infinite values in conv3_1.*previous checkpoint", ended.stderr):
        return [f"status {ended.returncode}: {ended.stderr[-300:]}"]
    return differences(place / "whole", folder / "run")
