"""The ranking as a picture: thumbnail, rank, bar and value of every image, best first."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageDraw

from ...training.interfaces import RewardError
from ..fonts import font_name, load_font, shorten
from .pictures import to_image
from .scoring import significant

MOST_IMAGES = 64

# Shapes are drawn this much larger and scaled down, which smooths round corners; letters are drawn at the final size,
# where the font's own hinting keeps them sharp.
SMOOTH = 4

BACKGROUND = (30, 31, 34)
CARD = (40, 42, 46)
TRACK = (54, 57, 62)
TEXT = (232, 233, 236)
QUIET = (154, 159, 168)
ACCENT = (240, 178, 84)
BAR = (104, 146, 196)
BAR_LOW = (76, 90, 110)
NEGATIVE = (190, 104, 98)
ON_ACCENT = (36, 28, 14)


@dataclass(frozen=True)
class Layout:
    """Sizes in pixels of the finished chart, by the number of pictures: few are shown large."""

    columns: int
    card: int
    thumbnail: int
    others: int = 0
    margin: int = 24
    gap: int = 10
    pad: int = 10
    line: int = 22

    @classmethod
    def of(cls, count: int, others: int = 0) -> Layout:
        """For `count` pictures with one bar, and `others` thinner ones below it."""
        if count <= 6:
            return cls(columns=1, card=720, thumbnail=96, others=others)
        if count <= 16:
            return cls(columns=2, card=480, thumbnail=80, others=others)
        if count <= 30:
            return cls(columns=3, card=420, thumbnail=72, others=others)
        return cls(columns=4, card=380, thumbnail=64, others=others)

    @property
    def height(self) -> int:
        """Of one card."""
        return max(self.thumbnail, 50 + self.others * self.line) + 2 * self.pad


@dataclass(frozen=True)
class Axis:
    """Where bars begin and end.

    The bar of a score runs from `origin` to it; both are within [low, high]. Bars begin at zero where that leaves the
    differences visible, else the axis is cut and the chart says so.
    """

    low: float
    high: float
    origin: float

    @classmethod
    def of(cls, scores: Sequence[float]) -> Axis:
        smallest, largest = min(scores), max(scores)
        if smallest < 0 < largest:
            return cls(smallest, largest, 0.0)
        if 0 <= smallest <= 0.6 * largest:
            return cls(0.0, largest, 0.0)
        spread = largest - smallest or abs(largest) or 1.0
        # The shortest bar stays visible. A cut never crosses zero: 0.02 and 0.03 are compared from 0, not from -0.01.
        low = smallest - spread / 4
        low = max(low, 0.0) if smallest >= 0 else low
        return cls(low, largest, low)

    def part(self, value: float) -> float:
        """Position on the axis, 0 … 1."""
        return (value - self.low) / (self.high - self.low) if self.high > self.low else 1.0

    @property
    def note(self) -> str:
        """What a reader must know to compare lengths; empty where bars begin at zero."""
        return "" if self.origin == 0 else f"bars begin at {significant(self.low)}"


def bar_chart(
    pictures: Sequence[torch.Tensor],
    scores: Sequence[float],
    *,
    prompts: Sequence[str] | None = None,
    title: str = "Scores",
    higher_is_better: bool = True,
    others: Mapping[str, Sequence[float]] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> torch.Tensor:
    """Draw the ranking.

    Args:
        pictures: N pictures [h, w, c] in [0, 1] with c = 1, 3 or 4, of any sizes.
        scores: N numbers.
        prompts: N texts; where all are equal, the text stands once, under the title.
        title: the reward's name.
        higher_is_better: False puts the lowest score first.
        others: name → N numbers: further scores of the same pictures, drawn thinner and each on an axis of its own.
        progress: called with (pictures drawn, of how many) before every picture; what it raises ends the drawing.

    Returns:
        float32 [1, h, w, 3] in [0, 1]: at most `MOST_IMAGES` pictures, the best ones; a line at the foot tells how
        many were left out.

    Raises:
        RewardError: no pictures, or the counts differ.
    """
    prompts = list(prompts) if prompts is not None else [""] * len(pictures)
    if not pictures or not len(pictures) == len(scores) == len(prompts):
        raise RewardError(
            f"The chart needs pictures, scores and prompts in equal number, not {len(pictures)} pictures, "
            f"{len(scores)} scores and {len(prompts)} prompts."
        )
    others = dict(others or {})
    order = sorted(range(len(scores)), key=lambda index: -scores[index] if higher_is_better else scores[index])
    shown = order[:MOST_IMAGES]
    shared = prompts[0] if len(set(prompts)) == 1 else None
    font = font_name([title, *others, *(prompts[index] for index in shown)])
    layout = Layout.of(len(shown), len(others))
    painter = _Painter(layout, len(shown), font, subtitle=bool(shared), footer=len(order) > len(shown))
    axis = Axis.of([scores[index] for index in shown])
    axes = {name: Axis.of([values[index] for index in shown]) for name, values in others.items()}
    count = f"{len(order)} image{'s' if len(order) != 1 else ''}"
    mean = f"mean {significant(sum(scores) / len(scores))}"
    painter.header(title, " · ".join(filter(None, [count, mean, axis.note])), shared or "")
    for place, index in enumerate(shown):
        if progress:
            progress(place, len(shown))
        line = f"image {index}" if shared is not None else prompts[index] or f"image {index}"
        painter.card(place, _thumbnail(pictures[index], layout.thumbnail), line, scores[index], axis)
        for row, (name, values) in enumerate(others.items()):
            painter.other(place, row, name, values[index], axes[name])
    if len(order) > len(shown):
        painter.footer(f"and {len(order) - len(shown)} more, from {significant(scores[order[len(shown)]])} "
                       f"to {significant(scores[order[-1]])}: see the table")  # fmt: skip
    pixels = np.asarray(painter.finish(), dtype=np.float32) / 255
    return torch.from_numpy(pixels)[None]


def _thumbnail(picture: torch.Tensor, size: int) -> Image.Image:
    """The whole picture within a square, its longer side `size` pixels."""
    image = to_image(picture)
    scale = size / max(image.size)
    shape = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(shape, Image.Resampling.LANCZOS, reducing_gap=3.0)


def _mix(first: tuple[int, ...], second: tuple[int, ...], part: float) -> tuple[int, ...]:
    return tuple(round(a + (b - a) * part) for a, b in zip(first, second, strict=True))


class _Painter:
    """Collects shapes, thumbnails and letters, and lays them over each other in that order."""

    RANK = 34
    FOOTER = 34

    def __init__(self, layout: Layout, count: int, font: str | None, *, subtitle: bool, footer: bool) -> None:
        self.layout = layout
        self.font = font
        self.head = 76 if subtitle else 46
        self.rows = math.ceil(count / layout.columns)
        columns = math.ceil(count / self.rows)
        self.width = 2 * layout.margin + columns * layout.card + (columns - 1) * layout.gap
        body = self.rows * layout.height + (self.rows - 1) * layout.gap
        self.height = layout.margin + self.head + body + (self.FOOTER if footer else 0) + layout.margin
        self.shapes = Image.new("RGB", (self.width * SMOOTH, self.height * SMOOTH), BACKGROUND)
        self.pen = ImageDraw.Draw(self.shapes)
        self.thumbnails: list[tuple[Image.Image, tuple[int, int]]] = []
        self.letters: list[tuple[tuple[float, float], str, int, tuple[int, ...], str]] = []

    def header(self, title: str, figures: str, prompt: str) -> None:
        left, right, top = self.layout.margin, self.width - self.layout.margin, self.layout.margin
        room = right - left - self._wide(figures, 15) - 24
        self._write((left, top + 20), title, 26, TEXT, "ls", room=room)
        self._write((right, top + 20), figures, 15, QUIET, "rs")
        self._write((left, top + 48), prompt, 16, QUIET, "ls", room=right - left)

    def footer(self, text: str) -> None:
        self._write((self.layout.margin, self.height - self.layout.margin), text, 15, QUIET, "ls")

    def _corner(self, place: int) -> tuple[int, int]:
        """Left and top of a card."""
        layout = self.layout
        column, row = divmod(place, self.rows)
        x = layout.margin + column * (layout.card + layout.gap)
        return x, layout.margin + self.head + row * (layout.height + layout.gap)

    def _sides(self, x: int) -> tuple[int, int]:
        """Where text and bars of a card begin and end."""
        layout = self.layout
        return x + self.RANK + layout.pad + layout.thumbnail + 16, x + layout.card - 16

    def _middle(self, y: int) -> float:
        """Between the text and the first bar of a card: in its middle, or higher where bars follow."""
        return y + (self.layout.height - self.layout.others * self.layout.line) / 2

    def other(self, place: int, row: int, name: str, score: float, axis: Axis) -> None:
        """One of the thinner bars of a card, below the first."""
        x, y = self._corner(place)
        left, right = self._sides(x)
        middle = self._middle(y) + 23 + (row + 0.5) * self.layout.line
        label, figures = 0.42 * (right - left), self._wide("-0.0000", 13)
        self._write((left, middle), name, 13, QUIET, "lm", room=label - 12)
        self._write((right, middle), significant(score), 13, QUIET, "rm")
        self._bar(left + label, right - figures - 10, middle - 4, score, axis, best=False, thick=8)

    def card(self, place: int, thumbnail: Image.Image, line: str, score: float, axis: Axis) -> None:
        layout = self.layout
        x, y = self._corner(place)
        self._round((x, y, x + layout.card, y + layout.height), 8, CARD)
        frame = x + self.RANK
        corner = (frame + layout.pad + (layout.thumbnail - thumbnail.width) // 2,
                  y + (layout.height - thumbnail.height) // 2)  # fmt: skip
        self.thumbnails.append((thumbnail, corner))
        left, right = self._sides(x)
        best, centre, middle = place == 0, y + layout.height // 2, self._middle(y)
        if best:
            self._round((x + 8, centre - 13, x + 34, centre + 13), 13, ACCENT)
        self._write((x + 21, centre), str(place + 1), 15, ON_ACCENT if best else QUIET, "mm")
        value = significant(score)
        room = right - left - self._wide(value, 18) - 16
        self._write((left, middle - 8), line, 15, TEXT, "ls", room=room)
        self._write((right, middle - 8), value, 18, ACCENT if best else TEXT, "rs")
        self._bar(left, right, middle + 7, score, axis, best=best, thick=12)

    def _bar(self, left: float, right: float, top: float, score: float, axis: Axis, *, best: bool, thick: int) -> None:
        bottom = top + thick
        self._round((left, top, right, bottom), thick / 2, TRACK)
        origin = left + axis.part(axis.origin) * (right - left)
        end = left + axis.part(score) * (right - left)
        colour = ACCENT if best else NEGATIVE if score < axis.origin else _mix(BAR_LOW, BAR, axis.part(score))
        start, stop = min(origin, end), max(origin, end)
        if stop - start >= 1:
            self._round((start, top, stop, bottom), min(thick / 2, (stop - start) / 2), colour)
        if axis.low < axis.origin < axis.high:
            self._round((origin - 1, top - 3, origin + 1, bottom + 3), 0, QUIET)

    def _round(self, box: tuple[float, ...], radius: float, colour: tuple[int, ...]) -> None:
        # Pillow counts the last pixel in.
        corners = [value * SMOOTH - (1 if index > 1 else 0) for index, value in enumerate(box)]
        self.pen.rounded_rectangle(corners, radius * SMOOTH, fill=colour)

    def _wide(self, text: str, size: int) -> float:
        return load_font(self.font, size).getlength(text)

    def _write(
        self,
        at: tuple[float, float],
        text: str,
        size: int,
        colour: tuple[int, ...],
        anchor: str,
        *,
        room: float = math.inf,
    ) -> None:
        """Place a line of text, shortened to `room` pixels; `anchor` as in Pillow."""
        if text:
            self.letters.append((at, shorten(text, load_font(self.font, size), room), size, colour, anchor))

    def finish(self) -> Image.Image:
        picture = self.shapes.resize((self.width, self.height), Image.Resampling.BOX)
        for thumbnail, corner in self.thumbnails:
            picture.paste(thumbnail, corner, _rounded_mask(thumbnail.size, 5))
        pen = ImageDraw.Draw(picture)
        for at, text, size, colour, anchor in self.letters:
            pen.text(at, text, fill=colour, font=load_font(self.font, size), anchor=anchor)
        return picture


def _rounded_mask(size: tuple[int, int], radius: float) -> Image.Image:
    large = Image.new("L", (size[0] * SMOOTH, size[1] * SMOOTH))
    box = (0, 0, large.width - 1, large.height - 1)
    ImageDraw.Draw(large).rounded_rectangle(box, radius * SMOOTH, fill=255)
    return large.resize(size, Image.Resampling.BOX)
