"""Figures of data, training, mistakes and boxes, as files or pixels."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ..checkpoints.checkpoint import Metadata
from ..core.errors import ImageError, VerydeepError
from ..core.files import FreeNames, write_atomically
from ..data.boxes import cxcywh_to_xyxy
from ..data.check import crops_of
from ..data.class_names import caption
from ..data.dataloader import BoxTargets
from ..data.image_io import Pixels, read_image
from ..data.open import Dataset
from ..evaluation.evaluate import Evaluation
from ..evaluation.metrics import BOX_IOU, best_overlap, confusion, worst_mistakes
from ..evaluation.scores import Scores
from ..localisation.evaluate import Predictions
from ..localisation.predict import Boxes
from ..training.rate_finder import RateTest

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Read = Callable[[str], Pixels]  # an image by its id; raises ImageError
MOST_NAMED_CLASSES = 30  # more tick labels than that cannot be read
MOST_SHOWN, COLUMNS = 18, 6  # images of a grid, and in a row of it
GONE: Pixels = np.full((64, 64, 3), 127, dtype=np.uint8)  # in place of an image that no longer exists
CELL_WIDTH, CELL_HEIGHT = 2.0, 2.3  # inches of a grid's image and its text
FILTER_SIDE, FILTERS_A_ROW, FILTER_GAP, FILTER_ZOOM = 3, 16, 1, 9


def save_figure(figure: Figure, path: Path) -> Path:
    """Writes a picture as PNG, atomically."""
    data = png_of_figure(figure)
    write_atomically(path, lambda file: file.write(data))
    return path


def png_of_figure(figure: Figure) -> bytes:
    """A picture as a PNG file's bytes; letters that matplotlib's font lacks are boxes, of which it would warn."""
    file = BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")
        figure.savefig(file, format="png", dpi=110)
    return file.getvalue()


def plain(text: str) -> str:
    """Text that matplotlib shows literally: no formulas, no control characters, at most 40 characters."""
    shown = "".join(letter if letter.isprintable() else "?" for letter in text)
    return shown.replace("$", r"\$")[:40]


def photo_grid(photos: Sequence[tuple[Pixels | None, str]]) -> Figure:
    """Images, each under one or two lines of text; a grey square for one that no longer exists."""
    from matplotlib.figure import Figure

    columns = max(1, min(COLUMNS, len(photos)))
    rows = max(1, math.ceil(len(photos) / columns))
    wide, high = 1 / columns, 1 / rows
    figure = Figure(figsize=(CELL_WIDTH * columns, CELL_HEIGHT * rows))  # laid out by hand: a layout draws all twice
    for number, (pixels, text) in enumerate(photos):
        row, column = divmod(number, columns)
        place = ((column + 0.03) * wide, 1 - (row + 0.98) * high, 0.94 * wide, 0.80 * high)
        axes = figure.add_axes(place, xticks=[], yticks=[], frame_on=False)
        axes.imshow(GONE if pixels is None else pixels)
        axes.set_title("\n".join(plain(line) for line in text.splitlines()), fontsize=8)
    return figure


def mistakes(scores: Scores, read: Read, most: int) -> list[tuple[Pixels | None, str]]:
    """The misclassified images whose class has the lowest posterior, with both classes; None for one that is gone."""
    photos: list[tuple[Pixels | None, str]] = []
    for index in worst_mistakes(scores, most):
        predicted, label = int(scores.posteriors[index].argmax()), int(scores.labels[index])
        text = (
            f"{caption(scores.classes[label])} {scores.posteriors[index, label]:.2f}\n"
            f"predicted {caption(scores.classes[predicted])} {scores.posteriors[index, predicted]:.2f}"
        )
        photos.append((photo_or_none(read, scores.ids[index]), text))
    return photos


def photo_or_none(read: Read, photo_id: str) -> Pixels | None:
    """An image's pixels; None where it can no longer be read."""
    try:
        return read(photo_id)
    except ImageError:
        return None


def confusion_figure(evaluation: Evaluation) -> Figure:
    """The confusion matrix: rows are classes, columns predictions, shares of a row from white to dark."""
    from matplotlib.figure import Figure

    scores = evaluation.scores
    counts = confusion(scores.posteriors, scores.labels)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = 4 + 0.16 * min(len(scores.classes), MOST_NAMED_CLASSES)
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="predicted class", ylabel="class", title=f"{scores.protocol} on {len(scores.ids)} images")
    if len(scores.classes) <= MOST_NAMED_CLASSES:
        names = [plain(caption(name)) for name in scores.classes]
        axes.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
        axes.set_yticks(range(len(names)), names, fontsize=7)
    return figure


def rate_figure(test: RateTest) -> Figure:
    """The loss of each step by its learning rate, and smoothed, with the suggestion and the rate that `train` uses."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(test.rates, test.losses, color="0.75", label="loss")
    axes.plot(test.rates, test.smoothed, label="smoothed loss")
    if test.suggestion is not None:
        axes.axvline(test.suggestion, color="tab:green", label=f"suggestion {test.suggestion:.2g}")
    axes.axvline(test.lr, color="tab:orange", linestyle="--", label=f"train {test.lr:g}")
    axes.set(xscale="log", xlabel="learning rate", ylabel="loss")
    axes.legend()
    return figure


Drawn = tuple[NDArray[np.float64], str, tuple[int, int, int]]  # a box xyxy (4,), a text, a colour
BOX_COLOURS = ((230, 40, 40), (40, 90, 220), (20, 150, 90), (200, 120, 0), (140, 60, 190))
GUESS_COLOUR, TRUTH_COLOUR = (230, 40, 40), (40, 200, 60)


def draw_boxes(pixels: Pixels, boxes: list[Drawn]) -> Pixels:
    """The image with boxes drawn on it, each with its text inside its upper edge."""
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


def _boxes_shown(predictions: Predictions, missed: bool) -> list[tuple[Pixels, str]]:
    """Images whose box of the true class is right, or ``missed``, from the largest overlap to the least.

    The true boxes are green, the predicted one is red.
    """
    dataset = predictions.dataset
    assert dataset.boxes is not None
    overlaps = best_overlap(predictions.true_boxes, dataset.boxes)
    chosen = [int(index) for index in np.argsort(-overlaps) if (overlaps[index] < BOX_IOU) == missed]
    spread = np.unique(np.linspace(0, len(chosen) - 1, min(MOST_SHOWN, len(chosen))).astype(int))
    photos = []
    for index in (chosen[place] for place in spread if chosen):
        drawn: list[Drawn] = [(box, "", TRUTH_COLOUR) for box in dataset.boxes[index]]
        drawn.append((predictions.true_boxes[index], "", GUESS_COLOUR))
        text = f"{caption(dataset.classes[dataset.labels[index]])}\noverlap {overlaps[index]:.2f}"
        photos.append((draw_boxes(dataset.pixels(index), drawn), text))
    return photos


def write_box_pictures(predictions: Predictions, folder: Path) -> None:
    """Writes ``right.png`` and ``wrong.png``, where there are such boxes."""
    for name, missed in (("right.png", False), ("wrong.png", True)):
        if photos := _boxes_shown(predictions, missed):
            save_figure(photo_grid(photos), folder / name)


def write_pictures(
    images: Sequence[str], names: FreeNames, ending: str, write: Callable[[int, Path], object], faults: list[str]
) -> list[Path | None]:
    """Writes a picture for each image, named after it; None, and a message in ``faults``, where that fails.

    Args:
        write: takes an image's number and the file to write.
    """
    paths: list[Path | None] = []
    for number, image in enumerate(images):
        try:
            (path,) = names.after(image, ending)
            write(number, path)
            paths.append(path)
        except VerydeepError as fault:
            faults.append(f"no picture of {image}: {fault}")
            paths.append(None)
    return paths


def write_boxed_photos(predictions: Sequence[Boxes], folder: Path, faults: list[str]) -> list[Path | None]:
    """Writes each image with its boxes, class and score as JPEG, as `write_pictures`; never over an input image."""
    images = [boxes.image for boxes in predictions]
    names = FreeNames(folder, list(map(Path, images)))
    return write_pictures(images, names, ".jpg", lambda number, path: _save_boxed(predictions[number], path), faults)


def _save_boxed(boxes: Boxes, path: Path) -> None:
    drawn: list[Drawn] = [
        (np.array(box.xyxy), f"{caption(box.name)} {box.score:.2f}", BOX_COLOURS[number % len(BOX_COLOURS)])
        for number, box in enumerate(boxes.boxes)
    ]
    picture = Image.fromarray(draw_boxes(read_image(boxes.image), drawn[::-1]))  # the likeliest on top
    write_atomically(path, lambda file: picture.save(file, "JPEG", quality=92))


def training_crops(train: Dataset, metadata: Metadata) -> list[tuple[Pixels, str]]:
    """The crop of each image of a part of a run's training set as its net sees it, with the class.

    Of localisation models the target box is drawn.

    Raises:
        ImageError: an image cannot be read.
    """
    settings = replace(metadata.train_settings, batch=len(train))
    targets = None
    if metadata.is_localiser and train.boxes is not None:
        targets = BoxTargets(train.boxes, metadata.localiser_settings.half_of_box)
    crops = crops_of(train, settings, np.array(metadata.colour_axes), targets)
    return [
        (
            draw_boxes(pixels, [(cxcywh_to_xyxy(box) * metadata.crop, "", TRUTH_COLOUR)]) if len(box) else pixels,
            caption(name),
        )
        for pixels, name, box in crops
    ]


def filters_picture(weights: NDArray[np.float32]) -> Pixels:
    """The first layer's filters (C,3,3,3) as a grid of squares, each stretched around grey by its largest."""
    count = len(weights)
    columns = min(FILTERS_A_ROW, count)
    cell = FILTER_SIDE + FILTER_GAP
    grid = np.full((math.ceil(count / columns) * cell + FILTER_GAP, columns * cell + FILTER_GAP, 3), 127.0)
    for number, kernel in enumerate(weights):
        top, left = (FILTER_GAP + place * cell for place in divmod(number, columns))
        tile = kernel.transpose(1, 2, 0) / max(float(np.abs(kernel).max()), 1e-12)
        grid[top : top + FILTER_SIDE, left : left + FILTER_SIDE] = 127.5 * (1 + tile)
    return grid.round().astype(np.uint8).repeat(FILTER_ZOOM, axis=0).repeat(FILTER_ZOOM, axis=1)


def write_evaluation_pictures(evaluation: Evaluation) -> list[Path]:
    """Writes ``confusion.png`` and, where there are mistakes, ``mistakes.png`` beside an evaluation's files."""
    paths = [save_figure(confusion_figure(evaluation), evaluation.folder / "confusion.png")]
    if photos := mistakes(evaluation.scores, evaluation.dataset.source.read, MOST_SHOWN):
        paths.append(save_figure(photo_grid(photos), evaluation.folder / "mistakes.png"))
    return paths
