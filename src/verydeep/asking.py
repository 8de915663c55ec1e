"""Asking what was trained about new photos: a net (Sect. 3.2), or an SVM on descriptors (App. B)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .config import MachineSettings
from .errors import VerydeepError
from .prediction import Classifier, Prediction, find_photos, load_net
from .runs import CLASSIFIER
from .svm_prediction import SvmClassifier, load_svm_classifier


def load(run: str | Path, last: bool = False, machine: MachineSettings | None = None) -> Classifier | SvmClassifier:
    """The net of a run's folder (its best, or ``last``) or of a checkpoint file, or the SVM that
    `verydeep svm` or `verydeep probe` wrote, ready to be asked.

    Raises:
        VerydeepError: no such run, or a broken checkpoint.
    """
    wish = machine or MachineSettings(workers=0)
    path = Path(run) / CLASSIFIER if Path(run).is_dir() else Path(run)
    if path.name == CLASSIFIER and path.exists():
        if last:
            raise VerydeepError(f"{path} is of SVMs, which have no last checkpoint: leave out --last.")
        return load_svm_classifier(path, wish)
    return load_net(run, last, wish)


def predict(run: str | Path, images: Any, top: int = 5, protocol: str | None = None) -> list[Prediction]:
    """`load` and its ``predict`` in one; a text is a file, a folder of photos or a glob."""
    asked = find_photos(images) if isinstance(images, (str, Path)) else images
    return load(run).predict(asked, top, protocol)
