"""Lettering for charts: a font that has the letters of the text, on any system and offline."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from PIL import ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

# The font inside Pillow holds Latin only. These come with Windows, macOS and most Linux desktops; Pillow looks for the
# bare file name in the system's font folders.
_SYSTEM_FONTS = (
    "DejaVuSans.ttf",
    "segoeui.ttf",
    "Arial Unicode.ttf",
    "NotoSansCJK-Regular.ttc",
    "NotoSansCJKsc-Regular.otf",
    "msyh.ttc",
    "YuGothM.ttc",
    "malgun.ttf",
    "PingFang.ttc",
    "Hiragino Sans GB.ttc",
    "wqy-microhei.ttc",
    "DroidSansFallbackFull.ttf",
)
_ABSENT = "\U0010fffe"


def font_name(texts: Iterable[str]) -> str | None:
    """The first font that has every letter of the texts, else the one that lacks the fewest; for `load_font`."""
    return _choose(frozenset(letter for text in texts for letter in text if not letter.isspace()))


@lru_cache(maxsize=64)
def _choose(letters: frozenset[str]) -> str | None:
    best, fewest = None, _lacking(load_font(None, 16), letters)
    for name in _SYSTEM_FONTS if fewest else ():
        try:
            lacking = _lacking(load_font(name, 16), letters)
        except OSError:
            continue
        if lacking < fewest:
            best, fewest = name, lacking
        if not fewest:
            break
    return best


@lru_cache(maxsize=64)
def load_font(name: str | None, size: int) -> Font:
    """A font of `size` pixels; None is the one inside Pillow.

    Raises:
        OSError: this system has no font file of that name.
    """
    return ImageFont.load_default(size) if name is None else ImageFont.truetype(name, size)


def _lacking(font: Font, letters: frozenset[str]) -> int:
    """How many letters the font draws as its empty box."""
    if not isinstance(font, ImageFont.FreeTypeFont):
        return sum(not letter.isascii() for letter in letters)
    box = bytes(font.getmask(_ABSENT))
    return sum(not letter.isascii() and bytes(font.getmask(letter)) == box for letter in letters)


def shorten(text: str, font: Font, width: float) -> str:
    """The text, cut with an ellipsis so that it is at most `width` pixels wide."""
    text = " ".join(text.split())
    if font.getlength(text) <= width:
        return text
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        if font.getlength(text[:middle].rstrip(" ,.;") + "…") <= width:
            low = middle
        else:
            high = middle - 1
    return text[:low].rstrip(" ,.;") + "…"
