"""The outcome of a blind test as one picture: the figures, the win rate with its interval, and every decided pair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from ..drawing import GOOD, GRID, MUTED, PANEL, TEXT, Canvas, wrapped
from .ab_pictures import StoredPicture
from .grid import shown_size

_LABELS, _EDGE, _GAP, _BLOCK_GAP = 190, 16, 10, 20
_NARROWEST = 760
_SCALE_HEIGHT, _HEADER = 86, 148
# Tests can have thousands of pairs; a picture of all of them would not open anywhere.
_MOST_PROMPTS, _MOST_SEEDS = 24, 12
_DECISIONS = {"A": "{a} is better", "B": "{b} is better", "even": "Hardly a difference", "open": "Still open"}


def result_grid(
    report: Mapping[str, Any],
    prompts: Sequence[str],
    seeds: Sequence[int],
    choices: Sequence[str | None],
    sides: Sequence[Sequence[StoredPicture]],
) -> Image.Image:
    """Draw the outcome.

    Args:
        report: of `Ballots.standing`.
        choices: one per pair, prompts outermost: "a", "b", "tie", or None where nobody voted: such a pair stays hidden,
            since the picture says which side is whose.
        sides: the pictures of A and of B, in the same order.
    """
    rows, columns = min(len(prompts), _MOST_PROMPTS), min(len(seeds), _MOST_SEEDS)
    width, height = shown_size(*sides[0][0].size)
    block = 2 * (height + _GAP) + _BLOCK_GAP
    hidden = len(prompts) * len(seeds) - rows * columns
    total = max(_LABELS + 2 * _EDGE + columns * (width + _GAP), _NARROWEST)
    canvas = Canvas(total, _HEADER + _SCALE_HEIGHT + 26 + rows * block + (24 if hidden else 0))
    _headline(canvas, report)
    _scale(canvas, report, _HEADER)
    top = _HEADER + _SCALE_HEIGHT
    canvas.text(_EDGE, top + 8, "green frame: preferred", size=13, colour=MUTED, anchor="lm")
    for column, seed in enumerate(seeds[:columns]):
        middle = _EDGE + _LABELS + column * (width + _GAP) + width / 2
        canvas.text(middle, top + 8, f"seed {seed}", size=13, colour=MUTED, anchor="mm")
    for row, prompt in enumerate(prompts[:rows]):
        first = top + 26 + row * block
        for line, text in enumerate(wrapped(prompt, _LABELS - 24, size=15, lines=5)):
            canvas.text(_EDGE, first + line * 20, text, size=15)
        for side, letter in enumerate("ab"):
            y = first + side * (height + _GAP)
            name = wrapped(report["names"][side], _LABELS - 24, size=14, lines=1)
            canvas.text(
                _EDGE + _LABELS - 14, y + height - 10, name[0] if name else "", size=14, colour=MUTED, anchor="rm"
            )
            for column in range(columns):
                index = row * len(seeds) + column
                x = _EDGE + _LABELS + column * (width + _GAP)
                _place(canvas, sides[side][index], choices[index], letter, (x, y, width, height))
    if hidden:
        words = f"{hidden} more pairs are counted and not drawn"
        canvas.text(_EDGE, canvas.height - 16, words, size=13, colour=MUTED, anchor="lm")
    return canvas.finish()


def _place(
    canvas: Canvas, picture: StoredPicture, choice: str | None, side: str, box: tuple[float, float, int, int]
) -> None:
    x, y, width, height = box
    if choice is None and not picture.blurred:
        canvas.panel(x, y, x + width, y + height)
        canvas.text(x + width / 2, y + height / 2, "no vote", size=13, colour=MUTED, anchor="mm")
        return
    canvas.picture(Image.fromarray(picture.pixels), x, y, width, height)
    if choice is None:
        canvas.text(x + width / 2, y + height / 2, "blurred", size=13, anchor="mm")
    elif choice == side:
        canvas.frame(x - 2, y - 2, x + width + 2, y + height + 2, GOOD, width=4)
    elif choice == "tie":
        canvas.frame(x - 1, y - 1, x + width + 1, y + height + 1, MUTED, width=1)


def _headline(canvas: Canvas, report: Mapping[str, Any]) -> None:
    a, b = report["names"]
    judge = "a person" if report["voter"] == "person" else report["reward"]
    rate, needed = report["win_rate"], report["still_needed"]
    title = "No votes yet" if rate is None else _DECISIONS[report["decision"]].format(a=a, b=b)
    colour = GOOD if report["decision"] in ("A", "B") else TEXT
    room = canvas.width - 2 * _EDGE
    canvas.text(_EDGE, 14, wrapped(title, room, size=22, lines=1)[0], size=22, bold=True, colour=colour)
    what = wrapped(f"{a} against {b}, judged by {judge}", room, size=14, lines=1)[0]
    canvas.text(_EDGE, 46, what, size=14, colour=MUTED)
    cells = [
        (b, "no votes yet" if rate is None else f"{100 * rate:.0f} % of {report['votes']} votes", TEXT),
        (
            f"{a} : {b}",
            f"{report['a']} : {report['b']}, {report['ties']} tie{'' if report['ties'] == 1 else 's'}",
            TEXT,
        ),
        ("Chance alone (p)", f"{report['p_value']:.2g}", TEXT),
        ("Votes still needed", "too early to say" if needed is None else str(needed), TEXT),
    ]
    if report["missing"]:
        cells.append(("Not voted on yet", str(report["missing"]), TEXT))
    if report["blurred"]:
        cells.append(("Held back", f"{report['blurred']} pairs", TEXT))
    width = (canvas.width - 2 * _EDGE + 8) / len(cells)
    for index, (name, figure, ink) in enumerate(cells):
        left = _EDGE + index * width
        canvas.panel(left, 74, left + width - 8, 128)
        canvas.text(left + 12, 89, wrapped(name, width - 28, size=13, lines=1)[0], size=13, colour=MUTED, anchor="lm")
        canvas.text(left + 12, 111, wrapped(figure, width - 28, size=16, lines=1)[0], size=16, colour=ink, anchor="lm")


def _scale(canvas: Canvas, report: Mapping[str, Any], top: float) -> None:
    """The win rate between A (left) and B (right) with its interval, on a line from 0 to 100 %."""
    a, b = report["names"]
    left, right, y = _EDGE + 8, canvas.width - _EDGE - 8, top + 26

    def at(share: float) -> float:
        return left + share * (right - left)

    canvas.line([(left, y), (right, y)], GRID, width=8)
    canvas.line([(at(0.5), y - 14), (at(0.5), y + 14)], MUTED, width=1)
    if report["win_rate"] is not None:
        low, high = report["interval"]
        colour = GOOD if report["decision"] in ("A", "B") else TEXT
        canvas.line([(at(low), y), (at(high), y)], colour, width=4)
        canvas.dot(at(report["win_rate"]), y, colour, radius=8)
        canvas.dot(at(report["win_rate"]), y, PANEL, radius=3)
    room = (right - left) / 2 - 190
    canvas.text(left, y + 26, wrapped(f"always {a}", room, size=13, lines=1)[0], size=13, colour=MUTED, anchor="lm")
    canvas.text(right, y + 26, wrapped(f"always {b}", room, size=13, lines=1)[0], size=13, colour=MUTED, anchor="rm")
    canvas.text(
        at(0.5),
        y + 26,
        "50 %   (95 % interval, may be watched while votes come in)",
        size=13,
        colour=MUTED,
        anchor="mm",
    )
