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
from ..data.open import Dataset, open_images
from ..evaluation.predict import check_top, listed, name_of
from .descriptors import Array, combine, unit
from .features_file import Features, load_features
from .predict import open_extractor


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
        file: as `verydeep features` writes it; its net computes the descriptors of the queries.
        faults: receives the messages of unreadable images, by index; these images are skipped.

    Raises:
        VerydeepError: no such file, its net is missing, or an unreadable image and ``faults`` is None.
    """
    check_top(top)
    neighbours = NearestNeighbours(file, settings, machine)
    queries = listed(images)
    rows = neighbours.descriptors(queries, faults, reporter)
    return [
        Similar(name_of(image, index), nearest)
        for index, (image, nearest) in enumerate(zip(queries, neighbours.nearest(rows, top), strict=True))
        if index not in (faults or {})
    ]


class NearestNeighbours:
    """A features file with its net, for any number of queries.

    Raises:
        VerydeepError: no such file, or its net is missing.
    """

    def __init__(
        self, file: str | Path, settings: DescriptorSettings | None = None, machine: MachineSettings | None = None
    ) -> None:
        """Loads both; arguments as of `find_similar`."""
        settings = settings or DescriptorSettings()
        self.file, self.known = file, load_features(file)
        recipe, scales = self.known.recipe, list(self.known.scales)
        self._extractor = open_extractor([(recipe, scales)], settings, machine or MachineSettings(workers=0))
        self._rows = unit(combine([self.known.scales], settings))
        self._places = {image: place for place, image in enumerate(self.known.ids)}

    def place(self, image_id: str) -> int:
        """The index of an image in the file."""
        return self._places[image_id]

    def descriptors(
        self, images: Sequence[Any], faults: dict[int, str] | None = None, reporter: Reporter | None = None
    ) -> Array:
        """The descriptors of images, float32 (N,D), as those of the file; arguments as of `DescriptorExtractor.rows`.

        Raises:
            ImageError: an image cannot be read, and ``faults`` is None.
            VerydeepError: the file does not fit its net.
        """
        rows = self._extractor.rows(images, faults, reporter or Silent())
        if rows.shape[1] not in (0, self._rows.shape[1]):  # 0 if no image could be read
            raise VerydeepError(f"{self.file} does not fit the descriptors of its net: run `verydeep features` again.")
        return rows

    def nearest(self, rows: Array, top: int) -> list[tuple[Neighbour, ...]]:
        """The ``top`` images of the file that are nearest to each descriptor of (N,D), the nearest first."""
        if rows.shape[1] == 0:
            return [() for _ in rows]
        cosines = unit(rows) @ self._rows.T
        order = np.argsort(-cosines, axis=1, kind="stable")[:, :top]
        return [
            tuple(_neighbour(self.known, int(index), float(row[index])) for index in indices)
            for row, indices in zip(cosines, order, strict=True)
        ]


def _neighbour(known: Features, index: int, cosine: float) -> Neighbour:
    label = int(known.labels[index])
    return Neighbour(known.ids[index], known.classes[label] if label >= 0 else "", cosine)


def photos_of(recipe: dict[str, Any]) -> Dataset:
    """The images of a features file, as they are now; raises VerydeepError if their data no longer exist.

    Args:
        recipe: of a features file; its ``data``, ``classes`` and, unless auto, ``folders`` are used.
    """
    values: dict[str, Any] = {name: recipe[name] for name in ("data", "classes", "folders") if name in recipe}
    settings = from_json(DataSettings, values)
    return open_images(settings).everything()[0]
