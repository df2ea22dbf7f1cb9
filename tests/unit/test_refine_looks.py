"""People who like a look: what they see as it, and how they go on."""

from __future__ import annotations

import pytest
import torch

from attune.tests.evidence._refine_looks import DEVIATIONS, LIKED, LOOKS, OTHER, Look, LookEyes, looking_person
from attune.training.demo import data


class Ground:
    """Sees the background that it is told; the rest is a cat."""

    def __init__(self, *backgrounds: str) -> None:
        self.backgrounds = backgrounds

    def see(self, images: torch.Tensor) -> list[data.Attributes]:
        return [data.Attributes("cat", "flat", name) for name in self.backgrounds[: len(images)]]


def striped(*heights: float) -> torch.Tensor:
    """Grey pictures [N, 64, 64, 3] with stripes so far from the mean: the deviation is their contrast."""
    stripes = torch.tensor([1.0, -1.0]).repeat(32).view(64, 1, 1).expand(64, 64, 3)
    return torch.stack([0.5 + height * stripes for height in heights])


@pytest.mark.parametrize(
    ("goal", "seen"), [("as high as possible", [OTHER, LIKED]), ("as low as possible", [LIKED, OTHER])]
)
def test_a_look_lies_on_one_side_and_on_the_right_background(goal, seen) -> None:
    look = Look("contrast", goal)
    least = 0.2 if goal == "as high as possible" else -0.2
    shown = striped(0.1, 0.3)
    assert [found.style for found in LookEyes(Ground("red", "red"), look, least, "red").see(shown)] == seen
    assert [found.style for found in LookEyes(Ground("blue", "blue"), look, least, "red").see(shown)] == [OTHER] * 2


@pytest.mark.parametrize("look", LOOKS)
def test_a_person_likes_more_than_is_usual_and_goes_on_without_words(look: Look) -> None:
    usual = striped(0.1, 0.12, 0.14)
    scores = look.judge().reward(usual, [""] * 3)
    wish = data.Attributes("cat", "flat", "red")
    person = looking_person(wish, Ground("red", "red"), look, usual, seed=1)
    assert person.eyes.least == pytest.approx((scores.mean() + DEVIATIONS * scores.std()).item())
    assert {found.style for found in person.eyes.see(usual[:2])} == {OTHER}
    answer = person.answer(usual[:2])
    assert not answer.accepted and not answer.speechless and answer.comment == "", "only the look is missing"
