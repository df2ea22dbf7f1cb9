"""The tree of versions as a picture: one line per LoRA, the chosen one marked."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from PIL import Image

from ..drawing import COLOURS, GOOD, GRID, MUTED, PANEL, TEXT, Canvas, short_number, text_width, wrapped
from .families import TITLES, Family, families
from .records import Entry

WIDTH = 900
MOST_ROWS = 24
METHODS = {
    "ddpo": "DDPO", "dag_db": "DAG-DB", "dag_kl": "DAG-KL", "refl": "ReFL", "draft": "DRaFT", "dpo": "DPO",
    "diffusion_dpo": "Diffusion-DPO", "merge": "merged",
}  # fmt: skip
_EDGE, _HEADER, _RUN, _ROW, _INDENT = 18, 78, 40, 34, 26
_FIGURE, _BAR = 590, 120
_CHOSEN = "#2a3547"


def method_name(method: str) -> str:
    """A method as people write it."""
    plain = method.lower().replace("-", "_")
    return METHODS.get(plain, plain.replace("_", " ").capitalize() if plain else "other tool")


def version_picture(entries: Sequence[Entry], chosen: Entry) -> Image.Image:
    """Draw the run of a LoRA and the runs that it is related to.

    Args:
        entries: of the catalogue.
        chosen: the one that is marked.
    """
    shown = related([entry for entry in entries if not entry.in_trash], chosen)
    rows = sum(min(len(family.versions), MOST_ROWS) for family in shown)
    canvas = Canvas(WIDTH, _HEADER + len(shown) * _RUN + rows * _ROW + 20)
    canvas.text(_EDGE, 16, _cut(chosen.title, WIDTH - 2 * _EDGE, 22), size=22, bold=True)
    canvas.text(_EDGE, 48, _cut(_details(chosen), WIDTH - 2 * _EDGE, 14), size=14, colour=MUTED)
    top = float(_HEADER)
    for family in shown:
        top = _family(canvas, family, chosen, top)
    return canvas.finish()


def related(entries: Sequence[Entry], chosen: Entry) -> list[Family]:
    """The families that are joined to the chosen LoRA's by parents, in the order of the tree."""
    tree = families(entries)
    runs = {entry.id: entry.run for entry in entries}
    links = {(entry.run, runs[parent.id]) for entry in entries for parent in entry.parents if parent.id in runs}
    joined = {chosen.run}
    while more := {run for pair in links if joined & set(pair) for run in pair} - joined:
        joined |= more
    return [family for family in tree if family.run in joined]


def _details(entry: Entry) -> str:
    parts = [method_name(entry.method)]
    if entry.steps:
        parts.append(f"{entry.steps} updates")
    if entry.rank:
        parts.append(f"rank {entry.rank}")
    if entry.reward:
        parts.append(f"reward: {entry.reward}")
    if entry.parents:
        parts.append("from " + " + ".join(f"{p.name or 'an unlisted LoRA'} ({p.strength:g})" for p in entry.parents))
    # The font that every machine has lacks this sign, which formulas of rewards are full of.
    return "  ·  ".join(parts).replace("×", "x")


def _family(canvas: Canvas, family: Family, chosen: Entry, top: float) -> float:
    left = _EDGE + family.depth * _INDENT
    canvas.text(left, top + 22, _cut(family.run, 480 - left, 16), size=16, anchor="lm", bold=True)
    if family.figure:
        name = TITLES[family.figure]
        canvas.text(_FIGURE, top + 22, name, size=13, colour=MUTED, anchor="lm")
    top += _RUN
    versions = family.versions[:MOST_ROWS]
    rail = left + 8
    if len(versions) > 1:
        canvas.line([(rail, top + _ROW / 2), (rail, top + (len(versions) - 0.5) * _ROW)], GRID, width=2)
    values = [0.0, *(entry.metrics[family.figure] for entry in versions if family.figure in entry.metrics)]
    for entry in versions:
        _version(canvas, entry, family.figure, (min(values), max(values)), chosen, left, top)
        top += _ROW
    return top


def _version(
    canvas: Canvas, entry: Entry, figure: str, bounds: tuple[float, float], chosen: Entry, left: float, top: float
) -> None:
    middle = top + _ROW / 2
    if entry.id == chosen.id:
        canvas.panel(left - 6, top + 2, WIDTH - _EDGE + 6, top + _ROW - 2, fill=_CHOSEN)
    promoted = entry.status == "promoted"
    canvas.dot(left + 8, middle, GOOD if promoted else MUTED, radius=6 if promoted else 4)
    colour = MUTED if entry.missing else TEXT
    x = left + 26
    x += canvas.text(x, middle, _number(entry), size=15, colour=colour, anchor="lm") + 12
    x += _badge(canvas, method_name(entry.method), x, middle, MUTED) + 8
    if promoted:
        x += _badge(canvas, "promoted", x, middle, GOOD) + 8
    words = "file missing" if entry.missing else ", ".join(entry.tags)
    canvas.text(x, middle, _cut(words, max(20.0, _FIGURE - 16 - x), 13), size=13, colour=MUTED, anchor="lm")
    if figure in entry.metrics:
        _figure(canvas, entry.metrics[figure], figure, bounds, middle)
    date = datetime.fromtimestamp(entry.created).strftime("%d %b %Y")
    canvas.text(WIDTH - _EDGE, middle, date, size=13, colour=MUTED, anchor="rm")


def _figure(canvas: Canvas, value: float, figure: str, bounds: tuple[float, float], middle: float) -> None:
    low, high = bounds
    share = (value - low) / (high - low) if high > low else 0.0
    colour = COLOURS.get(figure, COLOURS["reward"])
    canvas.text(_FIGURE, middle, short_number(round(value, 4)), size=14, anchor="lm")
    start = _FIGURE + 66
    canvas.line([(start, middle), (start + _BAR, middle)], PANEL, width=7)
    canvas.line([(start, middle), (start + max(4.0, share * _BAR), middle)], colour, width=7)


def _badge(canvas: Canvas, text: str, x: float, middle: float, colour: str) -> float:
    width = text_width(text, 12) + 14
    canvas.panel(x, middle - 10, x + width, middle + 10, fill=GRID)
    canvas.text(x + width / 2, middle, text, size=12, colour=colour, anchor="mm")
    return width


def _number(entry: Entry) -> str:
    return f"{entry.version:03d}{' stopped' if entry.stopped else ''}" if entry.version else Path(entry.file).stem


def _cut(text: str, width: float, size: int) -> str:
    lines = wrapped(text, width, size=size, lines=1)
    return lines[0] if lines else ""
