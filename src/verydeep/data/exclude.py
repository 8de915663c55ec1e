"""Images that a list leaves out of a dataset, such as ``suspects.csv``, which `verydeep data check` writes.

The list is a table with a column of images, or one image a line. An image is named by its id (its path below the data's
folder) or its whole path. The images leave the sets after the split, so that no other image changes its set.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from ..core.errors import VerydeepError
from ..core.nearest import nearest
from .dataset import Data
from .image_formats import EXTENSIONS
from .tables import ENDINGS, IMAGE, Columns, read_table

COLUMNS = Columns(
    names={"image": IMAGE}, usual=("image",), least=1, is_row=lambda cells: cells[0].lower().endswith(EXTENSIONS)
)


def excluded_images(path: str | Path, known: Iterable[str], root: Path | None = None) -> frozenset[str]:
    """The ids of the images that a list leaves out.

    Args:
        known: the ids of all images.
        root: the folder that ids are relative to.

    Raises:
        VerydeepError: no such list, or it names an image that is not known.
    """
    path, ids = Path(path), frozenset(known)
    if not path.is_file() or path.suffix.lower() not in ENDINGS:
        raise VerydeepError(f"--exclude needs a {', '.join(ENDINGS)} file that lists images; {path} is no such file.")
    excluded: set[str] = set()
    for row in read_table(path, COLUMNS):
        image = row.cells["image"]
        if image not in ids and root is not None and Path(image).is_relative_to(root):
            image = str(Path(image).relative_to(root))
        if image not in ids:
            close = nearest(image, _alike(image, ids))
            hint = f"did you mean {close!r}?" if close else "it names images by their path below the data's folder."
            raise VerydeepError(f"{path}, line {row.line}: the data have no image {image!r}; {hint}")
        excluded.add(image)
    return frozenset(excluded)


def _alike(image: str, ids: Iterable[str]) -> list[str]:
    """The images of the same folder or file name: comparing a name with a million others would take minutes."""
    folder, _, name = image.rpartition("/")
    return [other for other in sorted(ids) if other.rpartition("/")[0] == folder or other.rpartition("/")[2] == name]


def without_excluded(data: Data, path: str) -> Data:
    """The data without the images of a list; a note has their number.

    Raises:
        VerydeepError: as `excluded_images`; no image of a class is left to train on.
    """
    parts = [*data.sets.values(), *([] if data.unsplit is None else [data.unsplit])]
    excluded = excluded_images(path, (image for part in parts for image in part.ids), parts[0].source.root)
    sets = {name: part.without(excluded) for name, part in data.sets.items()}
    for name, part in data.sets.items():
        emptied = set(part.labels.tolist()) - set(sets[name].labels.tolist())
        if name == "train" and emptied:
            raise VerydeepError(f"{path} lists every training image of class {part.classes[min(emptied)]!r}.")
    unsplit = None if data.unsplit is None else data.unsplit.without(excluded)
    total = sum(map(len, data.sets.values()))
    note = f"{total - sum(map(len, sets.values()))} of {total} images are left out, as listed in {path}"
    return replace(data, sets=sets, unsplit=unsplit, notes=(*data.notes, note))
