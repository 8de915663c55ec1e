"""Sect. 3.1: classification by multinomial logistic regression, validated by the dev part's top-1 error at Q = S."""

from __future__ import annotations

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from ..checkpoints.checkpoint import Metadata
from ..core.device import Machine
from ..core.progress import Reporter
from ..core.settings import DataSettings
from ..core.team import Team
from ..data.dataloader import Batch
from ..data.open import Data, Dataset, open_data
from ..evaluation.evaluate import dataset_posteriors
from ..evaluation.metrics import chance_error, mean_log_loss, topk_error
from ..evaluation.predict import Classifier
from ..evaluation.protocols import Protocol
from ..models.vgg import Net
from .task import Task, in_full_precision


class ClassificationTask(Task):
    """Training of a classifier."""

    error, loss = "top1_error", "loss"

    def open(self, data: DataSettings, reporter: Reporter) -> Data:
        """All images."""
        return open_data(data)

    def batch_loss(self, outputs: Tensor, batch: Batch, weights: Tensor | None = None) -> tuple[Tensor, int]:
        """Cross-entropy; an image is wrong where the largest output is not its label's."""
        scores = in_full_precision(outputs)
        factors = None if weights is None else weights.to(scores)
        loss = F.cross_entropy(scores, batch.labels, weight=factors, reduction="sum")
        return loss, int((outputs.argmax(1) != batch.labels).sum())

    def chance(self, dev: Dataset) -> float:
        """The error of always predicting the most frequent class."""
        return chance_error(dev.labels)

    def chance_loss(self, dev: Dataset) -> float:
        """The loss of the same probability for every class."""
        return float(np.log(len(dev.classes)))

    def validate(
        self, net: Net, metadata: Metadata, dev: Dataset, machine: Machine, reporter: Reporter, team: Team
    ) -> tuple[float, float]:
        """Top-1 error in percent and mean log loss, by the settings' ``validate``; dense with mirror images."""
        method = metadata.train_settings.validate
        protocol = Protocol(method, (metadata.test_scale,), mirror=method == "dense")
        classifier = Classifier(net, metadata, machine)
        predicted = dataset_posteriors(classifier, dev, protocol, reporter, "validating", team=team).posteriors
        if not np.isfinite(predicted).all():
            return np.nan, np.nan
        error = topk_error(predicted, dev.labels, 1)
        assert error is not None
        return error, mean_log_loss(predicted, dev.labels)
