"""App. B: the photos of a features file that are nearest to a new one, by the cosine of their descriptors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .config import DataSettings, MachineSettings
from .data import Dataset, open_data
from .describer import Describer
from .errors import VerydeepError
from .feature_files import Features, load_features
from .feature_settings import DescriptorSettings
from .features import combine, unit
from .prediction import check_top
from .progress import Reporter, Silent


@dataclass(frozen=True)
class Neighbour:
    """A photo of the file: its id, its class or an empty text, and the cosine, -1 to 1."""

    id: str
    name: str
    cosine: float


@dataclass(frozen=True)
class Similar:
    """A photo that was asked about, and the nearest ones, the nearest first."""

    image: str
    neighbours: tuple[Neighbour, ...]

    def to_json(self) -> dict[str, Any]:
        """``{image, neighbours: [{image, class, cosine}]}``."""
        rows = [{"image": one.id, "class": one.name, "cosine": round(one.cosine, 6)} for one in self.neighbours]
        return {"image": self.image, "neighbours": rows}


def find_similar(
    images: Sequence[str],
    file: str | Path,
    top: int = 10,
    settings: DescriptorSettings | None = None,
    faults: dict[int, str] | None = None,
    machine: MachineSettings | None = None,
    reporter: Reporter | None = None,
) -> list[Similar]:
    """The ``top`` nearest photos of a features file for each photo asked about.

    Args:
        file: as `verydeep features` writes it; the net that made it describes the new photos.
        faults: takes the sentences of unreadable photos, by index, which are then left out.

    Raises:
        VerydeepError: no such file, its net is gone, or an unreadable photo where ``faults`` is None.
    """
    settings, machine = settings or DescriptorSettings(), machine or MachineSettings(workers=0)
    check_top(top)
    known = load_features(file)
    describer = Describer([(known.recipe, list(known.scales))], settings, machine)
    told: dict[int, str] = {}
    asked = describer.rows(images, images, None if faults is None else told, reporter or Silent())
    if faults is not None:
        faults.update(told)
    if asked.shape[1] == 0:
        return []
    rows = combine([known.scales], settings)
    if rows.shape[1] != asked.shape[1]:
        raise VerydeepError(f"{file} does not fit the net that it names: make it anew with `verydeep features`.")
    cosines = unit(asked) @ unit(rows).T
    order = np.argsort(-cosines, axis=1, kind="stable")[:, :top]
    return [
        Similar(image, tuple(_neighbour(known, int(place), float(row[place])) for place in places))
        for index, (image, row, places) in enumerate(zip(images, cosines, order, strict=True))
        if index not in told
    ]


def _neighbour(known: Features, place: int, cosine: float) -> Neighbour:
    label = int(known.labels[place])
    return Neighbour(known.ids[place], known.classes[label] if label >= 0 else "", cosine)


def photos_of(known: Features) -> Dataset:
    """The photos that were described, as they are now; raises VerydeepError where their data are gone."""
    settings = DataSettings(data=known.recipe["data"], classes=tuple(known.recipe["classes"]))
    return open_data(settings, least_classes=1, several=True, empty_sets=True).everything()[0]
