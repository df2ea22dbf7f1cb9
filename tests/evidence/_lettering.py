"""Pictures with words, and with the same words misspelt in the same style: what `ocr-reward` is measured on."""

from __future__ import annotations

import importlib.util
import random
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

TEXTS = (
    "OPEN", "Sale", "Bakery", "hello", "Welcome", "coffee", "Hotel", "TAXI", "museum", "Library", "garden", "Cinema",
    "PIZZA", "flowers", "Harbour", "station", "Midnight", "MUSIC", "orange", "Pharmacy", "theatre", "Rainbow",
    "SUMMER", "winter", "Mountain", "bicycle", "Lighthouse", "DANGER", "exit", "Castle", "breakfast", "Kitchen",
    "JAZZ", "secret", "Festival", "market", "Bridge", "SPACE", "dragon", "Adventure", "birthday", "Captain",
    "FREEDOM", "picnic", "Thunder", "whisper", "Butterfly", "GALAXY", "island", "Journey", "lemonade", "Magic",
    "NORTH", "ocean", "Penguin", "quiet", "Robot", "SUNRISE", "tiger", "Umbrella", "village", "Wizard", "YELLOW",
    "zebra", "Antique", "balloon", "Chocolate", "DIAMOND", "elephant", "Firefly", "gallery", "Honey", "ICEBERG",
    "jungle", "Kingdom", "lantern", "Mirror", "NOTEBOOK", "orchard", "Painter", "question", "River", "SILVER",
    "tomorrow", "Universe", "velvet", "Waterfall", "workshop", "Grand Opening", "Happy Birthday", "FRESH BREAD",
    "No Parking", "thank you", "Good Morning", "HOT COFFEE", "Rock Festival", "home sweet home", "Open Daily",
    "LOST CITY", "Blue Moon", "keep calm", "Farmers Market", "LAST TRAIN", "Book Fair", "wild roses", "Winter Sale",
    "THE END", "Dream Big", "live music", "Golden Hour",
)  # fmt: skip
FONT_FILES = (
    "DejaVuSans.ttf", "DejaVuSans-Bold.ttf", "DejaVuSans-ExtraLight.ttf", "DejaVuSans-Oblique.ttf",
    "DejaVuSansCondensed-Bold.ttf", "DejaVuSansMono.ttf", "DejaVuSansMono-Bold.ttf", "DejaVuSerif.ttf",
    "DejaVuSerif-Bold.ttf", "DejaVuSerif-Italic.ttf", "DejaVuSerifCondensed-BoldItalic.ttf", "arial.ttf", "times.ttf",
    "georgiai.ttf", "cour.ttf", "impact.ttf", "Helvetica.ttc", "Times.ttc", "Courier.ttc", "LiberationSans-Regular.ttf",
    "LiberationSerif-Bold.ttf",
)  # fmt: skip
SIZES = ((256, 256), (384, 256), (384, 384), (512, 512), (768, 512), (512, 768), (768, 768), (1024, 1024))
BACKGROUNDS = ("flat", "gradient", "stripes", "blobs", "noise")
LETTERS = "abcdefghijklmnopqrstuvwxyz"
# Lines a reader of 20/20 would still read: ratio of luminances as of WCAG 2, 3 is its limit for large text.
LEAST_CONTRAST = 3.0
LEAST_LETTERS = 16


@dataclass(frozen=True)
class Style:
    """Everything about a picture but its words."""

    size: tuple[int, int]
    font: str
    letters: int
    ink: tuple[int, int, int]
    paper: tuple[int, int, int]
    background: str
    place: tuple[float, float]
    angle: float
    stacked: bool
    seed: int

    def as_dict(self) -> dict[str, Any]:
        return {"size": list(self.size), "font": self.font, "letters": self.letters, "background": self.background,
                "angle": round(self.angle, 1)}  # fmt: skip


def fonts() -> list[str]:
    """What this system can write with: font files, Pillow's own font, and OpenCV's where it has outlines."""
    found = ["Pillow"]
    for name in FONT_FILES:
        try:
            ImageFont.truetype(name, 20)
        except OSError:
            continue
        found.append(name)
    if importlib.util.find_spec("cv2"):
        import cv2

        if hasattr(cv2, "FontFace"):
            found += ["OpenCV sans", "OpenCV italic"]
    return found


def misspelt(text: str, rng: random.Random) -> tuple[str, str]:
    """One random edit of one letter within its word, in the letter's own case; never what is read as the same.

    Returns:
        (the text, the kind of the edit: substitute, drop, swap or double).
    """
    while True:
        kind = rng.choice(("substitute", "drop", "swap", "double"))
        at = rng.choice([index for index, letter in enumerate(text) if letter.isalpha()])
        letter = text[at]
        if kind == "substitute":
            new = rng.choice([other for other in LETTERS if other != letter.lower()])
            changed = text[:at] + (new.upper() if letter.isupper() else new) + text[at + 1 :]
        elif kind == "drop":
            changed = text[:at] + text[at + 1 :]
        elif kind == "double":
            changed = text[: at + 1] + letter + text[at + 1 :]
        else:
            changed = text[:at] + text[at + 1 : at + 2] + letter + text[at + 2 :]
        # A letter that trades places with a gap moves the gap only, which no reader sees.
        gaps_stay = [len(word) for word in changed.split()] == [len(word) for word in text.split()]
        if (gaps_stay or kind in ("drop", "double")) and changed.lower() != text.lower() and "  " not in changed:
            return changed, kind


def random_style(rng: random.Random, names: list[str], text: str) -> Style:
    """A style in which the text fits and can be told from its background."""
    size = rng.choice(SIZES)
    font = rng.choice(names)
    stacked = " " in text and rng.random() < 0.5
    # One letter more must fit as well.
    longest = max(len(line) for line in _lines(text, stacked)) + 1
    room = 0.86 * size[0] / (0.72 * longest)
    letters = max(LEAST_LETTERS, round(min(room, 0.3 * size[1]) * rng.uniform(0.45, 1.0)))
    while True:
        ink, paper = (tuple(rng.randrange(256) for _ in range(3)) for _ in range(2))
        if contrast(ink, paper) >= LEAST_CONTRAST + 1:
            break
    place = (rng.uniform(0, 1), rng.uniform(0, 1))
    background = rng.choice(BACKGROUNDS)
    return Style(size, font, letters, ink, paper, background, place, rng.uniform(-6, 6), stacked, rng.randrange(2**31))


def contrast(first: tuple[int, ...], second: tuple[int, ...]) -> float:
    """Ratio of relative luminances, 1 … 21 (WCAG 2.2)."""
    light = []
    for colour in (first, second):
        linear = [(c / 255 / 12.92) if c / 255 <= 0.04045 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour]
        light.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2])
    return (max(light) + 0.05) / (min(light) + 0.05)


def _lines(text: str, stacked: bool) -> list[str]:
    return text.split() if stacked else [text]


def render(text: str, style: Style) -> np.ndarray:
    """The text in that style, uint8 [h, w, 3]. Nothing but the letters depends on the text."""
    width, height = style.size
    mask = _letters(_lines(text, style.stacked), style).rotate(style.angle, Image.Resampling.BICUBIC, expand=True)
    if mask.width > 0.94 * width or mask.height > 0.94 * height:
        scale = min(0.94 * width / mask.width, 0.94 * height / mask.height)
        mask = mask.resize((round(mask.width * scale), round(mask.height * scale)), Image.Resampling.LANCZOS)
    free = (width - mask.width, height - mask.height)
    corner = tuple(round(room * (0.1 + 0.8 * share)) for room, share in zip(free, style.place, strict=True))
    picture = Image.fromarray(_background(style))
    picture.paste(Image.new("RGB", mask.size, style.ink), corner, mask)
    return np.asarray(picture)


def _letters(lines: list[str], style: Style) -> Image.Image:
    """The letters alone, as a mask that fits them."""
    wide, high = max(len(line) for line in lines) * style.letters * 2, len(lines) * style.letters * 3
    if style.font.startswith("OpenCV"):
        import cv2

        canvas = np.zeros((high, wide, 3), np.uint8)
        face = cv2.FontFace(style.font.split()[1])
        for number, line in enumerate(lines):
            cv2.putText(canvas, line, (style.letters // 2, round(style.letters * (1.4 + 1.3 * number))),
                        (255, 255, 255), face, style.letters)  # fmt: skip
        mask = Image.fromarray(canvas[..., 0].copy())
    else:
        mask = Image.new("L", (wide, high))
        name = None if style.font == "Pillow" else style.font
        font = ImageFont.load_default(style.letters) if name is None else ImageFont.truetype(name, style.letters)
        ImageDraw.Draw(mask).multiline_text((style.letters // 2, style.letters // 2), "\n".join(lines), 255, font=font)
    return mask.crop(mask.getbbox())


def _background(style: Style) -> np.ndarray:
    """uint8 [h, w, 3]: the paper, never darker or lighter than keeps the letters legible."""
    rng = np.random.default_rng(style.seed)
    width, height = style.size
    paper = np.array(style.paper, dtype=float)
    rows, columns = np.mgrid[0:height, 0:width].astype(float)
    if style.background == "gradient":
        share = (rows / height + columns / width) / 2
    elif style.background == "stripes":
        share = (np.sin((rows * rng.uniform(-1, 1) + columns) * 2 * np.pi / rng.uniform(24, 90)) > 0).astype(float)
    elif style.background == "blobs":
        share = np.zeros((height, width))
        for _ in range(12):
            radius = rng.uniform(0.08, 0.3) * width
            distance = (rows - rng.uniform(0, height)) ** 2 + (columns - rng.uniform(0, width)) ** 2
            share = np.maximum(share, np.exp(-distance / (2 * radius**2)))
    elif style.background == "noise":
        share = rng.uniform(0, 1, (height, width))
    else:
        share = np.zeros((height, width))
    other = _second_colour(style, rng)
    return (paper + share[..., None] * (other - paper)).clip(0, 255).round().astype(np.uint8)


def _second_colour(style: Style, rng: np.random.Generator) -> np.ndarray:
    for _ in range(200):
        colour = np.clip(np.array(style.paper) + rng.uniform(-90, 90, 3), 0, 255)
        if contrast(tuple(colour), style.ink) >= LEAST_CONTRAST:
            return colour
    return np.array(style.paper, dtype=float)
