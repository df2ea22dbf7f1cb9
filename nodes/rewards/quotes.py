"""The words that a prompt asks for, in quotation marks, and how much of them a reading holds. No model, no picture."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
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


# Pairs of characters that are compared in search of one text: about a second. Only where a text of a hundred characters
# is nowhere in a reading of a hundred words do the runs that might fit best amount to more.
MOST_COMPARISONS = 4_000_000


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


def find_texts(
    asked: Sequence[str],
    lines: Sequence[str],
    *,
    case_sensitive: bool = False,
    between: Callable[[], None] = lambda: None,
) -> Found:
    """Look for texts in what was read.

    The reading is one row of words, line after line. A text q is compared with every run w of neighbouring words as
    s = 2 M / (|q| + |w|), M = characters in matching blocks (`difflib.SequenceMatcher`), spaces left out. The best
    pair of text and run is taken first, and no word serves two texts: what is asked twice must be there twice. In a
    long text with a long reading only the most promising runs are compared (`MOST_COMPARISONS`).

    Args:
        asked: texts, none of them blank.
        lines: lines in reading order.
        case_sensitive: HELLO and hello differ.
        between: called often; what it raises ends the search.
    """
    wanted = [compact(text, case_sensitive=case_sensitive) for text in asked]
    parts = {compact(word, case_sensitive=case_sensitive) for text in asked for word in text.split()}
    words = _words(lines, {*wanted, *parts}, case_sensitive)
    shares, used = [0.0] * len(wanted), [False] * len(words)
    searches = {number: _Search(text, words, between) for number, text in enumerate(wanted)}
    best = {number: search.best(used) for number, search in searches.items()}
    while found := {number: run for number, run in best.items() if run is not None}:
        number = max(found, key=lambda number: (found[number].similarity, len(wanted[number]), -number))
        run = found.pop(number)
        shares[number] = run.similarity
        used[run.start : run.stop] = [True] * (run.stop - run.start)
        best = {
            other: searches[other].best(used) if any(used[taken.start : taken.stop]) else taken
            for other, taken in found.items()
        }
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


@dataclass(frozen=True)
class _Run:
    """Words start … stop − 1 of a reading, and how similar they are to a text, or can be at most."""

    start: int
    stop: int
    similarity: float


class _Search:
    """Finds the best run of words for one text.

    Runs are at most twice as long as the text, but for single words. Their matching blocks are a common subsequence, so
    that 2 · LCS / (|q| + |w|), which is quickly known, is the most that a run can reach: runs are compared in that
    order, until none can be better.
    """

    def __init__(self, text: str, words: Sequence[str], between: Callable[[], None]) -> None:
        self.text, self.words, self.between = text, words, between
        self.matcher = SequenceMatcher(autojunk=False)
        self.matcher.set_seq2(text)
        self.known: dict[tuple[int, int], float] = {}
        # Among equals the first, and of those the longest.
        self.runs = sorted(self._bounded(), key=lambda run: (-run.similarity, run.start, -run.stop))

    def best(self, used: Sequence[bool]) -> _Run | None:
        """The most similar run of unused words; of equal ones the first, and of those the longest."""
        best, left = None, MOST_COMPARISONS
        for bound in self.runs:
            if best is not None and bound.similarity < best.similarity:
                break
            if any(used[bound.start : bound.stop]):
                continue
            place = bound.start, bound.stop
            if place not in self.known:
                run = "".join(self.words[slice(*place)])
                left -= len(run) * len(self.text)
                if left < 0 and best is not None:
                    break
                self.between()
                self.matcher.set_seq1(run)
                self.known[place] = self.matcher.ratio()
            found = _Run(*place, self.known[place])
            if best is None or (found.similarity, -found.start, found.stop) > (best.similarity, -best.start, best.stop):
                best = found
        return best

    def _bounded(self) -> Iterator[_Run]:
        """All runs that have a character in common with the text, with the most they can reach."""
        places: dict[str, int] = {}
        for index, character in enumerate(self.text):
            places[character] = places.get(character, 0) | 1 << index
        everything = (1 << len(self.text)) - 1
        for start in range(len(self.words)):
            self.between()
            length, row = 0, everything
            for stop in range(start + 1, len(self.words) + 1):
                word = self.words[stop - 1]
                length += len(word)
                if length > 2 * len(self.text) and stop > start + 1:
                    break
                # Hyyrö 2004, "Bit-parallel LCS-length computation revisited": a zero per character of the subsequence.
                for character in word:
                    matches = row & places.get(character, 0)
                    row = (row + matches | row - matches) & everything
                common = len(self.text) - row.bit_count()
                if common:
                    yield _Run(start, stop, 2.0 * common / (len(self.text) + length))
