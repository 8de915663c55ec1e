"""App. B to be looked at: the page of a probe, and a photo with the ones nearest to it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .data import Dataset
from .errors import ImageError
from .images import Pixels, read_image
from .report import figure_of, photo_grid, plain, save_figure, write_page
from .similar import Similar
from .transfer import SplitResult, Transfer

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_MISTAKES, MOST_CLASSES = 24, 40


def write_transfer_page(found: Transfer, told: dict[str, Any], photos: Dataset, path: Path) -> Path:
    """One page: figures, each class's recall, and the worst mistakes of the first split's reported photos."""
    one = found.splits[0]
    mistakes = _mistakes_figure(found, one, photos)
    parts: list[tuple[str, str, Figure | None]] = [
        ("How good", _figures_told(told), None),
        ("Recall of each class, the worst first", "In percent, mean over splits.", _recalls_figure(told)),
    ]
    if mistakes is None:
        parts.append(("Worst mistakes", f"None: all {len(one.parts.test)} reported photos are right.", None))
    else:
        text = f"Reported photos of {one.parts.name}, the most wrong one first: its class, and what it was taken for."
        parts.append(("Worst mistakes", text, mistakes))
    write_page(path, f"Linear SVMs on {found.first.title}, {found.first.data}", parts)
    return path


def _figures_told(told: dict[str, Any]) -> str:
    images = told["images"][0]
    chosen = ", ".join(f"{split['C']:g}" for split in told["splits"])
    return (
        f"Top-1 error {_spread(told, 'top1_error')}, mean class recall {_spread(told, 'mean_class_recall')} "
        f"on {images['test']} photos that neither learning nor the choice of C saw, {len(told['splits'])} split(s); "
        f"{images['fit'] + images['dev']} photos to learn from, {told['classes']} classes, C = {chosen}, "
        f"{told['dimensions']} dimensions."
    )


def _spread(told: dict[str, Any], name: str) -> str:
    more = "" if told[f"{name}_std"] is None else f" ± {told[f'{name}_std']:.2f}"
    return f"{told[name]:.2f}{more} %"


def _recalls_figure(told: dict[str, Any]) -> Figure:
    rows = sorted(told["by_class"], key=lambda row: row["recall"])[:MOST_CLASSES][::-1]
    figure = figure_of(7, 1 + 0.25 * len(rows))
    axes = figure.subplots()
    axes.barh(range(len(rows)), [row["recall"] for row in rows], color="tab:blue")
    axes.set_yticks(range(len(rows)), [plain(row["class"]) for row in rows], fontsize=8)
    axes.set(xlabel="recall (%)", xlim=(0, 100))
    return figure


def _mistakes_figure(found: Transfer, one: SplitResult, photos: Dataset) -> Figure | None:
    labels = found.first.labels[one.parts.test]
    right = one.scores[np.arange(len(labels)), labels]
    lead = one.scores.max(axis=1) - right
    shown = []
    for place in np.argsort(-lead, kind="stable")[:MOST_MISTAKES]:
        taken = int(one.scores[place].argmax())
        if taken == labels[place]:
            break
        photo_id = found.first.ids[one.parts.test[place]]
        classes = found.first.classes
        text = f"{classes[labels[place]]} {right[place]:.2f}\ntaken for {classes[taken]} {one.scores[place, taken]:.2f}"
        shown.append((_pixels(photos, photo_id), text))
    return photo_grid(shown) if shown else None


def _pixels(photos: Dataset, photo_id: str) -> Pixels:
    """A photo, or a grey square in place of one that is gone."""
    try:
        return photos.read(photo_id)
    except ImageError:
        return np.full((64, 64, 3), 127, dtype=np.uint8)


def write_similar_picture(found: Similar, photos: Dataset, path: Path) -> Path:
    """The photo asked about and the nearest ones with their class and cosine."""
    shown = [(read_image(found.image), "asked about")]
    for one in found.neighbours:
        shown.append((_pixels(photos, one.id), f"{one.name or one.id}\ncosine {one.cosine:.3f}"))
    return save_figure(photo_grid(shown), path)
