"""Simulated people who like a look that they have no word for, and have connected a reward that measures it.

A person means one concept on one background, and one look: sharper, flatter, softer, or richer in contrast, by turns,
and more so than the loop draws by itself. A picture has the look where it is on the right background and its statistic
lies three deviations beyond the mean of 24 pictures that the loop draws of these words in its second round, wrong
backgrounds and all. Were scores Gaussian, one picture in 700 would have it, and one best of thirty in 25; but scores
are not, and the loop moves towards what is chosen. There is no upper end. The person chooses by the look first, cannot
name it, and goes on with the best picture of a round where only the look is missing. It may overlook the look by
mistake, and never imagines it.

The session's rewards are how well picture and prompt fit, and the very statistic by which the person judges, in the
direction that it likes: nothing is inferred of who likes what, and nothing tells a look that the statistic misses. The
weights are those of Dynamic Weights' rule for a reward of relevance and one without a role, a half each.

In `data.Attributes` the look stands in the place of the style, in which these people take no interest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from attune.nodes.refinement.draft import Judge
from attune.nodes.rewards.statistics import Goal, Statistic, StatisticReward
from attune.training.demo import data
from attune.training.demo.drawing_eyes import DrawingEyes
from attune.training.demo.simulated_person import Answer, Habits, SimulatedPerson

LIKED, OTHER = "liked look", "other look"
DEVIATIONS = 3.0
# How many pictures tell what the loop draws by itself.
PICTURES = 24


@dataclass(frozen=True)
class Look:
    """What is liked: a statistic as high or as low as possible."""

    statistic: Statistic
    goal: Goal

    def judge(self) -> Judge:
        """The reward that measures it."""
        return Judge("look", "", StatisticReward(self.statistic, self.goal))


LOOKS = (
    Look("sharpness", "as high as possible"),
    Look("contrast", "as low as possible"),
    Look("sharpness", "as low as possible"),
    Look("contrast", "as high as possible"),
)


class LookEyes:
    """What is seen in pictures, the look included.

    Args:
        eyes: for all else.
        look: what is liked. least: a score of at least this is the liked look.
        background: where the look can be seen; its statistic says nothing of pictures on others.
    """

    def __init__(self, eyes: DrawingEyes, look: Look, least: float, background: str) -> None:
        self.eyes, self.look, self.least, self.background = eyes, look, least, background

    def see(self, images: torch.Tensor) -> list[data.Attributes]:
        """Images [B, 64, 64, 3] in [0, 1] → what each shows."""
        scores = self.look.judge().reward(images, [""] * len(images)).tolist()
        found = []
        for seen, score in zip(self.eyes.see(images), scores, strict=True):
            liked = score >= self.least and seen.background == self.background
            found.append(replace(seen, style=LIKED if liked else OTHER))
        return found


class LookingPerson(SimulatedPerson):
    """Goes on with a round's best picture where it has no words for what is missing."""

    def answer(self, images: torch.Tensor) -> Answer:
        return replace(super().answer(images), speechless=False)


def look_of(number: int) -> Look:
    """The look that a seed's person of this number likes."""
    return LOOKS[number % len(LOOKS)]


def looking_person(
    wish: data.Attributes, eyes: DrawingEyes, look: Look, usual: torch.Tensor, *, seed: int
) -> LookingPerson:
    """
    Args:
        usual: pictures [N, 64, 64, 3] that the loop draws of all that the person has words for.
    """
    scores = look.judge().reward(usual, [""] * len(usual))
    least = float(scores.mean() + DEVIATIONS * scores.std())
    seeing = LookEyes(eyes, look, least, wish.background)
    return LookingPerson(replace(wish, style=LIKED), seeing, Habits(wordless=("style",)), seed=seed)


def judges(fit: Judge, look: Look) -> Sequence[Judge]:
    """The session's rewards."""
    return fit, look.judge()
