"""App. A, data: annotation files with boxes: PASCAL VOC XML (ILSVRC's too), CSV, COCO JSON, VIA's, YOLO's.

Corners in XML and tables are ``inclusive`` pixels, counted from 1, in ILSVRC's own XML from 0; COCO's and VIA's boxes,
and those of tables with widths, are ``xywh``; YOLO's are ``cxcywh`` in fractions of the image's sides. Boxes are
returned as ``xyxy`` but otherwise as they are in the file; `verydeep.data.box_targets` checks them.
"""

from __future__ import annotations

import contextlib
import json
import math
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any
from xml.etree import ElementTree

from ..core.errors import VerydeepError, first_line
from ..core.files import check_text, read_text
from .boxes import inclusive_to_xyxy, xywh_to_xyxy
from .dataset import NamedBox
from .tables import CLASS, DELIMITERS, IMAGE, Columns, Row, read_table
from .via import RECTANGLE, Region, class_attribute, class_of, is_via, is_via_table, regions_in, regions_in_table
from .via import SIDES as VIA_SIDES
from .walk import Skipped, files_below, of_extension
from .yolo import MOST_NORMALISED, read_yolo

COLUMNS = ("image", "xmin", "ymin", "xmax", "ymax", "class")
LARGEST_SIZE = 1e6  # pixels of a side
LARGEST_XML = 2**20  # bytes of one image's annotation; ten thousand boxes take less
ByImage = dict[str, list[NamedBox]]
MOST_SWAPPED = 0.2  # share of a table's boxes; if more corners are swapped, the columns are
CORNERS, SIDES, CENTRE = "corners", "x, y and sides", "centre and sides"


def _forms(corners: tuple[str, ...], sides: tuple[str, ...] = ("",)) -> tuple[tuple[str, ...], ...]:
    """The names of four columns, also with the prefixes ``bbox`` and ``box``."""
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
    """Reads the boxes of a file (``.csv``, ``.tsv``, ``.json``), or a folder of XML files or else of YOLO's.

    Returns:
        The boxes by the image's name, for a folder the file's name without extension; the files of a folder that are
        broken; messages about annotations without a box (crowds, segmentation only, empty ones).

    Raises:
        VerydeepError: no such file, an unreadable folder, another kind of file, an invalid line or entry.
    """
    broken: list[str] = []
    skipped: list[str] = []
    if path.is_dir():
        boxes, broken, skipped = _read_folder(path)
    elif path.suffix.lower() in DELIMITERS:
        boxes, skipped = _read_via(path, regions_in_table(path)) if is_via_table(path) else (_read_table(path), [])
    elif path.suffix.lower() == ".json":
        boxes, skipped = _read_json(path)
    else:
        what = "is neither a folder of XML files nor a .csv, .tsv or .json file" if path.exists() else "does not exist"
        raise VerydeepError(
            f"boxes {path} {what}: use PASCAL VOC XML, YOLO's label files, rows of {','.join(COLUMNS)}, COCO JSON, or "
            "VIA's JSON or CSV."
        )
    if not boxes:
        unreadable = f"; none of its {len(broken)} files can be read, the first is {broken[0]}" if broken else ""
        raise VerydeepError(f"{path} contains no boxes{unreadable}{'; '.join(['', *skipped])}.")
    return boxes, broken, skipped


def _read_folder(path: Path) -> tuple[ByImage, list[str], list[str]]:
    files = files_below(path, Skipped(str(path)), of_extension(".xml"))
    if not files:
        boxes, broken, boxless = read_yolo(path)
        return boxes, broken, _skipped(path, boxless)
    boxes, broken = {}, []
    for file in files:
        try:
            boxes[str(PurePosixPath(file.relative_to(path).with_suffix("")))] = read_xml(file)
        except VerydeepError:
            broken.append(str(file))
    return boxes, broken, []


def read_xml(path: Path, first: int = 1) -> list[NamedBox]:
    """Reads the objects of a PASCAL VOC XML file.

    Args:
        first: the number of an image's first row and column.

    Raises:
        VerydeepError: broken, or an object without a name or four numbers.
    """
    try:
        if path.stat().st_size > LARGEST_XML:
            raise ValueError(f"it has more than {LARGEST_XML:,} bytes")
        root = ElementTree.parse(path).getroot()
        size = _size([root.findtext(f"size/{name}") for name in ("height", "width")])
        return [_xml_box(item, size, first) for item in root.iter("object")]
    except (OSError, ElementTree.ParseError, TypeError, ValueError, LookupError, OverflowError) as fault:
        raise VerydeepError(f"{path} is not a PASCAL VOC XML annotation, or corrupted ({first_line(fault)}).") from None


def _size(sides: list[Any]) -> tuple[int, int] | None:
    """Height and width; None if they are missing or invalid."""
    numbers = [float(value or 0) for value in sides]
    if not all(1 <= number < LARGEST_SIZE for number in numbers):
        return None
    return int(numbers[0]), int(numbers[1])


def _xml_box(item: ElementTree.Element, size: tuple[int, int] | None, first: int) -> NamedBox:
    name = (item.findtext("name") or "").strip()
    corners = [float(item.findtext(f"bndbox/{side}") or "") for side in COLUMNS[1:5]]
    if not name:
        raise ValueError("an object without a name")
    return _inclusive(name, corners, size, first)


def _inclusive(name: str, corners: list[float], size: tuple[int, int] | None = None, first: int = 1) -> NamedBox:
    """A box from first and last pixels; swapped corners stay swapped, so that they can be reported.

    ``first`` is the number of an image's first row and column.
    """
    if not all(abs(value) < LARGEST_SIZE for value in corners):
        raise ValueError("a coordinate outside any image")
    x1, x2, y1, y2 = corners[0], corners[2], corners[1], corners[3]
    pixels = [value + 1 - first for value in (min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2))]
    left, top, right, bottom = inclusive_to_xyxy(pixels).tolist()
    across = (left, right) if x1 <= x2 else (right, left)
    down = (top, bottom) if y1 <= y2 else (bottom, top)
    return NamedBox(
        name, (across[0], down[0], across[1], down[1]), size, (corners[0], corners[1], corners[2], corners[3])
    )


def _read_table(path: Path) -> ByImage:
    """Rows of an image, its box and its class, by the names of the columns, or in the order of `COLUMNS`."""
    by_image: ByImage = {}
    rows = read_table(path, BOXES)
    for row in rows:
        if not all(abs(value) < LARGEST_SIZE for value in row.numbers):
            raise VerydeepError(f"{path}, line {row.line}: {max(row.numbers, key=abs):g} is outside any image.")
        by_image.setdefault(_name(row.cells["image"]), []).append(_box(row))
    if rows and all(abs(value) < MOST_NORMALISED for row in rows for value in row.numbers):
        raise VerydeepError(
            f"{path} has normalised boxes, from 0 to 1: convert them to pixels, x times the image's width, "
            "y times its height."
        )
    boxes = [box for several in by_image.values() for box in several]
    swapped = sum(box.swapped for box in boxes)
    if swapped > MOST_SWAPPED * len(boxes):
        raise VerydeepError(
            f"{path}: {swapped} of {len(boxes)} boxes have swapped corners, so the columns may be in another order: "
            f"add a header that names them ({BOXES.accepted()}), or write them as {','.join(COLUMNS)}."
        )
    if not all(map(_fits, boxes)):  # width and height are not those of the image
        return {image: [replace(box, size=None) for box in several] for image, several in by_image.items()}
    return by_image


def _box(row: Row) -> NamedBox:
    """A row's box, with the image's size if the row has one."""
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
    """Whether a box lies within its image's size."""
    height, width = box.size or (math.inf, math.inf)
    return max(box.xyxy[0::2]) <= width + 1 and max(box.xyxy[1::2]) <= height + 1


def _is_number(cell: str) -> bool:
    with contextlib.suppress(ValueError):
        float(cell.replace(",", "."))
        return True
    return False


def _read_json(path: Path) -> tuple[ByImage, list[str]]:
    """The boxes of COCO's or VIA's JSON, and a message on annotations without one."""
    try:
        content = json.loads(read_text(path))
    except (ValueError, RecursionError) as fault:
        raise VerydeepError(_not_coco(path, fault)) from None
    return _read_via(path, regions_in(path, content)) if is_via(content) else _read_coco(path, content)


def _not_coco(path: Path, fault: Exception) -> str:
    return f"{path} is not COCO JSON with images, annotations and categories, nor VIA's ({first_line(fault)})."


def _read_coco(path: Path, content: Any) -> tuple[ByImage, list[str]]:
    """The boxes of COCO's ``images``, ``annotations`` and ``categories``, and a message on annotations without one."""
    try:
        images, categories = _by_id(path, content["images"], "file_name"), _by_id(path, content["categories"], "name")
        annotations = list(enumerate(content["annotations"], start=1))
        check_text(*(str(item.get("name")) for item in categories.values()))
        check_text(*(str(item.get("file_name")) for item in images.values()))
    except (ValueError, TypeError, KeyError, AttributeError) as fault:
        raise VerydeepError(_not_coco(path, fault)) from None
    by_image: ByImage = {}
    boxless: dict[str, list[str]] = {}
    for number, item in annotations:
        which = f"annotation {item['id']}" if isinstance(item, dict) and "id" in item else f"annotation no. {number}"
        try:
            if reason := _without_box(item):
                boxless.setdefault(reason, []).append(which)
                continue
            image = _entry(images, item, "image_id", "file_name")
            name = str(_entry(categories, item, "category_id", "name")["name"])
            by_image.setdefault(_name(str(image["file_name"])), []).append(_xywh_box(item["bbox"], name, image))
        except (ValueError, TypeError, AttributeError, OverflowError) as fault:
            raise VerydeepError(f"{path}, {which}: {first_line(fault)}.") from None
    return by_image, _skipped(path, boxless)


def _by_id(path: Path, items: list[dict[str, Any]], name: str) -> dict[str, dict[str, Any]]:
    """Images or categories by their ids; raises VerydeepError if two share an id."""
    by_id: dict[str, dict[str, Any]] = {}
    for item in items:
        earlier = by_id.setdefault(_id(item["id"]), item)
        if earlier.get(name) != item.get(name):
            raise VerydeepError(f"{path}: {earlier.get(name)} and {item.get(name)} share the id {item['id']}.")
    return by_id


def _id(value: Any) -> str:
    """An id as text: 7, 7.0 and "7" are equal."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()


def _entry(items: dict[str, dict[str, Any]], annotation: dict[str, Any], key: str, name: str) -> dict[str, Any]:
    """The image or category of an annotation; raises ValueError if it is missing or has no name."""
    if key not in annotation:
        raise ValueError(f"it has no {key}")
    item = items.get(_id(annotation[key]))
    if item is None:
        kinds = {"image_id": "images", "category_id": "categories"}
        raise ValueError(f"{key} {annotation[key]!r} is not among the file's {kinds[key]}")
    if not isinstance(item.get(name), str | int) or not str(item[name]).strip():
        raise ValueError(f"its {key.removesuffix('_id')} {annotation[key]!r} has no {name}")
    return item


def _without_box(annotation: dict[str, Any]) -> str:
    """Why an annotation has no box of a single object; empty if it has one."""
    if str(annotation.get("iscrowd", 0)).lower() not in ("0", "none", "false", "", "0.0"):
        return "crowd"
    if annotation.get("bbox"):
        return ""
    return "segmentation only" if annotation.get("segmentation") else "empty"


def _skipped(path: Path, boxless: dict[str, list[str]]) -> list[str]:
    """The message on annotations without a box, if there are any."""
    if not boxless:
        return []
    reasons = ", ".join(f"{len(annotations)} {reason}" for reason, annotations in boxless.items())
    first = next(iter(boxless.values()))[0]
    return [f"{path}: annotations without a box are skipped: {reasons}; the first is {first}"]


def _xywh_box(bbox: Any, name: str, image: dict[str, Any]) -> NamedBox:
    """A box from x, y, width and height in pixels; raises ValueError or TypeError if it is invalid."""
    numbers = [float(value) for value in bbox] if isinstance(bbox, list) else []
    if len(numbers) != 4 or not all(abs(value) < LARGEST_SIZE for value in numbers):
        raise ValueError(f"bbox {str(bbox)[:60]} is not x, y, width, height in pixels")
    x1, y1, x2, y2 = xywh_to_xyxy(numbers).tolist()
    return NamedBox(name, (x1, y1, x2, y2), _size([image.get(side) for side in ("height", "width")]))


def _read_via(path: Path, regions: list[Region]) -> tuple[ByImage, list[str]]:
    """The boxes of VIA's rectangles, and a message on other shapes and on those without a class."""
    by_image: ByImage = {}
    boxless: dict[str, list[str]] = {}
    attribute = class_attribute(path, regions)
    for region in regions:
        shape, name = str(region.shape.get("name", "no shape")), class_of(region.attributes.get(attribute))
        if shape != RECTANGLE or not name:
            boxless.setdefault(shape if shape != RECTANGLE else "without a class", []).append(region.which)
            continue
        try:
            check_text(name, region.image)
            box = _xywh_box([region.shape.get(side) for side in VIA_SIDES], name, {})
        except (ValueError, TypeError, OverflowError) as fault:
            raise VerydeepError(f"{path}, {region.which}: {first_line(fault)}.") from None
        by_image.setdefault(_name(region.image), []).append(box)
    return by_image, _skipped(path, boxless)


def _name(image: str) -> str:
    return str(PurePosixPath(image))


@dataclass(frozen=True)
class XmlBoxes:
    """Reads an image's XML file of ILSVRC on request, from the first of several folders below ``root`` that has it.

    Their pixels count from 0: of the 80,477 boxes of the validation images 7,388 begin in column 0, and none ends in a
    column of the number of the image's width.
    """

    root: Path
    places: tuple[str, ...]

    def __call__(self, photo_id: str) -> list[NamedBox]:
        """The image's boxes, empty without a file; raises VerydeepError if it is broken."""
        image = Path(photo_id)
        for place in self.places:
            for file in (self.root / place / image.parent.name / image.stem, self.root / place / image.stem):
                xml = file.with_name(f"{file.name}.xml")
                if xml.is_file():
                    return read_xml(xml, first=0)
        return []
