"""Pairs of pictures as one picture: the better one at the left in a frame, what both were to show below."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from PIL import Image

from .drawing import GOOD, MUTED, Canvas, to_picture, wrapped

MOST_DRAWN = 12
_EDGE, _GAP, _BETWEEN, _HEADER = 16, 14, 6, 84
_SIDE, _COLUMNS = 144, 3
_BELOW = 62

T = TypeVar("T")


@dataclass(frozen=True)
class DrawnPair:
    """One of the pairs.

    Attributes:
        chosen, rejected: [h, w, 3] in [0, 1].
        labels: below the two; "" = nothing.
        caption: below both.
    """

    chosen: torch.Tensor
    rejected: torch.Tensor
    labels: tuple[str, str]
    caption: str


def draw_pairs(pairs: Sequence[T], words: str, drawn: Callable[[T], DrawnPair]) -> Image.Image:
    """Draw the pairs, of many a dozen, spread over the set.

    Args:
        words: what is to be said of all of them.
        drawn: how one of them looks; called for those alone that are shown.
    """
    shown = spread(pairs)
    cell = 2 * _SIDE + _BETWEEN
    rows = -(-len(shown) // _COLUMNS)
    columns = min(_COLUMNS, len(shown))
    width = max(2 * _EDGE + columns * cell + (columns - 1) * _GAP, 640)
    canvas = Canvas(width, _HEADER + rows * (_SIDE + _BELOW) + 8)
    title = f"{counted(len(pairs), 'pair')}: chosen and rejected"
    if len(shown) < len(pairs):
        title += f"  ·  {len(shown)} of them shown"
    canvas.text(_EDGE, 14, title, size=22, bold=True)
    for line, text in enumerate(wrapped(words, width - 2 * _EDGE, size=13, lines=2)):
        canvas.text(_EDGE, 46 + 17 * line, text, size=13, colour=MUTED)
    for number, pair in enumerate(shown):
        left = _EDGE + number % _COLUMNS * (cell + _GAP)
        top = _HEADER + number // _COLUMNS * (_SIDE + _BELOW)
        _draw(canvas, drawn(pair), left, top)
    return canvas.finish()


def _draw(canvas: Canvas, pair: DrawnPair, left: int, top: int) -> None:
    for place, picture in enumerate((pair.chosen, pair.rejected)):
        x = left + place * (_SIDE + _BETWEEN)
        height, width = picture.shape[:2]
        scale = _SIDE / max(height, width)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        inset = x + (_SIDE - size[0]) // 2, top + (_SIDE - size[1]) // 2
        canvas.picture(to_picture(picture), *inset, *size)
        if not place:
            canvas.frame(inset[0], inset[1], inset[0] + size[0], inset[1] + size[1], GOOD, width=3)
        colour = MUTED if place else GOOD
        canvas.text(x + _SIDE / 2, top + _SIDE + 11, pair.labels[place], size=13, colour=colour, anchor="mm")
    for line, text in enumerate(wrapped(pair.caption, 2 * _SIDE + _BETWEEN, size=12, lines=2)):
        canvas.text(left, top + _SIDE + 21 + 15 * line, text, size=12, colour=MUTED)


def spread(pairs: Sequence[T]) -> list[T]:
    """All, or a dozen at equal distances."""
    if len(pairs) <= MOST_DRAWN:
        return list(pairs)
    return [pairs[place * len(pairs) // MOST_DRAWN] for place in range(MOST_DRAWN)]


def counted(number: int, word: str) -> str:
    """1 pair, 2 pairs."""
    return f"{number} {word}{'' if number == 1 else 's'}"
