"""Simulated people who refine a picture of the demo model: a hidden wish, noisy choices, comments in plain words.

A person means a picture of one concept in one style on one background, and, where that is asked for, of one size at one
place. It looks at real pictures and sees in each what is there: the background by its pixels, style and concept by a
judge that nothing is trained on. From these it

    chooses   the picture with most of what is meant, by a softmax over the share of matched attributes, so that close
              ones are mixed up: P(i) ∝ exp(value_i / noise). The value is that share, and once more the share of what
              it has no words for: the rest can be asked for later
    comments  on one attribute that the chosen picture lacks, in one of many ways to say it, as far as it has words
    accepts   a picture in which it sees all that is meant

A person may be wrong about what it sees (`blunder`), say nothing (`silence`), look for what can be said in its own
order, or know a thing only when it sees it (`wordless`): many can tell the style they mean from others, and few can
name it; and where they see it, they may ask to keep it (`keeps`). All draws follow from the seed. For evidence and for
trying a workflow without people; it is no model of taste.

**Where it is used.** In a graph, the node Simulated Person answers Commit Round, and Repeat Rounds makes rounds until
it accepts: the template `refine_without_a_person`, in the page or on a server without one (help pages
AttuneSimulatedPerson and AttuneRepeatRounds). In a program:

    judge = load_reward("workflows/demo/attune_demo_judge.safetensors", "cpu")
    person = SimulatedPerson(data.Attributes("cat", "flat", "blue"), Eyes(judge), Habits(), seed=7)
    prompt = person.first_wish()           # "a cat": the session's first wish
    answer = person.answer(images)         # of every round: answer.chosen, answer.comment, answer.accepted

Whoever measures a loop with many people (`tests/evidence/_refine_trial.py`) draws what they mean and their seeds.

Source: ours.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..interfaces import TrainingError
from . import data
from .pipeline import prompt_text
from .quality import background_of

if TYPE_CHECKING:
    from .drawing_eyes import DrawingEyes

ATTRIBUTES = ("concept", "style", "background")
# All that a caption of the demo model can say; `Eyes` do not see the last two, `drawing_eyes.DrawingEyes` do.
ALL_ATTRIBUTES = (*ATTRIBUTES, "size", "position")
# {what} is the wished value, {was} what is seen instead.
PHRASES = {
    "background": (
        "make the background {what}",
        "the background should be {what}",
        "I'd like a {what} background please",
        "put it on a {what} background",
        "not {was}, the background should be {what}",
    ),
    "style": (
        "in a {what} style",
        "make it look {what}",
        "the style should be {what}, not {was}",
        "please use a {what} style instead",
    ),
    "concept": (
        "replace the {was} with {a_what}",
        "it should be {a_what}",
        "I want {a_what} instead of the {was}",
    ),
    "size": (
        "make it {what}",
        "it should be {what}",
        "I want it {what}, please",
    ),
    "position": (
        "put it {what}",
        "it should be {what}",
        "{what} please",
        "it should be {what}, not {was}",
    ),
}
# A caption has no words for the middle, where a drawing is that has none.
PLACE_WORDS = {**data.POSITION_WORDS, "center": "in the middle"}


@dataclass(frozen=True)
class Habits:
    """How careful a person is.

    Attributes:
        noise: of choices, > 0; 0.05 nearly always takes the best, 1 nearly any.
        blunder: probability of mistaking an attribute of a picture for another one, 0 … 1.
        silence: probability of not commenting on a round, 0 … 1.
        wordless: of `ALL_ATTRIBUTES`, those that it chooses by and has no words for.
        keeps: whether a comment on a picture that has what it has no words for also asks to keep that.
    """

    noise: float = 0.15
    blunder: float = 0.05
    silence: float = 0.1
    wordless: tuple[str, ...] = ()
    keeps: bool = False

    def __post_init__(self) -> None:
        if not self.noise > 0:
            raise TrainingError(f"The noise of choices must be above 0, not {self.noise!r}.")
        for name in ("blunder", "silence"):
            if not 0 <= getattr(self, name) <= 1:
                raise TrainingError(f"{name} is a probability, not {getattr(self, name)!r}.")
        if unknown := set(self.wordless) - set(ALL_ATTRIBUTES):
            raise TrainingError(
                f"A picture has {', '.join(ALL_ATTRIBUTES)}; there is no {min(unknown)!r} to have words for."
            )


@dataclass(frozen=True)
class Answer:
    """What a person says to a round.

    Attributes:
        chosen: position of the picture. comment: "" = nothing. accepted: whether it is what was meant.
        speechless: whether something is missing that it has no words for, and nothing else.
    """

    chosen: int
    comment: str
    accepted: bool
    speechless: bool = False


class Eyes:
    """What is seen in pictures.

    Args:
        judge: has `image_features` and `text_features` of unit vectors, such as `features.DemoReward`.
    """

    def __init__(self, judge: object) -> None:
        self.judge = judge
        self._concepts = judge.text_features([prompt_text(name) for name in data.CONCEPT_NAMES])

    @torch.no_grad()
    def see(self, images: torch.Tensor) -> list[data.Attributes]:
        """Images [B, 64, 64, 3] in [0, 1] → concept, style and background of each."""
        features = self.judge.image_features(images)
        backgrounds = background_of(images)
        concepts = [data.CONCEPT_NAMES[place] for place in (features @ self._concepts.T).argmax(1)]
        found = []
        for feature, concept, background in zip(features, concepts, backgrounds, strict=True):
            texts = self.judge.text_features([prompt_text(concept, style, background) for style in data.STYLES])
            found.append(data.Attributes(concept, data.STYLES[int((texts @ feature).argmax())], background))
        return found


def share(seen: data.Attributes, meant: data.Attributes, wishes: Sequence[str] = ATTRIBUTES) -> float:
    """Of the attributes `wishes` that agree, 0 … 1."""
    return sum(getattr(seen, name) == getattr(meant, name) for name in wishes) / len(wishes)


class SimulatedPerson:
    """See the module.

    Args:
        meant: the hidden wish.
        eyes: with which it looks.
        habits: how careful it is.
        seed: of everything it draws.
        wishes: of `ALL_ATTRIBUTES`, which of what is meant it looks at and speaks of; its eyes must see them.
    """

    def __init__(
        self,
        meant: data.Attributes,
        eyes: Eyes | DrawingEyes,
        habits: Habits | None = None,
        *,
        seed: int = 0,
        wishes: Sequence[str] = ATTRIBUTES,
    ) -> None:
        self.meant, self.eyes, self.habits, self.wishes = meant, eyes, habits or Habits(), tuple(wishes)
        if not self.wishes or set(self.wishes) - set(ALL_ATTRIBUTES):
            raise TrainingError(f"A person wishes for some of {', '.join(ALL_ATTRIBUTES)}; not for {wishes!r}.")
        self._draws = np.random.default_rng([seed, 23])

    def first_wish(self) -> str:
        """What it says at first: the concept alone, as people begin vaguely."""
        return prompt_text(self.meant.concept)

    def answer(self, images: torch.Tensor) -> Answer:
        """Look at a round's pictures [B, 64, 64, 3] and say something."""
        seen = [self._mistaken(found) for found in self.eyes.see(images)]
        shares = np.array([share(found, self.meant, self.wishes) for found in seen])
        values = shares + self._beyond_words(seen)
        weights = np.exp((values - values.max()) / self.habits.noise)
        chosen = int(self._draws.choice(len(seen), p=weights / weights.sum()))
        accepted = shares[chosen] == 1
        silent = accepted or self._draws.random() < self.habits.silence
        wrong = [name for name in self.wishes if getattr(seen[chosen], name) != getattr(self.meant, name)]
        sayable = [name for name in wrong if name not in self.habits.wordless]
        comment = "" if silent or not sayable else self._comment(seen[chosen], sayable) + self._keeping(wrong)
        return Answer(chosen, comment, bool(accepted), speechless=bool(wrong) and not sayable)

    def _beyond_words(self, seen: Sequence[data.Attributes]) -> np.ndarray:
        """Of what it has no words for, the share that each picture has; 0 where it has words for all."""
        silent = [name for name in self.wishes if name in self.habits.wordless]
        return np.array([share(found, self.meant, silent) if silent else 0.0 for found in seen])

    def _keeping(self, wrong: Sequence[str]) -> str:
        right = [name for name in self.wishes if name in self.habits.wordless and name not in wrong]
        return "".join(f", keep the {name}" for name in right) if self.habits.keeps else ""

    def _mistaken(self, seen: data.Attributes) -> data.Attributes:
        """What the person takes it for."""
        values = {name: getattr(seen, name) for name in self.wishes}
        choices: dict[str, Sequence[str]] = {
            "concept": data.CONCEPT_NAMES, "style": data.STYLES, "background": list(data.BACKGROUNDS),
            "size": list(data.SIDES), "position": list(data.POSITIONS),
        }  # fmt: skip
        for name in self.wishes:
            if self._draws.random() < self.habits.blunder:
                values[name] = str(self._draws.choice(choices[name]))
        return dataclasses.replace(seen, **values)

    def _comment(self, seen: data.Attributes, wrong: Sequence[str]) -> str:
        name = str(self._draws.choice(wrong))
        phrase = str(self._draws.choice(PHRASES[name]))
        what, was = getattr(self.meant, name), getattr(seen, name)
        if name == "position":
            what, was = PLACE_WORDS[what], PLACE_WORDS[was]
        return phrase.format(what=what, was=was, a_what=data.with_article(what))
