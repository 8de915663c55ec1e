"""App. B: several folders of linear SVMs side by side, on one page: figures, the choice of C, what differs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .charts import Line, line_chart
from .comparison import labels_of
from .html import counted, headline, section, table, write_page
from .run_reader import short_name
from .svm_report import FIGURE_NAMES, ticks_of_c

SHOWN = ("layer", "pool", "mirror", "width", "crop", "scales")


Folder = tuple[Path, dict[str, Any]]  # of SVMs, and what its ``result.json`` holds


def why_not_comparable_svms(first: Folder, other: Folder) -> str | None:
    """The sentence for SVMs of different protocols or photos; None for others."""
    keys = [(told["protocol"], told["data"], told["classes"]) for _, told in (first, other)]
    if keys[0] == keys[1]:
        return None
    of = " and ".join(f"{key[0]} of {key[1]} with {key[2]} classes" for key in keys[::-1])
    return f"{other[0]} is of other data than {first[0]} ({of}): compare SVMs of one protocol and the same photos."


def write_svm_comparison(folders: Sequence[Path], told: Sequence[dict[str, Any]], path: Path) -> dict[str, Any]:
    """Writes the page of what comparable ``result.json`` hold; returns ``svms``, a row each, as JSON values.

    Raises:
        VerydeepError: the page cannot be written.
    """
    first = told[0]
    names = labels_of(folders)
    title = f"{counted(len(told), 'linear SVM')} on {short_name(first['data'])}"
    blocks = [headline(title, "", f"{first['protocol']}, {first['classes']} classes.", [])]
    blocks += [section("Side by side", _table(told, names)), *_curves(told, names)]
    write_page(path, title, blocks)
    return {"svms": [_row(one, folder) for one, folder in zip(told, folders, strict=True)]}


def _row(told: dict[str, Any], folder: Path) -> dict[str, Any]:
    name = told["figure"]
    figures = {key: told[key] for key in (name, f"{name}_std", "top1_error", "top1_error_std")}
    nets = [{"net": one["net"], **{key: one.get(key) for key in SHOWN}} for one in told["features"]]
    ways = {key: told[key] for key in ("aggregate", "loss", "dimensions")}
    return {"folder": str(folder), "features": nets, **ways, "C": [split["C"] for split in told["splits"]], **figures}


def _table(told: Sequence[dict[str, Any]], names: list[str]) -> str:
    figure = told[0]["figure"]
    rows = []
    for one, name in zip(told, names, strict=True):
        described = "; ".join(
            f"{net['net']} {net['layer']}, Q = {', '.join(map(str, net['scales']))}" for net in one["features"]
        )
        chosen = ", ".join(dict.fromkeys(f"{split['C']:g}" for split in one["splits"]))
        rows.append(
            (
                *(name, described, one["aggregate"], one["loss"], f"{one['dimensions']:,}", chosen),
                *(_spread(one, figure), _spread(one, "top1_error")),
            )
        )
    heads = ["SVMs", "descriptors", "scales", "loss", "dimensions", "C", FIGURE_NAMES[figure], "top-1 error"]
    return table("Mean over splits, with the standard deviation", heads, rows)


def _spread(told: dict[str, Any], name: str) -> str:
    if told[name] is None:
        return ""
    more = "" if told[f"{name}_std"] is None else f" ± {told[f'{name}_std']:.2f}"
    return f"{told[name]:.2f}{more} %"


def _curves(told: Sequence[dict[str, Any]], names: list[str]) -> list[str]:
    """The dev part's figure by C on the first split of each."""
    tried = [one["splits"][0]["dev"] for one in told]
    values = sorted({value for dev in tried for value in dev}, key=float)
    place = {value: float(number) for number, value in enumerate(values)}
    lines = [
        Line(name, tuple((place[value], dev[value]) for value in sorted(dev, key=float)))
        for name, dev in zip(names, tried, strict=True)
        if dev
    ]
    title = f"{FIGURE_NAMES[told[0]['figure']]} (%)"
    chart = line_chart(title, lines, "C", x_ticks=ticks_of_c(values), from_zero=False)
    return [section("The choice of C, first split", chart)] if chart else []
