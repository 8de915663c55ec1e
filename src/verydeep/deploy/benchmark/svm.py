"""How fast linear SVMs of all classes and several C are learnt: ours at once, scikit-learn's one after another."""

from __future__ import annotations

import importlib
import warnings
from typing import Any

import numpy as np

from ...core.device import resolve_device
from ...core.errors import VerydeepError
from ...core.progress import Reporter
from ...core.settings import MachineSettings
from ...transfer.svm import SvmTrainer
from .runner import Contender, compare

VALUES = (0.1, 1.0, 10.0)
CLASSES = 20
PEER_CLASSES = 4  # learnt by the peer, which learns one class after another


def learn_svms(
    photos: int,
    dimensions: int,
    repeats: int,
    against: str | None,
    wish: MachineSettings,
    reporter: Reporter,
) -> dict[str, Any]:
    """Descriptors a second, of all classes and `VALUES` of C; of the peer, `PEER_CLASSES` are timed and all counted.

    Raises:
        VerydeepError: scikit-learn is asked for and not there.
    """
    rng, classes = np.random.default_rng(0), CLASSES
    labels = np.arange(photos) % classes
    rows = rng.gamma(0.5, 1, (classes, dimensions))[labels] * 0.6 + rng.gamma(0.5, 1, (photos, dimensions))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    marks = np.where(labels[:, None] == np.arange(classes), 1, -1).astype(np.int8)
    here = resolve_device(wish, 1e12)

    def ours() -> object:
        return list(SvmTrainer(rows, marks, device=here.device.type).fit(VALUES))

    contenders = [Contender("verydeep", ours, photos)]
    if against:
        peer = _linear_svc(against)

        def theirs() -> None:
            for C in VALUES:
                for k in range(min(PEER_CLASSES, classes)):
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore")
                        peer(C=C, loss="squared_hinge", dual=True, max_iter=100_000).fit(rows, marks[:, k])

        counted = round(photos * min(PEER_CLASSES, classes) / classes)
        contenders.insert(0, Contender("scikit-learn's LinearSVC", theirs, counted))
    told = {"what": "svm", "photos": photos, "dimensions": dimensions, "classes": classes, "C": list(VALUES)}
    return {**told, **compare(contenders, repeats, here, reporter)}


def _linear_svc(against: str) -> Any:
    if against != "scikit-learn":
        raise VerydeepError(f"SVMs have no peer {against!r}: use scikit-learn.")
    try:
        return importlib.import_module("sklearn.svm").LinearSVC
    except ImportError:
        raise VerydeepError("scikit-learn is not installed: pip install scikit-learn.") from None
