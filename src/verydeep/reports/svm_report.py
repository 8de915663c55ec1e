"""App. B: the report of linear SVMs, and a picture of an image with its nearest neighbours."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..checkpoints.run_dir import REPORT
from ..core.errors import VerydeepError
from ..core.files import read_json
from ..data.image_io import read_image
from ..data.open import Dataset
from ..transfer.retrieval import Similar, photos_of
from .charts import Line, line_chart
from .figures import GONE, photo_grid, photo_or_none, save_figure
from .html import Table, Tile, counted, tiles, write_page
from .run_reader import short_name

FIRST_CLASSES, MOST_CURVES, MOST_TICKS = 20, 8, 7
FIGURE_NAMES = {"mean_class_recall": "mean class recall", "mean_average_precision": "mean average precision"}
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
    """A split: the C chosen on its dev part, and the figure there by C, as text, in percent."""

    name: str
    C: float
    dev: dict[str, float]


@dataclass(frozen=True)
class DescriptorRecord:
    """The descriptors of one net: which layer at which scales, and the file of the net."""

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
class SvmRecord:
    """SVMs by a protocol as their directory describes them.

    ``figure`` names the protocol's figure; it and ``top1_error`` are None where the images have no labels or, of the
    error, several. ``result`` is all that ``result.json`` holds.
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

    @property
    def chosen(self) -> str:
        """The values of C chosen on the splits, each once."""
        return ", ".join(dict.fromkeys(f"{split.C:g}" for split in self.splits))


def write_svm_report(folder: Path, out: Path | None = None) -> tuple[SvmRecord, Path]:
    """Writes the report of a directory of `verydeep svm` or `probe`, by default ``report.html`` in it.

    Returns:
        Its record, and the page's path.

    Raises:
        VerydeepError: the directory holds no such classifier and figures, or the page cannot be written.
    """
    svms = read_svms(folder)
    nets = dict.fromkeys(f"{one.net} {one.layer}" for one in svms.descriptors)
    context = {
        "title": f"Linear SVMs on {' and '.join(nets)}, {short_name(svms.data)}",
        **_headline_context(svms),
        **{"chart": _chart(svms), **_class_tables(svms)},
        **{"mistakes": _mistakes(svms), "labelled": svms.top1_error is not None},
        "recipe": _recipe(svms),
    }
    return svms, write_page(out or folder / REPORT, "svm.html", context)


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
        loss=str(result["loss"]),
        train_images=int(images["fit"]) + int(images["dev"]),
        test_images=int(images["test"]),
        descriptors=tuple(
            DescriptorRecord(str(one["net"]), str(one["layer"]), ", ".join(map(str, one["scales"])), str(one["file"]))
            for one in result["features"]
        ),
        splits=tuple(
            SvmSplit(str(one["split"]), float(one["C"]), {C: float(value) for C, value in one["dev"].items()})
            for one in result["splits"]
        ),
        figure=figure,
        value=_spread(result, figure),
        top1_error=_spread(result, "top1_error"),
        by_class=tuple((str(row["class"]), float(row[BY_CLASS[figure]])) for row in result["by_class"]),
        mistakes=tuple(
            SvmMistake(
                *(str(row["image"]), str(row["class"]), float(row["score"])),
                *(str(row["taken_for"]), float(row["its_score"])),
            )
            for row in result["mistakes"]
        ),
    )


def _spread(result: dict[str, Any], name: str) -> Spread | None:
    mean, std = result[name], result[f"{name}_std"]
    return None if mean is None else Spread(float(mean), None if std is None else float(std))


def _headline_context(svms: SvmRecord) -> dict[str, Any]:
    figures = []
    if svms.value is not None:
        splits = f"{svms.protocol}, {counted(len(svms.splits), 'split')}"
        figures.append((FIGURE_NAMES[svms.figure], str(svms.value), splits))
    if svms.top1_error is not None:
        figures.append(("top-1 error", str(svms.top1_error), f"{svms.test_images:,} images"))
    figures.append(("C", svms.chosen, f"{svms.dimensions:,} dimensions"))
    test = "The test images have no labels."
    if svms.value is not None:
        test = f"Results are on {svms.test_images:,} test images, used neither for training nor for the choice of C."
    return {"summary": f"{svms.train_images:,} training images, {svms.classes} classes. {test}", "figures": figures}


def ticks_of_c(values: list[str]) -> list[tuple[float, str]]:
    """Values of C along a chart, one step apart: as many as can be read."""
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
    marks = [(float(values.index(chosen)), f"C = {chosen}")] if chosen in values else []
    title = f"{FIGURE_NAMES[svms.figure]} (%)"
    return line_chart(title, lines, "C", marks, ticks_of_c(values), from_zero=False) if values else ""


def _class_tables(svms: SvmRecord) -> dict[str, Table]:
    rows = sorted(svms.by_class, key=lambda row: (row[1], row[0]))
    heads = ["class", BY_CLASS[svms.figure].replace("_", " ")]
    first = Table("Mean over splits, worst first", heads, rows[:FIRST_CLASSES], 1)
    return {"first_classes": first, "other_classes": Table("Other classes", heads, rows[FIRST_CLASSES:], 1)}


def _mistakes(svms: SvmRecord) -> list[Tile]:
    """The worst mistakes of the first split, with their images where they still exist."""
    dataset = None
    with contextlib.suppress(VerydeepError):
        dataset = photos_of(svms.photos) if svms.mistakes else None
    return tiles(
        (
            None if dataset is None else photo_or_none(dataset.source.read, row.image),
            f"{row.name} {row.score:.2f}\npredicted {row.predicted} {row.predicted_score:.2f}",
        )
        for row in svms.mistakes
    )


def _recipe(svms: SvmRecord) -> list[tuple[str, str]]:
    descriptors = [
        (f"descriptor {number}", f"{one.layer} of net {one.net} at Q = {one.scales}; {one.file}")
        for number, one in enumerate(svms.descriptors, start=1)
    ]
    rows = [("scales", svms.aggregate), ("dimensions", f"{svms.dimensions:,}"), ("loss", svms.loss)]
    return [*descriptors, *rows, ("data", str(svms.photos["data"])), ("protocol", svms.protocol)]


def write_similar_picture(found: Similar, photos: Dataset, path: Path) -> Path:
    """The query image and its nearest neighbours with their class and cosine similarity."""
    shown = [(read_image(found.image), "query")]
    for neighbour in found.neighbours:
        pixels = photo_or_none(photos.source.read, neighbour.id)
        text = f"{neighbour.name or neighbour.id}\ncosine {neighbour.cosine:.3f}"
        shown.append((GONE if pixels is None else pixels, text))
    return save_figure(photo_grid(shown), path)
