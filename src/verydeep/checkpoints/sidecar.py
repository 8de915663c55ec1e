"""What a weight file in a foreign layout does not record, in a JSON file beside it: ``FILE.card.json``.

It holds the weight file's SHA-256, so that it is never applied to another file; the file's preprocessing, tensors,
output and classes, for readers that do not have verydeep; and the net's whole metadata.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..core.errors import VerydeepError
from ..core.files import read_json, short_name, write_json
from .checkpoint import Metadata, metadata_of
from .model_card import usage
from .preprocessing import Preprocessing
from .registry import Digests

ENDING = ".card.json"
ABOUT = "all but `card` is of this file; `card` is of the net as verydeep holds it: RGB, 0-255, minus card.mean"


@dataclass(frozen=True)
class Sidecar:
    """The preprocessing of a weight file, and the net's metadata."""

    pixels: Preprocessing
    metadata: Metadata


def sidecar_of(path: Path) -> Path:
    """The path of a weight file's sidecar, whether or not it exists."""
    return path.with_name(short_name(path.name, ENDING))


def write_sidecar(path: Path, form: str, pixels: Preprocessing, metadata: Metadata) -> Path:
    """Writes the sidecar of an existing weight file and returns its path.

    Args:
        form: the file's format, a key of `verydeep.checkpoints.model_card.TENSORS`.
        pixels: those of the file.

    Raises:
        VerydeepError: it cannot be written.
    """
    use = usage(metadata, form, pixels) | {"pixels": pixels.to_json()}
    record = {"about": ABOUT, "format": form, "sha256": Digests(path).of("sha256"), **use}
    write_json(sidecar_of(path), {**record, "classes": list(metadata.classes), "card": metadata.to_json()})
    return sidecar_of(path)


def read_sidecar(digests: Digests) -> Sidecar | None:
    """The sidecar of a weight file; None where there is none.

    Raises:
        VerydeepError: it is broken, or of a file with other content.
    """
    place = sidecar_of(digests.path)
    if not place.is_file():
        return None
    record = read_json(place)
    if record.get("sha256") != digests.of("sha256"):
        raise VerydeepError(f"{place} does not match {digests.path} (SHA-256): remove whichever is wrong.")
    try:
        return Sidecar(Preprocessing.from_json(record["pixels"]), metadata_of(dict(record["card"])))
    except (KeyError, TypeError, ValueError, AttributeError):
        raise VerydeepError(f"{place} is corrupted: remove it, and convert the net again.") from None
