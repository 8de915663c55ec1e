"""What a weight file in a foreign layout cannot tell of itself, in a file of ours beside it: ``FILE.card.json``.

It records the file's SHA-256, so that it is never taken for another file's; the file's pixels, tensors, output and
classes in order, for whoever reads the file with nothing of ours; and our whole card, of the net as we hold it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.errors import VerydeepError
from ..core.files import read_json, short_name, write_json
from .as_written import described
from .checkpoint import metadata_of
from .preprocessing import Preprocessing
from .registry import Digests

ENDING = ".card.json"
ABOUT = "all but `card` is of this file; `card` is of the net as verydeep holds it: RGB, 0-255, minus card.mean"


@dataclass(frozen=True)
class Beside:
    """What stands beside a file: its pixels, and the JSON of our card."""

    pixels: Preprocessing
    metadata: dict[str, Any]


def sidecar_of(path: Path) -> Path:
    """Where it is, or would be."""
    return path.with_name(short_name(path.name, ENDING))


def write_sidecar(path: Path, kind: str, pixels: Preprocessing, metadata: dict[str, Any]) -> Path:
    """Writes it for a file that is there.

    Args:
        kind: the file's format, a key of `verydeep.checkpoints.as_written.TENSORS`.
        pixels: those of the file.
        card: the JSON of our card.

    Raises:
        VerydeepError: it cannot be written.
    """
    use = {name: text for name, text in described(metadata_of(metadata), kind, pixels).items() if name != "pixels"}
    told = {"about": ABOUT, "format": kind, "sha256": Digests(path).of("sha256"), "pixels": pixels.to_json(), **use}
    write_json(sidecar_of(path), {**told, "classes": list(metadata["classes"]), "card": metadata})
    return sidecar_of(path)


def read_sidecar(digests: Digests) -> Beside | None:
    """What stands beside a file; None where nothing does.

    Raises:
        VerydeepError: broken, or of a file of other content.
    """
    place = sidecar_of(digests.path)
    if not place.is_file():
        return None
    told = read_json(place)
    if told.get("sha256") != digests.of("sha256"):
        raise VerydeepError(
            f"{place} is of another file than {digests.path} as it is now: remove the one that is wrong."
        )
    try:
        metadata_of(dict(told["card"]))
        return Beside(Preprocessing.from_json(told["pixels"]), dict(told["card"]))
    except (KeyError, TypeError, ValueError, AttributeError):
        raise VerydeepError(f"{place} is broken: remove it, and convert the net again.") from None
