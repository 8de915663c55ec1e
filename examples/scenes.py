"""Photos to try the commands on: scenes of handwritten digits as files, and the boxes around the digits.

    python examples/scenes.py photos             # photos/0/…, photos/1/…, photos.csv, and photos-nine.png
    python examples/scenes.py photos --each 20

They are of the built-in data set's `val` part, which nets trained on `digits` have not seen.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
from PIL import Image

import verydeep
from verydeep.data.boxes import xyxy_to_inclusive
from verydeep.data.datasets.digits import scene
from verydeep.data.image_io import Pixels

SIDE = 128
COLUMNS = ("image", "xmin", "ymin", "xmax", "ymax", "class")


def nine() -> Pixels:
    """One photo of the digits 1 to 9 in three rows, for score maps of one of them."""
    digits = verydeep.open_data(verydeep.DataSettings(data="digits")).sets["val"]
    tiles = []
    for label in range(1, 10):
        pixels = digits.pixels(int((digits.labels == label).nonzero()[0][label]))
        tiles.append(np.asarray(Image.fromarray(pixels).resize((SIDE, SIDE))))
    return np.vstack([np.hstack(tiles[row : row + 3]) for row in (0, 3, 6)])


def write_scenes(folder: Path, each: int) -> int:
    """Writes so many scenes a digit, as PNG, and ``FOLDER.csv`` with their boxes; returns how many there are."""
    digits = verydeep.open_data(verydeep.DataSettings(data="digits")).sets["val"]
    rows = []
    for label, name in enumerate(digits.classes):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number, index in enumerate((digits.labels == label).nonzero()[0][:each]):
            pixels, box = scene("val", int(index))
            path = folder / name / f"{number:03d}.png"
            Image.fromarray(pixels).save(path)
            rows.append((path.relative_to(folder), *xyxy_to_inclusive(box).tolist(), name))
    Image.fromarray(nine()).save(folder.with_name(f"{folder.name}-nine.png"))
    with folder.with_name(f"{folder.name}.csv").open("w", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *rows])
    return len(rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Scenes of digits as photos, a folder per class.")
    parser.add_argument("folder", type=Path, help="a new folder")
    parser.add_argument("--each", type=int, default=10, help="photos of each class (10)")
    options = parser.parse_args()
    print(f"{options.folder}: {write_scenes(options.folder, options.each)} photos; boxes in {options.folder}.csv")
