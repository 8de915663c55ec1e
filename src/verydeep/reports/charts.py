"""Curves as SVG inside a page, drawn in its colours, with a legend and a text for those who do not see them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from .html import escaped

WIDTH, HEIGHT = 420, 250  # of the drawing; on a narrow screen its letters keep a size that can be read
LEFT, RIGHT, TOP, BOTTOM = 44, 10, 22, 40
HEIGHTS = 5  # steps of the upright axis, at most
STYLES = 8  # kinds of line that can be told apart; then they begin anew
MOST_DOTS = 30  # points of a line that are drawn as dots too


@dataclass(frozen=True)
class Line:
    """A curve: what it is called, and its points (x, y) in order of x."""

    name: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class _Plane:
    """From values to places on the drawing."""

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
) -> str:
    """A chart of lines with finite points, as a block of a page.

    Args:
        title: what is on the upright axis, with its unit.
        marks: places along x with a word each, drawn as dotted uprights.
        x_ticks: places along x and what stands there; by default round numbers.
        from_zero: whether the upright axis begins at 0.
    """
    points = [point for line in lines for point in line.points]
    if not points:
        return ""
    xs = [x for x, _ in points] + [x for x, _ in marks]
    plane = _Plane(_spread(xs), _heights([y for _, y in points], from_zero))
    ticks = _round_ticks(*plane.x, whole=True) if x_ticks is None else list(x_ticks)
    drawn = [*_axes(plane, ticks, x_label), *_uprights(plane, marks)]
    drawn += [_curve(plane, line, number) for number, line in enumerate(lines)]
    told = "; ".join(f"{line.name} from {line.points[0][1]:.4g} to {line.points[-1][1]:.4g}" for line in lines)
    box = f'viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escaped(f"{title} by {x_label}: {told}")}"'
    head = f'<text x="0" y="12">{escaped(title)}</text>'
    legend = "".join(_legend(number, line.name) for number, line in enumerate(lines))
    return f'<figure class="chart"><svg {box}>{head}{"".join(drawn)}</svg><ul class="legend">{legend}</ul></figure>'


def _spread(values: Sequence[float]) -> tuple[float, float]:
    """Least and most, apart."""
    least, most = min(values), max(values)
    return (least, most) if most > least else (least - 0.5, most + 0.5)


def _heights(values: Sequence[float], from_zero: bool) -> tuple[float, float]:
    """Where the upright axis begins and ends: at round values."""
    least, most = _spread([*values, 0.0] if from_zero else values)
    step = _step(most - least, HEIGHTS)
    return math.floor(least / step) * step, math.ceil(most / step) * step


def _step(reach: float, most: int) -> float:
    """A round distance of which at most so many and one lie in a reach."""
    size = 10.0 ** math.floor(math.log10(reach / most))
    return next(size * factor for factor in (1, 2, 5, 10, 20) if size * factor >= reach / most)


def _round_ticks(least: float, most: float, whole: bool = False) -> list[tuple[float, str]]:
    step = max(1.0, _step(most - least, 5)) if whole else _step(most - least, HEIGHTS)
    first = math.ceil(least / step - 1e-9)
    count = math.floor(most / step + 1e-9) - first + 1
    return [((first + number) * step, f"{(first + number) * step:.6g}") for number in range(count)]


def _axes(plane: _Plane, x_ticks: Sequence[tuple[float, str]], x_label: str) -> list[str]:
    drawn = []
    for value, text in _round_ticks(*plane.y):
        _, y = plane.at(plane.x[0], value)
        drawn.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>')
        drawn.append(f'<text x="{LEFT - 6}" y="{y + 4}" text-anchor="end">{text}</text>')
    for value, text in x_ticks:
        x, y = plane.at(value, plane.y[0])
        drawn.append(f'<text x="{x}" y="{y + 16}" text-anchor="middle">{escaped(text)}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    drawn.append(f'<text x="{middle}" y="{HEIGHT - 6}" text-anchor="middle">{escaped(x_label)}</text>')
    return drawn


def _uprights(plane: _Plane, marks: Sequence[tuple[float, str]]) -> list[str]:
    drawn, free = [], -math.inf
    for value, text in marks:
        x, bottom = plane.at(value, plane.y[0])
        drawn.append(f'<line class="drop" x1="{x}" x2="{x}" y1="{TOP}" y2="{bottom}"/>')
        if x >= free and text:  # words that would lie on one another are left out
            side = "end" if x > WIDTH - RIGHT - 6 * len(text) else "start"
            place = f'x="{x + (4 if side == "start" else -4)}" y="{TOP + 9}" text-anchor="{side}"'
            drawn.append(f"<text {place}>{escaped(text)}</text>")
            free = x + 7 * len(text)
    return drawn


def _curve(plane: _Plane, line: Line, number: int) -> str:
    places = [plane.at(x, y) for x, y in line.points]
    kind = f"s{number % STYLES}"
    path = " ".join(f"{x},{y}" for x, y in places)
    drawn = f'<polyline class="line {kind}" points="{path}"/>'
    if len(places) <= MOST_DOTS:
        drawn += "".join(f'<circle class="dot {kind}" cx="{x}" cy="{y}" r="2.5"/>' for x, y in places)
    return drawn


def _legend(number: int, name: str) -> str:
    kind = f"s{number % STYLES}"
    line = f'<line class="line {kind}" x1="0" x2="34" y1="6" y2="6"/>'
    return f'<li><svg viewBox="0 0 34 12" aria-hidden="true">{line}</svg>{escaped(name)}</li>'


def drops(log: Sequence[dict[str, float]]) -> list[tuple[float, str]]:
    """Where the learning rate of a log was lowered, between two epochs, and to what."""
    return [
        (before["epoch"] + 0.5, f"lr {row['lr']:.3g}")
        for before, row in itertools.pairwise(log)
        if row["lr"] < before["lr"]
    ]
