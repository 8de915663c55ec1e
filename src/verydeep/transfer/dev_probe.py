"""App. B beside Sect. 3.1: what a linear SVM on the start's descriptors reaches, before fine-tuning changes them.

A photo's descriptor is the mean over the map of fc7, or of pool5 where fc6 or fc7 are new, of the whole photo at
Q = S, brought to length 1. Linear SVMs of one C learn from the training photos, at most `MOST` of them, and predict the
dev part: the error that fine-tuning on the same photos has to beat.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from ..checkpoints import Card
from ..data import Dataset
from ..data.loading import each_photo
from ..errors import ImageError
from ..images import Pixels
from ..machine import Machine
from ..nets import Net
from ..posteriors import Views
from ..progress import Reporter
from ..protocols import Protocol
from ..readers import Fault
from ..team import Team
from .features import descriptors, unit
from .nets import FULL, FeatureNet
from .svm_learning import fit_svms

C = 10.0  # for descriptors of length 1; chosen on the dev part it would flatter the error there
MOST = 10_000  # training photos, evenly spaced in the set: an SVM of more takes longer than it is worth here


def dev_error(
    net: Net,
    random: Sequence[str],
    card: Card,
    train: Dataset,
    dev: Dataset,
    machine: Machine,
    reporter: Reporter,
    team: Team,
) -> float | None:
    """Top-1 error in percent on the dev part; None where the start lacks convolutions, or ``train`` a class.

    Args:
        net: with the start's layers; ``random`` names those it has none for.

    Raises:
        ImageError: a photo cannot be read.
    """
    labels = np.unique(train.labels)
    if any(name.startswith("conv") for name in random) or len(labels) < len(train.classes):
        return None
    layer = "pool5" if {"fc6", FULL} & set(random) else FULL
    source = FeatureNet(net, layer, card.mean, card.test_scale, card.resampling, card.other_side, {})
    machine.place(net.eval())
    chosen = train.take(np.unique(np.linspace(0, len(train) - 1, min(MOST, len(train))).astype(np.int64)))
    with machine.at_work():
        rows, of_dev = (_described(source, one, machine, reporter, team) for one in (chosen, dev))
    marks = np.where(chosen.labels[:, None] == labels, 1, -1).astype(np.int8)
    (svm,) = fit_svms(rows, marks, (C,))
    return 100 * float((svm.scores(of_dev).argmax(1) != dev.labels).mean())


def _described(
    source: FeatureNet, dataset: Dataset, machine: Machine, reporter: Reporter, team: Team
) -> NDArray[np.float32]:
    """Descriptors of a set, float32 (N,D), of length 1."""
    mine = np.array(team.share(len(dataset)), dtype=np.int64)
    views = Views(
        Protocol("dense", (source.test_scale,), mirror=False), source.net.crop, source.resampling, source.other_side
    )
    rows: dict[int, NDArray[np.float32]] = {}

    def shown() -> Iterator[tuple[int, list[Pixels]]]:
        for place, found in each_photo(dataset.take(mine), views, machine.readers):
            if isinstance(found, Fault):
                raise ImageError(f"{found.sentence} Remove it, or leave it out with --bad-images skip.")
            yield int(mine[place]), found

    with reporter.track(f"probing the start ({source.layer})", len(mine)) as advance:
        for _, indices, found in descriptors(source, shown(), "mean", False, machine):
            rows.update(zip(indices, found, strict=True))
            advance(len(indices), "")
    whole = {index: row for share in team.collect(rows) for index, row in share.items()}
    return unit(np.stack([whole[index] for index in range(len(dataset))]))
