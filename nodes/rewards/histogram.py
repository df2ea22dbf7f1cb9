"""A calibration as a picture: how often which score occurs, the mean, and the deviations around it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw

from ..fonts import font_name, load_font, shorten
from .calibration import Calibration
from .chart import ACCENT, BACKGROUND, BAR, CARD, QUIET, SMOOTH, TEXT
from .scoring import significant

WIDTH, HEIGHT = 768, 470
MARGIN, HEAD, FOOT = 24, 80, 34
# The plot inside its card: room above for the names of the deviations, below for the raw scores.
_LEFT, _RIGHT, _TOP, _BOTTOM = MARGIN + 24, WIDTH - MARGIN - 24, MARGIN + HEAD + 46, HEIGHT - MARGIN - FOOT - 54
BAND = (62, 58, 50)
WITHIN, BEYOND = BAR, (76, 90, 110)
FEWEST_BINS, MOST_BINS = 8, 40


def histogram(
    calibration: Calibration, reward: str, scores: Sequence[float] | None = None, *, higher_is_better: bool = True
) -> torch.Tensor:
    """Draw a calibration.

    Args:
        calibration: what is drawn.
        reward: the reward's name.
        scores: of the reference; without them (a loaded calibration) the bars follow the quantiles.
        higher_is_better: which end of the axis is marked as the better one.

    Returns:
        float32 [1, h, w, 3] in [0, 1].
    """
    low, high, bars = bins(calibration, scores)
    # A reference without outliers ends before one deviation: the axis shows at least that much.
    low = min(low, calibration.mean - 1.15 * calibration.deviation)
    high = max(high, calibration.mean + 1.15 * calibration.deviation)
    sketch = _Sketch(low, high, font_name([reward, calibration.name, "−σ…→←±·"]))
    sketch.bars(bars, calibration)
    sketch.deviations(calibration)
    sketch.scores(higher_is_better)
    sketch.head_and_foot(calibration, reward)
    return sketch.finish()


def bins(
    calibration: Calibration, scores: Sequence[float] | None
) -> tuple[float, float, list[tuple[float, float, float]]]:
    """The axis and the bars.

    Bars are 2·∛n, between `FEWEST_BINS` and `MOST_BINS` (Rice's rule).

    Returns:
        lowest score, highest score, and per bar (from, to, how many scores).
    """
    low, high = calibration.quantiles[0], calibration.quantiles[-1]
    number = min(MOST_BINS, max(FEWEST_BINS, round(2 * calibration.count ** (1 / 3))))
    edges = np.linspace(low, high, number + 1)
    if scores is not None:
        heights, _ = np.histogram(np.asarray(scores, dtype=np.float64).clip(low, high), edges)
    else:
        heights = _from_quantiles(np.asarray(calibration.quantiles), edges) * calibration.count
    return low, high, list(zip(edges[:-1].tolist(), edges[1:].tolist(), heights.tolist(), strict=True))


def _from_quantiles(quantiles: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Share of the scores per bar: every hundredth lies evenly between its two quantiles."""
    left, right = quantiles[:-1, None], quantiles[1:, None]  # (100, 1)
    overlap = (np.minimum(right, edges[1:]) - np.maximum(left, edges[:-1])).clip(0)  # (100, bars)
    width = right - left
    spread = np.divide(overlap, width, out=np.zeros_like(overlap), where=width > 0)
    # Hundredths of equal scores have no width: they lie in the bar that holds their score.
    place = np.clip(np.searchsorted(edges, quantiles[:-1], side="right") - 1, 0, len(edges) - 2)
    flat = np.flatnonzero(width[:, 0] == 0)
    spread[flat, place[flat]] = 1
    return spread.sum(0) / (len(quantiles) - 1)


def ticks(low: float, high: float, most: int = 7) -> tuple[list[float], list[str]]:
    """Round numbers within [low, high], at most `most`, and how they are written."""
    raw = (high - low) / (most - 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= raw * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    digits = next((digits for digits in range(12) if abs(round(step, digits) - step) < 1e-6 * step), 12)
    numbers = [round(number * step, 12) for number in range(first, last + 1)]
    return numbers, [f"{number + 0.0:.{digits}f}" for number in numbers]


class _Sketch:
    """Collects shapes and letters; the letters are drawn last, at the final size."""

    def __init__(self, low: float, high: float, font: str | None) -> None:
        self.low, self.high, self.font = low, high, font
        self.picture = Image.new("RGB", (WIDTH * SMOOTH, HEIGHT * SMOOTH), BACKGROUND)
        self.pen = ImageDraw.Draw(self.picture)
        self.letters: list[tuple[tuple[float, float], str, int, tuple[int, ...], str]] = []
        self._box((MARGIN, MARGIN + HEAD, WIDTH - MARGIN, HEIGHT - MARGIN - FOOT), 8, CARD)

    def bars(self, bars: Sequence[tuple[float, float, float]], calibration: Calibration) -> None:
        """The bars, in front of the band of one deviation around the mean."""
        first, last = calibration.mean - calibration.deviation, calibration.mean + calibration.deviation
        self._box((self._x(first), _TOP - 8, self._x(last), _BOTTOM), 0, BAND)
        tallest = max(height for _, _, height in bars)
        for start, end, height in bars:
            top = _BOTTOM - height / tallest * (_BOTTOM - _TOP)
            inside = first <= (start + end) / 2 <= last
            self._box((self._x(start) + 1, top, self._x(end) - 1, _BOTTOM), 2, WITHIN if inside else BEYOND)
        self._box((_LEFT, _BOTTOM, _RIGHT, _BOTTOM + 1), 0, QUIET)

    def deviations(self, calibration: Calibration) -> None:
        """The mean as a line through the bars, every whole deviation as a mark above them."""
        mean = self._x(calibration.mean)
        self._box((mean - 1, _TOP - 14, mean + 1, _BOTTOM), 0, ACCENT)
        self._write((mean, _TOP - 20), "mean", 14, ACCENT, "ms")
        wide = self._x(self.low + calibration.deviation) - self._x(self.low)
        # Names need room: with many deviations on the axis only every second, fifth, … is named.
        step = next((step for step in (1, 2, 5, 10, 20, 50) if step * wide >= 44), 100)
        for number in range(step, 1000, step):
            for z in (-number, number):
                score = calibration.mean + z * calibration.deviation
                if self.low <= score <= self.high:
                    self._mark(score, _TOP - 14, _TOP - 8)
                    self._write((self._x(score), _TOP - 20), f"{'+' if z > 0 else '−'}{number}σ", 14, QUIET, "ms")

    def scores(self, higher_is_better: bool) -> None:
        """Raw scores under the axis, and which end is the better one."""
        for score, text in zip(*ticks(self.low, self.high), strict=True):
            self._mark(score, _BOTTOM + 1, _BOTTOM + 6)
            self._write((self._x(score), _BOTTOM + 22), text, 14, TEXT, "ms")
        words = ["height: how many images", "better →"] if higher_is_better else ["← better", "height: how many images"]
        low = HEIGHT - MARGIN - FOOT - 8
        self._write((_LEFT, low), words[0], 14, QUIET, "ls")
        self._write((_RIGHT, low), words[1], 14, QUIET, "rs")

    def head_and_foot(self, calibration: Calibration, reward: str) -> None:
        small = load_font(self.font, 15)
        count = f"{calibration.count} images · {shorten(calibration.name, small, 260)}"
        room = WIDTH - 2 * MARGIN - small.getlength(count) - 24
        self._write((MARGIN, MARGIN + 20), shorten(reward, load_font(self.font, 26), room), 26, TEXT, "ls")
        self._write((WIDTH - MARGIN, MARGIN + 20), count, 15, QUIET, "rs")
        mean, deviation = significant(calibration.mean), significant(calibration.deviation)
        figures = f"mean {mean} ± {deviation} (σ, one standard deviation)"
        self._write((MARGIN, MARGIN + 52), figures, 17, ACCENT, "ls")
        marks = "   ".join(f"{part} %: {significant(calibration.score_at(part))}" for part in (5, 25, 50, 75, 95))
        self._write((MARGIN, HEIGHT - MARGIN), f"percentiles   {marks}", 15, QUIET, "ls")

    def finish(self) -> torch.Tensor:
        """float32 [1, h, w, 3]"""
        picture = self.picture.resize((WIDTH, HEIGHT), Image.Resampling.BOX)
        pen = ImageDraw.Draw(picture)
        for at, text, size, colour, anchor in self.letters:
            pen.text(at, text, fill=colour, font=load_font(self.font, size), anchor=anchor)
        return torch.from_numpy(np.asarray(picture, dtype=np.float32) / 255)[None]

    def _x(self, score: float) -> float:
        return _LEFT + (score - self.low) / (self.high - self.low) * (_RIGHT - _LEFT)

    def _mark(self, score: float, top: float, bottom: float) -> None:
        self._box((self._x(score) - 0.5, top, self._x(score) + 0.5, bottom), 0, QUIET)

    def _box(self, box: tuple[float, float, float, float], radius: float, colour: tuple[int, ...]) -> None:
        # Pillow counts the last pixel in.
        corners = [round(value * SMOOTH) - (1 if index > 1 else 0) for index, value in enumerate(box)]
        if corners[2] >= corners[0] and corners[3] >= corners[1]:
            self.pen.rounded_rectangle(corners, radius * SMOOTH, fill=colour)

    def _write(self, at: tuple[float, float], text: str, size: int, colour: tuple[int, ...], anchor: str) -> None:
        self.letters.append((at, text, size, colour, anchor))
