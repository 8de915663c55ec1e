"""App. B: what SVMs by a protocol found, on disk: figures, splits, answers, server files, and the classifier.

A classifier is one safetensors file: ``weights`` float32 (D,K), ``bias`` float32 (K,), and in its header a JSON card
with the classes and the recipe of its descriptors (nets by file and hash, layer, scales, how they are combined).
"""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from ..checkpoints.integrity import check_seal, write_sealed
from ..checkpoints.run_dir import BEST, CLASSIFIER, LAST, REPORT, environment
from ..core.config import typed
from ..core.errors import VerydeepError
from ..core.files import check_place, check_text, utf8_path, write_atomically, write_json
from ..core.settings import DescriptorSettings
from ..data.class_names import distinct
from .evaluate import FIGURES, SplitResult, Transfer
from .features_file import recipe_fits

WRITTEN = (CLASSIFIER, "splits.json", "answers.csv", "result.json", REPORT)
CARD = "verydeep-svm"
MOST_MISTAKES = 24
SERVER_NAMES = {"voc2012": "comp2_cls_test_{}.txt", "voc2012-action": "comp10_action_test_{}.txt"}


@dataclass(frozen=True)
class SvmFile:
    """A classifier as stored: of ``nets`` each has a ``recipe`` as in a features file and its ``scales``."""

    classes: tuple[str, ...]
    weights: NDArray[np.float32]
    bias: NDArray[np.float32]
    nets: tuple[dict[str, Any], ...]
    descriptor: DescriptorSettings


def summary(found: Transfer) -> dict[str, Any]:
    """Figures in percent: the mean over splits, each split's, and each class's; ``figure`` names which."""
    several = found.first.marks is not None
    name = FIGURES[several]
    figures = [one.figure for one in found.splits]
    known = [figure for figure in figures if figure is not None]
    errors = [one.top1_error for one in found.splits if one.top1_error is not None]
    return {
        "protocol": found.protocol,
        "data": found.first.data,
        "features": [_told(features.recipe, list(features.scales)) for features in found.features],
        **asdict(found.descriptor),
        "loss": found.svm.loss,
        "dimensions": found.dimensions,
        "classes": len(found.first.classes),
        "images": [
            {"fit": len(p.fit), "dev": len(p.dev), "test": len(p.test)} for p in (s.parts for s in found.splits)
        ],
        "figure": name,
        name: _mean(known),
        f"{name}_std": _std(known),
        "top1_error": _mean(errors),
        "top1_error_std": _std(errors),
        "splits": [_split(one, name) for one in found.splits],
        "by_class": _by_class(found),
        "photos": {name: found.first.recipe[name] for name in ("data", "classes")},
        "mistakes": [] if several else _mistakes(found),
        "environment": environment(found.machine),
    }


def _told(recipe: dict[str, Any], scales: list[int]) -> dict[str, Any]:
    net = recipe["net"]
    told = {key: recipe.get(key) for key in ("layer", "pool", "mirror", "precision")}
    told |= {"width": net.get("width"), "crop": net.get("crop")}
    places = [place for scale, place in recipe["described"].items() if int(scale) in scales]
    told |= {"described_at_commits": sorted({str(place.get("commit")) for place in places})}
    return {"net": net["net"], **told, "scales": scales, "file": net["file"], "sha256": net["sha256"]}


def _mean(values: list[float]) -> float | None:
    return round(float(np.mean(values)), 4) if values else None


def _std(values: list[float]) -> float | None:
    """Of a sample; None of fewer than two."""
    return round(float(np.std(values, ddof=1)), 4) if len(values) > 1 else None


def _split(one: SplitResult, name: str) -> dict[str, Any]:
    dev = {f"{C:g}": round(value, 4) for C, value in one.dev.items()}
    told: dict[str, Any] = {"split": one.parts.name, "C": one.C, "dev": dev, "duality_gap": one.svm.gap}
    told[name] = None if one.figure is None else round(one.figure, 4)
    return told | {"top1_error": None if one.top1_error is None else round(one.top1_error, 4)}


def _by_class(found: Transfer) -> list[dict[str, Any]]:
    name = "average_precision" if found.first.marks is not None else "recall"
    whole = np.stack([one.by_class for one in found.splits])
    rows = []
    for number, told in enumerate(found.first.classes):
        values = whole[:, number][~np.isnan(whole[:, number])].tolist()
        if values:
            rows.append({"class": told, name: _mean(values)})
    return rows


def _mistakes(found: Transfer) -> list[dict[str, Any]]:
    """The worst mistakes among the first split's reported photos: the right class is furthest behind."""
    one, classes = found.splits[0], found.first.classes
    labels = found.first.labels[one.parts.test]
    right = one.scores[np.arange(len(labels)), labels]
    lead = one.scores.max(axis=1) - right
    rows = []
    for place in np.argsort(-lead, kind="stable")[:MOST_MISTAKES]:
        taken = int(one.scores[place].argmax())
        if taken == labels[place]:
            break
        told = {"class": classes[labels[place]], "score": round(float(right[place]), 4)}
        told |= {"taken_for": classes[taken], "its_score": round(float(one.scores[place, taken]), 4)}
        rows.append({"image": found.first.ids[one.parts.test[place]], **told})
    return rows


def check_svm_place(folder: Path) -> None:
    """Raises VerydeepError where a folder cannot take a classifier: it cannot be written to, or holds other files."""
    check_place(folder)
    if any((folder / name).exists() for name in (BEST, LAST, "config.json")):
        raise VerydeepError(f"{folder} is a run's folder, whose net `verydeep predict` asks: give another --out.")
    there = [name for name in WRITTEN if (folder / name).exists()]
    if there and not _is_ours(folder / CLASSIFIER):
        raise VerydeepError(f"{folder / there[0]} is not of `verydeep svm` and would be lost: give another --out.")


def _is_ours(path: Path) -> bool:
    try:
        load_svm(path)
    except VerydeepError:
        return False
    return True


def write_transfer(found: Transfer, folder: Path) -> dict[str, Any]:
    """Writes ``classifier.safetensors`` (of the first split), ``splits.json``, ``answers.csv``, for VOC-2012 the
    ``server`` files, and last ``result.json``; returns what that holds.

    Raises:
        VerydeepError: they cannot be written.
    """
    told = summary(found)
    for old in (folder / "result.json", *(folder / "server").glob("comp*_test_*.txt")):
        old.unlink(missing_ok=True)  # nothing of another SVM stands beside this one's
    one = found.splits[0]
    nets = [{"recipe": features.recipe, "scales": list(features.scales)} for features in found.features]
    metadata = {"classes": found.first.classes, "nets": nets, "descriptor": asdict(found.descriptor), "C": one.C}
    arrays = {"weights": one.svm.weights, "bias": one.svm.bias}
    data = save(arrays, metadata={CARD: json.dumps(metadata)})
    write_sealed(folder / CLASSIFIER, data)
    write_json(folder / "splits.json", {split.parts.name: _ids(found, split) for split in found.splits})
    _write_answers(found, folder / "answers.csv")
    if found.protocol in SERVER_NAMES and len(one.parts.test):
        _write_server_files(found, folder / "server")
    write_json(folder / "result.json", {**told, "folder": str(folder)})
    return {**told, "folder": str(folder)}


def _ids(found: Transfer, split: SplitResult) -> dict[str, list[str]]:
    parts = {"fit": split.parts.fit, "dev": split.parts.dev, "test": split.parts.test}
    return {name: [found.first.ids[index] for index in photos] for name, photos in parts.items()}


def _write_answers(found: Transfer, path: Path) -> None:
    """The first split's reported photos with the score of each class."""
    one = found.splits[0]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image", *found.first.classes])
    for index, row in zip(one.parts.test, one.scores, strict=True):
        writer.writerow([found.first.ids[index], *(f"{value:.6g}" for value in row)])
    data = text.getvalue().encode("utf8", "surrogateescape")
    write_atomically(path, lambda file: file.write(data))


def _write_server_files(found: Transfer, folder: Path) -> None:
    """What VOC-2012's server takes: a file a class, with the photo (and the person's number) and the score."""
    one = found.splits[0]
    for number, name in enumerate(found.first.classes):
        ids = [found.first.ids[index].removesuffix(".jpg").replace("#", " ") for index in one.parts.test]
        lines = [f"{photo} {score:.6f}\n" for photo, score in zip(ids, one.scores[:, number], strict=True)]
        data = "".join(lines).encode()
        path = folder / SERVER_NAMES[found.protocol].format(name)
        write_atomically(path, lambda file, data=data: file.write(data))  # type: ignore[misc]


def _scales_fit(scales: Any) -> bool:
    return isinstance(scales, list) and len(scales) > 0 and all(isinstance(Q, int) and Q > 0 for Q in scales)


def load_svm(path: Path) -> SvmFile:
    """A classifier file; raises VerydeepError where it is missing or broken."""
    try:
        with utf8_path(path) as opened, safe_open(opened, framework="numpy") as file:
            check_seal(path, CARD)
            metadata = json.loads((file.metadata() or {})[CARD])
            weights, bias = file.get_tensor("weights"), file.get_tensor("bias")
        settings = DescriptorSettings(**typed(DescriptorSettings, metadata["descriptor"]))
        found = SvmFile(distinct(map(str, metadata["classes"])), weights, bias, tuple(metadata["nets"]), settings)
        fits = weights.shape[1:] == bias.shape == (len(found.classes),) and len(found.nets) > 0
        fits = fits and bool(np.isfinite(weights).all() and np.isfinite(bias).all())
        check_text(*found.classes)
        fits = fits and all(recipe_fits(net["recipe"]) and _scales_fit(net["scales"]) for net in found.nets)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, VerydeepError):
        fits = False
    if not fits:
        raise VerydeepError(f"{path} is no classifier that `verydeep svm` wrote, or broken: make it anew.")
    return found
