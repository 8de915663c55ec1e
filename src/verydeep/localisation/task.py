"""Sect. A.1: training of a localisation model from a classification run.

Net D with its last layer replaced by one that predicts boxes: 4 outputs (SCR) or 4 per class (PCR), of random weights;
the other layers start from the classification run of the same S. The loss is Euclidean, half the squared distance of
(cx, cy, w, h), all relative to the crop's side; with PCR only the four outputs of an image's class get a gradient.
Validation is the first procedure: the centre crop at Q = S, the true class, right at an overlap of `BOX_IOU`.

The net is then applied to whole images, whose maps differ from those of crops surrounded by zeros. With ``context``
photo it is trained on such maps: on whole images, with the crop's place as a cell of the map. Validation is then dense,
the boxes of all cells merged.
`verydeep.localisation.evaluate` evaluates.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..checkpoints.checkpoint import Metadata
from ..core.config import to_json
from ..core.device import Machine
from ..core.errors import VerydeepError
from ..core.progress import Reporter
from ..core.settings import BoxSettings, DataSettings, MergeSettings, TrainSettings
from ..core.team import Team
from ..data.box_targets import located
from ..data.boxes import cxcywh_to_xyxy, iou
from ..data.class_weights import NONE
from ..data.dataloader import Batch, BoxTargets
from ..data.open import Data, Dataset, open_data
from ..data.transforms import centre_crop, rescale
from ..evaluation.metrics import BOX_IOU, best_overlap
from ..evaluation.protocols import BoxProtocol
from ..models.vgg import Net
from ..training.task import Task, in_full_precision
from .inference import BoxPredictor, CandidateBoxes
from .merge import USUAL_T, merge_candidates
from .rebalance import balance
from .windows_file import dataset_windows

BALANCE_IMAGES = 64  # training images whose maps `rebalance` measures


@dataclass(frozen=True)
class LocalisationTask(Task):
    """Training of a localisation model; with ``strict`` any faulty box is an error."""

    boxes: BoxSettings
    strict: bool
    error: ClassVar[str] = "gt_class_error"
    loss: ClassVar[str] = "missed_overlap"

    @property
    def dropout(self) -> bool:
        """Whether dropout is used: as in the settings."""
        return self.boxes.dropout

    @property
    def box_settings(self) -> dict[str, Any]:
        """The settings as JSON."""
        return to_json(self.boxes)

    def open(self, data: DataSettings, reporter: Reporter) -> Data:
        """The images with boxes of their class."""
        opened = open_data(data, least_classes=1)
        checked = {name: located(opened.set(name), self.strict, reporter).dataset for name in ("train", "dev")}
        return replace(opened, sets={**opened.sets, **checked})

    def prepare(
        self, net: Net, metadata: Metadata, train: Dataset, settings: TrainSettings, reporter: Reporter
    ) -> None:
        """Rescales the FC layers by their maps of a few training images' centre crops."""
        if not self.boxes.balance:
            return
        few = train.evenly(BALANCE_IMAGES)
        scaled = [rescale(few.pixels(index), metadata.test_scale, metadata.resampling) for index in range(len(few))]
        cropped = np.stack([centre_crop(pixels, metadata.crop) for pixels in scaled])
        crops = torch.from_numpy(cropped).permute(0, 3, 1, 2)
        factors = balance(net, crops.float() - torch.tensor(metadata.mean)[None, :, None, None], settings.lr)
        reporter.say("scaled fc6, fc7 and fc8 by {:.2g}, {:.2g} and {:.2g} to fit the learning rate".format(*factors))

    def targets(self, train: Dataset) -> BoxTargets | None:
        """The boxes of the training images."""
        assert train.boxes is not None
        return BoxTargets(train.boxes, self.boxes.half_of_box)

    def class_weights(self, train: Dataset, settings: TrainSettings) -> None:
        """None: the loss is a distance between boxes."""
        if settings.class_weights != NONE:
            raise VerydeepError("class_weights is for classification: omit it to train a localisation model.")

    def batch_loss(self, outputs: Tensor, batch: Batch, weights: Tensor | None = None) -> tuple[Tensor, int]:
        """The Euclidean loss; a crop is wrong where the overlap with its target is below `BOX_IOU`."""
        predicted = in_full_precision(outputs)
        if self.boxes.regression == "PCR":
            index = torch.arange(len(predicted), device=predicted.device)
            predicted = predicted.view(len(predicted), -1, 4)[index, batch.labels]
        loss = (predicted - batch.boxes).square().sum() / 2
        overlap = iou(*(_corners(boxes) for boxes in (predicted, batch.boxes)))
        return loss, int((overlap < BOX_IOU).sum())

    def chance(self, dev: Dataset) -> float:
        """100: no box is right."""
        return 100.0

    def chance_loss(self, dev: Dataset) -> float:
        """1: no overlap."""
        return 1.0

    def validate(
        self, net: Net, metadata: Metadata, dev: Dataset, machine: Machine, reporter: Reporter, team: Team
    ) -> tuple[float, float]:
        """GT-class error in percent, and the mean of 1 - IoU with the nearest box of the class."""
        dense = metadata.train_settings.context == "photo"
        protocol = BoxProtocol("dense" if dense else "centre", (metadata.test_scale,))
        shard = np.array(team.shard(len(dev)), dtype=np.int64)
        labels = dev.labels[shard, None]
        predictor = BoxPredictor(net, metadata, None, protocol, machine)
        candidates = dataset_windows(predictor, dev.take(shard), labels, reporter, "validating")
        boxes = [self._merged(candidates[index], labels[index]) for index in range(len(shard))]
        predicted = np.stack([box for share in team.all_gather(boxes) for box in share])
        if not np.isfinite(predicted).all():
            return np.nan, np.nan
        assert dev.boxes is not None
        overlap = best_overlap(predicted, dev.boxes)
        return 100 * float((overlap < BOX_IOU).mean()), float(1 - overlap.mean())

    def _merged(self, windows: CandidateBoxes, labels: NDArray[np.int64]) -> NDArray[np.floating]:
        """The box of the true class, xyxy (4,): the only one, or the one that most candidates agree on."""
        box: NDArray[np.floating] = windows.boxes[0, 0]
        if len(windows.boxes) > 1 and np.isfinite(windows.boxes).all():
            box = merge_candidates(windows, labels, MergeSettings(), USUAL_T)[0][0]
        return box


def _corners(boxes: Tensor) -> NDArray[np.float64]:
    return cxcywh_to_xyxy(boxes.detach().cpu().numpy())
