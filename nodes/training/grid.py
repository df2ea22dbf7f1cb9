"""Before | after as one picture: prompts down, seeds across, the score under every picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image

from ..drawing import BAD, GOOD, MUTED, TEXT, Canvas, short_number, to_picture, wrapped

_LABELS, _EDGE, _GAP, _CAPTION = 190, 16, 8, 22
_COLUMN_HEADER, _BLOCK_GAP = 26, 18
_SMALLEST, _LARGEST = 128, 256


@dataclass(frozen=True)
class Side:
    """One model's pictures and their scores, prompts outermost: index = prompt·seeds + seed.

    Attributes:
        images: [N, h, w, 3].
        scores, held_out: N each; NaN where the picture is blurred.
        blurred: what a safety gate holds back, N; None without a gate.
    """

    images: torch.Tensor
    scores: Sequence[float]
    held_out: Sequence[float] | None = None
    blurred: Sequence[bool] | None = None


def shown_size(width: int, height: int) -> tuple[int, int]:
    """The size at which a picture is shown: small ones in whole multiples, large ones shrunk; sides 128 to 256."""
    longest = max(width, height)
    if longest > _LARGEST:
        return max(1, round(width * _LARGEST / longest)), max(1, round(height * _LARGEST / longest))
    factor = max(1, -(-_SMALLEST // longest))
    return width * factor, height * factor


def comparison_grid(
    before: Side,
    after: Side,
    *,
    prompts: Sequence[str],
    seeds: Sequence[int],
    title: str,
    summary: Sequence[tuple[str, str, str]],
    higher_is_better: bool = True,
) -> Image.Image:
    """Draw the comparison.

    Args:
        before, after: the same prompts and seeds; len(prompts)·len(seeds) pictures each.
        title: the headline.
        summary: (name, figure, "good" | "bad" | "") for the cells of the header.
        higher_is_better: which way a score improves; decides the colours.
    """
    columns = len(seeds)
    height, width = before.images.shape[1:3]
    shown_width, shown_height = shown_size(width, height)
    row = shown_height + _CAPTION
    block = 2 * row + _BLOCK_GAP
    canvas_width = max(_LABELS + 2 * _EDGE + columns * (shown_width + _GAP), 720)
    per_line = max(1, (canvas_width - 2 * _EDGE) // 220)
    header = 64 + 62 * -(-len(summary) // per_line)
    canvas = Canvas(canvas_width, header + _COLUMN_HEADER + len(prompts) * block + 4)
    canvas.text(_EDGE, 16, wrapped(title, canvas_width - 2 * _EDGE, size=22, lines=1)[0], size=22, bold=True)
    _summary(canvas, summary, per_line)
    for column, seed in enumerate(seeds):
        x = _EDGE + _LABELS + column * (shown_width + _GAP) + shown_width / 2
        canvas.text(x, header + 10, f"seed {seed}", size=13, colour=MUTED, anchor="mm")
    legend = "reward" if before.held_out is None else "reward  ·  held-out"
    canvas.text(_EDGE, header + 10, legend, size=13, colour=MUTED, anchor="lm")
    for index, prompt in enumerate(prompts):
        top = header + _COLUMN_HEADER + index * block
        if index:
            canvas.line([(_EDGE, top - 10), (canvas_width - _EDGE, top - 10)], "#2d333d")
        for number, text in enumerate(wrapped(prompt, _LABELS - 24, size=15, lines=5)):
            canvas.text(_EDGE, top + number * 20, text, size=15)
        for side, (name, first) in enumerate((("before", top), ("after", top + row))):
            y = first + shown_height - 8
            colour = TEXT if side else MUTED
            canvas.text(_EDGE + _LABELS - 16, y, name, size=15, colour=colour, anchor="rm", bold=bool(side))
            for column in range(columns):
                position = index * columns + column
                current = (before, after)[side]
                x = _EDGE + _LABELS + column * (shown_width + _GAP)
                canvas.picture(to_picture(current.images[position]), x, first, shown_width, shown_height)
                colour = _colour(before, after, position, higher_is_better) if side else MUTED
                label = _label(current, position)
                canvas.text(x + shown_width / 2, first + shown_height + 10, label, size=13, colour=colour, anchor="mm")
    return canvas.finish()


def _colour(before: Side, after: Side, position: int, higher_is_better: bool) -> str:
    """Of the score after: better, worse, or nothing to say, which is what NaN gives too."""
    gain = round(after.scores[position], 4) - round(before.scores[position], 4)
    if gain == 0 or math.isnan(gain):
        return MUTED
    return GOOD if (gain > 0) == higher_is_better else BAD


def _label(side: Side, position: int) -> str:
    if side.blurred is not None and side.blurred[position]:
        return "blurred"
    label = short_number(round(side.scores[position], 4))
    if side.held_out is not None:
        label += f"  ·  {short_number(round(side.held_out[position], 4))}"
    return label


def _summary(canvas: Canvas, summary: Sequence[tuple[str, str, str]], per_line: int) -> None:
    width = (canvas.width - 2 * _EDGE + _GAP) / per_line
    for index, (name, figure, verdict) in enumerate(summary):
        left = _EDGE + (index % per_line) * width
        top = 54 + 62 * (index // per_line)
        canvas.panel(left, top, left + width - _GAP, top + 54)
        canvas.text(left + 12, top + 15, name, size=13, colour=MUTED, anchor="lm")
        colour = {"good": GOOD, "bad": BAD}.get(verdict, TEXT)
        shown = wrapped(figure, width - 32, size=16, lines=1)[0]
        canvas.text(left + 12, top + 37, shown, size=16, colour=colour, anchor="lm")
