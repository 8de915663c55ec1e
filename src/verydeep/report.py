"""Pictures of data, training and mistakes, drawn off screen."""

from __future__ import annotations

import base64
import html
import itertools
import math
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .evaluation import Evaluation
from .files import write_atomically
from .images import Pixels
from .metrics import confusion
from .summary import worst_mistakes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_NAMED_CLASSES = 30  # more tick labels than that cannot be read


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def save_figure(figure: Figure, path: Path) -> Path:
    """Writes a picture as PNG, atomically."""
    write_atomically(path, lambda file: figure.savefig(file, format="png", dpi=110))
    return path


def _plain(text: str) -> str:
    """A name as matplotlib shows it to the letter: no formulas, no control characters."""
    shown = "".join(letter if letter.isprintable() else "?" for letter in text)
    return shown.replace("$", r"\$")[:40]


def photo_grid(photos: list[tuple[Pixels, str]], columns: int = 6) -> Figure:
    """Photos with a line of text below each."""
    columns = max(1, min(columns, len(photos)))
    rows = max(1, math.ceil(len(photos) / columns))
    figure = _figure(2.0 * columns, 2.3 * rows)
    for number, axes in enumerate(figure.subplots(rows, columns, squeeze=False).flat):
        axes.set_axis_off()
        if number < len(photos):
            pixels, text = photos[number]
            axes.imshow(pixels)
            axes.set_title("\n".join(_plain(line) for line in text.splitlines()), fontsize=8)
    return figure


def mistakes_figure(evaluation: Evaluation, most: int = 18) -> Figure | None:
    """The photos whose right class got the least posterior, with both classes; None without mistakes."""
    scores = evaluation.scores
    photos = []
    for index in worst_mistakes(scores, most):
        taken = int(scores.posteriors[index].argmax())
        label = int(scores.labels[index])
        text = (
            f"{scores.classes[label]} {scores.posteriors[index, label]:.2f}\n"
            f"taken for {scores.classes[taken]} {scores.posteriors[index, taken]:.2f}"
        )
        photos.append((evaluation.dataset.pixels(index), text))
    return photo_grid(photos) if photos else None


def confusion_figure(evaluation: Evaluation) -> Figure:
    """Rows are classes, columns what they were taken for, shares of a row from white to dark."""
    scores = evaluation.scores
    counts = confusion(scores.posteriors, scores.labels)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = 4 + 0.16 * min(len(scores.classes), MOST_NAMED_CLASSES)
    figure = _figure(side, side)
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="taken for", ylabel="class", title=f"{scores.protocol} on {len(scores.ids)} photos")
    if len(scores.classes) <= MOST_NAMED_CLASSES:
        names = [_plain(name) for name in scores.classes]
        axes.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
        axes.set_yticks(range(len(names)), names, fontsize=7)
    return figure


def curves_figure(log: list[dict[str, Any]]) -> Figure:
    """Loss and errors by epoch; dotted lines are drops of the learning rate."""
    figure = _figure(8, 3.2)
    left, right = figure.subplots(1, 2)
    epochs = [row["epoch"] for row in log]
    left.plot(epochs, [row["loss"] for row in log], color="tab:blue")
    left.set(xlabel="epoch", ylabel="training loss")
    right.plot(epochs, [row["train_top1_error"] for row in log], label="training crops", color="tab:blue")
    right.plot(epochs, [row["dev_top1_error"] for row in log], label="dev part", color="tab:orange")
    right.set(xlabel="epoch", ylabel="top-1 error (%)", ylim=(0, 100))
    for before, row in itertools.pairwise(log):
        if row["lr"] < before["lr"]:
            for axes in (left, right):
                axes.axvline(before["epoch"] + 0.5, color="grey", linestyle=":")
    right.legend()
    return figure


def write_evaluation_pictures(evaluation: Evaluation) -> list[Path]:
    """``confusion.png`` and, where there are mistakes, ``mistakes.png`` beside an evaluation's files."""
    made = [save_figure(confusion_figure(evaluation), evaluation.folder / "confusion.png")]
    mistakes = mistakes_figure(evaluation)
    if mistakes is not None:
        made.append(save_figure(mistakes, evaluation.folder / "mistakes.png"))
    return made


def write_page(path: Path, title: str, parts: list[tuple[str, str, Figure | None]]) -> None:
    """One self-contained HTML page: for each part a heading, a text, and a picture inside the file."""
    body = [f"<h1>{html.escape(title)}</h1>"]
    for heading, text, figure in parts:
        body.append(f"<h2>{html.escape(heading)}</h2><p>{html.escape(text)}</p>")
        if figure is not None:
            picture = BytesIO()
            figure.savefig(picture, format="png", dpi=110)
            data = base64.b64encode(picture.getvalue()).decode()
            body.append(f'<img alt="{html.escape(heading)}" src="data:image/png;base64,{data}">')
    style = "body{font:16px/1.5 sans-serif;max-width:60em;margin:2em auto;padding:0 1em}img{max-width:100%}"
    head = (
        f'<meta charset="utf8"><meta name="viewport" content="width=device-width"><title>{html.escape(title)}</title>'
    )
    page = (
        f'<!doctype html><html lang="en"><head>{head}<style>{style}</style></head><body>{"".join(body)}</body></html>'
    )
    write_atomically(path, lambda file: file.write(page.encode("utf8", "replace")))
