"""What a language model, ours or a stranger's, may say as a new prompt: read, and refused where it cannot be one."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .local_llm import CannotAnswer

# Letters of an answer as a whole, and of one of its fields.
LONGEST_ANSWER = 20_000
LONGEST_PROMPT = 4_000
# As many words in a row from the instructions are no coincidence.
_COPIED_WORDS = 6
# Feedback of so many words does not stand in a prompt as it was said.
_COPIED_FEEDBACK = 3
# An answer that only repeats itself: of so many words at least this share must be different.
_REPEATS_FROM, _LEAST_DIFFERENT = 24, 0.3
_FENCE = re.compile(r"^```[a-z]*\s*\n?|\n?```\s*$", re.IGNORECASE)
# How conversations mark who speaks; no part of a prompt.
_MARKS = re.compile(
    r"<\|[^|>]*\|>|\[/?INST\]|<</?SYS>>|</?(?:s|bos|eos|system|user|assistant|think)>|^#{2,}\s*(?:instruction|response|system)"
    r"|^\s*(?:system|user|assistant|human)\s*:",
    re.IGNORECASE | re.MULTILINE,
)


@dataclass(frozen=True)
class Answer:
    """A new prompt; the negative one is None where the answer said nothing of it."""

    prompt: str
    negative: str | None


def read_answer(text: str) -> Answer:
    """An answer as JSON with "prompt" and perhaps "negative", or as nothing but the prompt itself.

    Raises:
        CannotAnswer: it is neither, or what it says is no prompt.
    """
    if len(text) > LONGEST_ANSWER:
        raise CannotAnswer(f"the answer has {len(text)} letters, more than {LONGEST_ANSWER}")
    bare = _FENCE.sub("", text.strip()).strip()
    if not bare:
        raise CannotAnswer("there is no answer")
    if not (bare.startswith("{") and '"prompt"' in bare):
        return Answer(_checked(bare.strip('"'), "prompt"), None)
    try:
        values = json.loads(bare)
    except (ValueError, RecursionError) as error:
        raise CannotAnswer(f"the answer is no JSON ({error})") from None
    return _from_values(values)


def _from_values(values: Any) -> Answer:
    if not isinstance(values, Mapping) or "prompt" not in values:
        raise CannotAnswer('the answer has no "prompt"')
    unknown = sorted(set(values) - {"prompt", "negative"})
    if unknown:
        raise CannotAnswer(f'the answer has a field "{str(unknown[0])[:40]}", which means nothing here')
    prompt, negative = values["prompt"], values.get("negative")
    if negative is not None:
        negative = _checked(negative, "negative", empty=True)
    return Answer(_checked(prompt, "prompt"), negative)


def _checked(value: Any, name: str, *, empty: bool = False) -> str:
    if not isinstance(value, str):
        raise CannotAnswer(f'"{name}" is no text in the answer')
    text = " ".join(value.split())
    if not text and not empty:
        raise CannotAnswer(f'"{name}" is empty in the answer')
    if len(text) > LONGEST_PROMPT:
        raise CannotAnswer(f'"{name}" has {len(text)} letters in the answer, more than {LONGEST_PROMPT}')
    if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in text):
        raise CannotAnswer(f'"{name}" has control characters in the answer')
    if _MARKS.search(value):
        raise CannotAnswer(f'"{name}" has the marks of a conversation in the answer')
    return text


@dataclass(frozen=True)
class Asked:
    """What an answer is checked against.

    Attributes:
        prompt, negative: as they were.
        feedback: what was to change.
        edits: whether the rules found in the feedback something that changes the prompts.
        kept: things that must still be there.
    """

    prompt: str
    negative: str
    feedback: str
    edits: bool
    kept: Sequence[str] = ()


def check_answer(answer: Answer, asked: Asked, *, instructions: str) -> None:
    """Refuse an answer that is no answer to what was asked.

    Args:
        instructions: what the model was told besides, which it may not repeat; "" = unknown.

    Raises:
        CannotAnswer: says what is wrong with it.
    """
    words = _words(answer.prompt)
    told = " ".join(_words(instructions))
    own = " ".join([*_words(asked.prompt), "|", *_words(asked.feedback)])
    said = _words(asked.feedback)
    for start in range(len(words) - _COPIED_WORDS + 1):
        copied = " ".join(words[start : start + _COPIED_WORDS])
        if copied in told and copied not in own:
            raise CannotAnswer("it repeats the instructions instead of a prompt")
    if len(words) >= _REPEATS_FROM and len(set(words)) < _LEAST_DIFFERENT * len(words):
        raise CannotAnswer("it repeats itself")
    if asked.prompt.strip() and not set(words) & ({*_words(asked.prompt), *said} - _SMALL):
        raise CannotAnswer("it has no word of the prompt or the feedback")
    written, had = (
        f"{' '.join(_words(one))} | {' '.join(_words(two))}"
        for one, two in ((answer.prompt, answer.negative or ""), (asked.prompt, asked.negative))
    )
    if len(said) >= _COPIED_FEEDBACK and " ".join(said) in written and " ".join(said) not in had:
        raise CannotAnswer("it repeats the feedback instead of following it")
    negative = asked.negative if answer.negative is None else answer.negative
    if asked.edits and (answer.prompt, negative) == (" ".join(asked.prompt.split()), " ".join(asked.negative.split())):
        raise CannotAnswer("it changed nothing")
    lost = [thing for thing in asked.kept if " ".join(_words(thing)) not in " ".join(words)]
    if lost:
        raise CannotAnswer(f'it lost "{lost[0]}", which is kept')


# Words that two texts may share without speaking of the same.
_SMALL = frozenset(
    {"a", "an", "the", "of", "and", "or", "in", "on", "at", "with", "it", "is", "to", "be", "this", "that"}
)


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())
