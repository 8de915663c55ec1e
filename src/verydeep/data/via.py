"""App. A, data: regions in the files of VIA 1 to 3 (VGG Image Annotator): JSON of annotations or a project, and CSV.

The class is the value of a region attribute: of that named as a class (``class``, ``label``, …), or else the only one.
A dropdown's value is the identifier of its option, a checkbox's a mapping with one ``true``. A project of VIA 3 has
``metadata``, each of a view, which has one image: ``xy`` is the number of a shape and its coordinates, ``av`` has a
value by the number of the attribute, of a choice the number of an option, or several with commas.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ..core.errors import VerydeepError, first_line
from ..core.files import read_text
from .tables import CLASS, IMAGE, Columns, read_table

PROJECT, SHAPE, ATTRIBUTES = "_via_img_metadata", "region_shape_attributes", "region_attributes"
RECTANGLE = "rect"
SIDES = ("x", "y", "width", "height")  # from 0, in pixels of the image
NONE_CHOSEN = ("", "undefined")
VIA_3 = ("file", "view", "metadata", "attribute")
SHAPES = dict(enumerate(("point", RECTANGLE, "circle", "ellipse", "line", "polyline", "polygon"), start=1))
CHOICES = (2, 3, 4)  # types of attributes with options: checkbox, radio, select
BY_ADDRESS = (2, 3)  # places of files whose ``src`` is the path
TABLE = Columns(
    names={
        "image": IMAGE,
        "shape": ((SHAPE.replace("_", ""),), ()),
        "attributes": ((ATTRIBUTES.replace("_", ""),), ()),
    },
    usual=("filename", SHAPE, ATTRIBUTES),
    least=3,
    is_row=lambda cells: any(cell.startswith("{") for cell in cells),
    optional=("shape", "attributes"),
)


class Region(NamedTuple):
    """A region: its image, its place in the file for messages, its shape and its attributes."""

    image: str
    which: str
    shape: dict[str, Any]
    attributes: dict[str, Any]


def is_via_table(path: Path) -> bool:
    """Whether a table is VIA's, by its first line; raises VerydeepError if it cannot be read."""
    return SHAPE in read_text(path).partition("\n")[0]


def is_via(content: Any) -> bool:
    """Whether the content of a JSON file is VIA's."""
    items = list(content.values()) if isinstance(content, dict) else []
    of_images = all(isinstance(item, dict) and {"filename", "regions"} <= set(item) for item in items)
    return bool(items) and (PROJECT in content or of_images or _is_via_3(content))


def _is_via_3(content: dict[str, Any]) -> bool:
    return all(isinstance(content.get(name), dict) for name in VIA_3)


def regions_in_table(path: Path) -> list[Region]:
    """The regions of a CSV file; images without one have an empty row."""
    regions = []
    for row in read_table(path, TABLE):
        shape, attributes = (_json(path, row.line, row.cells.get(kind, "")) for kind in ("shape", "attributes"))
        if shape:
            regions.append(Region(row.cells["image"], f"line {row.line}", shape, attributes))
    return regions


def _json(path: Path, line: int, cell: str) -> dict[str, Any]:
    try:
        value = json.loads(cell or "{}")
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise VerydeepError(f"{path}, line {line}: expected a JSON object, as VIA writes it, got {cell[:80]!r}.")
    return value


def regions_in(path: Path, content: dict[str, Any]) -> list[Region]:
    """The regions of a JSON file; raises VerydeepError if it is not as VIA writes it."""
    try:
        return list(_regions_of_3(content) if _is_via_3(content) else _regions(content.get(PROJECT, content)))
    except (TypeError, KeyError, AttributeError, ValueError) as fault:
        raise VerydeepError(f"{path} is not JSON as VIA writes it ({first_line(fault)}).") from None


def _regions(images: dict[str, Any]) -> Iterator[Region]:
    for item in images.values():
        image, regions = str(item["filename"]), item["regions"]
        numbered = regions.items() if isinstance(regions, dict) else enumerate(regions)  # VIA 1, VIA 2
        for number, region in numbered:
            yield Region(
                image,
                f"region {number} of {image}",
                dict(region["shape_attributes"]),
                dict(region["region_attributes"]),
            )


def _regions_of_3(content: dict[str, Any]) -> Iterator[Region]:
    """The regions of a project of VIA 3; metadata without a shape are of a whole image."""
    for number, item in content["metadata"].items():
        if item["xy"]:
            places = content["view"][str(item["vid"])]["fid_list"]
            if len(places) != 1:
                raise ValueError(f"the view of {number} has {len(places)} files, not one")
            file = content["file"][str(places[0])]
            image = str(file["src"] if file["loc"] in BY_ADDRESS else file["fname"])
            attributes = dict(_attribute_of_3(content["attribute"][name], value) for name, value in item["av"].items())
            yield Region(image, f"region {number} of {image}", _shape_of_3(item), attributes)


def _shape_of_3(item: dict[str, Any]) -> dict[str, Any]:
    """The shape of a region, as VIA 2 writes it; only a rectangle has its coordinates."""
    kind, *xy = item["xy"]
    name = "in a video" if item["z"] else SHAPES.get(kind, f"shape {kind}")
    if name != RECTANGLE:
        return {"name": name}
    if len(xy) != len(SIDES):
        raise ValueError(f"xy {str(item['xy'])[:60]} of a rectangle is not [2, x, y, width, height]")
    return {"name": name, **dict(zip(SIDES, xy, strict=True))}


def _attribute_of_3(attribute: dict[str, Any], value: Any) -> tuple[str, Any]:
    """An attribute's name and, of a choice, the chosen options as a mapping, as VIA 2 writes a checkbox."""
    if attribute["type"] not in CHOICES:
        return str(attribute["aname"]), value
    chosen = str(value).split(",")
    return str(attribute["aname"]), {str(attribute["options"].get(key, key)): True for key in chosen if key}


def class_attribute(path: Path, regions: Iterable[Region]) -> str:
    """The region attribute that is the class, empty if no region has attributes; VerydeepError if it is unclear."""
    names = sorted({name for region in regions for name in region.attributes})
    likely = [name for name in names if name.casefold() in CLASS[0]] or names
    if len(likely) > 1:
        raise VerydeepError(
            f"{path}: each of the region attributes {', '.join(likely)} may be the class: name only the one that is "
            "`class`."
        )
    return likely[0] if likely else ""


def class_of(value: Any) -> str:
    """An attribute's value as a class; empty if nothing, or more than one option, is chosen."""
    if isinstance(value, dict):
        chosen = [str(name) for name, is_chosen in value.items() if is_chosen is True]
        return chosen[0] if len(chosen) == 1 else ""
    text = str(value).strip() if isinstance(value, str | int) else ""
    return "" if text in NONE_CHOSEN else text
