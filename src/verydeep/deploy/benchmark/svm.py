"""Training speed of linear SVMs of all classes and several C: ours at once, scikit-learn's one after another."""

from __future__ import annotations

import importlib
import warnings
from typing import Any

import numpy as np

from ...core.device import resolve_device
from ...core.errors import VerydeepError
from ...transfer.svm import SvmTrainer
from .runner import Contender, Options, compare

VALUES = (0.1, 1.0, 10.0)
CLASSES = 20
PEER_CLASSES = 4  # trained by the peer, which trains one class after another


def train_svms(photos: int, dimensions: int, options: Options) -> dict[str, Any]:
    """Descriptors a second, of all classes and `VALUES` of C; of the peer, `PEER_CLASSES` are timed and all counted.

    Raises:
        VerydeepError: scikit-learn is requested and missing.
    """
    rng, classes = np.random.default_rng(0), CLASSES
    labels = np.arange(photos) % classes
    rows = rng.gamma(0.5, 1, (classes, dimensions))[labels] * 0.6 + rng.gamma(0.5, 1, (photos, dimensions))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    marks = np.where(labels[:, None] == np.arange(classes), 1, -1).astype(np.int8)
    machine = resolve_device(options.machine, 1e12)

    def ours() -> object:
        return list(SvmTrainer(rows, marks, device=machine.device.type).fit(VALUES))

    contenders = [Contender("verydeep", ours, photos)]
    if options.against:
        peer = _linear_svc(options.against)

        def theirs() -> None:
            for C in VALUES:
                for k in range(min(PEER_CLASSES, classes)):
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore")
                        peer(C=C, loss="squared_hinge", dual=True, max_iter=100_000).fit(rows, marks[:, k])

        share = round(photos * min(PEER_CLASSES, classes) / classes)
        contenders.insert(0, Contender("scikit-learn's LinearSVC", theirs, share))
    measured = compare(contenders, options.repeats, machine, options.reporter, options.load)
    return measured.to_json(what="svm", photos=photos, dimensions=dimensions, classes=classes, C=list(VALUES))


def _linear_svc(against: tuple[str, ...]) -> Any:
    if against != ("scikit-learn",):
        raise VerydeepError(f"SVMs have no peer {','.join(against)!r}: use scikit-learn.")
    try:
        return importlib.import_module("sklearn.svm").LinearSVC
    except ImportError:
        raise VerydeepError("scikit-learn is not installed: pip install scikit-learn.") from None
