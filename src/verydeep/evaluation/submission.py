"""Sect. 4: what the ILSVRC server takes: for each photo, in order, the five best classes.

Inside, classes are in the order of sorted WNIDs; in the file they are ILSVRC2012_IDs, which is another
order. A class is recognised by the WNID its name begins with, never by its place.
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
    """The classification file: a line a photo, sorted by file name, of up to five ILSVRC2012_IDs, the best first.

    Args:
        devkit: ILSVRC's folder, or its devkit's, with ``map_clsloc.txt`` or ``meta.mat``.

    Raises:
        VerydeepError: a class's name begins with no WNID of the devkit; nowhere to write.
    """
    numbers = ilsvrc_ids(scores.classes, devkit)
    order = sorted(range(len(scores.ids)), key=lambda index: Path(scores.ids[index]).name)
    best = np.argsort(-scores.posteriors, axis=1, kind="stable")[:, :BEST]
    lines = [" ".join(str(numbers[place]) for place in best[index]) for index in order]
    write_atomically(path, lambda file: file.write(("\n".join(lines) + "\n").encode()))


def write_localisation(
    path: Path, dataset: Dataset, labels: NDArray[np.int64], boxes: NDArray[np.float64], devkit: str | Path
) -> None:
    """The localisation file: a line a photo, sorted by file name, of up to five ``id xmin ymin xmax ymax``.

    Args:
        labels: guesses, the best first, (N,G).
        boxes: their boxes, xyxy (N,G,4); in the file they are first and last pixels, counted from 1.
        devkit: as for `write_classification`.

    Raises:
        VerydeepError: as `write_classification`.
    """
    numbers = ilsvrc_ids(dataset.classes, Path(devkit))
    pixels = xyxy_to_inclusive(boxes)
    lines = []
    for index in sorted(range(len(dataset)), key=lambda index: Path(dataset.ids[index]).name):
        guesses = zip(labels[index, :BEST], pixels[index, :BEST], strict=True)
        lines.append(" ".join(f"{numbers[label]} {' '.join(map(str, box.tolist()))}" for label, box in guesses))
    write_atomically(path, lambda file: file.write(("\n".join(lines) + "\n").encode()))


def ilsvrc_ids(classes: tuple[str, ...], devkit: Path) -> list[int]:
    """The ILSVRC2012_ID of each class; raises VerydeepError for one that is none of the devkit's."""
    if not devkit.is_dir():
        raise VerydeepError(f"{devkit} is not a folder: give ILSVRC's devkit, which tells each class's ILSVRC2012_ID.")
    by_wnid = {wnid: number for number, wnid in devkit_order(devkit).items()}
    found = []
    for name in classes:
        match = re.match(r"n\d{8}", name)
        if not match or match[0] not in by_wnid:
            raise VerydeepError(f"class {name!r} is none of ILSVRC's: a server file needs scores on its 1000 classes.")
        found.append(by_wnid[match[0]])
    return found
