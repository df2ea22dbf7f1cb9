"""When to ask back, and what: one question with choices, each of which is feedback that the edit grammar understands.

A prompt is ambiguous by its pictures where they do not show it (Twin-Co):
    δ = 1 − mean_i CLIP(p, caption_i)
with one caption per picture of the last batch. By rules it is where feedback points at nothing, contradicts itself or
what is kept, or was not understood, or where the prompt leaves open what a picture always has: a style, a background.
Twin-Co has δ and the question; the rules are ours.

Differences from the paper:
- s_i is a reward's score of the prompt and picture i itself instead of CLIP's of the prompt and a caption of it.
- Such scores have no level that means the same everywhere: CLIP's cosines of a picture and its own words are about 0.2
  to 0.35, another model's 0.8. So δ is measured against usual scores of the same reward, those of a reference set
  (its calibration) or of the session's earlier rounds, in their deviations; the 1 falls out:
      (δ − δ_usual) / deviation = (mean_usual − mean_i s_i) / deviation
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from .checks import RefinementError
from .edit_places import Places
from .edit_records import Edit
from .edit_words import EditLanguage, languages
from .edits import Outcome
from .prompt_parts import Prompt

# So far a round's mean lies seldom by chance: with the demo reward and rounds of four of its data's drawings, it was
# passed by 8 % of the rounds that showed all of their prompt against a calibration and 15 % against eight earlier
# pictures, by all with another background, 98 % or more with another thing, 43 and 73 % with another style.
THRESHOLD = 1.0
# Earlier pictures from which their scores' mean and deviation say something.
FEWEST = 8
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


@dataclass(frozen=True)
class Usual:
    """Scores of pictures with their own prompts.

    Attributes:
        mean, deviation: of the raw scores; the deviation is above 0.
        of: whose they are, for people.
    """

    mean: float
    deviation: float
    of: str


def usual_of(scores: Sequence[float], of: str) -> Usual | None:
    """Mean and standard deviation (n − 1) of scores; None where they are fewer than `FEWEST`, or all are equal."""
    values = [float(score) for score in scores]
    if len(values) < FEWEST or max(values) - min(values) <= 1e-6 * max(map(abs, values)):
        return None
    return Usual(statistics.fmean(values), statistics.stdev(values), of)


def ambiguity(scores: Sequence[float], usual: Usual, *, higher_is_better: bool = True) -> float:
    """By how many deviations the pictures show their prompt less than is usual; 0 = as usual, below 0 = better.

    Args:
        scores: of the last batch's pictures with the prompt they were made with, at least one.
        higher_is_better: of the reward; False for costs.

    Raises:
        RefinementError: there are no scores, or one is not finite.
    """
    values = [float(score) for score in scores]
    if not values or not all(map(math.isfinite, values)):
        raise RefinementError(f"Ambiguity needs one finite score per picture of the last round, not {values}.")
    below = (usual.mean - statistics.fmean(values)) / usual.deviation
    return below if higher_is_better else -below


def question(
    outcome: Outcome,
    *,
    before: str | None = None,
    unlike: float | None = None,
    threshold: float = THRESHOLD,
    ask_open: bool = False,
) -> Question | None:
    """The one question that is worth asking, or None. What feedback leaves unclear comes before what a prompt does.

    Args:
        outcome: of the last feedback.
        before: the prompt that the last pictures were made with; None = the outcome's.
        unlike: see `ambiguity`; None = only the rules decide.
        threshold: above which something is asked.
        ask_open: whether what the prompt leaves open is asked for where nothing else is to be asked.
    """
    language = languages()[0]
    prompt = Prompt.parse(outcome.prompt, language)
    found = _pronoun(outcome, prompt) or _contradiction(outcome) or _kept(outcome) or _unread(outcome)
    if found is not None:
        return found
    asks = unlike is not None and unlike > threshold
    if asks or ask_open:
        found = _open(prompt, language)
    if found is None and asks:
        found = _unlike(prompt, prompt if before is None else Prompt.parse(before, language))
    return found


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


def _unlike(prompt: Prompt, before: Prompt) -> Question | None:
    """What the last pictures were to show and the next ones are to show still."""
    shown = _things(before)
    choices = tuple(Choice(thing, f"more {thing}") for thing in _things(prompt) if thing in shown)
    return Question("The pictures do not show all of it. What matters most?", choices, "unlike") if choices else None


def _quoted(text: str) -> str:
    return text if len(text) <= _LONGEST_QUOTE else text[: _LONGEST_QUOTE - 1].rstrip() + "…"
