"""The words that a prompt asks for, in quotation marks, and how much of them a reading holds. No model, no picture."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

# Words that begin with an apostrophe: after a space it looks like an opening quotation mark and is none.
_ELISIONS = r"(?!(?:n|em|til|tis|twas|cause|round|bout|\d0s)\b)"

# One alternative per kind of marks, tried from left to right. A mark after a digit is an inch (a 5" print); a straight
# single one opens only where a word begins and closes only where one ends, else it is an apostrophe.
_QUOTED = re.compile(
    r'(?<!\d)"(?P<straight>[^"]*)"'
    r"|[“„](?P<curly>[^“”„]+)[”“]"
    r"|«(?P<angular>[^«»]+)»"
    r"|»(?P<inward>[^«»]+)«"
    r"|[「『](?P<corner>[^「」『』]+)[」』]"
    rf"|(?<!\w)'{_ELISIONS}(?P<single>\S(?:[^'\"“”„«»]|(?<=\w)'(?=\w))*?)(?<!\s)'(?!\w)"
    r"|[‘‚](?P<curly_single>(?:[^‘’‚\"“”„«»]|(?<=\w)’(?=\w))+)[’‘](?!\w)"
)

# What a picture cannot be blamed for: a typeface draws these alike, and the reader returns any of them.
_ALIKE = str.maketrans({"’": "'", "‘": "'", "`": "'", "´": "'", "“": '"', "”": '"', "„": '"', "–": "-", "—": "-",
                        "‐": "-", "…": "..."})  # fmt: skip


def quoted_texts(prompt: str) -> list[str]:
    """What the prompt puts in quotation marks, in order; asked twice is there twice.

    Marks: "…" “…” „…“ „…” «…» »…« 「…」 ‘…’ and '…', the last only where it cannot be an apostrophe. A comma, semicolon
    or single full stop before the closing mark belongs to the sentence around it (American usage) and is not asked for.
    """
    found = []
    for match in _QUOTED.finditer(prompt):
        text = " ".join(match[match.lastgroup].split()).rstrip(",; ")
        if text.endswith(".") and not text.endswith(".."):
            text = text[:-1]
        if compact(text):
            found.append(text)
    return found


def compact(text: str, *, case_sensitive: bool = False) -> str:
    """The characters that are compared: without spaces, since a reader cannot tell a gap from a line's end."""
    text = unicodedata.normalize("NFKC", text.translate(_ALIKE))
    return "".join((text if case_sensitive else text.casefold()).split())


@dataclass(frozen=True)
class Found:
    """How well a reading holds what was asked.

    Attributes:
        shares: per asked text, the similarity of its best place in the reading, 0 … 1.
        other: share of the read characters that belong to no asked text, 0 … 1; 0 where nothing was read.
    """

    shares: tuple[float, ...]
    other: float


def find_texts(asked: Sequence[str], lines: Sequence[str], *, case_sensitive: bool = False) -> Found:
    """Look for texts in what was read.

    The reading is one row of words, line after line. A text q is compared with every run w of neighbouring words as
    s = 2 M / (|q| + |w|), M = characters in matching blocks (`difflib.SequenceMatcher`), spaces left out. The best
    pair of text and run is taken first, and no word serves two texts: what is asked twice must be there twice.

    Args:
        asked: texts, none of them blank.
        lines: lines in reading order.
        case_sensitive: HELLO and hello differ.
    """
    wanted = [compact(text, case_sensitive=case_sensitive) for text in asked]
    parts = {compact(word, case_sensitive=case_sensitive) for text in asked for word in text.split()}
    words = _words(lines, {*wanted, *parts}, case_sensitive)
    candidates = [
        (similarity, len(text), -number, -start, start, stop)
        for number, text in enumerate(wanted)
        for start, stop, similarity in _runs(text, words)
    ]
    shares, used = [0.0] * len(wanted), [False] * len(words)
    open_texts = set(range(len(wanted)))
    for similarity, _, number, _, start, stop in sorted(candidates, reverse=True):
        if -number in open_texts and not any(used[start:stop]):
            open_texts.remove(-number)
            shares[-number] = similarity
            used[start:stop] = [True] * (stop - start)
    total = sum(map(len, words))
    other = sum(len(word) for word, taken in zip(words, used, strict=True) if not taken)
    return Found(tuple(shares), other / total if total else 0.0)


def _words(lines: Sequence[str], known: set[str], case_sensitive: bool) -> list[str]:
    """The words of the reading. One that is nothing but asked texts in a row is taken apart: readers lose gaps."""
    found = []
    for word in (word for line in lines for word in line.split()):
        word = compact(word, case_sensitive=case_sensitive)
        found += _taken_apart(word, known) or [word]
    return [word for word in found if word]


def _taken_apart(word: str, known: set[str]) -> list[str]:
    """The word as a row of known texts, the longest last one first; [] if it is no such row."""
    rows: dict[int, list[str]] = {0: []}
    for end in range(1, len(word) + 1):
        fitting = [text for text in known if text and end - len(text) in rows and word.endswith(text, 0, end)]
        if fitting:
            text = max(fitting, key=len)
            rows[end] = [*rows[end - len(text)], text]
    return rows.get(len(word), [])


def _runs(text: str, words: Sequence[str]) -> list[tuple[int, int, float]]:
    """(start, stop, similarity) of the runs of words that are at most twice as long as the text."""
    found = []
    matcher = SequenceMatcher(autojunk=False)
    matcher.set_seq2(text)
    for start in range(len(words)):
        run = ""
        for stop in range(start + 1, len(words) + 1):
            run += words[stop - 1]
            if len(run) > 2 * len(text) and stop > start + 1:
                break
            matcher.set_seq1(run)
            similarity = matcher.ratio()
            if similarity > 0:
                found.append((start, stop, similarity))
    return found
