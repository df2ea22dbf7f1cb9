"""Ink for charts: a dark theme, a font that every machine has, text that fits. Pillow only.

Everything is drawn at twice its size and shrunk, since Pillow does not smooth lines.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw

from .fonts import Font, font_name, load_font

BACKGROUND = "#14171c"
PANEL = "#1c2027"
GRID = "#2d333d"
TEXT = "#eceef2"
MUTED = "#9aa4b2"
GOOD = "#6ecb8b"
BAD = "#ef7d7d"
COLOURS = {"loss": "#f2a65a", "reward": "#4fb6f5", "held_out_reward": "#b79cf7", "held_out_accuracy": "#6ecb8b"}

_SCALE = 2


def _font(text: str, size: int) -> Font:
    latin = all(ord(letter) <= 0xFF or letter == "…" for letter in text)
    return load_font(None if latin else font_name([text]), size * _SCALE)


class Canvas:
    """A picture in the theme's colours, measured in final pixels.

    Args:
        width, height: pixels of the finished picture.
    """

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.image = Image.new("RGB", (width * _SCALE, height * _SCALE), BACKGROUND)
        self._draw = ImageDraw.Draw(self.image)

    def panel(self, left: float, top: float, right: float, bottom: float, *, fill: str = PANEL) -> None:
        self._draw.rounded_rectangle(_scaled(left, top, right, bottom), radius=8 * _SCALE, fill=fill)

    def line(self, points: Sequence[tuple[float, float]], colour: str, *, width: float = 1) -> None:
        """A polyline with round ends; one point becomes a dot."""
        flat = [(x * _SCALE, y * _SCALE) for x, y in points]
        thickness = max(1, round(width * _SCALE))
        if len(flat) > 1:
            self._draw.line(flat, fill=colour, width=thickness, joint="curve")
        elif flat:
            self.dot(*points[0], colour, radius=width)

    def area(self, points: Sequence[tuple[float, float]], colour: str) -> None:
        """A filled polygon."""
        self._draw.polygon([(x * _SCALE, y * _SCALE) for x, y in points], fill=colour)

    def dot(self, x: float, y: float, colour: str, *, radius: float = 3) -> None:
        self._draw.ellipse(_scaled(x - radius, y - radius, x + radius, y + radius), fill=colour)

    def frame(self, left: float, top: float, right: float, bottom: float, colour: str, *, width: float = 2) -> None:
        self._draw.rectangle(_scaled(left, top, right, bottom), outline=colour, width=round(width * _SCALE))

    def text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        size: int = 14,
        colour: str = TEXT,
        anchor: str = "la",
        bold: bool = False,
    ) -> float:
        """Draw one line of text and return its width; `anchor` as in Pillow ("la" left top, "mm" middle, …)."""
        face = _font(text, size)
        stroke = 1 if bold else 0
        self._draw.text((x * _SCALE, y * _SCALE), text, font=face, fill=colour, anchor=anchor, stroke_width=stroke)
        return text_width(text, size)

    def upright_text(self, x: float, y: float, text: str, *, size: int = 12, colour: str = MUTED) -> None:
        """Text turned a quarter to the left, centred on (x, y)."""
        width, height = math.ceil(text_width(text, size)) + 4, size + 8
        label = Canvas(width, height)
        label._draw.rectangle((0, 0, width * _SCALE, height * _SCALE), fill=PANEL)
        label.text(width / 2, height / 2, text, size=size, colour=colour, anchor="mm")
        turned = label.image.rotate(90, expand=True)
        self.image.paste(turned, (round(x * _SCALE - turned.width / 2), round(y * _SCALE - turned.height / 2)))

    def picture(self, image: Image.Image, left: float, top: float, width: int, height: int) -> None:
        """Paste a picture, resized to width × height final pixels."""
        box = (width * _SCALE, height * _SCALE)
        resized = image.convert("RGB").resize(box, Image.Resampling.LANCZOS)
        self.image.paste(resized, (round(left * _SCALE), round(top * _SCALE)))

    def finish(self) -> Image.Image:
        """The picture at its final size."""
        return self.image.resize((self.width, self.height), Image.Resampling.LANCZOS)


def _scaled(*values: float) -> tuple[float, ...]:
    return tuple(value * _SCALE for value in values)


def text_width(text: str, size: int) -> float:
    """Width of one line in final pixels."""
    return _font(text, size).getlength(text) / _SCALE


def wrapped(text: str, width: float, *, size: int, lines: int) -> list[str]:
    """Break a text into at most `lines` lines of `width` pixels; what does not fit ends in an ellipsis."""
    result: list[str] = []
    rest = " ".join(text.split())
    while rest:
        last = len(result) == lines - 1
        if text_width(rest, size) <= width:
            return [*result, rest]
        cut = len(rest)
        while cut > 1 and text_width(rest[:cut] + ("…" if last else ""), size) > width:
            cut -= 1
        if last:
            return [*result, rest[:cut].rstrip() + "…"]
        space = rest.rfind(" ", 1, cut + 1)
        cut = space if space > 0 else cut
        result.append(rest[:cut].rstrip())
        rest = rest[cut:].lstrip()
    return result


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round numbers that lie within [low, high]; equal bounds are widened first."""
    if not high > low:
        margin = abs(low) * 0.1 or 1.0
        low, high = low - margin, high + margin
    raw = (high - low) / max(1, count - 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(k * step, 12) for k in range(first, last + 1)]


def short_number(value: float) -> str:
    """Four significant digits, without a tail of zeros."""
    if value == 0:
        return "0"
    if not 1e-4 <= abs(value) < 1e6:
        return f"{value:.2g}"
    text = f"{value:.4g}" if abs(value) < 1e4 else f"{value:.0f}"
    return text.rstrip("0").rstrip(".") if "." in text and "e" not in text else text


def to_tensor(image: Image.Image) -> torch.Tensor:
    """A picture as the host's IMAGE: float32 [1, h, w, 3] in [0, 1]."""
    return torch.from_numpy(np.asarray(image.convert("RGB"), dtype=np.float32) / 255.0)[None]


def to_picture(image: torch.Tensor) -> Image.Image:
    """One image [h, w, 3] in [0, 1] as a picture."""
    return Image.fromarray((image.detach().float().clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy())
