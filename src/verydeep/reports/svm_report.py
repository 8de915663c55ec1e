"""App. B to be looked at: the report of linear SVMs, and a photo with the ones nearest to it."""

from __future__ import annotations

import contextlib
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
from .html import counted, facts, folded, headline, paragraph, section, table, tiles, write_page
from .run_reader import short_name

FIRST_CLASSES, MOST_CURVES, MOST_TICKS = 20, 8, 7
NEEDED = ("protocol", "data", "dimensions", "classes", "aggregate", "loss", "by_class", "mistakes", "top1_error")
FIGURE_NAMES = {"mean_class_recall": "mean class recall", "mean_average_precision": "mean average precision"}


def write_svm_report(folder: Path, out: Path | None = None) -> tuple[dict[str, Any], Path]:
    """Writes the report of a folder of `verydeep svm` or `probe`, by default ``report.html`` in it.

    Returns:
        What its ``result.json`` holds, and the page's place.

    Raises:
        VerydeepError: the folder holds no such classifier and figures, or the page cannot be written.
    """
    told = svm_told(folder)
    title = f"Linear SVMs on {_described(told)}"
    blocks = [_headline(told, title), *_choice(told), _by_class(told), *_mistakes(told), _what(told)]
    return told, write_page(out or folder / REPORT, title, blocks)


def svm_told(folder: Path) -> dict[str, Any]:
    """What ``result.json`` of a folder of SVMs holds.

    Raises:
        VerydeepError: it is missing, or not one that `verydeep svm` wrote.
    """
    told = read_json(folder / "result.json")
    try:
        name = told["figure"]
        _ = [told[key] for key in (*NEEDED, name, f"{name}_std")], told["photos"]["data"], told["images"][0]["test"]
        _ = told["features"][0]["net"], told["splits"][0]["C"], told["splits"][0]["dev"], FIGURE_NAMES[name]
    except (KeyError, TypeError, IndexError):
        raise VerydeepError(
            f"{folder}/result.json is not of `verydeep svm`: learn the SVMs anew for a report."
        ) from None
    return told


def _described(told: dict[str, Any]) -> str:
    nets = [f"{one['net']} {one['layer']}" for one in told["features"]]
    return f"{' and '.join(dict.fromkeys(nets))}, {short_name(told['data'])}"


def _headline(told: dict[str, Any], title: str) -> str:
    name, images = told["figure"], told["images"][0]
    figures = []
    if told[name] is not None:
        figures.append(
            (FIGURE_NAMES[name], _spread(told, name), f"{told['protocol']}, {counted(len(told['splits']), 'split')}")
        )
    if told["top1_error"] is not None:
        figures.append(("top-1 error", _spread(told, "top1_error"), f"{images['test']:,} photos"))
    chosen = ", ".join(dict.fromkeys(f"{split['C']:g}" for split in told["splits"]))
    figures.append(("C", chosen, f"{told['dimensions']:,} dimensions"))
    learnt = f"{images['fit'] + images['dev']:,} photos to learn from, {told['classes']} classes."
    if told[name] is None:
        return headline(title, "", f"{learnt} The classes of the reported photos are not known.", figures)
    text = f"{learnt} What is reported is of {images['test']:,} photos that neither learning nor the choice of C saw."
    return headline(title, "", text, figures)


def _spread(told: dict[str, Any], name: str) -> str:
    more = "" if told[f"{name}_std"] is None else f" ± {told[f'{name}_std']:.2f}"
    return f"{told[name]:.2f}{more} %"


def ticks_of_c(values: list[str]) -> list[tuple[float, str]]:
    """Where on a chart some values of C stand: one step apart, as many as can be read."""
    every = -(-len(values) // MOST_TICKS)
    return [(float(place), value) for place, value in enumerate(values) if place % every == 0]


def _choice(told: dict[str, Any]) -> list[str]:
    """How good each C was on the part that chose it."""
    values = list(told["splits"][0]["dev"])
    if not values:
        return []
    lines = [
        Line(f"split {split['split']}", tuple((float(place), y) for place, y in enumerate(split["dev"].values())))
        for split in told["splits"][:MOST_CURVES]
    ]
    chosen = f"{told['splits'][0]['C']:g}"
    marks = [(float(values.index(chosen)), f"C = {chosen}")] if chosen in values else []
    shown = FIGURE_NAMES[told["figure"]]
    chart = line_chart(f"{shown} (%)", lines, "C", marks, ticks_of_c(values), from_zero=False)
    text = "On photos apart from those learnt from; the dotted upright is the C that was taken on the first split."
    return [section("The choice of C", chart, paragraph(text, "note"))]


def _by_class(told: dict[str, Any]) -> str:
    name = "average_precision" if told["figure"] == "mean_average_precision" else "recall"
    rows = sorted(told["by_class"], key=lambda row: (row[name], row["class"]))
    cells = [(row["class"], f"{row[name]:.1f} %") for row in rows]
    heads = ["class", name.replace("_", " ")]
    blocks = [table("The classes, the worst first; mean over splits", heads, cells[:FIRST_CLASSES], share=1)]
    if len(cells) > FIRST_CLASSES:
        rest = table("The other classes", heads, cells[FIRST_CLASSES:], share=1)
        blocks.append(folded(f"{len(cells) - FIRST_CLASSES} more classes", rest))
    return section("Each class", *blocks)


def _mistakes(told: dict[str, Any]) -> list[str]:
    """The worst mistakes of the first split, with their photos where they still are."""
    if told["top1_error"] is None:
        return []
    rows = told["mistakes"]
    if not rows:
        return [section("Worst mistakes", paragraph("None: all reported photos are right."))]
    photos = None
    with contextlib.suppress(VerydeepError):
        photos = photos_of(told["photos"])
    shown = [
        (
            None if photos is None else photo_or_none(photos.read, row["image"]),
            f"{row['class']} {row['score']:.2f}\ntaken for {row['taken_for']} {row['its_score']:.2f}",
        )
        for row in rows
    ]
    text = "Reported photos of the first split, the most wrong one first: the class, what it was taken for, scores."
    return [section("Worst mistakes", paragraph(text, "note"), tiles(shown, "a photo of"))]


def _what(told: dict[str, Any]) -> str:
    rows = [
        (
            f"descriptor {number}",
            f"{one['layer']} of net {one['net']} at Q = {', '.join(map(str, one['scales']))}; {one['file']}",
        )
        for number, one in enumerate(told["features"], start=1)
    ]
    rows += [("scales", told["aggregate"]), ("dimensions", f"{told['dimensions']:,}"), ("loss", told["loss"])]
    rows += [("photos", told["photos"]["data"]), ("protocol", told["protocol"])]
    return section("Data and recipe", facts(rows))


def write_similar_picture(found: Similar, photos: Dataset, path: Path) -> Path:
    """The photo asked about and the nearest ones with their class and cosine."""
    shown = [(read_image(found.image), "asked about")]
    for one in found.neighbours:
        pixels = photo_or_none(photos.read, one.id)
        shown.append((GONE if pixels is None else pixels, f"{one.name or one.id}\ncosine {one.cosine:.3f}"))
    return save_figure(photo_grid(shown), path)
