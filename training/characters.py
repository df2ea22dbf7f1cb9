"""Texts as the libraries' tokenizers take them."""

from __future__ import annotations


def whole_characters(text: str) -> str:
    """The text with U+FFFD in the place of every half of a character: a lone surrogate, of damaged JSON or a cut emoji.

    No text in UTF-8 can hold one, and the tokenizers refuse it. Halves that belong together become their character.
    """
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
