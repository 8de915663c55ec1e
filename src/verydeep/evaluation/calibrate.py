"""`verydeep calibrate`: the temperature of a protocol, fitted on images that training did not see, and their
risk-coverage curve, from which `--reject-at` chooses a threshold.

Both are stored in the checkpoint's metadata, so whatever is made of the checkpoint carries them. `predict`, `serve` and
`verydeep.load` use them; posteriors that are stored, compared, averaged or evaluated are without.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..checkpoints.checkpoint import RISK_COVERAGE, Checkpoint, store_calibration
from ..checkpoints.load import load_model
from ..checkpoints.model_card import write_model_card
from ..checkpoints.pretrained import has_metadata
from ..checkpoints.run_dir import BEST
from ..core.errors import VerydeepError
from ..core.files import only_one
from ..core.progress import Reporter
from ..core.settings import MachineSettings
from ..core.terminal import default_reporter
from ..data.open import Dataset
from .evaluate import dataset_posteriors, open_dataset
from .metrics import calibration_error, mean_log_loss, reliability
from .predict import place_classifier, usual_protocol
from .protocols import Protocol, check_protocol, parse_protocol
from .rejection import risk_coverage
from .temperature import LEAST_IMAGES, fit_temperature, tempered


def fit_calibration(
    run: str | Path,
    protocol: str | None = None,
    data: str | None = None,
    set_name: str = "dev",
    last: bool = False,
    machine: MachineSettings | None = None,
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """Fits the temperature and stores it; arguments as of `verydeep.calibrate`."""
    reporter = reporter or default_reporter()
    checkpoint = _own_checkpoint(run, last)
    tested = parse_protocol(protocol) if protocol else usual_protocol(checkpoint.metadata)
    check_protocol(tested, checkpoint.metadata.crop)
    if set_name == "train" and data is None:
        raise VerydeepError("a net is more confident on the images that trained it: calibrate on dev, or on --data.")
    with only_one(checkpoint.path.absolute().parent):
        dataset, _ = open_dataset(checkpoint.metadata, data, set_name, reporter)
        labelled = dataset.take(np.flatnonzero(dataset.labels >= 0))
        _check_enough(labelled)
        posteriors, labels = _posteriors(checkpoint, labelled, tested, machine or MachineSettings(), reporter)
        fitted, before_and_after = _fit(posteriors, labels)
        calibration = {**checkpoint.metadata.calibration, str(tested): fitted}
        metadata = store_calibration(checkpoint.path, calibration)
        if checkpoint.path.name == BEST:
            write_model_card(checkpoint.path, metadata)
    place = {"data": dataset.name, "set": dataset.set_name, "checkpoint": str(checkpoint.path)}
    return {"run": str(run), "protocol": str(tested), **fitted, **before_and_after, **place}


def _own_checkpoint(run: str | Path, last: bool) -> Checkpoint:
    """A checkpoint that can hold the temperature; raises VerydeepError for an exported or a foreign file."""
    checkpoint = load_model(run, last)
    if not isinstance(checkpoint, Checkpoint):
        raise VerydeepError(f"{run} is an exported file: calibrate the run that it was made from, and export again.")
    if not has_metadata(checkpoint.path):
        raise VerydeepError(f"{run} is not a run: make one with `verydeep convert`, and calibrate that.")
    return checkpoint


def _check_enough(dataset: Dataset) -> None:
    if len(dataset) < LEAST_IMAGES:
        raise VerydeepError(
            f"{dataset.name} has {len(dataset)} labelled images in its set {dataset.set_name}: a temperature needs at "
            f"least {LEAST_IMAGES}."
        )


def _posteriors(
    checkpoint: Checkpoint, dataset: Dataset, protocol: Protocol, machine: MachineSettings, reporter: Reporter
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Posteriors and labels of the images that can be read; the others are warned of."""
    classifier = place_classifier(checkpoint, machine)
    faults: dict[int, str] = {}
    label = f"{protocol} on {len(dataset)} images"
    with classifier.machine.running():
        posteriors = dataset_posteriors(classifier, dataset, protocol, reporter, label, faults).posteriors
    for message in faults.values():
        reporter.warn(f"skipped: {message}")
    readable = np.array([index for index in range(len(dataset)) if index not in faults], dtype=np.int64)
    _check_enough(dataset.take(readable))
    return posteriors[readable], dataset.labels[readable]


def _fit(posteriors: NDArray[np.float32], labels: NDArray[np.int64]) -> tuple[dict[str, Any], dict[str, float]]:
    """What the metadata hold of a protocol, and the ECE before and after."""
    temperature = fit_temperature(posteriors, labels)
    after = tempered(posteriors, temperature)
    losses = {f"nll_{name}": round(mean_log_loss(rows, labels), 6) for name, rows in _named(posteriors, after)}
    errors = {
        f"ece_{name}": round(calibration_error(reliability(rows, labels)), 4)
        for name, rows in _named(posteriors, after)
    }
    fitted = {"temperature": temperature, "images": len(labels), **losses}
    curve = risk_coverage(after.max(axis=1), after.argmax(axis=1) == labels)
    return {**fitted, RISK_COVERAGE: curve}, errors


def _named(before: NDArray[Any], after: NDArray[Any]) -> tuple[tuple[str, NDArray[Any]], ...]:
    return ("before", before), ("after", after)
