"""The table `doll`: how the nets of doll size are trained, beside the paper's settings of the same runs."""

from __future__ import annotations

from typing import Any

from ..core.config import to_json
from ..core.settings import TrainSettings
from ..training.recipes import papers_start, settings_of_box_run, settings_of_run
from .plan import is_box_run
from .rows.row import experiment, runs_of
from .scale import DOLL, PAPER, Size

# The settings in which runs of doll size differ, besides S, crop and width.
SHOWN = ("initialise", "batch", "lr", "drop_at", "drops", "max_epochs")
HEADS = ("runs", "start", "initial weights", "batch", "learning rate", "divided by 10 after epoch", "epochs at most")


def recipe_rows() -> list[dict[str, Any]]:
    """The runs of Tables 3 to 10 by how they are trained: ``row``, ``runs``, ``start``, and settings of either size."""
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    for run in runs_of((*experiment("classification").rows, *experiment("localisation").rows)):
        doll, paper = (_shown(run, size) for size in (DOLL, PAPER))
        row = {"runs": [], "start": _start(run), "doll": doll, "paper": paper}
        rows.setdefault((row["start"], *map(str, (doll, paper))), row)["runs"].append(run)
    return [{"row": f"doll/{row['runs'][0]}", **row} for row in rows.values()]


def recipe_text() -> tuple[str, list[str], list[list[str]], str]:
    """The table as text: caption, column heads, cells, note."""
    lines = []
    for row in recipe_rows():
        cells = zip(_cells(row["doll"]), _cells(row["paper"]), strict=True)
        both = [doll if doll == paper else f"{doll} ({paper})" for doll, paper in cells]
        lines.append([", ".join(row["runs"]), row["start"], *both])
    net = settings_of_run("A/256", DOLL.settings("A/256"))
    note = (
        f"Crops of {net.crop} pixels ({PAPER.crop}), nets of {net.width:g} of the width. In parentheses: the paper's, "
        "where it differs. Everything else is as at the paper's size."
    )
    return "How the nets of doll size are trained", list(HEADS), lines, note


def _settings(run: str, size: Size) -> TrainSettings:
    given = size.settings(run)
    return settings_of_box_run(run, given)[0] if is_box_run(run) else settings_of_run(run, given)


def _shown(run: str, size: Size) -> dict[str, Any]:
    settings = to_json(_settings(run, size))
    return {name: settings[name] for name in SHOWN}


def _start(run: str) -> str:
    start = papers_start(run)
    if is_box_run(run):
        return "the classification run of this S"
    if start is None:
        return "random weights"
    return start if start == "A/256" else "the net's previous run"


def _cells(shown: dict[str, Any]) -> list[str]:
    drops = ", ".join(map(str, shown["drop_at"])) or f"{shown['drops']} plateaus"
    return [shown["initialise"], *(f"{shown[name]:g}" for name in ("batch", "lr")), drops, str(shown["max_epochs"])]
