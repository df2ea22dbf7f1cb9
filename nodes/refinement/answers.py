"""What a language model, ours or a stranger's, may say as a new prompt: read, and refused where it cannot be one."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .answer_talk import spoken_prompt, without_thoughts
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
# Places at which JSON is looked for: more are no answer, and each costs a try.
_MOST_OBJECTS = 200
# What is meant as JSON, or as another program's data, and is none. Prompts have "{red|blue}" and "[cat|dog]".
_BROKEN = re.compile(r"""\{\s*["'][^"'\n]{1,40}["']\s*:|\{\s*\w+\s*:\s*["'\[{]|^\s*\[\s*["'{]|["']prompt["']\s*:""")
# How models say that there is no negative prompt.
_NOTHING = ("none", "n/a", "null", "nothing", "empty", "-", "(none)", "(empty)")
_FIELDS = {"prompt", "negative"}
# They show a text in another order than it is read.
_TURNING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
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


def read_answer(text: str, own: str = "") -> Answer:
    """The first fitting JSON object with "prompt", wherever it stands, or else the prompt as somebody says it.

    Args:
        own: the person's prompt and feedback, whose words are no talk, see `answer_talk`.

    Raises:
        CannotAnswer: it is neither, or what it says is no prompt.
    """
    if len(text) > LONGEST_ANSWER:
        raise CannotAnswer(f"the answer has {len(text)} letters, more than {LONGEST_ANSWER}")
    bare = without_thoughts(text.strip().strip("\ufeff\u200b")).strip()
    if not bare:
        raise CannotAnswer("there is no answer")
    found = list(_objects(bare))
    named = [values for values in found if "prompt" in values]
    if named:
        # Some repeat the question, which has other fields besides, before they answer it.
        return _from_values(next((values for values in named if not set(values) - _FIELDS), named[0]), own)
    if found or _is_other_json(bare):
        raise CannotAnswer('the answer has no "prompt" in its JSON')
    prompt, negative = _spoken(bare, own)
    return Answer(_checked(prompt, "prompt"), None if negative is None else _negative(negative))


def _objects(text: str) -> Iterator[Mapping[str, Any]]:
    """The JSON objects in a text that are not empty, outer ones before those in them."""
    decoder, start = json.JSONDecoder(), -1
    for _ in range(_MOST_OBJECTS):
        start = text.find("{", start + 1)
        if start < 0:
            return
        try:
            values, _ = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            continue
        if values:
            yield values


def _is_other_json(text: str) -> bool:
    """Whether text is JSON other than a string: a list, a number, null."""
    try:
        return not isinstance(json.loads(_FENCE.sub("", text)), str)
    except (ValueError, RecursionError):
        return False


def _from_values(values: Mapping[str, Any], own: str) -> Answer:
    unknown = sorted(set(values) - _FIELDS)
    if unknown:
        raise CannotAnswer(f'the answer has a field "{str(unknown[0])[:40]}", which means nothing here')
    prompt, negative = _checked(values["prompt"], "prompt"), values.get("negative")
    # Models talk within the fields, too.
    said = _checked(_spoken(prompt, own)[0], "prompt")
    return Answer(said, None if negative is None else _negative(negative))


def _spoken(text: str, own: str) -> tuple[str, str | None]:
    if _BROKEN.search(text):
        raise CannotAnswer("the answer is no JSON that can be read, and no plain prompt either")
    _refuse_marks(text, "prompt")
    return spoken_prompt(text, own)


def _negative(value: Any) -> str:
    text = _checked(value, "negative", empty=True)
    return "" if text.strip(" .").lower() in _NOTHING else text


def _checked(value: Any, name: str, *, empty: bool = False) -> str:
    if not isinstance(value, str):
        raise CannotAnswer(f'"{name}" is no text in the answer')
    text = " ".join(value.split())
    if not text and not empty:
        raise CannotAnswer(f'"{name}" is empty in the answer')
    if len(text) > LONGEST_PROMPT:
        raise CannotAnswer(f'"{name}" has {len(text)} letters in the answer, more than {LONGEST_PROMPT}')
    if any(unicodedata.category(letter) in ("Cc", "Cs") or letter in _TURNING for letter in text):
        raise CannotAnswer(f'"{name}" has control characters in the answer')
    if "\ufffd" in text:
        raise CannotAnswer(f'"{name}" has letters in the answer that are none')
    _refuse_marks(value, name)
    return text


def _refuse_marks(text: str, name: str) -> None:
    if _MARKS.search(text):
        raise CannotAnswer(f'"{name}" has the marks of a conversation in the answer')


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
    # Where the rules read nothing, the feedback may be in another language, and a right answer share no word with it.
    if asked.edits and asked.prompt.strip() and not set(words) & ({*_words(asked.prompt), *said} - _SMALL):
        raise CannotAnswer("it has no word of the prompt or the feedback")
    written, had = (
        f"{' '.join(_words(one))} | {' '.join(_words(two))}"
        for one, two in ((answer.prompt, answer.negative or ""), (asked.prompt, asked.negative))
    )
    spoken = len(said) >= _COPIED_FEEDBACK and not _SPOKEN.isdisjoint(said)
    if spoken and " ".join(said) in written and " ".join(said) not in had:
        raise CannotAnswer("it repeats the feedback instead of following it")
    negative = asked.negative if answer.negative is None else answer.negative
    if asked.edits and (answer.prompt, negative) == (" ".join(asked.prompt.split()), " ".join(asked.negative.split())):
        raise CannotAnswer("it changed nothing")
    before, after = " ".join(_words(asked.prompt)), " ".join(words)
    lost = [thing for thing in asked.kept if " ".join(_words(thing)) in before and " ".join(_words(thing)) not in after]
    if lost:
        raise CannotAnswer(f'it lost "{lost[0]}", which is kept')


# Words of what is said about a picture; feedback without any of them, "in the snow", may stand in a prompt as it is.
_SPOKEN = frozenset(
    {
        "make", "add", "remove", "change", "replace", "turn", "put", "give", "keep", "use", "let", "please", "should",
        "must", "could", "would", "can", "want", "need", "like", "wish", "prefer", "i", "we", "you", "it", "more",
        "less", "not", "no", "instead",
    }
)  # fmt: skip
# Words that two texts may share without speaking of the same.
_SMALL = frozenset(
    {"a", "an", "the", "of", "and", "or", "in", "on", "at", "with", "it", "is", "to", "be", "this", "that"}
)


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())
