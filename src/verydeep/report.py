"""Pictures of data, training and mistakes, drawn off screen."""

from __future__ import annotations

import base64
import html
import itertools
import math
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from .box_prediction import Boxes
from .evaluation import Evaluation
from .files import write_atomically
from .images import Pixels, read_image
from .localising import Guesses
from .metrics import BOX_IOU, best_overlap, confusion
from .summary import worst_mistakes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_NAMED_CLASSES = 30  # more tick labels than that cannot be read


def figure_of(width: float, height: float) -> Figure:
    """An empty figure of so many inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def save_figure(figure: Figure, path: Path) -> Path:
    """Writes a picture as PNG, atomically."""
    write_atomically(path, lambda file: figure.savefig(file, format="png", dpi=110))
    return path


def plain(text: str) -> str:
    """A name as matplotlib shows it to the letter: no formulas, no control characters."""
    shown = "".join(letter if letter.isprintable() else "?" for letter in text)
    return shown.replace("$", r"\$")[:40]


def photo_grid(photos: list[tuple[Pixels, str]], columns: int = 6) -> Figure:
    """Photos with a line of text below each."""
    columns = max(1, min(columns, len(photos)))
    rows = max(1, math.ceil(len(photos) / columns))
    figure = figure_of(2.0 * columns, 2.3 * rows)
    for number, axes in enumerate(figure.subplots(rows, columns, squeeze=False).flat):
        axes.set_axis_off()
        if number < len(photos):
            pixels, text = photos[number]
            axes.imshow(pixels)
            axes.set_title("\n".join(plain(line) for line in text.splitlines()), fontsize=8)
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
    figure = figure_of(side, side)
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="taken for", ylabel="class", title=f"{scores.protocol} on {len(scores.ids)} photos")
    if len(scores.classes) <= MOST_NAMED_CLASSES:
        names = [plain(name) for name in scores.classes]
        axes.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
        axes.set_yticks(range(len(names)), names, fontsize=7)
    return figure


def curves_figure(log: list[dict[str, Any]]) -> Figure:
    """Loss and errors by epoch; dotted lines are drops of the learning rate."""
    figure = figure_of(8, 3.2)
    left, right = figure.subplots(1, 2)
    epochs = [row["epoch"] for row in log]
    left.plot(epochs, [row["loss"] for row in log], color="tab:blue")
    left.set(xlabel="epoch", ylabel="training loss")
    (error,) = (key.removeprefix("dev_") for key in log[0] if key.startswith("dev_") and key.endswith("_error"))
    right.plot(epochs, [row[f"train_{error}"] for row in log], label="training crops", color="tab:blue")
    right.plot(epochs, [row[f"dev_{error}"] for row in log], label="dev part", color="tab:orange")
    right.set(xlabel="epoch", ylabel=f"{error.replace('_', ' ')} (%)", ylim=(0, 100))
    for before, row in itertools.pairwise(log):
        if row["lr"] < before["lr"]:
            for axes in (left, right):
                axes.axvline(before["epoch"] + 0.5, color="grey", linestyle=":")
    right.legend()
    return figure


Drawn = tuple[NDArray[np.float64], str, tuple[int, int, int]]  # a box xyxy (4,), a text, a colour
BOX_COLOURS = ((230, 40, 40), (40, 90, 220), (20, 150, 90), (200, 120, 0), (140, 60, 190))
GUESS_COLOUR, TRUTH_COLOUR = (230, 40, 40), (40, 200, 60)


def draw_boxes(pixels: Pixels, boxes: list[Drawn]) -> Pixels:
    """The photo with boxes drawn on it, each with its text inside its upper edge."""
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    pen = ImageDraw.Draw(picture)
    size = max(10, min(picture.size) // 24)
    for corners, text, colour in boxes:
        x1, y1, x2, y2 = (float(value) for value in corners)
        pen.rectangle((x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)), outline=colour, width=max(1, size // 6))
        if text:
            font = ImageFont.load_default(size)
            shown = _latin(text)
            left, top, right, bottom = pen.textbbox((x1 + 2, y1 + 2), shown, font=font)
            pen.rectangle((left - 2, top - 2, right + 2, bottom + 2), fill=colour)
            pen.text((x1 + 2, y1 + 2), shown, fill=(255, 255, 255), font=font)
    return np.asarray(picture)


def _latin(text: str) -> str:
    """Text in letters that Pillow's own font has."""
    return "".join(letter if letter.isprintable() and ord(letter) < 256 else "?" for letter in text)[:60]


def boxes_figure(found: Guesses, missed: bool, most: int = 18) -> Figure | None:
    """Photos whose box of the true class is right, or ``missed``, from the largest overlap to the least; or None.

    The true boxes are green and the guess is red.
    """
    dataset = found.dataset
    assert dataset.boxes is not None
    overlaps = best_overlap(found.true_boxes, dataset.boxes)
    chosen = [int(index) for index in np.argsort(-overlaps) if (overlaps[index] < BOX_IOU) == missed]
    spread = np.unique(np.linspace(0, len(chosen) - 1, min(most, len(chosen))).astype(int))
    photos = []
    for index in (chosen[place] for place in spread if chosen):
        drawn: list[Drawn] = [(box, "", TRUTH_COLOUR) for box in dataset.boxes[index]]
        drawn.append((found.true_boxes[index], "", GUESS_COLOUR))
        text = f"{dataset.classes[dataset.labels[index]]}\noverlap {overlaps[index]:.2f}"
        photos.append((draw_boxes(dataset.pixels(index), drawn), text))
    return photo_grid(photos) if photos else None


def write_box_pictures(found: Guesses, folder: Path) -> list[Path]:
    """``right.png`` and ``wrong.png``, where there are such boxes."""
    made = []
    for name, missed in (("right.png", False), ("wrong.png", True)):
        figure = boxes_figure(found, missed)
        if figure is not None:
            made.append(save_figure(figure, folder / name))
    return made


def write_boxed_photos(found: Sequence[Boxes], folder: Path) -> list[Path]:
    """Each photo with its boxes, class and score drawn on it, as JPEG; pictures of one name are numbered.

    A picture never takes the place of a photo that was asked about.
    """
    made: list[Path] = []
    asked = {Path(boxes.image).resolve() for boxes in found}
    for boxes in found:
        drawn: list[Drawn] = [
            (np.array(box.xyxy), f"{box.name} {box.score:.2f}", BOX_COLOURS[number % len(BOX_COLOURS)])
            for number, box in enumerate(boxes.boxes)
        ]
        picture = Image.fromarray(draw_boxes(read_image(boxes.image), drawn[::-1]))  # the likeliest on top
        stem, number = Path(boxes.image).stem, 1
        while (path := folder / f"{stem}{'' if number == 1 else f'-{number}'}.jpg") in made or path.resolve() in asked:
            number += 1
        _save_photo(picture, path)
        made.append(path)
    return made


def _save_photo(picture: Image.Image, path: Path) -> None:
    write_atomically(path, lambda file: picture.save(file, "JPEG", quality=92))


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
