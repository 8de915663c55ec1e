"""App. A, data: boxes in YOLO's label files: a text file per image, a line ``class cx cy w h`` per box.

Centre and size are fractions of the image's sides, and the class is an index into the ``names`` of ``data.yaml`` or the
lines of ``classes.txt``. These are searched for in the labels' folder and the two above it.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from ..core.errors import VerydeepError
from ..core.files import read_text
from .boxes import cxcywh_to_xyxy
from .class_names import names_in
from .dataset import NamedBox
from .walk import Skipped, files_below, of_extension

YAML, LISTS = ("data.yaml", "data.yml"), ("classes.txt", "obj.names")
LEVELS_UP = 2  # labels/train/ is two levels below data.yaml
LABELS, IMAGES = "labels", "images"  # the folders of a dataset, which are parallel
MOST_NORMALISED = 1.5  # if no coordinate in a file is larger, they are fractions of the image's sides
LARGEST_FILE = 2**20  # bytes of one image's labels; ten thousand boxes take less
LARGEST_NAMES = 2**18  # bytes of a list of class names; PyYAML takes seconds for them
NUMBERS = (5, 6)  # of a box; detectors add its probability
OTHER = "polygon or keypoints"  # lines of more numbers
NAMED = "`names: [cat, dog]` or, in a .txt, one name a line"


def read_yolo(folder: Path) -> tuple[dict[str, list[NamedBox]], list[str], dict[str, list[str]]]:
    """Reads the boxes of the text files below a folder; of those below folders ``labels``, if there are any.

    Returns:
        Relative boxes by the image's path without extension, in which ``images`` replaces the last ``labels``; the
        files that are broken, with the reason; the lines that are no box, by kind.

    Raises:
        VerydeepError: an unreadable folder; without a list of class names.
    """
    files = [file for file in files_below(folder, Skipped(str(folder)), of_extension(".txt")) if file.name not in LISTS]
    files = [file for file in files if LABELS in file.relative_to(folder).parts[:-1]] or files
    boxes: dict[str, list[NamedBox]] = {}
    broken: list[str] = []
    boxless: dict[str, list[str]] = {}
    names = _class_names(folder) if files else {}
    for file in files:
        try:
            boxes[_image(PurePosixPath(file.relative_to(folder)))] = _boxes(file, names, boxless)
        except VerydeepError as fault:
            broken.append(str(fault).removesuffix("."))
    return boxes, broken, boxless


def _image(labels: PurePosixPath) -> str:
    parts = list(labels.with_suffix("").parts)
    if LABELS in parts[:-1]:
        parts[len(parts) - 1 - parts[::-1].index(LABELS)] = IMAGES
    return str(PurePosixPath(*parts))


def _boxes(file: Path, names: dict[int, str], boxless: dict[str, list[str]]) -> list[NamedBox]:
    """The boxes of a file; adds its other lines to ``boxless``."""
    boxes = []
    for number, line in enumerate(_text(file, LARGEST_FILE).splitlines(), start=1):
        cells = line.split()
        if len(cells) > max(NUMBERS):
            boxless.setdefault(OTHER, []).append(f"{file}, line {number}")
        elif cells:
            try:
                boxes.append(_box(cells, names))
            except ValueError as fault:
                raise VerydeepError(f"{file}, line {number}: {fault}.") from None
    return boxes


def _text(file: Path, most: int) -> str:
    """A file's text; raises VerydeepError if it has more than so many bytes, or is not UTF-8."""
    if file.stat().st_size > most:
        raise VerydeepError(f"{file}: it has more than {most:,} bytes.")
    return read_text(file)


def _box(cells: list[str], names: dict[int, str]) -> NamedBox:
    """A line's box; raises ValueError if it is none."""
    try:
        index, *numbers = map(float, cells)
    except ValueError:
        numbers = []
    if len(numbers) + 1 not in NUMBERS:
        raise ValueError(f"expected class cx cy w h, got {' '.join(cells)[:80]!r}")
    if index not in names:
        raise ValueError(f"class {cells[0]} is not among the {len(names)} class names")
    for value in numbers[:4]:
        if not abs(value) < MOST_NORMALISED:  # nan neither
            raise ValueError(f"{value:g} is not a fraction of the image's side")
    x1, y1, x2, y2 = cxcywh_to_xyxy(numbers[:4]).tolist()
    return NamedBox(names[int(index)], (x1, y1, x2, y2), relative=True)


def _class_names(folder: Path) -> dict[int, str]:
    """The class names by index, from the nearest list of them."""
    for place in (folder, *folder.absolute().parents[:LEVELS_UP]):
        for file in (place / name for name in (*YAML, *LISTS)):
            if file.is_file():
                text = _text(file, LARGEST_NAMES)
                names = _yaml_names(file, text) if file.name in YAML else dict(enumerate(names_in(text)))
                if names and all(names.values()):
                    return names
                raise VerydeepError(f"{file} does not name the classes of the boxes in {folder}, as {NAMED}.")
    raise VerydeepError(
        f"{folder} has YOLO's boxes (class cx cy w h), but no list of class names: write {folder / LISTS[0]}, with one "
        "name a line in the order of their indices."
    )


def _yaml_names(file: Path, text: str) -> dict[int, str]:
    """The ``names`` of a YAML file, a list or a mapping of indices; empty if it has none."""
    try:
        import yaml
    except ImportError:
        raise VerydeepError(
            f"reading {file} needs pyyaml: pip install 'verydeep[yolo]', or write its names into "
            f"{file.with_name(LISTS[0])}, one a line."
        ) from None
    try:
        names = yaml.safe_load(text)["names"]
        items = enumerate(names) if isinstance(names, list) else names.items()
        return {int(index): str(name) for index, name in items if isinstance(name, str | int)}
    except (yaml.YAMLError, RecursionError, TypeError, KeyError, ValueError, AttributeError, OverflowError):
        return {}
