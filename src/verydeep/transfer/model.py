"""A net as a PyTorch module that takes images: what `verydeep.load` returns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..checkpoints.checkpoint import Metadata, save_checkpoint
from ..checkpoints.load import Loaded
from ..core.device import Machine
from ..core.errors import VerydeepError
from ..core.files import check_place
from ..core.progress import Reporter, Silent
from ..core.settings import DescriptorSettings, FeatureSettings, MachineSettings
from ..data.class_names import distinct
from ..data.image_io import as_pixels
from ..data.transforms import OtherSide, Resampling, centre_crop, rescale
from ..evaluation.predict import Classifier, listed, place_classifier
from ..models.vgg import Net
from .backbone import FeatureNet, check_layer
from .predict import DescriptorExtractor, NetAtScales


@dataclass(frozen=True)
class Transform:
    """An image to the net's input: the shorter side to Q, the central crop, RGB 0-255 minus the mean.

    It can be pickled, so that data-loading workers can use it, as in ``torchvision.datasets.ImageFolder``.
    """

    scale: int
    crop: int
    mean: tuple[float, float, float]
    resampling: Resampling = "bilinear"
    other_side: OtherSide = "round"

    def __call__(self, image: Any) -> Tensor:
        """float32 (3,crop,crop) of a PIL image, a path, encoded bytes or a uint8 array; raises ImageError."""
        pixels = centre_crop(rescale(as_pixels(image), self.scale, self.resampling, self.other_side), self.crop)
        centred = pixels.transpose(2, 0, 1) - np.array(self.mean, dtype=np.float32)[:, None, None]
        return torch.from_numpy(np.ascontiguousarray(centred))


def open_model(checkpoint: Loaded, settings: MachineSettings) -> Model | Classifier:
    """The model of a loaded file on the device of the settings; exported files are no PyTorch modules."""
    placed = place_classifier(checkpoint, settings)
    return Model(placed.net, placed.metadata, placed.machine) if isinstance(placed.net, Net) else placed


class Model(nn.Module, Classifier):
    """A net with its classes and preprocessing, as a `torch.nn.Module`.

    Called with a batch of images after `transform`, float (B,3,H,W), it returns scores (B,K) before soft-max, so any
    training loop can train it. `predict`, `posteriors` and `features` take images as they are; they run in evaluation
    mode, without gradients, on the device of the weights.
    """

    net: Net

    def __init__(self, net: Net, metadata: Metadata, machine: Machine) -> None:
        super().__init__()
        self.net, self.metadata, self.machine = net, metadata, machine
        self.train(net.training)

    def train(self, mode: bool = True) -> Model:
        """As of every module. Training mode drops the calibration, which is of the weights as they were."""
        if mode:
            self.metadata = replace(self.metadata, calibration={})
        return super().train(mode)

    def forward(self, images: Tensor) -> Tensor:
        """Scores (B,K): the mean over the score map."""
        return self.net.mean_scores(images)

    @property
    def transform(self) -> Transform:
        """The preprocessing of one image for `forward`, as in validation; training adds its own augmentation."""
        data = self.metadata
        return Transform(data.test_scale, data.crop, data.mean, data.resampling, data.other_side)

    def reset_classifier(self, classes: int | Sequence[str], seed: int = 0) -> Model:
        """Replaces fc8 by a new random layer, for other classes.

        Args:
            classes: their names, or their number for the names 0, 1, ….

        Returns the same model; raises VerydeepError for no classes.
        """
        names = distinct(map(str, range(classes) if isinstance(classes, int) else classes))
        if not names:
            raise VerydeepError("reset_classifier needs at least one class.")
        self.net.reset_classifier(len(names), seed)
        ours: dict[str, Any] = {"data": {}, "data_fingerprint": "", "settings": {}, "state": {}, "calibration": {}}
        self.metadata = replace(self.metadata, classes=names, **ours)
        return self

    def features(
        self,
        images: Any,
        layer: str = "fc7",
        scales: Sequence[int] = (),
        pool: Literal["mean", "max"] = "mean",
        mirror: bool = True,
        aggregate: Literal["stack", "average", "max"] = "stack",
        normalise: Literal["both", "scale", "end", "none"] = "both",
        faults: dict[int, str] | None = None,
        reporter: Reporter | None = None,
    ) -> NDArray[np.float32]:
        """Descriptors of images (App. B), float32 (N,D).

        Args:
            images: one image or several, as for `predict`.
            layer: a name of ``net.map_names()``, such as ``fc7``, ``pool5``, ``conv4_3`` or ``fc7-before-relu``.
            scales: Q; by default the net's own.
            pool, mirror: as in `verydeep.FeatureSettings`.
            aggregate, normalise: as in `verydeep.DescriptorSettings`.
            faults: receives the messages of unreadable images, by index; their rows are 0.

        Raises:
            ImageError: an image cannot be read, and ``faults`` is None.
            VerydeepError: no such layer, or Q below the crop for an FC layer.
        """
        settings = FeatureSettings(layer, tuple(scales) or (self.metadata.test_scale,), pool, mirror)
        check_layer(self.net, settings.layer)
        source = FeatureNet(self.net, settings.layer, self.metadata, {})
        source.check_scales(settings.scales)
        with self._evaluating():
            extractor = DescriptorExtractor(
                [NetAtScales(source, settings.scales, settings.pool, settings.mirror)],
                DescriptorSettings(aggregate, normalise),
                self.machine,
            )
            return extractor.rows(listed(images), faults, reporter or Silent())

    def posteriors(
        self,
        images: Any,
        protocol: str | None = None,
        faults: dict[int, str] | None = None,
        reporter: Reporter | None = None,
    ) -> NDArray[np.float32]:
        """Posteriors (N,K) of images, never calibrated, as `evaluate` stores them; arguments as for `predict`."""
        with self._evaluating():
            return Classifier.posteriors(self, images, protocol, faults, reporter)

    def save(self, file: str | Path) -> Path:
        """Writes a checkpoint, which `verydeep.load` and all commands take; returns its path."""
        path = Path(file)
        if path.suffix != ".safetensors":
            raise VerydeepError(f"{path} must end in .safetensors.")
        check_place(path.parent)
        save_checkpoint(path, self.net, self.metadata)
        return path

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        training = self.training
        self.eval()
        try:
            yield
        finally:
            self.train(training)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Model:
        """What `to`, `cuda` and `double` call: images follow the weights."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        weight = next(self.parameters())
        self.machine = replace(self.machine, device=weight.device, dtype=weight.dtype)
        return self
