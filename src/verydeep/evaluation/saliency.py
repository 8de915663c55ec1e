"""Sect. 3.2: saliency maps of a class: the dense score map, and Grad-CAM of the last convolution.

Dense evaluation averages the class score map over its cells, so the map shows each location's contribution: cell (i, j)
is fc8 on that cell of fc7's map, and belongs to the crop whose corner is at (32 i, 32 j) of the rescaled image.
Grad-CAM (Selvaraju et al. 2017) is finer: the maps of the last convolution, each weighted by the mean gradient of the
mean score, summed and clipped at 0; its cells are 16 pixels apart.

Both are of the image without its mirror image, and before the soft-max.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from ..checkpoints.checkpoint import Metadata
from ..core.config import LARGEST_SIDE, STRIDE
from ..core.errors import VerydeepError
from ..core.files import FreeNames, write_atomically
from ..core.progress import Reporter, Silent
from ..data.image_io import Pixels, read_image
from ..models.vgg import Net
from .inference import ResizeToScales, model_input
from .predict import Classifier, Prediction
from .protocols import Protocol, check_protocol, parse_protocol

LONGEST = 1280  # pixels of an overlay's longer side: a map of few cells needs no more
STRENGTH = 0.6  # opacity of the colours over the grey image
MAP, CAM = "-map.png", "-gradcam.png"
CELLS = 8  # of a score map on the shorter side, at least, by default
COLOURS = "viridis"  # of uniform lightness steps, readable without colour vision


@dataclass(frozen=True)
class PlacedMap:
    """The map of a class on an image: ``values`` float32 (h,w), and its position in the image.

    ``rows`` (h,) and ``columns`` (w,) are the cells' centres in pixels from the upper left corner. ``size`` is the
    image's height and width. ``top`` is the class of the largest mean score, at the same Q and without mirror image.
    """

    values: NDArray[np.float32]
    rows: NDArray[np.float64]
    columns: NDArray[np.float64]
    size: tuple[int, int]
    top: int = -1

    def to_json(self) -> dict[str, Any]:
        """``{values: [[…]], rows: […], columns: […], height, width}``."""
        return {
            "values": [[round(float(value), 5) for value in row] for row in self.values],
            "rows": [round(float(place), 2) for place in self.rows],
            "columns": [round(float(place), 2) for place in self.columns],
            "height": self.size[0],
            "width": self.size[1],
        }


def map_scale(metadata: Metadata, protocol: str | None = None) -> int:
    """The Q of a net's maps: the largest of the protocol's; by default the training scale's, or what `CELLS` need.

    At the training scale of a small range a map has one cell or four, which say nothing of a place.
    """
    if protocol:
        return max(parse_protocol(protocol).scales)
    return max(metadata.test_scale, min(metadata.crop + (CELLS - 1) * STRIDE, LARGEST_SIDE))


def check_explainable(model: object) -> Classifier:
    """Returns the model if it has score maps.

    Raises:
        VerydeepError: an exported file, or SVMs on descriptors.
    """
    if not isinstance(model, Classifier):
        raise VerydeepError("an SVM scores the descriptor of the whole image and has no score map: explain a net.")
    if not isinstance(model.net, Net):
        raise VerydeepError("an exported file returns mean scores only and has no score map: explain the run itself.")
    return model


def score_map(classifier: Classifier, pixels: Pixels, label: int, scale: int | None = None) -> PlacedMap:
    """The dense score map of a class; its mean over the cells is the class's score in dense evaluation.

    Args:
        pixels: an image, uint8 (H,W,3).
        label: the class, as an index of ``classifier.classes``.
        scale: smallest side Q in pixels; by default that of `map_scale`.

    Raises:
        VerydeepError: as `check_explainable`, or a Q below the net's crop.
        ImageError: an image so narrow that rescaling would exceed memory.
    """
    net, machine = _net(classifier), classifier.machine
    with machine.running(), torch.no_grad(), machine.autocast():
        x = _input(classifier, pixels, scale)
        maps = net(x)[0].float()
    found = _placed(maps[label].cpu().numpy(), STRIDE, net.crop / 2, x, pixels)
    return replace(found, top=int(maps.mean(dim=(1, 2)).argmax()))


def grad_cam(classifier: Classifier, pixels: Pixels, label: int, scale: int | None = None) -> PlacedMap:
    """Grad-CAM of a class on the last convolution, with values of 0 or more; arguments and errors as of `score_map`."""
    net, machine = _net(classifier), classifier.machine
    last = next(spec.name for spec in reversed(net.specs) if spec.stage == 5)
    with machine.running():
        with torch.no_grad(), machine.autocast():
            x = _input(classifier, pixels, scale)
            maps = net.activations(x, last)
        with torch.enable_grad():  # without autocast: gradients in half precision vanish
            maps = maps.to(machine.dtype).requires_grad_()
            scores = net.mean_scores_from(maps)[0]
            (gradient,) = torch.autograd.grad(scores[label], maps)
        weights = gradient.mean(dim=(2, 3), keepdim=True)
        cam = F.relu((weights * maps.detach()).sum(dim=1))[0].float().cpu().numpy()
    return replace(_placed(cam, STRIDE // 2, STRIDE / 4, x, pixels), top=int(scores.argmax()))


def _net(classifier: Classifier) -> Net:
    net = check_explainable(classifier).net
    assert isinstance(net, Net)
    return net


def _input(classifier: Classifier, pixels: Pixels, scale: int | None) -> Tensor:
    """The net's input from an image at scale Q, float (1,3,H,W)."""
    metadata = classifier.metadata
    dense = Protocol("dense", (scale or map_scale(metadata),), mirror=False)
    check_protocol(dense, metadata.crop)
    (view,) = ResizeToScales.for_net(metadata, dense)(pixels)
    shift = torch.tensor(-np.asarray(metadata.mean), dtype=torch.float32)[None]
    return model_input(classifier.net, torch.from_numpy(view.copy())[None], classifier.machine, shift)


def _placed(values: NDArray[np.float32], stride: int, first: float, x: Tensor, pixels: Pixels) -> PlacedMap:
    """A map whose cells are ``stride`` pixels apart in the rescaled image ``x``, the first centre at ``first``."""
    size = (pixels.shape[0], pixels.shape[1])
    rows, columns = (
        (first + stride * np.arange(cells)) * (side / scaled)
        for cells, side, scaled in zip(values.shape, size, x.shape[2:], strict=True)
    )
    return PlacedMap(values, rows, columns, size)


def overlay(pixels: Pixels, found: PlacedMap) -> Pixels:
    """A map over its image in grey, uint8 (H,W,3): the smallest value is dark blue, the largest yellow.

    Values are interpolated between the cells' centres and constant beyond the outermost; a constant map has the middle
    colour. Images longer than `LONGEST` are shrunk to that size.
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
    """Linear interpolation weights of n cells at each pixel of a side, (length,n)."""
    pixels = np.arange(length) + 0.5
    return np.stack([np.interp(pixels, centres, cell) for cell in np.eye(len(centres))], axis=1)


@dataclass(frozen=True)
class Explained:
    """The overlays of an image: the class, and the files of its score map and Grad-CAM."""

    name: str
    map: Path
    gradcam: Path

    def to_json(self) -> dict[str, Any]:
        """``{class, map, gradcam}``; the last two are paths."""
        return {"class": self.name, "map": str(self.map), "gradcam": str(self.gradcam)}


def write_explanations(
    classifier: Classifier,
    predictions: Sequence[Prediction],
    folder: Path,
    protocol: str | None = None,
    reporter: Reporter | None = None,
    faults: dict[int, str] | None = None,
) -> list[Explained | None]:
    """Writes ``NAME-map.png`` and ``NAME-gradcam.png`` of the top class of each image; existing names are numbered.

    An overlay never overwrites an input image.

    Args:
        predictions: of image files.
        protocol: that of the predictions; the maps are at the Q of `map_scale`.
        faults: receives the messages of images whose overlays cannot be written, by index; their item is None.

    Raises:
        VerydeepError: as `check_explainable`; an overlay cannot be written, and ``faults`` is None.
    """
    check_explainable(classifier)
    scale = map_scale(classifier.metadata, protocol)
    names = FreeNames(folder, [Path(prediction.image) for prediction in predictions])
    written: list[Explained | None] = []
    with (reporter or Silent()).track("explaining", len(predictions)) as advance:
        for index, prediction in enumerate(predictions):
            try:
                written.append(_explain(classifier, prediction, names, scale))
            except VerydeepError as fault:
                if faults is None:
                    raise
                faults[index] = f"cannot explain {prediction.image}: {fault}"
                written.append(None)
            advance(1, "")
    return written


def _explain(classifier: Classifier, prediction: Prediction, names: FreeNames, scale: int) -> Explained:
    pixels, name = read_image(prediction.image), prediction.classes[0][0]
    label = classifier.classes.index(name)
    explained = Explained(name, *names.after(prediction.image, MAP, CAM))
    _write(overlay(pixels, score_map(classifier, pixels, label, scale)), explained.map)
    _write(overlay(pixels, grad_cam(classifier, pixels, label, scale)), explained.gradcam)
    return explained


def _write(picture: Pixels, path: Path) -> None:
    write_atomically(path, lambda file: Image.fromarray(picture).save(file, "PNG"))
