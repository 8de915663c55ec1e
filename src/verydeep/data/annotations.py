"""App. A, data: the files people keep boxes in: VOC's XML (ILSVRC's too), CSV, COCO's JSON.

Corners in XML and tables are ``inclusive`` pixels, counted from 1; COCO's boxes, and a table's with sides, are
``xywh``. Boxes come out as the file has them, faults and all, in the house's ``xyxy``; `verydeep.data.box_targets`
repairs or refuses them.
"""

from __future__ import annotations

import contextlib
import json
import math
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any
from xml.etree import ElementTree

from ..core.errors import VerydeepError
from ..core.files import check_text
from ..core.text_files import read_text
from .boxes import inclusive_to_xyxy, xywh_to_xyxy
from .dataset import NamedBox
from .tables import CLASS, DELIMITERS, IMAGE, Columns, Row, read_table
from .walk import Skipped, files_below, of_extension

COLUMNS = ("image", "xmin", "ymin", "xmax", "ymax", "class")
LARGEST_SIZE = 1e6  # pixels: a side that a file may declare
LARGEST_XML = 2**20  # bytes of one photo's annotation; ten thousand boxes take less
ByImage = dict[str, list[NamedBox]]
MOST_SHARE = 1.5  # pixels: where no coordinate of a file is larger, they are shares of the photo's sides
MOST_SWAPPED = 0.2  # of a table's boxes: with more, it is the columns that are swapped
CORNERS, SIDES, CENTRE = "corners", "x, y and sides", "centre and sides"


def _forms(corners: tuple[str, ...], sides: tuple[str, ...] = ("",)) -> tuple[tuple[str, ...], ...]:
    """Names of four columns, each of which may begin with ``bbox`` or ``box``."""
    plain = [(*corner.split(), *side.split()) for corner in corners for side in sides]
    return tuple(tuple(prefix + name for name in names) for prefix in ("", "bbox", "box") for names in plain)


WIDTHS = ("width height", "w h")
_CORNERS = (
    *("xmin ymin xmax ymax", "x1 y1 x2 y2", "left top right bottom"),
    *("minx miny maxx maxy", "x0 y0 x1 y1", "xtl ytl xbr ybr"),
)
BOXES = Columns(
    names={
        "image": IMAGE,
        "class": CLASS,
        "width": (("imagewidth", "imgwidth", "imagew", "imgw"), ("width",)),
        "height": (("imageheight", "imgheight", "imageh", "imgh"), ("height",)),
    },
    usual=COLUMNS,
    least=len(COLUMNS),
    is_row=lambda cells: any(map(_is_number, cells[1:])),
    optional=("width", "height"),
    forms=(
        (CORNERS, _forms(_CORNERS)),
        (SIDES, _forms(("x y", "left top", "xmin ymin", "x1 y1"), WIDTHS)),
        (CENTRE, _forms(("xcenter ycenter", "xcentre ycentre", "cx cy", "centerx centery"), WIDTHS)),
    ),
)


def read_boxes(path: Path) -> tuple[ByImage, list[str], list[str]]:
    """The boxes of a file (``.csv``, ``.tsv``, ``.json``) or of a folder of XML files, by the image's name in it.

    An XML file is of the image of its own name, which is told without an extension. Those of a folder that are broken
    are told apart, and so is, in a line, what a file of COCO's tells without a box: crowds, segmentation, nothing.

    Raises:
        VerydeepError: no such file, a folder that cannot be read, another kind of file, a line or entry that is no box.
    """
    broken: list[str] = []
    skipped: list[str] = []
    if path.is_dir():
        found, broken = _read_folder(path)
    elif path.suffix.lower() in DELIMITERS:
        found = _read_table(path)
    elif path.suffix.lower() == ".json":
        found, skipped = _read_coco(path)
    else:
        what = "is neither a folder of XML files nor a .csv, .tsv or .json file" if path.exists() else "does not exist"
        raise VerydeepError(f"boxes {path} {what}: give PASCAL VOC's XML, {','.join(COLUMNS)} rows, or COCO's JSON.")
    if not found:
        told = f"; of its {len(broken)} XML files none can be read, the first: {broken[0]}" if broken else ""
        raise VerydeepError(f"{path} holds no boxes{told}{'; '.join(['', *skipped])}.")
    return found, broken, skipped


def _read_folder(path: Path) -> tuple[ByImage, list[str]]:
    found: ByImage = {}
    broken = []
    for file in files_below(path, Skipped(str(path)), of_extension(".xml")):
        try:
            found[str(PurePosixPath(file.relative_to(path).with_suffix("")))] = read_xml(file)
        except VerydeepError:
            broken.append(str(file))
    return found, broken


def read_xml(path: Path) -> list[NamedBox]:
    """The objects of one VOC-style XML file; their corners are of the ``size`` it declares, where it does.

    Raises:
        VerydeepError: broken, or an object without a name or four numbers.
    """
    try:
        if path.stat().st_size > LARGEST_XML:
            raise ValueError(f"it has more than {LARGEST_XML:,} bytes")
        root = ElementTree.parse(path).getroot()
        size = _xml_size(root)
        return [_xml_box(item, size) for item in root.iter("object")]
    except (OSError, ElementTree.ParseError, TypeError, ValueError, LookupError, OverflowError) as fault:
        raise VerydeepError(f"{path} is no annotation in PASCAL VOC's XML, or broken ({_line(fault)}).") from None


def _xml_size(root: ElementTree.Element) -> tuple[int, int] | None:
    return _size([root.findtext(f"size/{name}") for name in ("height", "width")])


def _size(told: list[Any]) -> tuple[int, int] | None:
    """Height and width as told; None where they are not, or are no sizes."""
    numbers = [float(value or 0) for value in told]
    if not all(1 <= number < LARGEST_SIZE for number in numbers):
        return None
    return int(numbers[0]), int(numbers[1])


def _xml_box(item: ElementTree.Element, size: tuple[int, int] | None) -> NamedBox:
    name = (item.findtext("name") or "").strip()
    corners = [float(item.findtext(f"bndbox/{side}") or "") for side in COLUMNS[1:5]]
    if not name:
        raise ValueError("an object without a name")
    return _inclusive(name, corners, size)


def _inclusive(name: str, corners: list[float], size: tuple[int, int] | None = None) -> NamedBox:
    """A box from first and last pixels; swapped corners stay swapped, so that they can be told."""
    if not all(abs(value) < LARGEST_SIZE for value in corners):
        raise ValueError("a coordinate that no photo has")
    x1, x2, y1, y2 = corners[0], corners[2], corners[1], corners[3]
    left, top, right, bottom = inclusive_to_xyxy([min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)]).tolist()
    across = (left, right) if x1 <= x2 else (right, left)
    down = (top, bottom) if y1 <= y2 else (bottom, top)
    return NamedBox(
        name, (across[0], down[0], across[1], down[1]), size, (corners[0], corners[1], corners[2], corners[3])
    )


def _read_table(path: Path) -> ByImage:
    """Rows of an image, its box and its class, by the names of the columns, or in the order of `COLUMNS`."""
    found: ByImage = {}
    rows = read_table(path, BOXES)
    for row in rows:
        if not all(abs(value) < LARGEST_SIZE for value in row.numbers):
            raise VerydeepError(f"{path}, line {row.line}: {max(row.numbers, key=abs):g} is no coordinate of a photo.")
        found.setdefault(_name(row.cells["image"]), []).append(_box(row))
    if rows and all(abs(value) < MOST_SHARE for row in rows for value in row.numbers):
        raise VerydeepError(
            f"{path} has boxes in shares of the photos' sides, from 0 to 1: give pixels, x times width, y times height."
        )
    boxes = [box for several in found.values() for box in several]
    swapped = sum(box.swapped for box in boxes)
    if swapped > MOST_SWAPPED * len(boxes):
        raise VerydeepError(
            f"{path}: {swapped} of {len(boxes)} boxes have swapped corners, as if the columns were in another order: "
            f"give a header that names them ({BOXES.accepted()}), or {','.join(COLUMNS)}."
        )
    if not all(map(_fits, boxes)):  # then width and height are no photo's
        return {image: [replace(box, size=None) for box in several] for image, several in found.items()}
    return found


def _box(row: Row) -> NamedBox:
    """A row's box, its size told where the row has one."""
    name, (a, b, c, d) = row.cells["class"], row.numbers
    if row.form == CORNERS:
        box = _inclusive(name, [a, b, c, d])
    else:
        x, y = (a - c / 2, b - d / 2) if row.form == CENTRE else (a, b)
        x1, y1, x2, y2 = xywh_to_xyxy([x, y, c, d]).tolist()
        box = NamedBox(name, (x1, y1, x2, y2))
    with contextlib.suppress(ValueError, OverflowError):
        return replace(box, size=_size([row.cells.get("height"), row.cells.get("width")]))
    return box


def _fits(box: NamedBox) -> bool:
    """Whether a box lies within the size that its corners are said to be of."""
    height, width = box.size or (math.inf, math.inf)
    return max(box.xyxy[0::2]) <= width + 1 and max(box.xyxy[1::2]) <= height + 1


def _is_number(cell: str) -> bool:
    with contextlib.suppress(ValueError):
        float(cell.replace(",", "."))
        return True
    return False


def _read_coco(path: Path) -> tuple[ByImage, list[str]]:
    """COCO's ``images``, ``annotations`` (``bbox`` as xywh) and ``categories``; and what has no box, in a line."""
    try:
        told = json.loads(read_text(path))
        images, categories = _by_id(path, told["images"], "file_name"), _by_id(path, told["categories"], "name")
        annotations = list(enumerate(told["annotations"], start=1))
        check_text(*(str(item.get("name")) for item in categories.values()))
        check_text(*(str(item.get("file_name")) for item in images.values()))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as fault:
        raise VerydeepError(f"{path} is not COCO's JSON of images, annotations, categories ({_line(fault)}).") from None
    found: ByImage = {}
    boxless: dict[str, list[str]] = {}
    for number, item in annotations:
        called = f"annotation {item['id']}" if isinstance(item, dict) and "id" in item else f"annotation no. {number}"
        try:
            if kind := _boxless(item):
                boxless.setdefault(kind, []).append(called)
                continue
            image = _listed(images, item, "image_id", "file_name")
            name = str(_listed(categories, item, "category_id", "name")["name"])
            found.setdefault(_name(str(image["file_name"])), []).append(_coco_box(item["bbox"], name, image))
        except (ValueError, TypeError, AttributeError, OverflowError) as fault:
            raise VerydeepError(f"{path}, {called}: {_line(fault)}.") from None
    return found, [_skipped(path, boxless)] if boxless else []


def _by_id(path: Path, items: list[dict[str, Any]], name: str) -> dict[str, dict[str, Any]]:
    """Images or categories by their ids as text.

    Raises:
        VerydeepError: an id that stands for two of them.
    """
    found: dict[str, dict[str, Any]] = {}
    for item in items:
        before = found.setdefault(_id(item["id"]), item)
        if before.get(name) != item.get(name):
            raise VerydeepError(f"{path}: id {item['id']} is that of {before.get(name)} and of {item.get(name)}.")
    return found


def _id(value: Any) -> str:
    """An id as text: 7, 7.0 and "7" are one."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()


def _listed(items: dict[str, dict[str, Any]], annotation: dict[str, Any], key: str, name: str) -> dict[str, Any]:
    """The image or category that an annotation names; raises ValueError where there is none, or it has no name."""
    kinds = {"image_id": "images", "category_id": "categories"}
    if key not in annotation:
        raise ValueError(f"it has no {key}")
    item = items.get(_id(annotation[key]))
    if item is None:
        raise ValueError(f"{key} {annotation[key]!r} is not among the file's {kinds[key]}")
    if not isinstance(item.get(name), str | int) or not str(item[name]).strip():
        raise ValueError(f"its {key.removesuffix('_id')} {annotation[key]!r} has no {name}")
    return item


def _boxless(annotation: dict[str, Any]) -> str:
    """Why an annotation has no box of one thing; an empty text where it has one."""
    if str(annotation.get("iscrowd", 0)).lower() not in ("0", "none", "false", "", "0.0"):
        return "crowd"
    if annotation.get("bbox"):
        return ""
    return "segmentation alone" if annotation.get("segmentation") else "empty"


def _skipped(path: Path, boxless: dict[str, list[str]]) -> str:
    kinds = ", ".join(f"{len(those)} {kind}" for kind, those in boxless.items())
    several, first = sum(map(len, boxless.values())), next(iter(boxless.values()))[0]
    return f"{path}: {several} without a box, left out ({kinds}); the first is {first}"


def _coco_box(bbox: Any, name: str, image: dict[str, Any]) -> NamedBox:
    """A box of x, y, width and height in pixels from 0; raises ValueError or TypeError for another."""
    numbers = [float(value) for value in bbox] if isinstance(bbox, list) else []
    if len(numbers) != 4 or not all(abs(value) < LARGEST_SIZE for value in numbers):
        raise ValueError(f"bbox {str(bbox)[:60]} is not x, y, width, height in pixels")
    x1, y1, x2, y2 = xywh_to_xyxy(numbers).tolist()
    return NamedBox(name, (x1, y1, x2, y2), _size([image.get(side) for side in ("height", "width")]))


def _name(image: str) -> str:
    return str(PurePosixPath(image))


def _line(fault: BaseException) -> str:
    return (str(fault).splitlines() or [type(fault).__name__])[0][:120]


@dataclass(frozen=True)
class XmlBoxes:
    """Reads a photo's XML when it is asked for: the first that is there of some places below ``root``."""

    root: Path
    places: tuple[str, ...]

    def __call__(self, photo_id: str) -> list[NamedBox]:
        """Its boxes; none where there is no file. Raises VerydeepError for a broken one."""
        photo = Path(photo_id)
        for place in self.places:
            for file in (self.root / place / photo.parent.name / photo.stem, self.root / place / photo.stem):
                xml = file.with_name(f"{file.name}.xml")
                if xml.is_file():
                    return read_xml(xml)
        return []
