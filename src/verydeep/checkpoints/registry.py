"""The public weight files of these nets: their URLs, hashes and preprocessing.

D and E of Oxford are the paper's own; jcjohnson's, Keras's and MatConvNet's are ports of them; torchvision's, timm's
and mmpretrain's are nets of the same architecture, trained independently. Hashes are as published: some publishers give
only the first 8 digits of the SHA-256, and only those are compared. All have ILSVRC's 1000 classes, by sorted WNIDs.
"""

from __future__ import annotations

import csv
import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

from ..core.errors import VerydeepError
from ..core.nearest import nearest
from ..data.class_names import names_in, read_names
from ..models.architectures import BY_LAYERS

NAMES_FILE = "--class-names is ilsvrc, or a file with one name per line"
LICENCES = {
    "Oxford": "CC BY 4.0, Visual Geometry Group, Oxford",
    "torchvision": "BSD-3-Clause, torchvision; trained on ILSVRC, whose own terms hold",
    "OpenMMLab": "Apache-2.0, OpenMMLab; trained on ILSVRC, whose own terms hold",
}


@dataclass(frozen=True)
class Released:
    """A public weight file.

    ``pixels`` names its preprocessing in `verydeep.checkpoints.preprocessing.KNOWN`; ``size`` is in bytes, 0 where
    unpublished; ``digest`` is ``sha256:…``, ``sha1:…`` or ``md5:…``; ``errors`` are the publisher's top-1 and top-5
    error of one centre crop in percent, where published; files that are not ``full`` have no FC layers.
    """

    name: str
    net: str
    pixels: str
    licence: str
    address: str
    digest: str
    size: int = 0
    errors: tuple[float, float] | None = None
    full: bool = True

    @property
    def file_name(self) -> str:
        """The publisher's file name."""
        return self.address.rpartition("/")[2]

    def holds(self, digests: Digests) -> bool:
        """Whether a file has this content, by its hash."""
        kind, _, digits = self.digest.partition(":")
        return digests.of(kind).startswith(digits)


class Digests:
    """A file's hashes, each computed on first use."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: dict[str, str] = {}

    def of(self, kind: str) -> str:
        """The hexadecimal hash by an algorithm (``sha256``)."""
        if kind not in self._known:
            with self.path.open("rb") as file:
                self._known[kind] = hashlib.file_digest(file, kind).hexdigest()
        return self._known[kind]


def _read_released() -> tuple[Released, ...]:
    text = files(__package__).joinpath("released.csv").read_text(encoding="utf8")
    return tuple(
        Released(
            *(row["name"], row["net"], row["pixels"], LICENCES[row["licence"]], row["address"], row["digest"]),
            size=int(row["size"] or 0),
            errors=(float(row["top1_error"]), float(row["top5_error"])) if row["top1_error"] else None,
            full=row["full"] == "yes",
        )
        for row in csv.DictReader(text.splitlines())
    )


RELEASED = _read_released()


def all_released() -> tuple[Released, ...]:
    """All public files; the first of a net is the one to start from."""
    return RELEASED


def released_named(name: str) -> Released:
    """The public file of a name (``oxford-D``); raises VerydeepError where there is none."""
    by_name = {entry.name: entry for entry in all_released()}
    if name not in by_name:
        near = nearest_released(name)
        hint = f": did you mean {near}?" if near else "."
        raise VerydeepError(f"there are no released weights {name!r}{hint} `verydeep weights list` lists them.")
    return by_name[name]


def nearest_released(name: str) -> str | None:
    """The released weights nearest to a name, which may be that of a net only (D, vgg16)."""
    others = {f"vgg{layers}": net for layers, net in BY_LAYERS.items()}
    net = others.get(name.lower().replace("-", "").replace("_", ""), name.upper())
    of_net = next((entry.name for entry in all_released() if entry.net == net), None)
    return of_net or nearest(name, (entry.name for entry in all_released()))


def known_file(digests: Digests) -> Released | None:
    """The public file with a file's content, or None; files smaller than any public one are not hashed."""
    size = digests.path.stat().st_size
    if size < min(entry.size for entry in all_released() if entry.size):
        return None
    return next((entry for entry in all_released() if entry.size in (0, size) and entry.holds(digests)), None)


@cache
def ilsvrc_classes() -> tuple[str, ...]:
    """ILSVRC's 1000 classes in the order of sorted WNIDs, as Caffe's synset_words.txt writes them."""
    return names_in(files(__package__).joinpath("ilsvrc.txt").read_text(encoding="utf8"))


def named_classes(source: str | None) -> tuple[str, ...]:
    """The classes that ``--class-names`` gives: ``ilsvrc``, or a file with one name per line; none for None.

    Raises:
        VerydeepError: the file is missing or is not UTF-8 text.
    """
    if source is None:
        return ()
    if source == "ilsvrc":
        return ilsvrc_classes()
    path = Path(source)
    if not path.is_file():
        raise VerydeepError(f"there is no file {path}: {NAMES_FILE}.")
    return tuple(name for name in read_names(path) if name)
