"""Linear probing, then fine-tuning (Kumar et al., ICLR 2022): new FC layers are fitted before step 1.

Descriptors are computed with the initial weights: the mean over the map of fc7, of the whole image at Q = S. If the
start has no fc6 or no fc7, both are first initialised to pass pool5 on (`verydeep.models.fc_layers`). A new fc8 is then
the multinomial logistic regression on the descriptors of at most `MOST` training images. So training starts from a
linear probe, with small gradients, and as the start is epoch 0 the result is never worse on the dev part.

Linear SVMs are trained on the same descriptors, scaled to length 1: fine-tuning has to improve on their dev error.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ..checkpoints.checkpoint import Metadata
from ..core.device import Machine
from ..core.progress import Reporter
from ..core.settings import TrainSettings
from ..core.team import Team
from ..data.class_weights import class_weights
from ..data.open import Dataset
from ..evaluation.inference import LEAVE_OUT, readable_images
from ..models.fc_layers import HIDDEN, fit_to_rate, pass_pool5_on
from ..models.vgg import Net
from .backbone import FULL, FeatureNet
from .descriptors import descriptors, unit
from .logistic import fit_logistic
from .svm import SvmTrainer

C = 10.0  # of SVMs on descriptors of length 1; choosing it on the dev part would bias the error there
MOST = 10_000  # training images, evenly spaced in the set: more hardly help and take longer
Rows = NDArray[np.float32]


@dataclass(frozen=True)
class Fitted:
    """The result of `fit_start`: layers that are still random, and the SVMs' dev error in percent, or None."""

    random: tuple[str, ...]
    probe_error: float | None


def fit_start(
    net: Net,
    metadata: Metadata,
    random: tuple[str, ...],
    sets: tuple[Dataset, Dataset],
    machine: Machine,
    reporter: Reporter,
    team: Team,
) -> Fitted:
    """Fits new FC layers in place where the settings say so, and evaluates linear SVMs on the start's descriptors.

    Args:
        random: the layers that the start does not have; if convolutions are among them nothing is fitted.
        sets: training images and the dev part.

    Raises:
        ImageError: an image cannot be read.
    """
    if any(name.startswith("conv") for name in random):
        return Fitted(random, None)
    settings = metadata.train_settings
    fits, new = settings.new_fc == "fitted" and "fc8" in random, set(HIDDEN) & set(random)
    if fits and new:
        pass_pool5_on(net)
        reporter.say("fc6 and fc7 are initialised to pass pool5 on, as the initial weights do not have both")
    layer = "pool5" if new and not fits else FULL
    source = FeatureNet(net, layer, metadata, {})
    machine.place_model(net.eval())
    chosen, dev = sets[0].evenly(MOST), sets[1]
    with machine.running():
        rows, dev_rows = (_descriptors(source, dataset, machine, reporter, team) for dataset in (chosen, dev))
        if fits:
            reporter.say(f"fitting fc8 to {len(chosen)} images")
            _fit(net, rows, chosen, settings, HIDDEN if new else ())
    return Fitted(() if fits else random, _svm_error(rows, chosen, dev_rows, dev, settings))


def _fit(net: Net, rows: Rows, train: Dataset, settings: TrainSettings, new: tuple[str, ...]) -> None:
    """Scales fc7's map to fit the learning rate, and sets fc8 to the logistic regression on it; ``rows`` (N,D)."""
    length = float(np.einsum("nd,nd->n", rows, rows, dtype=np.float64).mean())
    factor = fit_to_rate(net, length, settings.lr, new)
    last = net.layer("fc8")
    x, y = (torch.from_numpy(array).to(last.weight.device) for array in (rows, train.labels))
    of_classes = class_weights(settings.class_weights, train.labels, train.classes)
    factors = None if of_classes is None else torch.from_numpy(of_classes).to(x)
    weights, biases = fit_logistic(x * factor, y, last.out_channels, factors=factors)
    assert last.bias is not None
    with torch.no_grad():
        last.weight.copy_(weights[:, :, None, None])
        last.bias.copy_(biases)


def _svm_error(rows: Rows, train: Dataset, dev_rows: Rows, dev: Dataset, settings: TrainSettings) -> float | None:
    """Top-1 error in percent of linear SVMs on the dev part; None if a class has no training image."""
    labels = np.unique(train.labels)
    if len(labels) < len(train.classes):
        return None
    marks = np.where(train.labels[:, None] == labels, 1, -1).astype(np.int8)
    of_classes = class_weights(settings.class_weights, train.labels, train.classes)
    weights = None if of_classes is None else of_classes[train.labels]
    (svm,) = SvmTrainer(unit(rows), marks, weights=weights).fit((C,))
    return 100 * float((svm.scores(unit(dev_rows)).argmax(1) != dev.labels).mean())


def _descriptors(source: FeatureNet, dataset: Dataset, machine: Machine, reporter: Reporter, team: Team) -> Rows:
    """Descriptors of a dataset, float32 (N,D)."""
    shard, rows = team.shard(len(dataset)), dict[int, Rows]()
    views = readable_images(dataset, shard, source.resize((source.metadata.test_scale,)), machine, LEAVE_OUT)
    with reporter.track(f"extracting {source.layer} descriptors of the initial weights", len(shard)) as advance:
        for _, indices, batch in descriptors(source, views, "mean", False, machine):
            rows.update(zip(indices, batch, strict=True))
            advance(len(indices), "")
    gathered = {index: row for share in team.all_gather(rows) for index, row in share.items()}
    return np.stack([gathered[index] for index in range(len(dataset))])
