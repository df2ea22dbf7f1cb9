"""Whether an edited prompt is what a written feedback asks for: the conditions of _feedbacks.json.

has, keeps    words that must stand in the prompt, as whole words; "a|b" = either
lacks         words that must not
negative_has  the same of the negative prompt
weaker        said less strongly: less emphasis than before, gone, softened ("slightly rainy"), or negative
stronger      said more strongly: more emphasis, newly there, or strengthened ("very bright")
unchanged     both prompts are as they were, letter for letter
said          the person is told that something was not understood, or is asked
any           one of several such sets of conditions
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_suffix(".json")
_EMPHASIS = re.compile(r"\(([^()]*?)(?::\s*(-?\d*\.?\d+))?\)")
_SOFTER = r"(?:slightly|somewhat|a bit|a little|less|few|fewer|little|subtle|faint|soft|light|some|lightly)"
_STRONGER = (
    r"(?:very|more|much|many|lots of|a lot of|plenty of|extremely|bright|strong|intense|abundant|full of|extra|highly)"
)


def entries(half: str | None = None) -> list[dict[str, Any]]:
    """The feedbacks; `half` is "seen" or "held out"."""
    found = json.loads(FILE.read_text(encoding="utf-8"))
    return [entry for entry in found if half in (None, entry["half"])]


def plain(text: str) -> str:
    """A prompt in lower case without emphasis, hyphens as spaces."""
    while _EMPHASIS.search(text):
        text = _EMPHASIS.sub(r"\1", text)
    return " ".join(text.lower().replace("-", " ").split())


def holds(text: str, words: str) -> bool:
    return any(re.search(rf"(?<!\w){re.escape(plain(word))}(?!\w)", plain(text)) for word in words.split("|"))


def weight(text: str, word: str) -> float:
    """The emphasis of the brackets around a word; 0 if the prompt does not hold it."""
    if not holds(text, word):
        return 0.0
    found = [match for match in _EMPHASIS.finditer(text) if holds(match[1], word)]
    return float(found[0][2] or 1.1) if found else 1.0


def met(entry: Mapping[str, Any], prompt: str, negative: str, *, said: bool) -> bool:
    """Whether an outcome fulfils all conditions of an entry.

    Args:
        entry: one of `entries`.
        prompt, negative: after the edit.
        said: whether the person is told or asked about something.
    """
    return _met(entry["expect"], entry, prompt, negative, said)


def _met(expect: Mapping[str, Any], entry: Mapping[str, Any], prompt: str, negative: str, said: bool) -> bool:
    before = entry["prompt"]
    checks = [
        *(holds(prompt, words) for words in [*expect.get("has", ()), *expect.get("keeps", ())]),
        *(not holds(prompt, words) for words in expect.get("lacks", ())),
        *(holds(negative, words) for words in expect.get("negative_has", ())),
        *(
            any(_weaker(before, prompt, negative, word) for word in words.split("|"))
            for words in expect.get("weaker", ())
        ),
        *(_stronger(before, prompt, words) for words in expect.get("stronger", ())),
    ]
    if expect.get("unchanged"):
        checks.append((prompt, negative) == (before, entry["negative"]))
    if expect.get("said"):
        checks.append(said)
    if "any" in expect:
        checks.append(any(_met(option, entry, prompt, negative, said) for option in expect["any"]))
    return all(checks)


def _weaker(before: str, prompt: str, negative: str, word: str) -> bool:
    was, now = weight(before, word), weight(prompt, word)
    softened = re.search(rf"\b{_SOFTER} (?:\w+ )?{re.escape(word)}\b", plain(prompt)) is not None
    return (was > 0 and now < was) or softened or (holds(negative, word) and now == was)


def _stronger(before: str, prompt: str, word: str) -> bool:
    strengthened = re.search(rf"\b{_STRONGER} (?:\w+ )?{re.escape(word)}\b", plain(prompt)) is not None
    return weight(prompt, word) > weight(before, word) or strengthened
