"""Of R2: commands that are no trainings, told to end while they work; done again, they answer as undisturbed ones."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from harness import command
from PIL import Image
from process_watch import watched

from verydeep.evaluation.scores import load_scores
from verydeep.transfer.features_file import load_features

PHOTOS, PATIENCE = 300, 10.0
ONE_READER: list[object] = ["--workers", 1, "--threads", 1, "--quiet"]
DATA = "digits:1500"
TESTED: list[object] = ["whole", "dense@36,48", *ONE_READER]
DESCRIBED: list[object] = ["whole", "--set", "val", "--scales", "36,48", *ONE_READER]
ASKED: dict[str, Callable[[str], list[object]]] = {
    "evaluate": lambda out: ["evaluate", *TESTED, "--data", DATA, "--out", out],
    "features": lambda out: ["features", *DESCRIBED, "--data", DATA, "--out", f"{out}/features.safetensors"],
    "predict": lambda _: ["predict", "whole", "photos", "--protocol", "crops@36", "--json", *ONE_READER],
}


def prepared(place: Path, kinds: set[str]) -> dict[str, float]:
    """Photos to ask about, and each of these commands done once, undisturbed: how many seconds it took."""
    (place / "photos").mkdir()
    for number in range(PHOTOS):
        pixels = np.random.default_rng([22, number]).integers(0, 256, (40, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(place / "photos" / f"{number:03d}.png")
    spans = {}
    for kind in sorted(ASKED.keys() & kinds):
        began = time.monotonic()
        ended = command(*ASKED[kind](f"{kind}-whole"), cwd=place)
        assert ended.returncode == 0, ended.stderr
        (place / f"{kind}-whole.json").write_text(ended.stdout)
        spans[kind] = time.monotonic() - began
    return spans


def asked(kind: str, which: signal.Signals, place: Path, name: str, after: float) -> list[str]:
    """Tells a command to end some seconds after it began to listen, and does it again to its end."""
    typed = ASKED[kind](name)
    going = watched(typed, place, name)
    going.until(going.listens)
    time.sleep(after)
    going.tell(which)
    faults = going.ended(which, PATIENCE, may_finish=True)
    again = command(*typed, cwd=place)
    if again.returncode:
        return [*faults, f"{kind}: done again, it ended with {again.returncode}: {again.stderr[-300:]}"]
    same = _same(kind, place, name, again.stdout)
    return faults if same else [*faults, f"{kind}: done again, its answer is another"]


def _same(kind: str, place: Path, name: str, answer: str) -> bool:
    if kind == "predict":
        return answer == (place / f"{kind}-whole.json").read_text()
    if kind == "evaluate":
        scores = [load_scores(place / folder / "scores.npz") for folder in (f"{kind}-whole", name)]
        return scores[0].ids == scores[1].ids and np.array_equal(scores[0].posteriors, scores[1].posteriors)
    files = [load_features(place / folder / "features.safetensors") for folder in (f"{kind}-whole", name)]
    scales = [found.scales for found in files]
    return scales[0].keys() == scales[1].keys() and all(
        np.array_equal(scales[0][size], scales[1][size]) for size in scales[0]
    )
