"""Loads any classifier, and predicts: nets, exported files, and SVMs on the descriptors of nets.

A module of its own, so that a prediction does not import training and reports.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..checkpoints.load import load_model
from ..checkpoints.run_dir import CLASSIFIER
from ..core.errors import VerydeepError
from ..core.settings import MachineSettings
from ..evaluation.predict import Classifier, Prediction, find_photos
from ..evaluation.rejection import check_calibrated
from .model import Model, open_model
from .predict import SvmClassifier, load_svm_classifier


def load(
    run: str | Path, last: bool = False, machine: MachineSettings | None = None, calibration: bool = True
) -> Model | Classifier | SvmClassifier:
    """Loads a classifier: a net as a `torch.nn.Module`, an exported file, or SVMs.

    Args:
        run: a run directory (its best checkpoint, or ``last``) or a checkpoint; a directory of `verydeep svm` or
            `verydeep probe`; an exported file; released weights by name (``oxford-D``); a public weight file with all
            layers; or ``hub:owner/name``, which is downloaded from the Hugging Face hub once.
        calibration: whether probabilities are calibrated, where `verydeep.calibrate` has fitted the protocol, and SVMs
            have any.

    Raises:
        VerydeepError: none of these, broken, class names or preprocessing that a weight file does not record.
    """
    settings = machine or MachineSettings(workers=0)
    if str(run).startswith("hub:"):
        from ..checkpoints.hub import download_shared  # an extra

        return open_model(load_model(download_shared(str(run)), calibration=calibration), settings)
    path = Path(run) / CLASSIFIER if Path(run).is_dir() else Path(run)
    if path.name == CLASSIFIER and path.exists():
        if last:
            raise VerydeepError(f"{path} is an SVM classifier, which has no last checkpoint: omit --last.")
        return load_svm_classifier(path, settings, calibration)
    return open_model(load_model(run, last, hashed=False, calibration=calibration), settings)


def predict(
    run: str | Path,
    images: Any,
    top: int = 5,
    protocol: str | None = None,
    calibration: bool = True,
    reject_at: float | None = None,
) -> list[Prediction]:
    """Loads a classifier and predicts; a single path is a file, a directory of images, a glob, or a URL to download.

    Args:
        reject_at: a percentage of errors; images too unlike the classes for it are ``unknown``
            (`verydeep.evaluation.rejection`).
    """
    check_calibrated(reject_at, calibration)
    photos = find_photos(images) if isinstance(images, str | Path) else images
    return load(run, calibration=calibration).predict(photos, top, protocol, reject_at=reject_at)
