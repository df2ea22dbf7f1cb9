"""When to ask back, and what: one question with choices, each of which is feedback that the edit grammar understands.

A prompt is ambiguous by its pictures where they do not show it (Twin-Co):
    δ = 1 − mean_i CLIP(p, caption_i)
with one caption per picture of the last batch, and any text-text similarity in place of CLIP's. By rules it is where
feedback points at nothing, contradicts itself or what is kept, or was not understood, or where the prompt leaves open
what a picture always has: a style, a background. Twin-Co has δ and the question; the rules are ours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from .edit_places import Places
from .edit_records import Edit
from .edit_words import EditLanguage, languages
from .edits import Outcome
from .prompt_parts import Prompt
from .records import RefinementError

# CLIP's cosine of a prompt and a caption that says the same is about 0.8 to 1, of unrelated ones 0.5 to 0.7.
THRESHOLD = 0.35
_MOST_CHOICES = 4
_LONGEST_QUOTE = 80
Cause = Literal["pronoun", "contradiction", "kept", "unread", "open", "unlike"]


@dataclass(frozen=True)
class Choice:
    """One answer: what is shown, and the feedback that it stands for ("" = change nothing)."""

    label: str
    feedback: str


@dataclass(frozen=True)
class Question:
    """One thing that is to be made clear, and why it is asked."""

    text: str
    choices: tuple[Choice, ...]
    cause: Cause


def ambiguity(similarities: Sequence[float]) -> float:
    """δ = 1 − mean_i s_i; 0 = every caption says what the prompt says.

    Args:
        similarities: of the prompt with each picture's caption, −1…1, at least one.

    Raises:
        RefinementError: none, or one that is no cosine.
    """
    values = [float(value) for value in similarities]
    if not values:
        raise RefinementError("Ambiguity needs the similarity of the prompt with at least one caption; there is none.")
    wrong = [value for value in values if not math.isfinite(value) or abs(value) > 1 + 1e-6]
    if wrong:
        raise RefinementError(f"A similarity of prompt and caption lies between −1 and 1; {wrong[0]} does not.")
    return 1 - math.fsum(values) / len(values)


def question(
    outcome: Outcome, *, similarities: Sequence[float] = (), threshold: float = THRESHOLD, ask_open: bool = False
) -> Question | None:
    """The one question that is worth asking, or None. What feedback leaves unclear comes before what a prompt does.

    Args:
        outcome: of the last feedback.
        similarities: see `ambiguity`; none = only the rules decide.
        threshold: δ above which something is asked.
        ask_open: whether what the prompt leaves open is asked for where nothing else is to be asked.
    """
    language = languages()[0]
    prompt = Prompt.parse(outcome.prompt, language)
    found = _pronoun(outcome, prompt) or _contradiction(outcome) or _kept(outcome) or _unread(outcome)
    if found is not None:
        return found
    unlike = bool(similarities) and ambiguity(similarities) > threshold
    if unlike or ask_open:
        found = _open(prompt, language)
    return found or (_unlike(prompt) if unlike else None)


def open_attributes(prompt: str) -> tuple[str, ...]:
    """What a prompt leaves open of what every picture has: "style", "background"; "subject" where it names no thing."""
    language = languages()[0]
    parsed = Prompt.parse(prompt, language)
    if parsed.subject() is None:
        return ("subject",)
    looking = _looking(parsed, language)
    has_style = looking.find_style() is not None
    # A scene has its background by itself; only a thing without any place stands nowhere.
    phrases = parsed.phrases()
    somewhere = looking.find_background() is not None or any(
        parsed.low(phrase.start, phrase.start + 1)[0] in _PLACES for phrase in phrases if phrase.core > phrase.start
    )
    return (*(() if has_style else ("style",)), *(() if somewhere else ("background",)))


_PLACES = {"in", "on", "at", "under", "over", "above", "by", "near", "inside", "before", "behind", "against", "along"}


def _looking(prompt: Prompt, language: EditLanguage) -> Places:
    places = Places()
    places.prompt, places.language = prompt, language
    return places


def _things(prompt: Prompt) -> list[str]:
    """The things a prompt names, by their last words."""
    found = [
        prompt.said(prompt.compound(phrase), phrase.stop) for phrase in prompt.phrases() if phrase.core < phrase.stop
    ]
    return list(dict.fromkeys(found))[:_MOST_CHOICES]


def _pronoun(outcome: Outcome, prompt: Prompt) -> Question | None:
    unclear = [
        refused.edit for refused in outcome.refused if not refused.edit.what and refused.edit.operation == "remove"
    ]
    if not unclear:
        return None
    choices = tuple(Choice(thing, f"remove the {thing}") for thing in _things(prompt))
    return Question(f'What is meant by "{_quoted(unclear[0].said)}"?', choices, "pronoun")


def _contradiction(outcome: Outcome) -> Question | None:
    """Two edits of one feedback that cannot both be meant."""
    edits = [*outcome.edits, *(refused.edit for refused in outcome.refused)]
    for index, first in enumerate(edits):
        for second in edits[index + 1 :]:
            if first.said and second.said and first.said != second.said and _contradict(first, second):
                choices = tuple(Choice(edit.said, edit.said) for edit in (first, second))
                text = f'"{_quoted(first.said)}" and "{_quoted(second.said)}" cannot both be. Which one?'
                return Question(text, choices, "contradiction")
    return None


def _contradict(first: Edit, second: Edit) -> bool:
    pair = {first.operation, second.operation}
    same = _key(first.what) == _key(second.what)
    if first.operation == second.operation:
        if first.operation == "size":
            return same and first.amount * second.amount < 0
        if first.operation in ("style", "background"):
            return not same
        if first.operation in ("position", "count", "replace"):
            return same and (first.to, first.amount) != (second.to, second.amount)
        if first.operation == "add" and first.at and _key(first.at) == _key(second.at):
            kinds = [languages()[0].kind(edit.what.split()[-1]) for edit in (first, second)]
            return kinds[0] is not None and kinds[0] is kinds[1] and not same
        return False
    return same and pair in ({"add", "remove"}, {"more", "less"}, {"more", "remove"}, {"add", "less"})


def _key(words: str) -> str:
    low = [word for word in words.lower().split() if word not in ("a", "an", "the", "some")]
    return " ".join(map(languages()[0].singular, low))


def _kept(outcome: Outcome) -> Question | None:
    for refused in outcome.refused:
        kept = next((kept for kept in outcome.kept if f'"{kept}" is kept' in refused.reason), None)
        if kept:
            choices = (Choice("change it", f"{kept} may change. {refused.edit.said}"), Choice("keep it", ""))
            return Question(f'"{kept}" is kept. Is it to change after all?', choices, "kept")
    return None


def _unread(outcome: Outcome) -> Question | None:
    if not outcome.unread:
        return None
    said = outcome.unread[0].strip()
    text = f'"{_quoted(said)}" was not understood. What is to happen?'
    words = said.split()
    if len(words) > 4 or not all(word.replace("-", "").isalpha() for word in words):
        return Question(text, (Choice("nothing", ""),), "unread")
    choices = (
        Choice(f"add {said}", f"add {said}"),
        Choice(f"less {said}", f"less {said}"),
        Choice(f"no {said}", f"no {said}"),
        Choice("nothing", ""),
    )
    return Question(text, choices, "unread")


def _open(prompt: Prompt, language: EditLanguage) -> Question | None:
    left = open_attributes(prompt.text)
    if "subject" in left:
        return Question("What is to be seen?", (), "open")
    if "style" in left:
        styles = [style for style, form in language.styles.items() if form == "noun"][:2]
        styles += [style for style, form in language.styles.items() if form == "adjective"][:2]
        return Question("Which style?", tuple(Choice(style, f"style: {style}") for style in styles), "open")
    if "background" in left:
        colours = ("white", "black", "blue", "green")
        return Question(
            "Which background?", tuple(Choice(colour, f"background: {colour}") for colour in colours), "open"
        )
    return None


def _unlike(prompt: Prompt) -> Question | None:
    choices = tuple(Choice(thing, f"more {thing}") for thing in _things(prompt))
    return Question("The pictures do not show all of it. What matters most?", choices, "unlike") if choices else None


def _quoted(text: str) -> str:
    return text if len(text) <= _LONGEST_QUOTE else text[: _LONGEST_QUOTE - 1].rstrip() + "…"
