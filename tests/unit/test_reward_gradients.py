"""How rewards pull at what was chosen: in z-scores, over the whole round, and what a reward without a pull gets."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from attune.nodes.refinement.checks import RefinementError
from attune.nodes.refinement.draft import Judge
from attune.nodes.refinement.dynamic_weights import NO_PULL, WeightsConfig, by_rule, weigh
from attune.nodes.refinement.records import Feedback, Picture, Round, Schedule
from attune.nodes.refinement.reward_gradients import choice_gram, comparable
from attune.nodes.refinement.running_scores import running_scores
from attune.nodes.rewards.dialogue import diversity_credits

PICTURES = torch.rand(5, 4, 4, 3, generator=torch.Generator().manual_seed(3))
ROLES = {"red": "relevance", "green": "", "variety": "diversity"}


class Colour:
    """The mean of a channel, in a unit of its own."""

    differentiable, higher_is_better, contextual, compares_batch = True, True, False, False
    uses_prompt, calibration = False, None

    def __init__(self, channel: int, unit: float = 1.0, *, better: bool = True) -> None:
        self.channel, self.unit, self.higher_is_better = channel, unit, better
        self.name = self.reward_id = f"{channel} {unit}"

    def __call__(self, images, prompts, context=None):
        return self.unit * images[..., self.channel].mean((1, 2))


class Variety(Colour):
    """How far a picture is from the others of its batch."""

    contextual = compares_batch = True

    def __call__(self, images, prompts, context=None):
        features = images.flatten(1)
        return diversity_credits(features / features.norm(dim=1, keepdim=True), prompts)


def judges(unit: float = 1.0, *, better: bool = True) -> tuple[Judge, ...]:
    rewards = {"red": Colour(0), "green": Colour(1, unit, better=better), "variety": Variety(2)}
    return tuple(Judge(name, ROLES[name], reward) for name, reward in rewards.items())


def running_of(found: tuple[Judge, ...], images: torch.Tensor = PICTURES) -> dict:
    scores = {judge.name: judge.reward(images, ["a"] * len(images)).tolist() for judge in found}
    return running_scores([[{name: values[place] for name, values in scores.items()} for place in range(len(images))]])


def gram(found: tuple[Judge, ...], images: torch.Tensor = PICTURES, chosen: tuple[int, ...] = (1,)) -> np.ndarray:
    return choice_gram(found, images, chosen, "a", running=running_of(found, images))


@pytest.mark.parametrize("rule", ["mgda", "gradient influence"])
def test_the_unit_of_a_reward_has_no_part_in_the_weights(rule):
    weights = [weigh(WeightsConfig(rule), ROLES, 2, gram=gram(judges(unit))).after for unit in (1.0, 100.0)]
    assert weights[0] == pytest.approx(weights[1], rel=1e-3)
    assert 0.01 < weights[0]["green"] < 0.99


def test_products_are_of_gradients_of_z_scores():
    """∂z/∂x of a channel's mean is 1/(h·w·deviation) in that channel, 0 elsewhere; a cost pulls the other way."""
    found = gram(judges(7.0))
    for index, channel in enumerate((0, 1)):
        deviation = float(PICTURES[..., channel].mean((1, 2)).std(correction=0))
        assert found[index, index] == pytest.approx(1 / (16 * deviation**2), rel=1e-4)
    assert found[0, 1] == 0
    turned = gram(judges(7.0, better=False))
    assert turned[1, 2] == pytest.approx(-found[1, 2]) and abs(found[1, 2]) > 1e-3
    assert turned[0, 2] == pytest.approx(found[0, 2])


def test_a_reward_that_compares_is_asked_about_the_whole_round():
    """Of one liked picture alone diversity is 0 whatever it looks like; among its round it has a direction."""
    images = PICTURES.clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(Variety(2)(images, ["a"] * 5)[1], images)
    deviation = running_of(judges())["variety"].deviation
    assert gram(judges())[2, 2] == pytest.approx(float(slope[1].pow(2).sum()) / deviation**2, rel=1e-4)
    assert gram(judges())[2, 2] > 0


def test_a_reward_that_pulls_nowhere_gets_no_more_than_the_rule_gives_it():
    """A round of one picture has no diversity, and nothing to measure a deviation by; here the colours have one of
    earlier rounds."""
    found = judges()
    known = running_of(found) | {"variety": running_scores([])}
    known["variety"] = running_of(found, PICTURES[:1])["variety"]
    table = choice_gram(found, PICTURES[:1], (0,), "a", running=known)
    assert table[2].tolist() == [0, 0, 0] and table[0, 0] > 0
    rule = by_rule(WeightsConfig(), ROLES, 2)
    weights = weigh(WeightsConfig("mgda"), ROLES, 2, gram=table)
    assert weights.after["variety"] == pytest.approx(rule["variety"]) and weights.details[NO_PULL] == ["variety"]
    assert sum(weights.after.values()) == pytest.approx(1)
    # Both colours are orthogonal: w ∝ 1/length².
    assert weights.after["red"] / weights.after["green"] == pytest.approx(table[1, 1] / table[0, 0])
    before = {"red": 0.5, "green": 0.3, "variety": 0.2}
    moved = weigh(WeightsConfig("gradient influence"), ROLES, 2, before=before, gram=table)
    assert moved.details["influence"][2] == 0 and sum(moved.after.values()) == pytest.approx(1)


@pytest.mark.parametrize("rule", ["mgda", "gradient influence"])
def test_where_nothing_pulls(rule):
    before = {"red": 0.5, "green": 0.3, "variety": 0.2}
    weights = weigh(WeightsConfig(rule), ROLES, 2, before=before, gram=np.zeros((3, 3)))
    expected = by_rule(WeightsConfig(), ROLES, 2) if rule == "mgda" else before
    assert weights.after == pytest.approx(expected)
    assert rule != "mgda" or weights.details[NO_PULL] == list(ROLES)


def test_rewards_without_a_gradient_are_refused():
    found = judges()
    found[1].reward.differentiable = False
    with pytest.raises(RefinementError, match="green has no gradient"):
        gram(found)


def test_pictures_that_a_gate_held_back_are_not_asked_about():
    def a_round(*scores: dict[str, float]) -> Round:
        pictures = tuple(Picture(f"{place}a" * 32, place, found) for place, found in enumerate(scores))
        return Round(
            "a" * 32, None, 1, 0, "a cat", "", {}, Schedule("linear", 2, 1.0, tuple(range(len(scores)))), None,
            pictures, Feedback(liked=(0,)), 1.0, "", "", 1,
        )  # fmt: skip

    assert comparable(a_round({"red": 1.0}, {}, {"red": 2.0})) == [0, 2]
    assert comparable(a_round({}, {})) == [0, 1]
