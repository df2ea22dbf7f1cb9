"""The picture of Inspect Preference: some pairs, and how far each measure moved."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image

from ..drawing import COLOURS, GRID, MUTED, TEXT, Canvas, nice_ticks, to_picture, wrapped
from .inspecting import LEAST_PAIRS, Shift, number_words

WIDTH = 960
_EDGE, _GAP, _ROW = 24, 10, 34
_SHOWN = 6
_LABEL = 220
_BAR = COLOURS["reward"]
NOTE = "left: less, right: more; 1 = as far as the pictures without differ among each other; whiskers: 95 % interval"
TOO_FEW = f"left: less, right: more; without whiskers: fewer than {LEAST_PAIRS} pairs cannot be told from chance"
OWN_UNITS = "in its own units"


def inspection_chart(
    pairs: Sequence[tuple[torch.Tensor, torch.Tensor]], shifts: Sequence[Shift], *, title: str
) -> Image.Image:
    """Pairs in columns, without above and with below; under them a bar per measure with its interval.

    Args:
        pairs: pictures [h, w, 3].
    """
    shown = pairs[:: max(1, len(pairs) // _SHOWN)][:_SHOWN]
    columns = max(3, len(shown))
    width = (WIDTH - 2 * _EDGE - 60 - (columns - 1) * _GAP) // columns
    height = max(round(width * picture.shape[0] / picture.shape[1]) for picture, _ in shown)
    head = 84
    bars = head + 2 * (height + _GAP) + 26
    canvas = Canvas(WIDTH, round(bars + 24 + len(shifts) * _ROW + 30 + 52))
    canvas.text(_EDGE, 16, wrapped(title, WIDTH - 2 * _EDGE, size=22, lines=1)[0], size=22, bold=True)
    canvas.text(
        _EDGE, 48, f"{len(pairs)} pair{'' if len(pairs) == 1 else 's'} of the same prompts and seeds", colour=MUTED
    )
    for row, words in enumerate(("without", "with")):
        top = head + row * (height + _GAP)
        canvas.text(_EDGE, top + height / 2, words, colour=MUTED, anchor="lm")
        for column, pair in enumerate(shown):
            own = pair[row]
            tall = round(width * own.shape[0] / own.shape[1])
            left = _EDGE + 60 + column * (width + _GAP)
            canvas.picture(to_picture(own), left, top + (height - tall) // 2, width, tall)
    _bars(canvas, shifts, bars)
    note = NOTE if all(found.bounded for found in shifts) else TOO_FEW
    canvas.text(_EDGE, canvas.height - 32, note, size=13, colour=MUTED)
    return canvas.finish()


def _bars(canvas: Canvas, shifts: Sequence[Shift], top: float) -> None:
    bottom = top + 24 + len(shifts) * _ROW + 30
    canvas.panel(_EDGE, top, WIDTH - _EDGE, bottom)
    left, right = _EDGE + _LABEL, WIDTH - _EDGE - 96
    reach = max([0.5, *(abs(edge) for found in shifts for edge in (found.value, *_whiskers(found)))]) * 1.06
    middle, scale = (left + right) / 2, (right - left) / 2 / reach
    for tick in nice_ticks(-reach, reach, 7):
        x = middle + tick * scale
        canvas.line([(x, top + 14), (x, bottom - 30)], MUTED if tick == 0 else GRID, width=1.4 if tick == 0 else 1)
        canvas.text(x, bottom - 18, f"{tick:+g}".replace("-", "−") if tick else "0", size=12, colour=MUTED, anchor="mm")
    for number, found in enumerate(shifts):
        y = top + 14 + (number + 0.5) * _ROW
        colour = _BAR if found.certain else MUTED
        name = wrapped(found.name, _LABEL - 40, size=15, lines=1)[0]
        ink = TEXT if found.certain else MUTED
        canvas.text(_EDGE + 18, y - 6 * found.own_units, name, size=15, colour=ink, anchor="lm")
        if found.own_units:
            canvas.text(_EDGE + 18, y + 10, OWN_UNITS, size=11, colour=MUTED, anchor="lm")
        canvas.line([(middle, y), (middle + found.value * scale, y)], colour, width=12)
        whiskers = [middle + edge * scale for edge in _whiskers(found)]
        if whiskers:
            canvas.line([(x, y) for x in whiskers], TEXT, width=1.6)
        for x in whiskers:
            canvas.line([(x, y - 5), (x, y + 5)], TEXT, width=1.6)
        told = number_words(found, found.value) if found.certain else "unclear"
        canvas.text(WIDTH - _EDGE - 18, y, told, size=15, colour=ink, anchor="rm")


def _whiskers(found: Shift) -> tuple[float, ...]:
    """The interval's ends; none where it has no bounds."""
    return (found.low, found.high) if found.bounded else ()
