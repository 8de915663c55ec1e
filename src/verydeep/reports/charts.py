"""Line charts as inline SVG, in the page's colours, with a legend and a text alternative."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from ..evaluation.metrics import ReliabilityBin
from ..evaluation.rejection import RiskCoverage
from .html import render
from .run_reader import EpochRecord

WIDTH, HEIGHT = 420, 250  # small enough that text stays readable on a narrow screen
LEFT, RIGHT, TOP, BOTTOM = 44, 10, 22, 40  # margins
LETTER = 7  # maximum width of a letter
MOST_STEPS = 5  # between ticks of an axis
STYLES = 8  # line styles in report.css; further lines repeat them
MOST_DOTS = 30  # lines of more points are drawn without dots


@dataclass(frozen=True)
class Line:
    """A curve: its name, and its points (x, y) in order of x."""

    name: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class _Plane:
    """The ranges of both axes, and the map from values to positions in the drawing."""

    x: tuple[float, float]
    y: tuple[float, float]

    def at(self, x: float, y: float) -> tuple[float, float]:
        (x0, x1), (y0, y1) = self.x, self.y
        right = LEFT + (x - x0) / (x1 - x0) * (WIDTH - LEFT - RIGHT)
        return round(right, 1), round(HEIGHT - BOTTOM - (y - y0) / (y1 - y0) * (HEIGHT - TOP - BOTTOM), 1)


def line_chart(
    title: str,
    lines: Sequence[Line],
    x_label: str,
    marks: Sequence[tuple[float, str]] = (),
    x_ticks: Sequence[tuple[float, str]] | None = None,
    from_zero: bool = True,
) -> Markup:
    """A chart of lines with finite points, as HTML; empty without points.

    Args:
        title: what the y axis shows, with its unit.
        marks: values of x with labels, drawn as dotted vertical lines.
        x_ticks: values of x and their labels; round numbers by default.
        from_zero: whether the y axis starts at 0.
    """
    points = [point for line in lines for point in line.points]
    if not points:
        return Markup()
    xs = [x for x, _ in points] + [x for x, _ in marks]
    plane = _Plane(_spread(xs), _y_range([y for _, y in points], from_zero))
    ticks = _round_ticks(*plane.x, whole=True) if x_ticks is None else x_ticks
    ranges = "; ".join(f"{line.name} from {line.points[0][1]:.4g} to {line.points[-1][1]:.4g}" for line in lines)
    context = {
        "frame": (WIDTH, HEIGHT, LEFT, WIDTH - RIGHT, TOP, HEIGHT - BOTTOM),
        **{"title": title, "label": f"{title} by {x_label}: {ranges}", "x_label": x_label, "most_dots": MOST_DOTS},
        "y_ticks": [(plane.at(plane.x[0], value)[1], text) for value, text in _round_ticks(*plane.y)],
        "x_ticks": [(_inside(plane.at(value, plane.y[0])[0], text), text) for value, text in ticks],
        "marks": _placed_marks(plane, marks),
        "curves": [
            (line.name, f"s{number % STYLES}", [plane.at(x, y) for x, y in line.points])
            for number, line in enumerate(lines)
        ],
    }
    return render("chart.html", context)


def reliability_chart(parts: Sequence[Sequence[ReliabilityBin]]) -> Markup:
    """The reliability diagram of an evaluation: top-1 accuracy by confidence, and how many images have it.

    Args:
        parts: the bins of its posteriors and, where there is a temperature, of the calibrated ones.
    """
    lines = [Line("accuracy equal to confidence", ((0.0, 0.0), (100.0, 100.0)))]
    for bins, suffix in zip(parts, ("", ", calibrated"), strict=False):
        total = sum(row.images for row in bins)
        lines.append(Line(f"accuracy{suffix}", tuple((row.confidence, row.accuracy) for row in bins)))
        shares = tuple((row.confidence, 100 * row.images / total) for row in bins)
        lines.append(Line(f"share of images{suffix}", shares))
    return line_chart("% of images", lines, "confidence: posterior of the predicted class (%)")


def risk_chart(tested: RiskCoverage, chose: RiskCoverage | None) -> Markup:
    """The error among the images of the highest scores, by their share: of test and, if any, of calibrating images."""
    curves = {"these images": tested} | ({} if chose is None else {"the images that choose thresholds": chose})
    lines = [
        Line(name, tuple((100 * answered / curve[-1][1], 100 * wrong / answered) for _, answered, wrong in curve))
        for name, curve in curves.items()
    ]
    return line_chart("error among answered images (%)", lines, "images answered (%)")


def _spread(values: Sequence[float]) -> tuple[float, float]:
    """Minimum and maximum, moved apart where they are equal."""
    least, most = min(values), max(values)
    return (least, most) if most > least else (least - 0.5, most + 0.5)


def _y_range(values: Sequence[float], from_zero: bool) -> tuple[float, float]:
    """The limits of the y axis, at round values."""
    least, most = _spread([*values, 0.0] if from_zero else values)
    step = _step(most - least)
    return math.floor(least / step) * step, math.ceil(most / step) * step


def _step(reach: float) -> float:
    """A round distance between ticks that divides a range into about `MOST_STEPS`."""
    size = 10.0 ** math.floor(math.log10(reach / MOST_STEPS))
    return next(size * factor for factor in (1, 2, 5, 10, 20) if size * factor >= reach / MOST_STEPS)


def _round_ticks(least: float, most: float, whole: bool = False) -> list[tuple[float, str]]:
    step = max(1.0 if whole else 0.0, _step(most - least))
    first = math.ceil(least / step - 1e-9)
    count = math.floor(most / step + 1e-9) - first + 1
    return [((first + number) * step, f"{(first + number) * step:.6g}") for number in range(count)]


def _inside(x: float, text: str) -> float:
    """The centre of a label, moved left where it would be cut off at the right edge."""
    return min(x, WIDTH - LETTER * len(text) / 2)


def _placed_marks(plane: _Plane, marks: Sequence[tuple[float, str]]) -> list[tuple[float, str, float, str]]:
    """Of each mark x, label, the label's anchor and its end; labels that would overlap are left out."""
    placed, free = [], -math.inf
    for value, text in marks:
        x, _ = plane.at(value, plane.y[0])
        width = LETTER * len(text) + 4
        to_left = x + width > WIDTH - RIGHT
        begin = x - width if to_left else x
        placed.append((x, text if begin >= free else "", x - 4 if to_left else x + 4, "end" if to_left else "start"))
        if begin >= free:
            free = begin + width
    return placed


def drops(log: Sequence[EpochRecord]) -> list[tuple[float, str]]:
    """Learning-rate drops of a log: positions between two epochs, labelled with the new rate."""
    return [
        (before.epoch + 0.5, f"lr {epoch.lr:.3g}") for before, epoch in itertools.pairwise(log) if epoch.lr < before.lr
    ]
