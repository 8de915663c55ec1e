"""Sect. 3.2: where in a photo a net sees a class: its dense score map, and Grad-CAM of the last convolution.

Dense testing averages the class score map over its cells, so the map itself tells what each place of the photo adds:
cell (i, j) is fc8 on that cell of fc7's map, and belongs to the crop whose corner is at (32 i, 32 j) of the rescaled
photo. Grad-CAM (Selvaraju et al. 2017) is finer: maps of the last convolution, each weighted by the mean gradient that
the mean score has on it, added up, and cut off below 0; its cells are 16 pixels apart.

Both are of the photo itself, without its mirror image, and before the soft-max.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from ..core.config import STRIDE
from ..core.errors import VerydeepError
from ..core.files import FreeNames, write_atomically
from ..core.progress import Reporter, Silent
from ..data.image_io import Pixels, read_image
from ..models.vgg import Net
from .inference import ResizeToScales, shown_to
from .predict import Classifier, Prediction
from .protocols import Protocol, check_protocol, parse_protocol

LONGEST = 1280  # pixels of a picture's longer side: a map of few cells needs no more
STRENGTH = 0.6  # of the colours over the grey photo
MAP, CAM = "-map.png", "-gradcam.png"
COLOURS = "viridis"  # evenly brighter, so that it can be read without seeing colours


@dataclass(frozen=True)
class PlacedMap:
    """One class's map of a photo: ``values`` float32 (h,w), and its place in pixels of the photo.

    ``rows`` (h,) and ``columns`` (w,) are the cells' centres, from the photo's upper left corner. ``size`` is the
    photo's height and width.
    """

    values: NDArray[np.float32]
    rows: NDArray[np.float64]
    columns: NDArray[np.float64]
    size: tuple[int, int]

    def to_json(self) -> dict[str, Any]:
        """``{values: [[…]], rows: […], columns: […], height, width}``."""
        return {
            "values": [[round(float(value), 5) for value in row] for row in self.values],
            "rows": [round(float(place), 2) for place in self.rows],
            "columns": [round(float(place), 2) for place in self.columns],
            "height": self.size[0],
            "width": self.size[1],
        }


def explainable(asked: object) -> Classifier:
    """What was loaded, where it is a net whose maps can be had.

    Raises:
        VerydeepError: an exported file, or SVMs on descriptors.
    """
    if not isinstance(asked, Classifier):
        raise VerydeepError("an SVM scores a whole photo's descriptor and has no map: explain a net, not an SVM.")
    if not isinstance(asked.net, Net):
        raise VerydeepError("an exported file answers with mean scores only and has no map: explain the run itself.")
    return asked


def score_map(asked: Classifier, pixels: Pixels, label: int, scale: int | None = None) -> PlacedMap:
    """The dense score map of a class; its mean over the cells is the score that dense testing gives the class.

    Args:
        pixels: a photo, uint8 (H,W,3).
        label: the class, by its place in ``asked.classes``.
        scale: smallest side Q in pixels; by default that of the training scale.

    Raises:
        VerydeepError: as `explainable`, or a Q below the net's crop.
        ImageError: a strip, which rescaling would make larger than memory.
    """
    asked, net = explainable(asked), _net(asked)
    with asked.machine.running(), torch.no_grad(), asked.machine.autocast():
        shown = _shown(asked, pixels, scale)
        scores = net(shown)[0, label].float().cpu().numpy()
    return _placed(scores, STRIDE, net.crop / 2, shown, pixels)


def grad_cam(asked: Classifier, pixels: Pixels, label: int, scale: int | None = None) -> PlacedMap:
    """Grad-CAM of a class on the last convolution; arguments and errors as of `score_map`. No value is below 0."""
    asked, net = explainable(asked), _net(asked)
    last = next(spec.name for spec in reversed(net.specs) if spec.stage == 5)
    with asked.machine.running():
        with torch.no_grad(), asked.machine.autocast():
            shown = _shown(asked, pixels, scale)
            maps = net.activations(shown, last)
        with torch.enable_grad():  # not in the products' precision: gradients of half precision vanish
            maps = maps.to(asked.machine.dtype).requires_grad_()
            score = net.mean_scores_from(maps)[0, label]
            (gradient,) = torch.autograd.grad(score, maps)
        weights = gradient.mean(dim=(2, 3), keepdim=True)
        found = F.relu((weights * maps.detach()).sum(dim=1))[0].float().cpu().numpy()
    return _placed(found, STRIDE // 2, STRIDE / 4, shown, pixels)


def _net(asked: Classifier) -> Net:
    assert isinstance(asked.net, Net)
    return asked.net


def _shown(asked: Classifier, pixels: Pixels, scale: int | None) -> Tensor:
    """The photo at Q as the net takes it, float (1,3,H,W)."""
    metadata = asked.metadata
    dense = Protocol("dense", (scale or metadata.test_scale,), mirror=False)
    check_protocol(dense, metadata.crop)
    (view,) = ResizeToScales.for_net(metadata, dense)(pixels)
    shift = torch.tensor(-np.asarray(metadata.mean), dtype=torch.float32)[None]
    return shown_to(asked.net, torch.from_numpy(view.copy())[None], asked.machine, shift)


def _placed(values: NDArray[np.float32], stride: int, first: float, shown: Tensor, pixels: Pixels) -> PlacedMap:
    """A map whose cells are ``stride`` pixels apart in the rescaled photo, the first one's centre at ``first``."""
    size = (pixels.shape[0], pixels.shape[1])
    rows, columns = (
        (first + stride * np.arange(cells)) * (side / scaled)
        for cells, side, scaled in zip(values.shape, size, shown.shape[2:], strict=True)
    )
    return PlacedMap(values, rows, columns, size)


def overlay(pixels: Pixels, found: PlacedMap) -> Pixels:
    """A map laid over its photo in grey: uint8 (H,W,3), dark blue its least value, yellow its largest.

    Between the cells' centres colours pass evenly, beyond the outermost they stay; a map of one value is of the middle
    colour. A photo longer than `LONGEST` is shown at that size.
    """
    from matplotlib import colormaps

    picture = Image.fromarray(pixels)
    picture.thumbnail((LONGEST, LONGEST))
    grey = np.asarray(picture.convert("L"), dtype=np.float32)[:, :, None]
    low, high = float(found.values.min()), float(found.values.max())
    values = (found.values - low) / (high - low) if high > low else np.full_like(found.values, 0.5)
    down = _between(found.rows * grey.shape[0] / found.size[0], grey.shape[0])
    across = _between(found.columns * grey.shape[1] / found.size[1], grey.shape[1])
    colours = colormaps[COLOURS]((down @ values @ across.T).clip(0, 1))[:, :, :3] * 255
    return np.asarray(np.rint(grey * (1 - STRENGTH) + colours * STRENGTH), dtype=np.uint8)


def _between(centres: NDArray[np.float64], length: int) -> NDArray[np.float64]:
    """What each of the cells (n,) counts at each pixel of a side, (length,n): linear between their centres."""
    pixels = np.arange(length) + 0.5
    return np.stack([np.interp(pixels, centres, one) for one in np.eye(len(centres))], axis=1)


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
