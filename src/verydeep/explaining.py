"""Photos asked about, with pictures of why: the score map of the top class and its Grad-CAM, as files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from .files import write_atomically
from .images import Pixels, read_image
from .prediction import Classifier, Prediction
from .progress import Reporter, Silent
from .protocols import parse_protocol
from .score_maps import explainable, grad_cam, overlay, score_map

MAP, CAM = "-map.png", "-gradcam.png"


@dataclass(frozen=True)
class Explained:
    """The pictures of one photo: of which class, the score map, Grad-CAM."""

    name: str
    map: Path
    gradcam: Path

    def to_json(self) -> dict[str, Any]:
        """``{class, map, gradcam}``, the last two paths."""
        return {"class": self.name, "map": str(self.map), "gradcam": str(self.gradcam)}


def write_explanations(
    asked: Classifier,
    found: Sequence[Prediction],
    folder: Path,
    protocol: str | None = None,
    reporter: Reporter | None = None,
) -> list[Explained]:
    """``NAME-map.png`` and ``NAME-gradcam.png`` in a folder for each photo; names that are taken are numbered.

    A picture never takes the place of a photo that was asked about.

    Args:
        found: answers about photos in files.
        protocol: as the photos were asked; the maps are at the largest of its scales.

    Raises:
        VerydeepError: as `verydeep.score_maps.explainable`, or a picture cannot be written.
    """
    explainable(asked)
    scale = max(parse_protocol(protocol).scales) if protocol else None
    taken = {Path(answer.image).resolve() for answer in found}
    made = []
    with (reporter or Silent()).track("explaining", len(found)) as advance:
        for answer in found:
            pixels, name = read_image(answer.image), answer.classes[0][0]
            label = asked.classes.index(name)
            one = Explained(name, *_places(Path(answer.image).stem, folder, taken))
            _write(overlay(pixels, score_map(asked, pixels, label, scale)), one.map)
            _write(overlay(pixels, grad_cam(asked, pixels, label, scale)), one.gradcam)
            made.append(one)
            advance(1, "")
    return made


def _places(stem: str, folder: Path, taken: set[Path]) -> tuple[Path, Path]:
    """Where the two pictures of a photo go; ``taken`` takes them."""
    number = 1
    while True:
        name = stem if number == 1 else f"{stem}-{number}"
        one, other = folder / f"{name}{MAP}", folder / f"{name}{CAM}"
        if not {one.resolve(), other.resolve()} & taken:
            taken |= {one.resolve(), other.resolve()}
            return one, other
        number += 1


def _write(picture: Pixels, path: Path) -> None:
    write_atomically(path, lambda file: Image.fromarray(picture).save(file, "PNG"))
