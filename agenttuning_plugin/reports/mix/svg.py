"""Inline SVG plots, with text, titles and colours from the page's style."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup, escape

WIDTH, HEIGHT = 640, 280
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 24, 30, 46

Series = Mapping[str, Sequence[float]]
"""Values by name; the name is also the CSS class and the legend."""


@dataclass(frozen=True)
class Axes:
    """Plot area: maps data coordinates to pixels.

    Attributes:
        x_max: Largest value of the horizontal axis, which begins at 0.
        y_max: The same of the vertical axis.
    """

    x_max: float
    y_max: float

    def x(self, value: float) -> float:
        """Return pixels from the left."""
        return round(_LEFT + value / self.x_max * (WIDTH - _LEFT - _RIGHT), 2)

    def y(self, value: float) -> float:
        """Return pixels from the top."""
        return round(HEIGHT - _BOTTOM - value / self.y_max * (HEIGHT - _TOP - _BOTTOM), 2)


def histogram(
    title: str, x_label: str, edges: Sequence[float], series: Series, mark: tuple[float, str] | None
) -> Markup:
    """Plot histograms of rows, one stepped area per series.

    Args:
        title: Title.
        x_label: Name and unit of the number.
        edges: (B + 1,) edges of the bins, from 0.
        series: (B,) numbers of rows each; drawn as percentages of their sum.
        mark: A value to mark by a line, and its label.
    """
    shares = {
        name: [100 * v / max(1, sum(values)) for v in values] for name, values in series.items()
    }
    axes = Axes(max(edges[-1], mark[0] if mark else 1), _ceiling(shares))
    parts = []
    for name, values in shares.items():
        points = [f"{axes.x(edges[0])},{axes.y(0)}"]
        for number, value in enumerate(values):
            points += [f"{axes.x(edge)},{axes.y(value)}" for edge in edges[number : number + 2]]
        points.append(f"{axes.x(edges[-1])},{axes.y(0)}")
        parts.append(tag("polygon", points=" ".join(points), class_=f"area {name}"))
    if mark is not None:
        x = axes.x(mark[0])
        parts.append(tag("line", x1=x, x2=x, y1=_TOP, y2=axes.y(0), class_="mark"))
        parts.append(text(mark[1], x - 5, _TOP + 10, "mark end"))
    described = "; ".join(f"{name}: most rows from {_mode(edges, v)}" for name, v in series.items())
    return _plot(title, x_label, "share of rows, %", axes, parts, list(series), described)


def lines(
    title: str,
    x_label: str,
    starts: Sequence[float],
    end: float,
    series: Series,
    wanted: Sequence[tuple[float, float]],
) -> Markup:
    """Plot shares over a run, in windows, with the requested ones dashed.

    Args:
        title: Title.
        x_label: Name and unit of the horizontal axis.
        starts: (W,) where windows begin, from 0.
        end: Where the last window ends.
        series: (W,) shares in [0, 1] each; drawn as percentages.
        wanted: Start and share of each stage.
    """
    percent = {name: [100 * value for value in values] for name, values in series.items()}
    stages = [(start, 100 * share) for start, share in wanted if start < end]
    axes = Axes(end, min(100, _ceiling({**percent, "wanted": [share for _, share in stages]})))
    borders = [*starts, end]
    parts = []
    for name, values in percent.items():
        middles = [(a + b) / 2 for a, b in pairwise(borders)]
        points = " ".join(f"{axes.x(x)},{axes.y(y)}" for x, y in zip(middles, values, strict=True))
        parts.append(tag("polyline", points=points, class_=f"line {name}"))
        if len(values) == 1:
            parts.append(
                tag("circle", cx=axes.x(middles[0]), cy=axes.y(values[0]), r=3, class_=name)
            )
    stops = [start for start, _ in stages[1:]] + [end]
    for (start, share), stop in zip(stages, stops, strict=True):
        y = axes.y(share)
        parts.append(tag("line", x1=axes.x(start), x2=axes.x(stop), y1=y, y2=y, class_="wanted"))
    described = "; ".join(
        f"{name.replace('_', ' ')}: {min(v):.1f} to {max(v):.1f} %" for name, v in percent.items()
    )
    return _plot(title, x_label, "agent data, %", axes, parts, [*series, "wanted"], described)


def bars(
    title: str, x_label: str, labels: Sequence[str], values: Sequence[float], name: str
) -> Markup:
    """Plot numbers by label.

    Args:
        title: Title.
        x_label: Meaning of the labels.
        labels: One for each bar.
        values: Heights, in rows.
        name: CSS class of the bars.
    """
    axes = Axes(len(labels) or 1, _ceiling({name: values}))
    parts = []
    for number, (label, value) in enumerate(zip(labels, values, strict=True)):
        left, right = axes.x(number + 0.12), axes.x(number + 0.88)
        top = axes.y(value)
        parts.append(
            tag("rect", x=left, y=top, width=round(right - left, 2),
                 height=round(axes.y(0) - top, 2), class_=f"bar {name}")
        )  # fmt: skip
        middle = (left + right) / 2
        parts.append(text(label, middle, axes.y(0) + 14, "tick middle"))
        parts.append(text(f"{value:,.0f}", middle, top - 4, "tick middle"))
    pairs = zip(labels, values, strict=True)
    described = "; ".join(f"{label}: {value:,.0f} rows" for label, value in pairs)
    return _plot(title, x_label, "rows", axes, parts, [], described, x_ticks=False)


def _plot(
    title: str,
    x_label: str,
    y_label: str,
    axes: Axes,
    parts: Sequence[Markup],
    legend: Sequence[str],
    described: str,
    x_ticks: bool = True,
) -> Markup:
    name = re.sub(r"\W+", "-", title.lower())
    inside = [
        Markup('<title id="{0}-title">{1}</title><desc id="{0}-desc">{2}</desc>').format(
            name, title, f"{x_label} against {y_label}. {described}"
        )
    ]
    for value in ticks(axes.y_max):
        y = axes.y(value)
        inside.append(tag("line", x1=_LEFT, x2=WIDTH - _RIGHT, y1=y, y2=y, class_="grid"))
        inside.append(text(_number(value), _LEFT - 6, y + 4, "tick end"))
    for value in ticks(axes.x_max, 8) if x_ticks else ():
        inside.append(text(_number(value), axes.x(value), axes.y(0) + 15, "tick middle"))
    inside += parts
    base = axes.y(0)
    inside.append(tag("line", x1=_LEFT, x2=WIDTH - _RIGHT, y1=base, y2=base, class_="axis"))
    inside.append(text(x_label, (WIDTH + _LEFT - _RIGHT) / 2, HEIGHT - 10, "label middle"))
    inside.append(text(y_label, 4, 14, "label"))
    x = WIDTH - _RIGHT - sum(30 + 6.6 * len(entry) for entry in legend)
    for entry in legend:
        inside.append(tag("rect", x=round(x, 1), y=6, width=12, height=10, class_=f"key {entry}"))
        inside.append(text(entry.replace("_", " "), x + 16, 15, "label"))
        x += 30 + 6.6 * len(entry)
    drawing = Markup(
        '<svg viewBox="0 0 {} {}" role="img" aria-labelledby="{}-title {}-desc">{}</svg>'
    ).format(WIDTH, HEIGHT, name, name, Markup("").join(inside))
    return Markup("<figure><figcaption>{}</figcaption>{}</figure>").format(title, drawing)


def ticks(top: float, wanted: int = 5) -> list[float]:
    """Return round numbers from 0 to `top`, about as many as requested."""
    step = 10.0 ** math.floor(math.log10(top / wanted)) if top > 0 else 1.0
    step *= next(factor for factor in (1, 2, 5, 10) if top / (step * factor) <= wanted)
    return [round(step * number, 10) for number in range(int(top / step + 1e-9) + 1)]


def _ceiling(series: Series) -> float:
    """Return a value slightly above the largest, so that labels fit."""
    top = max((max(values, default=0) for values in series.values()), default=0)
    return top * 1.12 or 1.0


def _mode(edges: Sequence[float], values: Sequence[float]) -> str:
    if not values or not sum(values):
        return "nowhere"
    best = max(range(len(values)), key=values.__getitem__)
    return f"{edges[best]:,.0f} to {edges[best + 1]:,.0f}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:g}"


def text(words: str, x: float, y: float, kind: str) -> Markup:
    """Return a text element of a CSS class."""
    return Markup('<text x="{}" y="{}" class="{}">{}</text>').format(
        round(x, 1), round(y, 1), kind, words
    )


def tag(name: str, **attributes: object) -> Markup:
    """Return an element; a trailing underscore of an attribute, as in `class_`, is dropped."""
    inside = Markup(" ").join(
        Markup('{}="{}"').format(key.rstrip("_"), value) for key, value in attributes.items()
    )
    return Markup("<{} {}/>").format(Markup(escape(name)), inside)
