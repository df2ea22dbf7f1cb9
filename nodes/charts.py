"""The training report as a picture: one panel per figure, over the updates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from .drawing import COLOURS, GOOD, GRID, MUTED, TEXT, Canvas, nice_ticks, short_number, wrapped

WIDTH = 960
_HEADER, _FOOTER, _GAP, _EDGE = 78, 20, 12, 16
_PANEL_HEIGHT = 230
# A curve of noisy figures is read through averages; this share of the run, to either side, is in one of them.
_REACH = 0.08
# More points than this would run into each other.
_MOST_POINTS = 100


@dataclass(frozen=True)
class Curve:
    """One figure over the updates.

    Attributes:
        key: its name in the reports.
        title: what people read.
        steps, values: equally long; `steps` ascending.
        colour: "" = by the key.
        smooth: drawn as an average over faint values; else as points joined by lines.
        percent: whether the values are shares of 1.
        includes: values that the axis always shows.
        tests: (step, value) of the same figure, measured now and then in a fixed way.
    """

    key: str
    title: str
    steps: Sequence[int]
    values: Sequence[float]
    colour: str = ""
    smooth: bool = True
    percent: bool = False
    includes: Sequence[float] = ()
    tests: Sequence[tuple[int, float]] = ()


def smoothed(values: Sequence[float]) -> list[float]:
    """A straight line fitted around each value, and read there: takes out the noise and keeps up with a trend.

    The line is a least-squares fit to the values at most `_REACH` of the run away, at least one; at the ends only one
    side is there. Constants and straight lines come out as they are.
    """
    count = len(values)
    if not count:
        return []
    reach = max(1, round(_REACH * count))
    place = np.arange(count)
    first, last = np.maximum(place - reach, 0), np.minimum(place + reach, count - 1)
    level = np.mean(values)
    rest = np.asarray(values, dtype=np.float64) - level
    # Sums over any stretch are differences of these, so that a long run takes no longer per value than a short one.
    sums = np.concatenate([[0.0], np.cumsum(rest)])
    moments = np.concatenate([[0.0], np.cumsum(rest * place)])
    number, middle = last - first + 1, (first + last) / 2
    total = sums[last + 1] - sums[first]
    product = moments[last + 1] - moments[first] - middle * total
    spread = np.maximum(number * (number**2 - 1) / 12, 1e-9)  # of the places; 0 for a single one
    return (level + total / number + product / spread * (place - middle)).tolist()


def curve_chart(curves: Sequence[Curve], *, title: str, details: str, best_step: int | None = None) -> Image.Image:
    """Draw the report.

    Args:
        curves: without any, the picture says that there is nothing to draw yet.
        title: the run's name and result.
        details: one line below it.
        best_step: the update whose weights were kept, to be marked; None = the last, which needs no mark.
    """
    rows = max(1, len(curves))
    canvas = Canvas(WIDTH, _HEADER + rows * (_PANEL_HEIGHT + _GAP) + _FOOTER)
    canvas.text(_EDGE, 16, wrapped(title, WIDTH - 2 * _EDGE, size=22, lines=1)[0], size=22, bold=True)
    canvas.text(_EDGE, 48, wrapped(details, WIDTH - 2 * _EDGE, size=14, lines=1)[0], size=14, colour=MUTED)
    if not curves:
        canvas.panel(_EDGE, _HEADER, WIDTH - _EDGE, _HEADER + _PANEL_HEIGHT)
        canvas.text(WIDTH / 2, _HEADER + _PANEL_HEIGHT / 2, "No updates yet", size=18, colour=MUTED, anchor="mm")
    for index, curve in enumerate(curves):
        _panel(canvas, curve, _HEADER + index * (_PANEL_HEIGHT + _GAP), best_step)
    canvas.text(WIDTH / 2, canvas.height - 17, "update", size=13, colour=MUTED, anchor="mm")
    return canvas.finish()


def _panel(canvas: Canvas, curve: Curve, top: float, best_step: int | None) -> None:
    left, right, bottom = _EDGE, WIDTH - _EDGE, top + _PANEL_HEIGHT
    canvas.panel(left, top, right, bottom)
    colour = curve.colour or COLOURS.get(curve.key, TEXT)
    line_values = smoothed(curve.values) if curve.smooth else list(curve.values)
    canvas.dot(left + 20, top + 21, colour, radius=5)
    change = f"{_number(curve, line_values[0])}  to  {_number(curve, line_values[-1])}"
    title = f"{curve.title}{'  ·  ringed: tests' if curve.tests else ''}"
    canvas.text(left + 34, top + 21, wrapped(title, 620, size=16, lines=1)[0], size=16, anchor="lm")
    canvas.text(right - 16, top + 21, change, size=16, colour=colour, anchor="rm")

    plot = (left + 78, top + 44, right - 22, bottom - 28)
    drawn = [*curve.values, *(value for _, value in curve.tests), *curve.includes]
    ticks = nice_ticks(*_bounds(drawn))
    low, high = min(ticks[0], *drawn), max(ticks[-1], *drawn)
    first, last = curve.steps[0], max(curve.steps[-1], curve.steps[0] + 1)

    def x_of(step: float) -> float:
        return plot[0] + (step - first) / (last - first) * (plot[2] - plot[0])

    def y_of(value: float) -> float:
        return plot[3] - (value - low) / ((high - low) or 1.0) * (plot[3] - plot[1])

    for tick in ticks:
        canvas.line([(plot[0], y_of(tick)), (plot[2], y_of(tick))], GRID)
        canvas.text(plot[0] - 10, y_of(tick), _number(curve, tick), size=13, colour=MUTED, anchor="rm")
    for tick in nice_ticks(first, last, 9):
        if tick == int(tick):
            canvas.text(x_of(tick), plot[3] + 13, str(int(tick)), size=13, colour=MUTED, anchor="mm")
    canvas.upright_text(left + 18, (plot[1] + plot[3]) / 2, curve.title.split(" (")[0].split(":")[0].lower())
    if best_step is not None and first <= best_step <= last:
        canvas.line([(x_of(best_step), plot[1]), (x_of(best_step), plot[3])], GOOD, width=1.4)
        # At the right edge there is no room beside the line.
        side = ("rm", -7) if x_of(best_step) > plot[2] - 60 else ("lm", 7)
        canvas.text(x_of(best_step) + side[1], plot[1] + 6, "best", size=13, colour=GOOD, anchor=side[0])
    raw = [(x_of(step), y_of(value)) for step, value in zip(curve.steps, curve.values, strict=True)]
    line = [(x_of(step), y_of(value)) for step, value in zip(curve.steps, line_values, strict=True)]
    if curve.smooth:
        canvas.line(raw, _faint(colour), width=1.2)
    canvas.line(line, colour, width=2.4)
    for point in raw if not curve.smooth and len(raw) <= _MOST_POINTS else ():
        canvas.dot(*point, colour, radius=3)
    _tests(canvas, [(x_of(step), y_of(value)) for step, value in curve.tests], colour)
    canvas.dot(*line[-1], TEXT, radius=4.2)
    canvas.dot(*line[-1], colour, radius=3)


def _tests(canvas: Canvas, points: Sequence[tuple[float, float]], colour: str) -> None:
    if len(points) > 1:
        canvas.line(points, _faint(TEXT), width=1.2)
    for point in points:
        canvas.dot(*point, TEXT, radius=4)
        canvas.dot(*point, colour, radius=2.2)


def _number(curve: Curve, value: float) -> str:
    return f"{short_number(round(100 * value, 1))} %" if curve.percent else short_number(value)


def _bounds(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    margin = (high - low) * 0.06 or abs(low) * 0.05 or 0.5
    return low - margin, high + margin


def _faint(colour: str) -> str:
    """The colour mixed into the panel's, as if it were transparent."""
    mix = [round(0.38 * int(colour[i : i + 2], 16) + 0.62 * base) for i, base in ((1, 0x1C), (3, 0x20), (5, 0x27))]
    return "#" + "".join(f"{part:02x}" for part in mix)
