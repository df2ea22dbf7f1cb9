"""Names that people give: as one line in which every letter can be seen."""

from __future__ import annotations

import unicodedata

# Zero-width non-joiner and joiner; and letters that are drawn as nothing: Hangul's fillers, and Braille without dots.
_JOINERS = "\u200c\u200d"
_BLANK = "\u115f\u1160\u2800\u3164\uffa0"


def has_half_letter(text: str) -> bool:
    """Whether the text holds half of a character: JSON can, no file and no database can."""
    return any("\ud800" <= letter <= "\udfff" for letter in text)


def visible_line(text: str) -> str:
    """The text as one line without stray blanks and letters that nobody sees; "" if nothing is left to be seen."""
    line = "".join(" " if unicodedata.category(c) in ("Cc", "Zl", "Zp") else c for c in text)
    line = unicodedata.normalize("NFC", " ".join(_without_unseen(line).split()))
    return line if any(map(_is_seen, line)) else ""


def _without_unseen(text: str) -> str:
    """Without marks that change the direction of writing, or make two names of what looks like one.

    Joiners stay between the letters of scripts that are spelled with them, and between the parts of an emoji.
    """
    kept = ""
    for place, letter in enumerate(text):
        joins = letter in _JOINERS and _is_joined(kept[-1:]) and _is_joined(text[place + 1 : place + 2])
        if joins or unicodedata.category(letter) != "Cf":
            kept += letter
    return kept


def _is_joined(letter: str) -> bool:
    return bool(letter) and not letter.isascii() and unicodedata.category(letter)[0] in "LMS"


def _is_seen(letter: str) -> bool:
    return letter not in _BLANK and unicodedata.category(letter)[0] not in "MZ"
