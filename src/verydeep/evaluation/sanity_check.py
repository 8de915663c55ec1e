"""Sect. 1, released weights: a converted 1000-class net of ILSVRC classifies three photos that come with the package.

A wrong channel order, mean, scale or order of fc6's inputs raises no error, and net E recognises a clear photo with its
channels reversed or without its mean. At low contrast it does not: at 1/16 an offset of the mean outweighs what is left
of the photo. Pixels that are too large show at 1/128, where a correct net recognises nothing.

Protocol: a photo is x = m + contrast · (photo - m), with m the mean colour of ILSVRC. A net as it was converted is
sound if the mean logarithm of the true classes' posteriors is above `SEEN` at full contrast and below it at 1/128. Then
it is compared with the other channel order and other means, at 1/16, and found wrong if one of them is better by more
than `MARGIN`. A net that is not sound is compared with all preprocessing in use, and with fc6's inputs in other orders;
the best sound one at 1/16 is the likely cause. Crops are those of 224 pixels, without mirror images.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from ..checkpoints.checkpoint import Checkpoint, Metadata
from ..checkpoints.preprocessing import KNOWN, MEAN_RGB, Preprocessing, Triple, our_pixels, triple
from ..checkpoints.registry import ilsvrc_classes
from ..core.config import STRIDE
from ..core.progress import Reporter
from ..core.settings import MachineSettings
from ..data.class_names import caption, display_name, place_of_class
from ..data.image_io import decode
from ..data.transforms import rescale
from ..models.vgg import Net
from .predict import Prediction, best_classes, place_classifier

PHOTOS = {"espresso": "n07920052 espresso", "pizza": "n07873807 pizza", "cab": "n02930766 cab"}
FULL, LOW, LOWEST = 1.0, 1 / 16, 1 / 128  # contrast
SEEN, MARGIN = -2.0, 1.0  # of the mean logarithm of the true classes' posteriors
SURE = 0.5
CONVENTIONS = (
    KNOWN["rgb-mean"],
    KNOWN["torchvision"],
    Preprocessing("RGB", (0.0, 0.0, 0.0), 1 / 255),
    Preprocessing("RGB", (1.0, 1.0, 1.0), 1 / 127.5),
)


@dataclass(frozen=True)
class PhotoCheck:
    """What a net predicts for the photos, and a warning with its likely ``cause``; both are empty for a sound net."""

    predictions: tuple[Prediction, ...]
    cause: str = ""
    warning: str = ""

    def to_json(self) -> dict[str, Any]:
        """``{photos: [{image, predictions}], cause, warning}``, null for a sound net."""
        photos = [prediction.to_json() for prediction in self.predictions]
        return {"photos": photos, "cause": self.cause or None, "warning": self.warning or None}


def check_on_photos(checkpoint: Checkpoint, reporter: Reporter) -> PhotoCheck | None:
    """Checks a classifier on the photos; None for one without ILSVRC's 1000 classes or of another width than Table 1's.

    Args:
        reporter: shows progress while causes are tried, and the warning.
    """
    metadata = checkpoint.metadata
    labels = [_label(name, metadata.classes) for name in PHOTOS.values()]
    if metadata.is_localiser or metadata.width != 1 or len(metadata.classes) != len(ilsvrc_classes()) or None in labels:
        return None
    photos = photos_before(checkpoint, [label for label in labels if label is not None])
    result = photos.judge(reporter)
    if result.warning:
        reporter.warn(result.warning)
    return result


def _label(name: str, classes: tuple[str, ...]) -> int | None:
    """The output of a class of ILSVRC, by its WNID or, for nets whose names have none, its first word."""
    found = place_of_class(name, classes)
    words = [other.partition(",")[0] for other in classes]
    return words.index(caption(name)) if found is None and caption(name) in words else found


@dataclass(frozen=True)
class Reading:
    """A way in which a weight file may be meant: its preprocessing, and the order of fc6's inputs ("" as read)."""

    pixels: Preprocessing
    fc6: str = ""


def _rows_first(weight: Tensor) -> Tensor:
    """fc6 (4096,D,h,w) of a file with inputs in the order h, w, D, which was read as D, h, w."""
    outputs, channels, height, width = weight.shape
    return weight.reshape(outputs, height, width, channels).permute(0, 3, 1, 2).contiguous()


def _channels_first(weight: Tensor) -> Tensor:
    """The opposite: of a file with D, h, w, which was read as h, w, D."""
    return weight.permute(0, 2, 3, 1).reshape(weight.shape)


FC6_ORDERS: dict[str, Callable[[Tensor], Tensor]] = {
    "row, column, channel": _rows_first,
    "channel, row, column": _channels_first,
}


def photos_before(checkpoint: Checkpoint, labels: list[int]) -> Photos:
    """The photos before a net, whose ``labels`` they have, with the preprocessing that it was converted with."""
    metadata = checkpoint.metadata
    classifier = place_classifier(checkpoint, MachineSettings())
    assert isinstance(classifier.net, Net)
    loaded = torch.tensor(np.stack([_photo(name, metadata.crop) for name in PHOTOS]))
    images = loaded.permute(0, 3, 1, 2).to(classifier.machine.device, classifier.machine.dtype)
    return Photos(classifier.net, images, labels, metadata, _stated(metadata))


def _photo(name: str, crop: int) -> NDArray[np.uint8]:
    return rescale(decode((files(__package__) / "photos" / f"{name}.jpg").read_bytes(), name), crop)


def _stated(metadata: Metadata) -> Preprocessing:
    """The preprocessing of the file that a net was converted from, as it was stated."""
    recorded = metadata.origin.get("pixels")
    pixels = Preprocessing.from_json(recorded) if recorded else our_pixels(metadata.mean)
    mean = np.array(_ordered(metadata.mean, pixels.order)) * pixels.scale
    return replace(pixels, mean=triple(mean))


def _ordered(rgb: Triple, order: str) -> Triple:
    return triple(rgb if order == "RGB" else rgb[::-1])


@dataclass(frozen=True)
class Photos:
    """The photos (N,3,H,W), RGB 0-255, before a net that was converted with the ``stated`` preprocessing."""

    net: Net
    images: Tensor
    labels: list[int]
    metadata: Metadata
    stated: Preprocessing

    def judge(self, reporter: Reporter) -> PhotoCheck:
        """Finds out whether the net is sound, and else why; the protocol is that of the module."""
        given = Reading(self.stated)
        clear = self.posteriors(given, FULL)
        shown = best_classes(list(PHOTOS), clear, self.metadata.classes, 1, ())
        cause = self._cause(given, reporter)
        if cause is None:
            return PhotoCheck(tuple(shown))
        if cause == given:
            return PhotoCheck(tuple(shown), "unknown", self._unexplained(shown))
        return PhotoCheck(tuple(shown), *_explained(cause, self.stated))

    def _cause(self, given: Reading, reporter: Reporter) -> Reading | None:
        """What the file is likely to be: None if it is as given, ``given`` itself if nothing helps."""
        sound = self._is_sound(given)
        readings = _others(self.stated, _same_scale(self.stated)) if sound else self._all_readings()
        tried = []
        with reporter.track("checking the net on photos", len(readings)) as advance:
            for reading in readings:
                tried.append((self.log_posterior(reading, LOW), reading))
                advance(1, "")
        tried.sort(key=lambda pair: -pair[0])
        least = self.log_posterior(given, LOW) + MARGIN if sound else -np.inf
        better = (reading for value, reading in tried if value > least and self._is_sound(reading))
        return next(better, None if sound else given)

    def _all_readings(self) -> list[Reading]:
        """Everything that is tried for a net that is not sound."""
        usual = [_in_order(pixels, order) for pixels, order in itertools.product(CONVENTIONS, ("RGB", "BGR"))]
        orders = FC6_ORDERS if self.metadata.crop > STRIDE else ()  # of one cell: all orders are the same
        pixels = _others(self.stated, [*usual, *_same_scale(self.stated)])
        return [*pixels, *(Reading(self.stated, order) for order in orders)]

    def _is_sound(self, reading: Reading) -> bool:
        return self.log_posterior(reading, FULL) > SEEN > self.log_posterior(reading, LOWEST)

    def log_posterior(self, reading: Reading, contrast: float) -> float:
        """The mean over the photos of the logarithm of the true class's posterior."""
        true = self.posteriors(reading, contrast)[np.arange(len(self.labels)), self.labels]
        return float(np.log(np.maximum(true, np.finfo(np.float32).tiny)).mean())

    def posteriors(self, reading: Reading, contrast: float) -> NDArray[np.float32]:
        """The posteriors (N,K) of the photos at a contrast, as the net would give them if its file were meant so."""
        mean = torch.tensor(MEAN_RGB).to(self.images)[:, None, None]
        pixels = self._input(mean + contrast * (self.images - mean), reading.pixels)
        with torch.inference_mode(), _fc6_in_order(self.net, reading.fc6):
            return F.softmax(self.net.mean_scores(pixels).float(), dim=1).cpu().numpy()

    def _input(self, images: Tensor, assumed: Preprocessing) -> Tensor:
        """The net's input by which conv1_1 as it was stored sees ``assumed`` pixels.

        The net's conv1_1 is the stored one times the stated scale over std, in the order RGB: this is undone.
        """
        mean, std, stated_std = (
            torch.tensor(values).to(images)[:, None, None] for values in (assumed.mean, assumed.std, self.stated.std)
        )
        stored = ((images if assumed.order == "RGB" else images.flip(1)) * assumed.scale - mean) / std
        ours = stored * stated_std / self.stated.scale
        return ours if self.stated.order == "RGB" else ours.flip(1)

    def _unexplained(self, shown: list[Prediction]) -> str:
        """The warning about a net that no reading makes sound."""
        given = Reading(self.stated)
        sure = self.posteriors(given, FULL).max(1).mean() > SURE > self.posteriors(given, LOWEST).max(1).mean()
        if sure:
            found = ", ".join(f"{photo.image}: {display_name(photo.classes[0][0])}" for photo in shown)
            return f"the net is sure of other classes ({found}): its class names are probably in another order."
        return (
            f"the net does not recognise the built-in photos ({', '.join(PHOTOS)}) with any channel order, mean, "
            "scale or order of fc6's inputs: its weights are probably damaged, or its classes in another order."
        )


@contextmanager
def _fc6_in_order(net: Net, order: str) -> Iterator[None]:
    layer = net.layer("fc6")
    weight = layer.weight
    if order:
        layer.weight = nn.Parameter(FC6_ORDERS[order](weight.detach()), requires_grad=False)
    try:
        yield
    finally:
        layer.weight = weight


def _others(stated: Preprocessing, candidates: list[Preprocessing]) -> list[Reading]:
    """The candidates that differ from the stated preprocessing and from each other."""
    found = [stated]
    for pixels in candidates:
        if all(_differences(pixels, other) for other in found):
            found.append(pixels)
    return [Reading(pixels) for pixels in found[1:]]


def _same_scale(stated: Preprocessing) -> list[Preprocessing]:
    """The stated preprocessing in the other channel order, and with other means."""
    natural = triple(np.array(_ordered(MEAN_RGB, stated.order)) * stated.scale)
    flipped = _in_order(stated, "BGR" if stated.order == "RGB" else "RGB")
    means = (triple(stated.mean[::-1]), (0.0, 0.0, 0.0), natural)
    return [flipped, *(replace(stated, mean=mean) for mean in means)]


def _in_order(pixels: Preprocessing, order: str) -> Preprocessing:
    """The same preprocessing of channels in another order."""
    if order == pixels.order:
        return pixels
    return replace(pixels, order=order, mean=triple(pixels.mean[::-1]), std=triple(pixels.std[::-1]))


def _differences(one: Preprocessing, other: Preprocessing) -> list[str]:
    """In what two ways to preprocess differ by more than a net would notice."""
    one_rgb, other_rgb = _in_order(one, "RGB"), _in_order(other, "RGB")
    factors = [pixels.scale / np.array(pixels.std) for pixels in (one_rgb, other_rgb)]
    means = [np.array(pixels.mean) / pixels.scale for pixels in (one_rgb, other_rgb)]  # in grey levels
    differs = {
        "channel order": one.order != other.order,
        "mean": not np.allclose(means[0], means[1], rtol=0, atol=2),
        "scale": not np.allclose(factors[0], factors[1], rtol=0.3, atol=0),
    }
    return [what for what, is_other in differs.items() if is_other]


def _explained(reading: Reading, stated: Preprocessing) -> tuple[str, str]:
    """The cause and the warning about a net that another reading explains."""
    if reading.fc6:
        cause, better = "order of fc6's inputs", f"the order {reading.fc6}"
        remedy = "; reorder the weights of fc6 in the original file, and convert that"
    else:
        cause, better = " and ".join(_differences(reading.pixels, stated)), reading.pixels.formula()
        name = next((name for name, known in KNOWN.items() if not _differences(known, reading.pixels)), "")
        remedy = f"; convert the original file with --preprocessing {name}" if name else ""
    return cause, (
        f"wrong {cause}, probably: the net recognises the built-in photos ({', '.join(PHOTOS)}) better with "
        f"{better}{remedy}."
    )
