"""Weights over rounds, and the Pareto front of a batch, as pictures.

Weights are shares of one whole, so they are drawn as bands on top of each other, whose heights add up to 100 %; an
artist reads off at once what mattered when. The front is drawn for every pair of two or three rewards: a dot per
picture in its z-scores, better to the right and to the top. Ours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from ..drawing import GOOD, GRID, MUTED, PANEL, TEXT, Canvas, nice_ticks, short_number, text_width, to_tensor, wrapped
from .checks import RefinementError
from .pareto import non_dominated, points_of

WIDTH = 960
_EDGE, _HEADER, _PANEL, _LEGEND = 16, 74, 330, 26
# Told apart also by who sees no red or no green: they differ in lightness.
BANDS = ("#3f9fdb", "#dd9350", "#5cb57d", "#a085e3", "#d6c567", "#dc6e6e", "#4fb8ae", "#aab3be")
MOST_REWARDS = len(BANDS)
_INK = "#10141a"
# A band lower than this has no room for its number.
_ROOM = 19


def weights_chart(
    rounds: Sequence[Mapping[str, float]], *, title: str = "What counted", details: str = ""
) -> torch.Tensor:
    """Weights over rounds as bands.

    Args:
        rounds: reward's name → weight ≥ 0 of every round, the first first. A reward that a round lacks has 0 there.
        title, details: above it.

    Returns:
        float32 [1, h, w, 3] in [0, 1]. Without rounds it says that there are none.

    Raises:
        RefinementError: more rewards than there are colours, or a weight below 0.
    """
    names = list(dict.fromkeys(name for weights in rounds for name in weights))
    if len(names) > MOST_REWARDS:
        raise RefinementError(f"The chart has colours for {MOST_REWARDS} rewards, not for {len(names)}.")
    shares = np.array([[weights.get(name, 0.0) for name in names] for weights in rounds], dtype=np.float64)
    if shares.size and not (shares >= 0).all():
        raise RefinementError(f"Weights below 0 have no share in a whole: {shares.min():g}.")
    legend = _legend_rows(names, WIDTH - 2 * _EDGE)
    canvas = Canvas(WIDTH, _HEADER + _PANEL + _LEGEND * max(1, len(legend)) + 22)
    _head(canvas, title, details)
    box = (_EDGE, _HEADER, WIDTH - _EDGE, _HEADER + _PANEL)
    canvas.panel(*box)
    if not shares.size:
        canvas.text(WIDTH / 2, (box[1] + box[3]) / 2, "No rounds yet", size=18, colour=MUTED, anchor="mm")
        return to_tensor(canvas.finish())
    whole = shares.sum(1, keepdims=True)
    shares = np.divide(shares, whole, out=np.zeros_like(shares), where=whole > 0)
    _bands(canvas, shares, (box[0] + 62, box[1] + 18, box[2] - 18, box[3] - 46))
    _legend(canvas, legend, box[3] + 20)
    return to_tensor(canvas.finish())


def _bands(canvas: Canvas, shares: np.ndarray, plot: tuple[float, float, float, float]) -> None:
    """Shares [rounds, rewards] into a plot; the first reward on top."""
    left, top, right, bottom = plot
    # A single round is a bar; several are joined by straight edges.
    places = np.linspace(left, right, len(shares)) if len(shares) > 1 else np.array([left, right])
    heights = shares if len(shares) > 1 else np.repeat(shares, 2, axis=0)
    upper = np.cumsum(np.pad(heights, ((0, 0), (1, 0))), axis=1)  # (rounds, rewards + 1)
    ys = top + upper * (bottom - top)
    for tick in range(0, 101, 25):
        y = bottom - tick / 100 * (bottom - top)
        canvas.text(left - 10, y, f"{tick} %", size=13, colour=MUTED, anchor="rm")
    for band in range(shares.shape[1]):
        edge = list(zip(places, ys[:, band], strict=True))
        edge += list(zip(places[::-1], ys[::-1, band + 1], strict=True))
        canvas.area(edge, BANDS[band])
    for band in range(1, shares.shape[1]):
        canvas.line(list(zip(places, ys[:, band], strict=True)), PANEL, width=1.5)
    if len(shares) == 1:
        middle = (left + right) / 2
        _numbers(canvas, shares[0], ys[0], middle, "mm")
        canvas.text(middle, bottom + 14, "round 1", size=13, colour=MUTED, anchor="mm")
        return
    step = max(1, math.ceil(len(shares) / 12))
    for number in range(1, len(shares) + 1):
        x = places[number - 1]
        if 1 < number < len(shares):
            canvas.line([(x, top), (x, bottom)], _INK, width=0.7)
        if (number - 1) % step == 0 or number == len(shares):
            side = "lm" if number == 1 else "rm" if number == len(shares) else "mm"
            canvas.text(x, bottom + 14, str(number), size=13, colour=MUTED, anchor=side)
    canvas.text((left + right) / 2, bottom + 33, "round", size=13, colour=MUTED, anchor="mm")
    _numbers(canvas, shares[0], ys[0], left + 8, "lm")
    _numbers(canvas, shares[-1], ys[-1], right - 8, "rm")


def _numbers(canvas: Canvas, shares: np.ndarray, edges: np.ndarray, x: float, anchor: str) -> None:
    """The shares of one round, each in the middle of its band."""
    for band, share in enumerate(shares):
        if edges[band + 1] - edges[band] >= _ROOM:
            y = (edges[band] + edges[band + 1]) / 2
            canvas.text(x, y, f"{100 * share:.0f} %", size=14, colour=_INK, anchor=anchor, bold=True)


def _legend_rows(names: Sequence[str], width: float) -> list[list[tuple[int, str, float]]]:
    """(band, name, its width) in rows that fit."""
    rows: list[list[tuple[int, str, float]]] = []
    room = 0.0
    for band, name in enumerate(names):
        text = _fit(name, 300)
        wide = 26 + text_width(text, 14) + 26
        if not rows or wide > room:
            rows.append([])
            room = width
        rows[-1].append((band, text, wide))
        room -= wide
    return rows


def _legend(canvas: Canvas, rows: Sequence[Sequence[tuple[int, str, float]]], top: float) -> None:
    for index, row in enumerate(rows):
        x, y = float(_EDGE + 8), top + index * _LEGEND
        for band, text, wide in row:
            canvas.dot(x, y, BANDS[band], radius=6)
            canvas.text(x + 14, y, text, size=14, anchor="lm")
            x += wide


def front_chart(
    z: Sequence[Mapping[str, float]],
    names: Sequence[str],
    *,
    chosen: Sequence[int] = (),
    title: str = "Trade-offs of this round",
    details: str = "Every dot is a picture; further right and further up is better.",
) -> torch.Tensor:
    """The batch's pictures by two or three rewards, the non-dominated ones and the chosen ones marked.

    Args:
        z: z-scores of every picture, by reward. Pictures that one of them does not tell apart or
            score are counted below.
        names: two or three rewards; of three, every pair has a panel. A dot is on the front if it is so in all of them.
        chosen: positions of the pictures that were liked.
        title, details: above it.

    Returns:
        float32 [1, h, w, 3] in [0, 1].

    Raises:
        RefinementError: not two or three rewards.
    """
    if len(names) not in (2, 3):
        raise RefinementError(f"A front is drawn of two or three rewards, not of {len(names)}.")
    points = points_of(z, names)
    known = np.isfinite(points).all(1)
    front = non_dominated(points)
    pairs = [(0, 1)] if len(names) == 2 else [(0, 1), (0, 2), (1, 2)]
    gap, height = 14, 420 if len(pairs) == 1 else 340
    panel = (WIDTH - 2 * _EDGE - gap * (len(pairs) - 1)) / len(pairs)
    labels = _labels(names, min(panel, height) - 90)
    canvas = Canvas(WIDTH, _HEADER + height + 58)
    _head(canvas, title, details)
    for index, (across, up) in enumerate(pairs):
        left = _EDGE + index * (panel + gap)
        box = (left, _HEADER, left + panel, _HEADER + height)
        _scatter(canvas, points[:, [across, up]], known, front, chosen, (labels[across], labels[up]), box)
    _front_legend(canvas, _HEADER + height + 26, missing=int((~known).sum()))
    return to_tensor(canvas.finish())


def _scatter(
    canvas: Canvas,
    points: np.ndarray,
    known: np.ndarray,
    front: np.ndarray,
    chosen: Sequence[int],
    names: tuple[str, str],
    box: tuple[float, float, float, float],
) -> None:
    """One pair of rewards; points [N, 2]."""
    canvas.panel(*box)
    left, top, right, bottom = box[0] + 58, box[1] + 20, box[2] - 20, box[3] - 52
    room = right - left
    canvas.text((left + right) / 2, box[3] - 15, _fit(names[0], room), size=14, anchor="mm")
    canvas.upright_text(box[0] + 17, (top + bottom) / 2, _fit(names[1], bottom - top), size=14, colour=TEXT)
    _arrows(canvas, left, bottom, right, top)
    if not known.any():
        canvas.text((left + right) / 2, (top + bottom) / 2, "Nothing scored", size=16, colour=MUTED, anchor="mm")
        return
    shown = points[known]
    bounds = [_bounds(shown[:, axis]) for axis in range(2)]

    def place(point: np.ndarray) -> tuple[float, float]:
        shares = [(value - low) / (high - low) for value, (low, high) in zip(point, bounds, strict=True)]
        return left + shares[0] * room, bottom - shares[1] * (bottom - top)

    for tick in nice_ticks(*bounds[0], 5):
        x = place(np.array([tick, bounds[1][0]]))[0]
        canvas.line([(x, top), (x, bottom)], GRID)
        canvas.text(x, bottom + 13, short_number(tick), size=12, colour=MUTED, anchor="mm")
    for tick in nice_ticks(*bounds[1], 5):
        y = place(np.array([bounds[0][0], tick]))[1]
        canvas.line([(left, y), (right, y)], GRID)
        canvas.text(left - 7, y, short_number(tick), size=12, colour=MUTED, anchor="rm")
    _stairs(canvas, points[known & non_dominated(points)], place, (left, bottom))
    for row in sorted(np.flatnonzero(known), key=lambda row: (row in chosen, front[row])):
        _dot(canvas, *place(points[row]), str(row + 1), front=bool(front[row]), chosen=row in chosen)


def _arrows(canvas: Canvas, left: float, bottom: float, right: float, top: float) -> None:
    """Axes that point to where it gets better."""
    canvas.line([(left, top), (left, bottom), (right, bottom)], MUTED, width=1.2)
    canvas.line([(right - 6, bottom - 4), (right, bottom), (right - 6, bottom + 4)], MUTED, width=1.4)
    canvas.line([(left - 4, top + 6), (left, top), (left + 4, top + 6)], MUTED, width=1.4)


def _stairs(canvas: Canvas, points: np.ndarray, place, corner: tuple[float, float]) -> None:
    """The edge of what the pair's front covers."""
    points = points[np.argsort(points[:, 0])]
    path = [(corner[0], place(points[0])[1])]
    for index, point in enumerate(points):
        x, y = place(point)
        path.append((x, y))
        path.append((x, place(points[index + 1])[1] if index + 1 < len(points) else corner[1]))
    canvas.line(path, MUTED, width=1.4)


def _dot(canvas: Canvas, x: float, y: float, label: str, *, front: bool, chosen: bool) -> None:
    if chosen:
        canvas.dot(x, y, GOOD, radius=15)
        canvas.dot(x, y, PANEL, radius=12.5)
    canvas.dot(x, y, BANDS[0] if front else "#59626f", radius=10)
    canvas.text(x, y, label, size=12, colour=_INK if front else TEXT, anchor="mm", bold=front)


def _front_legend(canvas: Canvas, y: float, *, missing: int) -> None:
    x = _EDGE + 14.0
    for words, marks in (
        ("no picture is better in everything", {"front": True, "chosen": False}),
        ("another picture is better in everything", {"front": False, "chosen": False}),
        ("liked", {"front": True, "chosen": True}),
    ):
        _dot(canvas, x, y, "", **marks)
        x += 22 + canvas.text(x + 22, y, words, size=14, colour=MUTED, anchor="lm") + 34
    if missing:
        words = "1 picture has no place here" if missing == 1 else f"{missing} pictures have no place here"
        canvas.text(WIDTH - _EDGE, y, words, size=14, colour=MUTED, anchor="rm")


def _bounds(values: np.ndarray) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    margin = 0.12 * (high - low) or 1.0
    return low - margin, high + margin


def _head(canvas: Canvas, title: str, details: str) -> None:
    canvas.text(_EDGE, 16, wrapped(title, WIDTH - 2 * _EDGE, size=22, lines=1)[0] if title else "", size=22, bold=True)
    if details:
        canvas.text(_EDGE, 48, wrapped(details, WIDTH - 2 * _EDGE, size=14, lines=1)[0], size=14, colour=MUTED)


def _labels(names: Sequence[str], width: float) -> list[str]:
    """The names; where one does not fit, all of them without what is in brackets, unless that makes two alike."""
    if all(text_width(name, 14) <= width for name in names):
        return list(names)
    short = [name.split(" (")[0] for name in names]
    return short if len(set(short)) == len(names) else list(names)


def _fit(text: str, width: float) -> str:
    lines = wrapped(text, width, size=14, lines=1)
    return lines[0] if lines else ""
