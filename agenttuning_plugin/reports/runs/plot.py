"""SVG plots of figures against a swept key, with intervals."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources

from markupsafe import Markup

from agenttuning_plugin.reports.mix.svg import tag, text
from agenttuning_plugin.reports.runs.arms import ARM
from agenttuning_plugin.reports.runs.figures import Cell, Figure
from agenttuning_plugin.reports.runs.read import BASE
from agenttuning_plugin.reports.runs.table import RunTable

WIDTH, HEIGHT = 460, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 54, 16, 44, 46
_TILTED = 44
"""Further pixels below the plot for names of arms, which are tilted."""
_DODGE = 7  # pixels between series at one place
_COLOURS = 6  # classes s0 to s5 of plot.css
_MOST_LETTERS = 22


@dataclass(frozen=True, slots=True)
class Point:
    """An arm's place in a plot.

    Attributes:
        x: Value on the horizontal axis, or number of the name.
        name: Shown value.
        series: Number of its series.
        cell: The figure.
    """

    x: float
    name: str
    series: int
    cell: Cell


@dataclass(frozen=True, slots=True)
class Axis:
    """Linear map from [low, high] to pixels [start, end], with round ticks."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        """Return pixels."""
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)

    def ticks(self, wanted: int = 6) -> list[float]:
        """Return round numbers within the axis."""
        rough = (self.high - self.low) / wanted
        step = 10.0 ** math.floor(math.log10(rough))
        step *= next(factor for factor in (1, 2, 5, 10) if rough <= step * factor * (1 + 1e-9))
        first = math.ceil(self.low / step - 1e-9)
        return [round(n * step, 12) for n in range(first, math.floor(self.high / step + 1e-9) + 1)]


def plot(table: RunTable, figure: Figure) -> Markup:
    """Plot a figure against the first key: numbers on an axis, names side by side.

    Further keys are lines of their own. The base, if it is known, is a dashed line. Arms that are
    no combination of the keys' values have no place on the axis and are counted beside it.

    Args:
        table: The runs.
        figure: One of its figures.

    Returns:
        An SVG element; its colours are those of plot.css.
    """
    key, points, series, left_out = _points(table, figure)
    numeric = key != ARM and all(_is_number(point.name) for point in points)
    names = list(dict.fromkeys(point.name for point in points))
    scale = 100.0 if figure.percent else 1.0
    height = HEIGHT if numeric else HEIGHT + _TILTED
    base = next((c.mean for c in figure.cells if c.arm == BASE and c.mean), None)
    ends = [end for point in points for end in _ends(point.cell)] + ([base.value] if base else [])
    y = _y_axis([scale * end for end in ends])
    inside = [_described(table, figure, key)]
    for value in y.ticks():
        place = y.at(value)
        inside.append(tag("line", x1=_LEFT, x2=WIDTH - _RIGHT, y1=place, y2=place, class_="grid"))
        inside.append(text(f"{value:g}", _LEFT - 6, place + 4, "tick end"))
    x = _x_axis([point.x for point in points])
    inside += _x_labels(x, points, names, numeric=numeric)
    if base:
        place = y.at(scale * base.value)
        inside.append(tag("line", x1=_LEFT, x2=WIDTH - _RIGHT, y1=place, y2=place, class_="base"))
        inside.append(text(BASE, WIDTH - _RIGHT - 2, place - 4, "tick end"))
    for number in range(max(len(series), 1)):
        mine = [point for point in points if point.series == number and point.cell.mean]
        shift = _DODGE * (number - (len(series) - 1) / 2) if series else 0.0
        inside += _series(mine, number % _COLOURS, x, y, scale, shift, joined=numeric)
    inside += _legend(series)
    unit = ", %" if figure.percent else ""
    inside.append(text(f"{figure.title}{unit}", 4, 14, "title"))
    label = "" if key == ARM else key.rpartition(".")[2].replace("_", " ")
    if left_out:
        label += f" (not plotted: {left_out} other {'arm' if left_out == 1 else 'arms'})"
    inside.append(text(label, (WIDTH + _LEFT - _RIGHT) / 2, height - 8, "label middle"))
    return Markup('<svg viewBox="0 0 {} {}" class="runs" role="img">{}</svg>').format(
        WIDTH, height, Markup("").join(inside)
    )


def plot_file(table: RunTable, figures: Sequence[Figure], columns: int = 2) -> str:
    """Return figures side by side as one SVG document, light or dark as its reader prefers."""
    columns = min(columns, len(figures))
    drawn = [str(plot(table, figure)) for figure in figures]
    tall = max(
        HEIGHT if f'viewBox="0 0 {WIDTH} {HEIGHT}"' in one else HEIGHT + _TILTED for one in drawn
    )
    rows = -(-len(drawn) // columns)
    parts = [
        one.replace(
            "<svg ",
            f'<svg x="{WIDTH * (n % columns)}" y="{tall * (n // columns)}" width="{WIDTH}" '
            f'height="{tall}" preserveAspectRatio="xMidYMin" ',
            1,
        )
        for n, one in enumerate(drawn)
    ]
    size = f"{WIDTH * columns} {tall * rows}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size}">\n'
        f'<style>{style()}</style>\n<rect width="100%" height="100%" class="paper"/>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def style() -> str:
    """Return the style sheet of the plots."""
    return resources.files(__package__).joinpath("plot.css").read_text("utf-8")


def _points(table: RunTable, figure: Figure) -> tuple[str, list[Point], list[str], int]:
    """Return the key of the axis, the points, the names of the series, and arms left out."""
    arms = {arm.label: arm for arm in table.arms}
    drawn = [cell for cell in figure.cells if cell.arm in arms]
    keys = table.keys
    cells = [cell for cell in drawn if set(arms[cell.arm].values) == set(keys)]
    left_out = len(drawn) - len(cells)
    if not keys or (left_out and len({arms[cell.arm].values[keys[0]] for cell in cells}) < 2):
        return ARM, [Point(n, cell.arm, 0, cell) for n, cell in enumerate(drawn)], [], 0
    key, *others = keys
    named = {cell.arm: arms[cell.arm].values for cell in cells}
    series = {
        label: ", ".join(f"{other.rpartition('.')[2]} {values[other]}" for other in others)
        for label, values in named.items()
    }
    order = list(dict.fromkeys(series.values())) if others else []
    names = list(dict.fromkeys(values[key] for values in named.values()))
    numeric = all(map(_is_number, names))
    points = []
    for cell in cells:
        name = named[cell.arm][key]
        x = float(name) if numeric else float(names.index(name))
        points.append(Point(x, name, order.index(series[cell.arm]) if others else 0, cell))
    return key, points, order, left_out


def _series(
    points: Sequence[Point],
    colour: int,
    x: Axis,
    y: Axis,
    scale: float,
    shift: float,
    *,
    joined: bool,
) -> Iterator[Markup]:
    ordered = sorted(points, key=lambda point: point.x)
    places = [(x.at(p.x) + shift, p.cell.mean) for p in ordered if p.cell.mean]
    places = [(at, mean) for at, mean in places if math.isfinite(mean.value)]
    if joined and len(places) > 1:
        path = " ".join(f"{at:.1f},{y.at(scale * mean.value)}" for at, mean in places)
        yield tag("polyline", points=path, class_=f"line s{colour}")
    for at, mean in places:
        if math.isfinite(mean.low) and math.isfinite(mean.high):
            low, high = y.at(scale * mean.low), y.at(scale * mean.high)
            yield tag("line", x1=at, x2=at, y1=low, y2=high, class_=f"bar s{colour}")
            for end in (low, high):
                yield tag("line", x1=at - 3, x2=at + 3, y1=end, y2=end, class_=f"bar s{colour}")
        yield tag("circle", cx=at, cy=y.at(scale * mean.value), r=3.4, class_=f"dot s{colour}")


def _x_labels(
    axis: Axis, points: Sequence[Point], names: Sequence[str], *, numeric: bool
) -> Iterator[Markup]:
    floor = HEIGHT - _BOTTOM
    yield tag("line", x1=_LEFT, x2=WIDTH - _RIGHT, y1=floor, y2=floor, class_="axis")
    if numeric:
        values = sorted({point.x for point in points})
        for value in values if len(values) <= 8 else axis.ticks(8):
            yield text(f"{value:g}", axis.at(value), floor + 16, "tick middle")
        return
    for name in names:
        place = axis.at(next(point.x for point in points if point.name == name))
        short = name if len(name) <= _MOST_LETTERS else f"{name[: _MOST_LETTERS - 1]}…"
        yield Markup(
            '<text transform="translate({},{}) rotate(-28)" class="tick end">{}</text>'
        ).format(place + 4, floor + 14, short)


def _legend(series: Sequence[str]) -> Iterator[Markup]:
    x = float(_LEFT)
    for number, name in enumerate(series):
        short = name if len(name) <= _MOST_LETTERS + 8 else f"{name[: _MOST_LETTERS + 7]}…"
        yield tag("circle", cx=x + 4, cy=27, r=4, class_=f"dot s{number % _COLOURS}")
        yield text(short, x + 12, 31, "label")
        x += 26 + 6.2 * len(short)


def _described(table: RunTable, figure: Figure, key: str) -> Markup:
    from agenttuning_plugin.reports.runs.text import shown

    values = "; ".join(
        f"{cell.arm}: {shown(cell.mean, percent=figure.percent)}"
        for cell in figure.cells
        if cell.mean
    )
    title = f"{figure.title} by {re.sub('_', ' ', key.rpartition('.')[2])}"
    return Markup("<title>{}</title><desc>{}</desc>").format(title, values)


def _x_axis(values: Sequence[float]) -> Axis:
    low, high = min(values, default=0.0), max(values, default=1.0)
    margin = 0.08 * (high - low) or 0.5
    return Axis(low - margin, high + margin, _LEFT, WIDTH - _RIGHT)


def _y_axis(values: Sequence[float]) -> Axis:
    finite = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    low, high = min(finite), max(finite)
    margin = 0.08 * (high - low) or 0.1 * abs(high) or 1.0
    return Axis(low - margin, high + margin, HEIGHT - _BOTTOM, _TOP)


def _ends(cell: Cell) -> list[float]:
    mean = cell.mean
    return [mean.value, mean.low, mean.high] if mean else []


def _is_number(name: str) -> bool:
    try:
        return math.isfinite(float(name))
    except ValueError:
        return False
