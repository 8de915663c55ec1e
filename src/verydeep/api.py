"""Asking what was trained about new photos: a net (Sect. 3.2), or an SVM on descriptors (App. B)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .checkpoints.run_dir import CLASSIFIER
from .core.errors import VerydeepError
from .core.settings import MachineSettings
from .evaluation.predict import Classifier, Prediction, find_photos, load_net
from .transfer.svm_prediction import SvmClassifier, load_svm_classifier


def load(run: str | Path, last: bool = False, machine: MachineSettings | None = None) -> Classifier | SvmClassifier:
    """A net or an SVM, ready to be asked.

    Args:
        run: a run's folder (its best net, or ``last``) or a checkpoint; what `verydeep svm` or `verydeep probe` wrote;
            an exported file; released weights by name (``oxford-D``); any public weight file with all its layers; or
            ``hub:owner/name``, which is downloaded from the Hugging Face hub once.

    Raises:
        VerydeepError: none of these, broken, class names or pixels that a weight file does not record.
    """
    wish = machine or MachineSettings(workers=0)
    if str(run).startswith("hub:"):
        from .checkpoints.hub import load_shared  # an extra

        return load_shared(str(run), wish)
    path = Path(run) / CLASSIFIER if Path(run).is_dir() else Path(run)
    if path.name == CLASSIFIER and path.exists():
        if last:
            raise VerydeepError(f"{path} is of SVMs, which have no last checkpoint: leave out --last.")
        return load_svm_classifier(path, wish)
    return load_net(run, last, wish)


def predict(run: str | Path, images: Any, top: int = 5, protocol: str | None = None) -> list[Prediction]:
    """`load` and its ``predict`` in one; a single path is a file, a folder of photos or a glob."""
    asked = find_photos(images) if isinstance(images, str | Path) else images
    return load(run).predict(asked, top, protocol)
