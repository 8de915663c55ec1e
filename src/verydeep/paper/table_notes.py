"""What the figures of a table's row are of, in words: nets of another size, a part of the classes, training steps."""

from __future__ import annotations

from typing import Any

from .scale import DOLL, PAPER_CROP


def other_sizes(row: dict[str, Any]) -> str:
    """The nets of a row that are not of the paper's size, which is no result of theirs; empty where all are."""
    nets = row.get("nets", {}) if row["size"] != DOLL.name else {}
    told = {
        f"{run.partition('/')[0]} of width {net['width']:g}, crop {net['crop']}"
        for run, net in nets.items()
        if (net["width"], net["crop"]) != (1, PAPER_CROP)
    }
    return "; ".join(sorted(told))


def classes_shown(row: dict[str, Any]) -> str:
    """How many of the nets' classes the photos show, where it is not all."""
    shown, classes = row.get("classes_shown"), row.get("classes")
    return f", which show {shown} of the nets' {classes} classes" if shown != classes else ""


def training_steps(found: list[dict[str, Any]]) -> str:
    """How many steps the nets of some rows were trained for."""
    steps = sorted({step for row in found for step in row["steps"]})
    if not steps:
        return ""
    told = f", nets of {steps[0]:,}" + (f" to {steps[-1]:,}" if len(steps) > 1 else "") + " steps"
    return told + (", cut short by --max-steps: no result" if any(row["cut_short"] for row in found) else "")
