"""Sect. 4: submission files for the ILSVRC server: the five best classes of each image, in order.

Class indices follow sorted WNIDs; the file has ILSVRC2012_IDs, which are in another order. A class is identified by the
WNID that its name begins with, never by its index.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..core.errors import VerydeepError
from ..core.files import write_atomically
from ..data.boxes import xyxy_to_inclusive
from ..data.datasets.imagenet import devkit_order
from ..data.open import Dataset
from .scores import Scores

BEST = 5


def write_classification(path: Path, scores: Scores, devkit: Path) -> None:
    """Writes a classification file: a line per image, sorted by file name, of up to five ILSVRC2012_IDs, best first.

    Args:
        devkit: the directory of ILSVRC or of its devkit, with ``map_clsloc.txt`` or ``meta.mat``.

    Raises:
        VerydeepError: a class name without a WNID of the devkit; the file cannot be written.
    """
    numbers = ilsvrc_ids(scores.classes, devkit)
    best = np.argsort(-scores.posteriors, axis=1, kind="stable")[:, :BEST]
    _write_lines(path, scores.ids, [" ".join(str(numbers[label]) for label in row) for row in best])


def write_localisation(
    path: Path, dataset: Dataset, labels: NDArray[np.int64], boxes: NDArray[np.float64], devkit: str | Path
) -> None:
    """Writes a localisation file: a line per image, sorted by file name, of up to five ``id xmin ymin xmax ymax``.

    Args:
        labels: predicted labels, the best first, (N,G).
        boxes: their boxes, xyxy (N,G,4); in the file they are first and last pixels, counted from 0 as in
            ILSVRC's annotations (`verydeep.data.annotations.XmlBoxes`).
        devkit: as for `write_classification`.

    Raises:
        VerydeepError: as `write_classification`.
    """
    numbers = ilsvrc_ids(dataset.classes, Path(devkit))
    pixels = xyxy_to_inclusive(boxes) - 1
    lines = [
        " ".join(f"{numbers[label]} {' '.join(map(str, box.tolist()))}" for label, box in zip(*best, strict=True))
        for best in zip(labels[:, :BEST], pixels[:, :BEST], strict=True)
    ]
    _write_lines(path, dataset.ids, lines)


def _write_lines(path: Path, ids: tuple[str, ...], lines: list[str]) -> None:
    """Writes the lines of images, sorted by file name."""
    order = sorted(range(len(ids)), key=lambda index: Path(ids[index]).name)
    write_atomically(path, lambda file: file.write("".join(f"{lines[index]}\n" for index in order).encode()))


def ilsvrc_ids(classes: tuple[str, ...], devkit: Path) -> list[int]:
    """The ILSVRC2012_ID of each class; raises VerydeepError for a class that the devkit does not have."""
    if not devkit.is_dir():
        raise VerydeepError(
            f"{devkit} is not a folder: use that of ILSVRC's devkit, which has each class's ILSVRC2012_ID."
        )
    by_wnid = {wnid: number for number, wnid in devkit_order(devkit).items()}
    numbers = []
    for name in classes:
        match = re.match(r"n\d{8}", name)
        if not match or match[0] not in by_wnid:
            raise VerydeepError(f"class {name!r} is not one of ILSVRC's: server files need scores on its 1000 classes.")
        numbers.append(by_wnid[match[0]])
    return numbers
