"""What changed between two prompts, word by word."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from typing import Literal, NamedTuple

Kind = Literal["same", "added", "removed"]

# A number with its point, a word with its apostrophes and hyphens, white space, or a single other sign.
_TOKEN = re.compile(r"\d+(?:\.\d+)?|\w+(?:['’\-]\w+)*|\s+|.", re.DOTALL)
# Comparing takes time in the product of both lengths; no prompt that a person reads is longer.
_MOST_TOKENS = 4000
_MOST_SAME = 60


class DiffPart(NamedTuple):
    """A stretch of text with what became of it."""

    kind: Kind
    text: str


def prompt_diff(before: str, after: str) -> list[DiffPart]:
    """The parts of both prompts in reading order; where words were replaced, the old ones stand before the new ones.

    The texts of "same" and "removed" join to exactly `before`, those of "same" and "added" to exactly `after`. No part
    is empty, and no two neighbours are of one kind. Of texts beyond any real prompt, all between their common beginning
    and their common end counts as replaced.
    """
    old, new = _TOKEN.findall(before), _TOKEN.findall(after)
    return list(_merged(_bridged(list(_operations(old, new)))))


def _operations(old: Sequence[str], new: Sequence[str]) -> Iterator[DiffPart]:
    head = 0
    while head < min(len(old), len(new)) and old[head] == new[head]:
        head += 1
    tail = 0
    while tail < min(len(old), len(new)) - head and old[-1 - tail] == new[-1 - tail]:
        tail += 1
    old_middle, new_middle = old[head : len(old) - tail], new[head : len(new) - tail]
    yield DiffPart("same", "".join(old[:head]))
    if max(len(old_middle), len(new_middle)) > _MOST_TOKENS:
        yield DiffPart("removed", "".join(old_middle))
        yield DiffPart("added", "".join(new_middle))
    else:
        matcher = SequenceMatcher(None, old_middle, new_middle, autojunk=False)
        for tag, a, b, c, d in matcher.get_opcodes():
            if tag == "equal":
                yield DiffPart("same", "".join(old_middle[a:b]))
            else:
                yield DiffPart("removed", "".join(old_middle[a:b]))
                yield DiffPart("added", "".join(new_middle[c:d]))
    yield DiffPart("same", "".join(old[len(old) - tail :]))


def _bridged(parts: Sequence[DiffPart]) -> Iterator[DiffPart]:
    """Have a space or comma between two changes count as changed: three words replaced are one phrase to a reader."""
    parts = [part for part in parts if part.text]
    for index, part in enumerate(parts):
        inside = 0 < index < len(parts) - 1
        if part.kind == "same" and inside and not re.search(r"\w", part.text):
            yield DiffPart("removed", part.text)
            yield DiffPart("added", part.text)
        else:
            yield part


def _merged(parts: Iterator[DiffPart]) -> Iterator[DiffPart]:
    """Join neighbours: between two "same" at most one "removed", then at most one "added"."""
    removed = added = same = ""
    for part in parts:
        if part.kind == "same":
            if removed or added:
                yield from _part("same", same)
                yield from _part("removed", removed)
                yield from _part("added", added)
                removed = added = same = ""
            same += part.text
        elif part.kind == "removed":
            removed += part.text
        else:
            added += part.text
    for kind, text in (("same", same), ("removed", removed), ("added", added)):
        yield from _part(kind, text)


def _part(kind: Kind, text: str) -> Iterator[DiffPart]:
    if text:
        yield DiffPart(kind, text)


def diff_line(parts: Sequence[DiffPart]) -> str:
    """A diff as one line for people: "a cat on a [−red] [+blue] background"; "no change" where nothing changed.

    Long unchanged stretches are shortened in the middle.
    """
    if all(part.kind == "same" for part in parts):
        return "no change"
    return " ".join(filter(None, map(_shown, parts)))


def _shown(part: DiffPart) -> str:
    text = " ".join(part.text.split())
    if not text:
        return ""
    if part.kind == "same":
        half = _MOST_SAME // 2
        return text if len(text) <= _MOST_SAME else f"{text[:half].rstrip()} … {text[-half:].lstrip()}"
    return f"[{'+' if part.kind == 'added' else '−'}{text}]"
