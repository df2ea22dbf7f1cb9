"""Simulated people who like a look that they have no word for, and that one of the session's rewards measures.

A person means one concept on one background, and one look: sharp, rich in contrast, or saturated, by turns, and more so
than the model draws it: a picture has the look where its statistic lies three deviations above the mean of what the
model draws of this concept on this background. The person chooses by it first, cannot name it, and goes on with its
best picture where only the look is missing. Which of the three it likes nobody is told; the weights of the session's
rewards (the three statistics, and how well picture and prompt fit) are learned from its choices.

In `data.Attributes` the look stands in the place of the style, in which these people take no interest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from attune.nodes.refinement.draft import Judge
from attune.nodes.rewards.statistics import MEASURES, StatisticReward
from attune.training.demo import data
from attune.training.demo.drawing_eyes import DrawingEyes
from attune.training.demo.pipeline import prompt_text
from attune.training.demo.simulated_person import Answer, Habits, SimulatedPerson

LOOKS = ("sharpness", "contrast", "saturation")
LIKED, OTHER = "liked look", "other look"
DEVIATIONS = 3.0
# How many pictures tell what the model draws without the person.
PICTURES = 24


class LookEyes:
    """What is seen in pictures, the look included.

    Args:
        eyes: for all else. look: of `LOOKS`. least: a statistic of at least this is the liked look.
    """

    def __init__(self, eyes: DrawingEyes, look: str, least: float) -> None:
        self.eyes, self.look, self.least = eyes, look, least

    def see(self, images: torch.Tensor) -> list[data.Attributes]:
        """Images [B, 64, 64, 3] in [0, 1] → what each shows."""
        values = MEASURES[self.look](images).tolist()
        return [
            replace(seen, style=LIKED if value >= self.least else OTHER)
            for seen, value in zip(self.eyes.see(images), values, strict=True)
        ]


class LookingPerson(SimulatedPerson):
    """Goes on with its best picture where it has no words for what is missing."""

    def answer(self, images: torch.Tensor) -> Answer:
        return replace(super().answer(images), speechless=False)


def look_of(number: int) -> str:
    """The look that a seed's person of this number likes."""
    return LOOKS[number % len(LOOKS)]


def wish_text(wish: data.Attributes) -> str:
    """All that the person has words for."""
    return prompt_text(wish.concept, background=wish.background)


def looking_person(
    wish: data.Attributes, eyes: DrawingEyes, look: str, usual: torch.Tensor, *, seed: int
) -> LookingPerson:
    """
    Args:
        usual: pictures [N, 64, 64, 3] that the model draws of `wish_text`.
    """
    values = MEASURES[look](usual)
    least = float(values.mean() + DEVIATIONS * values.std())
    habits = Habits(wordless=("style",))
    return LookingPerson(replace(wish, style=LIKED), LookEyes(eyes, look, least), habits, seed=seed)


def judges() -> Sequence[Judge]:
    """The session's rewards beside the fit of prompt and picture."""
    return [Judge(look, "", StatisticReward(look)) for look in LOOKS]
