"""A set of scored pairs as a picture and as words."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image

from ..drawing import GOOD, MUTED, Canvas, short_number, to_picture, wrapped
from .pairs import PairSet, ScoredPair

_EDGE, _GAP, _BETWEEN, _HEADER = 16, 14, 6, 84
_SIDE, _COLUMNS, _MOST = 144, 3, 12
_BELOW = 62


def summary(found: PairSet, prompts: Sequence[str], reward_name: str) -> str:
    """What came of it, in a line or two."""
    count = len({pair.prompt for pair in found.pairs})
    margins = sorted(pair.margin for pair in found.pairs)
    text = (
        f"{_count(len(found.pairs), 'pair')} of {_count(count, 'prompt')} from {_count(len(prompts), 'picture')}, by "
        f"{reward_name}; margins {short_number(margins[0])} to {short_number(margins[-1])}, median "
        f"{short_number(margins[len(margins) // 2])}."
    )
    left_out = [
        (found.ties, f"{_count(found.ties, 'tie')}"),
        (found.blocked, f"{_count(found.blocked, 'picture')} held back by the safety gate"),
        (found.lonely, f"{_count(found.lonely, 'prompt')} with a single picture"),
    ]
    told = ", ".join(words for number, words in left_out if number)
    return f"{text} Left out: {told}." if told else text


def pair_sheet(
    found: PairSet, pictures: Sequence[torch.Tensor], prompts: Sequence[str], reward_name: str
) -> Image.Image:
    """Draw the pairs, the chosen picture at the left in a frame; of many pairs a dozen, spread over the set."""
    shown = _spread(found.pairs)
    cell = 2 * _SIDE + _BETWEEN
    rows = -(-len(shown) // _COLUMNS)
    columns = min(_COLUMNS, len(shown))
    width = max(2 * _EDGE + columns * cell + (columns - 1) * _GAP, 640)
    canvas = Canvas(width, _HEADER + rows * (_SIDE + _BELOW) + 8)
    title = f"{_count(len(found.pairs), 'pair')}: chosen and rejected"
    if len(shown) < len(found.pairs):
        title += f"  ·  {len(shown)} of them shown"
    canvas.text(_EDGE, 14, title, size=22, bold=True)
    for line, text in enumerate(wrapped(summary(found, prompts, reward_name), width - 2 * _EDGE, size=13, lines=2)):
        canvas.text(_EDGE, 46 + 17 * line, text, size=13, colour=MUTED)
    for number, pair in enumerate(shown):
        left = _EDGE + number % _COLUMNS * (cell + _GAP)
        top = _HEADER + number // _COLUMNS * (_SIDE + _BELOW)
        _draw(canvas, pair, found.scores, pictures, left, top)
    return canvas.finish()


def _draw(
    canvas: Canvas, pair: ScoredPair, scores: Sequence[float], pictures: Sequence[torch.Tensor], left: int, top: int
) -> None:
    for place, index in enumerate((pair.chosen, pair.rejected)):
        x = left + place * (_SIDE + _BETWEEN)
        height, width = pictures[index].shape[:2]
        scale = _SIDE / max(height, width)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        inset = x + (_SIDE - size[0]) // 2, top + (_SIDE - size[1]) // 2
        canvas.picture(to_picture(pictures[index]), *inset, *size)
        if not place:
            canvas.frame(inset[0], inset[1], inset[0] + size[0], inset[1] + size[1], GOOD, width=3)
        label = short_number(round(scores[index], 4))
        canvas.text(x + _SIDE / 2, top + _SIDE + 11, label, size=13, colour=MUTED if place else GOOD, anchor="mm")
    for line, text in enumerate(wrapped(pair.prompt, 2 * _SIDE + _BETWEEN, size=12, lines=2)):
        canvas.text(left, top + _SIDE + 21 + 15 * line, text, size=12, colour=MUTED)


def _spread(pairs: Sequence[ScoredPair]) -> list[ScoredPair]:
    if len(pairs) <= _MOST:
        return list(pairs)
    return [pairs[place * len(pairs) // _MOST] for place in range(_MOST)]


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"
