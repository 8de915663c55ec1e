"""App. B for own photos, in minutes: descriptors, an SVM whose C is chosen, its error, and its worst mistakes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..core.config import from_json
from ..core.progress import Reporter, Silent
from ..core.settings import DataSettings, DescriptorSettings, FeatureSettings, MachineSettings, SvmSettings
from ..data.open import open_data
from ..reports.svm_report import write_svm_report
from .backbone import usual_layer
from .describing import extract_features
from .evaluate import Transfer, learn_svms
from .extract import Extraction
from .svm_file import write_transfer

FEATURES = "features.safetensors"


def probe(
    data: str,
    weights: str | Path,
    out: str | Path = "runs/probe",
    classes: tuple[str, ...] = (),
    features: FeatureSettings | None = None,
    descriptor: DescriptorSettings | None = None,
    svm: SvmSettings | None = None,
    preprocessing: str = "recorded",
    bad_images: str = "stop",
    machine: MachineSettings | None = None,
    reporter: Reporter | None = None,
    folders: str = "auto",
) -> dict[str, Any]:
    """Describes photos by a net that stays as it is, and learns and tests linear SVMs on them.

    Args:
        data: a folder with a folder per class, or other data with one class a photo.
        weights: a run, a checkpoint or a weight file.
        out: folder for descriptors, classifier, figures and page; what it holds of the same is not made again.
        features: None takes fc7, or pool5 of a file without FC layers, at the net's own scale.

    Returns what ``result.json`` holds, ``page``, and ``seconds`` spent on descriptors.

    Raises:
        VerydeepError: as `extract_features` and `learn_svms`.
    """
    folder, reporter, machine = Path(out), reporter or Silent(), machine or MachineSettings()
    open_data(from_json(DataSettings, {"data": data, "classes": classes, "folders": folders}))  # mistakes come first
    wanted = features or FeatureSettings(layer=usual_layer(weights, preprocessing))
    reporter.say(f"describing photos by {wanted.layer}")
    made = extract_features(
        weights,
        data,
        folder / FEATURES,
        classes=classes,
        settings=wanted,
        preprocessing=preprocessing,
        bad_images=bad_images,
        machine=machine,
        reporter=reporter,
        folders=folders,
    )
    found = learn_svms("own", [made.path], descriptor, svm, made.scales, machine, reporter)
    return _written(made, found, folder)


def _written(made: Extraction, found: Transfer, folder: Path) -> dict[str, Any]:
    """Writes figures, classifier and page; returns what `probe` does."""
    told = write_transfer(found, folder)
    _, page = write_svm_report(folder)
    return {**told, "page": str(page), "described": made.computed, "seconds": round(made.seconds, 2)}
