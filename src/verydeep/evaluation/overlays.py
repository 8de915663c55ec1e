"""Photos asked about, with pictures of why: the score map of the top class and its Grad-CAM, as files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from ..core.errors import VerydeepError
from ..core.files import FreeNames, write_atomically
from ..core.progress import Reporter, Silent
from ..data.image_io import Pixels, read_image
from .predict import Classifier, Prediction
from .protocols import parse_protocol
from .saliency import explainable, grad_cam, overlay, score_map

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
    faults: dict[int, str] | None = None,
) -> list[Explained | None]:
    """``NAME-map.png`` and ``NAME-gradcam.png`` in a folder for each photo; names that are taken are numbered.

    A picture never takes the place of a photo that was asked about.

    Args:
        found: answers about photos in files.
        protocol: as the photos were asked; the maps are at the largest of its scales.
        faults: takes the sentences of photos whose pictures cannot be made, by index; their place holds None.

    Raises:
        VerydeepError: as `verydeep.evaluation.saliency.explainable`; a picture cannot be made, and ``faults`` is None.
    """
    explainable(asked)
    scale = max(parse_protocol(protocol).scales) if protocol else None
    names = FreeNames(folder, [Path(answer.image) for answer in found])
    made: list[Explained | None] = []
    with (reporter or Silent()).track("explaining", len(found)) as advance:
        for index, answer in enumerate(found):
            try:
                made.append(_explained(asked, answer, names, scale))
            except VerydeepError as fault:
                if faults is None:
                    raise
                faults[index] = f"{answer.image} is not explained: {fault}"
                made.append(None)
            advance(1, "")
    return made


def _explained(asked: Classifier, answer: Prediction, names: FreeNames, scale: int | None) -> Explained:
    pixels, name = read_image(answer.image), answer.classes[0][0]
    label = asked.classes.index(name)
    one = Explained(name, *names.after(answer.image, MAP, CAM))
    _write(overlay(pixels, score_map(asked, pixels, label, scale)), one.map)
    _write(overlay(pixels, grad_cam(asked, pixels, label, scale)), one.gradcam)
    return one


def _write(picture: Pixels, path: Path) -> None:
    write_atomically(path, lambda file: Image.fromarray(picture).save(file, "PNG"))
