"""App. B: SVM results on disk: metrics, splits, scores, server files, and the classifier.

A classifier is one safetensors file: ``weights`` float32 (D,K), ``bias`` float32 (K,), or of nearest neighbours
``rows`` float32 (n,D), ``marks`` int8 (n,K), and in its header JSON metadata with the classes and the recipe of its
descriptors (nets by file and hash, layer, scales, how they are combined).
"""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import save

from ..checkpoints.checkpoint import RISK_COVERAGE, check_probabilities
from ..checkpoints.integrity import check_seal, open_safetensors, write_sealed
from ..checkpoints.run_dir import BEST, CLASSIFIER, LAST, REPORT, environment
from ..core.config import typed
from ..core.errors import VerydeepError
from ..core.files import check_place, check_text, write_atomically, write_json
from ..core.settings import DescriptorSettings
from ..data.class_names import distinct
from ..evaluation.metrics import calibration_error, mean_log_loss, reliability
from ..evaluation.rejection import RiskCoverage, rejection_results, risk_coverage
from ..evaluation.temperature import softmax
from .classifiers import Neighbours
from .descriptors import Array
from .evaluate import FIGURES, SplitResult, Transfer
from .features_file import recipe_fits
from .learning_curve import LearningCurve
from .svm import LinearSvm

WRITTEN = (CLASSIFIER, "splits.json", "answers.csv", "result.json", REPORT)
METADATA_KEY, MEANS = "verydeep-svm", "means"
MOST_MISTAKES = 24
SERVER = "server"  # folder of the files for VOC-2012's server
SERVER_NAMES = {"voc2012": "comp2_cls_test_{}.txt", "voc2012-action": "comp10_action_test_{}.txt"}


@dataclass(frozen=True)
class SvmFile:
    """A stored classifier; each of ``nets`` has a ``recipe``, as in a features file, and ``scales``.

    ``temperature`` is that of its probabilities, ``risk_coverage`` the curve that thresholds are chosen from, and
    ``means`` the class means (K,D) that it is of; ``threshold`` is the score above which an image has a class, where it
    may have several. Each is None where there is none.
    """

    classes: tuple[str, ...]
    classifier: LinearSvm | Neighbours
    nets: tuple[dict[str, Any], ...]
    descriptor: DescriptorSettings
    temperature: float | None = None
    risk_coverage: RiskCoverage | None = None
    means: Array | None = None
    threshold: float | None = None

    @property
    def dimensions(self) -> int:
        """D of the descriptors."""
        stored = self.classifier
        return stored.rows.shape[1] if isinstance(stored, Neighbours) else len(stored.weights)


def summary(transfer: Transfer) -> dict[str, Any]:
    """Metrics in percent: the mean over splits, each split's, and each class's; ``figure`` is the metric's name."""
    several = transfer.first.marks is not None
    name = FIGURES[several]
    figures = [split.figure for split in transfer.splits]
    known = [figure for figure in figures if figure is not None]
    errors = [split.top1_error for split in transfer.splits if split.top1_error is not None]
    return {
        "protocol": transfer.protocol,
        "data": transfer.first.data,
        "features": [_source(features.recipe, list(features.scales)) for features in transfer.features],
        **asdict(transfer.descriptor),
        "classifier": transfer.svm.classifier,
        "loss": transfer.svm.loss if transfer.svm.classifier == "svm" else None,
        "exclude": transfer.svm.exclude,
        "group_by": transfer.svm.group_by,
        "excluded": transfer.excluded,
        "dimensions": transfer.dimensions,
        "classes": len(transfer.first.classes),
        "images": [
            {"fit": len(p.fit), "dev": len(p.dev), "test": len(p.test)} for p in (s.parts for s in transfer.splits)
        ],
        "figure": name,
        name: _mean(known),
        f"{name}_std": _std(known),
        "top1_error": _mean(errors),
        "top1_error_std": _std(errors),
        "splits": [_split(split, name, transfer.first.labels, transfer.svm.parameter) for split in transfer.splits],
        "by_class": _by_class(transfer),
        RISK_COVERAGE: _risk_coverage(transfer),
        "photos": {name: transfer.first.recipe[name] for name in ("data", "classes")},
        "mistakes": [] if several else _mistakes(transfer),
        "environment": environment(transfer.machine),
    }


def _source(recipe: dict[str, Any], scales: list[int]) -> dict[str, Any]:
    net = recipe["net"]
    external = bool(recipe.get("external"))
    settings = {key: None if external else recipe.get(key) for key in ("layer", "pool", "mirror", "precision")}
    settings |= {"width": net.get("width"), "crop": net.get("crop")}
    commits = {str(made.get("commit")) for scale, made in recipe["described"].items() if int(scale) in scales}
    settings |= {"described_at_commits": sorted(commits)}
    return {
        "net": net["net"],
        **settings,
        "scales": [] if external else scales,
        "file": net["file"],
        "sha256": net["sha256"],
    }


def _mean(values: list[float]) -> float | None:
    return round(float(np.mean(values)), 4) if values else None


def _std(values: list[float]) -> float | None:
    """The sample standard deviation; None for fewer than two values."""
    return round(float(np.std(values, ddof=1)), 4) if len(values) > 1 else None


def _split(split: SplitResult, name: str, labels: NDArray[np.int64], parameter: str) -> dict[str, Any]:
    dev = {f"{C:g}": round(value, 4) for C, value in split.dev.items()}
    gap = None if math.isnan(split.svm.gap) else split.svm.gap
    row: dict[str, Any] = {"split": split.parts.name, parameter: split.C, "dev": dev, "duality_gap": gap}
    row |= {"temperature": split.temperature, **_probabilities(split, labels[split.parts.test])}
    if split.threshold is not None:
        row |= {"threshold": split.threshold, "f1": None if split.f1 is None else round(split.f1, 4)}
    row[name] = None if split.figure is None else round(split.figure, 4)
    return row | {"top1_error": None if split.top1_error is None else round(split.top1_error, 4)}


def _probabilities(split: SplitResult, labels: NDArray[np.int64]) -> dict[str, float | None]:
    """ECE in percent and NLL of the test images' probabilities; None without a temperature or test images."""
    if split.temperature is None or not len(labels):
        return {"ece": None, "nll": None}
    rows = softmax(split.scores / split.temperature)
    ece = calibration_error(reliability(rows, labels))
    return {"ece": round(ece, 4), "nll": round(mean_log_loss(rows, labels), 6)}


def _risk_coverage(transfer: Transfer) -> dict[str, Any] | None:
    """The first split's curves of the dev part, which chooses thresholds, and of the test images, and their results."""
    split = transfer.splits[0]
    if split.calibration is None or not len(split.parts.test):
        return None
    dev, near = split.calibration.risk_coverage, split.calibration.similarity
    right = split.scores.argmax(axis=1) == transfer.first.labels[split.parts.test]
    return {"dev": dev, "test": risk_coverage(near, right), "results": rejection_results(dev, near, right)}


def _by_class(transfer: Transfer) -> list[dict[str, Any]]:
    name = "average_precision" if transfer.first.marks is not None else "recall"
    by_split = np.stack([split.by_class for split in transfer.splits])
    rows = []
    for number, label in enumerate(transfer.first.classes):
        values = by_split[:, number][~np.isnan(by_split[:, number])].tolist()
        if values:
            rows.append({"class": label, name: _mean(values)})
    return rows


def _mistakes(transfer: Transfer) -> list[dict[str, Any]]:
    """The worst mistakes among the first split's test images, by how far the right class's score is behind."""
    split, classes = transfer.splits[0], transfer.first.classes
    labels = transfer.first.labels[split.parts.test]
    right = split.scores[np.arange(len(labels)), labels]
    lead = split.scores.max(axis=1) - right
    rows = []
    for index in np.argsort(-lead, kind="stable")[:MOST_MISTAKES]:
        predicted = int(split.scores[index].argmax())
        if predicted == labels[index]:
            break
        row = {"class": classes[labels[index]], "score": round(float(right[index]), 4)}
        row |= {"taken_for": classes[predicted], "its_score": round(float(split.scores[index, predicted]), 4)}
        rows.append({"image": transfer.first.ids[split.parts.test[index]], **row})
    return rows


def check_svm_place(folder: Path) -> None:
    """Raises VerydeepError where a classifier cannot be written to a directory, or would overwrite other files."""
    check_place(folder)
    if any((folder / name).exists() for name in (BEST, LAST, "config.json")):
        raise VerydeepError(f"{folder} is a run's folder, whose net `verydeep predict` uses: use another --out.")
    existing = [folder / name for name in WRITTEN if (folder / name).exists()]
    if not existing:
        return
    try:
        load_svm(folder / CLASSIFIER)
    except VerydeepError:
        raise VerydeepError(f"{existing[0]} was not written by `verydeep svm`: use another --out.") from None


def write_transfer(transfer: Transfer, folder: Path, curve: LearningCurve | None = None) -> dict[str, Any]:
    """Writes ``classifier.safetensors`` (of the first split), ``splits.json``, ``answers.csv``, for VOC-2012 the
    ``server`` files, and last ``result.json``; returns its content.

    Args:
        curve: of the same SVMs, to be part of ``result.json``.

    Raises:
        VerydeepError: they cannot be written.
    """
    content = {**summary(transfer), "folder": str(folder)}
    content |= {} if curve is None else {"curve": curve.to_json()}
    for old in (folder / "result.json", *(folder / SERVER).glob("comp*_test_*.txt")):
        old.unlink(missing_ok=True)  # no files of another SVM remain beside this one's
    split = transfer.splits[0]
    nets = [{"recipe": features.recipe, "scales": list(features.scales)} for features in transfer.features]
    metadata = {
        "classes": transfer.first.classes,
        "nets": nets,
        "descriptor": asdict(transfer.descriptor),
        transfer.svm.parameter: split.C,
        "temperature": split.temperature,
        RISK_COVERAGE: None if split.calibration is None else split.calibration.risk_coverage,
        **({} if split.threshold is None else {"threshold": split.threshold}),
    }
    means = {} if split.calibration is None else {MEANS: split.calibration.means}
    data = save({**split.svm.arrays(), **means}, metadata={METADATA_KEY: json.dumps(metadata)})
    write_sealed(folder / CLASSIFIER, data)
    write_json(folder / "splits.json", {split.parts.name: _ids(transfer, split) for split in transfer.splits})
    _write_predictions(transfer, folder / "answers.csv")
    if transfer.protocol in SERVER_NAMES and len(split.parts.test):
        _write_server_files(transfer, folder / SERVER)
    write_json(folder / "result.json", content)
    return content


def _ids(transfer: Transfer, split: SplitResult) -> dict[str, list[str]]:
    parts = {"fit": split.parts.fit, "dev": split.parts.dev, "test": split.parts.test}
    return {name: [transfer.first.ids[index] for index in images] for name, images in parts.items()}


def _write_predictions(transfer: Transfer, path: Path) -> None:
    """Writes the first split's test images with the score of each class."""
    split = transfer.splits[0]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image", *transfer.first.classes])
    for index, row in zip(split.parts.test, split.scores, strict=True):
        writer.writerow([transfer.first.ids[index], *(f"{value:.6g}" for value in row)])
    data = text.getvalue().encode("utf8", "surrogateescape")
    write_atomically(path, lambda file: file.write(data))


def _write_server_files(transfer: Transfer, folder: Path) -> None:
    """Writes VOC-2012's server format: one file per class, with image id (and the person's number) and score."""
    split = transfer.splits[0]
    for number, name in enumerate(transfer.first.classes):
        ids = [transfer.first.ids[index].removesuffix(".jpg").replace("#", " ") for index in split.parts.test]
        lines = [f"{image} {score:.6f}\n" for image, score in zip(ids, split.scores[:, number], strict=True)]
        data = "".join(lines).encode()
        path = folder / SERVER_NAMES[transfer.protocol].format(name)
        write_atomically(path, lambda file, data=data: file.write(data))  # type: ignore[misc]


def _scales_fit(scales: Any) -> bool:
    return isinstance(scales, list) and len(scales) > 0 and all(isinstance(Q, int) and Q > 0 for Q in scales)


def _means_fit(svm: SvmFile) -> bool:
    """Whether class means are there with a curve, and of the classifier's shape."""
    if svm.means is None or svm.risk_coverage is None:
        return svm.means is None and svm.risk_coverage is None
    return svm.means.shape == (len(svm.classes), svm.dimensions) and bool(np.isfinite(svm.means).all())


def _classifier(arrays: dict[str, NDArray[Any]], metadata: dict[str, Any], classes: int) -> LinearSvm | Neighbours:
    """The classifier of a file's arrays; raises ValueError, KeyError or TypeError where they do not fit."""
    first, second = (arrays[name] for name in (("rows", "marks") if "rows" in arrays else ("weights", "bias")))
    if "rows" in arrays:
        k = metadata["k"]
        fits = second.shape == (len(first), classes) and first.ndim == 2 and first.size > 0 and k >= 1
        fits = fits and second.dtype == np.int8
    else:
        fits = first.shape[1:] == second.shape == (classes,)
    if not (fits and np.isfinite(first).all() and np.isfinite(second).all()):
        raise ValueError("arrays of other shapes")
    return Neighbours(k, first, second) if "rows" in arrays else LinearSvm(math.nan, first, second, math.nan)


def load_svm(path: Path) -> SvmFile:
    """Loads a classifier file; raises VerydeepError if it is missing or broken."""
    try:
        with open_safetensors(path, "numpy") as file:
            check_seal(path, METADATA_KEY)
            metadata = json.loads((file.metadata() or {})[METADATA_KEY])
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        settings = DescriptorSettings(**typed(DescriptorSettings, metadata["descriptor"]))
        temperature, curve = (
            metadata.get("temperature"),
            metadata.get(RISK_COVERAGE),
        )  # not in files of earlier versions
        check_probabilities(temperature, curve)
        classes, nets = distinct(map(str, metadata["classes"])), tuple(metadata["nets"])
        threshold = metadata.get("threshold")
        classifier = _classifier(arrays, metadata, len(classes))
        svm = SvmFile(classes, classifier, nets, settings, temperature, curve, arrays.get(MEANS), threshold)
        fits = len(nets) > 0 and _means_fit(svm) and (threshold is None or math.isfinite(threshold))
        check_text(*svm.classes)
        fits = fits and all(recipe_fits(net["recipe"]) and _scales_fit(net["scales"]) for net in svm.nets)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, VerydeepError):
        fits = False
    if not fits:
        raise VerydeepError(f"{path} is not a classifier written by `verydeep svm`, or corrupted: run it again.")
    return svm
