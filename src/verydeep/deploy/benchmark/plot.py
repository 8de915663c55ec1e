"""A picture of measured speeds: a panel for each measurement, a bar for each contender."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...core.files import write_atomically

OURS, RIVAL = "#1f5fa8", "#b8b8b8"
WIDTH, BAR_HEIGHT, PANEL_HEIGHT = 8.0, 0.3, 0.9  # inches


def draw_rates(panels: Sequence[tuple[str, list[dict[str, Any]]]], path: Path) -> None:
    """Writes the picture as PNG.

    Args:
        panels: of each a title and its rows: name, images_per_second, least, most, and is_rival.

    Raises:
        VerydeepError: it cannot be written.
    """
    from matplotlib.figure import Figure

    heights = [PANEL_HEIGHT + BAR_HEIGHT * len(rows) for _, rows in panels]
    figure = Figure(figsize=(WIDTH, sum(heights)), layout="constrained")
    axes = figure.subplots(len(panels), squeeze=False, height_ratios=heights)[:, 0]
    for ax, (title, rows) in zip(axes, panels, strict=True):
        rates = [row["images_per_second"] for row in rows]
        below, above = (
            [abs(row[end] - rate) for row, rate in zip(rows, rates, strict=True)] for end in ("least", "most")
        )
        colours = [RIVAL if row["is_rival"] else OURS for row in rows]
        bars = ax.barh([row["name"].replace("$", r"\$") for row in rows], rates, xerr=[below, above], color=colours)
        ax.bar_label(bars, [f"{rate:.2f}" for rate in rates], padding=3)
        ax.invert_yaxis()
        ax.margins(x=0.15)
        ax.set_title(title, loc="left", fontsize="medium")
        ax.set_xlabel("images/s")
    write_atomically(path, lambda file: figure.savefig(file, dpi=110, format="png"))
