"""App. A, data: the files people keep boxes in: VOC's XML (ILSVRC's too), CSV, COCO's JSON.

VOC's, ILSVRC's and CSV's coordinates are ``inclusive`` pixels, counted from 1; COCO's are ``xywh``. Boxes come
out as the file tells them, faults and all, in the house's ``xyxy``; `verydeep.data.located` mends or refuses.
"""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from xml.etree import ElementTree

from ..boxes import inclusive_to_xyxy, xywh_to_xyxy
from ..errors import VerydeepError
from ..files import check_text
from .sets import NamedBox

COLUMNS = ("image", "xmin", "ymin", "xmax", "ymax", "class")
LARGEST_SIZE = 1e6  # pixels: a side that a file may declare
LARGEST_XML = 2**20  # bytes of one photo's annotation; ten thousand boxes take less
ByImage = dict[str, list[NamedBox]]


def read_boxes(path: Path) -> tuple[ByImage, list[str]]:
    """The boxes of a file (``.csv``, ``.json``) or of a folder of XML files, by the image's name in it.

    An XML file is of the image of its own name, which is told without an extension. Those of a folder that are broken
    are told apart.

    Raises:
        VerydeepError: no such file, another kind of file, a line or entry that is no box.
    """
    broken: list[str] = []
    if path.is_dir():
        found, broken = _read_folder(path)
    elif path.suffix.lower() == ".csv":
        found = _read_csv(path)
    elif path.suffix.lower() == ".json":
        found = _read_coco(path)
    else:
        what = "is neither a folder of XML files nor a .csv or .json file" if path.exists() else "does not exist"
        raise VerydeepError(f"boxes {path} {what}: give PASCAL VOC's XML, {','.join(COLUMNS)} rows, or COCO's JSON.")
    if not found:
        told = f"; of its {len(broken)} XML files none can be read, the first: {broken[0]}" if broken else ""
        raise VerydeepError(f"{path} holds no boxes{told}.")
    return found, broken


def _read_folder(path: Path) -> tuple[ByImage, list[str]]:
    found: ByImage = {}
    broken = []
    for file in sorted(path.rglob("*.[xX][mM][lL]")):
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
    return NamedBox(name, (across[0], down[0], across[1], down[1]), size)


def _read_csv(path: Path) -> ByImage:
    """Rows of ``image,xmin,ymin,xmax,ymax,class``; a first row that names the columns is passed over."""
    found: ByImage = {}
    number = 0
    try:
        with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
            for number, row in enumerate(csv.reader(file), start=1):
                cells = [cell.strip() for cell in row]
                if not any(cells) or (number == 1 and cells[1:2] in (["xmin"], ["XMin"])):
                    continue
                if len(cells) != 6 or not cells[0] or not cells[5]:
                    raise ValueError("not six cells")
                image, *corners, name = cells
                found.setdefault(_posix(image), []).append(_inclusive(name, [float(value) for value in corners]))
    except OSError as fault:
        raise VerydeepError(f"cannot read {path}: {fault.strerror or fault}.") from None
    except (ValueError, OverflowError, csv.Error) as fault:
        raise VerydeepError(f"{path}, line {number}: give {','.join(COLUMNS)} ({_line(fault)}).") from None
    return found


def _read_coco(path: Path) -> ByImage:
    """COCO's ``images``, ``annotations`` (``bbox`` as xywh) and ``categories``; crowds are left out."""
    try:
        told = json.loads(path.read_text(encoding="utf-8-sig", errors="surrogateescape"))
        images = {item["id"]: item for item in told["images"]}
        names = {item["id"]: str(item["name"]) for item in told["categories"]}
        found: ByImage = {}
        for item in told["annotations"]:
            if not item.get("iscrowd"):
                image = images[item["image_id"]]
                box = _coco_box(item["bbox"], names[item["category_id"]], image)
                check_text(box.name, str(image["file_name"]))
                found.setdefault(_posix(str(image["file_name"])), []).append(box)
        return found
    except OSError as fault:
        raise VerydeepError(f"cannot read {path}: {fault.strerror or fault}.") from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError) as fault:
        raise VerydeepError(f"{path} is not COCO's JSON of images, annotations, categories ({_line(fault)}).") from None


def _coco_box(bbox: Any, name: str, image: dict[str, Any]) -> NamedBox:
    x, y, w, h = (float(value) for value in bbox)
    if not all(abs(value) < LARGEST_SIZE for value in (x, y, w, h)):
        raise ValueError("a bbox that no photo has")
    x1, y1, x2, y2 = xywh_to_xyxy([x, y, w, h]).tolist()
    return NamedBox(name, (x1, y1, x2, y2), _size([image.get(side) for side in ("height", "width")]))


def _posix(name: str) -> str:
    return str(PurePosixPath(name.replace("\\", "/")))


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
