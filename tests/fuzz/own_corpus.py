"""Good files of our own kinds, which strangers may have made too: what the fuzzing changes."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from mutators import Files
from numpy.typing import NDArray
from safetensors.numpy import save

from verydeep import train
from verydeep.checkpoints.integrity import LENGTH, METADATA, OF_HEADER, OF_TENSORS
from verydeep.core.config import to_json
from verydeep.core.settings import DataSettings
from verydeep.evaluation.scores import Scores, save_scores
from verydeep.localisation.inference import CandidateBoxes
from verydeep.localisation.windows_file import FILE_NAME, save_windows
from verydeep.training.recipes import settings_of_run

RESULTS = Path(__file__).resolve().parents[2] / "docs" / "results"
NET: dict[str, Any] = {"file": "f", "sha256": "0", "net": "A", "preprocessing": "caffe"}
RECIPE: dict[str, Any] = {
    **{"net": NET, "layer": "fc7", "pool": "mean", "mirror": True, "precision": "float32", "data": "d"},
    **{"classes": [], "splits": None, "described": {"36": {"commit": None}}, "resampling": "bilinear"},
    "other_side": "round",
}


def trained(place: Path) -> Path:
    """The folder of a small run of one epoch."""
    small: dict[str, Any] = {"crop": 32, "width": 1 / 32, "S": "36", "batch": 8, "start": "none"}
    train("A", place / "run", data="digits:60", max_epochs=1, workers=0, threads=1, **small)
    return place / "run"


def files_of(folder: Path, endings: tuple[str, ...]) -> Files:
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name.endswith(endings)]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def scores(place: Path) -> list[Files]:
    """Posteriors of five photos, packed and not."""
    posteriors = np.random.default_rng(1).random((5, 3)).astype(np.float32)
    told = Scores(
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
    save_scores(place / "scores.npz", told)
    plain = io.BytesIO()
    with np.load(place / "scores.npz") as stored:
        np.savez(plain, **dict(stored))
    return [{"scores.npz": (place / "scores.npz").read_bytes()}, {"scores.npz": plain.getvalue()}]


def windows(place: Path) -> list[Files]:
    """Windows of two photos."""
    photos = tuple(CandidateBoxes(np.ones((n, 2, 4), np.float32), np.ones((n, 2), np.float32)) for n in (2, 3))
    save_windows(place, ("a", "b"), np.zeros((2, 2), np.int64), photos, "k")
    return [{FILE_NAME: (place / FILE_NAME).read_bytes()}]


def features() -> list[Files]:
    """Descriptors of two photos, with one class and with several each."""
    metadata = {"ids": ["a", "b"], "classes": ["x"], "sets": ["", ""], "data": "d", "key": "k", "recipe": RECIPE}
    arrays: dict[str, NDArray[Any]] = {"Q36": np.ones((2, 4), np.float32), "labels": np.zeros(2, np.int64)}
    several = {**arrays, "Q48": np.ones((2, 4), np.float32), "marks": np.ones((2, 1), np.int8)}
    return [{"x.safetensors": save(found, {"verydeep-features": json.dumps(metadata)})} for found in (arrays, several)]


def checkpoint(run: Path) -> list[Files]:
    """A checkpoint that a training goes on from, and the best."""
    return [{"x.safetensors": _unsealed(run / f"{name}.safetensors")} for name in ("last", "best")]


def _unsealed(path: Path) -> bytes:
    data = path.read_bytes()
    length = int.from_bytes(data[:LENGTH], "little")
    header = json.loads(data[LENGTH : LENGTH + length])
    del header[METADATA][OF_TENSORS], header[METADATA][OF_HEADER]
    text = json.dumps(header).encode()
    return len(text).to_bytes(LENGTH, "little") + text + data[LENGTH + length :]


def svm() -> list[Files]:
    """A classifier of SVMs."""
    metadata = {
        "classes": ["x", "y"],
        "nets": [{"recipe": RECIPE, "scales": [36]}],
        "descriptor": {"aggregate": "stack", "normalise": "both"},
    }
    arrays: dict[str, NDArray[Any]] = {"weights": np.ones((4, 2), np.float32), "bias": np.ones(2, np.float32)}
    return [{"x.safetensors": save(arrays, {"verydeep-svm": json.dumps(metadata)})}]


def settings() -> list[Files]:
    """Settings of all kinds by the names of their classes."""
    told = {
        "TrainSettings": to_json(settings_of_run("D/256-512", {})),
        "DataSettings": to_json(DataSettings(classes=("a*", "b"))),
        "MachineSettings": {"device": "cpu", "workers": 2, "compile": False},
        "BoxSettings": {"regression": "SCR", "dropout": True},
        "MergeSettings": {"t": 0.5, "match": "literal"},
        "FeatureSettings": {},
        "DescriptorSettings": {"aggregate": "average"},
        "SvmSettings": {"C": [1.0, 10.0], "splits": 3},
    }
    return [{"config.json": json.dumps(told).encode()}]


def run(folder: Path) -> list[Files]:
    """A run's folder."""
    bad = json.dumps({"x.jpg": "x.jpg is not an image."}).encode()
    found = files_of(folder, ("config.json", "log.jsonl", "result.json"))
    found["last.safetensors"] = _unsealed(folder / "last.safetensors")
    return [found, {**found, "bad_images.json": bad}]


def log(folder: Path) -> list[Files]:
    """A log of three epochs."""
    row = json.loads((folder / "log.jsonl").read_text().splitlines()[0])
    return [{"log.jsonl": "".join(json.dumps({**row, "epoch": epoch}) + "\n" for epoch in (1, 2, 3)).encode()}]


def results() -> list[Files]:
    """Stored rows and claims of all kinds."""
    found = []
    for name in ("doll", "boxes", "transfer"):
        told = json.loads((RESULTS / f"{name}.json").read_bytes())
        if {"rows", "claims"} <= told.keys():
            kept = {part: dict(list(told[part].items())[:3]) for part in ("rows", "claims")}
            found.append({"results.json": json.dumps(kept).encode()})
    return found


def names() -> list[Files]:
    """Names of classes, one a line."""
    return [{"names.txt": "tench, Tinca tinca\ngoldfish\nécole\n".encode()}]


def typed() -> list[Files]:
    """Command lines, a word a line."""
    lines = (
        "train D/256-512 --S 256-512 --batch 256 --lr 1e-2 --drop-at 30,50 --classes a*,b --device cpu --mirror yes",
        "evaluate runs/D dense@256,384,512:no-mirror --workers 2 --threads 1 --json --set val",
        "localise train D --regression SCR --boxes a=b.csv --crop 224 --width 0.5 --max-epochs 3 --seed 7",
        "features runs/D --data x --out y --layer fc7 --scales 256,384 --pool max --read-timeout 9",
        "svm own --features a b --C 0.1,1 --splits 3 --aggregate stack --normalise end",
        "localise evaluate runs/B dense@64,96:mirror:offsets --t 0.5 --match literal",
    )
    return [{"x.typed": line.replace(" ", "\n").encode()} for line in lines]
