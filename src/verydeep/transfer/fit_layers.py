"""Linear probing, then fine-tuning (Kumar et al., ICLR 2022): new FC layers are fitted before step 1.

Photos are described by the net as it starts: the mean over the map of fc7, of the whole photo at Q = S. Where the
start has no fc6 or no fc7, both first become layers that pass pool5 on (`verydeep.models.fc_layers`). A new fc8 is then
the multinomial logistic regression on the descriptors of the training photos, at most `MOST` of them. So training
begins where a probe ends, with small gradients, and as its start counts as epoch 0 it does not end worse on the dev
part.

Beside it linear SVMs learn from the same descriptors, brought to length 1, and predict the dev part: the error that
fine-tuning on the same photos has to beat.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ..checkpoints.checkpoint import Metadata
from ..core.device import Machine
from ..core.errors import ImageError
from ..core.progress import Reporter
from ..core.team import Team
from ..data.dataloader import each_photo
from ..data.image_io import Pixels
from ..data.open import Dataset
from ..data.workers import Fault
from ..evaluation.inference import ResizeToScales
from ..evaluation.protocols import Protocol
from ..models.fc_layers import HIDDEN, fit_to_rate, pass_pool5_on
from ..models.vgg import Net
from .backbone import FULL, FeatureNet
from .descriptors import descriptors, unit
from .logistic import fit_logistic
from .svm import fit_svms

C = 10.0  # of SVMs on descriptors of length 1; chosen on the dev part it would flatter the error there
MOST = 10_000  # training photos, evenly spaced in the set: more would take longer than they are worth here
Rows = NDArray[np.float32]


@dataclass(frozen=True)
class Fitted:
    """What `fit_start` left: the layers that are still random, and the SVMs' dev error in percent, if it has one."""

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
        random: the layers that the start does not have; where convolutions are among them nothing is done.
        sets: training images and the dev part.

    Raises:
        ImageError: a photo cannot be read.
    """
    if any(name.startswith("conv") for name in random):
        return Fitted(random, None)
    settings = metadata.train_settings
    fits, new = settings.new_fc == "fitted" and "fc8" in random, set(HIDDEN) & set(random)
    if fits and new:
        pass_pool5_on(net)
        reporter.say("fc6 and fc7 pass pool5 on, as the start does not have both")
    layer = "pool5" if new and not fits else FULL
    source = FeatureNet(net, layer, metadata.mean, metadata.test_scale, metadata.resampling, metadata.other_side, {})
    machine.place_model(net.eval())
    train, dev = sets
    chosen = train.take(np.unique(np.linspace(0, len(train) - 1, min(MOST, len(train))).astype(np.int64)))
    with machine.running():
        rows, of_dev = (_described(source, one, machine, reporter, team) for one in (chosen, dev))
        if fits:
            reporter.say(f"fitting fc8 to {len(chosen)} photos")
            _fit(net, rows, chosen.labels, settings.lr, HIDDEN if new else ())
    return Fitted(() if fits else random, _svm_error(rows, chosen, of_dev, dev))


def _fit(net: Net, rows: Rows, labels: NDArray[np.int64], rate: float, new: tuple[str, ...]) -> None:
    """Scales fc7's map to fit the rate, and makes fc8 the logistic regression on it."""
    length = float(np.einsum("nd,nd->n", rows, rows, dtype=np.float64).mean())
    factor = fit_to_rate(net, length, rate, new)
    last = net.layer("fc8")
    shown, told = (torch.from_numpy(array).to(last.weight.device) for array in (rows, labels))
    weights, biases = fit_logistic(shown * factor, told, last.out_channels)
    assert last.bias is not None
    with torch.no_grad():
        last.weight.copy_(weights[:, :, None, None])
        last.bias.copy_(biases)


def _svm_error(rows: Rows, train: Dataset, of_dev: Rows, dev: Dataset) -> float | None:
    """Top-1 error in percent of linear SVMs on the dev part; None where a class has no photo to learn from."""
    labels = np.unique(train.labels)
    if len(labels) < len(train.classes):
        return None
    marks = np.where(train.labels[:, None] == labels, 1, -1).astype(np.int8)
    (svm,) = fit_svms(unit(rows), marks, (C,))
    return 100 * float((svm.scores(unit(of_dev)).argmax(1) != dev.labels).mean())


def _described(source: FeatureNet, dataset: Dataset, machine: Machine, reporter: Reporter, team: Team) -> Rows:
    """Descriptors of a set, float32 (N,D)."""
    mine = np.array(team.shard(len(dataset)), dtype=np.int64)
    views = ResizeToScales(
        Protocol("dense", (source.test_scale,), False), source.net.crop, source.resampling, source.other_side
    )
    rows: dict[int, Rows] = {}

    def shown() -> Iterator[tuple[int, list[Pixels]]]:
        for place, found in each_photo(dataset.take(mine), views, machine.readers):
            if isinstance(found, Fault):
                raise ImageError(f"{found.message} Remove it, or leave it out with --bad-images skip.")
            yield int(mine[place]), found

    with reporter.track(f"describing photos by the start's {source.layer}", len(mine)) as advance:
        for _, indices, found in descriptors(source, shown(), "mean", False, machine):
            rows.update(zip(indices, found, strict=True))
            advance(len(indices), "")
    whole = {index: row for share in team.all_gather(rows) for index, row in share.items()}
    return np.stack([whole[index] for index in range(len(dataset))])
