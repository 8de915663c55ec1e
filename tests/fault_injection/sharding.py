"""R10: each photo counted once, by any number of processes, in batches of any size, of sets of any size.

    python -m torch.distributed.run --nproc-per-node 3 tests/fault_injection/sharding.py PLACE SIZES BATCHES

is one group of processes, which goes through all sizes and batches; without torchrun one process does. How many photos
share a batch is no setting, so the group changes the constant that says so.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from harness import Outcome, done, environment
from numpy.typing import NDArray
from PIL import Image

from verydeep.core.distributed import joined
from verydeep.core.files import write_json
from verydeep.core.settings import FeatureSettings, MachineSettings
from verydeep.core.team import Team
from verydeep.evaluation import inference as posteriors
from verydeep.evaluation.evaluate import prepare_evaluation
from verydeep.evaluation.metrics import wrong_at
from verydeep.evaluation.scores import load_scores
from verydeep.transfer.extract import extract_features
from verydeep.transfer.features_file import load_features

SIZES, BATCHES, RANKS = range(1, 18), range(1, 6), range(1, 5)
SCALES = (36, 44)
CLASSES = ("a", "b", "c")
SHAPES = ((48, 40), (40, 52), (44, 44))  # of photos: batches are of equal ones
NEAR = 1e-6
SHORT: list[object] = ["--crop", 32, "--width", 1 / 32, "--S", 36, "--batch", 8, "--threads", 1, "--start", "none"]


@dataclass(frozen=True)
class Answer:
    """What was found of a set: how many were counted, ids, errors, posteriors and descriptors."""

    counted: int
    ids: tuple[str, ...]
    wrong: int
    posteriors: NDArray[np.float32]
    described: tuple[str, ...]
    descriptors: NDArray[np.float32]


def counting(
    place: Path,
    _trials: int,
    advance: Callable[[], object],
    sizes: Iterable[int] = SIZES,
    batches: Iterable[int] = BATCHES,
    ranks: Iterable[int] = RANKS,
) -> Outcome:
    """A trial a size, batch and number of processes; each is compared with one process that takes photos one by one."""
    sizes, batches, ranks = list(sizes), list(batches), list(ranks)
    for size in sizes:
        _paint(place / f"photos-{size}", size)
    trained = ["train", "A", "--data", place / f"photos-{sizes[0]}", *SHORT, "--workers", 0, "--max-epochs", 1]
    done(*trained, "--lr", 1e-4, "--out", "run", cwd=place)
    faults, apart, same = [], [0.0, 0.0], 0
    for count in ranks:
        faults += _group(place, count, sizes, batches)
        for size in sizes:
            for batch in batches:
                found = _compared(place, size, batch, count, apart)
                faults += [f"size {size}, batch {batch}, {count} processes: {fault}" for fault in found[0]]
                same += found[1]
                advance()
    figures = {"posteriors apart": apart[0], "descriptors apart": apart[1], "equal to the bit": float(same)}
    return Outcome(len(sizes) * len(batches) * len(ranks), faults, figures)


def _paint(folder: Path, size: int) -> None:
    """Data that came split; the test set has so many photos, some of the wrong colour."""
    rng = np.random.default_rng([10, size])
    for part, count in (("train", 6), ("val", 3), ("test", size)):
        for number in range(count):
            height, width = SHAPES[number % len(SHAPES)]
            pixels = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
            pixels[:, :, int(rng.integers(0, 3))] //= 4
            path = folder / part / CLASSES[number % 3] / f"{number:02d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)


def _group(place: Path, count: int, sizes: list[int], batches: list[int]) -> list[str]:
    """One group of processes for all sizes and batches, and what went wrong with it."""
    start = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)] if count > 1 else []
    given = [str(place), ",".join(map(str, sizes)), ",".join(map(str, batches))]
    ended = subprocess.run(
        [sys.executable, *start, __file__, *given],
        capture_output=True,
        text=True,
        check=False,
        timeout=1800,
        env=environment(),
    )
    return [f"{count} processes ended with {ended.returncode}: {ended.stderr[-500:]}"] if ended.returncode else []


def _compared(place: Path, size: int, batch: int, count: int, apart: list[float]) -> tuple[list[str], bool]:
    """What is wrong with an answer, and whether it is that of one process to the bit; ``apart`` takes distances."""
    try:
        found, right = _answer(place, size, batch, count), _answer(place, size, 1, 1)
    except FileNotFoundError as fault:
        return [f"no answer ({fault})"], False
    faults = []
    for ids in (found.ids, found.described):
        if not len(set(ids)) == len(ids) == found.counted == size or ids != right.ids:
            faults.append(f"{found.counted} counted, and {len(ids)} ids: {ids}")
    if found.wrong != right.wrong:
        faults.append(f"{found.wrong} errors, not {right.wrong}")
    if faults:
        return faults, False
    pairs = ((found.posteriors, right.posteriors), (found.descriptors, right.descriptors))
    for number, (mine, theirs) in enumerate(pairs):
        distance = float(np.abs(mine - theirs).max() / np.abs(theirs).max())
        apart[number] = max(apart[number], distance)
        if distance > NEAR:
            faults.append(f"{('posteriors', 'descriptors')[number]} are {distance:.1e} apart")
    return faults, all(np.array_equal(mine, theirs) for mine, theirs in pairs)


def _where(place: Path, size: int, batch: int, count: int) -> Path:
    return place / "found" / f"{count}-{size}-{batch}"


def _answer(place: Path, size: int, batch: int, count: int) -> Answer:
    folder = _where(place, size, batch, count)
    told: dict[str, Any] = json.loads((folder / "told.json").read_text())
    scores, features = load_scores(folder), load_features(folder / "x.safetensors")
    wrong = wrong_at(scores.posteriors, scores.labels, 1)
    assert wrong is not None
    assert told["top1_error"] == round(100 * float(wrong.mean()), 4)
    descriptors = np.concatenate([features.scales[scale] for scale in SCALES], axis=1)
    return Answer(told["images"], scores.ids, int(wrong.sum()), scores.posteriors, features.ids, descriptors)


def _work(place: Path, sizes: list[int], batches: list[int], team: Team) -> None:
    """In each process of a group: all sizes and batches."""
    here, how = MachineSettings(workers=0, threads=1), FeatureSettings(scales=SCALES)
    for size in sizes:
        for batch in batches:
            posteriors.BATCH_IMAGES = batch
            folder, data = _where(place, size, batch, team.size), str(place / f"photos-{size}")
            protocol = f"dense@{','.join(map(str, SCALES))}"
            found = prepare_evaluation(place / "run", protocol, data, "test", out=folder).run(machine=here, team=team)
            features = folder / "x.safetensors"
            extract_features(place / "run", data, features, "test", settings=how, machine=here, team=team)
            if team.is_main:
                write_json(folder / "told.json", found.summary)


if __name__ == "__main__":
    given = [[int(one) for one in told.split(",")] for told in sys.argv[2:4]]
    with joined() as together:
        _work(Path(sys.argv[1]), given[0], given[1], together)
