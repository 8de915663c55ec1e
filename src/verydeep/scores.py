"""Sect. 4.4: posteriors on disk by image id, so that fusion and tables never load a net.

One ``.npz`` of plain arrays, readable with numpy alone: ``ids`` (N,), ``labels`` int64 (N,),
``classes`` (K,), ``posteriors`` float32 (N,K), and text ``set``, ``data``, ``protocol``, ``checkpoint``
(SHA-256 of the checkpoint that made them).
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .errors import VerydeepError
from .files import write_atomically


@dataclass(frozen=True)
class Scores:
    """The posteriors of one net, protocol and set."""

    ids: tuple[str, ...]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    posteriors: NDArray[np.float32]
    set_name: str
    data: str
    protocol: str
    checkpoint: str


def save_scores(path: Path, scores: Scores) -> None:
    """Writes a scores file atomically; raises VerydeepError where it cannot be written."""
    arrays = {
        "ids": np.array(scores.ids),
        "labels": scores.labels,
        "classes": np.array(scores.classes),
        "posteriors": scores.posteriors,
        "set": np.array(scores.set_name),
        "data": np.array(scores.data),
        "protocol": np.array(scores.protocol),
        "checkpoint": np.array(scores.checkpoint),
    }
    write_atomically(path, lambda file: np.savez_compressed(file, **arrays))  # type: ignore[arg-type]


def load_scores(path: Path) -> Scores:
    """A scores file; raises VerydeepError where it is missing or broken."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            text = {name: str(stored[name]) for name in ("set", "data", "protocol", "checkpoint")}
            return Scores(
                ids=tuple(str(item) for item in stored["ids"]),
                labels=stored["labels"],
                classes=tuple(str(item) for item in stored["classes"]),
                posteriors=stored["posteriors"],
                set_name=text["set"],
                data=text["data"],
                protocol=text["protocol"],
                checkpoint=text["checkpoint"],
            )
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as fault:
        raise VerydeepError(f"{path} is not a scores file ({fault}): `verydeep evaluate` writes them.") from None
