"""App. B: finds the images of a features file that are nearest to a new one, by the cosine of their descriptors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..core.config import from_json
from ..core.errors import VerydeepError
from ..core.progress import Reporter, Silent
from ..core.settings import DataSettings, DescriptorSettings, MachineSettings
from ..data.open import Dataset, open_data
from ..evaluation.predict import check_top, listed, name_of
from .descriptors import Array, combine, unit
from .features_file import Features, load_features
from .predict import DescriptorExtractor


@dataclass(frozen=True)
class Neighbour:
    """An image of the file: its id, its class or an empty text, and the cosine, -1 to 1."""

    id: str
    name: str
    cosine: float


@dataclass(frozen=True)
class Similar:
    """A query image, and its neighbours, the nearest first."""

    image: str
    neighbours: tuple[Neighbour, ...]

    def to_json(self) -> dict[str, Any]:
        """``{image, neighbours: [{image, class, cosine}]}``."""
        rows = [{"image": image.id, "class": image.name, "cosine": round(image.cosine, 6)} for image in self.neighbours]
        return {"image": self.image, "neighbours": rows}


def find_similar(
    images: Any,
    file: str | Path,
    top: int = 10,
    settings: DescriptorSettings | None = None,
    faults: dict[int, str] | None = None,
    machine: MachineSettings | None = None,
    reporter: Reporter | None = None,
) -> list[Similar]:
    """Finds the ``top`` nearest images of a features file for each query image.

    Args:
        images: as `Classifier.predict` takes them.
        file: as `verydeep features` writes it; the net that made it computes the descriptors of the queries.
        faults: collects the messages of unreadable images by index; those images are left out.

    Raises:
        VerydeepError: no such file, its net is gone, or an unreadable image where ``faults`` is None.
    """
    check_top(top)
    finder = NearestNeighbours(file, settings, machine)
    unreadable: dict[int, str] = {}
    queries = listed(images)
    names = [name_of(image, index) for index, image in enumerate(queries)]
    rows = finder.descriptors(queries, names, None if faults is None else unreadable, reporter)
    if faults is not None:
        faults.update(unreadable)
    found = finder.nearest(rows, top)
    return [
        Similar(image, neighbours)
        for index, (image, neighbours) in enumerate(zip(names, found, strict=True))
        if index not in unreadable
    ]


class NearestNeighbours:
    """A features file with the net that made it, for any number of queries.

    Raises:
        VerydeepError: no such file, or its net is gone.
    """

    def __init__(
        self, file: str | Path, settings: DescriptorSettings | None = None, machine: MachineSettings | None = None
    ) -> None:
        """Loads both; arguments as of `find_similar`."""
        settings = settings or DescriptorSettings()
        self.file, self.known = file, load_features(file)
        recipe, scales = self.known.recipe, list(self.known.scales)
        self._extractor = DescriptorExtractor([(recipe, scales)], settings, machine or MachineSettings(workers=0))
        self._rows = unit(combine([self.known.scales], settings))
        self._places = {image: place for place, image in enumerate(self.known.ids)}

    def place(self, image_id: str) -> int:
        """The position of an image in the file."""
        return self._places[image_id]

    def descriptors(
        self,
        images: Sequence[Any],
        names: Sequence[str],
        faults: dict[int, str] | None = None,
        reporter: Reporter | None = None,
    ) -> Array:
        """The descriptors of images, float32 (N,D), as those of the file; arguments as of `DescriptorExtractor.rows`.

        Raises:
            ImageError: an image cannot be read, and ``faults`` is None.
            VerydeepError: the file does not fit its net.
        """
        rows = self._extractor.rows(images, names, faults, reporter or Silent())
        if rows.shape[1] not in (0, self._rows.shape[1]):  # 0 where no image could be read
            raise VerydeepError(f"{self.file} does not fit the net that it names: run `verydeep features` again.")
        return rows

    def nearest(self, rows: Array, top: int) -> list[tuple[Neighbour, ...]]:
        """The ``top`` images of the file that are nearest to each descriptor (N,D), the nearest first."""
        if rows.shape[1] == 0:
            return [() for _ in rows]
        cosines = unit(rows) @ self._rows.T
        order = np.argsort(-cosines, axis=1, kind="stable")[:, :top]
        return [
            tuple(_neighbour(self.known, int(place), float(row[place])) for place in places)
            for row, places in zip(cosines, order, strict=True)
        ]


def _neighbour(known: Features, place: int, cosine: float) -> Neighbour:
    label = int(known.labels[place])
    return Neighbour(known.ids[place], known.classes[label] if label >= 0 else "", cosine)


def photos_of(recipe: dict[str, Any]) -> Dataset:
    """The images of a features file, as they are now; raises VerydeepError where their data are gone.

    Args:
        recipe: that of a features file; its ``data``, ``classes`` and, unless auto, ``folders``.
    """
    values: dict[str, Any] = {name: recipe[name] for name in ("data", "classes", "folders") if name in recipe}
    settings = from_json(DataSettings, values)
    return open_data(settings, least_classes=1, several=True, empty_sets=True).everything()[0]
