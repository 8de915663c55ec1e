"""App. B: the report of linear SVMs, and a picture of an image with its nearest neighbours."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from ..checkpoints.checkpoint import RISK_COVERAGE
from ..checkpoints.run_dir import REPORT
from ..core.errors import VerydeepError
from ..core.files import read_json
from ..data.class_names import caption, display_name
from ..data.image_io import Pixels, read_image
from ..data.open import Dataset
from ..evaluation.rejection import RiskCoverage
from ..transfer.retrieval import Similar, photos_of
from .charts import Line, line_chart, risk_chart
from .figures import photo_grid, photo_or_none, save_figure
from .html import Tile, tiles, write_page
from .run_reader import short_name
from .suspects import SUSPECTS_PAGE

FIRST_CLASSES, MOST_CURVES, MOST_TICKS = 20, 8, 7
LAW_STEPS, LEAST_APART = 8, 0.6  # points of a fitted line, and doublings between labels that do not overlap
FIGURE_NAMES = {"mean_class_recall": "mean class recall", "mean_average_precision": "mean average precision"}
CLASSIFIERS = {"svm": "Linear SVMs", "logistic": "Logistic regression", "knn": "Nearest neighbours"}
BY_CLASS = {"mean_class_recall": "recall", "mean_average_precision": "average_precision"}


@dataclass(frozen=True)
class Spread:
    """A mean over splits in percent, and its standard deviation; None of fewer than two."""

    mean: float
    std: float | None

    def __str__(self) -> str:
        return f"{self.mean:.2f}{'' if self.std is None else f' ± {self.std:.2f}'} %"


@dataclass(frozen=True)
class SvmSplit:
    """A split: the C chosen on its dev part, and the figure there in percent by C, as text."""

    name: str
    C: float
    dev: dict[str, float]


@dataclass(frozen=True)
class DescriptorRecord:
    """The descriptors of one net: layer, scales, and the file of the net.

    Those of another program have neither layer nor scales, and their own file.
    """

    net: str
    layer: str
    scales: str
    file: str


@dataclass(frozen=True)
class SvmMistake:
    """A misclassified image with the scores of its class and of the predicted one."""

    image: str
    name: str
    score: float
    predicted: str
    predicted_score: float


@dataclass(frozen=True)
class CurvePointRecord:
    """A point of a learning curve: images per class as text, all images, and the error over draws in percent."""

    label: str
    images: int
    draws: int
    error: float
    std: float | None
    recall: float

    @property
    def place(self) -> float:
        """Its place on a chart in which each doubling has the same width."""
        return math.log2(self.images)

    @property
    def spread(self) -> Spread:
        """Mean and standard deviation of the error."""
        return Spread(self.error, self.std)


@dataclass(frozen=True)
class CurveRecord:
    """A learning curve; ``law`` are a and b of the fitted error a n^-b, None where there is no fit."""

    points: tuple[CurvePointRecord, ...]
    law: tuple[float, float] | None
    fitted_from: int
    test_images: int
    sentence: str


@dataclass(frozen=True)
class ProbabilityRecord:
    """The first split's calibration: temperature, ECE in percent and NLL of its test images, their risk-coverage curve,
    that of the dev part, and what the usual thresholds do.
    """

    temperature: float
    ece: float
    nll: float
    test: RiskCoverage
    dev: RiskCoverage
    rejections: tuple[dict[str, float], ...]


@dataclass(frozen=True)
class LabelsRecord:
    """Of images of several classes: the first split's threshold of scores, and F1 of its test images in percent."""

    threshold: float
    f1: float | None


@dataclass(frozen=True)
class SvmRecord:
    """SVMs by a protocol as their directory describes them.

    ``figure`` names the protocol's figure. ``value`` and ``top1_error`` are None where the images have no labels;
    ``top1_error`` also where they have several. ``result`` is the content of ``result.json``.
    """

    folder: Path
    result: dict[str, Any]
    protocol: str
    data: str
    photos: dict[str, Any]
    classes: int
    dimensions: int
    aggregate: str
    loss: str
    train_images: int
    test_images: int
    descriptors: tuple[DescriptorRecord, ...]
    splits: tuple[SvmSplit, ...]
    figure: str
    value: Spread | None
    top1_error: Spread | None
    by_class: tuple[tuple[str, float], ...]
    mistakes: tuple[SvmMistake, ...]
    excluded: int
    curve: CurveRecord | None
    classifier: str
    probabilities: ProbabilityRecord | None
    labels: LabelsRecord | None

    @property
    def parameter(self) -> str:
        """The name of the values that the dev part chooses."""
        return "k" if self.classifier == "knn" else "C"

    @property
    def chosen(self) -> str:
        """The values of C, or k, chosen on the splits, each once."""
        return ", ".join(dict.fromkeys(f"{split.C:g}" for split in self.splits))


def write_svm_report(folder: Path, out: Path | None = None) -> tuple[SvmRecord, Path]:
    """Writes the report of a directory of `verydeep svm` or `probe`, by default ``report.html`` in it.

    Returns:
        Its record, and the page's path.

    Raises:
        VerydeepError: the directory has no such classifier and figures, or the page cannot be written.
    """
    svms = read_svms(folder)
    nets = dict.fromkeys(f"{net.net} {net.layer}".strip() for net in svms.descriptors)
    context = {
        "title": f"{CLASSIFIERS[svms.classifier]} on {' and '.join(nets)}, {short_name(svms.data)}",
        **{"svms": svms, "figure_name": FIGURE_NAMES[svms.figure], "chart": _chart(svms), "mistakes": _mistakes(svms)},
        **{"by_class": sorted(svms.by_class, key=lambda row: (row[1], row[0])), "first_classes": FIRST_CLASSES},
        "by_class_name": BY_CLASS[svms.figure].replace("_", " "),
        "risk_chart": "" if (known := svms.probabilities) is None else risk_chart(known.test, known.dev),
        "suspects": SUSPECTS_PAGE if _listed_by_page(svms) else "",
        "curve_chart": "" if svms.curve is None else _curve_chart(svms.curve),
    }
    return svms, write_page(out or folder / REPORT, "svm.html", context)


def _listed_by_page(svms: SvmRecord) -> bool:
    """Whether the list of images that are left out has a page beside it, in the directory of the report."""
    listed = svms.result.get("exclude")
    beside = listed and Path(str(listed)).resolve().parent == svms.folder.resolve()
    return bool(beside) and (svms.folder / SUSPECTS_PAGE).is_file()


def read_svms(folder: Path) -> SvmRecord:
    """Reads a directory of SVMs.

    Raises:
        VerydeepError: ``result.json`` is missing, or `verydeep svm` did not write it.
    """
    result = read_json(folder / "result.json")
    try:
        return _record(folder, result)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError):
        raise VerydeepError(
            f"{folder}/result.json was not written by `verydeep svm`: train the SVMs again for a report."
        ) from None


def _record(folder: Path, result: dict[str, Any]) -> SvmRecord:
    figure, images = result["figure"], result["images"][0]
    return SvmRecord(
        folder=folder,
        result=result,
        protocol=str(result["protocol"]),
        data=str(result["data"]),
        photos={**result["photos"], "data": result["photos"]["data"]},
        classes=int(result["classes"]),
        dimensions=int(result["dimensions"]),
        aggregate=str(result["aggregate"]),
        loss=str(result["loss"] or ""),
        train_images=int(images["fit"]) + int(images["dev"]),
        test_images=int(images["test"]),
        descriptors=tuple(
            DescriptorRecord(
                str(net["net"]), str(net["layer"] or ""), ", ".join(map(str, net["scales"])), str(net["file"])
            )
            for net in result["features"]
        ),
        splits=tuple(
            SvmSplit(
                str(split["split"]),
                float(split["k"] if "k" in split else split["C"]),
                {C: float(value) for C, value in split["dev"].items()},
            )
            for split in result["splits"]
        ),
        figure=figure,
        value=_spread(result, figure),
        top1_error=_spread(result, "top1_error"),
        by_class=tuple((display_name(str(row["class"])), float(row[BY_CLASS[figure]])) for row in result["by_class"]),
        mistakes=tuple(
            SvmMistake(
                *(str(row["image"]), str(row["class"]), float(row["score"])),
                *(str(row["taken_for"]), float(row["its_score"])),
            )
            for row in result["mistakes"]
        ),
        excluded=int(result.get("excluded", 0)),
        classifier=str(result.get("classifier", "svm")),
        curve=_curve(result["curve"]) if "curve" in result else None,
        probabilities=_probabilities(result["splits"][0], result[RISK_COVERAGE]) if result.get(RISK_COVERAGE) else None,
        labels=_labels(result["splits"][0]) if "threshold" in result["splits"][0] else None,
    )


def _labels(split: dict[str, Any]) -> LabelsRecord:
    return LabelsRecord(float(split["threshold"]), None if split["f1"] is None else float(split["f1"]))


def _probabilities(split: dict[str, Any], risk: dict[str, Any]) -> ProbabilityRecord:
    names = ("reject_at", "threshold", "images", "answered", "wrong")
    return ProbabilityRecord(
        *(float(split["temperature"]), float(split["ece"]), float(split["nll"])),
        test=_points(risk["test"]),
        dev=_points(risk["dev"]),
        rejections=tuple({name: float(row[name]) for name in names} for row in risk["results"]),
    )


def _points(curve: list[list[float]]) -> RiskCoverage:
    return [[float(threshold), float(answered), float(wrong)] for threshold, answered, wrong in curve]


def _curve(curve: dict[str, Any]) -> CurveRecord:
    points = tuple(
        CurvePointRecord(
            "all" if row["images_per_class"] is None else str(int(row["images_per_class"])),
            *(int(row["images"]), int(row["draws"]), float(row["top1_error"])),
            None if row["top1_error_std"] is None else float(row["top1_error_std"]),
            float(row["mean_class_recall"]),
        )
        for row in curve["points"]
    )
    fit = curve["doubling"]
    law = None if fit is None else (float(fit["law"][0]), float(fit["law"][1]))
    fitted_from = 0 if fit is None else int(fit["fitted_from_images"])
    return CurveRecord(points, law, fitted_from, int(curve["test_images"]), str(curve["sentence"]))


def _spread(result: dict[str, Any], name: str) -> Spread | None:
    mean, std = result[name], result[f"{name}_std"]
    return None if mean is None else Spread(float(mean), None if std is None else float(std))


def ticks_of_c(values: list[str]) -> list[tuple[float, str]]:
    """Values of C at equal distances on a chart, as many as have room."""
    every = -(-len(values) // MOST_TICKS)
    return [(float(place), value) for place, value in enumerate(values) if place % every == 0]


def _chart(svms: SvmRecord) -> str:
    """The figure on the dev part by C; empty where C was given."""
    first = svms.splits[0]
    values = list(first.dev)
    lines = [
        Line(f"split {split.name}", tuple((float(place), y) for place, y in enumerate(split.dev.values())))
        for split in svms.splits[:MOST_CURVES]
    ]
    chosen = f"{first.C:g}"
    marks = [(float(values.index(chosen)), f"{svms.parameter} = {chosen}")] if chosen in values else []
    title = f"{FIGURE_NAMES[svms.figure]} (%)"
    return line_chart(title, lines, svms.parameter, marks, ticks_of_c(values), from_zero=False) if values else ""


def _curve_chart(curve: CurveRecord) -> str:
    """The error by the number of training images; each doubling has the same width."""
    means = [(point.place, point.error) for point in curve.points]
    lines = [Line("mean of draws", tuple(means))]
    for name, sign in (("one standard deviation more", 1), ("one less", -1)):
        ends = [(p.place, max(0.0, p.error + sign * p.std)) for p in curve.points if p.std is not None]
        lines += [Line(name, tuple(ends))] if ends else []
    ticks = [(point.place, point.label) for point in curve.points]
    if curve.law is not None:
        a, b = curve.law
        first, last = math.log2(curve.fitted_from), curve.points[-1].place + 1
        xs = [first + (last - first) * step / LAW_STEPS for step in range(LAW_STEPS + 1)]
        lines.append(Line("fitted power law", tuple((x, a * 2 ** (-b * x)) for x in xs)))
        ticks.append((last, "twice"))
    apart = [tick for tick, after in pairwise([*ticks, (math.inf, "")]) if after[0] - tick[0] >= LEAST_APART]
    return line_chart("top-1 error (%)", lines, "training images per class", x_ticks=apart)


def _mistakes(svms: SvmRecord) -> list[Tile]:
    """The worst mistakes of the first split, with their images where they still exist."""
    dataset = None
    with contextlib.suppress(VerydeepError):
        dataset = photos_of(svms.photos) if svms.mistakes else None
    return tiles(
        (
            None if dataset is None else photo_or_none(dataset.source.read, row.image),
            f"{caption(row.name)} {row.score:.2f}\npredicted {caption(row.predicted)} {row.predicted_score:.2f}",
        )
        for row in svms.mistakes
    )


def write_similar_picture(result: Similar, photos: Dataset, path: Path) -> Path:
    """The query image and its nearest neighbours with their class and cosine similarity."""
    shown: list[tuple[Pixels | None, str]] = [(read_image(result.image), "query")]
    for neighbour in result.neighbours:
        text = f"{caption(neighbour.name) or neighbour.id}\ncosine {neighbour.cosine:.3f}"
        shown.append((photo_or_none(photos.source.read, neighbour.id), text))
    return save_figure(photo_grid(shown), path)
