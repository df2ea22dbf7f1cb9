"""Lines over the rounds of a session, as SVG for the report's page. Colours are the page's own, by class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from ..drawing import nice_ticks, short_number

_WIDTH, _HEIGHT = 360, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 14, 14, 28
# Classes .line0 … of the page.
COLOURS = 6


def signed(value: float) -> str:
    """A short number with a real minus sign."""
    return short_number(value).replace("-", "−")


@dataclass(frozen=True)
class Line:
    """One figure over the rounds. `values`: one per round; None = not known."""

    name: str
    values: Sequence[float | None]


def line_chart(lines: Sequence[Line], *, title: str, includes: Sequence[float] = (), ticks: int = 4) -> str:
    """An SVG with its legend; "" where no line has a value.

    Args:
        title: what is shown, for readers who do not see it, and above the chart.
        includes: values that the axis always shows. ticks: about how many numbers it has.
    """
    known = [value for line in lines for value in line.values if value is not None]
    if not known:
        return ""
    rounds = max(len(line.values) for line in lines)
    shown = [*known, *includes]
    marks = nice_ticks(min(shown), max(shown), ticks)
    low, high = min(marks[0], *shown), max(marks[-1], *shown)
    right = _WIDTH - _RIGHT

    def x_of(place: int) -> float:
        return _LEFT + (right - _LEFT) * (place / (rounds - 1) if rounds > 1 else 0.5)

    def y_of(value: float) -> float:
        return _HEIGHT - _BOTTOM - (value - low) / ((high - low) or 1.0) * (_HEIGHT - _BOTTOM - _TOP)

    parts = []
    for tick in marks:
        y = f"{y_of(tick):.1f}"
        parts.append(f'<line class="grid" x1="{_LEFT}" y1="{y}" x2="{right}" y2="{y}"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{y}" dy="4" text-anchor="end">{signed(tick)}</text>')
    step = -(-rounds // 12)
    for place in range(0, rounds, step):
        parts.append(f'<text x="{x_of(place):.1f}" y="{_HEIGHT - 8}" text-anchor="middle">{place + 1}</text>')
    for number, line in enumerate(lines):
        points = [(x_of(place), y_of(value)) for place, value in enumerate(line.values) if value is not None]
        way = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'<polyline class="line line{number % COLOURS}" points="{way}"/>')
        parts += [f'<circle class="dot{number % COLOURS}" cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>' for x, y in points]
    legend = "".join(
        f'<span class="key key{number % COLOURS}"><bdi>{escape(line.name)}</bdi></span>'
        for number, line in enumerate(lines)
    )
    return (
        f'<figure class="chart"><figcaption>{escape(title)}</figcaption>'
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">{"".join(parts)}</svg>'
        f'<div class="legend">{legend}</div></figure>'
    )
